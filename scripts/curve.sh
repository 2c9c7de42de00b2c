#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What it takes to register peer-to-peer memory, by size, on the unpatched and the
# patched kernel side by side, from the rows that large.sh printed in their guests. Fail
# if a size is missing, or if the patched kernel needs more memory.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# rows KERNEL: "KERNEL GiB us us KiB KiB", a size that failed left out
rows() {
	local log=$LOGS/$1-large-large.log
	[ -s "$log" ] || die "no $log" "make check writes it"
	tr -d '\r' <"$log" | sed -n "s/^# large: \([0-9]* [0-9]\)/$1 \1/p"
}

sizes=$(sed -n 's/^SIZES=(\(.*\))/\1/p' "$TOP/$TESTS_DIR/large.sh" | wc -w)
{ rows base; rows test; } | awk -v all="$sizes" '
	BEGIN {
		row = "%5s %10s %9s %9s %10s %9s %9s %9s\n"
		printf row, "", "base", "", "", "series", "", "", ""
		printf row, "GiB", "add (us)", "taken", "memmap", "add (us)",
			"map (us)", "taken", "memmap (KiB)"
	}
	$1 == "base" {
		add[$2] = $3; taken[$2] = $5; memmap[$2] = $6; sizes++
		next
	}
	{
		printf row, $2, $2 in add ? add[$2] : "-", $2 in add ? taken[$2] : "-",
			$2 in add ? memmap[$2] : "-", $3, $4, $5, $6
		rows++
		if ($2 in add) {
			seen++
			if ($5 >= taken[$2] || $6 > 0)
				failed = 1
		}
		largest = $2
	}
	END {
		if (!sizes || seen != sizes || rows != all || largest != 512 || failed) {
			print "FAIL: a size is missing, or more memory taken"
			exit 1
		}
	}'
