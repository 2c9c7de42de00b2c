#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Print a table of where the data of each host command is, for different kinds of
# namespaces. On kernels without counters, look for the data in the file behind the BAR.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

# Namespaces of the drive "formats"
PROTECTED=1
ZONED=3
ZONED_PROTECTED=4
OPAQUE=5

BLOCKS=16	# of each transfer

# --- the commands ---

new_data()
{
	tag=command$RANDOM$RANDOM
	yes $tag | head -c $((BLOCKS * lba)) > /tmp/data
}

# same_at BLOCK: does the drive have the data there that was sent?
same_at()
{
	dd if="$drive" bs="$lba" skip="$1" count="$BLOCKS" iflag=direct status=none |
		cmp - /tmp/data
}

do_read()
{
	rm -f /tmp/out
	new_data && dd if=/tmp/data of="$drive" bs=$((BLOCKS * lba)) oflag=direct \
		status=none && nvme read "$remote" -s 0 -c $((BLOCKS - 1)) \
		-z $((BLOCKS * lba)) -d /tmp/out && cmp /tmp/data /tmp/out
}

do_write()
{
	new_data && nvme write "$remote" -s 0 -c $((BLOCKS - 1)) -z $((BLOCKS * lba)) \
		-d /tmp/data "$@" && same_at 0
}

# By the block layer of the host, which generates and verifies protection information
do_block_write()
{
	new_data && dd if=/tmp/data of="$remote" bs=$((BLOCKS * lba)) oflag=direct \
		status=none && same_at 0
}

do_block_read()
{
	new_data && dd if=/tmp/data of="$drive" bs=$((BLOCKS * lba)) oflag=direct \
		status=none && dd if="$remote" of=/tmp/out bs=$((BLOCKS * lba)) count=1 \
		iflag=direct status=none && cmp /tmp/data /tmp/out
}

do_verified_load()
{
	p2p_verify
}

# write_tuples PRINFO [ARGUMENT]...: with a wrong guard, and checks as the command asks for
write_tuples()
{
	nvme write "$remote" -s 0 -c $((BLOCKS - 1)) -z $((BLOCKS * lba)) -d /tmp/data \
		-y $((BLOCKS * 8)) -M /tmp/tuples --prinfo="$1" "${@:2}"
}

# Neither the host, nor the card, nor the target looks at it, so the drive must.
do_bad_guard()
{
	new_data && head -c $((BLOCKS * 8)) /dev/zero > /tmp/tuples &&
		! write_tuples 4 2> /tmp/status && grep -qi 'guard check' /tmp/status &&
		write_tuples 0 && do_block_write
}

# The tags are 0.
do_bad_tag()
{
	local mask=--app-tag-mask=65535

	new_data && head -c $((BLOCKS * 8)) /dev/zero > /tmp/tuples &&
		! write_tuples 2 --app-tag=1 $mask && write_tuples 2 --app-tag=0 $mask &&
		do_block_write
}

# The drive has to be told, too: only its block device issues an event.  "Limited retry"
# changes nothing that could be seen here.
do_write_fua()
{
	local found

	p2p_trace_events block/block_rq_issue &&
		do_write --force-unit-access --limited-retry || return
	found=$(grep -c 'block_rq_issue: .* WFS\? ' $P2P_TRACE/trace)
	p2p_trace_no_events
	((found)) || { cat $P2P_TRACE/trace; return 1; }
}

do_compare()
{
	nvme compare "$remote" -s 0 -c $((BLOCKS - 1)) -z $((BLOCKS * lba)) -d /tmp/data
}

do_flush()
{
	nvme flush "$remote"
}

do_verify()
{
	nvme verify "$remote" -s 0 -c $((BLOCKS - 1))
}

do_write_zeroes()
{
	nvme write-zeroes "$remote" -s 0 -c $((BLOCKS - 1)) &&
		head -c $((BLOCKS * lba)) /dev/zero > /tmp/data && same_at 0
}

do_deallocate()
{
	nvme dsm "$remote" --ad --slbs=0 --blocks=$BLOCKS
}

do_reserve()
{
	nvme resv-register "$remote" --nrkey=1 --rrega=0 &&
		nvme resv-acquire "$remote" --crkey=1 --rtype=1 --racqa=0 &&
		nvme resv-report "$remote" --eds --numd=$((4096 / 4 - 1)) &&
		nvme resv-release "$remote" --crkey=1 --rtype=1 --rrela=0
}

# The second zone, from its start; more than fits in the bio of a request with pages
do_zone_append()
{
	local zone=$((4 << 20)) start BLOCKS=$((65536 / lba))

	start=$((zone / lba))
	nvme zns reset-zone "$remote" -s $start && new_data &&
		nvme zns zone-append "$remote" -s $start -z $((BLOCKS * lba)) \
			-d /tmp/data && same_at $start
}

do_zone_report()
{
	nvme zns zone-mgmt-recv "$remote" --zra=0 --data-len=4096 --partial
}

do_reset_zone()
{
	nvme zns reset-zone "$remote" -s 0
}

# --- where the data was ---

# grown: the places whose counts differ from /tmp/before
grown()
{
	p2p_counts | grep -vxFf /tmp/before | sed 's/ .*//' | paste -sd+
}

crossed()
{
	if p2p_witness p2pmem0 "$tag"; then echo p2pmem; else echo system; fi
}

# place_of COMMAND: where its data was, "nowhere" if it has none, or "refused"
place_of()
{
	tag=none
	if ((has_dma_bios)); then p2p_counts > /tmp/before; else p2p_scrub p2pmem0; fi
	if ! "do_$1" &> /tmp/command.log; then
		grep -q "Invalid Command Opcode" /tmp/command.log || return
		echo refused
		return
	fi
	place=$(if ((has_dma_bios)); then grown; else crossed; fi)
	echo "${place:-nowhere}"
}

# is_at SET-UP COMMAND PLACE: print a row of the table, and check it
is_at()
{
	local place

	place=$(place_of "$2")
	printf '# %-16s %-13s %s\n' "$1" "$2" "${place:-failed}"
	[[ $place == "$3" ]] && return
	p2p_log "$2" /tmp/command.log
	return 1
}

# shows COMMAND: can this kernel show where the data is? Without counters, only for data
# that the host sends.
shows()
{
	((has_dma_bios)) || [[ $1 == @(write|write_fua|zone_append) ]]
}

# table SET-UP DISK COMMAND=PLACE...
table()
{
	local setup=$1 result=0 row

	drive=$2
	shift 2
	lba=$(blockdev --getss "$drive")
	echo -n "$drive" > "$P2P_NS"/device_path
	if ! { p2p_set_provider "$provider" && p2p_connect; }; then
		ktap_print_msg "cannot export $drive"
		return 1
	fi
	host_metadata=$(nvme id-ns "$remote" | sed -n 's/^lbaf *0 : ms:\([0-9]*\) .*/\1/p')
	for row; do
		! shows "${row%=*}" || is_at "$setup" "${row%=*}" "${row#*=}" ||
			result=1
	done
	p2p_disconnect && echo 0 > "$P2P_NS"/enable && return $result
}

ANY=(flush=nowhere verify=refused compare=refused)
PLAIN=(read=p2pmem write=p2pmem write_fua=p2pmem write_zeroes=nowhere deallocate=command
       "${ANY[@]}")
ZONES=(reset_zone=nowhere write=p2pmem zone_append=p2pmem zone_report=command "${ANY[@]}")

# reservations: a namespace has to allow them
with_reservations()
{
	local result=0

	echo 1 > "$P2P_NS"/resv_enable || return
	table reservations "$1" write=p2pmem reserve=command || result=1
	echo 0 > "$P2P_NS"/resv_enable && return $result
}

# export_again: after a table, for the same drive
export_again()
{
	p2p_set_provider "$provider" && p2p_connect
}

end_export()
{
	p2p_disconnect && timeout "$P2P_LIMIT" bash -c "echo 0 > $P2P_NS/enable"
}

# The NIC does not send what was read, after the command has been completed.
lost_read()
{
	local fail=/sys/module/rnic_loop/parameters/fail_write

	export_again && echo 1 > $fail && do_block_read && grep -q N $fail && end_export
}

# The drive loses the metadata that the host was told of.
reformatted()
{
	export_again && p2p_format "$drive" 0 9 &&
		! dd if="$remote" of=/dev/null bs=4k count=1 iflag=direct status=none &&
		p2p_format "$drive" 8 9 --pi=1 && do_block_read && end_export
}

with_host_pi()
{
	local disk result=0

	disk=$(p2p_disk formats $PROTECTED)
	p2p_remove_target && p2p_add_pi_target "$disk" || return
	table host-PI "$disk" block_read=p2pmem block_write=p2pmem verified_load=p2pmem \
		bad_guard=p2pmem bad_tag=p2pmem flush=nowhere && ((host_metadata == 8)) || result=1
	provider=0 table host-PI-memory "$disk" block_read=nowhere \
		block_write=nowhere verified_load=nowhere bad_guard=nowhere || result=1
	lost_read || { ktap_print_msg "failed: a read that is lost"; result=1; }
	reformatted || { ktap_print_msg "failed: a drive that is reformatted"; result=1; }
	# Its blocks have other numbers on the drive, which are in the tuples.
	p2p_partition "$disk" && table partition+PI "$disk"p1 block_read=p2pmem \
		block_write=p2pmem verified_load=p2pmem || result=1
	p2p_unpartition "$disk" && p2p_remove_pi_target && return $result
}

four_k_blocks()
{
	local disk result=0

	disk=$(p2p_disk drive1)
	p2p_format "$disk" 0 12 && table 4-KiB "$disk" "${PLAIN[@]}" || result=1
	p2p_format "$disk" 0 9 && return $result
}

ktap_print_header
p2p_require p2pmem0 drive0 drive1 formats engine
p2p_require_tools fio nvme ip cmp dd
has_dma_bios=0
p2p_has_dma_bios && has_dma_bios=1
[[ -e $P2PDMA_CTL ]] || ((has_dma_bios)) || p2p_skip_all "needs an emulated machine"
provider=$(p2p_device p2pmem0)
p2p_set_up_disk "$(p2p_disk drive0)" || ktap_exit_fail_msg "cannot set up the target"
ktap_set_plan 8
ktap_test_result "512-byte blocks" table 512-byte "$(p2p_disk drive0)" "${PLAIN[@]}"
ktap_test_result "4 KiB blocks" four_k_blocks
ktap_test_result "reservations" with_reservations "$(p2p_disk drive0)"
ktap_test_result "zones" table zones "$(p2p_disk formats $ZONED)" "${ZONES[@]}"
if ((has_dma_bios)); then
	ktap_test_result "protection information" table PI "$(p2p_disk formats $PROTECTED)" \
		"${PLAIN[@]}"
	ktap_test_result "zones with protection information" table zones+PI \
		"$(p2p_disk formats $ZONED_PROTECTED)" "${ZONES[@]}"
	ktap_test_result "metadata that the CPU makes" table other-metadata \
		"$(p2p_disk formats $OPAQUE)" read=metadata write=metadata flush=nowhere
	if [[ -e $P2P_SUBSYS/attr_pi_enable ]]; then
		ktap_test_result "protection information of the host" with_host_pi
	else
		ktap_test_skip "protection information: set CONFIG_BLK_DEV_INTEGRITY"
	fi
else
	# The CPU would have to protect data in the BAR.
	for what in "protection information" "zones with protection information" \
		    "metadata that the CPU makes"; do
		ktap_test_skip "$what: the base kernel generates it with the CPU"
	done
	ktap_test_skip "protection information of the host: nvme-rdma crashes with it"
fi
[[ ! -d $P2P_SUBSYS ]] || p2p_remove_target
ktap_finished
