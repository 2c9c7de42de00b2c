#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the series costs ordinary I/O: compare the instructions per I/O of the
# patched and the unpatched kernel, and fail if it is more than it may be.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

LIMIT=0.5	# percent
# Boots differ by as much as that, so the cheapest of some counts.  If it is too
# much, both kernels have another chance to be cheaper.
BOOTS=3
ROUNDS=3

# boot FLAVOUR: lines "DEVICE DIRECTION BYTES INSTRUCTIONS MEAN".  The program is
# the same for both, only the kernel is not.
boot() {
	local log=$LOGS/cost-$1.log status=0
	P2PDMA_CACHE=$CACHE/qemu "$TOP/$TESTS_DIR/qemu/run.sh" --count \
		--kernel "$BUILD/kernel-$1" --tests "$BUILD/tests-series-test" \
		cost.sh >"$log" 2>&1 || status=$?
	case $status in
	0) sed -n 's/^# cost: //p' "$log" ;;
	4) tail -n 1 "$log" >&2; exit 4 ;;
	*) show_errors "$log"
		die "cannot count on kernel-$1" "log: $log" ;;
	esac
}

# count FLAVOUR: boot it a few times more
count() {
	local i
	for ((i = 0; i < BOOTS; i++)); do boot "$1" || return; done >>"$tmp/$1"
}

# cheapest FLAVOUR: the lines of the cheapest boot, for each device and so on
cheapest() {
	sort -k 1,2 -k 3,3n -k 4,4n "$tmp/$1" | awk '!seen[$1, $2, $3]++'
}

# Side by side: instructions are counted, not time.
count_both() {
	local base series status=0
	count base-test &
	base=$!
	count series-test &
	series=$!
	wait "$base" || status=$?
	wait "$series" || status=$?
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
		if (change > limit)
			failed = 1
		rows++
	}
	END {
		if (rows != wanted || !rows) {
			print "not all were counted"
			failed = 1
		}
		if (failed)
			print "FAIL: the limit is " limit " percent"
		exit failed
	}' "$1" "$2"
}

"$SCRIPTS/kernel.sh" build base test
"$SCRIPTS/kernel.sh" build series test
"$SCRIPTS/kernel.sh" tests series test
make_tmp
for ((round = 1; round <= ROUNDS; round++)); do
	count_both || exit
	cheapest base-test >"$tmp/before"
	cheapest series-test >"$tmp/after"
	echo "instructions of the kernel per I/O, one at a time:"
	if compare "$tmp/before" "$tmp/after"; then exit 0; fi
done
exit 1
