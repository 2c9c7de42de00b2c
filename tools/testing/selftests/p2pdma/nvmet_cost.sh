#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The cost of I/O over nvmet: the instructions that the kernel executes for a direct read
# or write of the host, one at a time: by RDMA from p2pmem and from system memory, and by
# the transports that do not use p2pmem.  Host, target and the emulated NIC are in it.  It
# only counts; to judge, compare two kernels.
# See cost.sh.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

COUNT=${P2PDMA_COUNT:-600}

ktap_print_header
p2p_require drive0 p2pmem0 engine
p2p_require_counter
provider=$(p2p_device p2pmem0)
ktap_set_plan 11
p2p_set_up_target "$(p2p_disk drive0)" "$provider" ||
	ktap_exit_fail_msg "cannot set up the target"
for bytes in 4096 131072; do
	for direction in read write; do
		ktap_test_result "p2pmem $direction $bytes" \
			p2p_count p2pmem "$COUNT" "$remote" $direction $bytes
	done
done
if ! { p2p_disconnect && p2p_set_provider 0 && p2p_connect; }; then
	ktap_exit_fail_msg "cannot use system memory"
fi
# One page only: how many segments a larger buffer has would be a matter of chance.
for direction in read write; do
	ktap_test_result "system $direction 4096" \
		p2p_count system "$COUNT" "$remote" $direction 4096
done
p2p_disconnect
p2p_remove_target
for P2P_TRANSPORT in tcp loop; do
	if ! { p2p_add_target "$(p2p_disk drive0)" && p2p_enable && p2p_connect; }; then
		ktap_exit_fail_msg "cannot use $P2P_TRANSPORT"
	fi
	for direction in read write; do
		ktap_test_result "$P2P_TRANSPORT $direction 4096" \
			p2p_count "$P2P_TRANSPORT" "$COUNT" "$remote" $direction 4096
	done
	p2p_disconnect
	p2p_remove_target
done
ktap_test_result "all memory is back in the pool" p2p_wait 10 p2p_pool_is_free "$provider"
ktap_finished
