#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A target with peer-to-peer memory under stress: queues that are full, a host that stops
# answering while the drive is slow, too little memory.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

UNPLUGGED=/sys/module/rnic_loop/parameters/unplugged
DEPTH=256	# of each of the two queues, as RDMA allows
SPARE=$((24 << 20))	# bytes of memory that are left when it is short

held()
{
	local pool=/sys/bus/pci/devices/$provider/p2pmem

	echo $(($(< "$pool"/size) - $(< "$pool"/available)))
}

queues_are_long()
{
	(($(held) >= DEPTH * 2048))
}

# Every command is served, and the queues really are long.
deep()
{
	local before status=0

	p2p_disconnect && p2p_unlink_port &&
		echo $DEPTH > $P2P_NVMET/ports/1/param_max_queue_size &&
		p2p_link_port && p2p_connect -Q $DEPTH &&
		(($(< "$(p2p_controller)"/sqsize) == DEPTH - 1)) || return
	before=$(p2p_stat fallbacks)
	p2p_begin_load --bs=4k --rw=randwrite --size=16m --iodepth=$((2 * DEPTH)) \
		--loops=1000000 --verify=crc32c --verify_fatal=1 --serialize_overlap=1 ||
		return
	p2p_wait "$P2P_LIMIT" queues_are_long || status=1
	p2p_end_verified_load && (($(p2p_stat fallbacks) == before)) && return $status
}

drive_is_busy()
{
	(($(held) >= 2 << 20))
}

host_is_given_up()
{
	p2p_logged "keep-alive timer (2 seconds) expired" > /dev/null
}

host_is_back()
{
	grep -q live "$(p2p_controller)"/state
}

# While the drive works on commands of a host that has gone, the target keeps their memory.
# Commands that have not reached the drive fail when the cable is unplugged.
host_vanishes()
{
	local status=0

	p2p_disconnect && p2p_connect -k 2 && p2p_mark_log &&
		p2p_begin_load --rw=randwrite --iodepth=64 --size=16M --loops=1000000 \
			--verify=crc32c --verify_fatal=1 --serialize_overlap=1 || return
	[[ $(p2p_ask stall drive0) == ok ]] && p2p_wait "$P2P_LIMIT" drive_is_busy &&
		sleep 1 || status=1
	echo 1 > $UNPLUGGED
	p2p_wait "$P2P_LIMIT" host_is_given_up || status=1
	if p2p_pool_is_free "$provider"; then
		ktap_print_msg "the drive was done before the host was given up"
		status=1
	fi
	[[ $(p2p_ask resume drive0) == ok ]] || status=1
	p2p_wait "$P2P_LIMIT" p2p_pool_is_free "$provider" || status=1
	echo 0 > $UNPLUGGED
	p2p_wait "$P2P_LIMIT" host_is_back || status=1
	p2p_end_verified_load && return $status
}

# --- memory ---

reclaimed()
{
	awk '/^pgsteal_(kswapd|direct) / { n += $2 } END { print n }' /proc/vmstat
}

# Leave only what read_all() reads to be reclaimed.
fill_memory()
{
	local available

	available=$(awk '/^MemAvailable:/ { print $2 * 1024 }' /proc/meminfo)
	mkdir -p /tmp/full && mount -t tmpfs -o size=100% full /tmp/full &&
		head -c $((available - SPARE)) /dev/zero > /tmp/full/file
}

read_all()
{
	until [[ -e /tmp/enough ]]; do
		dd if="$1" of=/dev/null bs=1M status=none
	done
}

short_of_memory()
{
	local before reader status=0 requests fallbacks pages

	fill_memory || status=1
	before=$(reclaimed) requests=$(p2p_stat requests) fallbacks=$(p2p_stat fallbacks)
	rm -f /tmp/enough
	read_all "$(p2p_disk drive1)" &
	reader=$!
	modest || status=1
	pages=$(($(reclaimed) - before))
	: > /tmp/enough
	wait $reader
	umount /tmp/full
	ktap_print_msg "$((pages / 256)) MiB reclaimed"
	((pages > 4096 && $(p2p_stat requests) > requests &&
	  $(p2p_stat fallbacks) == fallbacks)) && return $status
}

modest()
{
	p2p_fio "$remote" --rw=randwrite --bs=64k --size=32m --iodepth=16 \
		--verify=crc32c --verify_fatal=1
}

ktap_print_header
p2p_require p2pmem0 drive0 drive1 engine
p2p_require_tools fio nvme ip dd
p2p_has_dma_bios || p2p_skip_all "this kernel has no I/O by DMA address"
provider=$(p2p_device p2pmem0)
ktap_set_plan 4
p2p_set_up_target "$(p2p_disk drive0)" "$provider" ||
	ktap_exit_fail_msg "cannot set up the target"

ktap_test_result "two queues of $DEPTH commands" deep
if [[ -e $P2PDMA_CTL ]]; then
	ktap_test_result "a host stops answering, with a slow drive" host_vanishes
else
	ktap_test_skip "a slow drive: needs an emulated machine"
fi
ktap_test_result "short of memory" short_of_memory
ktap_test_result "all memory is back in the pool" p2p_pool_is_back "$provider"
p2p_remove_target
ktap_finished
