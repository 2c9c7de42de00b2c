#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Find the patch of the series with which a test begins to fail.
#
#   T=<test> [TOPO=<topology>] [KERNEL=<config>] [APPEND=<parameters>] bisect.sh
#
# The patches are the commits in build/linux; the test is the one that is there now, on
# each of these kernels.  A test that is skipped has not failed.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

LINUX=$BUILD/linux
CONFIG=${KERNEL:-test}

# try COMMIT: the exit status is what "git bisect run" expects
try() {
	local log=$LOGS/bisect-$1.log status=0
	say "$(git_plain -C "$LINUX" log -1 --format='%h %s' "$1")"
	rm -rf "$BUILD/mutant-none"
	"$SCRIPTS/kernel.sh" mutant series "$CONFIG" "$1" || return 125
	machine "$BUILD/mutant-none" "$BUILD/mutant-tests" --topology "${TOPO:-bridge}" \
		--append "${APPEND:-}" --timeout 900 --mem 1536 "$T" >"$log" 2>&1 || status=$?
	say "  $(grep "^run: $T:" "$log" || tail -n 1 "$log")"
	case $status in
	0|4) return 0 ;;
	1) return 1 ;;
	*) return 125 ;;
	esac
}

# must FAIL|PASS COMMIT: or there is nothing to find
must() {
	local status=0
	try "$2" || status=$?
	case $1-$status in
	FAIL-1|PASS-0) ;;
	FAIL-*) die "$T does not fail with all patches" "log: $LOGS/bisect-$2.log" ;;
	PASS-*) die "$T does not pass without the series" "log: $LOGS/bisect-$2.log" ;;
	esac
}

if [ "${1:-}" = step ]; then
	try "$(git_plain -C "$LINUX" rev-parse BISECT_HEAD)"
	exit
fi
: "${T:?names no test}"
[ "$CONFIG" != base ] || die "KERNEL=base: that one has no patches"
[ -z "$(git_plain -C "$LINUX" status --porcelain -- . ":!$TESTS_DIR")" ] ||
	die "build/linux has changes that are not committed"
base=$(head -n 1 "$LINUX/.git/p2pmem-inputs")
head=$(git_plain -C "$LINUX" rev-parse HEAD)
must FAIL "$head"
must PASS "$base"
trap 'git_plain -C "$LINUX" bisect reset >/dev/null 2>&1' EXIT
git_plain -C "$LINUX" bisect start --no-checkout "$head" "$base" >/dev/null
git_plain -C "$LINUX" bisect run "$SCRIPTS/bisect.sh" step >"$LOGS/bisect.log" ||
	die "too many kernels that cannot be built or tested" "log: $LOGS/bisect.log"
git_plain -C "$LINUX" log -1 --format='%h %s%nis the first patch with which '"$T"' fails' \
	refs/bisect/bad
