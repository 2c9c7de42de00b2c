#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The cost of I/O over nvmet-rdma: the instructions that the kernel executes for a direct
# read or write of the host, from p2pmem and from system memory, one at a time.  Host,
# target and the emulated NIC are in it.  It only counts; to judge, compare two kernels.
# See cost.sh.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

COUNT=${P2PDMA_COUNT:-600}

# row MEMORY DIRECTION BYTES
row()
{
	local samples quartile mean

	"$DIR"/count_io "$remote" "$2" "$3" "$COUNT" || return
	read -r samples quartile mean <<< "$(p2p_ask count)"
	ktap_print_msg "cost: $1 $2 $3 $quartile $mean"
	[[ $samples == "$COUNT" ]] && ((quartile > 0))
}

ktap_print_header
p2p_require drive0 p2pmem0 engine
[[ $(p2p_ask count) == "error no samples" ]] ||
	p2p_skip_all "nobody counts instructions: needs qemu/run.sh --count"
provider=$(p2p_device p2pmem0)
ktap_set_plan 7
p2p_set_up_target "$(p2p_disk drive0)" "$provider" ||
	ktap_exit_fail_msg "cannot set up the target"
for bytes in 4096 131072; do
	for direction in read write; do
		ktap_test_result "p2pmem $direction $bytes" row p2pmem $direction $bytes
	done
done
if ! { p2p_disconnect && p2p_set_provider 0 && p2p_connect; }; then
	ktap_exit_fail_msg "cannot use system memory"
fi
# Only what is one page: how many pieces more is in would be a matter of chance.
for direction in read write; do
	ktap_test_result "system $direction 4096" row system $direction 4096
done
p2p_disconnect
p2p_remove_target
ktap_test_result "all memory is back in the pool" p2p_wait 10 p2p_pool_is_free "$provider"
ktap_finished
