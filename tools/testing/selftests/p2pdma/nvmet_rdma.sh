#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# nvmet-rdma on a NIC that differs from that of the other tests: receives come from
# shared receive queues, and a memory registration takes so few pages that a transfer
# needs several. The latter applies only if the kernel was booted with
# ib_core.force_mr=1.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

SRQ_SIZE=256	# the least that nvmet-rdma takes
MR_PAGES=16
CYCLES=${P2PDMA_SRQ_CYCLES:-2}
FAIL_READ=/sys/module/rnic_loop/parameters/fail_read
CUT_SEND=/sys/module/rnic_loop/parameters/cut_send
P2P_INLINE=4096	# so that 4 KiB writes are inline
MODULES=(nvmet_rdma nvme_rdma rnic_loop)

# Keeps the queues there while the host that is tested comes and goes
P2P_KEEP_NQN=$P2P_NQN-keep
P2P_KEEP=$P2P_NVMET/subsystems/$P2P_KEEP_NQN

unload()
{
	local module

	for module in "${MODULES[@]}"; do
		[[ ! -d /sys/module/$module ]] || rmmod "$module" || return
	done
}

force_mr()
{
	grep -qwE 'ib_core\.force_mr=[1Yy]' /proc/cmdline
}

load()
{
	local needs_mr=0

	! force_mr || needs_mr=1
	modprobe nvmet-rdma use_srq=1 srq_size=$SRQ_SIZE &&
		p2p_load_rnic max_mr_pages=$MR_PAGES read_needs_mr=$needs_mr
}

connect_keeper()
{
	mkdir "$P2P_KEEP" || return
	echo 1 > "$P2P_KEEP"/attr_allow_any_host
	ln -s "$P2P_KEEP" $P2P_NVMET/ports/1/subsystems/ || return
	timeout "$P2P_LIMIT" nvme connect -t rdma -a $P2P_ADDR -s $P2P_PORT \
		-i 1 -n "$P2P_KEEP_NQN" --hostnqn "$P2P_KEEP_NQN-host" \
		--hostid 66666666-7777-8888-9999-000000000000 \
		> /tmp/keeper.log 2>&1 && return
	p2p_log "nvme connect" /tmp/keeper.log
	return 1
}

set_up()
{
	load && p2p_set_up_target "$(p2p_disk drive0)" "$(p2p_device p2pmem0)" &&
		connect_keeper
}

remove_keeper()
{
	nvme disconnect -n "$P2P_KEEP_NQN" > /dev/null
	rm -f "$P2P_NVMET/ports/1/subsystems/$P2P_KEEP_NQN"
	rmdir "$P2P_KEEP"
}

# --- shared receive queues ---

# Receives that are posted, of all shared receive queues
posted()
{
	awk '{ n += $1 } END { print n + 0 }' /sys/kernel/debug/rnic0/srqs
}

# An asynchronous event that a host waits for keeps its receive.
posted_when_idle()
{
	local now last=

	until now=$(posted) && [[ $now == "$last" ]]; do
		last=$now
		sleep 0.3
	done
	echo "$now"
}

serves_from_srq()
{
	(($(posted))) && p2p_is_served
}

# A host that is disconnected while it reconnects can free a queue in use, if
# another queue fails (nvme_rdma_setup_io_queues()): let it wait before that.
connect_once()
{
	p2p_connect -c 20
}

begin_writes()
{
	p2p_begin_load --rw=randwrite --iodepth=32 --size=64M --numjobs=2 \
		--time_based
}

# The NIC fails to read from the host, whose other writes then are flushed.
read_fails()
{
	connect_once && begin_writes && echo 1 > $FAIL_READ &&
		p2p_wait 10 grep -q N $FAIL_READ && p2p_disconnect || return
	p2p_end_load
}

# The target deletes the controller while the host writes.
target_deletes()
{
	connect_once && begin_writes && p2p_unlink_port && p2p_disconnect || return
	p2p_end_load
	p2p_link_port
}

# count_lost COMMAND: run it several times; sets $lost
count_lost()
{
	local i before

	before=$(posted_when_idle)
	((before)) || return
	for ((i = 0; i < CYCLES; i++)); do
		"$1" || return
	done
	lost=$((before - $(posted_when_idle)))
	ktap_print_msg "lost receives: $lost of $before"
}

loses_no_receives() # COMMAND: how the connections end
{
	local lost

	count_lost "$1" && ((lost == 0))
}

# --- data in the capsule ---

first_page() # FILE
{
	dd if="$remote" of="$1" bs=4k count=1 iflag=direct status=none
}

# The host sends the command alone, which says that the data is behind it.
refuses_missing_data()
{
	first_page /tmp/before && echo 1 > $CUT_SEND || return
	! dd if=/dev/urandom of="$remote" bs=4k count=1 oflag=direct 2> /dev/null &&
		grep -q N $CUT_SEND && first_page /tmp/after && cmp /tmp/before /tmp/after
}

# --- memory registrations ---

registrations()
{
	cat /sys/kernel/debug/rnic0/registrations
}

# transfer p2pmem|system BLOCKSIZE: are all bytes right, registered and from there?
transfer()
{
	local mr=$((MR_PAGES << 12)) size=$2 total=$((8 << 20))
	local per_io ios served regs
	local args=(--bs="$size" --size="$total" --iodepth=8)

	ios=$(p2p_ios "$remote")
	served=$(p2p_stat requests)
	regs=$(registrations)
	p2p_fill "$remote" "$1$2" "${args[@]}" &&
		p2p_check "$remote" "$1$2" "${args[@]}" || return
	ios=$(($(p2p_ios "$remote") - ios))
	served=$(($(p2p_stat requests) - served))
	regs=$(($(registrations) - regs))
	# The host's own registration, and those of the target
	per_io=$((1 + (size + mr - 1) / mr))
	ktap_print_msg "$ios transfers, $served from the BAR, $regs registrations"
	((ios == 2 * total / size && regs >= ios * per_io)) || return
	p2p_has_dma_bios || return 0
	[[ $1 == system ]] && ios=0
	((served == ios))
}

# --- results ---

# A kernel without the series may have the bugs that it fixes.
result() # NAME COMMAND...
{
	if p2p_has_dma_bios; then
		ktap_test_result "$@"
	elif "${@:2}"; then
		ktap_test_pass "$1"
	else
		ktap_test_skip "$1: a bug of this kernel"
	fi
}

result_mr() # NAME COMMAND...
{
	if force_mr; then
		result "$@"
	else
		ktap_test_skip "$1: needs ib_core.force_mr=1"
	fi
}

ktap_print_header
p2p_require p2pmem0 drive0 engine
p2p_require_tools fio nvme ip
unload || p2p_skip_all "${MODULES[*]} are in use"
ktap_set_plan 10
set_up || ktap_exit_fail_msg "cannot set up the target"

ktap_test_result "I/O with shared receive queues" serves_from_srq
p2p_disconnect
result "no receive is lost if an RDMA READ fails" loses_no_receives read_fails
result "no receive is lost if the target deletes the controller" \
	loses_no_receives target_deletes
p2p_connect
result "a write whose data is missing is refused" refuses_missing_data
result_mr "p2pmem, one registration" transfer p2pmem $((32 << 10))
result_mr "p2pmem, several registrations" transfer p2pmem $((1 << 20))
p2p_set_provider 0 && p2p_wait 10 p2p_find_remote
result_mr "system memory, one registration" transfer system $((32 << 10))
result_mr "system memory, several registrations" transfer system $((1 << 20))
p2p_disconnect
remove_keeper
ktap_test_result "all memory is back in the pool" \
	p2p_pool_is_free "$(p2p_device p2pmem0)"
p2p_remove_target
ktap_test_result "unload" unload
ktap_finished
