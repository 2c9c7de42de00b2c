#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What happens to a target with peer-to-peer memory while it is under load: the
# pool is too small, the host goes away, the namespace is disabled, the provider
# is unbound. No data may be damaged, no memory lost, and nothing may hang.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

DRIVER=/sys/bus/pci/drivers/p2pmem_provider
ROUNDS=${P2PDMA_ROUNDS:-3}
HEAL_LIMIT=$((P2P_LIMIT > 60 ? 30 : 3))	# seconds; more where all is slow

# written BS DEPTH: how many requests were served from the pool, how many not
written()
{
	local requests fallbacks

	requests=$(p2p_stat requests)
	fallbacks=$(p2p_stat fallbacks)
	p2p_fio "$remote" --rw=randwrite --bs="$1" --size=16m --iodepth="$2" \
		--verify=crc32c --verify_fatal=1 >&2 || return
	echo $(($(p2p_stat requests) - requests)) \
		$(($(p2p_stat fallbacks) - fallbacks))
}

# What does not fit is served from system memory, what does from the pool.
exhausted()
{
	local large small_ones status=0

	p2p_hold_pool "$small" $((512 << 10)) || { p2p_release_pool "$small"; return 1; }
	large=$(written 1m 8) && small_ones=$(written 64k 4) || status=1
	p2p_release_pool "$small" || status=1
	ktap_print_msg "served from the pool, and from system memory:" \
		"1 MiB $large, 64 KiB $small_ones"
	((has_dma_bios)) || return "$status"
	[[ $large =~ ^0\ [1-9] && $small_ones =~ ^[1-9][0-9]*\ 0$ ]] &&
		return "$status"
}

disconnected()
{
	local i

	for ((i = 0; i < ROUNDS; i++)); do
		p2p_keep_data && p2p_start_load || return
		p2p_disconnect || return
		p2p_end_load
		p2p_wait "$P2P_LIMIT" p2p_pool_is_free "$provider" || return
		p2p_connect && p2p_data_is_kept || return
	done
	p2p_is_served
}

reset()
{
	local i ctrl

	ctrl=$(p2p_controller) || return
	for ((i = 0; i < ROUNDS; i++)); do
		p2p_start_verified_load || return
		timeout "$P2P_LIMIT" bash -c "echo 1 > $ctrl/reset_controller" ||
			return
		p2p_wait "$P2P_LIMIT" grep -q live "$ctrl"/state || return
		p2p_end_verified_load || return
	done
	p2p_is_served
}

# Until it is enabled again the host gets errors.
disabled()
{
	local i

	for ((i = 0; i < ROUNDS; i++)); do
		p2p_keep_data && p2p_start_load || return
		timeout "$P2P_LIMIT" bash -c "echo 0 > $P2P_NS/enable" || return
		p2p_end_load
		p2p_wait "$P2P_LIMIT" p2p_pool_is_free "$provider" || return
		echo 1 > "$P2P_NS"/enable || return
		# The unpatched kernel may tell the host too early.
		((has_dma_bios)) ||
			echo 1 > "$(p2p_controller)"/rescan_controller || return
		p2p_wait "$P2P_LIMIT" p2p_find_remote &&
			p2p_data_is_kept || return
	done
	p2p_is_served
}

# data_crosses: does what the host writes go through the BAR?
data_crosses()
{
	local tag=heals$RANDOM$RANDOM

	p2p_scrub p2pmem0 && p2p_fill "$remote" $tag --size=1m --bs=64k &&
		p2p_witness p2pmem0 $tag
}

# In-flight transfers end, later ones use system memory, no I/O fails. The provider
# serves again within two seconds, without anybody asking for it.
unbound()
{
	local i log

	p2p_mark_log
	for ((i = 0; i < ROUNDS; i++)); do
		p2p_start_verified_load || return
		timeout "$P2P_LIMIT" bash -c "echo $provider > $DRIVER/unbind" &&
			echo "$provider" > $DRIVER/bind || return
		p2p_end_verified_load || return
		if [[ -e $P2PDMA_CTL ]]; then
			p2p_wait "$HEAL_LIMIT" data_crosses || return
		fi
		p2p_is_served || return
	done
	((has_dma_bios)) || return 0
	log=$(p2p_log_since_mark | grep -c "p2pmem.*using system memory")
	((log >= 1 && log <= ROUNDS)) && return
	ktap_print_msg "$log lines in the log for $ROUNDS times"
	return 1
}

# Enabling must not wait for a reset of the drive, which holds the device lock.
enabled_in_reset()
{
	local resetting status=0

	echo 0 > "$P2P_NS"/enable
	echo 1 > "$pci"/reset &
	resetting=$!
	sleep 0.01
	echo 1 > "$P2P_NS"/enable || status=1
	! kill -0 $resetting 2> /dev/null || ((++during))
	wait $resetting && ((!status)) &&
		p2p_wait "$P2P_LIMIT" p2p_find_remote && p2p_is_served
}

reset_meanwhile()
{
	local i during=0 status=0

	echo flr > "$pci"/reset_method || return
	# If the reset was already over, this has tested nothing.
	for ((i = 0; (i < ROUNDS || (!during && i < 10)) && !status; i++)); do
		enabled_in_reset || status=1
	done
	echo default > "$pci"/reset_method
	ktap_print_msg "enabled during a reset $during times of $i"
	((during && !status))
}

# noticed RESULT COMMAND...: it makes the target send the host a notice with that result
noticed()
{
	local status=0

	p2p_trace_events nvme/nvme_async_event && "${@:2}" && p2p_wait "$P2P_LIMIT" \
		grep -q "NVME_AEN=$1" $P2P_TRACE/trace || status=1
	p2p_trace_no_events
	return $status
}

set_ana_state()
{
	echo "$1" > $P2P_NVMET/ports/1/ana_groups/1/ana_state
}

ana_changes()
{
	noticed 0x0c0302 set_ana_state non-optimized && set_ana_state optimized && p2p_verify
}

add_other_subsystem()
{
	mkdir "$other" && echo 1 > "$other"/attr_allow_any_host &&
		ln -s "$other" $P2P_NVMET/ports/1/subsystems/other
}

# A host that stays connected to the discovery controller
discovery_changes()
{
	local other=$P2P_NVMET/subsystems/other discovery=nqn.2014-08.org.nvmexpress.discovery
	local status=0

	nvme discover -t rdma -a "$P2P_ADDR" -s "$P2P_PORT" -p \
		"${P2P_HOST[@]}" &> /tmp/discover.log ||
		{ p2p_log discover /tmp/discover.log; return 1; }
	noticed 0x70f002 add_other_subsystem || status=1
	rm $P2P_NVMET/ports/1/subsystems/other
	rmdir "$other"
	timeout "$P2P_LIMIT" nvme disconnect -n $discovery > /dev/null && return $status
}

pool_free()
{
	p2p_disconnect && p2p_wait 10 p2p_pool_is_free "$provider" &&
		p2p_pool_is_free "$small"
}

use_provider()
{
	p2p_set_provider "$provider" && p2p_wait "$P2P_LIMIT" p2p_find_remote
}

ktap_print_header
p2p_require p2pmem0 p2pmem1 drive0 engine
p2p_require_tools fio nvme ip
provider=$(p2p_device p2pmem0)
small=$(p2p_device p2pmem1)
pci=/sys/bus/pci/devices/$(p2p_device drive0)
ktap_set_plan 10
has_dma_bios=0
p2p_has_dma_bios && has_dma_bios=1
p2p_set_up_target "$(p2p_disk drive0)" "$small" ||
	ktap_exit_fail_msg "cannot set up the target"

ktap_test_result "pool exhausted" exhausted
ktap_test_result "another provider" use_provider
ktap_test_result "disconnected and connected again" disconnected
ktap_test_result "controller reset" reset
ktap_test_result "namespace disabled" disabled
if ((has_dma_bios)); then
	ktap_test_result "provider unbound" unbound
else
	ktap_test_skip "provider unbound: the unpatched kernel may crash"
fi
if ((has_dma_bios)) && grep -qsw flr "$pci"/reset_method; then
	ktap_test_result "namespace enabled while the drive is reset" reset_meanwhile
else
	ktap_test_skip "namespace enabled while the drive is reset: no FLR, or an old kernel"
fi
ktap_test_result "notice of an ANA state" ana_changes
ktap_test_result "notice to a host of the discovery controller" discovery_changes
ktap_test_result "all memory is back in the pools" pool_free
p2p_remove_target
ktap_finished
