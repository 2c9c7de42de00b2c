#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# For real machines: measure with fio what a host sees of a target, and how busy the CPUs
# of both are meanwhile. Emulation shows neither time nor load. To compare kernels, IOMMU
# modes, or p2pmem with system memory, run it for each of them.

usage()
{
	cat <<-END
	Usage: measure.sh [-w] DISK [TARGET] > FILE

	DISK    block device of the host (/dev/nvme1n1), connected over RDMA
	TARGET  machine of the target, where ssh can log in as root without a
	        password (root@192.0.2.1); by default, this machine
	-w      write too, which destroys what is on DISK

	Prints CSV, a line for each direction, size and depth:
	kernel          of the target
	iommu           modes of the target's IOMMU groups
	disk, direction, bytes, depth
	                what was done
	iops, mib_per_s, latency_us, latency_p99_us
	                as reported by fio
	host_cpu_us     time that the host's CPUs were busy for each I/O; empty if
	                the target is on the same machine
	target_cpu_us   the same for the target, and its host if on the same machine
	p2pmem_percent  of the target's commands, those whose data was in p2pmem;
	                empty if its kernel does not count them

	P2P_SECONDS (10), P2P_SIZES (4096 to 1048576) and P2P_DEPTHS (1 and 32) change
	how long and what is measured.
	END
}

DIR=$(dirname "$(readlink -f "$0")")
export P2P_SECONDS=${P2P_SECONDS:-10} P2P_DISK P2P_RW P2P_BS P2P_DEPTH
export LC_ALL=C
set -o pipefail

die()
{
	echo "measure.sh: $*" >&2
	exit 1
}

# on_target COMMAND
on_target()
{
	if [[ $target ]]; then ssh -o BatchMode=yes -- "$target" "$1"; else bash -c "$1"; fi
}

# What a machine has done so far: ticks of its CPUs, commands of its target with data
# in p2pmem, and all of them
COUNTS='cat /proc/stat /sys/kernel/debug/nvmet/*/ctrl*/p2pmem 2> /dev/null || true'
sum_up()
{
	awk '
		$1 == "cpu" { busy = $2 + $3 + $4 + $7 + $8 + $9 }
		$2 ~ /^data=/ {
			sub("requests=", "")
			all += $3
			if ($2 == "data=p2pmem")
				p2pmem += $3
		}
		END { print busy + 0, p2pmem + 0, all + 0 }'
}

# count: this machine, then the target
count()
{
	local target

	target=$(on_target "$COUNTS") || die "cannot count on the target"
	echo "$(sum_up < /proc/stat)" "$(sum_up <<< "$target")"
}

# With the names that the kernel's parameters give to them
iommu_modes()
{
	on_target 'cat /sys/kernel/iommu_groups/*/type 2> /dev/null || echo none' | sort -u |
		sed 's/^DMA$/strict/; s/^DMA-FQ$/lazy/; s/^identity$/passthrough/' |
		paste -sd+
}

# line WRITES: a line of the table from what was counted before and after, and fio's
# terse output, in which writes have other fields than reads
line()
{
	awk -v writes="$1" -v remote="$target" -v us=$((1000000 / $(getconf CLK_TCK))) '
		function per_io(ticks) { return sprintf("%.1f", ticks * us / ios) }
		NR == 1 { split($0, before) }
		NR == 2 { split($0, after) }
		NR > 2 && /^3;/ {
			split($0, fio, ";")
			skip = writes ? 41 : 0
			for (i = 18; i < 38; i++)
				if (fio[i + skip] ~ /^99\.0+%=/)
					p99 = substr(fio[i + skip], index(fio[i + skip], "=") + 1)
			ios = fio[6 + skip] * 1024 / ENVIRON["P2P_BS"]
			if (!ios)
				exit
			if (remote)
				host = per_io(after[1] - before[1])
			commands = after[6] - before[6]
			if (commands > 0 && after[5] >= before[5])
				share = sprintf("%.1f", (after[5] - before[5]) * 100 / commands)
			printf "%d,%.1f,%.1f,%.1f,%s,%s,%s\n",
				fio[8 + skip], fio[7 + skip] / 1024, fio[40 + skip], p99,
				host, per_io(after[4] - before[4]), share
			printed = 1
		}
		END { exit !printed }'
}

# measure DIRECTION BYTES DEPTH
measure()
{
	local before after output writes=

	P2P_RW=rand$1 P2P_BS=$2 P2P_DEPTH=$3
	[[ $1 == read ]] || writes=1
	before=$(count) || exit
	output=$(fio --output-format=terse --terse-version=3 "$DIR/measure.fio") ||
		die "$output"
	after=$(count) || exit
	output=$(line $writes <<< "$before"$'\n'"$after"$'\n'"$output") ||
		die "no I/O in $P2P_SECONDS s"
	echo "$kernel,$iommu,$P2P_DISK,$1,$2,$3,$output"
}

# The right disk, and nobody uses it. fio itself refuses one that is mounted.
check_writable()
{
	local disk=/sys/class/block/${P2P_DISK##*/}

	grep -qx rdma "$disk"/device/transport "$disk"/device/nvme*/transport 2> /dev/null ||
		die "$P2P_DISK: not an NVMe disk that is connected over RDMA, so not written to"
	[[ ! $(ls -d "$disk"/holders/* "$disk/${P2P_DISK##*/}"p* 2> /dev/null) ]] ||
		die "$P2P_DISK: has partitions or is in use, so not written to"
}

directions="read"
while getopts wh option; do
	case $option in
	w) directions="read write" ;;
	h) usage; exit ;;
	*) usage >&2; exit 1 ;;
	esac
done
shift $((OPTIND - 1))
if (($# < 1 || $# > 2)); then
	usage >&2
	exit 1
fi
P2P_DISK=$(readlink -f -- "$1") target=${2:-}
[[ $P2P_SECONDS =~ ^[1-9][0-9]*$ ]] || die "P2P_SECONDS=$P2P_SECONDS: not a number above 0"
[[ -b $P2P_DISK ]] || die "$1: not a block device"
type -P fio > /dev/null || die "fio: not found, install it"
[[ $directions == read ]] || check_writable
kernel=$(on_target "uname -r") || die "$target: cannot run commands there with ssh"
iommu=$(iommu_modes) || die "cannot read the target's IOMMU groups"
echo "kernel,iommu,disk,direction,bytes,depth,iops,mib_per_s,latency_us,latency_p99_us," \
	"host_cpu_us,target_cpu_us,p2pmem_percent" | tr -d " "
for direction in $directions; do
	for size in ${P2P_SIZES:-4096 16384 65536 131072 1048576}; do
		for depth in ${P2P_DEPTHS:-1 32}; do
			measure "$direction" "$size" "$depth"
		done
	done
done
