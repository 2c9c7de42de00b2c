#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Show the series at work; with BASELINE=1 the same on the unpatched kernel.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tree=series
[ -z "${BASELINE:-}" ] || tree=base
"$SCRIPTS/kernel.sh" build "$tree" test
"$SCRIPTS/kernel.sh" tests "$tree" test
exec "$TOP/$TESTS_DIR/qemu/run.sh" --kernel "$BUILD/kernel-$tree-test" \
	--tests "$BUILD/tests-$tree-test" "${@:-demo.sh}"
