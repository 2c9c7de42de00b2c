#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Providers, drives, network cards, hosts and namespaces come and go at random
# while there is load, by their drivers and by their slots. After each of these
# cycles the target serves from peer-to-peer memory again, and every byte is right;
# in the end all memory is back in the pool, and nothing holds a driver. What has to
# wait for transfers in flight does not wait for long.
#
# P2P_CYCLES says how many, P2P_SEED repeats a run.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

PROVIDERS=/sys/bus/pci/drivers/p2pmem_provider
DRIVES=/sys/bus/pci/drivers/nvme
CYCLES=${P2P_CYCLES:-10}
WAIT_LIMIT=28000	# ms: no command needs its timeout of 30 s to end

# What the host's I/O must survive, and what may interrupt it
UNNOTICED=(provider_rebound provider_reloaded drive_reset host_reset)
NOTICED=(namespace_cycled host_reconnected drive_rebound card_reloaded
	 port_relinked)
# What happens without load
IDLE=()

seed=${P2P_SEED:-$RANDOM}
times=/tmp/churn.times	# a file, because some of them are at the same time

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

drive_flr()
{
	timed_write "drive reset by PCI" 1 "$pci_reset"
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

# --- what it does notice ---

namespace_cycled()
{
	timed_write "namespace disabled" 0 "$P2P_NS"/enable &&
		write 1 "$P2P_NS"/enable
}

host_reconnected()
{
	timed "host disconnected" p2p_disconnect && p2p_connect
}

drive_is_back()
{
	[[ -b $(p2p_disk drive0) ]]
}

# Its disk may have another name after.
drive_in_use()
{
	p2p_wait "$P2P_LIMIT" drive_is_back && write 0 "$P2P_NS"/enable &&
		echo -n "$(p2p_disk drive0)" > "$P2P_NS"/device_path &&
		write 1 "$P2P_NS"/enable
}

drive_rebound()
{
	timed_write "drive unbound" "$drive" $DRIVES/unbind &&
		write "$drive" $DRIVES/bind && drive_in_use
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

# The provider is looked for when the namespace is enabled.
back_to_p2p()
{
	p2p_set_provider "$provider" && p2p_wait "$P2P_LIMIT" p2p_find_remote &&
		p2p_is_served
}

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

	p2p_start_load || return
	"$1" || status=1
	p2p_end_load
	return "$status"
}

# The provider, the drive and the host at once: none of it is noticed.
together()
{
	local event running=() status=0

	p2p_start_verified_load || return
	for event in provider_rebound drive_reset host_reset; do
		$event &
		running+=($!)
	done
	for event in "${running[@]}"; do
		wait "$event" || status=1
	done
	p2p_end_verified_load && return "$status"
}

all_events()
{
	printf 'unnoticed %s\n' "${UNNOTICED[@]}"
	printf 'noticed %s\n' "${NOTICED[@]}"
	printf '%s\n' "${IDLE[@]}" together
}

cycle()
{
	local events

	mapfile -t events < <(all_events)
	event=${events[RANDOM % ${#events[@]}]}
	# shellcheck disable=SC2086 # how, and what
	$event && back_to_p2p && return
	ktap_print_msg "after: $event"
	return 1
}

# The first that fails ends it: what follows would only follow from it.
cycles()
{
	local i event=

	RANDOM=$seed
	for ((i = 1; i <= CYCLES; i++)); do
		cycle || return
		((i % 10)) || ktap_print_msg "$i of $CYCLES cycles"
	done
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
pci_reset=/sys/bus/pci/devices/$drive/reset
[[ ! -e $pci_reset ]] || UNNOTICED+=(drive_flr)
# An emulated machine has hands for it. QEMU 7.2 crashes if a device goes without
# notice while it does DMA. Without the card the host cannot say that it goes, and
# waits a minute for an answer, so that is left out.
if [[ $P2PDMA_TOPOLOGY ]]; then
	UNNOTICED+=(provider_unplugged)
	NOTICED+=(drive_unplugged card_unplugged)
	IDLE+=(provider_pulled drive_pulled)
fi
ktap_set_plan 4
ktap_print_msg "seed $seed: repeat with P2P_SEED=$seed"
set_up || ktap_exit_fail_msg "cannot set up the target"
ktap_test_result "$CYCLES cycles, each served again, verified" cycles
ktap_test_result "nothing waits for long" bounded
ktap_test_result "all memory is back in the pool" p2p_pool_is_back "$provider"
ktap_test_result "nothing holds the modules" nothing_is_held
ktap_finished
