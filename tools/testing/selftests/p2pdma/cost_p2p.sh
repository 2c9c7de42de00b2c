#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The cost of a bio on a drive: the instructions that the kernel executes for one that
# has p2pmem by DMA address, and for one that has pages of system memory.  It only
# counts; to judge, compare them, also with those of other topologies.  See cost.sh.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

COUNT=${P2PDMA_COUNT:-2000}

ktap_print_header
p2p_require drive2 p2pmem0
p2p_require_counter
p2p_has_dma_bios || p2p_skip_all "this kernel has no DMA-address bios"
drive=$(p2p_disk drive2)
ktap_set_plan 4
for data in pages address; do
	for direction in read write; do
		ktap_test_result "$data $direction" \
			p2p_count $data "$COUNT" "$drive" $direction 4096 $data
	done
done
ktap_finished
