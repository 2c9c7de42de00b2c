#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The complete data path in all variants: fio on an nvme-rdma disk whose target keeps
# the data in peer-to-peer memory, first with a drive, then with a multipath head over
# two ports of one (boot with nvme_core.multipath=Y). Each row is a test: every byte
# verified, every request served from the BAR by DMA address, not one DMA mapping for
# it, and the data found in the BAR by the host. With P2PDMA_BASELINE=1, on a kernel
# without DMA-address bios, it shows what the page-based path does instead.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

SGL_THRESHOLD=/sys/module/nvme/parameters/sgl_threshold
ROW='# %-5s %-4s %-6s %5s %3s %6s %9s %9s %7s %9s %8s\n'
SIZES=(4k:2 128k:16 1m:32)	# block size, MiB to transfer
DEPTHS=(1 32)

total_ios=0 total_mappings=0

# Where the data may be anywhere, and each piece may end anywhere, there are SGLs.
has_sgls()
{
	local queue=/sys/block/${drive##*/}/queue

	(($(< "$queue"/dma_alignment) <= 3 &&
	  $(< "$queue"/virt_boundary_mask) == 0))
}

set_mode()
{
	local threshold=0

	[[ $1 == PRP ]] || threshold=1
	echo $threshold > $SGL_THRESHOLD &&
		[[ $(< $SGL_THRESHOLD) == "$threshold" ]]
}

# What is on the disk before: for a read the data, for a write anything else.
prepare_disk()
{
	local direction=$1 tag=$2 bs=$3 size=$4

	[[ $direction == read ]] || tag=poison-$RANDOM
	p2p_fill "$drive" "$tag" --bs="$bs" --size="${size}m" --iodepth=8
}

transfer()
{
	local direction=$1 tag=$2

	shift 2
	if [[ $direction == read ]]; then
		p2p_check "$remote" "$tag" "$@"
	else
		p2p_fill "$remote" "$tag" "$@"
	fi
}

# A write is verified on the drive itself, past the network and the BAR.
verify()
{
	local direction=$1 tag=$2 bs=$3 size=$4

	[[ $direction == read ]] ||
		p2p_check "$drive" "$tag" --bs="$bs" --size="${size}m" --iodepth=8
}

read_counters()
{
	counters=("$(p2p_ios "$remote")" "$(p2p_stat requests)"
		  "$(p2p_stat bytes)" "$(p2p_stat fallbacks)")
}

# Fills ios, served, bytes, fallbacks and mappings for one transfer.
measure()
{
	local before of_drive of_bar rest in_iommu

	read_counters
	before=("${counters[@]}")
	p2p_trace_start 32768 || return
	transfer "$@" || return
	read -r of_drive of_bar rest in_iommu _ <<< \
		"$(p2p_trace_stop p2pmem0 "$client")"
	# The host's own buffers are mapped, or else nothing would be seen.
	if ((!rest)); then
		ktap_print_msg "the trace lost events, or has none"
		return 1
	fi
	read_counters
	ios=$((counters[0] - before[0]))
	served=$((counters[1] - before[1]))
	bytes=$((counters[2] - before[2]))
	fallbacks=$((counters[3] - before[3]))
	# Where an IOMMU translates, the same mapping can be in both.
	mappings=$((of_drive + of_bar))
	((mappings >= in_iommu)) || mappings=$in_iommu
}

# The row's claims, apart from the data and the witness.
judge_counts()
{
	local size=$1

	((ios > 0)) || return
	if [[ $P2PDMA_BASELINE ]]; then
		((mappings > 0))
		return
	fi
	((served == ios && fallbacks == 0 && mappings == 0 &&
	  bytes == size << 20))
}

row()
{
	local mode=$1 direction=$2 bs=$3 size=$4 depth=$5 status=0
	local tag=P2PDMA-$disk-$1-$2-$3-$5-$RANDOM$RANDOM witness=absent verified=no
	local ios=0 served=0 bytes=0 fallbacks=0 mappings=0 counters=()
	local shape=(--bs="$bs" --size="${size}m" --iodepth="$depth")

	set_mode "$mode" || return
	prepare_disk "$direction" "$tag" "$bs" "$size" || return
	p2p_scrub p2pmem0 || return
	if p2p_witness p2pmem0 "$tag"; then
		ktap_print_msg "$tag was in the BAR before the transfer"
		return 1
	fi
	measure "$direction" "$tag" "${shape[@]}" &&
		verify "$direction" "$tag" "$bs" "$size" && verified=yes
	p2p_witness p2pmem0 "$tag" && witness=found
	[[ $verified == yes && $witness == found ]] &&
		judge_counts "$size" || status=1

	total_ios=$((total_ios + ios))
	total_mappings=$((total_mappings + mappings))
	[[ $P2PDMA_BASELINE ]] && served=- bytes=-
	# shellcheck disable=SC2059 # the format is a constant
	printf "$ROW" "$disk" "$mode" "$direction" "$bs" "$depth" "$ios" "$bytes" \
		"$verified" "$served" "$mappings" "$witness"
	return "$status"
}

run_rows()
{
	local disk=drive client=drive0 mode direction size depth

	for mode in PRP SGL; do
		for direction in write read; do
			for size in "${SIZES[@]}"; do
				for depth in "${DEPTHS[@]}"; do
					ktap_test_result \
						"$disk $mode $direction ${size%:*} QD$depth" \
						row $mode $direction "${size%:*}" \
						"${size#*:}" "$depth"
				done
			done
		done
	done
}

use_head()
{
	p2p_disconnect && echo 0 > "$P2P_NS"/enable &&
		echo round-robin > "$(p2p_subsystem path0 path1)"/iopolicy || return
	drive=$head
	echo -n "$head" > "$P2P_NS"/device_path &&
		p2p_set_provider "$(p2p_device p2pmem0)" && p2p_connect
}

# A few rows, for both paths take their turn in each of them.
# Without the series, nvmet enables no namespace with p2pmem on a head.
run_head_rows()
{
	local disk=head client=path0 direction size

	ktap_test_result "multipath head connected" use_head
	for direction in write read; do
		for size in 4k:2 1m:32; do
			ktap_test_result "$disk PRP $direction ${size%:*} QD32" \
				row PRP $direction "${size%:*}" "${size#*:}" 32
		done
	done
}

# A kernel without the series must not pass for one with it, nor the reverse.
require_kernel()
{
	if [[ $P2PDMA_BASELINE ]]; then
		! p2p_has_dma_bios || p2p_skip_all \
			"P2PDMA_BASELINE=1 is for kernels without DMA-address bios"
	else
		p2p_has_dma_bios || p2p_skip_all \
			"no DMA-address bios here: P2PDMA_BASELINE=1 shows the page based path"
	fi
}

tear_down()
{
	p2p_disconnect && p2p_remove_target
}

ktap_print_header
p2p_require p2pmem0 drive0 path0 path1 engine
p2p_require_tools fio nvme ip
[[ -e $P2PDMA_CTL ]] || p2p_skip_all "needs the host of an emulated machine"
require_kernel
drive=$(p2p_disk drive0)
head=$(p2p_head_disk path0 path1) ||
	p2p_skip_all "no multipath head: boot with nvme_core.multipath=Y"
ktap_set_plan "$([[ $P2PDMA_BASELINE ]] && echo 27 || echo 32)"
p2p_set_up_target "$drive" "$(p2p_device p2pmem0)" ||
	ktap_exit_fail_msg "cannot set up the target"
ktap_test_pass "connected"
ktap_test_result "the drive has SGLs" has_sgls
# shellcheck disable=SC2059 # the format is a constant
printf "$ROW" disk data op bs QD I/Os bytes verified by-addr mappings BAR
run_rows
[[ $P2PDMA_BASELINE ]] || run_head_rows
ktap_test_result "disconnected" tear_down
awk -v m=$total_mappings -v n=$total_ios \
	'BEGIN { printf "# demo: ios=%d mappings=%d per-io=%.2f\n", n, m, m / n }'
ktap_finished
