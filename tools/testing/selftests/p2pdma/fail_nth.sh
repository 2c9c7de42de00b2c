#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Fail allocations, one at a time: when a provider is added, its memory mapped, a
# namespace with peer-to-peer memory enabled, a host connected, a drive does I/O, and
# user space maps the memory. The operation may then fail, cleanly. The next attempt
# must work, with all memory free and every byte correct. The target's own I/O allocates
# nothing, except for a host's protection information. Only slab allocations count, which
# are those that failslab knows. Each of them is failed, but where there are a hundred or
# more (connecting a host, rebinding a drive) only the first ones are, and later ones in
# growing steps.
#
# P2P_FAULTS limits the number; an operation that has more allocations then fails.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

FAULT=/sys/kernel/debug/failslab
DRIVER=/sys/bus/pci/drivers/p2pmem_provider
FAULTS=${P2P_FAULTS:-5000}
SYMBOLS=/tmp/symbols
GAP=65536	# bytes between two functions of a part of the kernel, at most

calls=0		# what the kernel has counted, see arm()

set_fault()
{
	echo "$2" > $FAULT/"$1"
}

# symbols_of SYMBOL PREFIX: "ADDRESS NAME" of the functions that have the prefix, in the
# kernel or in the module that has the symbol
symbols_of()
{
	[[ -s $SYMBOLS ]] || sort /proc/kallsyms > $SYMBOLS
	awk -v symbol="$1" -v prefix="^$2" '
		NR == FNR && $3 == symbol { found = 1; module = $4 }
		NR == FNR || $2 !~ /[tT]/ || $4 != module || !found { next }
		$3 == "_etext" { exit }
		$3 ~ prefix && $3 !~ /[.]cold/ { print $1, $3 }' $SYMBOLS $SYMBOLS
}

# only_within SYMBOL PREFIX: count only allocations by that code, which is around the
# symbol, without a large gap. A page more, for the last function.
only_within()
{
	local address name start=0 last=0 seen=

	while read -r address name; do
		address=$((16#$address))
		if ((!start || address - last > GAP)); then
			[[ ! $seen ]] || break
			start=$address
		fi
		last=$address
		[[ $name != "$1" ]] || seen=1
	done < <(symbols_of "$1" "$2")
	if [[ ! $seen ]]; then
		ktap_print_msg "where is $1?"
		return 1
	fi
	set_fault require-start "$(printf %#x $start)" &&
		set_fault require-end "$(printf %#x $((last + 4096)))"
}

# without FUNCTION: exclude allocations by it and by what it calls
without()
{
	local start end

	read -r start end < <(awk -v name="$1" '
		$3 == name { start = $1 }
		start && $1 != start { print start, $1; exit }' $SYMBOLS)
	set_fault reject-start 0x"$start" && set_fault reject-end 0x"$end"
}

# arm NTH: fail the nth allocation from here on. The kernel fails each one whose number
# is a multiple of the interval, and counts only while it may still fail one. So once
# one has failed, its number is known, and with it the number of the next one to fail.
arm()
{
	set_fault interval $((calls + $1)) && set_fault times 1
}

# The kernel does not count if the interval is 1.
has_counted()
{
	calls=$(< $FAULT/interval)
	((calls > 1)) || calls=0
}

has_failed()
{
	(($(< $FAULT/times) == 0))
}

# If the event had fewer allocations than that, the count is unknown. To synchronize
# again, fail an allocation of a process that does nothing but open a file.
count_again()
{
	local victim status=0

	set_fault task-filter Y && set_fault require-start 0 &&
		set_fault require-end 0xffffffffffffffff || return
	(echo 1 > /proc/self/make-it-fail; while :; do : < /dev/null; done) 2> /dev/null &
	victim=$!
	p2p_wait "$P2P_LIMIT" has_failed || status=1
	kill $victim
	wait $victim 2> /dev/null
	set_fault times 0 && set_fault task-filter N && has_counted && return $status
}

# fails EVENT: does it have as many allocations as were armed? Then the last has failed.
# Sets $event_status.
fails()
{
	event_status=0
	"$1" &> /tmp/event.log || event_status=$?
	has_failed && has_counted
}

# harmed_data: the event may fail, but what it leaves must be right.
harmed_data()
{
	grep -qE "differ|damaged|ended [^1]" /tmp/event.log
}

# recovers NTH CHECK
recovers()
{
	"$2" &> /tmp/check.log && ! harmed_data && return
	ktap_print_msg "allocation $1"
	p2p_log event /tmp/event.log
	p2p_log check /tmp/check.log
	return 1
}

# sweep SYMBOL PREFIX EVENT CHECK [ALL]: the event with the first allocation in that code
# failing, then with the second, until it has no more; beyond ALL the steps grow, if it
# is given
sweep()
{
	local nth failed=0

	only_within "$1" "$2" || return
	for ((nth = 1; nth <= FAULTS; nth += 1 + nth / ${5:-$FAULTS})); do
		arm $nth || return
		fails "$3" || break
		failed=$((failed + 1))
		recovers $nth "$4" || return
	done
	ktap_print_msg "$failed of the first $((nth - 1)) allocations failed"
	# The last time nothing has failed, so the event must work.
	((nth <= FAULTS && failed && !event_status)) || return
	count_again && recovers "after the last" "$4"
}

# takes_none SYMBOL PREFIX EVENT CHECK: the event has no allocation in that code
takes_none()
{
	only_within "$1" "$2" && arm 1 || return
	if fails "$3"; then
		ktap_print_msg "there was one"
		return 1
	fi
	((!event_status)) && count_again && recovers "that was none" "$4"
}

# --- a provider that is added ---

add()
{
	echo "$provider" > $DRIVER/bind
}

is_added()
{
	[[ -e $DRIVER/$provider ]] || add || return
	p2p_pool_is_free "$provider" && echo "$provider" > $DRIVER/unbind
}

# --- a namespace that is enabled while a host is connected ---

enable()
{
	echo 1 > "$P2P_NS"/enable
}

# With the memory, or without it.
is_enabled()
{
	echo 0 > "$P2P_NS"/enable && enable && serves &&
		echo 0 > "$P2P_NS"/enable && p2p_pool_is_free "$provider"
}

# serves: by DMA address, and what was written is what is read
serves()
{
	local before fallbacks

	p2p_wait "$P2P_LIMIT" p2p_find_remote || return
	before=$(p2p_stat requests) fallbacks=$(p2p_stat fallbacks)
	is_intact && (($(p2p_stat requests) >= before + 2 &&
		       $(p2p_stat fallbacks) == fallbacks))
}

is_intact()
{
	head -c 65536 /dev/urandom > /tmp/data
	dd if=/tmp/data of="$remote" bs=64k oflag=direct status=none &&
		dd if="$remote" of=/tmp/seen bs=64k count=1 iflag=direct status=none &&
		cmp /tmp/seen /tmp/data
}

# --- a host that connects ---

is_connected()
{
	p2p_is_disconnected || p2p_disconnect || return
	p2p_connect && serves && p2p_disconnect &&
		p2p_wait 10 p2p_pool_is_free "$provider"
}

# --- a host with protection information, which is in system memory ---

# sweep_pi_io CHECK: what the target takes for it, and what its transport does
sweep_pi_io()
{
	sweep nvmet_req_init nvmet_ is_intact "$1" &&
		sweep nvmet_rdma_cm_handler nvmet_rdma_ is_intact "$1"
}

sweep_host_pi()
{
	local status=0

	p2p_add_pi_target "$(p2p_disk formats 1)" && p2p_set_provider "$provider" &&
		p2p_connect && sweep_pi_io serves && p2p_set_provider 0 &&
		p2p_wait "$P2P_LIMIT" p2p_find_remote && sweep_pi_io is_intact || status=1
	p2p_is_disconnected || p2p_disconnect || return
	p2p_remove_pi_target && return $status
}

# --- by DMA address, without a target ---

try()
{
	"$DIR"/dma_bio_try "$drive"
}

works()
{
	[[ $(try 2> /dev/null) == "$P2P_TAKEN" ]]
}

# In many pieces, which the drive is told of by descriptors in memory
many()
{
	p2p_passes dma_bio -t read_unaligned
}

# A driver that is bound anew has empty pools of descriptors.
works_anew()
{
	local address

	address=$(p2p_device drive0)
	many && echo "$address" > /sys/bus/pci/drivers/nvme/unbind &&
		echo "$address" > /sys/bus/pci/drivers/nvme/bind &&
		p2p_wait "$P2P_LIMIT" p2p_disk_is_there drive0 &&
		drive=$(p2p_disk drive0)
}

# --- user space ---

map()
{
	p2p_passes p2pmem_user -t cpu
}

# A provider that is bound anew has no pages yet.
maps_anew()
{
	map && echo "$provider" > $DRIVER/unbind && add
}

ktap_print_header
p2p_require p2pmem0 drive0 formats engine
p2p_require_tools fio nvme ip
p2p_has_dma_bios || p2p_skip_all "this kernel has no I/O by DMA address"
[[ -e $FAULT/require-start ]] || p2p_skip_all \
	"needs FAILSLAB and FAULT_INJECTION_STACKTRACE_FILTER"
provider=$(p2p_device p2pmem0)
drive=$(p2p_disk drive0)
ktap_set_plan 10
# Where an earlier run has stopped
has_counted
set_fault times 0
set_fault verbose 1
set_fault ignore-gfp-wait N
set_fault probability 100
p2p_set_up_target "$drive" "$provider" ||
	ktap_exit_fail_msg "cannot set up the target"

# The target takes memory to show its counters, so they are read afterwards.
ktap_test_result "I/O of the target takes no memory" \
	takes_none nvmet_req_init nvmet_ is_intact serves
ktap_test_result "nor does that of its RDMA transport" \
	takes_none nvmet_rdma_cm_handler nvmet_rdma_ is_intact serves
echo 0 > "$P2P_NS"/enable
ktap_test_result "namespace enabled, with a host" \
	sweep nvmet_req_init nvmet_ enable is_enabled
enable
p2p_disconnect
ktap_test_result "host connected, what the target makes for it" \
	sweep nvmet_req_init nvmet_ p2p_connect is_connected 24
# Here, and for the drive, most are of the same kind.
ktap_test_result "host connected, its queues" \
	sweep nvmet_rdma_cm_handler nvmet_rdma_ p2p_connect is_connected 4
p2p_remove_target
ktap_test_result "I/O with protection information of the host" sweep_host_pi
ktap_test_result "mapping" sweep pci_p2pmem_map_resource '(pci_)?p2p' try works
ktap_test_result "I/O of the drive" sweep nvme_queue_rq nvme_ many works_anew 4
# It warns if it fails.
without add_pages || ktap_print_msg "add_pages: not found"
ktap_test_result "user space" \
	sweep pci_p2pmem_map_resource '(pci_)?p2p' map maps_anew
echo "$provider" > $DRIVER/unbind
# vmalloc() says that it failed.
echo "p2pdma-run: failed allocations expected" > /dev/kmsg
ktap_test_result "provider added" \
	sweep pci_p2pmem_map_resource '(pci_)?p2p' add is_added
ktap_finished
