#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Show the sizes of the structures that each I/O uses, in the base and in the
# series, and fail if one has grown where it must not.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

STRUCTS=(bio bio_vec request request_queue blk_mq_tag_set)
# One that knows them all
OBJECT=block/blk-mq.o

# sizes TREE CONFIG: lines "STRUCT BYTES", as a debugger sees them
sizes() {
	local dir=linux struct
	[ "$1" = series ] || dir=base
	"$SCRIPTS/kernel.sh" make "$1" "$2" "$OBJECT" >"$tmp/make" 2>&1 ||
		{ show_errors "$tmp/make"; return 1; }
	pahole --sizes "$BUILD/$dir/.obj-sizes/$OBJECT" >"$tmp/pahole"
	for struct in "${STRUCTS[@]}"; do
		awk -v s="$struct" '$1 == s { print $1, $2; found = 1; exit }
			END { exit !found }' "$tmp/pahole"
	done
}

# may_grow STRUCT: by how many bytes.  A queue, and its tag set, name the device
# that does the DMA, and a queue has max_dma_addr_sectors.
may_grow() {
	case $1 in
	request_queue) echo 16 ;;
	blk_mq_tag_set) echo 8 ;;
	*) echo 0 ;;
	esac
}

# compare ENCRYPTION BEFORE AFTER
compare() {
	local struct before after same
	while read -r struct before same after; do
		[ "$struct" = "$same" ] || die "$struct compared with $same"
		printf '%-15s %-10s %5d %6d\n' "$struct" "$1" "$before" "$after"
		[ $((after - before)) = "$(may_grow "$struct")" ] || {
			say "$struct did not grow by what it may"
			failed=1
		}
	done < <(paste -d' ' "$2" "$3")
}

make_tmp
failed=0
printf '%-15s %-10s %5s %6s\n' struct encryption base series
for encryption in with without; do
	config=sizes
	[ $encryption = without ] || config=sizes+crypt
	sizes base "$config" >"$tmp/before"
	sizes series "$config" >"$tmp/after"
	compare $encryption "$tmp/before" "$tmp/after"
done
exit "$failed"
