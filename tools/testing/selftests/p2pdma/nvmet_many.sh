#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Several of everything: hosts, NICs, ports, transports, providers, namespaces,
# subsystems. Who gets how much of a provider's memory if there is not enough.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

ADDR2=198.51.100.1
HOST=nqn.2014-08.org.nvmexpress:p2pdma-host
ROUNDS=${P2PDMA_ROUNDS:-3}

# --- targets and hosts ---

load_two_nics()
{
	[[ ! -d /sys/module/rnic_loop ]] || rmmod rnic_loop || return
	p2p_insmod lsi_copy && p2p_make_netdev && p2p_make_netdev dummy1 $ADDR2 &&
		p2p_insmod rnic_loop netdev=dummy0,dummy1 &&
		p2p_wait 5 test -e /sys/class/infiniband/rnic1
}

# add_port NUMBER TRANSPORT ADDRESS PORT: with the subsystem; data in the capsule up to
# $inline bytes
add_port()
{
	local port=$P2P_NVMET/ports/$1

	mkdir "$port" && echo "$2" > "$port"/addr_trtype &&
		echo ipv4 > "$port"/addr_adrfam && echo "$3" > "$port"/addr_traddr &&
		echo "$4" > "$port"/addr_trsvcid || return
	[[ $2 != rdma ]] || echo "${inline:-0}" > "$port"/param_inline_data_size
	ln -s "$P2P_SUBSYS" "$port"/subsystems/
}

remove_port()
{
	rm "$P2P_NVMET/ports/$1/subsystems/$P2P_NQN" && rmdir "$P2P_NVMET/ports/$1"
}

# add_namespace NSID DISK PROVIDER
add_namespace()
{
	local ns=$P2P_SUBSYS/namespaces/$1

	mkdir "$ns" && echo -n "$2" > "$ns"/device_path &&
		echo "$3" > "$ns"/p2pmem && echo 1 > "$ns"/enable
}

remove_namespace()
{
	echo 0 > "$P2P_SUBSYS/namespaces/$1"/enable && rmdir "$P2P_SUBSYS/namespaces/$1"
}

# set_namespace ATTRIBUTE=VALUE...: it has to be disabled meanwhile
set_namespace()
{
	local setting

	echo 0 > "$P2P_NS"/enable || return
	for setting; do
		echo "${setting#*=}" > "$P2P_NS/${setting%=*}" || return
	done
	p2p_enable
}

# host NUMBER [ARGUMENT]...: connect one with a name of its own
host()
{
	p2p_connect -D --hostnqn "$HOST$1" \
		--hostid "11111111-2222-3333-4444-55555555555$1" "${@:2}" || return
	p2p_wait "$P2P_LIMIT" host_disk "$1" > /dev/null
}

host_controller()
{
	grep -slx "$HOST$1" /sys/class/nvme/nvme*/hostnqn | sed 's|/hostnqn||' | grep .
}

# host_disk NUMBER [NSID]: what this host sees of the namespace
host_disk()
{
	local controller dir

	for controller in $(host_controller "$1"); do
		for dir in "$controller"/nvme*n*; do
			[[ -e $dir/nsid && $(< "$dir"/nsid) == "${2:-1}" &&
			   -b /dev/${dir##*/} ]] && echo "/dev/${dir##*/}" && return
		done
	done
	return 1
}

hosts_leave()
{
	p2p_disconnect && p2p_wait "$P2P_LIMIT" p2p_pool_is_free "$big" &&
		p2p_pool_is_free "$small"
}

# served_by_host NUMBER: how many of its commands, in percent
served_by_host()
{
	local served others

	served=$(p2p_stat requests "$HOST$1")
	others=$(p2p_stat fallbacks "$HOST$1")
	((served + others)) && echo $((100 * served / (served + others)))
}

# --- load ---

# greedy DISK: wants 32 MiB at a time, which is four times the small pool
start_greedy()
{
	p2p_begin_load_on "$1" --bs=1m --rw=randread --iodepth=32 --size=64m \
		--time_based
}

# modest NUMBER [ARGUMENT]...: its data is compared
modest()
{
	p2p_fio "$(host_disk "$1")" --rw=randwrite --bs=64k --offset=128m --size=16m \
		--iodepth=4 --verify=crc32c --verify_fatal=1 "${@:2}"
}

p2p_begin_load_on()
{
	remote=$1
	shift
	p2p_begin_load "$@"
}

# --- tests ---

# Two hosts through a NIC each: each has its own mapping, and its own counters.
two_nics()
{
	local number result=0

	host 1 && host 2 -a $ADDR2 || return
	for number in 1 2; do
		modest $number && [[ $(served_by_host $number) == 100 ]] || result=1
	done
	(($(cat /sys/kernel/debug/nvmet/$P2P_NQN/ctrl*/p2pmem |
		grep -cE "client=($(p2p_device engine)|$(p2p_device engine1)) reach=[^n]") == 2)) ||
		result=1
	hosts_leave && return $result
}

# Four hosts connect, transfer and leave, over and over, all at once on a small pool.
# nvme-cli may take a controller that is just going away for a connection: try again.
host_loop()
{
	local i

	for ((i = 0; i < ROUNDS; i++)); do
		p2p_wait "$P2P_LIMIT" host "$@" > /dev/null || return
		modest "$1" --offset="$1"m --size=1m || return
		nvme disconnect -d "$(basename "$(host_controller "$1")")" \
			> /dev/null || return
	done
}

hosts_come_and_go()
{
	local number jobs=() status=0

	for number in 1 2 3 4; do
		if ((number & 1)); then host_loop $number; else host_loop $number -a $ADDR2; fi &
		jobs+=($!)
	done
	for number in "${jobs[@]}"; do
		wait "$number" || status=1
	done
	hosts_leave && return $status
}

# One host wants more than there is: the other gets its share all the same.
greedy_and_modest()
{
	local share greedy

	host 1 && host 2 -a $ADDR2 && start_greedy "$(host_disk 1)" || return
	modest 2 --time_based --runtime=5 || { p2p_end_load; return 1; }
	p2p_end_load
	share=$(served_by_host 2)
	greedy=$(served_by_host 1)
	ktap_print_msg "served: $share % of the modest host's commands," \
		"$greedy % of the greedy one's," \
		"$(p2p_stat share "$HOST"1) were beyond its share"
	hosts_leave && ((share >= 40 && greedy > 0))
}

# Alone, a host has all.
greedy_alone()
{
	host 1 && start_greedy "$(host_disk 1)" || return
	sleep 1
	p2p_end_load
	ktap_print_msg "served: $(served_by_host 1) %," \
		"$(p2p_stat share "$HOST"1) beyond a share"
	(($(p2p_stat share "$HOST"1) == 0 && $(p2p_stat requests "$HOST"1) > 0)) &&
		hosts_leave
}

# It holds no more than it may, and what is beyond that is served all the same.
limited()
{
	local held=0 most=0 i

	set_namespace p2pmem="$big" p2pmem_max=1M && host 1 || return
	p2p_begin_load_on "$(host_disk 1)" --bs=128k --rw=randread --iodepth=32 \
		--size=16m --time_based || return
	for ((i = 0; i < 100; i++)); do
		held=$(sed -n 's/.*held=//p' /sys/kernel/debug/nvmet/$P2P_NQN/ctrl*/p2pmem)
		((held <= most)) || most=$held
	done
	p2p_end_load
	ktap_print_msg "at most $most bytes held," \
		"$(p2p_stat share) commands beyond the limit"
	((most > 0 && most <= 1 << 20 && $(p2p_stat share) && $(p2p_stat requests))) ||
		return
	modest 1 && hosts_leave && set_namespace p2pmem="$small" p2pmem_max=0
}

# Three quarters of the memory are guaranteed: more than the half that would be its share.
guaranteed()
{
	local share

	add_namespace 2 "$(p2p_disk drive1)" "$small" &&
		set_namespace p2pmem_min=6M && host 1 && host 2 -a $ADDR2 || return
	start_greedy "$(host_disk 1 2)" || return
	p2p_fio "$(host_disk 2)" --rw=randread --bs=1m --size=64m --iodepth=5 \
		--time_based --runtime=5 || { p2p_end_load; return 1; }
	p2p_end_load
	share=$(served_by_host 2)
	ktap_print_msg "served: $share % of those with the guarantee"
	hosts_leave && remove_namespace 2 && set_namespace p2pmem_min=0 &&
		((share >= 60))
}

# What comes in the capsule of a command is counted, but cannot be in the BAR.
in_capsule()
{
	local result=0

	inline=4096 add_port 3 rdma $P2P_ADDR 4421 || return
	P2P_PORT=4421 host 1 && modest 1 --bs=4k --size=1m || result=1
	ktap_print_msg "$(p2p_stat inline) in the capsule, $(p2p_stat requests) in the BAR"
	# The reads that compare them are not.
	(($(p2p_stat inline) == 256 && $(p2p_stat requests) >= 256)) || result=1
	hosts_leave && remove_port 3 && return $result
}

# refused_value ATTRIBUTE VALUE
refused_value()
{
	! { echo "$2" > "$P2P_NS/$1"; } 2> /dev/null
}

bad_limits()
{
	refused_value p2pmem_max 1M || return	# enabled
	echo 0 > "$P2P_NS"/enable
	refused_value p2pmem_max much && refused_value p2pmem_min 1X &&
		echo 1k > "$P2P_NS"/p2pmem_max &&
		[[ $(< "$P2P_NS"/p2pmem_max) == 1024 ]] &&
		set_namespace p2pmem_max=0
}

# The nearest with the most free memory, then the next
chosen_provider()
{
	cat /sys/kernel/debug/nvmet/$P2P_NQN/ctrl*/p2pmem | sed -n 's/.*provider=\([^ ]*\) .*/\1/p'
}

takes_most_free()
{
	local i

	for ((i = 0; i < 4; i++)); do
		set_namespace p2pmem=1 && host 1 || return
		[[ $(chosen_provider) == "$big" ]] || return
		hosts_leave || return
	done
}

# If it goes, another one takes its place, without a word from the user.
takes_another()
{
	local driver=/sys/bus/pci/drivers/p2pmem_provider result=0

	host 1 && p2p_mark_log && modest 1 || return
	echo "$big" > $driver/unbind
	p2p_wait "$P2P_LIMIT" serves_from "$small" || result=1
	p2p_logged "p2pmem on $big is gone" && p2p_logged "using p2pmem on $small" || result=1
	echo "$big" > $driver/bind
	modest 1 && hosts_leave && set_namespace p2pmem="$small" && return $result
}

serves_from()
{
	modest 1 --size=1m && [[ $(chosen_provider) == "$1" ]]
}

# Beside RDMA, a transport that has no use for the memory, on the same namespace
tcp_beside_rdma()
{
	local result=0

	modprobe nvmet-tcp && modprobe nvme-tcp && add_port 3 tcp $P2P_ADDR 4421 || return
	host 1 && P2P_TRANSPORT=tcp P2P_PORT=4421 host 2 || return
	modest 2 && [[ $(p2p_stat requests "$HOST"2) == 0 ]] &&
		modest 1 && [[ $(served_by_host 1) == 100 ]] || result=1
	hosts_leave && remove_port 3 && return $result
}

# Two namespaces on different drives and providers, and another subsystem
two_namespaces()
{
	local result=0

	add_namespace 2 "$(p2p_disk drive1)" "$big" && host 1 &&
		p2p_wait "$P2P_LIMIT" host_disk 1 2 > /dev/null || return
	modest 1 && p2p_fio "$(host_disk 1 2)" --rw=randwrite --bs=64k --size=16m \
		--iodepth=4 --verify=crc32c --verify_fatal=1 || result=1
	[[ $(served_by_host 1) == 100 ]] || result=1
	hosts_leave && remove_namespace 2 && return $result
}

# Every command whose data nvmet allocates leaves one event, which says where it is.
traced()
{
	local event events=0 requests

	for event in nvmet/nvmet_p2pmem pci/p2pmem_map pci/p2pmem_unmap; do
		echo 1 > $P2P_TRACE/events/$event/enable || return
	done
	echo > $P2P_TRACE/trace
	host 1 && modest 1 || return
	requests=$(p2p_stat requests)
	hosts_leave && echo 0 > "$P2P_NS"/enable
	echo 0 > $P2P_TRACE/events/enable
	events=$(grep -c 'nvmet_p2pmem: .* data=p2pmem' $P2P_TRACE/trace)
	ktap_print_msg "$events events for $requests requests"
	((events == requests && events)) &&
		grep -q "p2pmem_map: provider=$small client=$(p2p_device engine) reach=" \
			$P2P_TRACE/trace &&
		grep -q "p2pmem_unmap: provider=$small client=$(p2p_device drive0) " \
			$P2P_TRACE/trace && p2p_enable
}

ktap_print_header
p2p_require p2pmem0 p2pmem1 drive0 drive1 engine engine1
p2p_require_tools fio nvme ip
p2p_has_dma_bios || p2p_skip_all "this kernel does not count, share or choose"
big=$(p2p_device p2pmem0)
small=$(p2p_device p2pmem1)
ktap_set_plan 13
p2p_insmod p2pmem_provider && load_two_nics && p2p_add_target "$(p2p_disk drive0)" &&
	add_port 2 rdma $ADDR2 "$P2P_PORT" && p2p_set_provider "$small" ||
	ktap_exit_fail_msg "cannot set up the target"

ktap_test_result "two hosts on two NICs" two_nics
ktap_test_result "four hosts come and go" hosts_come_and_go
ktap_test_result "two namespaces on different drives and providers" two_namespaces
ktap_test_result "TCP beside RDMA" tcp_beside_rdma
ktap_test_result "data in the capsule" in_capsule
ktap_test_result "a greedy and a modest host" greedy_and_modest
ktap_test_result "a greedy host alone" greedy_alone
ktap_test_result "limits that make no sense" bad_limits
ktap_test_result "limited by p2pmem_max" limited
ktap_test_result "guaranteed by p2pmem_min" guaranteed
ktap_test_result "the provider with the most free memory" takes_most_free
ktap_test_result "another provider" takes_another
ktap_test_result "traced" traced
remove_port 2
p2p_remove_target
rmmod rnic_loop
ktap_finished
