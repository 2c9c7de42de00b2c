#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Bios that describe their data by DMA addresses, by modules/dma_bio_test.ko. It
# runs once for each way in which the drive can be told where the data is.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

THRESHOLD=/sys/module/nvme/parameters/sgl_threshold
# PRPs wherever they can describe the data, SGLs always, and what users have
THRESHOLDS=(0 1 "$([[ -e $THRESHOLD ]] && cat $THRESHOLD)")
REPORTS=$(mktemp -d)

# make_arguments: the parameters of the module, one in a line
make_arguments()
{
	local device=/sys/bus/pci/devices/$provider

	echo "provider=$provider"
	echo "pool_size=$(< "$device"/p2pmem/size)"
	echo "bdev=$drive"
	echo "seed=$seed"
	[[ ! $other ]] || echo "other=$other"
	# In the other topologies it is not far.
	[[ ! $far || $P2PDMA_TOPOLOGY != switch ]] || echo "far=$far"
}

# run_module THRESHOLD: keep what it reports
run_module()
{
	local arguments

	echo "$1" > $THRESHOLD || return
	mapfile -t arguments < <(make_arguments)
	p2p_mark_log
	p2p_insmod dma_bio_test "${arguments[@]}" && rmmod dma_bio_test
	dmesg | sed "1,/$p2p_mark/d" |
		sed -n 's/^\[[^]]*\] dma_bio_test: //p' > "$REPORTS/$1"
}

# count_tests THRESHOLD: how many the module has, by its own account
count_tests()
{
	sed -n 's/^1\.\.\([0-9]*\)$/\1/p' "$REPORTS/$1"
}

# is_complete THRESHOLD: does the report have a line for each test?
is_complete()
{
	local tests

	tests=$(count_tests "$1")
	(($(grep -cE '^(not )?ok [0-9]+ ' "$REPORTS/$1") == ${tests:--1}))
}

# pass_on THRESHOLD: turn a report into results
pass_on()
{
	local line suffix="(sgl_threshold=$1)"

	while read -r line; do
		# shellcheck disable=SC2295 # ?* are patterns
		case $line in
		"ok "*"# SKIP"*)
			line=${line#ok * }
			ktap_test_skip "${line/ # SKIP/ $suffix:}" ;;
		"ok "*)
			ktap_test_pass "${line#ok * } $suffix" ;;
		"not ok "*)
			ktap_test_fail "${line#not ok * } $suffix" ;;
		"1.."*) ;;
		*)
			ktap_print_msg "${line#\# }" ;;
		esac
	done < "$REPORTS/$1"
	ktap_test_result "report is complete $suffix" is_complete "$1"
}

run_all()
{
	local original threshold

	original=$(< $THRESHOLD)
	for threshold in "${THRESHOLDS[@]}"; do
		run_module "$threshold"
	done
	echo "$original" > $THRESHOLD
}

load_provider()
{
	local range

	[[ ! -d /sys/module/p2pmem_provider ]] || rmmod p2pmem_provider || return
	read -ra range <<< "$(p2p_bar_range p2pmem0)"
	p2p_insmod p2pmem_provider size=$(((range[1] - range[0] + 1) / 2))
}

set_plan()
{
	local tests=0 threshold

	for threshold in "${THRESHOLDS[@]}"; do
		tests=$((tests + $(count_tests "$threshold") + 1))
	done
	ktap_set_plan $((tests + 1))
}

ktap_print_header
p2p_require p2pmem0 drive0
p2p_has_dma_bios || p2p_skip_all "this kernel has no I/O by DMA address"
[[ -e $THRESHOLD ]] || p2p_skip_all "no NVMe driver: set CONFIG_BLK_DEV_NVME"

provider=$(p2p_device p2pmem0)
drive=$(p2p_disk drive0)
far=$(p2p_device far)
other=$(p2p_device drive1)
seed=${P2P_SEED:-$RANDOM}
# The module adds some of the other half.
load_provider || ktap_exit_fail_msg "cannot load modules/p2pmem_provider.ko"

ktap_print_msg "seed $seed: repeat with P2P_SEED=$seed"
run_all
set_plan
for threshold in "${THRESHOLDS[@]}"; do
	pass_on "$threshold"
done
ktap_test_result "all memory is back in the pool" p2p_pool_is_free "$provider"
rm -r "$REPORTS"
rmmod p2pmem_provider
ktap_finished
