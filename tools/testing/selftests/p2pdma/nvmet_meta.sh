#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A target with peer-to-peer memory on namespaces that have metadata: the drive
# makes protection information by itself, for anything else the CPU has to see
# the data. What is written through the target is read from the drive, with the
# CPU verifying the protection information, and the other way round.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

PROTECTED=1		# namespaces of the drive: protection information alone,
OPAQUE=2		# and more than that
SIZE=4m

# transfers_data DISK: in both directions
transfers_data()
{
	local tag=$RANDOM$RANDOM

	p2p_fill "$remote" "w$tag" --bs=64k --size=$SIZE --iodepth=8 &&
		p2p_check "$1" "w$tag" --bs=64k --size=$SIZE &&
		p2p_fill "$1" "r$tag" --bs=64k --size=$SIZE &&
		p2p_check "$remote" "r$tag" --bs=64k --size=$SIZE --iodepth=8
}

remote_is_gone()
{
	! p2p_find_remote
}

# use NSID: let the target serve this namespace of the drive
use()
{
	drive=$(p2p_disk formats "$1")
	echo 0 > "$P2P_NS"/enable && p2p_wait 10 remote_is_gone &&
		echo -n "$drive" > "$P2P_NS"/device_path &&
		p2p_set_provider "$provider" && p2p_wait 10 p2p_find_remote &&
		p2p_wait 10 test -b "$remote"
}

# Sets ios and served: how many requests, and how many of them from the BAR
count_served()
{
	ios=$(p2p_ios "$remote") served=$(p2p_stat requests)
	transfers_data "$drive" || return
	ios=$(($(p2p_ios "$remote") - ios))
	served=$(($(p2p_stat requests) - served))
	ktap_print_msg "$ios requests, $served served from the BAR"
}

served_from_bar()
{
	local ios served

	count_served && ((ios && served == ios))
}

# format METADATA: of 512 bytes with so many of metadata, protected
# The namespace stays enabled and is served as well as it can be.
formatted()
{
	local ios served

	p2p_format "$drive" 16 9 --pi=1 && count_served && ((ios && !served)) &&
		p2p_format "$drive" 8 9 --pi=1 && served_from_bar
}

served_from_memory()
{
	p2p_mark_log
	use $OPAQUE && p2p_logged "has metadata that only the CPU can make" &&
		transfers_data "$drive" && (($(p2p_stat requests) == 0))
}

ktap_print_header
p2p_require p2pmem0 formats engine
p2p_require_tools fio nvme ip
p2p_has_dma_bios || p2p_skip_all "this kernel has no I/O by DMA address"
provider=$(p2p_device p2pmem0)
drive=$(p2p_disk formats $PROTECTED)
[[ -e /sys/block/${drive##*/}/integrity/format ]] ||
	p2p_skip_all "set CONFIG_BLK_DEV_INTEGRITY"
ktap_set_plan 4
p2p_set_up_target "$drive" "$provider" ||
	ktap_exit_fail_msg "cannot set up the target"

ktap_test_result "protection information by the drive" served_from_bar
ktap_test_result "formatted while it is in use" formatted
ktap_test_result "other metadata: system memory" served_from_memory
ktap_test_result "all memory is back in the pool" \
	p2p_pool_is_back "$provider"
p2p_remove_target
ktap_finished
