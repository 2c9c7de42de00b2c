#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Measure the series beside the base that it came from, and write a report.
#
#   bench.sh	all IOMMU modes, five boots of each kernel
#   QUICK=1	the three that matter most, two boots
#   BOOTS=<n>	another number of boots
#
# What guests do is counted, so it does not depend on the speed of this machine; what the
# KUnit tests do is timed.  It is in build/bench/raw; scripts/bench.py makes the report.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

BENCH=$BUILD/bench
RAW=$BENCH/raw

# Modes: name, topology, kernel parameters
MODES=("none bridge" "lazy iommu-lazy" "strict iommu-strict")
if [ -n "${QUICK:-}" ]; then
	BOOTS=${BOOTS:-2}
else
	BOOTS=${BOOTS:-5}
	MODES+=("passthrough iommu-pt" "none-mr bridge ib_core.force_mr=1")
fi

# guest NAME TREE TOPOLOGY TEST PARAMETERS OPTION...: what it prints, as $RAW/NAME.out.
# The program is the same for both, only the kernel is not.
guest() {
	local name=$1 tree=$2 topology=$3 test=$4 parameters=$5 status=0
	machine "${KERNELS[$tree]}" "$TESTS" \
		--topology "$topology" --timeout 900 --append "nokaslr $parameters" \
		"${@:6}" "$test" >"$RAW/$name.out" 2>&1 || status=$?
	case $status in
	0) say "$name" ;;
	*) show_errors "$RAW/$name.out"
		die "cannot measure $name" "log: $RAW/$name.out" ;;
	esac
}

# count NAME TREE TOPOLOGY PARTS [PARAMETER]...
count() {
	guest "$1" "$2" "$3" bench.sh "${*:5}" --profile "$RAW/$1.profile" \
		--var "P2P_BENCH=$4"
}

# Lines of arguments for count()
runs() {
	local boot mode tree parts name topology parameters
	for ((boot = 1; boot <= BOOTS; boot++)); do
		for mode in "${MODES[@]}"; do
			read -r name topology parameters <<<"$mode"
			for tree in base series; do
				parts=transport+deep+ordinary
				[ $tree = base ] || parts+=+drive
				echo "$tree.$name.$boot $tree $topology $parts $parameters"
			done
			case $name in none|strict)
				for tree in base series; do
					echo "$tree.$name.$boot-many $tree $topology controllers+exhausted"
				done ;;
			esac
			# The base cannot serve these from peer-to-peer memory.
			echo "series.$name.$boot-stack series $topology head+raid0" \
				"nvme_core.multipath=Y $parameters"
		done
	done
}

# native RUN: what the KUnit tests measure, on this machine's own processor.  With several, User
# Mode Linux makes a system call where others disable interrupts.
native() {
	KUNIT_CONFIG=CONFIG_SMP=n "$SCRIPTS/kunit.sh" p2pmem_pool_test.bench=1 blk_dma_addr_test.bench=1
	cp "$BUILD/kunit/test.log" "$RAW/native.$1.out"
}

# Two guests at a time: that does not change the number of instructions.
count_all() {
	local tree
	"$SCRIPTS/kernel.sh" build base test
	"$SCRIPTS/kernel.sh" build series test
	"$SCRIPTS/kernel.sh" tests series test
	# They stay what they are, whatever is built meanwhile.
	for tree in base series; do
		KERNELS[$tree]=$(readlink -e "$BUILD/kernel-$tree-test")
	done
	TESTS=$(readlink -e "$BUILD/tests-series-test")
	export TESTS KERNEL_BASE=${KERNELS[base]} KERNEL_SERIES=${KERNELS[series]}
	rm -rf "$BENCH"
	mkdir -p "$RAW"
	runs | xargs -P 2 -d '\n' -n 1 "$SCRIPTS/bench.sh" count
	for tree in base series; do
		guest "$tree.large" $tree large large.sh ""
	done
}

main() {
	local boot words
	if [ "${1:-}" = count ]; then
		read -ra words <<<"$2"
		# This status keeps xargs from going on.
		(count "${words[@]}") || exit 255
		exit
	fi
	count_all
	for ((boot = 1; boot <= BOOTS; boot++)); do
		native $boot
	done
	[ -n "${QUICK:-}" ] || "$SCRIPTS/sizes.sh" >"$RAW/sizes.txt"
	"$SCRIPTS/bench.py" "$BENCH"
}

declare -A KERNELS=([base]=${KERNEL_BASE:-} [series]=${KERNEL_SERIES:-})
main "$@"
