#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A drive with a Controller Memory Buffer, which the driver registers as
# peer-to-peer memory: its submission queues are in it, and an NVMe target keeps
# the data for another drive, and for this one, in what is left.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

# One submission queue entry has 64 bytes; the admin queue is in system memory.
queues_in_cmb()
{
	local used=$(($(< "$pool"/size) - $(< "$pool"/available)))

	ktap_print_msg "$used bytes of the CMB are used"
	((used > 0 && used % 4096 == 0))
}

# load DISK: the emulated CMB is slow
load()
{
	p2p_fio "$1" --rw=randwrite --bsrange=4k-64k --size=2m --iodepth=8 \
		--verify=crc32c --verify_fatal=1
}

# served DRIVE PROVIDER: a namespace on it, with the data in the CMB
served()
{
	local status=0

	p2p_mark_log
	p2p_set_up_target "$1" "$2" || return
	p2p_logged "using p2pmem on $cmb" || status=1
	load "$remote" || status=1
	if p2p_has_dma_bios &&
	   (($(p2p_stat requests) < 32 || $(p2p_stat fallbacks))); then
		ktap_print_msg "$(p2p_stat requests) requests, $(p2p_stat fallbacks) fallbacks"
		status=1
	fi
	p2p_disconnect || status=1
	p2p_remove_target
	return "$status"
}

# The queues go with the driver, and come back with it.
rebound()
{
	echo "$cmb" > /sys/bus/pci/drivers/nvme/unbind || return
	[[ ! -e $pool ]] || return
	echo "$cmb" > /sys/bus/pci/drivers/nvme/bind || return
	p2p_wait 10 p2p_disk_is_there cmb && queues_in_cmb && load "$(p2p_disk cmb)"
}

ktap_print_header
[[ $(p2p_device cmb) ]] || p2p_skip_all \
	"no drive with a CMB: set P2PDMA_DEVS=\"cmb=<PCI address>\""
p2p_require drive0 engine
p2p_require_tools fio nvme ip
cmb=$(p2p_device cmb)
pool=/sys/bus/pci/devices/$cmb/p2pmem
[[ -d $pool ]] || ktap_exit_fail_msg "no p2pmem on $cmb"
ktap_set_plan 5
ktap_test_result "submission queues in the CMB" queues_in_cmb
ktap_test_result "I/O of the drive, verified" load "$(p2p_disk cmb)"
ktap_test_result "data of another drive in the CMB" served "$(p2p_disk drive0)" "$cmb"
# Nothing is nearer.
ktap_test_result "data of the drive in its own CMB" served "$(p2p_disk cmb)" 1
ktap_test_result "unbound and bound again" rebound
ktap_finished
