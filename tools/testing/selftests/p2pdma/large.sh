#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A provider with far more memory than the machine: what it takes to register the
# memory, by size, and to map it for a drive, and whether all of it works. Every size is
# a row of the table that is printed, which ends with the location of the last I/O in
# the memory:
#
#   # large: GiB  registered (us)  mapped (us)  memory taken (KiB)  struct pages (KiB)
#            page tables of the IOMMU, more than at the start (KiB)  place (MiB)
#
# On kernels that make struct pages at once the table ends where they would take
# all memory: trying would fail, with a warning of the kernel, and lose the memory.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

SIZES=(1 4 16 32 64 128 256 512)
# us: several times what it takes in emulation, because others run there too. With pages
# 16 GiB alone take half a second to add.
ADD_LIMIT=150000
MAP_LIMIT=100000
# KiB. Struct pages for 512 GiB would take 8 GiB, page tables with 4 KiB pages 1 GiB.
TAKEN_LIMIT=65536
TABLES_LIMIT=1024

# meminfo FIELD: KiB
meminfo()
{
	awk -v f="$1:" '$1 == f { print $2 }' /proc/meminfo
}

memmap()
{
	awk '$1 == "nr_memmap_pages" { print $2 * 4 }' /proc/vmstat
}

# register GIB: sets took, taken and pages
register()
{
	local available before

	available=$(meminfo MemAvailable)
	before=$(memmap)
	p2p_mark_log
	p2p_insmod p2pmem_provider "size=$(($1 << 30))" || return
	[[ -d $huge_dir/p2pmem ]] &&
		(($(< "$huge_dir"/p2pmem/size) == $1 << 30)) || return
	took=$(p2p_log_since_mark | sed -n \
		"s/.* $huge: adding $(($1 << 10)) MiB of p2pmem took \([0-9]*\) us/\1/p")
	taken=$((available - $(meminfo MemAvailable)))
	pages=$(($(memmap) - before))
	[[ $took ]]
}

# is_there: the host finds in its file behind the BAR what the drive has written there
is_there()
{
	[[ $(p2p_ask same huge "$place" drive0) == ok ]] && return
	ktap_print_msg "not at $place in the BAR"
	return 1
}

# try [CLIENT SKIP]: write and read a little, sets place
try()
{
	P2PDMA_BARS="p2pmem0=$huge" "$DIR"/dma_bio_try "$drive" "$@" &> /tmp/try ||
		return
	place=$(sed -n 's/# buffer at //p' /tmp/try)
	grep -q "write: status 0, ended 1, disk written" /tmp/try &&
		grep -q "read: status 0, ended 1, memory filled" /tmp/try &&
		is_there
}

# map GIB: sets mapped and tables, and does I/O at the beginning and at the end
map()
{
	local skip=$((($1 << 30) - (1 << 20))) end

	mapped=- tables=-
	((has_dma_bios)) || return 0
	# First, while the pool has given nothing away, so that only the end is left.
	try drive0 $skip && ((place >= skip)) && end=$place && try || return
	mapped=$(sed -n 's/# mapped in \([0-9]*\) us/\1/p' /tmp/try)
	tables=$(($(sed -n 's/# IOMMU page tables: \([0-9]*\) KiB/\1/p' /tmp/try) - tables_before))
	place=$end
}

# row GIB: with pages there are 64 bytes for each 4 KiB, without them nothing grows
row()
{
	local took='' taken='' pages='' mapped='' tables='' place='' status=0

	register "$1" || status=1
	((status)) || map "$1" || { p2p_log try /tmp/try; status=1; }
	ktap_print_msg "large: $1 ${took:-failed} $mapped $taken $pages $tables" \
		"${place:+$((place >> 20))}"
	((!has_dma_bios)) || rmmod dma_bio_ctl
	rmmod p2pmem_provider
	((status)) && return 1
	if ((has_dma_bios)); then
		((took < ADD_LIMIT && mapped < MAP_LIMIT &&
		  taken < TAKEN_LIMIT && tables < TABLES_LIMIT && pages == 0))
	else
		((pages >= $1 << 14))
	fi
}

# Without pages all; with them those that fit into memory
sizes()
{
	local size

	for size in "${SIZES[@]}"; do
		((has_dma_bios || size << 14 < $(meminfo MemAvailable))) &&
			echo "$size"
	done
}

# User space gets no pages for that much, and is told so.
user_space()
{
	p2p_mark_log
	if ! p2p_passes p2pmem_user -t huge > /tmp/user.log; then
		p2p_log p2pmem_user /tmp/user.log
		return 1
	fi
	p2p_logged "no struct pages for peer-to-peer memory" &&
		(($(memmap) == pages_before))
}

# A mapping that does not fit below 4 GiB must not move the drive's other DMA as well.
low_addresses()
{
	! dmesg | grep "nvme $(p2p_device drive0): Using [0-9]*-bit DMA addresses"
}

# The copy engine has 32 address bits, which are not enough with an IOMMU either.
does_not_fit()
{
	local why="not enough DMA addresses below its limit 0xffffffff"

	p2p_mark_log
	p2p_set_provider "$huge" && p2p_connect &&
		p2p_logged "for $(p2p_device engine): $why"
}

# The nearest with the most free memory cannot be mapped: the next one is used.
next_provider()
{
	p2p_mark_log
	p2p_set_provider 1 && p2p_wait "$P2P_LIMIT" p2p_find_remote &&
		p2p_logged "not enough DMA addresses" &&
		p2p_logged "using p2pmem on $(p2p_device p2pmem0) for nsid 1" &&
		p2p_is_served
}

from_system_memory()
{
	p2p_verify && (($(p2p_stat requests) == 0))
}

target()
{
	p2p_set_up_disk "$drive" || ktap_exit_fail_msg "cannot set up the target"
	pages_before=$(memmap)
	ktap_test_result "other DMA stays below 4 GiB" low_addresses
	ktap_test_result "too much for a device with 32 address bits" does_not_fit
	ktap_test_result "system memory serves, verified" from_system_memory
	ktap_test_result "the next provider" next_provider
	ktap_test_result "not enough memory for struct pages" user_space
	ktap_test_result "all memory is back in the pool" \
		p2p_pool_is_back "$huge"
	p2p_remove_target
}

ktap_print_header
huge=$(p2p_device huge)
[[ $huge ]] || p2p_skip_all "needs topology large of the emulated machine"
p2p_require drive0 engine
p2p_require_tools fio nvme ip
huge_dir=/sys/bus/pci/devices/$huge
drive=$(p2p_disk drive0)
has_dma_bios=0
p2p_has_dma_bios && has_dma_bios=1
# Another test may have added less of it.
[[ ! -d /sys/module/p2pmem_provider ]] || rmmod p2pmem_provider
tables_before=$(meminfo SecPageTables)
mapfile -t fitting < <(sizes)
ktap_set_plan $((${#fitting[@]} + 6 * has_dma_bios))
for size in "${fitting[@]}"; do
	ktap_test_result "$size GiB" row "$size"
done
((!has_dma_bios)) || target
ktap_finished
