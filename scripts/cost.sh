#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the series costs ordinary I/O: compare the instructions per I/O of the
# patched and the unpatched kernel, and fail if it is more than it may be.
# And what a DMA-address bio costs on a drive: less than pages without an IOMMU, and
# the same in every IOMMU mode.
# "cost.sh nvmet": what I/O over nvmet costs, in every IOMMU mode; it must not be more
# than on the unpatched kernel, with p2pmem and without.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

LIMIT=0.5	# percent
# Boots differ by as much as that, so the cheapest of some counts.  If it is too
# much, both kernels have another chance to be cheaper.
BOOTS=3
MODES=(bridge iommu-lazy iommu-strict)	# IOMMU modes are topologies
ROUNDS=3

# boot FLAVOUR [TOPOLOGY TEST]: lines "DEVICE DIRECTION BYTES INSTRUCTIONS MEAN".  The
# program is the same for both, only the kernel is not.
boot() {
	local log=$LOGS/cost-$1${2:+-$2}.log status=0
	machine "$BUILD/kernel-$1" "$BUILD/tests-series-test" --count \
		--topology "${2:-switch}" "${3:-cost.sh}" >"$log" 2>&1 || status=$?
	case $status in
	0) sed -n 's/^# cost: //p' "$log" ;;
	4)
		grep 'QEMU cannot load the plugin' "$log" >&2 && exit 4
		die "cannot count on kernel-$1" "log: $log"
		;;
	*) show_errors "$log"
		die "cannot count on kernel-$1" "log: $log" ;;
	esac
}

# count FILE FLAVOUR [TOPOLOGY TEST]: boot it a few times more
count() {
	local i
	for ((i = 0; i < BOOTS; i++)); do boot "${@:2}" || return; done >>"$tmp/$1"
}

# cheapest FILE: the lines of the cheapest boot, for each device and so on
cheapest() {
	sort -k 1,2 -k 3,3n -k 4,4n "$tmp/$1" | awk '!seen[$1, $2, $3]++'
}

# side_by_side LINE...: count with the arguments in each line, all at the same time,
# which does not change the number of instructions
side_by_side() {
	local line pid running=() status=0
	for line; do
		# shellcheck disable=SC2086 # several arguments
		count $line &
		running+=($!)
	done
	for pid in "${running[@]}"; do wait "$pid" || status=$?; done
	return "$status"
}

# compare BEFORE AFTER
compare() {
	awk -v limit="$LIMIT" '
	BEGIN {
		row = "%-9s %-5s %4s %8s %8s %8s\n"
		printf row, "device", "", "KiB", "base", "series", "percent"
	}
	{ key = $1 " " $2 " " $3 }
	FILENAME == ARGV[1] { before[key] = $4; wanted++; next }
	!before[key] { print key ": not counted on the base"; failed = 1; next }
	{
		change = ($4 / before[key] - 1) * 100
		printf row, $1, $2, $3 / 1024, before[key], $4,
			sprintf("%+.2f", change)
		# Whether loop finds its worker asleep is a matter of chance.
		if (change > ($1 == "loop" ? 4 : 1) * limit)
			failed = 1
		rows++
	}
	END {
		if (rows != wanted || !rows) {
			print "not all were counted"
			failed = 1
		}
		if (failed)
			print "FAIL: the limit is " limit " percent, four times that for loop"
		exit failed
	}' "$1" "$2"
}

ordinary() {
	local round
	for ((round = 1; round <= ROUNDS; round++)); do
		side_by_side "base-test base-test" "series-test series-test" || return
		cheapest base-test >"$tmp/before"
		cheapest series-test >"$tmp/after"
		echo "instructions of the kernel per I/O, one at a time:"
		if compare "$tmp/before" "$tmp/after"; then return 0; fi
	done
	return 1
}

# compare_modes: lines "MODE DATA DIRECTION BYTES INSTRUCTIONS MEAN" on standard input
compare_modes() {
	awk -v limit="$LIMIT" '
	BEGIN {
		row = "%-12s %-5s %8s %8s\n"
		printf row, "IOMMU", "", "pages", "address"
	}
	{ counted[$1, $3, $2] = $5; directions[$3]; rows++ }
	function complain(text) { print "FAIL: " text; failed = 1 }
	END {
		split("bridge iommu-lazy iommu-strict", modes)
		for (i = 1; i <= 3; i++)
			for (direction in directions) {
				mode = modes[i]
				pages = counted[mode, direction, "pages"]
				address = counted[mode, direction, "address"]
				none = counted["bridge", direction, "address"]
				printf row, mode == "bridge" ? "none" : substr(mode, 7),
					direction, pages, address
				if (address > counted["bridge", direction, "pages"])
					complain("pages without an IOMMU are cheaper")
				if ((address - none) ^ 2 > (none * limit / 100) ^ 2)
					complain("not the same as without an IOMMU")
			}
		if (rows != 12)
			complain("not all were counted")
		exit failed
	}'
}

by_address() {
	local round mode
	for ((round = 1; round <= ROUNDS; round++)); do
		side_by_side "${MODES[@]/*/& series-test & cost_p2p.sh}" || return
		echo "4 KiB of a drive, by a bio of the kernel, instructions per I/O:"
		for mode in "${MODES[@]}"; do
			cheapest "$mode" | sed "s/^/$mode /"
		done | compare_modes && return 0
	done
	return 1
}

nvmet() {
	local mode round status=0
	for mode in "${MODES[@]}"; do
		echo "nvmet-rdma, $mode, instructions of the guest per I/O:"
		for ((round = 1; round <= ROUNDS; round++)); do
			side_by_side "base-test-$mode base-test $mode nvmet_cost.sh" \
				"series-test-$mode series-test $mode nvmet_cost.sh" || return
			cheapest "base-test-$mode" >"$tmp/before"
			cheapest "series-test-$mode" >"$tmp/after"
			if compare "$tmp/before" "$tmp/after"; then continue 2; fi
		done
		status=1
	done
	return "$status"
}

"$SCRIPTS/kernel.sh" build base test
"$SCRIPTS/kernel.sh" build series test
"$SCRIPTS/kernel.sh" tests series test
make_tmp
case ${1:-} in
'') ordinary; by_address ;;
nvmet) BOOTS=4; nvmet ;;
*) die "$1: not nvmet" ;;
esac
