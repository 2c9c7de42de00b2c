#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Several of everything: hosts, NICs, ports, transports, providers and namespaces,
# and who gets how much of a provider's memory when it is short.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

HOST=${P2P_HOST[1]}
ROUNDS=${P2PDMA_ROUNDS:-3}

# --- targets and hosts ---

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

# host NUMBER [ARGUMENT]...: connect with an NQN of its own
host()
{
	p2p_connect -D --hostnqn "$HOST$1" \
		--hostid "${P2P_HOST[3]%?}$1" "${@:2}" || return
	p2p_wait "$P2P_LIMIT" host_disk "$1" > /dev/null
}

host_controller()
{
	grep -slx "$HOST$1" /sys/class/nvme/nvme*/hostnqn | sed 's|/hostnqn||' | grep .
}

# host_disk NUMBER [NSID]: the host's disk for the namespace
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

# begin_greedy DISK [BLOCKSIZE]: wants 32 of them at a time
begin_greedy()
{
	remote=$1
	p2p_begin_load --bs="${2:-128k}" --rw=randread --iodepth=32 --size=64m --time_based
}

# modest NUMBER [ARGUMENT]...: write little at a time, and verify it
modest()
{
	p2p_fio "$(host_disk "$1")" --rw=randwrite --bs=64k --offset=128m --size=16m \
		--iodepth=4 --verify=crc32c --verify_fatal=1 "${@:2}"
}

# short_of_memory COMMAND...: with 256 KiB, of which even a slow machine takes all
short_of_memory()
{
	local result=0

	p2p_hold_pool "$small" $((256 << 10)) && "$@" || result=1
	p2p_end_load
	hosts_disconnect || result=1
	p2p_release_pool "$small" && return $result
}

# --- between tests ---

hosts_disconnect()
{
	! grep -qsx "$P2P_NQN" /sys/class/nvme/nvme*/subsysnqn || p2p_disconnect
}

# clean_up: what a test that failed has left behind
clean_up()
{
	hosts_disconnect
	[[ ! -d $P2P_SUBSYS/namespaces/2 ]] || remove_namespace 2
	[[ ! -d $P2P_NVMET/ports/3 ]] || p2p_remove_port 3
	[[ ! -d ${P2P_SUBSYS}2 ]] || second_subsystem remove_subsystem
	set_namespace p2pmem="$small" p2pmem_min=0 p2pmem_max=0
}

# result NAME COMMAND...
result()
{
	ktap_test_result "$@"
	clean_up
}

# --- tests ---

# What all controllers say of their memory
say_p2pmem()
{
	cat /sys/kernel/debug/nvmet/$P2P_NQN/ctrl*/p2pmem
}

# reached NIC: from how many controllers
reached()
{
	say_p2pmem | grep -cE "client=$(p2p_device "$1") reach=[^n]"
}

# Two hosts, each through its own NIC, have their own mappings and counters.
two_nics()
{
	local number result=0

	host 1 && host 2 -a $P2P_ADDR2 || return
	for number in 1 2; do
		modest $number && [[ $(served_by_host $number) == 100 ]] || result=1
	done
	(($(reached engine) == 1 && $(reached engine1) == 1)) || result=1
	hosts_leave && return $result
}

# use_nic_for_more NIC NETDEV: connections to the target's address that are made from now
# on use this NIC, because the address was given to its network device last.
use_nic_for_more()
{
	local gid

	# shellcheck disable=SC2046,SC2183 # four numbers
	gid=$(printf ":%02x%02x:%02x%02x" $(tr . ' ' <<< $P2P_ADDR))
	ip addr add $P2P_ADDR/24 dev "$2" &&
		p2p_wait 10 grep -q "$gid$" "/sys/class/infiniband/$1"/ports/1/gids/*
}

connections_wait()
{
	[[ $(< /sys/module/rnic_loop/parameters/hold) == 2 ]]
}

# The memory is not mapped for the NIC of the I/O queues. While the first command on
# the admin queue waits, all further connections are directed to another NIC.
queues_on_two_nics()
{
	local hold=/sys/module/rnic_loop/parameters/hold connecting result=0

	P2P_ADDR=0.0.0.0 P2P_PORT=4422 p2p_add_port 3 && echo 1 > $hold || return
	P2P_PORT=4422 host 1 &
	connecting=$!
	p2p_wait "$P2P_LIMIT" connections_wait && use_nic_for_more rnic1 dummy1 || result=1
	echo 0 > $hold
	wait $connecting && modest 1 || result=1
	ktap_print_msg "$(p2p_stat unreachable) commands through another NIC," \
		"$(p2p_stat requests) in the BAR"
	(($(p2p_stat unreachable) && !$(p2p_stat requests))) || result=1
	hosts_leave || result=1
	ip addr del $P2P_ADDR/24 dev dummy1
	p2p_remove_port 3 && return $result
}

# Four hosts connect, transfer and leave, over and over, all at once on a small pool.
# nvme-cli reads about all controllers.  It may mistake one that is going away for a
# connection, so retry; and it may crash, so do not disconnect by it.
host_loop()
{
	local i

	for ((i = 0; i < ROUNDS; i++)); do
		p2p_wait "$P2P_LIMIT" host "$@" > /dev/null || return
		modest "$1" --offset="$1"m --size=1m || return
		echo 1 > "$(host_controller "$1")"/delete_controller || return
	done
}

hosts_come_and_go()
{
	local number jobs=() status=0

	for number in 1 2 3 4; do
		if ((number & 1)); then
			host_loop $number
		else
			host_loop $number -a $P2P_ADDR2
		fi &
		jobs+=($!)
	done
	for number in "${jobs[@]}"; do
		wait "$number" || status=1
	done
	hosts_leave && return $status
}

# One host wants more than there is; the other still gets its share.
greedy_and_modest()
{
	local share greedy

	host 1 && host 2 -a $P2P_ADDR2 && begin_greedy "$(host_disk 1)" &&
		modest 2 --bs=32k --time_based --runtime=5 || return
	share=$(served_by_host 2)
	greedy=$(served_by_host 1)
	ktap_print_msg "served: $share % of the modest host's commands," \
		"$greedy % of the greedy one's," \
		"$(p2p_stat share "$HOST"1) were beyond its share"
	# Without shares it gets 37 %, by chance.
	((share >= 50 && greedy > 0))
}

# A host that is alone is not limited.
greedy_alone()
{
	host 1 && begin_greedy "$(host_disk 1)" && sleep 1 || return
	ktap_print_msg "served: $(served_by_host 1) %," \
		"$(p2p_stat share "$HOST"1) beyond a share"
	(($(p2p_stat share "$HOST"1) == 0 && $(p2p_stat requests "$HOST"1) &&
	  $(p2p_stat exhausted "$HOST"1)))
}

held()
{
	say_p2pmem | sed -n 's/.*held=\([0-9]*\).*/\1/p'
}

# A host holds no more than p2pmem_max; further commands use system memory.
limited()
{
	local most=0 now i

	set_namespace p2pmem="$big" p2pmem_max=128K && host 1 || return
	remote=$(host_disk 1)
	p2p_begin_load --bs=64k --rw=randread --iodepth=32 --size=16m --time_based ||
		return
	for ((i = 0; i < 100; i++)); do
		now=$(held)
		((now <= most)) || most=$now
	done
	p2p_end_load
	ktap_print_msg "at most $most bytes held," \
		"$(p2p_stat share) commands beyond the limit"
	((most > 0 && most <= 128 << 10 && $(p2p_stat share) && $(p2p_stat requests))) &&
		modest 1
}

# A host wants three quarters of the memory. Sets $share.
beside_greedy()
{
	host 1 && host 2 -a $P2P_ADDR2 && begin_greedy "$(host_disk 1 2)" 32k &&
		p2p_fio "$(host_disk 2)" --rw=randread --bs=32k --size=64m \
			--iodepth=6 --time_based --runtime=5 || return
	share=$(served_by_host 2)
}

# guaranteed PERCENT: what a host wants is guaranteed. So much of it was served without
# p2pmem_min, when the host gets half of the memory; 0 if that could not be measured.
guaranteed()
{
	(($1)) && set_namespace p2pmem_min=192K p2pmem_max=1M &&
		short_of_memory beside_greedy || return
	ktap_print_msg "served: $share % of the commands with the guarantee, $1 % without"
	((share >= $1 + 10))
}

# Data in the command capsule is counted, but cannot be in the BAR.
in_capsule()
{
	local result=0

	P2P_INLINE=4096 P2P_PORT=4421 p2p_add_port 3 || return
	P2P_PORT=4421 host 1 && modest 1 --bs=4k --size=1m || result=1
	ktap_print_msg "$(p2p_stat inline) in the capsule, $(p2p_stat requests) in the BAR"
	# The reads that verify it use the BAR.
	(($(p2p_stat inline) == 256 && $(p2p_stat requests) >= 256)) || result=1
	hosts_leave && p2p_remove_port 3 && return $result
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
		set_namespace p2pmem_min=1k p2pmem_max=2k &&
		[[ $(< "$P2P_NS"/p2pmem_min) == 1024 ]] &&
		[[ $(< "$P2P_NS"/p2pmem_max) == 2048 ]] &&
		set_namespace p2pmem_min=0 p2pmem_max=0
}

# The provider that the controller uses
chosen_provider()
{
	say_p2pmem | sed -n 's/.*provider=\([^ ]*\) .*/\1/p'
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

# A host that connects while no provider has a driver is served from it later.
connected_without()
{
	local driver=/sys/bus/pci/drivers/p2pmem_provider provider result=0

	set_namespace p2pmem=1 || return
	for provider in "$big" "$small" "$far"; do
		echo "$provider" > $driver/unbind
	done
	host 1 && modest 1 --size=1m && (($(p2p_stat requests) == 0)) || result=1
	for provider in "$big" "$small" "$far"; do
		echo "$provider" > $driver/bind
	done
	((!result)) && p2p_wait "$P2P_LIMIT" serves_from "$big"
}

# When the provider goes away, another takes its place by itself.
takes_another()
{
	local driver=/sys/bus/pci/drivers/p2pmem_provider result=0

	set_namespace p2pmem=1 && host 1 && p2p_mark_log && modest 1 || return
	echo "$big" > $driver/unbind
	p2p_wait "$P2P_LIMIT" serves_from "($small|$far)" || result=1
	p2p_logged "p2pmem on $big is gone" || result=1
	echo "$big" > $driver/bind
	modest 1 && hosts_leave && return $result
}

# serves_from PROVIDERS: as a pattern
serves_from()
{
	local before

	before=$(p2p_stat requests)
	modest 1 --size=1m && chosen_provider | grep -qxE "$1" &&
		(($(p2p_stat requests) > before))
}

# A transport that cannot use the memory, on the same namespace as RDMA
tcp_beside_rdma()
{
	local P2P_TRANSPORT=tcp P2P_PORT=4421 result=0

	p2p_load_transport && p2p_add_port 3 && host 2 || return
	P2P_TRANSPORT=rdma P2P_PORT=4420 host 1 || return
	modest 2 && [[ $(p2p_stat requests "$HOST"2) == 0 ]] &&
		modest 1 && [[ $(served_by_host 1) == 100 ]] || result=1
	hosts_leave && p2p_remove_port 3 && return $result
}

# Two namespaces on different drives and providers
two_namespaces()
{
	local result=0

	add_namespace 2 "$(p2p_disk drive1)" "$big" && host 1 &&
		p2p_wait "$P2P_LIMIT" host_disk 1 2 > /dev/null || return
	modest 1 && p2p_fio "$(host_disk 1 2)" --rw=randwrite --bs=64k --size=16m \
		--iodepth=4 --verify=crc32c --verify_fatal=1 || result=1
	[[ $(served_by_host 1) == 100 ]] || result=1
	[[ $(say_p2pmem) == *"nsid=1 provider=$small "*"nsid=2 provider=$big "* ]] || result=1
	hosts_leave && remove_namespace 2 && return $result
}

# second_subsystem COMMAND...: run the command for the second subsystem
second_subsystem()
{
	local P2P_NQN=${P2P_NQN}2
	local P2P_SUBSYS=$P2P_NVMET/subsystems/$P2P_NQN
	local P2P_NS=$P2P_SUBSYS/namespaces/1

	"$@"
}

add_subsystem()
{
	mkdir "$P2P_SUBSYS" && echo 1 > "$P2P_SUBSYS"/attr_allow_any_host &&
		add_namespace 1 "$1" "$2" && p2p_link_port
}

remove_subsystem()
{
	timeout "$P2P_LIMIT" nvme disconnect -n "$P2P_NQN" > /dev/null
	p2p_unlink_port
	remove_namespace 1 && rmdir "$P2P_SUBSYS"
}

# Each has a drive of its own; the memory is the same provider's, at the same time.
two_subsystems()
{
	local number other result=0

	host 1 && second_subsystem add_subsystem "$(p2p_disk drive1)" "$small" &&
		second_subsystem host 2 || result=1
	modest 2 &
	other=$!
	modest 1 || result=1
	wait $other || result=1
	for number in 1 2; do
		[[ $(served_by_host $number) == 100 ]] || result=1
	done
	second_subsystem remove_subsystem && hosts_leave && return $result
}

# Each command that nvmet allocates a buffer for leaves one event, which says where it is.
traced()
{
	local events=0 requests

	p2p_trace_events nvmet/nvmet_p2pmem pci/p2pmem_{map,unmap} &&
		host 1 && modest 1 || return
	requests=$(p2p_stat requests)
	hosts_leave && echo 0 > "$P2P_NS"/enable
	p2p_trace_no_events
	events=$(grep -c 'nvmet_p2pmem: .* data=p2pmem' $P2P_TRACE/trace)
	ktap_print_msg "$events events for $requests requests"
	((events == requests && events)) &&
		grep -q "p2pmem_map: provider=$small client=$(p2p_device engine) reach=" \
			$P2P_TRACE/trace &&
		grep -q "p2pmem_unmap: provider=$small client=$(p2p_device drive0) " \
			$P2P_TRACE/trace && p2p_enable
}

ktap_print_header
p2p_require p2pmem0 p2pmem1 far drive0 drive1 engine engine1
p2p_require_tools fio nvme ip
p2p_has_dma_bios || p2p_skip_all "this kernel does not count, share or choose"
big=$(p2p_device p2pmem0)
small=$(p2p_device p2pmem1)
far=$(p2p_device far)
ktap_set_plan 16
if ! { p2p_insmod p2pmem_provider && p2p_load_two_nics &&
       p2p_add_target "$(p2p_disk drive0)" && P2P_ADDR=$P2P_ADDR2 p2p_add_port 2 &&
       p2p_set_provider "$small"; }; then
	ktap_exit_fail_msg "cannot set up the target"
fi

result "two hosts on two NICs" two_nics
result "I/O queues on another NIC" queues_on_two_nics
result "four hosts come and go" hosts_come_and_go
result "two namespaces on different drives and providers" two_namespaces
result "two subsystems on one provider" two_subsystems
result "TCP beside RDMA" tcp_beside_rdma
result "data in the capsule" in_capsule
result "a greedy and a modest host" short_of_memory greedy_and_modest
result "a greedy host alone" short_of_memory greedy_alone
result "invalid limits" bad_limits
result "limited by p2pmem_max" limited
add_namespace 2 "$(p2p_disk drive1)" "$small" && short_of_memory beside_greedy || share=0
if ((share < 85)); then
	result "guaranteed by p2pmem_min" guaranteed "$share"
else	# With a slow CPU, too few commands are under way at a time.
	ktap_test_skip "guaranteed by p2pmem_min: $share % are served without it"
	clean_up
fi
result "the provider with the most free memory" takes_most_free
result "another provider" takes_another
result "no provider at first" connected_without
result "traced" traced
p2p_remove_port 2
p2p_remove_target
rmmod rnic_loop
ktap_finished
