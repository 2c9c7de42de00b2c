#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run all tests and say how each went.  "check.sh all" adds the slow ones.
#
# The last line is "N passed, N failed, N skipped"; the exit status is 1 if
# one failed.  Whatever cannot be built or started has failed.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# NAME FLAVOUR TOPOLOGY TEST: one guest each.
guests() {
	cat <<-END
	dmatest-switch	series-test	switch	dmatest.sh
	dmatest-bridge	series-test	bridge	dmatest.sh
	END
}

guests_all() {
	cat <<-END
	dmatest-base	base-test	switch	dmatest.sh
	dmatest-debug	series-debug	switch	dmatest.sh
	END
}

guest() {
	local dir
	for dir in "kernel-$1" "tests-$1"; do
		[ -d "$BUILD/$dir/" ] || die "build/$dir is not there"
	done
	"$TOP/$TESTS_DIR/qemu/run.sh" --kernel "$BUILD/kernel-$1" \
		--tests "$BUILD/tests-$1" --topology "$2" "$3"
}

# item NAME COMMAND...: run it, keep its output, print its verdict in one
# piece, because two may end at the same time.
item() {
	local name=$1 log=$LOGS/$1.log start=$SECONDS status=0 verdict details=
	shift
	("$@") 2>&1 | tee "$log" >&"$show" || status=$?
	case $status in
	0) verdict=PASS ;;
	4) verdict=SKIP ;;
	*) verdict=FAIL details=$(show_errors "$log" 2>&1) ;;
	esac
	echo "$verdict" >>"$tmp/verdicts"
	echo "$verdict $name ($((SECONDS - start)) s)${details:+
$details
log: $log}"
}

# Two guests at a time.
run_guests() {
	local name flavour topology test running=0
	while read -r name flavour topology test; do
		if [ "$running" = 2 ]; then wait -n; else ((++running)); fi
		item "$name" guest "$flavour" "$topology" "$test" &
	done
	wait
}

# flavour TREE CONFIG: a kernel and the tests for it.
flavour() {
	item "kernel-$1-$2" "$SCRIPTS/kernel.sh" build "$1" "$2"
	item "tests-$1-$2" "$SCRIPTS/kernel.sh" tests "$1" "$2"
}

run_items() {
	item series "$SCRIPTS/tree.sh" series
	item tooling "$SCRIPTS/test-tree.sh"
	flavour series test
	item lint "$SCRIPTS/lint.sh"
	if [ "${1:-}" = all ]; then
		flavour base test
		flavour series debug
		item each-patch-builds "$SCRIPTS/kernel.sh" each series test
	fi
	show=8
	guests | run_guests
	[ "${1:-}" != all ] || guests_all | run_guests
}

count() { grep -cx "$1" "$tmp/verdicts" || true; }

make_tmp
exec 8>/dev/null
show=1
item tree "$SCRIPTS/tree.sh" tree
# Without it, all that follows would test something else.
[ "$(count FAIL)" != 0 ] || run_items "$@"
failed=$(count FAIL)
echo "$(count PASS) passed, $failed failed, $(count SKIP) skipped"
[ "$failed" = 0 ]
