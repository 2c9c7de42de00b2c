#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Providers, drives, network cards, hosts and namespaces come and go while there is
# load, by their drivers and by their slots: all of these events in a random order,
# then all of them in another one. After each of these cycles the pool is full again,
# the target serves from peer-to-peer memory once its namespace has been disabled and
# enabled, and every byte is right; in the end nothing holds a driver. What has to wait
# for transfers in flight does not wait for long.
#
# P2P_CYCLES says how many, P2P_SEED repeats a run.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

PROVIDERS=/sys/bus/pci/drivers/p2pmem_provider
DRIVES=/sys/bus/pci/drivers/nvme
CARDS=/sys/bus/pci/drivers/lsi_copy
CYCLES=${P2P_CYCLES:-10}
WAIT_LIMIT=28000	# ms: no command needs its timeout of 30 s to end

# What the host's I/O must survive, and what may interrupt it
UNNOTICED=(provider_rebound provider_reloaded drive_reset host_reset)
NOTICED=(namespace_cycled namespace_recreated host_reconnected drive_rebound
	 card_reloaded card_unbound port_relinked)
# What happens without load
IDLE=()
# What can happen at the same time: one of each of these, see choose()
PROVIDER=(provider_rebound provider_reloaded)
DRIVE=(drive_reset drive_away)
# The card is one of them, because the host connects again when it is back.
# shellcheck disable=SC2034
HOST=(host_reset host_reconnected port_relinked card_reloaded card_unbound)
# shellcheck disable=SC2034
NAMESPACE=(namespace_away)

seed=${P2P_SEED:-$RANDOM}
times=/tmp/churn.times	# a file, because some of them are at the same time
deck=()			# events that are still to come before any comes again
declare -A happened took	# how often each of them has, and for how long in ms
chosen=() delays=()	# those that come together, and when

# timed NAME COMMAND...: how long it takes, in ms
timed()
{
	local name=$1 start=${EPOCHREALTIME/./} status=0

	shift
	"$@" || status=$?
	echo "$(((${EPOCHREALTIME/./} - start) / 1000)) $name" >> $times
	return "$status"
}

# write VALUE FILE
write()
{
	# shellcheck disable=SC2016 # they are the inner shell's
	timeout "$P2P_LIMIT" bash -c 'echo "$1" > "$2"' _ "$1" "$2"
}

# timed_write NAME VALUE FILE
timed_write()
{
	timed "$1" write "$2" "$3"
}

# --- what the host does not notice ---

provider_rebound()
{
	timed_write "provider unbound" "$provider" $PROVIDERS/unbind &&
		write "$provider" $PROVIDERS/bind
}

provider_reloaded()
{
	timed "provider unloaded" timeout "$P2P_LIMIT" rmmod p2pmem_provider &&
		p2p_insmod p2pmem_provider
}

drive_controller()
{
	echo "/sys/bus/pci/devices/$drive"/nvme/nvme*
}

drive_reset()
{
	timed_write "drive reset" 1 "$(drive_controller)"/reset_controller
}

# By no other reset than this. A device that was plugged in again offers all.
drive_flr()
{
	write flr "$pci"/reset_method && [[ $(< "$pci"/reset_method) == flr ]] &&
		timed_write "drive reset by FLR" 1 "$pci"/reset
}

drive_has_recovered()
{
	p2p_logged "device recovery successful" > /dev/null &&
		grep -q live "$(drive_controller)"/state
}

# The kernel stops the drive, resets the link, and starts the drive again.
recovers() # COMMAND...: meanwhile
{
	[[ $(p2p_ask link_error drive0) == ok ]] || return
	# The recovery must not end before this.
	p2p_mark_log
	"$@" || return
	p2p_wait "$P2P_LIMIT" drive_has_recovered && return
	ktap_print_msg "the drive recovered too early, or not at all"
	return 1
}

drive_link_error()
{
	timed "link error at the drive" recovers true
}

# I/O in flight holds the provider until the drive is back.
provider_waited_for_link()
{
	recovers timed_write "provider unbound, link error" "$provider" \
		$PROVIDERS/unbind && write "$provider" $PROVIDERS/bind
}

drive_was_reset()
{
	p2p_logged "timeout, reset controller" > /dev/null
}

# A drive that is this slow still does the DMA of commands that are given up.
drive_stalls() # COMMAND...: meanwhile
{
	local meanwhile status=0

	[[ $(p2p_ask stall drive0) == ok ]] || return
	"$@" &
	meanwhile=$!
	p2p_wait "$P2P_LIMIT" drive_was_reset || status=1
	[[ $(p2p_ask resume drive0) == ok ]] &&
		p2p_wait "$P2P_LIMIT" grep -q live "$(drive_controller)"/state ||
		status=1
	wait $meanwhile && return "$status"
}

# They are aborted after a second, which helps nothing, and sent again once the
# controller has been reset.
with_timeouts() # COMMAND...
{
	local queue status=0

	queue=/sys/block/$(basename "$(p2p_disk drive0)")/queue
	p2p_mark_log
	write 1000 "$queue"/io_timeout || return
	"$@" || status=1
	write 30000 "$queue"/io_timeout && return "$status"
}

drive_timed_out()
{
	with_timeouts timed "drive timed out, reset" drive_stalls true
}

# What is in flight holds the provider until the drive has been reset.
provider_waited()
{
	with_timeouts drive_stalls timed_write "provider unbound, drive timed out" \
		"$provider" $PROVIDERS/unbind && write "$provider" $PROVIDERS/bind
}

host_reset()
{
	local ctrl

	ctrl=$(p2p_controller) || return
	timed_write "host reset" 1 "$ctrl"/reset_controller &&
		p2p_wait "$P2P_LIMIT" grep -q live "$ctrl"/state
}

provider_plugged()
{
	p2p_plug p2pmem0 &&
		p2p_wait "$P2P_LIMIT" test -e $PROVIDERS/"$provider"
}

provider_unplugged()
{
	timed "provider unplugged" p2p_unplug p2pmem0 && provider_plugged
}

provider_pulled()
{
	timed "provider pulled" p2p_pull p2pmem0 && provider_plugged
}

# taken ADDRESS NAME: by vfio-pci, and given back
taken()
{
	local device=/sys/bus/pci/devices/$1 status=0

	modprobe vfio-pci && write vfio-pci "$device"/driver_override || return
	timed_write "$2" "$1" "$device"/driver/unbind &&
		write "$1" /sys/bus/pci/drivers_probe &&
		[[ $(readlink "$device"/driver) == */vfio-pci ]] &&
		write "$1" /sys/bus/pci/drivers/vfio-pci/unbind || status=1
	write "" "$device"/driver_override && write "$1" /sys/bus/pci/drivers_probe &&
		return $status
}

provider_taken()
{
	taken "$provider" "provider given to vfio"
}

# --- what it does notice ---

namespace_cycled()
{
	timed_write "namespace disabled" 0 "$P2P_NS"/enable &&
		write 1 "$P2P_NS"/enable
}

# It is removed without being disabled before. The host knows it by its UUID.
namespace_recreated()
{
	local uuid

	uuid=$(< "$P2P_NS"/device_uuid)
	timed "namespace removed" timeout "$P2P_LIMIT" rmdir "$P2P_NS" &&
		mkdir "$P2P_NS" && write "$uuid" "$P2P_NS"/device_uuid &&
		echo -n "$(p2p_disk drive0)" > "$P2P_NS"/device_path &&
		write "$provider" "$P2P_NS"/p2pmem && write 1 "$P2P_NS"/enable
}

is_enabled()
{
	write 1 "$P2P_NS"/enable 2> /dev/null
}

# Its provider may be away too, then it can't be enabled yet.
namespace_away()
{
	timed_write "namespace disabled" 0 "$P2P_NS"/enable &&
		p2p_wait "$P2P_LIMIT" is_enabled
}

host_reconnected()
{
	timed "host disconnected" p2p_disconnect && p2p_connect
}

# Its disk may have another name after.
drive_in_use()
{
	p2p_wait "$P2P_LIMIT" p2p_disk_is_there drive0 && write 0 "$P2P_NS"/enable &&
		echo -n "$(p2p_disk drive0)" > "$P2P_NS"/device_path &&
		write 1 "$P2P_NS"/enable
}

drive_bound_anew()
{
	timed_write "drive unbound" "$drive" $DRIVES/unbind &&
		write "$drive" $DRIVES/bind
}

drive_taken()
{
	taken "$drive" "drive given to vfio" && drive_in_use
}

drive_rebound()
{
	drive_bound_anew && drive_in_use
}

# Its namespace may be enabled by someone else meanwhile, or its provider be away too.
drive_away()
{
	drive_bound_anew && p2p_wait "$P2P_LIMIT" drive_in_use 2> /dev/null
}

drive_unplugged()
{
	timed "drive unplugged" p2p_unplug drive0 && p2p_plug drive0 &&
		drive_in_use
}

drive_pulled()
{
	timed "drive pulled" p2p_pull drive0 && p2p_plug drive0 && drive_in_use
}

# The port does not listen any more until it is linked again.
card_in_use()
{
	p2p_load_rnic || return
	p2p_unlink_port
	p2p_wait "$P2P_LIMIT" p2p_disconnect && p2p_link_port && p2p_connect
}

card_reloaded()
{
	timed "card unloaded" timeout "$P2P_LIMIT" rmmod rnic_loop && card_in_use
}

# The card goes with the device that does its DMA, and comes back with it.
card_unbound()
{
	timed_write "card unbound" "$engine" $CARDS/unbind &&
		write "$engine" $CARDS/bind && card_in_use
}

card_unplugged()
{
	timed "card unplugged" p2p_unplug engine && p2p_plug engine && card_in_use
}

port_relinked()
{
	p2p_unlink_port
	p2p_disconnect && p2p_link_port && p2p_connect
}

# --- cycles ---

unnoticed()
{
	local status=0

	p2p_start_verified_load || return
	"$1" || status=1
	p2p_end_verified_load && return "$status"
}

noticed()
{
	local status=0

	p2p_keep_data && p2p_start_load || return
	"$1" || status=1
	p2p_end_load
	return "$status"
}

idle()
{
	p2p_keep_data && "$1"
}

all_at_once()
{
	local i running=() status=0

	for i in "${!chosen[@]}"; do
		{ sleep "${delays[i]}" && ${chosen[i]}; } &
		running+=($!)
	done
	for i in "${!running[@]}"; do
		wait "${running[i]}" && continue
		ktap_print_msg "${chosen[i]} failed"
		status=1
	done
	return "$status"
}

# choose ARRAY: one of its elements, at any time within a second
choose()
{
	local -n from=$1

	chosen+=("${from[RANDOM % ${#from[@]}]}")
	delays+=("0.$((RANDOM % 10))")
}

# Two to four of them, and how the host takes it. One slot at most is among them: QEMU
# has one channel to ask for it.
together()
{
	local kinds=(PROVIDER DRIVE HOST NAMESPACE) i how=unnoticed

	chosen=() delays=()
	shuffle kinds
	for ((i = RANDOM % 3 + 1; i >= 0; i--)); do
		choose "${kinds[i]}"
	done
	for i in "${chosen[@]}"; do
		[[ " ${UNNOTICED[*]} " == *" $i "* ]] || how=noticed
	done
	$how all_at_once && return
	ktap_print_msg "$how, after as many seconds:" \
		"$(paste -d ' ' <(printf '%s\n' "${chosen[@]}") \
			<(printf '%s\n' "${delays[@]}") | paste -sd ,)"
	return 1
}

all_events()
{
	printf 'unnoticed %s\n' "${UNNOTICED[@]}"
	printf 'noticed %s\n' "${NOTICED[@]}"
	((${#IDLE[@]} == 0)) || printf 'idle %s\n' "${IDLE[@]}"
	echo together
}

# shuffle ARRAY
shuffle()
{
	local -n cards=$1
	local i other card

	for ((i = ${#cards[@]} - 1; i > 0; i--)); do
		other=$((RANDOM % (i + 1)))
		card=${cards[i]}
		cards[i]=${cards[other]}
		cards[other]=$card
	done
}

# Sets event
draw()
{
	if ((${#deck[@]} == 0)); then
		mapfile -t deck < <(all_events)
		shuffle deck
	fi
	event=${deck[-1]}
	unset 'deck[-1]'
}

# step COMMAND...: a part of a cycle, which is named if it fails
step()
{
	"$@" && return
	ktap_print_msg "$event: this failed: $*"
	return 1
}

pool_is_full()
{
	p2p_wait 10 p2p_pool_is_free "$provider"
}

# After verified load there is nothing more to compare.
nothing_is_lost()
{
	[[ ! $p2p_kept ]] || p2p_data_is_kept
}

cycle()
{
	local start=${EPOCHREALTIME/./}

	p2p_kept=
	draw
	# shellcheck disable=SC2086 # how, and what
	step $event && step pool_is_full && step p2p_enable_anew &&
		step p2p_is_served && step nothing_is_lost || return
	happened[$event]=$((${happened[$event]:-0} + 1))
	took[$event]=$((${took[$event]:-0} + (${EPOCHREALTIME/./} - start) / 1000))
}

# The first that fails ends it: what follows would only follow from it.
cycles()
{
	local i event='' start=$SECONDS

	RANDOM=$seed
	for ((i = 1; i <= CYCLES; i++)); do
		cycle || return
		((i % 10)) || ktap_print_msg "$i of $CYCLES cycles," \
			"$((SECONDS - start)) s"
	done
}

# Once at least, if there were enough cycles for it
all_happened()
{
	local event status=0

	while read -r event; do
		ktap_print_msg "$event: ${happened[$event]:-0} times," \
			"$((${took[$event]:-0} / ${happened[$event]:-1})) ms each"
		[[ ${happened[$event]} ]] || status=1
	done < <(all_events)
	return "$status"
}

# Nothing waits longer than it takes to end what is in flight.
bounded()
{
	sort -rn $times | awk -v limit=$WAIT_LIMIT '
		$1 > limit { too_long = 1 }
		{ ms = $1; sub(/^[0-9]* /, "") }
		!seen[$0]++ { printf "# %s: %d ms at most\n", $0, ms }
		END { exit too_long || !NR }'
}

# Whoever holds a reference to one of them keeps its module from going.
nothing_is_held()
{
	local module

	p2p_remove_target
	for module in nvmet_rdma nvme_rdma rnic_loop p2pmem_provider lsi_copy; do
		# What is built in has no count.
		[[ -e /sys/module/$module/refcnt ]] || continue
		timeout "$P2P_LIMIT" rmmod $module || return
	done
}

set_up()
{
	: > $times
	p2p_set_up_target "$(p2p_disk drive0)" "$provider" && p2p_is_served
}

ktap_print_header
p2p_require p2pmem0 drive0 engine
p2p_require_tools fio nvme ip
p2p_has_dma_bios || p2p_skip_all "this kernel has no I/O by DMA address"
provider=$(p2p_device p2pmem0)
drive=$(p2p_device drive0)
engine=$(p2p_device engine)
pci=/sys/bus/pci/devices/$drive
# An emulated machine has hands for it, and a drive that offers FLR. QEMU 7.2 crashes
# if a device goes without notice while it does DMA. Without the card the host cannot
# say that it goes, and waits a minute for an answer, so that is left out.
if [[ $P2PDMA_TOPOLOGY ]]; then
	UNNOTICED+=(provider_unplugged provider_waited drive_timed_out)
	UNNOTICED+=(drive_link_error provider_waited_for_link)
	NOTICED+=(drive_unplugged card_unplugged)
	IDLE+=(provider_pulled drive_pulled)
	PROVIDER+=(provider_unplugged)
fi
if [[ $P2PDMA_TOPOLOGY ]] || grep -qsw flr "$pci"/reset_method; then
	UNNOTICED+=(drive_flr)
	DRIVE+=(drive_flr)
fi
# Without an IOMMU, vfio-pci takes no device.
if [[ -e $pci/iommu_group ]] && modprobe -n vfio-pci 2> /dev/null; then
	UNNOTICED+=(provider_taken)
	NOTICED+=(drive_taken)
fi
ktap_set_plan 5
ktap_print_msg "seed $seed: repeat with P2P_SEED=$seed"
set_up || ktap_exit_fail_msg "cannot set up the target"
ktap_test_result "$CYCLES cycles, each served again, verified" cycles
if ((CYCLES >= $(all_events | wc -l))); then
	ktap_test_result "all events happened" all_happened
else
	all_happened
	ktap_test_skip "all events happened: there are more than $CYCLES"
fi
ktap_test_result "nothing waits for long" bounded
ktap_test_result "all memory is back in the pool" p2p_pool_is_back "$provider"
ktap_test_result "nothing holds the modules" nothing_is_held
ktap_finished
