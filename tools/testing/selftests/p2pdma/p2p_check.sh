#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tell whether a network card and a drive can do DMA to a provider's memory, and how; if
# not, what to change. Only reads sysfs and configuration space, as root. The provider
# needs no driver yet: what counts is its largest memory BAR.
#
# What sysfs does not tell is not considered: DMA limits of a bus, an IOMMU with fewer
# address bits than its client, and IOVAs that are reserved.

usage()
{
	cat <<-END
	Usage: p2p_check.sh PROVIDER NIC DRIVE

	PROVIDER  PCI address of the device that has the memory in a BAR, 0000:03:00.0
	NIC       PCI address, RDMA device (mlx5_0) or network device (eth0)
	DRIVE     block device (/dev/nvme0n1), or PCI address of a drive

	The exit status is 0 if nvmet-rdma can serve the drive from the memory (perhaps
	only once it is published), 1 if it cannot, and 2 if that cannot be determined.
	END
}

PCI=/sys/bus/pci/devices
DIR=$(dirname "$(readlink -f "$0")")

works=1
ready=1
redirecting_ports=
export LC_ALL=C

die()
{
	echo "p2p_check.sh: $*" >&2
	exit 2
}

say() { echo "$*"; }

no()
{
	works=0
	say "  no: $1"
	[[ ! $2 ]] || say "  try: $2"
}

# human BYTES
human()
{
	if (($1 >= 1 << 20)); then echo "$(($1 >> 20)) MiB"; else echo "$(($1 >> 10)) KiB"; fi
}

is_pci() { [[ -e $PCI/$1/vendor ]]; }

# pci_parent SYSFS-DIRECTORY: the PCI device above it
pci_parent()
{
	local path

	[[ -e $1 ]] || return
	path=$(readlink -f "$1")
	while [[ $path != / ]]; do
		if is_pci "${path##*/}"; then
			echo "${path##*/}"
			return
		fi
		path=$(dirname "$path")
	done
	return 1
}

# --- what the names mean ---

# rdma_of_netdev NETDEV: its RDMA devices, and those below a VLAN, bond or bridge
rdma_of_netdev()
{
	local path

	for path in /sys/class/infiniband/*; do
		! grep -qsxF -e "$1" "$path"/ports/*/gid_attrs/ndevs/* || echo "${path##*/}"
	done
	for path in "/sys/class/net/$1"/device/infiniband/*; do
		[[ ! -e $path ]] || echo "${path##*/}"
	done
	for path in "/sys/class/net/$1"/lower_*; do
		[[ ! -e $path ]] || rdma_of_netdev "${path##*/lower_}"
	done
}

# copies_by_cpu PCI-ADDRESS: Omni-Path has DMA, but its verbs do not use it.
copies_by_cpu()
{
	[[ $(readlink "$PCI/$1/driver") == */hfi1 ]]
}

# find_nic NAME: set nic_name, and nic to its PCI address, empty if it has none
find_nic()
{
	local names

	nic_name=$1 nic=
	if is_pci "$1"; then
		nic=$1
		[[ -d $PCI/$1/infiniband ]] || say "note: $1 has no RDMA device at the moment"
	elif [[ -e /sys/class/infiniband/$1 ]]; then
		nic=$(pci_parent "/sys/class/infiniband/$1/device") || nic=
	else
		[[ -e /sys/class/net/$1 ]] || die "$1: not a PCI, RDMA or network device"
		mapfile -t names < <(rdma_of_netdev "$1" | sort -u)
		((${#names[@]})) || die "$1: has no RDMA device"
		((${#names[@]} == 1)) ||
			die "$1: has several RDMA devices, choose one: ${names[*]}"
		nic_name=${names[0]}
		nic=$(pci_parent "/sys/class/infiniband/$nic_name/device") || nic=
	fi
	[[ ! $nic ]] || ! copies_by_cpu "$nic" || nic=
}

# paths_of_head DISK: the controllers of a multipath head
paths_of_head()
{
	local path

	for path in "/sys/block/$1"/multipath/*; do
		[[ ! -e $path ]] || pci_parent "$path" || echo "remote:${path##*/}"
	done
}

# drives_below DISK: the PCI address of each drive that does the DMA, or "KIND:NAME" of
# what prevents it
drives_below()
{
	local disk=$1 slave

	if [[ -e /sys/block/$disk/dm ]]; then
		echo "dm:$disk"
	elif [[ -e /sys/block/$disk/md/level ]]; then
		case $(< "/sys/block/$disk/md/level") in
		raid0 | raid1 | raid10) ;;
		*) echo "level:$disk"; return ;;
		esac
		for slave in "/sys/block/$disk"/slaves/*; do
			drives_below "$(disk_of "${slave##*/}")"
		done
	elif [[ -d /sys/block/$disk/multipath ]]; then
		paths_of_head "$disk"
	elif [[ $disk == nvme* ]]; then
		pci_parent "/sys/block/$disk/device" || echo "remote:$disk"
	else
		echo "driver:$disk"
	fi
}

# disk_of NAME: of a partition, the disk
disk_of()
{
	local path

	[[ -e /sys/class/block/$1 ]] || die "$1: not a block device"
	path=$(readlink -f "/sys/class/block/$1")
	[[ ! -e $path/partition ]] || path=$(dirname "$path")
	basename "$path"
}

# --- the route between two devices ---

# route ADDRESS: the device and the bridges above it, from the bottom up
route()
{
	local path

	path=$(readlink -f "$PCI/$1")
	while is_pci "${path##*/}"; do
		echo "${path##*/}"
		path=$(dirname "$path")
	done
}

# config ADDRESS OFFSET BYTES: a value in its configuration space
config()
{
	local byte value=0 bits=0

	for byte in $(od -An -v -tu1 -j "$2" -N "$3" "$PCI/$1/config" 2> /dev/null); do
		((value |= byte << bits, bits += 8))
	done
	echo $value
}

# acs_control ADDRESS: its ACS Control Register, 0 if it has none
acs_control()
{
	local at=256 head i

	for ((i = 0; at && i < 480; i++)); do
		head=$(config "$1" $at 4)
		if (((head & 0xffff) == 0xd)); then
			config "$1" $((at + 6)) 2
			return
		fi
		at=$((head >> 20 & 0xffc))
	done
	echo 0
}

# redirects ADDRESS: does ACS send peer-to-peer requests upstream there, by request
# redirect, completion redirect or egress control?
redirects()
{
	(($(acs_control "$1") & 0x2c))
}

# below BRIDGE ADDRESS...: the addresses up to and including BRIDGE
below()
{
	local bridge=$1 address

	shift
	for address; do
		echo "$address"
		[[ $address != "$bridge" ]] || return 0
	done
}

# redirecting BRIDGE ADDRESS...: which of them redirect
redirecting()
{
	local address

	for address in $(below "$@"); do
		! redirects "$address" || echo "$address"
	done | sort -u
}

# first_on_root_bus ADDRESS: the device whose ids the kernel looks up in its list: the
# first one, if that is 00.0 or a root port
first_on_root_bus()
{
	local root device

	root=$(readlink -f "$PCI/$1")
	while is_pci "$(basename "$(dirname "$root")")"; do
		root=$(dirname "$root")
	done
	root=$(dirname "$root")
	for device in "$root"/*:*:*.*; do
		is_pci "${device##*/}" || continue
		[[ $device == *:00.0 || $(< "$device"/class) == 0x0604* ]] &&
			echo "${device##*/}"
		return
	done
}

cpu_is_zen()
{
	awk -F '[ \t]*: ' '$1 == "vendor_id" { amd = $2 == "AuthenticAMD" }
		$1 == "cpu family" { zen = amd && $2 >= 23; exit }
		END { exit !zen }' /proc/cpuinfo
}

# bridge_is_allowed ADDRESS NUMBER: does the kernel's list, which "make" writes to
# p2pdma_hosts, allow it if NUMBER host bridges are involved?
bridge_is_allowed()
{
	local vendor device same="( same)?"

	[[ -e $DIR/p2pdma_hosts ]] ||
		die "no $DIR/p2pdma_hosts: run \"make hosts\" there"
	vendor=$(< "$PCI/$1/vendor") device=$(< "$PCI/$1/device")
	(($2 == 1)) || same=
	grep -qE "^$vendor ($device|any)$same$" "$DIR"/p2pdma_hosts
}

through_host_bridge()
{
	local bridge bridges unlisted="which is not in the kernel's list"

	if cpu_is_zen; then
		say "  through the host bridge: the CPU is an AMD Zen or later"
		return
	fi
	mapfile -t bridges < <(printf '%s\n' "$(first_on_root_bus "$provider")" \
				"$(first_on_root_bus "$1")" | sort -u)
	for bridge in "${bridges[@]}"; do
		[[ $bridge ]] && bridge_is_allowed "$bridge" ${#bridges[@]} && continue
		[[ ! $bridge ]] ||
			bridge+=" ($(< "$PCI/$bridge/vendor"):$(< "$PCI/$bridge/device"))"
		if [[ $acs ]]; then
			no "ACS sends its requests to ${bridge:-a host bridge}, $unlisted" \
				"turn ACS redirection off, see below"
		else
			no "the only way is through ${bridge:-a host bridge}, $unlisted" \
				"plug both below the same PCIe switch"
		fi
		return 1
	done
	say "  through the host bridge, which is in the kernel's list"
}

# find_way ADDRESS: set kind to "bus address" or "host bridge"
find_way()
{
	local mine theirs bridge address

	mapfile -t mine < <(route "$1")
	mapfile -t theirs < <(route "$provider")
	bridge=
	for address in "${theirs[@]}"; do
		[[ " ${mine[*]} " != *" $address "* ]] || { bridge=$address; break; }
	done
	kind="host bridge"
	[[ $bridge ]] || return 0

	acs=$(redirecting "$bridge" "${theirs[@]}"
	      redirecting "$bridge" "${mine[@]}")
	acs=$(sort -u <<< "$acs" | grep . | paste -sd';')
	if [[ ! $acs ]]; then
		kind="bus address"
		return
	fi
	say "  ACS redirects requests at $acs"
	redirecting_ports+=${redirecting_ports:+;}$acs
}

suggest_acs()
{
	local ports

	[[ $redirecting_ports ]] || return 0
	ports=$(tr ';' '\n' <<< "$redirecting_ports" | sort -u | paste -sd';')
	say "for a direct route, boot with \"pci=disable_acs_redir=$ports\""
	say "  (this removes isolation between devices)"
}

# --- what each client can do ---

# bar_of_provider: first and last address of its largest memory BAR
bar_of_provider()
{
	local first last flags best=0 range=

	while read -r first last flags; do
		# memory that has an address: IORESOURCE_MEM, _DISABLED, _UNSET
		(((flags & 0x30000200) == 0x200 && last - first > best)) || continue
		best=$((last - first)) range="$first $last"
	done < <(head -n 6 "$PCI/$provider/resource")
	echo "$range"
}

# dma_bits ADDRESS: the width of its DMA addresses, which its driver sets
dma_bits()
{
	if [[ -e $PCI/$1/driver ]]; then echo $(($(< "$PCI/$1/dma_mask_bits"))); else echo 64; fi
}

# iova_end: what the kernel needs for the range. It aligns IOVAs to their size and does not
# use 0, and on x86 the interrupts are at 0xfee00000.
iova_end()
{
	local size=4096

	while ((size <= bar_last - bar_first)); do ((size <<= 1)); done
	((size == 1 << 31)) && echo $((3 * size - 1)) || echo $((2 * size - 1))
}

check_addresses()
{
	local bits limit advice=

	bits=$(dma_bits "$1")
	limit=$((bits < 63 ? (1 << bits) - 1 : (1 << 63) - 1))
	[[ -e $PCI/$1/driver ]] ||
		say "  note: it has no driver, which sets its DMA mask, so 64 bits are assumed"
	if [[ $kind != "bus address" ]]; then
		kind="physical address"
		advice="boot with an IOMMU in translated mode, or "
		case $(cat "$PCI/$1/iommu_group/type" 2> /dev/null) in
		DMA | DMA-FQ) kind=IOVA ;;
		blocked) no "the IOMMU blocks its DMA"; return 1 ;;
		esac
	fi
	if [[ $kind == IOVA ]]; then
		(($(iova_end) <= limit)) && return
		no "its $bits-bit DMA addresses cannot cover $(human $((bar_last - bar_first + 1)))"
	else
		((bar_last <= limit)) && return
		no "its $bits-bit DMA addresses do not reach $(printf %#x "$bar_last")" \
			"${advice}have the firmware place the BAR lower"
	fi
	return 1
}

# check_client NAME ADDRESS
check_client()
{
	local kind acs=

	say "$1 ($2)"
	find_way "$2"
	[[ $kind == "bus address" ]] || through_host_bridge "$2" || return
	check_addresses "$2" || return
	say "  yes: by $kind"
}

check_nic()
{
	if [[ $nic ]]; then
		check_client "$nic_name" "$nic"
	else
		say "$nic_name"
		no "the CPU copies its data (rxe, siw, hfi1), so it does no DMA" "use an RDMA NIC"
	fi
}

# check_drive WHAT: as drives_below() says
check_drive()
{
	case $1 in
	*:*:*.*) if [[ $(< "$PCI/$1/class") == 0x010802 ]]; then
			check_client "drive" "$1"
		else
			say "drive ($1)"; no "it is not an NVMe controller"
		fi ;;
	dm:*) say "${1#*:}"; no "device mapper does not pass on DMA addresses" \
		"export what is below it, or an md array" ;;
	level:*) say "${1#*:}"; no "this kind of md array does not pass on DMA addresses" \
		"use raid0, raid1 or raid10" ;;
	remote:*) say "${1#*:}"; no "the drive is not on this machine's PCI bus" ;;
	*) say "${1#*:}"; no "its driver takes no DMA addresses: only NVMe PCI drives do" ;;
	esac
}

# The controller can generate the metadata if it is protection information only.
check_metadata()
{
	local dir=/sys/block/$1 format size slave

	if [[ -e $dir/md/level ]]; then
		for slave in "$dir"/slaves/*; do
			check_metadata "$(disk_of "${slave##*/}")"
		done
		return
	fi
	size=$(cat "$dir"/metadata_bytes 2> /dev/null) || return 0
	((size)) || return 0
	format=$(cat "$dir"/integrity/format 2> /dev/null)
	case $format,$size in
	# "none", or no file: the kernel always has the controller protect the data.
	,* | none,* | T10-DIF-*,8 | EXT-DIF-*,16) return ;;
	esac
	say "$1"
	no "it is formatted with $size bytes of metadata per block, which only the CPU can make" \
		"format it without metadata, or with protection information alone"
}

check_disk()
{
	local disk below

	disk=${1#/dev/}
	[[ ! -e /dev/$disk ]] || disk=$(readlink -f "/dev/$disk")
	[[ ${disk##*/} ]] || die "\"$1\": not a block device"
	disk=$(disk_of "${disk##*/}") || exit
	below=$(drives_below "$disk" | sort -u)
	[[ $below ]] || die "$1: has no path at the moment"
	check_metadata "$disk"
	for below in $below; do
		check_drive "$below"
	done
}

check_provider()
{
	local p2pmem=$PCI/$provider/p2pmem

	say "provider $provider: $(human $((bar_last - bar_first + 1)))" \
		"at $(printf %#x "$bar_first")"
	if [[ ! -e $p2pmem/size ]]; then
		say "  its driver has not registered the memory, see pci_p2pdma_add_resource()"
		ready=0
	elif [[ $(< "$p2pmem"/published) != 1 ]]; then
		say "  its driver has not published the memory, so nvmet cannot use it"
		ready=0
	else
		say "  $(human "$(< "$p2pmem"/available)") of" \
			"$(human "$(< "$p2pmem"/size)") are free"
	fi
}

[[ $1 != @(-h|--help) ]] || { usage; exit 0; }
[[ $# == 3 && $1 && $2 && $3 ]] || { usage >&2; exit 2; }
((EUID == 0)) || die "needs root to read ACS settings"
is_pci "$1" || die "$1: not a PCI device; see lspci -D"
provider=$1
read -r bar_first bar_last <<< "$(bar_of_provider)"
[[ $bar_last ]] || die "$1: has no memory BAR"
bar_first=$((bar_first)) bar_last=$((bar_last))
find_nic "$2"

check_provider
check_nic
if is_pci "$3"; then check_drive "$3"; else check_disk "$3"; fi
suggest_acs
if ((works && ready)); then
	say "nvmet-rdma can serve the drive from the memory: set p2pmem to $provider"
elif ((works)); then
	say "nvmet-rdma can serve the drive once the memory of $provider is published"
fi
((!works)) || exit 0
say "nvmet-rdma cannot use the memory. If the reason is the NIC or metadata, it uses"
say "system memory; otherwise the namespace cannot be enabled."
exit 1
