#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run all tests and say how each went.  "check.sh all" adds the slow ones,
# "check.sh more" runs the slow ones alone, or of these only the PARTS that are named,
# "check.sh soak" one of them for SOAK_MINUTES, "check.sh coverage" says which lines of
# the series no test executes.
# "check.sh test" shows what the tests T print in the topology TOPO, on the kernel KERNEL:
# test, debug or base.  "check.sh gdb" does the same once a debugger has let the guest run,
# "check.sh bisect" on what bisect.sh has built.
#
# SEED repeats what is random.  Without it a plain check has the same each time, and
# all others have another.
#
# The results stay in build/results, one directory for each run, with its logs.
#
# The last line is "N passed, N failed, N skipped"; the exit status is 1 if
# one failed.  Whatever cannot be built or started has failed.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Only the debug kernel has the drivers and the features that these need.
DEBUG_ONLY='bio_features\.sh|dma_bio_faults|refusals\.sh'

# What may be skipped on a patched kernel, by reason: each is tested in another topology
# or with another kernel.  All else is there in the emulated machine.
MAY_SKIP='every device is in reach here|\): no such device|no device huge'
MAY_SKIP+='|ACS redirection: the port has none'
MAY_SKIP+='|CONFIG_(BLK_INLINE_ENCRYPTION|BLK_ERROR_INJECTION) is not set'
MAY_SKIP+='|CONFIG_PTDUMP_DEBUGFS'
MAY_SKIP+='|all events happened: there are more than 4 #'
MAY_SKIP+='|they have no IOVAs'
MAY_SKIP+='|there is no bpftrace'
MAY_SKIP+='|DMA_API_DEBUG rejects|the kernel breaks its own lock order'

# tests_of TOPOLOGY: print a pattern of the tests whose result depends on it
tests_of() {
	case $1 in
	bridge) echo '.*' ;;
	switch) echo 'bio\.sh|churn\.sh|dmatest\.sh|nvmet\.sh|nvmet_events\.sh|nvmet_commands\.sh|nvmet_many\.sh|nvmet_stack\.sh|nvmet_stress\.sh|p2pmem_user|provider\.sh|reach\.sh|user_load\.sh|verbs\.sh' ;;
	iommu-strict) echo 'bio\.sh|churn\.sh|dma_bio|iommu|nvmet\.sh|nvmet_commands\.sh|nvmet_events\.sh|nvmet_rdma\.sh|nvmet_stack\.sh|p2pmem_user|reach\.sh|user_load\.sh' ;;
	iommu-lazy) echo 'churn\.sh|iommu|nvmet\.sh|reach\.sh' ;;
	iommu-pt) echo 'nvmet\.sh|reach\.sh' ;;
	refused|acs) echo 'reach\.sh' ;;
	large) echo 'large\.sh' ;;
	cmb) echo 'cmb\.sh' ;;
	esac
}

# tests FLAVOUR TOPOLOGY: print all installed tests, so that none is forgotten, except
# those that take more than minutes
tests() {
	local leave_out='fail_nth\.sh'
	[ "$2" = large ] || leave_out+='|large\.sh'
	[ "$2" = cmb ] || leave_out+='|cmb\.sh'
	[[ $2 = iommu-lazy || $2 = iommu-strict ]] || leave_out+='|iommu'
	[[ $1 = *-@(debug|coverage)* ]] || leave_out+="|$DEBUG_ONLY"
	# Minutes on the debug kernel: "more" has the first two in "switch"
	[ "$1 $2" != "series-debug bridge" ] ||
		leave_out+='|nvmet_commands\.sh|nvmet_many\.sh|guide\.sh'
	# Debugging takes the memory that it counts on.
	[[ "$1 $2" != series-@(*bridge|*debug*) ]] || leave_out+='|nvmet_stress\.sh'
	# It takes long, most of all on the debug kernel: see guest_stack().
	[[ ! "$1 $2" =~ ^series-(test bridge|debug (bridge|switch))$ ]] ||
		leave_out+='|nvmet_stack\.sh'
	sed 's/.*://' "$BUILD/tests-$1/kselftest-list.txt" |
		grep -xE "$(tests_of "$2")" | grep -vxE "$leave_out"
}

# guest_of TEST: the long ones have a guest for themselves, the others share
# one, because its start takes longer than they do.
guest_of() {
	case $1 in
	bio_features.sh|churn.sh|nvmet_rdma.sh|nvmet_stack.sh|nvmet_stress.sh|refusals.sh) echo "${1%.sh}" ;;
	nvmet.sh|nvmet_commands.sh|nvmet_events.sh|nvmet_many.sh) echo nvmet ;;
	dma_bio*) echo bios ;;
	*) echo others ;;
	esac
}

# Kernel parameters are exercised in one topology, unless a test needs them.
parameters() {
	case "$1 $2" in
	'bridge refusals'|*' nvmet_stack') echo nvme_core.multipath=Y ;;
	*' nvmet_rdma') echo ib_core.force_mr=1 ;;
	'bridge bios') echo nvme.poll_queues=1 ;;
	esac
}

# guests FLAVOUR TOPOLOGY...: a line for queue() for each of them
guests() {
	local flavour=$1 topology list guest test
	local -A of
	for topology in "${@:2}"; do
		list=$(tests "$flavour" "$topology") || {
			echo "item no-tests-for-$flavour-$topology false"
			continue
		}
		of=()
		for test in $list; do
			of[$(guest_of "$test")]+=" $test"
		done
		for guest in "${!of[@]}"; do
			echo "guest $guest-$flavour-$topology $flavour $topology" \
				"$(parameters "$topology" "$guest") ${of[$guest]}"
		done | sort
	done
}

# The same data path, with a memory registration for each transfer.
guests_force_mr() {
	echo "guest nvmet-$1-force_mr $1 switch ib_core.force_mr=1 nvmet.sh"
	echo "guest nvmet_events-$1-force_mr $1 bridge ib_core.force_mr=1 nvmet_events.sh"
	echo "guest verbs-$1-force_mr $1 iommu-strict ib_core.force_mr=1 verbs.sh"
}

# Without an IOMMU, a 32-bit device cannot reach a BAR above 4 GiB.
guest_no_iommu() {
	echo "guest large-$1-large-no_iommu $1 large intel_iommu=off large.sh"
}

guest_stack() {
	echo "guest nvmet_stack-$1-$2 $1 $2 $(parameters "$2" nvmet_stack) nvmet_stack.sh"
}

# Only the emulated root ports have ACS. Disable it where it is on by default, and
# enable it where it is not.
guests_acs() {
	echo "guest reach-$1-iommu-strict-no_acs $1 iommu-strict" \
		"pci=disable_acs_redir=pci:1b36:000c reach.sh"
	echo "guest reach-$1-acs-redirected $1 acs" \
		"pci=config_acs=xxx11xx@pci:1b36:000c reach.sh"
}

# Tests with concurrency or device removal, watched for data races
guests_kcsan() {
	local test
	for test in bio_features.sh churn.sh dma_bio_fuzz nvmet_events.sh nvmet_many.sh \
		    nvmet_stack.sh p2pmem_user user_load.sh; do
		echo "guest ${test%.sh}-series-kcsan-bridge series-kcsan bridge" \
			"$(parameters bridge "${test%.sh}") $test"
	done
}

# A debug kernel is several times slower.  churn.sh has up to 24 events: 25 cycles are
# enough for each of them to happen.  "all" adds cycles with another seed, 53 in each topology
# altogether, and 25 on the debug kernel.
plain_cycles=25
debug_cycles=4
debug_rounds=1	# of what nvmet_events.sh repeats
debug_timeout=1800
GDB_PORT=1234
guest_options() {
	[ -z "$seed" ] || echo --var "P2P_SEED=$seed"
	case $1 in
	*-kcsan) echo --functions "$BUILD/series-functions" ;;&
	*-bpf) echo --tool bpftrace --mem 1536 ;;&
	*-gdb) echo --gdb $GDB_PORT --timeout 86400 ;;
	*-debug*|*-kcsan) echo --timeout $debug_timeout --mem 2048 --var P2P_LIMIT=300 \
		--var P2P_FUZZ_SECONDS=15 --var P2P_CYCLES=$debug_cycles \
		--var P2PDMA_ROUNDS=$debug_rounds ;;
	*-coverage) echo --timeout 3600 --mem 1536 --var P2P_CYCLES=$plain_cycles ;;
	*) echo --timeout 900 --var P2P_CYCLES=$plain_cycles ;;
	esac
}

# run_guest NAME FLAVOUR TOPOLOGY PARAMETERS TEST...
run_guest() {
	# shellcheck disable=SC2046 # several options
	machine "$BUILD/kernel-$2" "$BUILD/tests-$2" --log "$LOGS/$1" \
		--topology "$3" --append "$4" $(guest_options "$2") "${@:5}"
}

# report VERDICT NAME [LOG]: print in one write, because two may end at the same time
report() {
	local details=
	[ "$1" != FAIL ] || details=$(show_errors "$3" 2>&1) || true
	printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$(realpath "${3:-/dev/null}")" "$again" \
		>>"$RESULTS/verdicts"
	: >"$reported"
	echo "$1 $2${details:+
$details
log: $3${again:+
again: $again}}"
}

# command_for TEST FLAVOUR TOPOLOGY PARAMETERS: how to run it again
command_for() {
	local kernel=${2#series-}
	[ "$2" != base-test ] || kernel=base
	echo "make test T=$1 TOPO=$3 KERNEL=$kernel${seed:+ SEED=$seed}${4:+ APPEND=\"$4\"}"
}

# no_skips NAME FLAVOUR LOG: on a patched kernel nothing is skipped but what may be
no_skips() {
	local skipped
	[[ $2 = series-* ]] || return 0
	skipped=$(grep -E '^ok .*# SKIP' "$3" | grep -vE "$MAY_SKIP" |
		sed 's/^/FAIL skipped: /') || return 0
	echo "$skipped" >>"$3"
	report FAIL "$1 (results skipped)" "$3"
}

# guest NAME FLAVOUR TOPOLOGY [NAME=VALUE]... TEST...: the runner judges each test,
# and names what else is wrong.  Kernel parameters have values, tests have not.
guest() {
	local name=$1 flavour=$2 topology=$3 log=$LOGS/$1.log status=0
	local word what verdict rest tests=() parameters=() failed=0 again=
	for word in "${@:4}"; do
		if [[ $word = *=* ]]; then parameters+=("$word"); else tests+=("$word"); fi
	done
	run_guest "$name" "$flavour" "$topology" "${parameters[*]}" "${tests[@]}" \
		>"$log" 2>&1 || status=$?
	for word in "${tests[@]}"; do
		grep -q "^run: $word: " "$log" || echo "run: $word: FAIL (not run)" >>"$log"
	done
	while read -r _ what verdict rest; do
		what=${what%:}
		again=$(command_for "${what/#guest/\"${tests[*]}\"}" "$flavour" "$topology" \
			"${parameters[*]}")
		# Only the unpatched kernel lacks what a test needs.
		[[ $verdict != SKIP || $flavour != series-* ]] || verdict=FAIL
		report "$verdict" "${what%.sh}-${name#*-} $rest" "$log"
		[ "$verdict" != FAIL ] || failed=1
	done < <(grep '^run: ' "$log")
	again=$(command_for "\"${tests[*]}\"" "$flavour" "$topology" "${parameters[*]}")
	[[ $failed = 1 || $status = 0 || $status = 4 ]] || report FAIL "$name" "$log"
	no_skips "$name" "$flavour" "$log"
}

# Without the devices, every test there is skips, and says why.
without_devices() {
	local status=0 tests
	mapfile -t tests < <(sed 's/.*://' "$BUILD/tests-series-test/kselftest-list.txt")
	run_guest without-devices series-test none '' "${tests[@]}" \
		>"$tmp/without-devices" 2>&1 || status=$?
	cat "$tmp/without-devices"
	[ "$status" = 4 ] || die "FAIL: status $status, not all were skipped"
	! grep -F '(no reason given)' "$tmp/without-devices"
}

# The runner's own tests: what must be red, is.
runner() {
	P2PDMA_CACHE=$CACHE/qemu "$TOP/$TESTS_DIR/qemu/test-runner.sh" \
		--kernel "$BUILD/kernel-series-test"
}

# item NAME COMMAND...: run it, keep and show its output, report what it returns.
item() {
	local name=$1 log=$LOGS/$1.log start=$SECONDS status=0 verdict
	shift
	("$@") 2>&1 | tee "$log" >&"$show" || status=$?
	case $status in
	0) verdict=PASS ;;
	4) verdict=SKIP ;;
	*) verdict=FAIL ;;
	esac
	report "$verdict" "$name ($((SECONDS - start)) s)" "$log"
}

# queue WIDTH: run the lines on standard input, that many at a time.  Each has to
# report something: one that does not has died.
queue() {
	local line job names=() running=0 show=8 reported seen=$tmp/reported.$BASHPID
	rm -f "$seen".*
	while read -ra line; do
		[[ " ${names[*]} " != *" ${line[1]} "* ]] || {
			report FAIL "${line[1]} (twice in the queue)" /dev/null
			continue
		}
		if [ "$running" = "$1" ]; then wait -n || true; else ((++running)); fi
		reported=$seen.${#names[@]}
		names+=("${line[1]}")
		"${line[@]}" </dev/null &
	done
	wait
	reported=/dev/null
	for job in "${!names[@]}"; do
		[ -e "$seen.$job" ] || report FAIL \
			"${names[job]} (ended without a verdict)" \
			"$LOGS/${names[job]}.log"
	done
}

# built TREE CONFIG: a kernel and its tests.  Without them there is no list of
# tests either; that is counted once.
built() {
	local failed
	[ -z "${ready[$1-$2]:-}" ] || return 0
	failed=$(count FAIL)
	item "kernel-$1-$2" "$SCRIPTS/kernel.sh" build "$1" "$2"
	item "tests-$1-$2" "$SCRIPTS/kernel.sh" tests "$1" "$2"
	if [ "$(count FAIL)" = "$failed" ]; then ready[$1-$2]=1; else return 1; fi
}

# Kernels first, with both processors; then all that uses them.
build_kernels() {
	built series test || true
	built base test || true
	built series debug || true
}

# Run items that need no guest at low priority: the guests leave a fifth of the CPUs
# idle.
beside() {
	renice -n 19 "$BASHPID" >/dev/null
	queue 1 <<-END
		item lint $SCRIPTS/lint.sh
		item sizes $SCRIPTS/sizes.sh
		item kunit $SCRIPTS/kunit.sh
		item tooling $SCRIPTS/test-tree.sh
		item postings $SCRIPTS/tree.sh postings
		item verdict $TOP/$TESTS_DIR/qemu/test-verdict.sh
	END
}

# one_guest FLAVOUR: with its output on the terminal
one_guest() {
	local flavour=$1 topology=${TOPO:-bridge} test tests all=()
	read -ra tests <<<"${T:-}"
	mapfile -t all < <(sed 's/.*://' "$BUILD/tests-$flavour/kselftest-list.txt")
	[ ${#tests[@]} != 0 ] || die "T names no test" "there are: ${all[*]}"
	for test in "${tests[@]}"; do
		[[ " ${all[*]} " = *" $test "* ]] ||
			die "T=$test: no such test" "there are: ${all[*]}"
	done
	[[ $flavour != *-gdb ]] ||
		say "The guest waits for a debugger.  In another terminal, for example:" \
			"gdb $BUILD/kernel-series-gdb/vmlinux -ex 'target remote :$GDB_PORT'" \
			"    -ex 'hbreak bio_add_dma_addr' -ex continue -ex backtrace"
	run_guest test "$flavour" "$topology" \
		"$(parameters "$topology" "$(guest_of "${tests[0]}")") ${APPEND:-}" "${tests[@]}"
}

# build_one_guest FLAVOUR
build_one_guest() {
	"$SCRIPTS/kernel.sh" build "${1%%-*}" "${1#*-}"
	"$SCRIPTS/kernel.sh" tests "${1%%-*}" "${1#*-}"
	one_guest "$1"
}

# A directory for the results of this run, with its logs; five of them are kept.
make_results() {
	RESULTS=$BUILD/results/$(date -u +%Y%m%d-%H%M%S)
	mkdir -p "$RESULTS/log"
	rm -rf "$LOGS"
	ln -s "$(realpath --relative-to="$BUILD" "$RESULTS/log")" "$LOGS"
	: >"$RESULTS/verdicts"
	find "$BUILD/results" -mindepth 1 -maxdepth 1 | sort -r | tail -n +6 |
		xargs -r -d '\n' rm -rf
}

# Last, run what nothing else must disturb.
run_items() {
	local queue=$tmp/queue lane lanes
	: >"$queue"
	item series "$SCRIPTS/tree.sh" series	# what lint reads
	[ -z "${ready[series-test]:-}" ] || {
		guests series-test switch bridge iommu-lazy iommu-strict iommu-pt \
			refused acs large cmb
		guests_force_mr series-test
		guest_no_iommu series-test
		guests_acs series-test
		echo "item without-devices without_devices"
	} >>"$queue"
	[ -z "${ready[base-test]:-}" ] || guests base-test switch large cmb >>"$queue"
	[ -z "${ready[series-debug]:-}" ] || {
		guests series-debug bridge
		guest_stack series-debug switch
	} >>"$queue"
	echo "item demo $SCRIPTS/demo.sh" >>"$queue"
	queue 2 <"$queue" &
	lanes=($!)
	beside &
	lanes+=($!)
	for lane in "${lanes[@]}"; do
		wait "$lane" || report FAIL "check (a lane of it ended early)" /dev/null
	done
	item curve "$SCRIPTS/curve.sh"
	item runner runner
	item cost "$SCRIPTS/cost.sh"
}

# more_kernel PART: what its guests need
more_kernel() {
	case $1 in
	churn) built series test ;;
	failures|debug) built series debug ;;
	base) built base test ;;
	inject) built series debug+inject ;;
	bpf) built series bpf ;;
	races) built series kcsan && item functions "$SCRIPTS/functions.sh" ;;
	*) return 1 ;;
	esac
}

# more_guests PART: a line for queue() for each of them
more_guests() {
	local topology
	case $1 in
	churn)
		for topology in switch bridge iommu-lazy iommu-strict; do
			echo "guest churn-more-series-test-$topology series-test $topology churn.sh"
		done ;;
	failures)
		# With an IOMMU more is allocated.
		echo "guest fail_nth-series-debug-iommu-strict series-debug iommu-strict fail_nth.sh" ;;
	debug)
		# KASAN has a shadow of 1/8 of what is mapped, so not "large".
		guests series-debug switch iommu-lazy iommu-strict iommu-pt \
			refused cmb
		guest_stack series-debug bridge
		guests_force_mr series-debug ;;
	base)
		guests base-test bridge ;;
	inject)
		# Its result depends on BLK_ERROR_INJECTION.
		echo "guest injected_errors-series-debug+inject-bridge" \
			"series-debug+inject bridge" \
			"$(parameters bridge bios) dma_bio_faults" ;;
	bpf)
		echo "guest guide-series-bpf-bridge series-bpf bridge guide.sh" ;;
	races)
		guests_kcsan ;;
	esac
}

# more_items PART: what is not a guest
more_items() {
	case $1 in
	coverage) run_coverage ;;
	cost)
		built series test && built base test &&
			item cost-nvmet "$SCRIPTS/cost.sh" nvmet ;;
	mutants) item mutants "$SCRIPTS/mutants.sh" ;;
	patches)
		item each-patch-builds "$SCRIPTS/kernel.sh" each series test
		item each-posting-builds "$SCRIPTS/kernel.sh" postings series test ;;
	deb) item deb "$SCRIPTS/deb-test.sh" ;;
	portability) item portability "$SCRIPTS/portability.sh" ;;
	esac
}

# What takes longer than minutes
MORE='churn failures debug base inject bpf races coverage cost mutants patches deb portability'
run_more_items() {
	local queue=$tmp/more debug_cycles=25 debug_rounds=3 debug_timeout=3600
	local plain_cycles=28 part
	: >"$queue"
	for part in ${PARTS:-$MORE}; do
		! more_kernel "$part" || more_guests "$part" >>"$queue"
	done
	queue 2 <"$queue"
	for part in ${PARTS:-$MORE}; do
		more_items "$part"
	done
}

# kunit_has_run CONSOLE
kunit_has_run() {
	local suite
	for suite in blk-dma-addr p2pmem-pool; do
		tr -d '\r' <"$1" | grep -E "] ok [0-9]+ $suite\$" || return
	done
}

# Which lines of the series the tests execute: those that differ in what they reach,
# and in what fails.
run_coverage() {
	local queue=$tmp/coverage plain_cycles=28
	local seed=${SEED:-1}
	built series coverage || return 0
	{
		guests series-coverage bridge switch iommu-strict refused acs large cmb
		guests_force_mr series-coverage
		guest_no_iommu series-coverage
		guests_acs series-coverage
		echo "guest fail_nth-series-coverage-iommu-strict series-coverage iommu-strict fail_nth.sh"
		# The tests in the kernel run at boot.
		echo "guest kunit-series-coverage-bridge series-coverage bridge kunit.enable=1 kunit.autorun=1 p2pmem_user"
	} >"$queue"
	queue 2 <"$queue"
	item kunit-in-guest kunit_has_run "$LOGS/kunit-series-coverage-bridge/console.log"
	item coverage "$SCRIPTS/coverage.py" "$BUILD/kernel-series-coverage/gcno" "$TOP/base/not-executed" \
		"$LOGS"/*-series-coverage-*/coverage.tar
}

# Make devices come and go, in one topology after another, each time with another seed.
# A round that has begun is finished.
soak() {
	local minutes=${SOAK_MINUTES:-60} round=0 flavour topology end
	local plain_cycles=49 debug_cycles=25 debug_timeout=3600
	built series test && built series debug || return 0
	end=$((SECONDS + minutes * 60))
	while [ $SECONDS -lt "$end" ]; do
		round=$((round + 1))
		for topology in switch bridge iommu-lazy iommu-strict; do
			for flavour in series-test series-debug; do
				echo "guest churn-$flavour-$topology-$round" \
					"$flavour $topology churn.sh"
			done
		done | queue 2
	done
}

count() { cut -f1 "$RESULTS/verdicts" | grep -cx "$1" || true; }

[[ ${1:-} =~ ^(all|more|soak|coverage|test|gdb|bisect)?$ ]] ||
	die "$1: not all, more, soak, coverage, test, gdb, or bisect"
[[ ${SOAK_MINUTES:-60} =~ ^[1-9][0-9]*$ ]] ||
	die "SOAK_MINUTES=$SOAK_MINUTES: not a number of minutes"
for part in ${PARTS:-}; do
	[[ " $MORE " = *" $part "* ]] || die "PARTS: there is no $part" "there are: $MORE"
done
[[ ${SEED:-1} =~ ^[1-9][0-9]{0,8}$ ]] || die "SEED=$SEED: not a number above 0"
seed=${SEED:-}
[ $# != 0 ] || seed=${SEED:-1}
case ${1:-} in
test)
	flavour=series-${KERNEL:-test}
	[ "${KERNEL:-}" != base ] || flavour=base-test
	build_one_guest "$flavour"
	exit ;;
gdb)
	[ -z "${KERNEL:-}" ] || die "KERNEL=$KERNEL: make gdb has a kernel of its own"
	build_one_guest series-gdb
	exit ;;
bisect)
	one_guest "bisect-${KERNEL:-test}"
	exit ;;
esac
make_tmp
make_results
again=
declare -A ready
exec 8>/dev/null
show=1
reported=/dev/null
item tree "$SCRIPTS/tree.sh" tree
# Without it, all that follows would test something else.
if [ "$(count FAIL)" = 0 ]; then
	case ${1:-} in
	soak) soak ;;
	coverage) run_coverage ;;
	more) run_more_items ;;
	all) build_kernels; run_items; run_more_items ;;
	'') build_kernels; run_items ;;
	esac
fi
"$SCRIPTS/results.py" "$RESULTS" && echo "results: $RESULTS/index.html"
failed=$(count FAIL)
echo "$(count PASS) passed, $failed failed, $(count SKIP) skipped"
[ "$failed" = 0 ]
