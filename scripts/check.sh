#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run all tests and say how each went.  "check.sh all" adds the slow ones,
# "check.sh soak" runs one of them for SOAK_MINUTES.
#
# The last line is "N passed, N failed, N skipped"; the exit status is 1 if
# one failed.  Whatever cannot be built or started has failed.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# What the kernel can be told to do is tried in one of the topologies.
parameters() {
	case "$1 $2" in
	'bridge refusals.sh') echo nvme_core.multipath=Y ;;
	'bridge dma_bio'*) echo nvme.poll_queues=1 ;;
	esac
}

# Only the debug kernel has the drivers and the features that these need.
DEBUG_ONLY='bio_features\.sh|dma_bio_faults|refusals\.sh'

# tests_of TOPOLOGY: a pattern for those that it can make a difference to
tests_of() {
	case $1 in
	bridge) echo '.*' ;;
	switch) echo 'bio\.sh|churn\.sh|dmatest\.sh|nvmet\.sh|nvmet_events\.sh|p2pmem_user|provider\.sh|reach\.sh|user_load\.sh|verbs\.sh' ;;
	iommu-strict) echo 'bio\.sh|churn\.sh|dma_bio|iommu|nvmet\.sh|nvmet_events\.sh|p2pmem_user|reach\.sh|user_load\.sh' ;;
	iommu-lazy) echo 'churn\.sh|iommu|nvmet\.sh|reach\.sh' ;;
	iommu-pt) echo 'iommu|nvmet\.sh|reach\.sh' ;;
	refused) echo 'reach\.sh' ;;
	large) echo 'large\.sh' ;;
	cmb) echo 'cmb\.sh' ;;
	esac
}

# tests FLAVOUR TOPOLOGY: those that are installed, so that none is forgotten
tests() {
	local leave_out='none'
	[ "$2" = large ] || leave_out+='|large\.sh'
	[ "$2" = cmb ] || leave_out+='|cmb\.sh'
	[[ $2 = iommu-lazy || $2 = iommu-strict ]] || leave_out+='|iommu'
	[[ $1 = *-debug* ]] || leave_out+="|$DEBUG_ONLY"
	sed 's/.*://' "$BUILD/tests-$1/kselftest-list.txt" |
		grep -xE "$(tests_of "$2")" | grep -vxE "$leave_out"
}

# guests FLAVOUR TOPOLOGY...: a line "NAME FLAVOUR TOPOLOGY TEST [PARAMETER]" for
# each test; one guest each.
guests() {
	local flavour=$1 topology test
	for topology in "${@:2}"; do
		tests "$flavour" "$topology" | while read -r test; do
			echo "${test%.sh}-$flavour-$topology" "$flavour" \
				"$topology" "$test" \
				"$(parameters "$topology" "$test")"
		done
	done
}

# The same data path, with a memory registration for each transfer.
guests_force_mr() {
	echo "nvmet-$1-force_mr $1 switch nvmet.sh ib_core.force_mr=1"
	echo "events-$1-force_mr $1 bridge nvmet_events.sh ib_core.force_mr=1"
}

# A debug kernel is several times slower.
guest_options() {
	case $1 in
	*-debug*) echo --timeout 900 --mem 2048 --var P2P_LIMIT=300 \
		--var P2P_FUZZ_SECONDS=15 --var P2P_CYCLES=4 ;;
	*) echo --timeout 480 --var P2P_CYCLES=20 ;;
	esac
}

# guest FLAVOUR TOPOLOGY TEST [KERNEL-PARAMETER]...
guest() {
	# shellcheck disable=SC2046 # several options
	P2PDMA_CACHE=$CACHE/qemu "$TOP/$TESTS_DIR/qemu/run.sh" \
		--kernel "$BUILD/kernel-$1" --tests "$BUILD/tests-$1" \
		--topology "$2" --append "${*:4}" $(guest_options "$1") "$3"
}

# The runner's own tests: what must be red, is.
runner() {
	P2PDMA_CACHE=$CACHE/qemu "$TOP/$TESTS_DIR/qemu/test-runner.sh" \
		--kernel "$BUILD/kernel-series-test"
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

# run_guests: those on standard input, two at a time
run_guests() {
	local name flavour topology test parameters running=0 show=8
	while read -r name flavour topology test parameters; do
		if [ "$running" = 2 ]; then wait -n; else ((++running)); fi
		# shellcheck disable=SC2086 # several parameters
		item "$name" guest "$flavour" "$topology" "$test" $parameters \
			</dev/null &
	done
	wait
}

# built TREE CONFIG: a kernel and its tests
built() {
	local failed
	failed=$(count FAIL)
	item "kernel-$1-$2" "$SCRIPTS/kernel.sh" build "$1" "$2"
	item "tests-$1-$2" "$SCRIPTS/kernel.sh" tests "$1" "$2"
	[ "$(count FAIL)" = "$failed" ]
}

# flavour TREE CONFIG TOPOLOGY...: build a kernel and its tests, run them.
flavour() {
	# Without them there is no list of tests either; that has been counted.
	built "$1" "$2" || return 0
	guests "$1-$2" "${@:3}" | run_guests
}

# What BLK_ERROR_INJECTION makes a difference to
injected_errors() {
	built series debug+inject || return 0
	echo "injected-errors series-debug+inject bridge dma_bio_faults" \
		"$(parameters bridge dma_bio_faults)" | run_guests
}

run_items() {
	item series "$SCRIPTS/tree.sh" series
	item tooling "$SCRIPTS/test-tree.sh"
	item kunit "$SCRIPTS/kunit.sh"
	flavour series test switch bridge iommu-lazy iommu-strict iommu-pt \
		refused large cmb
	guests_force_mr series-test | run_guests
	item verdict "$TOP/$TESTS_DIR/qemu/test-verdict.sh"
	item runner runner
	flavour base test switch large cmb
	item sizes "$SCRIPTS/sizes.sh"
	item cost "$SCRIPTS/cost.sh"
	item demo "$SCRIPTS/demo.sh"
	item lint "$SCRIPTS/lint.sh"
	flavour series debug bridge
	[ "${1:-}" = all ] || return 0
	# KASAN has a shadow of 1/8 of what is mapped, so not "large".
	flavour series debug switch iommu-strict iommu-pt refused cmb
	flavour base test bridge
	guests_force_mr series-debug | run_guests
	injected_errors
	item cost-off "$SCRIPTS/cost.sh" off
	item each-patch-builds "$SCRIPTS/kernel.sh" each series test
}

# Devices come and go, in one topology after the other, each time with another
# seed.  A round that has begun is finished.
soak() {
	local minutes=${SOAK_MINUTES:-60} round=0 flavour topology end
	[[ $minutes =~ ^[1-9][0-9]*$ ]] ||
		die "SOAK_MINUTES=$minutes: not a number of minutes"
	end=$((SECONDS + minutes * 60))
	built series test && built series debug || return 0
	while [ $SECONDS -lt "$end" ]; do
		round=$((round + 1))
		for topology in switch bridge iommu-lazy iommu-strict; do
			for flavour in series-test series-debug; do
				echo "churn-$round-$flavour-$topology" \
					"$flavour $topology churn.sh"
			done
		done | run_guests
	done
}

count() { grep -cx "$1" "$tmp/verdicts" || true; }

make_tmp
exec 8>/dev/null
show=1
item tree "$SCRIPTS/tree.sh" tree
# Without it, all that follows would test something else.
if [ "$(count FAIL)" = 0 ]; then
	if [ "${1:-}" = soak ]; then soak; else run_items "$@"; fi
fi
failed=$(count FAIL)
echo "$(count PASS) passed, $failed failed, $(count SKIP) skipped"
[ "$failed" = 0 ]
