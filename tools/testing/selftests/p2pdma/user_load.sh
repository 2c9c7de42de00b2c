#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# fio in user space, with the memory for its data from a provider: a drive reads
# and writes it directly. Every byte is verified.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

load()
{
	p2p_fio "$drive" --iomem="mmapshared:$allocate" --size=16m \
		--iodepth=8 --verify=crc32c --verify_fatal=1 "$@" || return
	p2p_wait 5 p2p_pool_is_free "$provider"
}

ktap_print_header
p2p_require p2pmem0 drive0
p2p_require_tools fio
provider=$(p2p_device p2pmem0)
drive=$(p2p_disk drive0)
allocate=/sys/bus/pci/devices/$provider/p2pmem/allocate
ktap_set_plan 4
p2p_insmod p2pmem_provider ||
	ktap_exit_fail_msg "cannot load modules/p2pmem_provider.ko"
ktap_test_result "libaio, 4 KiB" load --bs=4k --rw=randwrite
ktap_test_result "libaio, 256 KiB" load --bs=256k --rw=randwrite
ktap_test_result "io_uring, 4 KiB" load --ioengine=io_uring --bs=4k \
	--rw=randwrite
ktap_test_result "io_uring, mixed sizes" load --ioengine=io_uring \
	--bsrange=4k-128k --rw=randrw
ktap_finished
