#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A target whose namespace is a stack of block devices: a multipath head, md arrays, and
# these on top of each other.  All I/O stays in peer-to-peer memory while paths fail, go
# and come back, and while members fail and are replaced.  In topology "switch" one path
# does not reach that memory.
#
# Boot with nvme_core.multipath=Y.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

PCI=/sys/bus/pci/devices
NVME=/sys/bus/pci/drivers/nvme
PROVIDERS=/sys/bus/pci/drivers/p2pmem_provider
TIMEOUT=/sys/module/nvme_core/parameters/io_timeout
ROUNDS=${P2PDMA_ROUNDS:-3}

# --- the stacks ---

both_paths_live()
{
	local state

	for state in "$(p2p_subsystem path0 path1)"/nvme*/state; do
		[[ $(< "$state") == live ]] || return
	done
	(($(path_disks | wc -l) == 2))
}

# The hidden disks of the two paths
path_disks()
{
	ls -d "$PCI/$(p2p_device path0)"/nvme/nvme*/nvme*c*n* \
	      "$PCI/$(p2p_device path1)"/nvme/nvme*/nvme*c*n* 2> /dev/null
}

# path_ios NAME: reads and writes that went down this path
path_ios()
{
	awk '{ print $1 + $5 }' "$PCI/$(p2p_device "$1")"/nvme/nvme*/nvme*c*n*/stat
}

# failovers: of both paths
failovers()
{
	cat "$PCI"/*/nvme/nvme*/nvme*c*n*/diag/multipath_failover_count 2> /dev/null |
		awk '{ n += $1 } END { print n + 0 }'
}

# use DISK: export it with peer-to-peer memory, and connect
use()
{
	stack=$1
	echo -n "$stack" > "$P2P_NS"/device_path && p2p_set_provider "$provider" &&
		p2p_connect
}

unuse()
{
	p2p_disconnect && echo 0 > "$P2P_NS"/enable
}

# --- what is tried with each ---

# The data is where it belongs, and crossed the BAR, all of it if this kernel can tell.
transfers()
{
	local ios served fallbacks tag=stack$RANDOM$RANDOM

	p2p_scrub p2pmem0 || return
	ios=$(p2p_ios "$remote")
	served=$(p2p_stat requests)
	fallbacks=$(p2p_stat fallbacks)
	p2p_fill "$remote" $tag --size=8m --bs=128k --iodepth=8 || return
	[[ ! -e $P2PDMA_CTL ]] || p2p_witness p2pmem0 $tag || return
	p2p_check "$stack" $tag --size=8m --bs=128k || return
	p2p_check "$remote" $tag --size=8m --bs=128k --iodepth=8 || return
	p2p_verify || return
	ios=$(($(p2p_ios "$remote") - ios))
	served=$(($(p2p_stat requests) - served))
	fallbacks=$(($(p2p_stat fallbacks) - fallbacks))
	((ios == served && !fallbacks)) && return
	ktap_print_msg "$ios requests, $served served from the BAR, $fallbacks not"
	return 1
}

# during COMMAND...: while verified load runs, which sees no error
during()
{
	local status=0

	p2p_start_verified_load || return
	"$@" || status=1
	p2p_end_verified_load && return $status
}

# rebind NAME [COMMAND...]: the command is run in between
rebind()
{
	local address

	address=$(p2p_device "$1")
	timeout "$P2P_LIMIT" bash -c "echo $address > $NVME/unbind" &&
		sleep 0.5 && "${@:2}" &&
		timeout "$P2P_LIMIT" bash -c "echo $address > $NVME/bind" &&
		p2p_wait "$P2P_LIMIT" both_paths_live
}

# Where the last mapping of a device is, as the kernel said
base_of()
{
	dmesg | sed -n "s/.*p2pmem .* mapped for $(p2p_device "$1") at [^0]*\(0x[0-9a-f]*\)$/\1/p" |
		tail -n1
}

# With an IOMMU, equal addresses would hide it if one was used in place of another.
addresses_differ()
{
	local name base bases=()

	for name in path0 path1 drive0 drive1; do
		base=$(base_of $name)
		bases+=("$base")
		ktap_print_msg "mapped for $name at ${base:-?}"
		[[ $base ]] || return
	done
	[[ ${bases[0]} != "${bases[1]}" && ${bases[2]} != "${bases[3]}" ]]
}

policy()
{
	local before0 before1

	echo "$1" > "$(p2p_subsystem path0 path1)"/iopolicy || return
	before0=$(path_ios path0)
	before1=$(path_ios path1)
	transfers || return
	before0=$(($(path_ios path0) - before0))
	before1=$(($(path_ios path1) - before1))
	ktap_print_msg "$1: $before0 I/Os by path0, $before1 by path1"
	[[ $1 == numa ]] || ((before0 && before1))
}

path_rebound()
{
	local name

	for name in path0 path1 path0; do
		during rebind "$name" || return
	done
	transfers
}

path_reset()
{
	local name controller

	for name in path0 path1; do
		controller=$(echo "$PCI/$(p2p_device "$name")"/nvme/nvme*)
		during timeout "$P2P_LIMIT" bash -c \
			"echo 1 > $controller/reset_controller" || return
	done
	p2p_wait "$P2P_LIMIT" both_paths_live && transfers
}

plug() # NAME
{
	p2p_plug "$1" && p2p_wait "$P2P_LIMIT" both_paths_live
}

plug_back()
{
	p2p_pull path0 && sleep 0.5 && plug path0
}

path_pulled()
{
	during plug_back && transfers
}

# The path did not exist when the memory was mapped.
path_added()
{
	unuse && p2p_pull path1 && use "$shared" && transfers || return
	during plug path1 && policy round-robin
}

# A path whose drive cannot do DMA any more: what is in flight fails over.
lose_master()
{
	setpci -s "$(p2p_device path0)" COMMAND=0:4 && p2p_wait "$P2P_LIMIT" failed_over
}

failed_over()
{
	(($(failovers) > before))
}

# The time-out applies to queues that are created from now on.
failover()
{
	local before timeout result=0

	timeout=$(< "$TIMEOUT")
	echo 2 > "$TIMEOUT"
	rebind path0 && before=$(failovers) && during lose_master || result=1
	echo "$timeout" > "$TIMEOUT"
	ktap_print_msg "failed over $(($(failovers) - before)) times"
	rebind path0 && transfers && return $result
}

# replaced DISK: it fails, the array goes on without it, and it comes back as a new one
replaced()
{
	during fail_member "$md/dev-${1##*/}" || return
	# The counters come with the reach of each member that is left.
	(($(< "$md"/degraded) == 1)) && transfers && p2p_stat requests > /dev/null || return
	# What was written while the array was degraded goes to the new member.  Transfers
	# would write it there anyway.
	during recover_with "$1" && members_equal "$drive0" "$drive1" &&
		transfers && members_equal "$drive0" "$drive1"
}

recover_with() # DISK
{
	p2p_add_member "$1" || return
	echo recover > "$md"/sync_action
	p2p_wait "$P2P_LIMIT" is_complete
}

# The array goes by what the replacement can do, although I/O waits for it already.
replaced_by() # DISK
{
	local before result=0

	during replace "$md/dev-${drive1##*/}" "$1" || result=1
	before=$(p2p_stat requests)
	p2p_verify && (($(p2p_stat requests) == before)) || result=1
	members_equal "$drive0" "$1" && return $result
}

# far COMMAND...: run the command for a subsystem that is not exported from the BAR. It
# has a NIC of its own: I/O to an array can wait in the work of a completion queue.
far()
{
	local P2P_NQN=$P2P_NQN-far P2P_ADDR=$P2P_ADDR2 remote
	local P2P_SUBSYS=$P2P_NVMET/subsystems/$P2P_NQN
	local P2P_NS=$P2P_SUBSYS/namespaces/1

	"$@"
}

connect_far()
{
	p2p_add_target /dev/nullb0 2 && p2p_enable && p2p_connect && far_disk=$remote
}

disconnect_far()
{
	p2p_disconnect && p2p_remove_target 2
}

# A disk on the network takes peer-to-peer memory, too, but only as pages.
replaced_by_far()
{
	local far_disk result=0

	far connect_far && set_up_array raid1 131072 "$drive0" "$drive1" &&
		transfers && replaced_by "$far_disk" || result=1
	tear_down_array && far disconnect_far && return $result
}

# replace DIRECTORY DISK: a member that works
replace()
{
	echo want_replacement > "$1"/state && p2p_add_member "$2" || return
	echo recover > "$md"/sync_action
	p2p_wait "$P2P_LIMIT" grep -q faulty "$1"/state && p2p_wait 10 remove_member "$1"
}

fail_member()
{
	echo faulty > "$1"/state && p2p_wait 10 remove_member "$1"
}

remove_member()
{
	{ echo remove > "$1"/state; } 2> /dev/null
}

is_complete()
{
	[[ $(< "$md"/degraded) == 0 && $(< "$md"/sync_action) == idle ]]
}

# members_equal DISK...: do all begin like the array?  Name all members, because the array
# may read from any of them.  The page cache may be stale.
members_equal()
{
	local disk

	blockdev --flushbufs "/dev/$array" || return
	for disk; do
		blockdev --flushbufs "$disk" || return
		cmp -n $((8 << 20)) "$disk" "/dev/$array" || return
	done
}

# --- everything at once ---

after() # SECONDS COMMAND...
{
	sleep "$1" && "${@:2}" && return
	ktap_print_msg "after $1 s, this failed: ${*:2}"
	return 1
}

reset() # NAME
{
	local controller

	controller=$(echo "$PCI/$(p2p_device "$1")"/nvme/nvme*)
	timeout "$P2P_LIMIT" bash -c "echo 1 > $controller/reset_controller"
}

provider_rebound()
{
	timeout "$P2P_LIMIT" bash -c "echo $provider > $PROVIDERS/unbind &&
				      echo $provider > $PROVIDERS/bind"
}

member_rejoins()
{
	fail_member "$md/dev-${drive0##*/}" && recover_with "$drive0"
}

# One path and one member always remain.
all_at_once()
{
	local running=() status=0 pid paths=(rebind reset) names=(path0 path1)

	after "0.$((RANDOM % 10))" \
		"${paths[RANDOM % 2]}" "${names[RANDOM % 2]}" & running+=($!)
	after "0.$((RANDOM % 10))" provider_rebound & running+=($!)
	after "0.$((RANDOM % 10))" member_rejoins & running+=($!)
	for pid in "${running[@]}"; do
		wait "$pid" || status=1
	done
	p2p_wait "$P2P_LIMIT" both_paths_live && return $status
}

churned()
{
	local i

	for ((i = 0; i < ROUNDS; i++)); do
		during all_at_once && members_equal "$drive0" "$shared" &&
			p2p_wait 10 p2p_is_served && transfers &&
			members_equal "$drive0" "$shared" || return
	done
}

# --- partitions ---

# partition_of DISK: exported instead of it
partition_of()
{
	local disk=$1 part=$1p1 status=0

	unuse && p2p_partition "$disk" || return
	use "$part" && transfers && blockdev --flushbufs "$disk" &&
		cmp -n $((8 << 20)) "$part" "$disk" 0 $((1 << 20)) || status=1
	unuse && p2p_unpartition "$disk" && use "$disk" && return $status
}

# --- a host with two paths to the target ---

# host_paths NUMBER: so many of its controllers are live
host_paths()
{
	local controller live=0

	for controller in /sys/class/nvme/nvme*; do
		[[ $(< "$controller"/subsysnqn) != "$P2P_NQN" ||
		   $(< "$controller"/state) != live ]] || ((++live))
	done
	((live == $1))
}

# close_port NUMBER: the host loses that path, and has it again
close_port()
{
	p2p_unlink_port "$1" && p2p_wait "$P2P_LIMIT" host_paths 1 && sleep 0.5 &&
		p2p_link_port "$1" && p2p_wait "$P2P_LIMIT" host_paths 2
}

two_ports()
{
	local subsystem result=0

	P2P_PORT=4421 p2p_add_port 2 && P2P_PORT=4421 p2p_connect || return
	for subsystem in /sys/class/nvme-subsystem/*; do
		[[ $(< "$subsystem"/subsysnqn) != "$P2P_NQN" ]] ||
			echo round-robin > "$subsystem"/iopolicy
	done
	p2p_wait "$P2P_LIMIT" host_paths 2 && transfers &&
		during close_port 1 && during close_port 2 &&
		transfers || result=1
	p2p_remove_port 2
	p2p_wait "$P2P_LIMIT" host_paths 1 && return $result
}

# --- a path that does not reach the memory ---

path1_names_the_reason()
{
	p2p_mark_log
	! p2p_set_provider "$provider" &&
		p2p_logged "$(p2p_device path1): cannot be used for peer-to-peer DMA"
}

path0_alone_serves()
{
	p2p_pull path1 && use "$shared" && transfers
}

# The host retries what that path refuses, and is served from system memory.
path1_joins()
{
	local before

	during plug path1 || return
	before=$(p2p_stat requests)
	p2p_verify && (($(p2p_stat requests) == before))
}

path1_leaves()
{
	during p2p_pull path1 && p2p_enable_anew && transfers
}

# md takes the refusal for a failure of that member.  Unless it is out, it must be equal.
path1_joins_array()
{
	local members=("$drive0") state

	during plug path1 && p2p_verify || return
	state=$(< "$md/dev-${shared##*/}"/state)
	ktap_print_msg "the member is now: $state"
	[[ $state == *faulty* ]] || members+=("$shared")
	members_equal "${members[@]}"
}

array_out_of_reach() # LEVEL
{
	on_array "$1 with a multipath member" "$1" 65536 "$drive0" "$shared"
	ktap_test_result "$1: a path out of reach is added" path1_joins_array
	tear_down_array
}

out_of_reach()
{
	ktap_set_plan 10
	echo round-robin > "$(p2p_subsystem path0 path1)"/iopolicy
	ktap_test_result "multipath: a path out of reach is refused" path1_names_the_reason
	ktap_test_result "multipath: the path in reach serves" path0_alone_serves
	ktap_test_result "multipath: a path out of reach is added" path1_joins
	ktap_test_result "multipath: it goes again" path1_leaves
	unuse
	array_out_of_reach raid1
	p2p_pull path1 || ktap_exit_fail_msg "cannot pull path1"
	array_out_of_reach raid10
}

raid1_members_equal()
{
	transfers && members_equal "$drive0" "$drive1"
}

# on_array NAME LEVEL SECTORS DISK...: the two results that all arrays have
on_array()
{
	local name=$1

	shift
	ktap_test_result "$name: set up" set_up_array "$@"
	ktap_test_result "$name: served from the BAR" transfers
}

set_up_array()
{
	p2p_make_array "$@" && use "/dev/$array"
}

tear_down_array()
{
	unuse && p2p_remove_array
}

# Is the array refused, and does the kernel log say so?
is_refused()
{
	echo -n "/dev/$array" > "$P2P_NS"/device_path
	p2p_mark_log
	! p2p_set_provider "$provider" &&
		p2p_logged "peer-to-peer DMA is not supported by the driver of /dev/$array"
}

# A member that only takes pages
refuses_member()
{
	local result=0

	modprobe null_blk nr_devices=1 gb=1 && p2p_make_array raid1 131072 "$drive0" /dev/nullb0 ||
		return
	is_refused || result=1
	echo 0 > "$P2P_NS"/enable && p2p_remove_array && rmmod null_blk && return $result
}

# Each partition has two paths, so that there are more devices than nvmet maps for.
refuses_many_devices()
{
	local i parts=() result=0

	for ((i = 1; i <= 32; i++)); do
		addpart "$shared" $i $((i * 2048)) 2048 || return
		parts+=("${shared}p$i")
	done
	p2p_make_array raid0 2048 "${parts[@]}" && is_refused || result=1
	echo 0 > "$P2P_NS"/enable && p2p_remove_array && blockdev --rereadpt "$shared" &&
		return $result
}

# Two domains can allocate the same address.  A drive that is not translated uses the
# BAR's own address, which is never an IOVA.
do_not_translate()
{
	local name group

	for name; do
		group=$PCI/$(p2p_device "$name")/iommu_group
		rebind "$name" eval "echo identity > $group/type" || return
	done
}

ktap_print_header
p2p_require p2pmem0 drive0 drive1 path0 path1 engine engine1
p2p_require_tools addpart fio nvme ip setpci
p2p_has_dma_bios || p2p_skip_all "this kernel's target takes no stack"
[[ $(< /sys/module/nvme_core/parameters/multipath) == Y ]] ||
	p2p_skip_all "boot with nvme_core.multipath=Y"
translated=0
grep -qs DMA /sys/kernel/iommu_groups/*/type && translated=1
if ((translated)) && ! do_not_translate path1 drive1; then
	ktap_exit_fail_msg "cannot take the IOMMU away from path1 and drive1"
fi
provider=$(p2p_device p2pmem0)
drive0=$(p2p_disk drive0)
drive1=$(p2p_disk drive1)
shared=$(p2p_head_disk path0 path1) || p2p_skip_all "path0 and path1 share no namespace"
p2p_load_two_nics || ktap_exit_fail_msg "cannot load two NICs"
p2p_set_up_disk "$shared" || ktap_exit_fail_msg "cannot set up the target"
if [[ $P2PDMA_TOPOLOGY == switch ]]; then
	out_of_reach
	p2p_remove_target
	ktap_finished
fi
ktap_set_plan 31
use "$shared" || ktap_exit_fail_msg "cannot export $shared"

ktap_test_result "multipath: served from the BAR" transfers
ktap_test_result "multipath: round-robin" policy round-robin
ktap_test_result "multipath: paths unbound and bound" path_rebound
if ((translated)); then
	ktap_test_result "multipath: each drive has another address" addresses_differ
else
	ktap_test_skip "multipath: each drive has another address: they have no IOVAs"
fi
ktap_test_result "multipath: queue-depth" policy queue-depth
ktap_test_result "multipath: paths reset" path_reset
ktap_test_result "multipath: failover" failover
ktap_test_result "multipath: path pulled and plugged" path_pulled
ktap_test_result "multipath: path added" path_added
ktap_test_result "multipath: partition" partition_of "$shared"
ktap_test_result "two ports, each closed under load" two_ports
unuse

on_array "raid0" raid0 131072 "$drive0" "$drive1"
ktap_test_result "raid0: partition" partition_of "/dev/$array"
tear_down_array
on_array "raid1" raid1 131072 "$drive0" "$drive1"
ktap_test_result "raid1: members are equal" raid1_members_equal
ktap_test_result "raid1: member replaced" replaced "$drive1"
modprobe null_blk nr_devices=1 gb=1 memory_backed=1
ktap_test_result "raid1: replaced by a member that takes only pages" replaced_by /dev/nullb0
tear_down_array
ktap_test_result "raid1: replaced by a member on the network" replaced_by_far
rmmod null_blk
on_array "raid10" raid10 131072 "$drive0" "$drive1"
ktap_test_result "raid10: member replaced" replaced "$drive0"
tear_down_array
on_array "raid1 with a multipath member" raid1 65536 "$drive0" "$shared"
ktap_test_result "raid1 with a multipath member: paths unbound and bound" path_rebound
ktap_test_result "raid1 with a multipath member: members are equal" \
	members_equal "$drive0" "$shared"
ktap_test_result "raid1 with a multipath member: all at once, $ROUNDS times" churned
tear_down_array
ktap_test_result "array with a member that takes only pages" refuses_member
ktap_test_result "array with too many devices" refuses_many_devices
ktap_test_result "all memory is back in the pool" p2p_wait 10 p2p_pool_is_free "$provider"
p2p_remove_target
ktap_finished
