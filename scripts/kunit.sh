#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run the series' KUnit tests, and those of the base for what it touches, with
# the kernel's own tool.  The kernel is User Mode Linux, so it needs no emulator.
#
#   kunit.sh [KERNEL-PARAMETER]...
#
# KUNIT_TREE tests another tree than build/linux, which is not kept in the cache.
# KUNIT_CONFIG=CONFIG_<option>=<value> changes the configuration.
#
# Passed is what was seen to pass: each suite, nothing skipped but benchmarks, a clean log.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

OTHER_TREE=${KUNIT_TREE:-}
TREE=${KUNIT_TREE:-$BUILD/linux}
OUT=$BUILD/kunit${OTHER_TREE:+-${OTHER_TREE##*/}}
SUITES=(blk-dma-addr iov_iter p2pmem-pool)
# A build directory in the tree, for the reason that kernel.sh gives.
OBJ=$TREE/.obj-kunit${KUNIT_CONFIG:+-other}
# What User Mode Linux has by default, and the tests do not need.
OFF=(KUNIT_UML_PCI INPUT SERIO HID_SUPPORT USB_SUPPORT HWMON HW_RANDOM
	VIRTIO_MENU VHOST_MENU IO_URING SWAP NAMESPACES SUSPEND COREDUMP)
mapfile -t CONFIG < <(
	printf -- '--kunitconfig=block\n--kunitconfig=drivers/pci\n'
	printf -- '--kconfig_add=CONFIG_EXPERT=y\n'
	printf -- '--kconfig_add=CONFIG_%s=n\n' "${OFF[@]}"
	printf '%s' "${KUNIT_CONFIG:+--kconfig_add=$KUNIT_CONFIG}")

kunit() { kbuild_env python3 "$TREE/tools/testing/kunit/kunit.py" "$@"; }

kernel_key() {
	local source
	source=$(worktree_id "$TREE") || return
	{
		source_files "$source" || exit
		cat "$TREE/tools/testing/kunit/configs/arch_uml.config"
		gcc --version
		ld --version
		declare -f kunit kbuild_env compile
		echo "${CONFIG[@]}" "${MAKE_ARGS[@]}"
	} | hash_of
}

compile() {
	kunit build --build_dir="$OBJ" "${CONFIG[@]}" \
		"${MAKE_ARGS[@]/#/--make_options=}"
	cp "$OBJ/linux" "$1"
}

# Sets up $OUT/linux.
build() {
	local key kernel now
	rm -rf "$OUT"
	mkdir -p "$OUT" "$CACHE/kernels"
	if [ -n "$OTHER_TREE" ]; then
		step kunit-kernel compile "$OUT/linux"
		return
	fi
	key=$(kernel_key)
	kernel=$CACHE/kernels/kunit-$key
	[ -f "$kernel" ] || lock_cache "${kernel#"$CACHE/"}"
	if [ ! -f "$kernel" ]; then
		step kunit-kernel compile "$kernel.new"
		now=$(kernel_key)
		[ "$now" = "$key" ] || die "build/linux was edited meanwhile"
		mv "$kernel.new" "$kernel"
	fi
	ln -s "$kernel" "$OUT/linux"
}

run_kernel() {
	local parameter args=()
	for parameter in uml_dir="$OUT" ncpus=2 seccomp=auto blk_dma_addr_test.rounds=30000 \
		p2pmem_pool_test.rounds=10000 "$@"; do
		args+=(--kernel_args "$parameter")
	done
	kunit exec --build_dir="$OUT" "${CONFIG[@]}" --timeout=240 "${args[@]}"
}

# What is wrong that the tool does not take for a failure.
complaints() {
	local suite
	"$TOP/$TESTS_DIR/qemu/verdict.py" "$1" 2>&1 || true
	grep '# SKIP' "$1" | grep -v '_test\.bench=1' || true
	for suite in "${SUITES[@]}"; do
		grep -qxE "ok [0-9]+ $suite" "$1" || echo "$suite did not pass"
	done
}

check_log() {
	local log=$OUT/test.log wrong
	mapfile -t wrong < <(complaints "$log")
	[ "${#wrong[@]}" = 0 ] || die "${wrong[@]}" "log: $log"
	sed -n 's/^ *\(# .*\(seed\|bios\|Totals\)\)/  \1/p' "$log" >&2
}

[ -n "$OTHER_TREE" ] || [ -f "$TREE/.git/p2pmem-inputs" ] ||
	die "build/linux is not there" "run \"make tree\""
make_tmp
build
step kunit-run run_kernel "$@"
check_log
