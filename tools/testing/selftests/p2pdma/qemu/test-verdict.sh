#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The runner's verdict and its dialogue with QEMU, tried on made-up logs and answers:
# no guest is started.

# damage() calls some of the functions, shellcheck cannot see that:
# shellcheck disable=SC2317

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
# shellcheck source=verdict.sh
. "$here/verdict.sh"
# shellcheck source=control.sh
. "$here/control.sh"

number=0 failed=0
banner='[    0.000000] Linux version 7.3.4'
qemu_status=0
export limit=9

# check NAME WANTED GOT: GOT must match the pattern WANTED
check()
{
	number=$((number + 1))
	# shellcheck disable=SC2053
	if [[ $3 == $2 ]]; then
		echo "ok $number $1"
	else
		printf '# wanted: %s\n# got: %s\nnot ok %s %s\n' "$2" "$3" "$number" "$1"
		failed=1
	fi
}

# make_run KERNEL_LINE STATUS OUTPUT: the logs of a run with the test a.sh
make_run()
{
	printf '%s\r\n' "$banner" "p2pdma-run: start a.sh" "$1" \
		"p2pdma-run: result a.sh $2 7" "p2pdma-run: tests done" > "$log/console.log"
	printf '%s\n' up "start a.sh" "result a.sh $2 7" "tests done" end > "$log/result.log"
	printf '%s\n' "# p2pdma-run: start a.sh" "$3" "# p2pdma-run: end a.sh" > "$log/output.log"
	echo "qemu: a complaint" > "$log/qemu.log"
}

judge()
{
	verdict a.sh | grep '^run:'
	echo "exit ${PIPESTATUS[0]}"
}

test_patterns()
{
	local line

	while read -r line; do
		make_run "[    1.000000] $line" 0 $'1..1\nok 1 x'
		check "denied: $line" $'run: a.sh: FAIL (kernel log: *\nexit 1' "$(judge)"
	done < "$here/fixtures/denied"
	make_run "$(sed 's/^/[    1.000000] /' "$here/fixtures/clean")" 0 $'1..1\nok 1 x'
	check "harmless lines" $'run: a.sh: PASS (*\nexit 0' "$(judge)"
}

# try NAME WANTED STATUS OUTPUT: a clean kernel log, this KTAP
try()
{
	make_run "all is well" "$3" "$4"
	check "$1" "run: a.sh: $2" "$(judge)"
}

test_ktap()
{
	try "pass" $'PASS (2 results, 1 skipped) 7 s\nexit 0' 0 $'1..2\nok 1 x\nok 2 y # SKIP z'
	try "expected failure" $'PASS*exit 0' 0 $'1..1\nnot ok 1 x # XFAIL y'
	try "skip" $'SKIP (no drive) 7 s\nexit 4' 4 "1..0 # SKIP no drive"
	try "all results skipped" $'SKIP*exit 4' 0 $'1..1\nok 1 x # SKIP y'
	try "skip after a failure" $'FAIL (skipped after*exit 1' 4 $'1..2\nnot ok 1 x'
	try "exit status" $'FAIL (exit status 3) 7 s\nexit 1' 3 $'1..1\nok 1 x'
	try "not ok with exit status 0" $'FAIL (1 failed*exit 1' 0 $'1..1\nnot ok 1 x'
	try "missing result" $'FAIL (1 results of 2 planned)*exit 1' 0 $'1..2\nok 1 x'
	try "no plan" $'FAIL (0 plans*exit 1' 0 "ok 1 x"
	try "no output" $'FAIL (0 plans*exit 1' 0 ""
	try "nothing planned" $'FAIL (nothing planned)*exit 1' 0 "1..0"
	try "bail out" $'FAIL (Bail out! y)*exit 1' 0 $'1..1\nok 1 x\nBail out! y'
}

# damage NAME WANTED COMMAND...: a good run, then the command
damage()
{
	local name=$1 wanted=$2

	shift 2
	make_run "all is well" 0 $'1..1\nok 1 x'
	"$@"
	check "$name" "*run: $wanted*exit 1" "$(judge)"
	qemu_status=0
}

drop()
{
	sed -i "/$1/d" "$log/$2.log"
}

# As run.sh does with a guest that did not end
interrupt()
{
	sed 's/^/[    2.000000] /; s/$/\r/' >> "$log/console.log" <<-'END'
		Uhhuh. NMI received for unknown reason 21 on CPU 0.
		Kernel panic - not syncing: NMI: Not continuing
		Call Trace:
		 nmi_panic+0x5f/0x90
		task:fio             state:S stack:0     pid:412   tgid:412   ppid:400 flags:0
		Call Trace:
		 <TASK>
		 __schedule+0x41e/0xb50
		 ? dummy+0x1/0x10
		 schedule+0x22/0xd0
		 read_events+0x11c/0x180
		 do_io_getevents+0x7d/0x120
		 do_syscall_64+0xa8/0x240
		 entry_SYSCALL_64_after_hwframe+0x76/0x7e
		 last+0x1/0x2
		 </TASK>
		task:kworker/0:1     state:I stack:0     pid:20    tgid:20    ppid:2 flags:0
		Call Trace:
		 <TASK>
		 worker_thread+0x1a9/0x330
		 </TASK>
		task:kworker/0:2     state:D stack:0     pid:21    tgid:21    ppid:2 flags:0
		Call Trace:
		 <TASK>
		 msleep+0x2d/0x40
		 </TASK>
		---[ end Kernel panic - not syncing: NMI: Not continuing ]---
	END
	qemu_status=124
}

add()
{
	echo "$1" >> "$log/$2.log"
}

lose_patterns()
{
	cp -r "$here" "$log/here"
	here=$log/here
	: > "$here/log-deny"
}

# faults WANTED LINE...: a good run with these lines of the kernel
faults()
{
	local wanted=$1

	make_run "$(printf '%s\r\n' "${@:2}")" 0 $'1..1\nok 1 x'
	check "faults: $wanted" "run: a.sh: $wanted" "$(judge)"
}

test_faults()
{
	local expected="p2pdma-run: faults expected" over="p2pdma-run: faults over"
	local fault="DMAR: [DMA Read NO_PASID] Request device [00:10.0] fault addr 0x1000"

	faults $'PASS*\nexit 0' "$expected" "$fault" "$over"
	faults $'FAIL (kernel log: DMAR*\nexit 1' "$expected" "$fault" "$over" "$fault"
	faults $'FAIL (kernel log: DMAR*\nexit 1' "$fault" "$expected" "$over"
	faults $'FAIL (kernel log: WARNING*\nexit 1' "$expected" "WARNING: x" "$over"
}

test_allocations()
{
	local expected="p2pdma-run: failed allocations expected" failed="x: vmalloc error: y"
	local area="kmemleak: Cannot allocate a scan area, scanning"
	local trace="Call Trace:" fault="DMAR: [DMA Read NO_PASID] fault addr 0x1000"

	faults $'PASS*\nexit 0' "$expected" "$failed" "$trace"
	faults $'PASS*\nexit 0' "$expected" "$area"
	faults $'FAIL (kernel log: kmemleak*\nexit 1' "$area"
	faults $'FAIL (kernel log: Call Trace*\nexit 1' "$failed" "$trace"
	faults $'FAIL (kernel log: Call Trace*\nexit 1' "$expected" "$failed" "$trace" "$trace"
	faults $'FAIL (kernel log: DMAR*\nexit 1' "$expected" "$failed" "$fault"
}

test_races()
{
	local race="BUG: KCSAN: data-race in a / b" end="=================="
	local irq="__synchronize_hardirq / handle_irq_event" functions=$log/functions
	local counts=$'FAIL (kernel log: BUG: KCSAN*\nexit 1'

	printf '%s\n' bio_add_page submit_bio add task > "$functions"
	faults $'PASS*\nexit 0' "$race" " a+0x1/0x2" "$end"
	faults "$counts" "$race" " pci_p2pmem_x+0x1/0x2" "$end"
	faults "$counts" "$race" " a+0x1/0x2" " bio_add_page+0x1/0x2" " b+0x1/0x2" "$end"
	faults "$counts" "$race" " bio_add_page.constprop.0+0x1/0x2" "$end"
	faults $'PASS*\nexit 0' "$race" "by task 7" " __bio_add_page+0x1/0x2" "$end"
	faults $'PASS*\nexit 0' "$race" " bio_add_page_x+0x1/0x2" " radd+0x1/0x2" "$end"
	faults $'PASS*\nexit 0' "${race/a \/ b/$irq}" " nvme_reset_work+0x1/0x2" "$end"
	faults $'FAIL (kernel log: WARNING*\nexit 1' "$race" " a+0x1/0x2" "WARNING: x" "$end"
	faults $'FAIL (kernel log: BUG: x*\nexit 1' "$race" " a+0x1/0x2" "$end" "BUG: x p2p"
	for functions in "" "$log/no-such-list" /dev/null; do
		faults "$counts" "$race" " a+0x1/0x2" "$end"
	done
}

# early_end NAME WANTED COMMAND...: a.sh has ended, b.sh runs, c.sh waits, and then this
early_end()
{
	make_run "all is well" 0 $'1..1\nok 1 x'
	sed -i '/tests done/,$d' "$log/result.log" "$log/console.log"
	add "start b.sh" result
	add $'p2pdma-run: start b.sh\r' console
	"${@:3}"
	check "$1" "$2"$'\nexit 1' "$(verdict a.sh b.sh c.sh | grep '^run:'
		echo "exit ${PIPESTATUS[0]}")"
	qemu_status=0
}

test_early_end()
{
	local a="run: a.sh: PASS (1 results, 0 skipped) 7 s" b="run: b.sh: FAIL (no result"
	local end="no end within 9 s; the guest did not reach its end)"
	local panic="Kernel panic - not syncing: x"

	early_end "hang" "$a
$b; $end
run: c.sh: FAIL (never started; $end
run: guest: FAIL ($end" interrupt
	early_end "panic" "$a
$b; kernel log: $panic; the guest did not reach its end)
run: c.sh: FAIL (never started; the guest did not reach its end)
run: guest: FAIL (the guest did not reach its end)" add "$panic" console
	early_end "panic whose log is cut" "run: a.sh: FAIL (the kernel log ends before*
$b*" drop "result a.sh" console
}

test_run()
{
	local tasks

	damage "empty kernel log" "a.sh: FAIL (no kernel log" truncate -s 0 "$log/console.log"
	damage "no banner" "a.sh: FAIL (the kernel did not start" drop Linux console
	damage "no result" "a.sh: FAIL (no result" drop "result a.sh" result
	damage "not started" "a.sh: FAIL (never started" drop a.sh result
	damage "no end" "guest: FAIL (the guest did not reach" drop "^end" result
	damage "time limit" "guest: FAIL (no end within 9 s" declare -g qemu_status=124
	damage "interrupted" "guest: FAIL (no end within 9 s)" interrupt
	make_run "all is well" 0 $'1..1\nok 1 x'
	interrupt
	tasks="# task:fio state:S < read_events < do_io_getevents"
	tasks+=" < do_syscall_64 < entry_SYSCALL_64_after_hwframe"
	tasks+=$'\n# task:kworker/0:2 state:D < msleep'
	check "what it waited in" "# console: *tests done*$tasks"$'\nrun:*' "$(verdict a.sh)"
	qemu_status=0
	damage "QEMU fails" "guest: FAIL (QEMU failed (1): qemu: a complaint" \
		declare -g qemu_status=1
	damage "init's error" "guest: FAIL (error no device" add "error no device" result
	damage "leak" "kmemleak: FAIL (2" add "kmemleak 2" result
	damage "splat at boot" "boot: FAIL (kernel log: WARNING" \
		sed -i "1aWARNING: x" "$log/console.log"
	damage "splat at the end" "shutdown: FAIL (kernel log: WARNING" \
		add "WARNING: x" console
	damage "broken patterns" "a.sh: FAIL (the log check itself" lose_patterns
}

# qemu ANSWER: after what nobody asked for, with the question's number for @
qemu()
{
	local question

	read -r question
	question=${question##*\"id\": }
	echo '{"event": "DEVICE_DELETED", "data": {}}'
	echo '{"return": {}}'
	echo '{"return": {}, "id": 1}'
	echo "${1/@/\"id\": ${question%%[^0-9]*}}"
}

# monitor_answers NAME ANSWER WANTED
monitor_answers()
{
	mkfifo "$log/question"
	exec 4<> "$log/question"
	check "QEMU's answer: $1" "$3" "$(monitor_ok '{"execute": "x"}' \
		3< <(timeout 9 bash -c "$(declare -f qemu); qemu '$2'" < "$log/question"))"
	exec 4>&-
	rm "$log/question"
}

test_monitor()
{
	monitor_answers "ok" '{"return": {}, @}' ok
	monitor_answers "ok in words" '{"return": "", @}' ok
	monitor_answers "error" '{@, "error": {}}' 'error {"id": *, "error": {}}'
	monitor_answers "words" '{"return": "no such device", @}' 'error *no such device*'
}

log=$(mktemp -d) || exit 1
trap 'rm -rf "$log"' EXIT
echo "TAP version 13"
test_patterns
test_ktap
test_faults
test_allocations
test_races
test_early_end
test_run
test_monitor
echo "1..$number"
exit "$failed"
