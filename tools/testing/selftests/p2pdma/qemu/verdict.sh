# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154  # here, log, limit and qemu_status are run.sh's; so is
# functions, which may be unset
#
# Judge a run by the files that it left in $log: console.log (kernel), output.log (KTAP
# of the tests) and result.log (what init reports). Nothing passes that was not seen to
# pass.

verdict_patterns()
{
	sed '/^#/d; /^$/d' "$here/$1"
}

# KCSAN reports races in the whole kernel.  Take the words that verdict_faults() looks
# for from the reports whose backtraces contain no function of the series; without a
# list of these functions every report counts.  Also ignore synchronize_irq(), which by
# design reads without the lock first and then again with it.
verdict_races()
{
	awk -v list="${functions:-}" '
	     function is_ours(text, name) {
		if (!known || text ~ ours)
			return 1
		while (match(text, /[A-Za-z0-9_]+(\.[a-z0-9_.]+)?\+0x/)) {
			name = substr(text, RSTART, RLENGTH)
			sub(/[.+].*/, "", name)
			if (name in series)
				return 1
			text = substr(text, RSTART + RLENGTH)
		}
		return 0
	     }
	     function flush() {
		if (report ~ intended || !is_ours(report))
			gsub(/(BUG: KCSAN|Call Trace):/, "race elsewhere", report)
		printf "%s", report
		report = ""
	     }
	     BEGIN {
		ours = "p2p|premap|dma_addr|dma_bio|rnic_|lsi_|nvme|rdma_rw|pciehp"
		intended = "data-race in __synchronize_hardirq / handle_irq_event\n"
		while (list != "" && (getline name < list) > 0)
			series[name] = known = 1
	     }
	     /BUG: KCSAN:/ { flush(); inside = 1 }
	     !inside { print; next }
	     { report = report $0 "\n" }
	     /======/ { flush(); inside = 0 }
	     END { flush() }'
}

# The kernel log until the end, or until run.sh interrupted a guest that did not end
verdict_log()
{
	tr -d '\r' < "$1" | sed '/NMI received for unknown reason/,$d'
}

# Each line of the kernel log after the name of the test that was running, without
# the DMA faults and failed allocations that a test has announced.  One of these may be
# kmemleak's own: without a scan area it goes on, and scans the whole of that object.
verdict_label()
{
	verdict_log "$1" | verdict_races |
		awk 'BEGIN { where = "boot" }
		     /p2pdma-run: start / { where = $NF }
		     /p2pdma-run: tests done/ { where = "shutdown" }
		     /p2pdma-run: faults expected/ { faults = 1 }
		     /p2pdma-run: failed allocations expected/ { failed = 1 }
		     /p2pdma-run: (faults over|result)/ { faults = failed = trace = 0 }
		     faults && /DMAR: .*[Ff]ault/ { next }
		     failed && /kmemleak: Cannot allocate a scan area,/ { next }
		     failed && /vmalloc error:/ { trace = 1; next }
		     trace && /Call Trace:/ { trace = 0; next }
		     { print where "\t" $0 }'
}

# verdict_faults CONSOLE: print "where<TAB>line" of all that must not be there
verdict_faults()
{
	verdict_label "$1" | grep -aE -f <(verdict_patterns log-deny) |
		grep -avE -f <(verdict_patterns log-allow)
}

# A check that does not work must not look like a clean log.
verdict_blind()
{
	if ! echo "BUG: canary" | grep -qE -f <(verdict_patterns log-deny) ||
	   echo "BUG: canary" | grep -qE -f <(verdict_patterns log-allow); then
		echo "the log check itself does not work"
	elif [[ ! -s $1 ]]; then
		echo "no kernel log"
	elif ! grep -qaE '^(\[[^]]*\] )?Linux version [0-9]' "$1"; then
		echo "the kernel did not start: no banner in its log"
	fi
}

verdict_output()
{
	sed -n "/# p2pdma-run: start $1\$/,/# p2pdma-run: end $1\$/p" \
		"$log/output.log"
}

# Judge the KTAP on stdin of a test with exit status 0: print "status reason".
verdict_ktap()
{
	awk '/^1\.\.[0-9]+/ { plans++; planned = substr($1, 4) + 0 }
	     /^(not )?ok / { results++ }
	     /^not ok / && !/# (XFAIL|TODO|SKIP)/ { bad++; if (bad == 1) first = $0 }
	     /^ok .*# SKIP/ { skipped++ }
	     /^1\.\.0 .*SKIP/ { skip_all = 1 }
	     /^Bail out!/ { bail = $0 }
	     END {
		if (bail) print "FAIL", bail
		else if (bad) print "FAIL", bad, "failed, first:", first
		else if (plans != 1) print "FAIL", plans + 0, "plans in its KTAP"
		else if (results != planned)
			print "FAIL", results + 0, "results of", planned, "planned"
		else if (planned == 0 && !skip_all) print "FAIL nothing planned"
		else if (skipped == planned) print "SKIP all", planned, "results skipped"
		else print "PASS", planned, "results," , skipped + 0, "skipped"
	     }'
}

# The same for exit status 4.
verdict_skip()
{
	awk '/^not ok / { bad = 1 }
	     sub(/.*# *SKIP:* */, "") && NF { reason = $0 }
	     END {
		if (bad) print "FAIL skipped after a failure"
		else print "SKIP", reason ? reason : "no reason given"
	     }'
}

# What went wrong with the guest, one reason a line
verdict_guest()
{
	grep '^error ' "$log/result.log"
	if ((qemu_status == 124 || qemu_status == 137)); then
		echo "no end within $limit s"
	elif ((qemu_status)); then
		echo "QEMU failed ($qemu_status): $(tail -n1 "$log/qemu.log")"
	fi
	grep -qx end "$log/result.log" || echo "the guest did not reach its end"
}

# What the test itself sent: print "status reason".
verdict_result()
{
	local test=$1 status

	status=$(awk -v t="$test" '$1 == "result" && $2 == t { print $3 }' \
		"$log/result.log")
	case $status in
	0) verdict_output "$test" | verdict_ktap ;;
	4) verdict_output "$test" | verdict_skip ;;
	"") if grep -qx "start $test" "$log/result.log"; then
		echo "FAIL no result"
	    else
		echo "FAIL never started"
	    fi ;;
	*) echo "FAIL exit status $status" ;;
	esac
}

# verdict_time TEST: how long it took, if it ended
verdict_time()
{
	awk -v t="$1" '$1 == "result" && $2 == t && $4 != "" { print " " $4 " s" }' \
		"$log/result.log"
}

# verdict_join < REASONS: on one line, without the empty ones
verdict_join()
{
	grep . | paste -sd ';' | sed 's/;/; /g'
}

# verdict_doubts TEST GUEST_REASONS: why its own result does not count, or why it has
# none.  A guest that ends early does not fail the tests that had ended before.
verdict_doubts()
{
	verdict_blind "$log/console.log"
	if ! grep -q "^result $1 " "$log/result.log"; then
		echo "$2"
	elif ! verdict_log "$log/console.log" | grep -qa "p2pdma-run: result $1 "; then
		echo "the kernel log ends before the test"
	fi
}

# verdict_test TEST GUEST_REASONS: print "status reason"
verdict_test()
{
	local test=$1 own fault doubts

	own=$(verdict_result "$test")
	fault=$(awk -F '\t' -v t="$test" '$1 == t { print $2; exit }' \
		"$log/faults.log")
	doubts=$(verdict_doubts "$test" "$2")
	if [[ -z $doubts && -z $fault ]]; then
		echo "$own"
		return
	fi
	[[ $own == FAIL* ]] && own=${own#FAIL } || own=
	printf 'FAIL %s\n' "$(printf '%s\n' "$own" \
		"${fault:+kernel log: $fault}" "$doubts" | verdict_join)"
}

# verdict_others GUEST_REASONS: what went wrong with the guest, faults outside of all
# tests, and leaks fail the run under names of their own.
verdict_others()
{
	local where leaks

	[[ -z $1 ]] || echo "run: guest: FAIL ($(verdict_join <<< "$1"))"
	for where in boot shutdown; do
		awk -F '\t' -v w="$where" '$1 == w {
			print "run: " w ": FAIL (kernel log: " $2 ")"; exit }' \
			"$log/faults.log"
	done
	leaks=$(awk '$1 == "kmemleak" { print $2 }' "$log/result.log")
	if ((leaks)); then
		echo "run: kmemleak: FAIL ($leaks suspected leaks)"
	fi
}

# What the tasks of a guest that was interrupted were waiting in, innermost function
# first; of the kernel's own tasks, only those that can't be idle
verdict_tasks()
{
	tr -d '\r' < "$1" | sed '1,/NMI received for unknown reason/d' |
		awk 'function flush() {
			if (name != "" && (user || state == "state:D"))
				print name, state calls
			name = calls = ""
			depth = 0
		     }
		     match($0, /task:[^ ]/) {
			flush()
			name = substr($0, RSTART)
			sub(/ *state:.*/, "", name)
			user = !/ (pid|ppid):2 /
			match($0, /state:./)
			state = substr($0, RSTART, RLENGTH)
		     }
		     /Showing|end Kernel panic/ { flush() }
		     $(NF) ~ /\+0x.*\/0x/ && !/ \? / && !/schedule\+0x/ && depth++ < 4 {
			sub(/\+.*/, "", $NF)
			calls = calls " < " $NF
		     }
		     END { flush() }'
}

# Show what is known about a run that went wrong.
verdict_show()
{
	verdict_log "$log/console.log" | tail -n 15 | sed 's/^/# console: /'
	verdict_tasks "$log/console.log" | sed 's/^/# /'
}

# verdict TEST...: print a line for each test, return the run's exit status
verdict()
{
	local test guest reason others failed=0 passed=0

	verdict_faults "$log/console.log" > "$log/faults.log"
	guest=$(verdict_guest)
	[[ -z $guest ]] || verdict_show
	for test; do
		reason=$(verdict_test "$test" "$guest")
		echo "run: $test: ${reason%% *} (${reason#* })$(verdict_time "$test")"
		case $reason in
		PASS*) passed=1 ;;
		SKIP*) ;;
		*) failed=1 ;;
		esac
	done
	others=$(verdict_others "$guest")
	[[ -z $others ]] || { echo "$others"; failed=1; }
	((failed)) && return 1
	((passed)) || return 4
}
