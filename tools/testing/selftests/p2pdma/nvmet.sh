#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Data through an NVMe-oF target that keeps it in peer-to-peer memory. Each
# direction is tested on its own: the destination is something else before, and
# every byte is compared. Works on kernels without DMA-address bios too, whose
# page based path it then tests.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

SIZES=(512:256 4k:1024 20k:1000 128k:4096 1M:8192)	# block size, KiB to transfer

kib=4096	# what one transfer compares

poison()
{
	tr '\0' '\245' < /dev/zero | head -c $((kib << 10)) |
		dd of="$1" bs=1M iflag=fullblock oflag="$2" status=none
}

# same FILE DISK: are the first bytes of the disk the file?
same()
{
	dd if="$2" bs=1M count=$((kib << 10)) iflag=direct,count_bytes status=none |
		cmp - "$1"
}

# Everything the host sent was served from the BAR, if this kernel can tell.
all_served()
{
	local ios served

	((has_dma_bios)) || return 0
	ios=$(($(p2p_ios "$remote") - ios_before))
	served=$(($(p2p_stat requests) - served_before))
	if ((served != ios || $(p2p_stat fallbacks) != fallbacks_before)); then
		ktap_print_msg "$ios requests, $served served from the BAR"
		return 1
	fi
}

count_from_here()
{
	ios_before=$(p2p_ios "$remote")
	served_before=$(p2p_stat requests)
	fallbacks_before=$(p2p_stat fallbacks)
}

new_data()
{
	head -c $((kib << 10)) /dev/urandom > /tmp/data
}

write_direction()
{
	kib=$2
	new_data && poison "$drive" direct || return
	! same /tmp/data "$drive" > /dev/null || return
	count_from_here
	dd if=/tmp/data of="$remote" bs="$1" oflag=direct status=none &&
		all_served && same /tmp/data "$drive"
}

read_direction()
{
	kib=$2
	new_data && poison "$remote" direct && poison /tmp/out sync || return
	dd if=/tmp/data of="$drive" bs=1M oflag=direct status=none || return
	count_from_here
	dd if="$remote" of=/tmp/out bs="$1" count=$((kib << 10)) \
		iflag=direct,count_bytes conv=notrunc status=none &&
		all_served && cmp /tmp/data /tmp/out
}

# Forced unit access: synchronous writes
write_fua()
{
	new_data && poison "$drive" direct || return
	dd if=/tmp/data of="$remote" bs=64k oflag=direct,dsync status=none &&
		same /tmp/data "$drive"
}

# Many requests at a time, of all sizes, at random places, both directions
random_load()
{
	p2p_fio "$remote" --rw=randrw --bsrange=4k-512k --bs_unaligned=0 \
		--size=32m --numjobs=2 --offset_increment=32m --iodepth=16 \
		--verify=crc32c --verify_fatal=1 --serialize_overlap=1
}

io_uring_load()
{
	p2p_fio "$remote" --ioengine=io_uring --rw=randwrite --bs=16k \
		--size=16m --iodepth=32 --verify=crc32c --verify_fatal=1
}

# Commands whose data the target's CPU reads must not have it in the BAR.
other_commands()
{
	nvme flush "$remote" > /dev/null || return
	new_data && dd if=/tmp/data of="$remote" bs=1M oflag=direct status=none ||
		return
	nvme write-zeroes "$remote" --start-block=0 --block-count=15 \
		> /dev/null || return
	nvme dsm "$remote" --ad --slbs=32 --blocks=16 > /dev/null || return
	dd if=/dev/zero of=/tmp/data bs=512 count=16 conv=notrunc status=none
	dd if="$drive" bs=512 count=16 iflag=direct status=none |
		cmp -n 8192 - /tmp/data
}

# A buffer longer than what the command reads must take nothing from the pool.
wrong_length()
{
	local served

	served=$(p2p_stat requests)
	nvme io-passthru "$remote" --opcode=2 --namespace-id=1 --read \
		--data-len=$((1 << 20)) > /dev/null 2> /tmp/passthru
	if ! grep -q "SGL Length" /tmp/passthru; then
		p2p_log nvme /tmp/passthru
		return 1
	fi
	(($(p2p_stat requests) == served)) && p2p_verify
}

# witness_is found|absent PROVIDER: does the data cross the BAR?
witness_is()
{
	local expected=$1 tag=P2PDMA-witness-$RANDOM$RANDOM answer

	p2p_set_provider "$2" && p2p_wait 10 test -b "$remote" &&
		p2p_scrub p2pmem0 || return
	yes $tag | head -c 65536 > /tmp/pattern
	dd if=/tmp/pattern of="$remote" bs=64k oflag=direct status=none || return
	answer=$(p2p_ask witness p2pmem0 $tag)
	ktap_print_msg "the host says: $answer"
	[[ $answer == "$expected"* ]]
}

witness_result()
{
	if [[ -e $P2PDMA_CTL ]]; then
		ktap_test_result "$1" witness_is "$2" "$3"
	else
		ktap_test_skip "$1: needs the host of an emulated machine"
	fi
}

# The memory is of no use to a transport without DMA by PCI.
without_pci_dma() # TRANSPORT
{
	local P2P_TRANSPORT=$1 result=1

	p2p_add_target "$drive" || return
	p2p_mark_log
	p2p_set_provider "$provider" && p2p_connect && p2p_verify &&
		(($(p2p_stat requests) == 0)) && result=0
	[[ $1 != rdma ]] || p2p_logged "using system memory" || result=1
	p2p_disconnect && p2p_remove_target && return $result
}

# A NIC without a device that does its DMA: the CPU moves the data.
with_rxe()
{
	local result=0

	modprobe nvmet-rdma && rmmod rnic_loop && modprobe rdma_rxe &&
		rdma link add rxe0 type rxe netdev dummy0 || return
	without_pci_dma rdma || result=1
	rdma link delete rxe0 && rmmod rdma_rxe && p2p_load_rnic && return $result
}

# fallback_result NAME TOOL COMMAND...
fallback_result()
{
	local name="$1 can't reach it and uses system memory" tool=$2

	shift 2
	if ((!has_dma_bios)); then
		ktap_test_skip "$name: this kernel does not say so"
	elif ! type -P "$tool" > /dev/null; then
		ktap_test_skip "$name: no $tool"
	else
		ktap_test_result "$name" "$@"
	fi
}

ktap_print_header
p2p_require p2pmem0 drive0 engine
p2p_require_tools fio nvme ip
provider=$(p2p_device p2pmem0)
drive=$(p2p_disk drive0)
ktap_set_plan $((2 * ${#SIZES[@]} + 10))
has_dma_bios=0
p2p_has_dma_bios && has_dma_bios=1
ktap_print_msg "DMA-address bios: $has_dma_bios"
p2p_set_up_target "$drive" "$provider" ||
	ktap_exit_fail_msg "cannot set up the target"

for size in "${SIZES[@]}"; do
	ktap_test_result "write, ${size%:*} each" \
		write_direction "${size%:*}" "${size#*:}"
	ktap_test_result "read, ${size%:*} each" \
		read_direction "${size%:*}" "${size#*:}"
done
kib=4096
ktap_test_result "synchronous writes" write_fua
ktap_test_result "random load, verified" random_load
ktap_test_result "io_uring, verified" io_uring_load
ktap_test_result "flush, write zeroes and discard" other_commands
ktap_test_result "wrong length" wrong_length
witness_result "data crosses the BAR" found "$provider"
witness_result "no data crosses the BAR without p2pmem" absent 0
ktap_test_result "all memory is back in the pool" \
	p2p_pool_is_back "$provider"
p2p_remove_target
fallback_result "the loop transport" nvme without_pci_dma loop
fallback_result "a NIC without DMA (rxe)" rdma with_rxe
ktap_finished
