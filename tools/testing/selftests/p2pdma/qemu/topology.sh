# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154  # work is run.sh's
#
# The emulated machines that a guest can be. A topology fills these arrays:
#   topo_args  QEMU's arguments
#   topo_cmdline  the kernel's
#   topo_bars  "name=path" of each provider; path is the chain of slot.function
#              numbers from the root bus, because bus numbers are the guest's
#   topo_devs  the same for the other devices

# Every topology has these behind its switch or bridges, in this order.
topo_devices=(
	"p2pmem0 provider 64M"
	"p2pmem1 provider 8M"
	"drive0 drive 512M"
	"drive1 long_drive 256M"
	"engine engine"
	"path0 path 64M"
	"path1 path 64M"
	"formats formats 64M"
	"engine1 engine"
)

# Slots are the kernel's PCIe hotplug driver's, not ACPI's.
topo_args=(-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off)
topo_cmdline=()
topo_bars=()
topo_devs=()
topo_chassis=0

# topo_port DRIVER ID BUS SLOT: SLOT is hexadecimal. A port with the unique chassis that it needs
topo_port()
{
	topo_chassis=$((topo_chassis + 1))
	topo_args+=(-device
		"$1,id=$2,bus=$3,addr=$4,chassis=$topo_chassis,slot=$topo_chassis")
}

# The backing is a file so that the host can see what crossed the BAR.
topo_provider()
{
	local name=$1 bus=$2 path=$3 size=$4
	local backing=size=$size,share=on,mem-path=$work/$name.bar

	topo_args+=(
		-object "memory-backend-file,id=mem-$name,$backing"
		-device "ivshmem-plain,id=$name,memdev=mem-$name,bus=$bus"
	)
	topo_bars+=("$name=$path")
}

# MDTS 8, unless another is given, lets one command carry 1 MiB.
topo_drive()
{
	local name=$1 bus=$2 path=$3 size=$4 mdts=${5:-8}

	truncate -s "$size" "$work/$name.img"
	topo_args+=(
		-blockdev "driver=file,node-name=$name-file,filename=$work/$name.img"
		-device "nvme,id=$name,serial=$name,drive=$name-file,mdts=$mdts,bus=$bus"
	)
	topo_devs+=("$name=$path")
}

# With commands of up to 4 MiB, whose list of pages takes more than a page.
topo_long_drive()
{
	topo_drive "$@" 10
}

# A drive with a Controller Memory Buffer, in which it has its submission queues.
topo_cmb()
{
	topo_drive "$@"
	topo_args[-1]+=,cmb_size_mb=16
}

# Two controllers of one subsystem, with one namespace that both have.
topo_path()
{
	local name=$1 bus=$2 path=$3 size=$4

	if [[ ! -e $work/shared.img ]]; then
		truncate -s "$size" "$work/shared.img"
		topo_args+=(-device "nvme-subsys,id=shared,nqn=shared"
			-blockdev "driver=file,node-name=shared-file,filename=$work/shared.img")
	fi
	topo_args+=(-device "nvme,id=$name,serial=shared,subsys=shared,bus=$bus")
	# The namespace goes to the controllers that are there: after the last.
	[[ $name != path1 ]] || topo_args+=(-device
		"nvme-ns,drive=shared-file,nsid=1,shared=on,bus=$name")
	topo_devs+=("$name=$path")
}

# Its namespaces: protection information alone, more metadata than that, zones,
# zones with protection information, metadata without it.
topo_formats()
{
	local name=$1 bus=$2 path=$3 size=$4 nsid=0 format file
	local zones=zoned=true,zoned.zone_size=4M

	topo_args+=(-device "nvme,id=$name,serial=$name,mdts=8,bus=$bus")
	for format in ms=8,pi=1 ms=16,pi=1 $zones $zones,ms=8,pi=1 ms=8; do
		nsid=$((nsid + 1))
		file=$work/$name$nsid.img
		truncate -s "$size" "$file"
		topo_args+=(
			-blockdev "driver=file,node-name=$name$nsid,filename=$file"
			-device "nvme-ns,drive=$name$nsid,nsid=$nsid,bus=$name,$format"
		)
	done
	topo_devs+=("$name=$path")
}

# An I/O takes so long that the guest's processor is idle before it ends: so all
# are the same to whoever counts instructions. It has no data.
topo_late_drive()
{
	local name=$1 bus=$2 path=$3

	topo_args+=(
		-blockdev "driver=null-co,node-name=$name-null,size=$((1 << 29)),latency-ns=500000"
		-device "nvme,id=$name,serial=$name,drive=$name-null,mdts=8,bus=$bus"
	)
	topo_devs+=("$name=$path")
}

topo_engine()
{
	local name=$1 bus=$2 path=$3

	topo_args+=(-device "lsi53c895a,id=$name,bus=$bus")
	topo_devs+=("$name=$path")
}

# Disks whose drivers take no DMA addresses; no data of theirs is looked at.
topo_others()
{
	local name

	for name in virtio scsi; do
		truncate -s 64M "$work/$name.img"
		topo_args+=(-blockdev
			"driver=file,node-name=$name-file,filename=$work/$name.img")
	done
	topo_args+=(
		-device "virtio-blk-pci,drive=virtio-file,bus=pcie.0,addr=04"
		-device "virtio-scsi-pci,id=scsi,bus=pcie.0,addr=05"
		-device "scsi-hd,drive=scsi-file,bus=scsi.0"
	)
	topo_devs+=(virtio0=04.0 scsi0=05.0)
}

topology_switch()
{
	local number=0 slot device name kind size

	topo_args+=(-cpu qemu64)
	topo_others
	topo_port pcie-root-port root pcie.0 10
	topo_args+=(-device "x3130-upstream,id=up,bus=root")
	for device in "${topo_devices[@]}"; do
		read -r name kind size <<< "$device"
		[[ $name != path1 ]] || continue
		slot=$(printf %02x "$number")
		topo_port xio3130-downstream "$name-port" up "$slot"
		"topo_$kind" "$name" "$name-port" \
			"10.0/00.0/$slot.0/00.0" "$size"
		number=$((number + 1))
	done
	# qemu64 has no allow-listed host bridge: these reach only each other.
	topo_port pcie-root-port far-port pcie.0 18
	topo_provider far far-port 18.0/00.0 8M
	topo_port pcie-root-port path1-port pcie.0 19
	topo_path path1 path1-port 19.0/00.0 64M
}

# The vendor is named because KVM would put the host's in its place.
topo_amd_zen=EPYC,vendor=AuthenticAMD

topo_root_ports()
{
	local number=16 slot device name kind size

	topo_others
	for device in "${topo_devices[@]}" "far provider 8M"; do
		read -r name kind size <<< "$device"
		slot=$(printf %02x "$number")
		topo_port pcie-root-port "$name-port" pcie.0 "$slot"
		"topo_$kind" "$name" "$name-port" "$slot.0/00.0" "$size"
		number=$((number + 1))
	done
}

topology_bridge()
{
	topo_args+=(-cpu "$topo_amd_zen")
	topo_root_ports
}

# In QEMU all DMA goes to the root complex: with an IOMMU even a switch would
# not connect two devices, although the kernel thinks so. Hence root ports.
topo_iommu()
{
	topo_args+=(-cpu "$topo_amd_zen" -machine kernel-irqchip=split
		-device "intel-iommu,intremap=on,aw-bits=48")
	topo_cmdline+=(intel_iommu=on "$@")
	topo_root_ports
}

topology_iommu-lazy() { topo_iommu iommu.strict=0; }

topology_iommu-strict() { topo_iommu iommu.strict=1; }

topology_iommu-pt() { topo_iommu iommu=pt; }

# A BAR that is larger than all memory, and that the copy engine, which has 32
# address bits, reaches only in parts. The file behind it is sparse.
topology_large()
{
	topo_devices+=("huge provider 512G")
	topo_iommu iommu.strict=1
}

topology_cmb()
{
	topo_devices+=("cmb cmb 64M")
	topology_bridge
}

# No switch, and a host bridge of which the kernel knows nothing good
topology_refused()
{
	topo_args+=(-cpu "SandyBridge,vendor=GenuineIntel")
	topo_root_ports
}

# Functions of one device below a port that has ACS, which decides there whether what
# one sends to another goes straight to it.
topology_acs()
{
	local function=0 device name kind size

	topo_args+=(-cpu "$topo_amd_zen")
	topo_port pcie-root-port acs-port pcie.0 10
	for device in "p2pmem0 provider 64M" "drive0 drive 512M" \
		      "engine engine"; do
		read -r name kind size <<< "$device"
		"topo_$kind" "$name" "acs-port,multifunction=on,addr=00.$function" \
			"10.0/00.$function" "$size"
		function=$((function + 1))
	done
}

# A machine without any of it, in which every test is skipped
topology_none()
{
	topo_args+=(-cpu qemu64)
}

topology_names()
{
	declare -F | sed -n 's/^declare -f topology_//p' | grep -vx names
}
