#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Show the series at work in an emulated machine, and the unpatched kernel next
# to it; with BASELINE=1 only the latter.  Succeeds only if every row of the
# table is as it should be.
#
#   demo.sh          the demonstration
#   demo.sh --shell  a shell in the machine instead

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Through the host bridge the page based path maps for both devices, so this is
# where there is something to compare.
TOPOLOGY=${TOPOLOGY:-bridge}

build() {
	"$SCRIPTS/kernel.sh" build "$1" test
	"$SCRIPTS/kernel.sh" tests "$1" test
}

# guest TREE [OPTION]... [TEST]
guest() {
	machine "$BUILD/kernel-$1-test" "$BUILD/tests-$1-test" \
		--topology "$TOPOLOGY" --append nvme_core.multipath=Y "${@:2}"
}

# What is of interest while it runs: the rows of the table.
show_rows() { sed -un 's/^# \(\(disk\|drive\|head\)  *\(data\|PRP\|SGL\) .*\)/\1/p'; }

# field NAME: of the summary that the guest printed
field() { sed -n "s/^# demo: .*\<$1=\([0-9.]*\).*/\1/p" "$log"; }

# measure TREE TITLE [RUN.PY-ARGUMENT]...
measure() {
	local tree=$1 start=$SECONDS status=0
	log=$LOGS/demo-$tree.log
	build "$tree"
	printf '\n%s\n\n' "$2"
	guest "$tree" --timeout 600 "${@:3}" demo.sh 2>&1 | tee "$log" |
		show_rows || status=$?
	# The status is that of all the run, not of its test alone.
	if [ "$status" != 0 ] || ! grep -q '^run: demo.sh: PASS' "$log"; then
		show_errors "$log"
		die "the demonstration failed" "log: $log"
	fi
	printf '\n%s I/Os, %s DMA mappings for their data: %s per I/O (%s s)\n' \
		"$(field ios)" "$(field mappings)" "$(field per-io)" \
		"$((SECONDS - start))"
}

series() {
	measure series "nvmet-rdma with p2pmem, by DMA address:"
}

baseline() {
	measure base "The same on Linux $BASE_KERNEL without the series, page based:" \
		--var P2PDMA_BASELINE=1
}

compare() {
	local per_io
	per_io=$(field per-io)
	series
	printf '\nDMA mappings per I/O: %s without the series, %s with it\n' \
		"$per_io" "$(field per-io)"
}

case ${1:-} in
--shell)
	build series
	guest series --shell ;;
'')
	baseline
	[ -n "${BASELINE:-}" ] || compare ;;
*)
	die "usage: ${0##*/} [--shell]" ;;
esac
