#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# DMA-address bios that an NVMe drive would take, submitted to block devices that
# must refuse them: other drivers, and what is stacked on top of the drive. Each
# bio ends once, with the documented status, leaves the data alone, and the log
# tells why. The few stacking drivers that pass them on do so. Nothing of the drives'
# content survives.

# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")"/lib.sh

MULTIPATH=/sys/module/nvme_core/parameters/multipath
SECTORS=65536		# of what is made for the test
REFUSED='write: status 1, ended 1, disk untouched
read: status 1, ended 1, memory untouched'

disk=		# the device that a make_ function has made
server=
md=

# --- making devices, and removing them ---

make_null_blk()
{
	modprobe null_blk nr_devices=1 gb=1 memory_backed=1 && disk=/dev/nullb0
}

remove_null_blk()
{
	rmmod null_blk
}

make_brd()
{
	modprobe brd rd_nr=1 rd_size=$((SECTORS / 2)) && disk=/dev/ram0
}

remove_brd()
{
	rmmod brd
}

make_zram()
{
	modprobe zram num_devices=1 &&
		echo $((SECTORS * 512)) > /sys/block/zram0/disksize &&
		disk=/dev/zram0
}

remove_zram()
{
	echo 1 > /sys/block/zram0/reset && rmmod zram
}

make_loop()
{
	modprobe loop max_loop=1 && losetup /dev/loop0 "$drive" &&
		disk=/dev/loop0
}

remove_loop()
{
	losetup -d /dev/loop0 && p2p_wait 10 rmmod loop 2> /dev/null
}

start_server()
{
	"$DIR"/block_server "$@" &
	server=$!
}

stop_server()
{
	kill "$server"
	wait "$server"
}

nbd_has_size()
{
	(($(< /sys/block/nbd0/size) > 0))
}

make_nbd()
{
	modprobe nbd nbds_max=1 max_part=0 || return
	start_server nbd /dev/nbd0 "$drive"
	p2p_wait 10 nbd_has_size && disk=/dev/nbd0
}

remove_nbd()
{
	stop_server
	p2p_wait 10 rmmod nbd 2> /dev/null
}

make_ublk()
{
	modprobe ublk_drv || return
	start_server ublk "$drive"
	p2p_wait 10 test -b /dev/ublkb0 && disk=/dev/ublkb0
}

remove_ublk()
{
	stop_server && p2p_wait 10 rmmod ublk_drv 2> /dev/null
}

# find_disk NAME PATTERN: the disk below a PCI device, if it is there by now
find_disk()
{
	local dir

	# shellcheck disable=SC2231 # a pattern it is
	for dir in "/sys/bus/pci/devices/$(p2p_device "$1")"/$2; do
		disk=/dev/${dir##*/}
		[[ -b $disk ]] && return
	done
	return 1
}

make_virtio_blk()
{
	[[ $(p2p_device virtio0) ]] && modprobe virtio_blk &&
		p2p_wait 10 find_disk virtio0 'virtio*/block/vd*'
}

remove_virtio_blk()
{
	rmmod virtio_blk
}

make_scsi()
{
	[[ $(p2p_device scsi0) ]] && modprobe virtio_scsi && modprobe sd_mod &&
		p2p_wait 10 find_disk scsi0 'virtio*/host*/target*/*/block/sd*'
}

remove_scsi()
{
	rmmod sd_mod && rmmod virtio_scsi
}

# make_dm TABLE: a mapped device; there is no udev to wait for
make_dm()
{
	local dir

	dmsetup create p2pdma --noudevsync --table "$1" || return
	for dir in /sys/block/dm-*; do
		if [[ $(< "$dir"/dm/name) == p2pdma ]]; then
			disk=/dev/${dir##*/}
			return
		fi
	done
	return 1
}

remove_dm()
{
	dmsetup remove --noudevsync --retry p2pdma
}

make_dm_linear()
{
	modprobe dm-mod && make_dm "0 $SECTORS linear $drive 0"
}

make_dm_stripe()
{
	make_dm "0 $SECTORS striped 2 128 $drive 0 $(p2p_disk drive1) 0"
}

make_dm_crypt()
{
	local key

	key=$(printf '5a%.0s' {1..32}) && modprobe dm-crypt &&
		make_dm "0 $SECTORS crypt aes-cbc-plain64 $key 0 $drive 0"
}

# A superblock of zeroes makes it a new one.
make_dm_integrity()
{
	modprobe dm-integrity && wipe &&
		make_dm "0 $SECTORS integrity $drive 0 - D 1 internal_hash:crc32c"
}

wipe()
{
	dd if=/dev/zero of="$drive" bs=1M count=1 oflag=direct status=none
}

# add_member DISK SLOT: to the array that is being made
add_member()
{
	local member=$md/dev-${1##*/}

	echo "$(< "/sys/block/${1##*/}"/dev)" > "$md"/new_dev &&
		echo $((SECTORS / 2)) > "$member"/size &&
		echo "$2" > "$member"/slot
}

# make_md LEVEL: an array of the drives, without metadata on them
make_md()
{
	modprobe md-mod || return
	echo "md_$1" > /sys/module/md_mod/parameters/new_array || return
	md=/sys/block/md_$1/md
	echo "$1" > "$md"/level && echo none > "$md"/metadata_version &&
		echo 2 > "$md"/raid_disks || return
	# Half of the data for each of the drives
	[[ $1 == raid1 ]] || echo 32768 > "$md"/chunk_size || return
	add_member "$drive" 0 && add_member "$(p2p_disk drive1)" 1 &&
		echo $((SECTORS / 2)) > "$md"/component_size &&
		echo none > "$md"/resync_start &&
		echo active > "$md"/array_state &&
		disk=/dev/md_$1
}

remove_md()
{
	echo clear > "$md"/array_state
}

make_md_raid0()
{
	make_md raid0
}

make_md_raid1()
{
	make_md raid1
}

make_md_raid5()
{
	make_md raid5
}

# make_fabrics TRANSPORT: the host's disk, with the drive on the other end
make_fabrics()
{
	P2P_TRANSPORT=$1
	p2p_add_target "$drive" && p2p_set_provider 0 && p2p_connect &&
		disk=$remote
}

remove_fabrics()
{
	p2p_disconnect && p2p_remove_target
}

make_nvme_loop()
{
	make_fabrics loop
}

make_nvme_tcp()
{
	p2p_make_netdev dummy0 $P2P_ADDR && make_fabrics tcp
}

make_nvme_rdma()
{
	p2p_load_rnic && make_fabrics rdma
}

# The head of the subsystem that the controllers share
make_nvme_multipath()
{
	local controller dir

	for controller in /sys/bus/pci/devices/"$(p2p_device path0)"/nvme/nvme*; do
		for dir in "$controller"/subsystem/nvme*n1; do :; done
	done
	for dir in /sys/class/nvme-subsystem/*; do
		[[ -e $dir/${controller##*/} ]] || continue
		disk=$(echo "$dir"/nvme*n1)
		disk=/dev/${disk##*/}
		[[ -b $disk ]] && return
	done
	return 1
}

# --- trying them ---

# What is below a multipath head may say it, too.
said_why()
{
	local name=${disk##*/}
	local why="the driver (takes no DMA addresses|passes no DMA addresses on)"

	p2p_mark_log
	verdict=$("$DIR"/dma_bio_try "$disk" drive0) || return
	p2p_log_since_mark | grep -qE \
		"block: ${name/%n1/(c[0-9]+)?n1}: DMA-address bio refused: $why$"
}

judge()
{
	[[ $verdict == "$1" ]] && return
	ktap_print_msg "${verdict//$'\n'/, }"
	return 1
}

# can_be_removed NAME: what holds a reference to it cannot
can_be_removed()
{
	"remove_$1" && return
	ktap_print_msg "cannot be removed"
	return 1
}

# is_right CHECK [REMOVE]: and nothing of the bios is left
is_right()
{
	local result=0

	ktap_print_msg "$disk"
	"$1" || result=1
	[[ ! $2 ]] || can_be_removed "$2" || result=1
	return $result
}

# The log may have said too much already, then try again.
is_refused()
{
	local verdict='' logged=1

	p2p_wait 15 said_why || logged=0
	judge "$REFUSED" || return
	((logged)) || ktap_print_msg "no line in the log with the reason"
	((logged))
}

is_taken()
{
	local verdict

	verdict=$("$DIR"/dma_bio_try "$disk") && judge "$P2P_TAKEN"
}

# row DEVICE NAME [REMOVE [CHECK]]
row()
{
	local device=$1 name=$2 remove=$3 check=${4:-is_refused}

	disk=
	if "make_$device"; then
		ktap_test_result "$name" is_right "$check" "$remove"
	else
		ktap_test_skip "$name: cannot be set up here"
		[[ ! $remove ]] || can_be_removed "$remove"
	fi
}

multipath_row()
{
	local name="nvme multipath head"

	if [[ ! -e $MULTIPATH || $(< $MULTIPATH) == N ]]; then
		ktap_test_skip "$name: boot with nvme_core.multipath=Y"
	elif [[ ! $(p2p_device path0) ]]; then
		ktap_test_skip "$name: no device path0"
	else
		row nvme_multipath "$name" "" is_taken
	fi
}

ktap_print_header
p2p_require p2pmem0 drive0 drive1
p2p_require_tools dmsetup nvme ip
p2p_has_dma_bios || p2p_skip_all "this kernel has no I/O by DMA address"
drive=$(p2p_disk drive0)
disk=$drive
ktap_set_plan 20

ktap_test_result "the drive itself takes them" is_taken
for device in null_blk brd loop zram nbd ublk; do
	row "$device" "$device" "$device"
done
row virtio_blk virtio-blk virtio_blk
row scsi SCSI scsi
row dm_linear dm-linear dm
row dm_stripe dm-stripe dm
row dm_crypt dm-crypt dm
row dm_integrity dm-integrity dm
row md_raid0 "md raid0" md is_taken
row md_raid1 "md raid1" md is_taken
row md_raid5 "md raid5" md
row nvme_loop "nvme-loop host" fabrics
row nvme_tcp "nvme-tcp host" fabrics
row nvme_rdma "nvme-rdma host" fabrics
multipath_row
ktap_finished
