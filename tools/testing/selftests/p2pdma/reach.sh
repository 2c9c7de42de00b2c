#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# How two devices reach a provider's memory in each topology of the emulated
# machine, by the kernel's own trace events: mapped once for each of them, or not
# at all because the bus address will do, or refused with the reason. Transfers
# map none of it.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

# With an IOMMU the kernel enables ACS redirection, which sends requests up to the
# IOMMU, unless it is told not to. Without one it has to be told to.
acs_redirects()
{
	grep -q config_acs= /proc/cmdline && return
	[[ $P2PDMA_TOPOLOGY == @(iommu-*|large) ]] &&
		! grep -q disable_acs_redir /proc/cmdline
}

case $P2PDMA_TOPOLOGY in
switch) expected="bus address" ;;
# Elsewhere the route leads through the host bridge in any case.
acs) if acs_redirects; then expected="physical address"; else expected="bus address"; fi ;;
bridge | cmb | iommu-pt) expected="physical address" ;;
iommu-lazy | iommu-strict | large) expected="address of the IOMMU" ;;
refused) expected="nothing" ;;
esac

# bar_mappings: "DEVICE DMA-ADDRESS PHYSICAL-ADDRESS" of each in the trace. An IOMMU
# does not say for which device it is.
bar_mappings()
{
	local first last device dma phys hex='\([0-9a-fx]*\)'

	read -r first last <<< "$(p2p_bar_range p2pmem0)"
	sed -n "s/.* dma_map_phys: \([^ ]*\) .* dma_addr=$hex .* phys_addr=$hex .*/\1 0x\2 0x\3/p
		s/.* map: IOMMU: iova=$hex .* paddr=$hex .*/IOMMU \1 \2/p" \
		$P2P_TRACE/trace |
		while read -r device dma phys; do
			if ((phys >= first && phys <= last)); then
				echo "$device $dma $phys"
			fi
		done
}

# What the mappings are that were made for a device; in an IOMMU, for both devices
kind_of()
{
	local mine translated

	mine=$(grep -c "^$1 " /tmp/mappings)
	translated=$(grep -c "^IOMMU " /tmp/mappings)
	case $mine,$translated in
	0,0) echo "bus address" ;;
	0,2) echo "address of the IOMMU" ;;
	1,0) echo "physical address" ;;
	*) echo "$mine mappings, $translated in the IOMMU" ;;
	esac
}

# reached_by NAME: as it should be?
reached_by()
{
	local kind

	kind=$(kind_of "$(p2p_device "$1")")
	ktap_print_msg "$1 uses: $kind"
	[[ $kind == "$expected" ]]
}

# acs_is_as_expected: request and completion redirection of the provider's port
acs_is_as_expected()
{
	local redirects expected=0

	redirects=$(setpci -s "$(p2p_port p2pmem0)" ECAP_ACS+6.w) || return
	redirects=$((0x$redirects & 0xc))
	acs_redirects && expected=12
	ktap_print_msg "ACS redirection: $redirects"
	((redirects == expected))
}

# QEMU's root ports have ACS, its switch has not.
acs_result()
{
	if [[ $P2PDMA_TOPOLOGY == switch ]]; then
		ktap_test_skip "ACS redirection: the port has none"
	else
		ktap_test_result "ACS redirection" acs_is_as_expected
	fi
}

connect_traced()
{
	p2p_set_provider "$provider" && p2p_trace_start 16384 && p2p_connect ||
		return
	echo 0 > $P2P_TRACE/tracing_on
	bar_mappings > /tmp/mappings
}

iommu_translates()
{
	[[ $P2PDMA_TOPOLOGY == @(iommu-lazy|iommu-strict|large) ]]
}

# maps_nothing OF-DRIVE OF-BAR OF-REST IN-IOMMU REST-IN-IOMMU: as p2p_trace_stop counts.
# The host's own buffers are mapped, or else nothing would be seen.
maps_nothing()
{
	ktap_print_msg "mappings: drive $1, BAR $2, others $3;" \
		"in the IOMMU: BAR $4, others $5"
	(($# == 5 && $1 + $2 + $4 == 0 && $3 > 0)) || return
	! iommu_translates || (($5 > 0))
}

transfers()
{
	local before counts

	before=$(p2p_stat requests)
	p2p_trace_start 16384 && p2p_verify || return
	read -ra counts <<< "$(p2p_trace_stop p2pmem0 drive0)"
	maps_nothing "${counts[@]}" &&
		(($(p2p_stat requests) - before >= 128 &&
		  $(p2p_stat fallbacks) == 0))
}

reached()
{
	ktap_set_plan 7
	acs_result
	ktap_test_result "connected" connect_traced
	ktap_test_result "network card: $expected" reached_by engine
	ktap_test_result "drive: $expected" reached_by drive0
	ktap_test_result "transfers, verified, without a mapping" transfers
	ktap_test_result "all memory is back in the pool" \
		p2p_pool_is_back "$provider"
	ktap_test_result "as p2p_check.sh foretells" all_as_foretold
}

# foretold PROVIDER DRIVE: "ADDRESS HOW" of each device, as p2p_check.sh says
foretold()
{
	"$DIR"/p2p_check.sh "$1" rnic0 "$2" > /tmp/foretold
	local status=$?

	sed -n '/^[^ ].* (\(.*\))$/{ s//\1/; h; }; /^  yes: by /{ s///; H; x; s/\n/ /p; }' \
		/tmp/foretold | sort
	return $status
}

# happened: the same, as the kernel has mapped it
happened()
{
	p2p_log_since_mark |
		sed -n 's/.* mapped for \([^ ]*\) at \(.*\) 0x[0-9a-f]*$/\1 \2/p' | sort
}

# as_foretold PROVIDER DRIVE
as_foretold()
{
	local expected log works status=0 result=0

	expected=$(foretold "$1" "$2") || status=$?
	# Any other status is no answer.
	case $status in
	0) works=1 ;;
	1) works=0 ;;
	*) p2p_log foretold /tmp/foretold; return 1 ;;
	esac
	echo 0 > "$P2P_NS"/enable
	echo -n "$2" > "$P2P_NS"/device_path
	p2p_mark_log
	# The host is served in any case, if the namespace is enabled.
	! p2p_set_provider "$1" || p2p_connect || return
	log=$(p2p_log_since_mark) || return
	if [[ $log == *"using p2pmem on"* ]]; then
		((works)) && [[ $(happened) == "$expected" ]] || result=1
	else
		((!works)) || result=1
	fi
	((!result)) || { p2p_log foretold /tmp/foretold; happened; }
	p2p_is_disconnected || p2p_disconnect || return
	return $result
}

# Every provider with drives on this and on the other side of the switch
all_as_foretold()
{
	local provider drive result=0 pairs=0

	for provider in p2pmem0 far huge; do
		[[ $(p2p_device $provider) ]] || continue
		for drive in drive0 path1; do
			[[ $(p2p_device $drive) ]] || continue
			as_foretold "$(p2p_device $provider)" "$(p2p_disk $drive)" ||
				result=1
			((++pairs))
		done
	done
	ktap_print_msg "$pairs pairs of provider and drive"
	return $result
}

# not_with PROVIDER REASON: the administrator is told when the namespace is enabled
not_with()
{
	p2p_mark_log
	! p2p_set_provider "$1" && p2p_logged "$2"
}

named_is_refused()
{
	not_with "$provider" \
		"do not share an upstream bridge or whitelisted host bridge"
}

none_is_found()
{
	not_with 1 "no peer-to-peer memory is available for"
}

from_system_memory()
{
	p2p_set_provider 0 && p2p_connect && p2p_verify &&
		(($(p2p_stat requests) == 0)) && p2p_pool_is_free "$provider"
}

refused()
{
	ktap_set_plan 4
	ktap_test_result "the named provider is refused, with the reason" \
		named_is_refused
	ktap_test_result "none is found, with the reason" none_is_found
	ktap_test_result "system memory serves, verified" from_system_memory
	p2p_disconnect
	ktap_test_result "as p2p_check.sh foretells" all_as_foretold
}

ktap_print_header
[[ $expected ]] || p2p_skip_all "needs an emulated machine"
p2p_require p2pmem0 drive0 engine
p2p_require_tools fio nvme ip setpci
p2p_has_dma_bios || p2p_skip_all "this kernel has no I/O by DMA address"
provider=$(p2p_device p2pmem0)
p2p_set_up_disk "$(p2p_disk drive0)" ||
	ktap_exit_fail_msg "cannot set up the target"
if [[ $expected == nothing ]]; then refused; else reached; fi
p2p_remove_target
ktap_finished
