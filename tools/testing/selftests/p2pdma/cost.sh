#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The cost of ordinary I/O: the instructions that the kernel executes for a direct read
# or write, of a null_blk device and of a drive, one at a time. It only counts; to
# judge, compare two kernels.
#
# The lower quartile is the cost of an I/O during which nothing else happens. Everything
# else only adds to it, and shows in the mean.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

COUNT=${P2PDMA_COUNT:-2000}

rows()
{
	local bytes direction

	for bytes in 4096 131072; do
		for direction in read write; do
			ktap_test_result "$1 $direction $bytes" \
				p2p_count "$1" "$COUNT" "$2" $direction $bytes
		done
	done
}

ktap_print_header
p2p_require drive2
p2p_require_counter
ktap_set_plan 8
# It completes what is submitted before it returns: no interrupt, no waiting.
modprobe null_blk nr_devices=1 submit_queues=1 gb=1 irqmode=0 ||
	ktap_exit_fail_msg "cannot load null_blk"
rows null_blk /dev/nullb0
rows nvme "$(p2p_disk drive2)"
rmmod null_blk
ktap_finished
