#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Find the commit of build/linux that breaks the tests T.
#
#   T="<test>..." GOOD=<commit> bisect.sh
#
# BAD is HEAD if it is not set.  TOPO, KERNEL (test or debug), APPEND and SEED are those of
# "make test".  The tests are always those of build/linux as it is.  A commit that they
# cannot be built for is skipped.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TREE=$BUILD/linux

# try_commit COMMIT: 0 the tests pass, 1 one fails, 125 cannot tell
try_commit() {
	local status=0 log=$LOGS/bisect-$1.log
	git_plain -C "$TREE" log -1 --format='%h %s' "$1"
	"$SCRIPTS/kernel.sh" commit series "${KERNEL:-test}" bisect "$1" || return 125
	"$SCRIPTS/check.py" bisect >"$log" 2>&1 || status=$?
	grep '^run: ' "$log" || tail -n 3 "$log"
	[ $status != 0 ] || return 0
	say "  log: $log"
	grep -q '^run: .*: FAIL' "$log" || return 125
	! grep -q 'QEMU failed' "$log" || return 125
	return 1
}

# check_end NAME COMMIT STATUS: of the range to search
check_end() {
	local status=0
	try_commit "$2" || status=$?
	[ $status != 125 ] || die "$1=$2: the tests cannot be run there"
	[ $status = "$3" ] || die "$1=$2: the tests do not $([ "$3" = 0 ] && echo pass || echo fail) there"
}

# commit_of NAME COMMIT
commit_of() {
	git_plain -C "$TREE" rev-parse --verify -q "$2^{commit}" ||
		die "$1=$2: build/linux has no such commit"
}

if [ "${1:-}" = try ]; then
	try_commit "$(git_plain -C "$2" rev-parse BISECT_HEAD)"
	exit
fi
make_tmp
[ -n "${T:-}" ] || die "T is not set: name a test"
[ -n "${GOOD:-}" ] ||
	die "GOOD is not set: name a commit that passes" "see: git -C build/linux log --oneline"
[[ ${KERNEL:-test} =~ ^(test|debug)$ ]] || die "KERNEL=$KERNEL: not test or debug"
good=$(commit_of GOOD "$GOOD")
bad=$(commit_of BAD "${BAD:-HEAD}")
check_end BAD "$bad" 1
check_end GOOD "$good" 0
git_plain clone -q --shared --no-checkout "$TREE" "$tmp/repo"
cd "$tmp/repo"
git_plain bisect start --no-checkout "$bad" "$good"
git_plain bisect run "$SCRIPTS/bisect.sh" try "$tmp/repo"
