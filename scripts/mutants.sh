#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Break the series in one place after another: do the tests notice?
#
#   mutants.sh [NAME]...
#
# Each of mutants/NAME.patch names the test that has to fail, the topology, and kernel
# parameters:
#
#   Test: nvmet.sh bridge ib_core.force_mr=1
#
# "kunit" stands for the tests in the kernel, which need no guest.  All tests have to pass
# without a mutant.  A mutant that cannot be built, or whose guest does not end in time,
# proves nothing, and counts as failed.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MUTANTS=$TOP/mutants
# Has all that the tests need, and is built for "make coverage" anyway.
CONFIG=coverage
TIMEOUT=900

# test_of NAME: its test, topology and kernel parameters
test_of() { sed -n 's/^Test: //p' "$MUTANTS/$1.patch"; }

tests_of_all() {
	local name
	for name in "${names[@]}"; do test_of "$name"; done | sort -u
}

# guest KERNEL LOG TEST TOPOLOGY [PARAMETER]...
guest() {
	machine "$1" "$BUILD/tests-mutants-$CONFIG" --log "$logs/$2" --topology "$4" \
		--append "${*:5}" --timeout $TIMEOUT --mem 1536 --var P2P_SEED=1 "$3" \
		>"$logs/$2.log" 2>&1
}

kunit() {
	KUNIT_TREE=$BUILD/mutants "$SCRIPTS/kunit.sh" blk_dma_addr_test.seed=1 \
		p2pmem_pool_test.seed=1 >"$logs/$1.log" 2>&1
}

# A test that fails anyway notices nothing.
check_unbroken() {
	local words log number=0
	while read -ra words; do
		log=none-$((++number))
		if [ "${words[0]}" = kunit ]; then
			kunit "$log"
		else
			guest "$BUILD/kernel-mutants-$CONFIG" "$log" "${words[@]}"
		fi || die "without a mutant, this fails: ${words[*]}" "log: $logs/$log.log"
		say "  ${words[*]}"
	done < <(tests_of_all)
}

# What a test says that has failed
complaint() {
	grep -m 1 -E '^ *not ok' "$1" ||
		grep -m 1 -E '^run: .*FAIL' "$1" || tail -n 1 "$1"
}

# verdict NAME TEST STATUS LOG PATTERN: which the log has if the test has failed
verdict() {
	if [ "$3" = 0 ]; then
		echo "FAIL $1: not noticed by $2"
	elif grep -qE "$5" "$4" && ! grep -qE '(no end|not up) within|QEMU failed' "$4"; then
		echo "PASS $1: $2: $(complaint "$4")"
	else
		echo "FAIL $1: $2 says nothing, see $logs/$1.log"
	fi | tee -a "$tmp/results"
}

try_in_guest() {
	local status=0 words
	read -ra words < <(test_of "$1")
	guest "$BUILD/mutant-$1" "$1" "${words[@]}" || status=$?
	rm -rf "$BUILD/mutant-$1"
	verdict "$1" "${words[0]}" $status "$logs/$1.log" "^run: ${words[0]}: FAIL"
}

try_kunit() {
	local status=0 log=$BUILD/kunit-mutants/test.log
	kunit "$1" || status=$?
	verdict "$1" kunit $status "$log" '^ *not ok|Kernel panic|BUG|RIP:'
}

# mutate mutant|source NAME: with kernel.sh
mutate() {
	"$SCRIPTS/kernel.sh" "$1" series $CONFIG "$commit" "$MUTANTS/$2.patch"
}

# A guest runs while the next mutant is built.
try_all() {
	local name what
	for name in "${names[@]}"; do
		[ "$(test_of "$name")" = kunit ] && what=source || what=mutant
		if ! mutate $what "$name" 2>"$logs/$name.build"; then
			echo "FAIL $name: cannot be built, see $logs/$name.build" |
				tee -a "$tmp/results"
		elif [ $what = source ]; then
			try_kunit "$name"
		else
			wait
			try_in_guest "$name" &
		fi
	done
	wait
}

clean_up() {
	local jobs
	mapfile -t jobs < <(jobs -p)
	[ "${#jobs[@]}" = 0 ] || kill "${jobs[@]}" 2>/dev/null || true
	rm -rf "$tmp" "$BUILD"/mutant-* "$BUILD"/{kernel,tests}-mutants-$CONFIG
}

make_tmp
trap clean_up EXIT
names=("$@")
[ $# != 0 ] || mapfile -t names < <(cd "$MUTANTS" && printf '%s\n' *.patch | sed 's/\.patch$//')
for name in "${names[@]}"; do
	[ -f "$MUTANTS/$name.patch" ] || die "no mutant $name" "see $MUTANTS"
	[ -n "$(test_of "$name")" ] || die "mutants/$name.patch has no line \"Test: \""
done
[ -z "$(git_plain -C "$BUILD/linux" status --porcelain)" ] ||
	die "build/linux has changes that are not committed"
commit=$(git_plain -C "$BUILD/linux" rev-parse HEAD)
logs=$(realpath "$LOGS")/mutants
mkdir -p "$logs"
: >"$tmp/results"
if [ "$(tests_of_all)" = kunit ]; then
	"$SCRIPTS/kernel.sh" source series $CONFIG "$commit"
else
	"$SCRIPTS/kernel.sh" commit series $CONFIG mutants "$commit"
fi
check_unbroken
try_all
passed=$(grep -c ^PASS "$tmp/results" || true)
echo "${#names[@]} mutants, $passed noticed"
[ "$passed" = "${#names[@]}" ]
