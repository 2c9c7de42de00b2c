#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Run all tests and say how each went.

    check.py            what "make check" runs
    check.py all        the slow ones as well
    check.py more       the slow ones alone, or of these only the PARTS that are named
    check.py soak       devices that come and go, for SOAK_MINUTES
    check.py coverage   which lines of the series no test executes
    check.py test       run the tests T on the terminal, in the topology TOPO, on the kernel KERNEL
    check.py gdb        the same, in a guest that waits for a debugger
    check.py bisect     the same, on what bisect.sh has built

Which tests run where is in the table "matrix" beside this file.  SEED sets the seed of the
random tests; by default, check and coverage use 1, and all others a new one each time.

The results stay in build/results, one directory for each run, with its logs.  The last
line is "N passed, N failed, N skipped"; the exit status is 1 if one failed.  Anything
that cannot be built or started counts as failed.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from matrix import Guest, Matrix
from results import Results, lib_sh

SCRIPTS = Path(__file__).resolve().parent
TOP = SCRIPTS.parent
BUILD = TOP / "build"
LOGS = BUILD / "log"
QEMU = TOP / "tools/testing/selftests/p2pdma/qemu"
DECODE = BUILD / "linux/scripts/decode_stacktrace.sh"
CACHE = Path(lib_sh('echo "$CACHE"').strip())
CYCLES = {"test": ["P2P_CYCLES=49"], "debug": ["P2P_CYCLES=25"]}   # of a round of soak
KUNIT_SUITES = "blk-dma-addr", "p2pmem-pool"

# What "make check" runs beside the guests, and after them, when nothing must disturb it
BESIDE = ("lint.sh", "sizes.sh", "kunit.sh", "test-tree.sh", "test-check.py",
          "tree.sh postings", f"{QEMU}/test-verdict.py")
AFTER = ("curve.sh", f"{QEMU}/test-runner.sh --kernel {BUILD}/kernel-series-test", "cost.sh")
# What check-all adds to guests, by part
MORE = {
    "cost": ["cost.sh nvmet"],
    "mutants": ["mutants.sh"],
    "patches": ["kernel.sh each series test", "kernel.sh postings series test"],
    "deb": ["deb-test.sh"],
    "portability": ["portability.sh"],
}


def die(what, *what_to_do):
    print(f"error: {what}", *what_to_do, sep="\n       ", file=sys.stderr)
    sys.exit(1)


def setting(name, default, pattern, meaning):
    """A variable of the environment; unset or empty is the default."""
    value = os.environ.get(name) or default
    if value and not re.fullmatch(pattern, value):
        die(f"{name}={value}: not {meaning}")
    return value


def get_seed(default=""):
    return setting("SEED", default, r"[1-9]\d{0,8}", "a number from 1 to 999999999")


def tests_dir(kernel):
    return BUILD / f"tests-{kernel.source}-{kernel.config}"


def kernel_dir(kernel):
    return BUILD / f"kernel-{kernel.source}-{kernel.config}"


def installed(kernel):
    lines = (tests_dir(kernel) / "kselftest-list.txt").read_text().splitlines()
    return [line.split(":")[1] for line in lines]


def item_name(command):
    script, *arguments = command.split()
    return "-".join([Path(script).stem, *[a for a in arguments if not re.search("/|--", a)]])


def how_to_build(kernel):
    steps = ["functions.sh"] if kernel.name == "kcsan" else []
    return steps + [f"kernel.sh {what} {kernel.source} {kernel.config}"
                    for what in ("build", "tests")]


def run_command(matrix, guest, tests, seed, log):
    """The command line of run.py"""
    parameters = matrix.parameters_for(tests) + guest.parameters
    variables = guest.variables + ([f"P2P_SEED={seed}"] if seed else [])
    return [f"{QEMU}/run.py", "--kernel", f"{kernel_dir(guest.kernel).resolve()}",
            "--tests", f"{tests_dir(guest.kernel).resolve()}",
            "--log", f"{log}", "--topology", guest.topology,
            "--timeout", f"{guest.minutes * 60 * guest.kernel.slower}",
            "--append", " ".join(parameters), *guest.kernel.options,
            *[o for variable in variables for o in ("--var", variable)], *tests]


class Processes:
    """The running child processes.  When this program is interrupted, end them and start no
    more."""

    def __init__(self):
        self.running = set()
        self.stopped = False

    def run(self, command, each_line):
        """Return the exit status."""
        process = subprocess.Popen(
            command, cwd=TOP, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        self.running.add(process)
        if self.stopped:
            self.stop()
        with process:
            for line in process.stdout:
                each_line(line)
        self.running.discard(process)
        return process.returncode

    def stop(self, *_):
        """The second time, by force"""
        how = signal.SIGKILL if self.stopped else signal.SIGTERM
        self.stopped = True
        for process in list(self.running):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, how)


class Check:
    def __init__(self, seed):
        self.matrix = Matrix()
        self.seed = seed
        self.results = Results(BUILD / "results", LOGS, CACHE / "durations.json")
        self.processes = Processes()
        self.ready = {}

    def run(self, name, command, shown=False):
        """Run it, keep its output; return its status, the seconds and the log."""
        log = self.results.logs / f"{name}.log"
        start = time.monotonic()
        with log.open("w", buffering=1) as file:
            def keep(line):
                file.write(line)
                if shown:
                    self.results.show(line)
            status = self.processes.run(command, keep)
        seconds = time.monotonic() - start
        if not self.processes.stopped:
            self.results.finished(name, seconds)
        return status, seconds, log

    # --- items: scripts that count as one result each ---

    def item(self, command, *, shown=True, niceness=0):
        """Run a script; return False if it failed."""
        if self.processes.stopped:
            return False
        script, *arguments = command.split()
        path = SCRIPTS / script     # an absolute path replaces SCRIPTS
        name = item_name(command)
        status, seconds, log = self.run(
            name, ["nice", "-n", str(niceness), str(path), *arguments], shown)
        verdict = {0: "PASS", 4: "SKIP"}.get(status, "FAIL")
        self.results.add(verdict, name, seconds=seconds, log=log)
        return verdict != "FAIL"

    def built(self, kernel):
        """Build a kernel and its tests, once.  If that fails, it is one failure, not one for
        each guest."""
        if kernel.name not in self.ready:
            self.ready[kernel.name] = all([self.item(step) for step in how_to_build(kernel)])
        return self.ready[kernel.name]

    # --- guests ---

    def guest(self, guest):
        if self.processes.stopped:
            return
        tests = installed(guest.kernel) if guest.tests == ["*"] else guest.tests
        directory = self.results.logs / guest.name
        command = run_command(self.matrix, guest, tests, self.seed_of(guest), directory)
        directory.mkdir()
        rerun = directory / "rerun.sh"
        rerun.write_text(f"#!/bin/sh\ncd {shlex.quote(str(TOP))} || exit\n"
                         f"export P2PDMA_CACHE={shlex.quote(os.environ['P2PDMA_CACHE'])}\n"
                         + shlex.join([f"{directory}/rerun" if word == str(directory) else word
                                       for word in command]) + "\n")
        rerun.chmod(0o755)
        status, _, log = self.run(guest.name, command)
        if status == 1:
            self.decode(guest.kernel, directory, log)
        self.judge(guest, tests, status, log)

    def decode(self, kernel, directory, log):
        """Name lines of the source in the kernel log of a guest that failed, if its kernel
        has debug info."""
        vmlinux = kernel_dir(kernel).resolve() / "vmlinux"
        console, decoded = directory / "console.log", directory / "decoded.log"
        if not (vmlinux.exists() and console.exists()):
            return
        with console.open() as log_in, decoded.open("w") as log_out:
            subprocess.run(["timeout", "120", DECODE, vmlinux, "auto",
                            f"{tests_dir(kernel).resolve()}/p2pdma/modules"],
                           stdin=log_in, stdout=log_out, stderr=subprocess.STDOUT, check=False)
        with log.open("a") as file:
            file.write(f"# kernel log with lines of the source: {decoded}\n")

    def judge(self, guest, tests, status, log):
        """The runner judges each test, and names what else is wrong."""
        found = re.findall(r"^run: (\S+): (PASS|FAIL|SKIP) \((.*)\)(?: (\d+) s)?$",
                           log.read_text(errors="replace"), re.M)
        seen = {what for what, *_ in found}
        found += [(test, "FAIL", "not run", 0) for test in tests if test not in seen]
        if status not in (0, 4) and all(verdict != "FAIL" for _, verdict, *_ in found):
            found.append(("guest", "FAIL", f"the runner ended with status {status}", 0))
        where = " ".join([guest.kernel.name, guest.topology, *guest.parameters])
        for what, verdict, details, seconds in found:
            item = self.results.add(
                self.verdict(guest, verdict, details), f"{what} {where}", details,
                int(seconds or 0), log=log, kernel=guest.kernel.name,
                again=self.again(guest, [what] if what in tests else tests))
            self.judge_skips(guest, item)

    def judge_skips(self, guest, item):
        """Of the results of a test that has passed, where every device exists"""
        if item["verdict"] != "PASS" or guest.kernel.name == "base" or guest.topology == "none":
            return
        for result in item["results"]:
            if result["verdict"] == "SKIP" and not self.matrix.may(guest.kernel, result["name"]):
                self.results.add("FAIL", f"{item['name']}: {result['name']}",
                                 "no reason to skip it, see scripts/matrix")

    @staticmethod
    def verdict(guest, verdict, details):
        """Accept a skip on the unpatched kernel only.  In topology none, require one that
        gives a reason."""
        if guest.topology == "none":
            return "PASS" if verdict == "SKIP" and details != "no reason given" else "FAIL"
        return "FAIL" if verdict == "SKIP" and guest.kernel.name != "base" else verdict

    def seed_of(self, guest):
        """The lines that are executed have to be the same each time."""
        return self.seed or ("1" if guest.part == "coverage" else "")

    def again(self, guest, tests):
        settings = {"T": " ".join(tests), "TOPO": guest.topology, "KERNEL": guest.kernel.name,
                    "SEED": self.seed_of(guest), "APPEND": " ".join(guest.parameters),
                    "VARS": " ".join(guest.variables)}
        return shlex.join(["make", "test", *[f"{n}={v}" for n, v in settings.items() if v]])

    def guests(self, parts):
        """A job for each guest of these parts whose kernel can be built"""
        chosen = [g for g in self.matrix.guests if g.part in parts]
        self.results.plan(g.name for g in chosen)
        return [lambda g=g: self.guest(g) for g in chosen if self.built(g.kernel)]

    def queue(self, width, jobs):
        """Run the jobs, width at a time.  One that raises an exception counts as failed."""
        def guarded(job):
            try:
                job()
            except Exception:
                self.results.add("FAIL", "check.py", traceback.format_exc())

        with ThreadPoolExecutor(width) as pool:
            list(pool.map(guarded, jobs))

    # --- what the commands run ---

    def forgotten_tests(self):
        in_guests = {test for guest in self.matrix.guests for test in guest.tests
                     if guest.kernel.source == "series"}
        for test in installed(self.matrix.kernels["test"]):
            if test not in in_guests:
                self.results.add("FAIL", test, "no guest runs it, see scripts/matrix")

    def check(self):
        self.results.plan(map(item_name, [*BESIDE, *AFTER]))
        guests = self.guests(["check"])
        if self.ready["test"]:
            self.forgotten_tests()
        self.item("tree.sh series")     # what lint reads
        guests.append(lambda: self.item("demo.sh", shown=False))
        # The guests leave a fifth of the CPUs idle.
        beside = [lambda i=i: self.item(i, shown=False, niceness=19) for i in BESIDE]
        self.queue(2, [lambda: self.queue(2, guests), lambda: self.queue(1, beside)])
        for item in AFTER:
            self.item(item)

    def more(self, parts):
        self.queue(2, self.guests(parts))
        for part in parts:
            if part == "coverage":
                self.coverage()
            for item in MORE.get(part, []):
                self.item(item)

    def coverage(self):
        """Add up what the guests have executed.  The tests in the kernel ran at boot."""
        text = "".join(p.read_text(errors="replace")
                       for p in self.results.logs.glob("coverage-*kunit*/console.log"))
        for suite in KUNIT_SUITES:
            passed = re.search(rf"\] ok \d+ {suite}\r?$", text, re.M)
            self.results.add("PASS" if passed else "FAIL", f"{suite} in a guest")
        counts = sorted(map(str, self.results.logs.glob("coverage-*/coverage.tar")))
        gcno = kernel_dir(self.matrix.kernels["coverage"]) / "gcno"
        self.item(f"coverage.py {gcno} {TOP}/base/not-executed {' '.join(counts)}")

    def soak(self, minutes):
        """Run churn.sh until the time is up, not counting the builds, and finish the round
        in progress."""
        kernels = [k for k in map(self.matrix.kernels.get, ("test", "debug")) if self.built(k)]
        end = time.monotonic() + minutes * 60
        number = 0
        while kernels and time.monotonic() < end and not self.processes.stopped:
            number += 1
            guests = [Guest(kernel, topology, 15, ["churn.sh"],
                            variables=[f"ROUND={number}", *CYCLES[kernel.name]])
                      for topology in ("switch", "bridge", "iommu-lazy", "iommu-strict")
                      for kernel in kernels]
            self.queue(2, [lambda g=g: self.guest(g) for g in guests])


def all_parts(matrix):
    parts = dict.fromkeys([*matrix.parts, *MORE])
    del parts["check"]
    return list(parts)


def get_parts(matrix):
    there, parts = all_parts(matrix), os.environ.get("PARTS", "").split()
    for part in parts:
        if part not in there:
            die(f"PARTS: there is no {part}", f"there are: {' '.join(there)}")
    return parts or there


def run_parts(check, what, parts, minutes):
    # Without build/linux as it should be, everything below would test something else.
    if check.item("tree.sh tree"):
        if what in ("check", "all"):
            check.check()
        if what in ("all", "more", "coverage"):
            check.more(parts)
        if what == "soak":
            check.soak(minutes)
    if check.processes.stopped:
        check.results.add("FAIL", "check.py", "interrupted")
    elif what in ("check", "all"):
        everything = what == "all" and parts == all_parts(check.matrix)
        check.results.never_executed(set() if everything else check.matrix.only_in_all)


def run_all(what):
    seed = get_seed("1" if what in ("check", "coverage") else "")
    minutes = int(setting("SOAK_MINUTES", "60", r"[1-9]\d*", "a number of minutes"))
    parts = ["coverage"] if what == "coverage" else get_parts(Matrix())
    check = Check(seed)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, check.processes.stop)
    check.queue(1, [lambda: run_parts(check, what, parts, minutes)])
    return check.results.write()


def get_kernel(matrix, what):
    name = os.environ.get("KERNEL")
    if what == "gdb":
        if name:
            die(f"KERNEL={name}: make gdb has a kernel of its own")
        return matrix.kernels["gdb"]
    if (name or "test") not in matrix.kernels:
        die(f"KERNEL={name}: there is no such kernel", f"there are: {' '.join(matrix.kernels)}")
    return matrix.kernels[name or "test"]


def one_guest(what):
    """With its output on the terminal"""
    matrix = Matrix()
    kernel = get_kernel(matrix, what)
    if what == "bisect":
        kernel = replace(kernel, source="bisect")
    else:
        for step in how_to_build(kernel):
            if subprocess.run([SCRIPTS / step.split()[0], *step.split()[1:]]).returncode:
                return 1
    tests, there = os.environ.get("T", "").split(), installed(kernel)
    if not tests:
        die("T is not set: name a test", f"there are: {' '.join(there)}")
    for test in tests:
        if test not in there:
            die(f"T={test}: no such test", f"there are: {' '.join(there)}")
    if what == "gdb":
        port = kernel.options[kernel.options.index("--gdb") + 1]
        print("The guest waits for a debugger.  In another terminal, for example:\n"
              f"gdb {kernel_dir(kernel)}/vmlinux -ex 'target remote :{port}'\n"
              "    -ex 'hbreak bio_add_dma_addr' -ex continue -ex backtrace", file=sys.stderr)
    guest = Guest(kernel, os.environ.get("TOPO") or "bridge", 15, tests,
                  parameters=os.environ.get("APPEND", "").split(),
                  variables=os.environ.get("VARS", "").split())
    command = run_command(matrix, guest, tests, get_seed(), LOGS.resolve() / what)
    return os.execv(command[0], command)


def main():
    os.environ["P2PDMA_CACHE"] = str(CACHE / "qemu")
    what = sys.argv[1] if len(sys.argv) > 1 else "check"
    if what in ("test", "gdb", "bisect"):
        return one_guest(what)
    if what in ("check", "all", "more", "soak", "coverage"):
        return run_all(what)
    return die(f"{what}: there is no such command, see the head of {__file__}")


if __name__ == "__main__":
    sys.exit(main())
