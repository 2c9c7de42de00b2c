# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154  # work is run.sh's
#
# The emulated machines that a guest can be. A topology fills three arrays:
#   topo_args  QEMU's arguments
#   topo_bars  "name=path" of each provider; path is the chain of slot.function
#              numbers from the root bus, because bus numbers are the guest's
#   topo_devs  the same for the other devices

# Every topology has these behind its switch or bridges, in this order.
topo_devices=(
	"p2pmem0 provider 64M"
	"p2pmem1 provider 8M"
	"drive0 drive 512M"
	"drive1 drive 256M"
	"engine engine"
)

topo_args=()
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

# mdts=8 lets one command carry 1 MiB.
topo_drive()
{
	local name=$1 bus=$2 path=$3 size=$4

	truncate -s "$size" "$work/$name.img"
	topo_args+=(
		-blockdev "driver=file,node-name=$name-file,filename=$work/$name.img"
		-device "nvme,id=$name,serial=$name,drive=$name-file,mdts=8,bus=$bus"
	)
	topo_devs+=("$name=$path")
}

topo_engine()
{
	local name=$1 bus=$2 path=$3

	topo_args+=(-device "lsi53c895a,id=$name,bus=$bus")
	topo_devs+=("$name=$path")
}

topology_switch()
{
	local number=0 slot device name kind size

	topo_args+=(-cpu qemu64)
	topo_port pcie-root-port root pcie.0 10
	topo_args+=(-device "x3130-upstream,id=up,bus=root")
	for device in "${topo_devices[@]}"; do
		read -r name kind size <<< "$device"
		slot=$(printf %02x "$number")
		topo_port xio3130-downstream "$name-port" up "$slot"
		"topo_$kind" "$name" "$name-port" \
			"10.0/00.0/$slot.0/00.0" "$size"
		number=$((number + 1))
	done
	# qemu64 has no allow-listed host bridge: no device reaches this one.
	topo_port pcie-root-port far-port pcie.0 18
	topo_provider far far-port 18.0/00.0 8M
}

topology_bridge()
{
	local number=16 slot device name kind size

	# The vendor is named because KVM would put the host's in its place.
	topo_args+=(-cpu "EPYC,vendor=AuthenticAMD")
	for device in "${topo_devices[@]}" "far provider 8M"; do
		read -r name kind size <<< "$device"
		slot=$(printf %02x "$number")
		topo_port pcie-root-port "$name-port" pcie.0 "$slot"
		"topo_$kind" "$name" "$name-port" "$slot.0/00.0" "$size"
		number=$((number + 1))
	done
}

topology_names()
{
	declare -F | sed -n 's/^declare -f topology_//p' | grep -vx names
}
