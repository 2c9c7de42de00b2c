#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The runner must turn red when it should: guests that fail in every way, and
# some that do not. test-runner.sh --kernel DIR, as for run.py.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1

# add_test NAME < SCRIPT
add_test()
{
	{ echo '#!/bin/bash'; cat; } > "$dir/tests/p2pdma/$1"
	chmod +x "$dir/tests/p2pdma/$1"
}

add_tests()
{
	mkdir -p "$dir/tests/p2pdma" "$dir/tests/kselftest" "$dir/broken"
	cp "$here/../lib.sh" "$dir/tests/p2pdma"
	: > "$dir/tests/kselftest/ktap_helpers.sh"
	add_test pass.sh <<< 'echo 1..1; echo ok 1 x'
	add_test skip.sh <<< 'echo "1..0 # SKIP no such device"; exit 4'
	add_test fail.sh <<< 'echo 1..1; echo not ok 1 x; exit 1'
	add_test liar.sh <<< 'echo 1..1; echo not ok 1 x'
	add_test short.sh <<< 'echo 1..2; echo ok 1 x'
	add_test hang.sh <<< 'echo 1..1; sleep infinity'
	add_test splat.sh <<< 'echo "WARNING: made up" > /dev/kmsg; echo 1..1; echo ok 1 x'
	# Take the stack away from under init.
	add_test crash.sh <<-'END'
		echo 1..1
		echo ok 1 x
		range=$(grep -F "[stack]" /proc/1/maps)
		from=$((16#${range%%-*} >> 12)) range=${range#*-}
		dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$from conv=notrunc \
			count=$(((16#${range%% *} >> 12) - from))
	END
	add_test control.sh <<-'END'
		. ./lib.sh
		ask()
		{
			answer=$(p2p_ask "$@")
			echo "# $*: $answer"
		}
		check()
		{
			number=$((number + 1))
			[[ $answer == $1 ]] || echo -n "not "
			echo "ok $number $1"
		}
		echo 1..10
		for bar in $P2PDMA_BARS; do
			ask scrub "${bar%=*}"; check ok
		done
		ask witness p2pmem0 "two  words"; check absent
		ask witness none x; check "error no BAR*"
		ask serve x; check "error unknown command*"
		ask unplug none; check "error no device*"
		ask plug none; check "error no device*"
		ask count; check "error instructions are not counted*"
		# The answer to this comes when nobody waits for it any more.
		P2P_LIMIT=0.01 ask scrub p2pmem0
		ask serve late; check "error unknown command*"
	END
}

# The image keeps its header and loses its kernel.
break_kernel()
{
	cp "$kernel/bzImage" "$dir/broken/bzImage"
	dd if=/dev/zero of="$dir/broken/bzImage" bs=4k seek=8 conv=notrunc \
		count=$(($(stat -c %s "$kernel/bzImage") / 4096 - 16)) status=none
}

# The clock of the first guest is wrong.
fake_qemu()
{
	mkdir -p "$dir/bin"
	cat > "$dir/bin/qemu-system-x86_64" <<-'END'
		#!/bin/bash
		if [[ $* =~ path=([^ ]*/console.log) ]] && mkdir "$0.once"; then
			echo "PIT calibration deviates from HPET: 372809 2445441" \
				> "${BASH_REMATCH[1]}"
			exec sleep 60
		fi
		PATH=${PATH#*:} exec qemu-system-x86_64 "$@"
	END
	chmod +x "$dir/bin/qemu-system-x86_64"
}

# guest NAME ARGUMENT...: run in the background, keep the output and the status
guest()
{
	local name=$1

	shift
	while (($(jobs -pr | wc -l) >= 2)); do
		wait -n
	done
	{
		"$here/run.py" --kernel "$kernel" --tests "$dir/tests" \
			--workdir "$dir/scratch" "$@" > "$dir/$name.out" 2>&1
		echo "exit $?" >> "$dir/$name.out"
	} &
}

run_guests()
{
	guest hang --timeout 15 pass.sh hang.sh skip.sh
	guest unbootable --kernel "$dir/broken" --timeout 60 --boot 5 pass.sh
	guest green --timeout 60 pass.sh skip.sh control.sh
	guest bridge --timeout 60 --topology bridge control.sh
	guest skip --timeout 60 skip.sh
	guest fail --timeout 60 pass.sh fail.sh liar.sh short.sh
	guest crash --timeout 60 pass.sh crash.sh
	guest splat --timeout 60 splat.sh pass.sh
	guest noqemu --timeout 60 --smp 100000 pass.sh
	PATH=$dir/bin:$PATH guest clock --timeout 60 pass.sh
	wait
}

# check GUEST LINE: the output has a line that starts so
check()
{
	number=$((number + 1))
	if grep -q "^$2" "$dir/$1.out"; then
		echo "ok $number $1: $2"
	else
		sed 's/^/# /' "$dir/$1.out"
		echo "not ok $number $1: $2"
		failed=1
	fi
}

check_guests()
{
	check green "run: pass.sh: PASS"
	check green "run: skip.sh: SKIP (no such device)"
	check green "run: control.sh: PASS (10 results"
	check green "exit 0"
	check bridge "run: control.sh: PASS (10 results"
	check skip "exit 4"
	check fail "run: pass.sh: PASS"
	check fail "run: fail.sh: FAIL (exit status 1)"
	check fail "run: liar.sh: FAIL (1 failed"
	check fail "run: short.sh: FAIL (1 results of 2 planned)"
	check fail "exit 1"
	check crash "run: pass.sh: PASS"
	check crash "run: crash.sh: FAIL (no result; kernel log: .*init\[1\]: segfault at"
	check crash "exit 1"
	check hang "run: hang.sh: FAIL (no result; no end within 15 s"
	check hang "run: pass.sh: PASS"
	check hang "run: skip.sh: FAIL (never started; no end within 15 s"
	check hang "run: guest: FAIL (no end within 15 s"
	check hang "exit 1"
	check unbootable "run: pass.sh: FAIL (never started; no kernel log; not up within 5 s"
	check unbootable "exit 1"
	check splat "run: splat.sh: FAIL (kernel log: .*WARNING: made up"
	check splat "run: pass.sh: PASS"
	check splat "exit 1"
	check noqemu "run: pass.sh: FAIL (never started; .*QEMU failed"
	check noqemu "exit 1"
	check clock "# the guest's clock is wrong"
	check clock "run: pass.sh: PASS"
	check clock "exit 0"
}

check_clean()
{
	number=$((number + 1))
	if compgen -G "$dir/scratch/run.*" > /dev/null; then
		echo "not ok $number a run left its directory behind"
		failed=1
	else
		echo "ok $number nothing is left behind"
	fi
}

if [[ $1 != --kernel || ! -f $2/bzImage ]]; then
	echo "usage: test-runner.sh --kernel DIR (with bzImage)" >&2
	exit 2
fi
kernel=$(cd "$2" && pwd) number=0 failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'kill $(jobs -p); wait; exit 1' INT TERM HUP
echo "TAP version 13"
add_tests
break_kernel
fake_qemu
run_guests
check_guests
check_clean
echo "1..$number"
exit "$failed"
