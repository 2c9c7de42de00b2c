#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The runner's verdict and its dialogue with QEMU, tried on made-up logs and answers: no
guest is started."""

import contextlib
import io
import json
import re
import shutil
import signal
import socket
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

import control
import topology
import verdict

PASSED = "1..1\nok 1 x"
PASS = r"run: a.sh: PASS \(.*\nexit 0"
BANNER = "[    0.000000] Linux version 7.3.4"

# What the kernel of a guest that did not end says after an NMI
INTERRUPTED = """\
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
"""


def fail(reason):
    return rf"run: a.sh: FAIL \({re.escape(reason)}.*\nexit 1"


class Logs(unittest.TestCase):
    """The logs of a run, which its test may damage"""

    def setUp(self):
        self.log = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.log)
        self.status = 0
        self.late = ""
        self.functions = frozenset()
        self.make_run()

    def make_run(self, kernel="all is well", status=0, output=PASSED):
        """With the test a.sh"""
        self.write("console", BANNER, "p2pdma-run: start a.sh", *kernel.splitlines(),
                   f"p2pdma-run: result a.sh {status} 7", "p2pdma-run: tests done",
                   end="\r\n")
        self.write("result", "up", "start a.sh", f"result a.sh {status} 7", "tests done",
                   "end")
        self.write("output", "# p2pdma-run: start a.sh", output, "# p2pdma-run: end a.sh")
        self.write("qemu", "qemu: a complaint")

    def path(self, name):
        return self.log / f"{name}.log"

    def write(self, name, *lines, end="\n"):
        self.path(name).write_bytes("".join(line + end for line in lines).encode())

    def add(self, name, line, at=None):
        lines = self.path(name).read_text().splitlines()
        lines.insert(len(lines) if at is None else at, line)
        self.write(name, *lines)

    def drop(self, name, pattern):
        lines = self.path(name).read_text().splitlines()
        self.write(name, *[line for line in lines if not re.search(pattern, line)])

    def interrupt(self):
        """As run.py does with a guest that did not end"""
        for line in INTERRUPTED.splitlines():
            self.add("console", f"[    2.000000] {line}")
        self.late = "no end within 9 s"

    def judge(self, *tests):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            run = verdict.Run(self.log, self.status, self.late, self.functions)
            status = run.verdict(tests or ["a.sh"])
        return f"{said.getvalue()}exit {status}"

    def wants(self, pattern, *tests):
        said = self.judge(*tests)
        self.assertTrue(re.search(pattern, said, re.S), f"{said}\nis not\n{pattern}")


class KernelLog(Logs):
    def kernel(self, pattern, *lines):
        with self.subTest(lines):
            self.make_run("\n".join(lines))
            self.wants(pattern)

    def test_denied(self):
        for line in (verdict.HERE / "fixtures/denied").read_text().splitlines():
            self.kernel(fail("kernel log: "), f"[    1.000000] {line}")

    def test_harmless(self):
        self.kernel(PASS, *(f"[    1.000000] {line}" for line in
                            (verdict.HERE / "fixtures/clean").read_text().splitlines()))

    def test_announced_faults(self):
        expected, over = "p2pdma-run: faults expected", "p2pdma-run: faults over"
        fault = "DMAR: [DMA Read NO_PASID] Request device [00:10.0] fault addr 0x1000"
        self.kernel(PASS, expected, fault, over)
        self.kernel(fail("kernel log: DMAR"), expected, fault, over, fault)
        self.kernel(fail("kernel log: DMAR"), fault, expected, over)
        self.kernel(fail("kernel log: WARNING"), expected, "WARNING: x", over)

    def test_announced_faults_end_with_the_test(self):
        self.make_run("p2pdma-run: faults expected")
        self.add("console", "DMAR: [DMA Read NO_PASID] fault addr 0x1000")
        self.wants(r"run: shutdown: FAIL \(kernel log: DMAR.*exit 1")

    def test_all_of_it_is_kept(self):
        self.make_run("WARNING: x\nWARNING: y")
        self.judge()
        self.assertEqual(self.path("faults").read_text(), "a.sh\tWARNING: x\na.sh\tWARNING: y\n")

    def test_announced_failed_allocations(self):
        expected, failed = "p2pdma-run: failed allocations expected", "x: vmalloc error: y"
        area = "kmemleak: Cannot allocate a scan area, scanning"
        trace, fault = "Call Trace:", "DMAR: [DMA Read NO_PASID] fault addr 0x1000"
        self.kernel(PASS, expected, failed, trace)
        self.kernel(PASS, expected, area)
        self.kernel(fail("kernel log: kmemleak"), area)
        self.kernel(fail("kernel log: Call Trace"), failed, trace)
        self.kernel(fail("kernel log: Call Trace"), expected, failed, trace, trace)
        self.kernel(fail("kernel log: DMAR"), expected, failed, fault)

    def test_races(self):
        race, end = "BUG: KCSAN: data-race in a / b", "=================="
        counts = fail("kernel log: BUG: KCSAN")
        intended = "BUG: KCSAN: data-race in __synchronize_hardirq / handle_irq_event"
        self.functions = frozenset(["bio_add_page", "submit_bio", "add", "task"])
        self.kernel(PASS, race, " a+0x1/0x2", end)
        self.kernel(counts, race, " pci_p2pmem_x+0x1/0x2", end)
        self.kernel(counts, race, " a+0x1/0x2", " bio_add_page+0x1/0x2", " b+0x1/0x2", end)
        self.kernel(counts, race, " bio_add_page.constprop.0+0x1/0x2", end)
        self.kernel(PASS, race, "by task 7", " __bio_add_page+0x1/0x2", end)
        self.kernel(PASS, race, " bio_add_page_x+0x1/0x2", " radd+0x1/0x2", end)
        self.kernel(PASS, intended, " nvme_reset_work+0x1/0x2", end)
        self.kernel(PASS, race, " a+0x1/0x2", "Call Trace:", end)
        self.kernel(counts, race, " a+0x1/0x2", race, " submit_bio+0x1/0x2", end)
        self.kernel(counts, intended, " x+0x1/0x2", race, " submit_bio+0x1/0x2", end)
        self.kernel(fail("kernel log: WARNING"), race, " a+0x1/0x2", "WARNING: x", end)
        self.kernel(fail("kernel log: BUG: x"), race, " a+0x1/0x2", end, "BUG: x p2p")
        self.functions = frozenset()
        self.kernel(counts, race, " a+0x1/0x2", end)


class Ktap(Logs):
    def ktap(self, pattern, status, output):
        with self.subTest(output):
            self.make_run(status=status, output=output)
            self.wants("run: a.sh: " + pattern)

    def test_pass(self):
        self.ktap(r"PASS \(2 results, 1 skipped\) 7 s\nexit 0", 0,
                  "1..2\nok 1 x\nok 2 y # SKIP z")
        self.ktap("PASS.*exit 0", 0, "1..1\nnot ok 1 x # XFAIL y")

    def test_last_line_without_an_end(self):
        self.write("output", "# p2pdma-run: start a.sh", PASSED,
                   "12 %# p2pdma-run: end a.sh")
        self.wants(PASS)

    def test_carriage_return_is_no_line(self):
        self.ktap(r"FAIL \(0 plans", 0, "progress\r1..1\rok 1 x")

    def test_skip(self):
        self.ktap(r"SKIP \(no drive\) 7 s\nexit 4", 4, "1..0 # SKIP no drive")
        for nothing in ("", " ", ":", ": "):
            self.ktap(r"SKIP \(no reason given\)", 4, f"1..0 # SKIP{nothing}")
        self.ktap("SKIP.*exit 4", 0, "1..1\nok 1 x # SKIP y")
        self.ktap(r"FAIL \(skipped after.*exit 1", 4, "1..2\nnot ok 1 x")

    def test_fail(self):
        self.ktap(r"FAIL \(exit status 3\) 7 s\nexit 1", 3, PASSED)
        self.ktap(r"FAIL \(1 failed.*exit 1", 0, "1..1\nnot ok 1 x")
        self.ktap(r"FAIL \(1 results of 2 planned\).*exit 1", 0, "1..2\nok 1 x")
        self.ktap(r"FAIL \(0 plans.*exit 1", 0, "ok 1 x")
        self.ktap(r"FAIL \(0 plans.*exit 1", 0, "")
        self.ktap(r"FAIL \(2 plans.*exit 1", 0, "1..1\nok 1 x\n1..1")
        self.ktap(r"FAIL \(nothing planned\).*exit 1", 0, "1..0")
        self.ktap(r"FAIL \(Bail out! y\).*exit 1", 0, "1..1\nok 1 x\nBail out! y")


class Guest(Logs):
    """A good run, then something happens to it."""

    def test_empty_kernel_log(self):
        self.write("console")
        self.wants(fail("no kernel log"))

    def test_no_banner(self):
        self.drop("console", "Linux")
        self.wants(fail("the kernel did not start"))

    def test_no_result(self):
        self.drop("result", "result a.sh")
        self.wants(fail("no result"))

    def test_not_started(self):
        self.drop("result", "a.sh")
        self.wants(fail("never started"))

    def test_no_end(self):
        self.drop("result", "^end")
        self.wants(r"run: guest: FAIL \(the guest did not reach.*exit 1")

    def test_time_limit(self):
        self.late = "no end within 9 s"
        self.wants(r"run: guest: FAIL \(no end within 9 s.*exit 1")

    def test_interrupted(self):
        self.interrupt()
        self.wants(r"# console: .*tests done.*\n"
                   r"# task:fio state:S < read_events < do_io_getevents < do_syscall_64 "
                   r"< entry_SYSCALL_64_after_hwframe\n"
                   r"# task:kworker/0:2 state:D < msleep\nrun: a.sh: PASS.*"
                   r"run: guest: FAIL \(no end within 9 s\)\nexit 1")

    def test_qemu_fails(self):
        self.status = 1
        self.wants(r"run: guest: FAIL \(QEMU failed \(1\): qemu: a complaint.*exit 1")

    def test_error_of_init(self):
        self.add("result", "error no device")
        self.wants(r"run: guest: FAIL \(error no device.*exit 1")

    def test_leak(self):
        self.add("result", "kmemleak 2")
        self.wants(r"run: kmemleak: FAIL \(2.*exit 1")

    def test_splat_at_boot(self):
        self.add("console", "WARNING: x", at=1)
        self.wants(r"run: boot: FAIL \(kernel log: WARNING.*exit 1")

    def test_splat_at_the_end(self):
        self.add("console", "WARNING: x")
        self.wants(r"run: shutdown: FAIL \(kernel log: WARNING.*exit 1")

    def test_broken_patterns(self):
        for pattern in ("(?!)", "BUG"):
            allow = pattern if pattern == "BUG" else "(?!)"
            with mock.patch.object(verdict, "patterns", lambda name, p=pattern, a=allow:
                                   re.compile(a if name == "log-allow" else p)):
                self.wants(fail("the log check itself"))

    def test_no_patterns(self):
        (self.log / "log-deny").write_text("# none\n")
        shutil.copy(verdict.HERE / "log-allow", self.log)
        with mock.patch.object(verdict, "HERE", self.log):
            self.wants(fail("the log check itself"))


class EarlyEnd(Logs):
    """a.sh has ended, b.sh runs, c.sh waits, and then something happens."""

    A = r"run: a.sh: PASS \(1 results, 0 skipped\) 7 s\n"

    def setUp(self):
        super().setUp()
        self.drop("result", "tests done|^end")
        self.drop("console", "tests done")
        self.add("result", "start b.sh")
        self.add("console", "p2pdma-run: start b.sh\r")

    def wants_three(self, pattern):
        self.wants(pattern + "\nexit 1$", "a.sh", "b.sh", "c.sh")

    def test_hang(self):
        self.interrupt()
        end = r"no end within 9 s; the guest did not reach its end\)"
        self.wants_three(rf"{self.A}run: b.sh: FAIL \(no result; {end}\n"
                         rf"run: c.sh: FAIL \(never started; {end}\n"
                         rf"run: guest: FAIL \({end}")

    def test_panic(self):
        panic = "Kernel panic - not syncing: x"
        self.add("console", panic)
        end = r"the guest did not reach its end\)"
        self.wants_three(rf"{self.A}run: b.sh: FAIL \(no result; kernel log: {panic}; {end}\n"
                         rf"run: c.sh: FAIL \(never started; {end}\n"
                         rf"run: guest: FAIL \({end}")

    def test_panic_whose_log_is_cut(self):
        self.drop("console", "result a.sh")
        self.wants_three(r"run: a.sh: FAIL \(the kernel log ends before.*b.sh: FAIL.*")


class Dialogue(unittest.TestCase):
    def setUp(self):
        ours, self.qemu = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(self.qemu.close)
        self.monitor = control.Monitor(ours)
        # Rather than to wait for ever
        signal.signal(signal.SIGALRM, lambda *_: self.fail("no end within 9 s"))
        signal.alarm(9)
        self.addCleanup(signal.alarm, 0)

    def ask(self, **answer):
        """QEMU says this after what nobody asked for."""

        def qemu():
            with self.qemu, self.qemu.makefile("rw") as stream:
                stream.readline()   # qmp_capabilities
                question = json.loads(stream.readline())
                for line in ({"event": "DEVICE_DELETED", "data": {}}, {"return": {}},
                             {"return": {}, "id": question["id"] - 1},
                             {**answer, "id": question["id"]} if answer else {}):
                    stream.write(json.dumps(line) + "\n")

        thread = threading.Thread(target=qemu)
        thread.start()
        try:
            self.monitor.ask("x")
        finally:
            thread.join()

    def test_ok(self):
        self.ask(**{"return": {}})

    def test_ok_in_words(self):
        self.ask(**{"return": ""})

    def test_error(self):
        with self.assertRaises(control.Failure):
            self.ask(error={})

    def test_words(self):
        with self.assertRaises(control.Failure):
            self.ask(**{"return": "no such device"})

    def test_no_answer(self):
        with self.assertRaises(control.Failure):
            self.ask()

    def test_killed(self):
        """What it has not read makes this a reset of the connection."""
        for last in (b"", b'{"ret'):
            threading.Timer(0.1, lambda last=last: (self.qemu.send(last), self.qemu.close())
                            ).start()
            with self.assertRaises((control.Failure, OSError)):
                self.monitor.ask("x")
            self.setUp()

    def test_does_not_wait_for_a_qemu_that_hangs(self):
        with self.assertRaises(BlockingIOError):
            while True:
                self.monitor.send("query-status")


class Commands(unittest.TestCase):
    """Of the control channel, without a guest"""

    def setUp(self):
        self.work = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.work)
        self.machine = topology.Machine("switch", str(self.work))
        self.monitor = mock.Mock()
        self.control = control.Control(self.machine, self.monitor, True)
        with (self.work / "p2pmem0.bar").open("wb") as bar:
            bar.truncate(64 << 20)

    def wants(self, pattern, *question):
        self.assertRegex(self.control.answer(*question, *[""] * (3 - len(question))), pattern)

    def write(self, name, offset, data):
        with (self.work / name).open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def test_witness(self):
        self.wants("^absent$", "witness", "p2pmem0", "two  words")
        self.write("p2pmem0.bar", (40 << 20) + 7, b"two  words")
        self.wants(f"^found {(40 << 20) + 7}$", "witness", "p2pmem0", "two  words")
        self.wants("^error no BAR 'x'$", "witness", "x", "y")

    def test_witness_that_cannot_look(self):
        with mock.patch("os.lseek", side_effect=OSError(22, "x")):
            self.wants("^error", "witness", "p2pmem0", "x")

    def test_scrub(self):
        self.wants("^ok$", "scrub", "p2pmem0")
        self.assertEqual((self.work / "p2pmem0.bar").read_bytes(), b"\xa5" * (64 << 20))

    def test_same(self):
        data = bytes(range(256)) * 256
        self.write("p2pmem0.bar", 4096, data)
        self.write("drive0.img", 0, data)
        self.wants("^ok$", "same", "p2pmem0", "4096 drive0")
        self.wants("^different$", "same", "p2pmem0", "4097 drive0")
        self.wants("^different$", "same", "p2pmem0", f"{64 << 20} drive0")
        self.wants("^different$", "same", "p2pmem0", "x drive0")

    def test_count(self):
        (self.work / "insns").write_text("1 2\n10 50 20 30 40\n")
        self.wants("^5 20 30$", "count")
        (self.work / "insns").write_text("")
        self.wants("^error no samples$", "count")

    def test_plug(self):
        self.wants("^ok$", "plug", "p2pmem0")
        (memory,), (device,) = (call.args for call in self.monitor.line.call_args_list)
        self.assertRegex(memory, "^object_add .*,id=mem-p2pmem0-1,.*p2pmem0.bar$")
        self.assertRegex(device, "^device_add .*,id=p2pmem0,memdev=mem-p2pmem0-1,")
        self.wants("^error no device 'x'$", "plug", "x")

    def test_link_error(self):
        self.monitor.line.side_effect = control.Failure("OK id: drive0-port")
        self.wants("^ok$", "link_error", "drive0")
        self.monitor.line.assert_called_with("pcie_aer_inject_error drive0-port DLP")
        self.monitor.line.side_effect = control.Failure("no such device")
        self.wants("^error no such device$", "link_error", "drive0")

    def test_what_is_unexpected(self):
        self.wants("^error unknown command 'serve'$", "serve")
        self.wants("^error TypeError", "link_error", "shared")


if __name__ == "__main__":
    unittest.main()
