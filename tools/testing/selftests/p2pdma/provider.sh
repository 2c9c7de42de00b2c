#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Choosing a provider for a namespace: what works, and what the user is told when
# it cannot.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

DRIVER=/sys/bus/pci/drivers/p2pmem_provider

# refused_name VALUE MESSAGE: the attribute does not take the value
refused_name()
{
	p2p_mark_log
	if { echo "$1" > "$P2P_NS"/p2pmem; } 2> /dev/null; then
		ktap_print_msg "p2pmem took '$1'"
		return 1
	fi
	p2p_logged "$2"
}

# refused_enable MESSAGE COMMAND...: which cannot enable the namespace
refused_enable()
{
	local message=$1

	shift
	p2p_mark_log
	if "$@"; then
		ktap_print_msg "this enabled the namespace: $*"
		return 1
	fi
	[[ $(< "$P2P_NS"/enable) == 0 ]] && p2p_logged "$message"
}

registered()
{
	local dir=/sys/bus/pci/devices/$provider/p2pmem range

	read -ra range <<< "$(p2p_bar_range p2pmem0)"
	[[ $(< "$dir"/published) == 1 ]] &&
		(($(< "$dir"/size) == range[1] - range[0] + 1)) &&
		p2p_pool_is_free "$provider"
}

unknown()
{
	refused_name 0000:ff:1f.7 "No such PCI device: 0000:ff:1f.7"
}

without_memory()
{
	refused_name "$(p2p_device drive0)" \
		"PCI device has no peer-to-peer memory: $(p2p_device drive0)"
}

accepted()
{
	p2p_set_provider "$provider" && [[ $(< "$P2P_NS"/p2pmem) == "$provider" ]]
}

unreachable()
{
	refused_enable "do not share an upstream bridge or whitelisted host bridge" \
		p2p_set_provider "$far"
}

# refused_backend PATH REASON
refused_backend()
{
	local status=0

	echo 0 > "$P2P_NS"/enable
	echo -n "$1" > "$P2P_NS"/device_path
	refused_enable "peer-to-peer DMA is not supported by $2" \
		p2p_set_provider "$provider" || status=1
	echo -n "$drive" > "$P2P_NS"/device_path
	return "$status"
}

no_dma_device()
{
	local status=0

	modprobe null_blk nr_devices=1 || return
	refused_backend /dev/nullb0 "the driver of /dev/nullb0" || status=1
	rmmod null_blk || status=1
	return "$status"
}

# The file system may know no direct I/O.
file()
{
	local status=0

	echo 0 > "$P2P_NS"/enable
	truncate -s 1M /tmp/backend && echo 1 > "$P2P_NS"/buffered_io || return
	refused_backend /tmp/backend "non-block device namespaces" || status=1
	echo 0 > "$P2P_NS"/buffered_io && return $status
}

rebound()
{
	echo 0 > "$P2P_NS"/enable
	echo 0 > "$P2P_NS"/p2pmem
	echo "$provider" > $DRIVER/unbind || return
	[[ ! -e /sys/bus/pci/devices/$provider/p2pmem ]] || return
	refused_name "$provider" "PCI device has no peer-to-peer memory" || return
	echo "$provider" > $DRIVER/bind || return
	registered && accepted
}

unpublished()
{
	local status=0

	echo 0 > "$P2P_NS"/enable
	echo 0 > "$P2P_NS"/p2pmem
	rmmod p2pmem_provider && p2p_insmod p2pmem_provider publish=0 || return
	refused_name "$provider" \
		"PCI device has no peer-to-peer memory: $provider" || status=1
	rmmod p2pmem_provider && p2p_insmod p2pmem_provider || return
	return "$status"
}

# Each of them is mapped, and too small for all requests of a queue.
in_pieces()
{
	local status=0

	echo 0 > "$P2P_NS"/enable
	rmmod p2pmem_provider && p2p_insmod p2pmem_provider pieces=256 || return
	registered && accepted && p2p_connect && p2p_verify &&
		(($(p2p_stat requests) && !$(p2p_stat fallbacks))) || status=1
	p2p_disconnect || status=1
	# They are too short for struct pages.
	p2p_mark_log
	: 2> /dev/null < "/sys/bus/pci/devices/$provider/p2pmem/allocate" &&
		p2p_logged "not a multiple of" || status=1
	echo 0 > "$P2P_NS"/enable
	rmmod p2pmem_provider && p2p_insmod p2pmem_provider || return
	return "$status"
}

# hold_write_combined FILE: start a process that maps it, sets holder
hold_write_combined()
{
	fio --name=hold --ioengine=null --rw=read --bs=4k --size=1m --time_based \
		--runtime=60 --rate_iops=10 --iomem=mmapshared:"$1" --thread \
		> /tmp/hold.log 2>&1 &
	holder=$!
	p2p_wait 10 grep -qF "$1" "/proc/$holder/maps" && return
	p2p_log fio /tmp/hold.log
	return 1
}

# On x86, all mappings get the caching attribute of the first.
write_combined()
{
	local holder status=0 file

	file=$(readlink -f "/sys/bus/pci/devices/$provider/resource2_wc") || return
	echo 0 > "$P2P_NS"/enable
	rmmod p2pmem_provider && hold_write_combined "$file" || return
	p2p_mark_log
	p2p_insmod p2pmem_provider
	[[ ! -e $DRIVER/$provider ]] &&
		p2p_logged "write-combining memory, close resource2_wc" || status=1
	kill "$holder"
	wait "$holder" 2> /dev/null
	rmmod p2pmem_provider && p2p_insmod p2pmem_provider && registered && accepted &&
		return "$status"
}

# The choice is an address: a new device there serves as soon as it appears.
replaced()
{
	local status=0

	accepted && echo 0 > "$P2P_NS"/enable && p2p_unplug p2pmem0 || return
	p2p_mark_log
	p2p_enable && p2p_connect && p2p_verify &&
		p2p_logged "cannot use p2pmem for nsid 1" &&
		(($(p2p_stat requests) == 0)) || status=1
	p2p_plug p2pmem0 && p2p_wait 10 test -e "$DRIVER/$provider" || return
	p2p_wait 10 p2p_is_served || status=1
	p2p_disconnect && [[ $(< "$P2P_NS"/p2pmem) == "$provider" ]] &&
		return "$status"
}

ktap_print_header
p2p_require p2pmem0 drive0 engine
p2p_require_tools ip
provider=$(p2p_device p2pmem0)
far=$(p2p_device far)
drive=$(p2p_disk drive0)
ktap_set_plan 12
p2p_set_up_disk "$drive" || ktap_exit_fail_msg "cannot set up the target"

ktap_test_result "registered and published" registered
ktap_test_result "unknown device" unknown
ktap_test_result "device without peer-to-peer memory" without_memory
ktap_test_result "provider accepted" accepted
if [[ $far && $P2PDMA_TOPOLOGY == switch ]]; then
	ktap_test_result "provider out of reach" unreachable
else
	ktap_test_skip "provider out of reach: every device is in reach here"
fi
ktap_test_result "block device that does no DMA" no_dma_device
ktap_test_result "file" file
ktap_test_result "unbound and bound again" rebound
ktap_test_result "unpublished" unpublished
if p2p_has_dma_bios; then
	ktap_test_result "memory in many pieces" in_pieces
else
	ktap_test_skip "memory in many pieces: this kernel does not map it"
fi
if [[ -e /sys/bus/pci/devices/$provider/resource2_wc ]] && p2p_has_dma_bios; then
	ktap_test_result "memory that is mapped write-combining" write_combined
else
	ktap_test_skip "memory that is mapped write-combining: this kernel does not check"
fi
if [[ $P2PDMA_TOPOLOGY ]] && p2p_has_dma_bios; then
	ktap_test_result "replaced by another" replaced
else
	ktap_test_skip "replaced by another: this machine or kernel can't"
fi
p2p_remove_target
ktap_finished
