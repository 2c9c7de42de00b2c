#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Bios that describe their data by DMA addresses, by modules/dma_bio_kunit.ko. It
# runs once for each way in which the drive can be told where the data is.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

THRESHOLD=/sys/module/nvme/parameters/sgl_threshold

load_provider()
{
	local range

	[[ ! -d /sys/module/p2pmem_provider ]] || rmmod p2pmem_provider || return
	read -ra range <<< "$(p2p_bar_range p2pmem0)"
	p2p_insmod p2pmem_provider size=$(((range[1] - range[0] + 1) / 2))
}

clean_up()
{
	echo "$original" > $THRESHOLD
	rmmod p2pmem_provider
	rm "$report"
}

# run_suite THRESHOLD: keep its results
run_suite()
{
	local parameters=("provider=$provider" "bdev=$drive" "seed=$seed")

	parameters+=("pool_size=$(< "/sys/bus/pci/devices/$provider"/p2pmem/size)")
	[[ ! $other ]] || parameters+=("other=$other")
	# In the other topologies it is not far.
	[[ ! $far || $P2PDMA_TOPOLOGY != switch ]] || parameters+=("far=$far")
	echo "$1" > $THRESHOLD &&
		p2p_kunit "$report" dma_bio dma_bio_kunit "${parameters[@]}"
}

ktap_print_header
p2p_require p2pmem0 drive0
p2p_has_dma_bios || p2p_skip_all "this kernel has no I/O by DMA address"
[[ -e $THRESHOLD ]] || p2p_skip_all "no NVMe driver: set CONFIG_BLK_DEV_NVME"
p2p_require_kunit

provider=$(p2p_device p2pmem0)
drive=$(p2p_disk drive0)
far=$(p2p_device far)
other=$(p2p_device drive1)
seed=${P2P_SEED:-$RANDOM}
original=$(< $THRESHOLD)
# A test of the suite adds some of the other half.
load_provider || ktap_exit_fail_msg "cannot load modules/p2pmem_provider.ko"
report=$(mktemp)
trap clean_up EXIT

ktap_print_msg "seed $seed: repeat with P2P_SEED=$seed"
# PRPs wherever they can describe the data, SGLs always, and what users have
thresholds=(0 1)
((original < 2)) || thresholds+=("$original")
for threshold in "${thresholds[@]}"; do
	run_suite "$threshold" ||
		ktap_exit_fail_msg "dma_bio_kunit did not run, see the kernel log"
	[[ $threshold != 0 ]] ||
		ktap_set_plan $((${#thresholds[@]} * $(p2p_kunit_tests "$report") + 1))
	p2p_kunit_report "$report" "(sgl_threshold=$threshold)"
done
ktap_test_result "all memory is back in the pool" p2p_pool_is_free "$provider"
ktap_finished
