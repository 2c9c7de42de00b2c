#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Judge a run by the files that it left: console.log (kernel), output.log (KTAP of the
tests) and result.log (what init reports).  Nothing passes that was not seen to pass.

    verdict.py CONSOLE   print what must not be in this kernel log; fail if there is any,
                         or if it is no kernel log
"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
INTERRUPTED = "NMI received for unknown reason"

# Functions of the series, and of drivers that it uses most
OURS = re.compile("p2p|premap|dma_addr|dma_bio|rnic_|lsi_|nvme|rdma_rw|pciehp")
# synchronize_irq() by design reads without the lock first and then again with it.
INTENDED = "data-race in __synchronize_hardirq / handle_irq_event\n"
FUNCTION = re.compile(r"([A-Za-z0-9_]+)(?:\.[a-z0-9_.]+)?\+0x")


def patterns(name):
    """One regular expression of all lines of a file, which never matches if it is empty"""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    return re.compile("|".join(lines) or "(?!)")


def read_log(path):
    """Without what is no text, and without the carriage returns of the serial line"""
    try:
        return path.read_bytes().decode(errors="replace").replace("\r", "")
    except FileNotFoundError:
        return ""


def split_log(console):
    """The kernel log until the end, or until run.py interrupted a guest that did not end;
    and what came then"""
    log, mark, rest = console.partition(INTERRUPTED)
    return (log[:log.rfind("\n") + 1], rest) if mark else (log, "")


def drop_races(log, functions):
    """KCSAN reports races in the whole kernel.  Take the words that faults() looks for
    from reports that name neither one of these functions nor one of OURS.  Without a list
    of functions, every report but the intended one counts."""
    def judge(match):
        report = match[0]
        ours = not functions or OURS.search(report) or \
            functions.intersection(FUNCTION.findall(report))
        if ours and INTENDED not in report:
            return report
        return re.sub("(BUG: KCSAN|Call Trace):", "race elsewhere", report)

    return re.sub(r"^.*BUG: KCSAN:.*\n(?:(?!.*(?:======|BUG: KCSAN:)).*\n)*", judge, log,
                  flags=re.M)


def labelled(log):
    """Yield (test, line) for each line of the log and the test that was running, without
    the DMA faults and failed allocations that a test has announced.  One of these may be
    kmemleak's own, which then scans the whole object instead of an area."""
    where, faults, failed, trace = "boot", False, False, False
    for line in log.splitlines():
        if "p2pdma-run: " in line:
            word = line.split("p2pdma-run: ")[1]
            if word.startswith("start "):
                where = word.split()[-1]
            elif word.startswith("tests done"):
                where = "shutdown"
            elif word.startswith("faults expected"):
                faults = True
            elif word.startswith("failed allocations expected"):
                failed = True
            elif word.startswith(("faults over", "result")):
                faults = failed = trace = False
        if faults and re.search("DMAR: .*[Ff]ault", line):
            continue
        if failed and "kmemleak: Cannot allocate a scan area," in line:
            continue
        if failed and "vmalloc error:" in line:
            trace = True
            continue
        if trace and "Call Trace:" in line:
            trace = False
            continue
        yield where, line


def faults(log, functions=frozenset()):
    """(where, line) of all that must not be there"""
    deny, allow = patterns("log-deny"), patterns("log-allow")
    return [(where, line) for where, line in labelled(drop_races(log, functions))
            if deny.search(line) and not allow.search(line)]


def blind(log):
    """Why a log proves nothing, or "": a check that does not work must not look like a
    clean log."""
    canary = "BUG: canary"
    if not patterns("log-deny").search(canary) or patterns("log-allow").search(canary):
        return "the log check itself does not work"
    if not log:
        return "no kernel log"
    if not re.search(r"^(\[[^]]*\] )?Linux version [0-9]", log, re.M):
        return "the kernel did not start: no banner in its log"
    return ""


def judge_ktap(text):
    """Of a test with exit status 0: (verdict, reason)"""
    plans = re.findall(r"^1\.\.(\d+)", text, re.M)
    results = re.findall(r"^(?:not )?ok .*", text, re.M)
    bad = [r for r in results if r.startswith("not") and
           not re.search("# (XFAIL|TODO|SKIP)", r)]
    skipped = sum(r.startswith("ok ") and "# SKIP" in r for r in results)
    bail = re.search("^Bail out!.*", text, re.M)
    if bail:
        return "FAIL", bail[0]
    if bad:
        return "FAIL", f"{len(bad)} failed, first: {bad[0]}"
    if len(plans) != 1:
        return "FAIL", f"{len(plans)} plans in its KTAP"
    planned = int(plans[0])
    if len(results) != planned:
        return "FAIL", f"{len(results)} results of {planned} planned"
    if not planned and not re.search(r"^1\.\.0 .*SKIP", text, re.M):
        return "FAIL", "nothing planned"
    if skipped == planned:
        return "SKIP", f"all {planned} results skipped"
    return "PASS", f"{planned} results, {skipped} skipped"


def judge_skip(text):
    """The same for exit status 4"""
    if re.search("^not ok ", text, re.M):
        return "FAIL", "skipped after a failure"
    reasons = re.findall(r"# *SKIP:*[ \t]*([^:\s].*)", text)
    return "SKIP", reasons[-1] if reasons else "no reason given"


def waiting_tasks(text):
    """What the tasks of a guest that was interrupted were waiting in, innermost function
    first; of the kernel's own tasks, only those in state D: others may be idle"""
    for task in re.split(r"^(?=.*task:\S)|^.*(?:Showing|end Kernel panic).*$", text,
                         flags=re.M):
        head = re.match(r".*?(task:.*?) *(state:(.))(.*)", task)
        if not head or (re.search(" p?pid:2 ", head[4]) and head[3] != "D"):
            continue
        calls = [line.split()[-1].split("+")[0] for line in task.splitlines()
                 if re.search(r"\+0x\S*/0x\S*$", line) and " ? " not in line
                 and "schedule+0x" not in line]
        yield " < ".join([f"{head[1]} {head[2]}", *calls[:4]])


class Run:
    """log: the directory; status: QEMU's; late: what the guest did not do in time, or "" """

    def __init__(self, log, status, late, functions):
        self.log = log
        self.status = status
        self.late = late
        self.console, self.interrupted = split_log(read_log(log / "console.log"))
        self.output = read_log(log / "output.log")
        self.reports = read_log(log / "result.log").splitlines()
        self.faults = faults(self.console, functions)
        self.blind = blind(self.console)

    def report(self, word, test=None):
        """The words of init's first line that begins with this word, and this test"""
        lines = [line.split() for line in self.reports]
        return next((line for line in lines if line[:1] == [word] and
                     (test is None or line[1:2] == [test])), None)

    def guest_reasons(self):
        """What went wrong with the guest"""
        reasons = [line for line in self.reports if line.startswith("error ")]
        if self.late:
            reasons.append(self.late)
        elif self.status:
            said = read_log(self.log / "qemu.log").splitlines() or [""]
            reasons.append(f"QEMU failed ({self.status}): {said[-1]}")
        if "end" not in self.reports:
            reasons.append("the guest did not reach its end")
        return reasons

    def own_result(self, test):
        """What the test itself sent: (verdict, reason)"""
        result = self.report("result", test)
        if not result:
            started = self.report("start", test)
            return "FAIL", "no result" if started else "never started"
        # The last line of a test may have no end.
        marks = [f"# p2pdma-run: {w} {re.escape(test)}$" for w in ("start", "end")]
        text = re.search(f"{marks[0]}(.*?){marks[1]}", self.output, re.M | re.S)
        judge = {"0": judge_ktap, "4": judge_skip}.get(result[2])
        if not judge:
            return "FAIL", f"exit status {result[2]}"
        return judge(text[1] if text else "")

    def doubts(self, test):
        """Why its own result does not count, or why it has none.  A guest that ends early
        does not fail the tests that had already ended."""
        reasons = [self.blind] if self.blind else []
        if not self.report("result", test):
            reasons += self.guest_reasons()
        elif f"p2pdma-run: result {test} " not in self.console:
            reasons.append("the kernel log ends before the test")
        return reasons

    def judge(self, test):
        """(verdict, reason)"""
        verdict, reason = self.own_result(test)
        fault = next((line for where, line in self.faults if where == test), None)
        others = [f"kernel log: {fault}"] if fault else []
        others += self.doubts(test)
        if not others:
            return verdict, reason
        return "FAIL", "; ".join(([reason] if verdict == "FAIL" else []) + others)

    def others(self):
        """What went wrong with the guest, faults outside of all tests, and leaks fail the
        run under names of their own."""
        reasons = self.guest_reasons()
        if reasons:
            yield "guest", "; ".join(reasons)
        for name in ("boot", "shutdown"):
            fault = next((line for where, line in self.faults if where == name), None)
            if fault:
                yield name, f"kernel log: {fault}"
        leaks = int((self.report("kmemleak") or [0, 0])[1])
        if leaks:
            yield "kmemleak", f"{leaks} suspected leaks"

    def show(self):
        """What is known about a run that went wrong"""
        lines = [f"console: {line}" for line in self.console.splitlines()[-15:]]
        for line in [*lines, *waiting_tasks(self.interrupted)]:
            print(f"# {line}")

    def verdict(self, tests):
        """Print a line for each test, return the run's exit status."""
        (self.log / "faults.log").write_text(
            "".join(f"{where}\t{line}\n" for where, line in self.faults))
        if self.guest_reasons():
            self.show()
        verdicts = set()
        for test in tests:
            verdict, reason = self.judge(test)
            seconds = (self.report("result", test) or [])[3:]
            print(f"run: {test}: {verdict} ({reason})" +
                  "".join(f" {number} s" for number in seconds))
            verdicts.add(verdict)
        for name, reason in self.others():
            print(f"run: {name}: FAIL ({reason})")
            verdicts.add("FAIL")
        return 1 if "FAIL" in verdicts else 0 if "PASS" in verdicts else 4


def main():
    log = split_log(read_log(Path(sys.argv[1])))[0]
    found = [blind(log)] if blind(log) else [line for _, line in faults(log)]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
