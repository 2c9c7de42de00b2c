#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Tests of check.py: what has to be red is."""

import json
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import check
import matrix
import results


def some_guest(kernel="test", topology="switch", tests=("a.sh",), **rest):
    return matrix.Guest(matrix.Matrix().kernels[kernel], topology, 15, list(tests), **rest)


class Sandbox(unittest.TestCase):
    """A Check whose results are in a directory of its own, and not printed"""

    def setUp(self):
        self.tmp = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name, path in (("BUILD", self.tmp), ("LOGS", self.tmp / "log"),
                           ("CACHE", self.tmp)):
            self.enterContext(mock.patch.object(check, name, path))
        self.enterContext(mock.patch.dict("os.environ", P2PDMA_CACHE=str(self.tmp)))
        self.enterContext(mock.patch.object(results.Results, "show"))
        (self.tmp / "results").mkdir()
        self.check = check.Check("7")

    def found(self):
        return [(i["verdict"], i["name"]) for i in self.check.results.items]

    def script(self, text):
        path = self.tmp / "script.sh"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)


class Items(Sandbox):
    def test_status(self):
        for status, verdict in ((0, "PASS"), (1, "FAIL"), (4, "SKIP"), (127, "FAIL")):
            self.check.item(self.script(f"exit {status}"))
            self.assertEqual(self.found()[-1], (verdict, "script"))

    def test_missing_script(self):
        self.check.queue(1, [lambda: self.check.item("/nowhere/script.sh")])
        self.assertEqual([verdict for verdict, _ in self.found()], ["FAIL"])

    def test_job_that_dies_does_not_stop_the_next(self):
        self.check.queue(1, [lambda: 1 / 0, lambda: self.check.item(self.script("true"))])
        self.assertEqual(self.found(), [("FAIL", "check.py"), ("PASS", "script")])

    def test_kernel_that_cannot_be_built(self):
        with mock.patch.object(check, "how_to_build", lambda k: [self.script("false")]):
            self.assertEqual(self.check.guests(["bpf"]), [])
        self.assertEqual(self.found(), [("FAIL", "script")])

    def test_test_that_is_in_no_guest(self):
        with mock.patch.object(check, "installed", lambda k: ["nvmet.sh", "new.sh"]):
            self.check.forgotten_tests()
        self.assertEqual(self.found(), [("FAIL", "new.sh")])

    def test_interrupted(self):
        self.check.processes.stop()
        self.check.item(self.script("true"))
        self.assertEqual(self.found(), [("FAIL", "script")])


class Guests(Sandbox):
    def judge(self, output, status, **guest):
        """What is said of a runner that prints this and ends with this status"""
        runner = self.script(f"cat <<'END'\n{output}\nEND\nexit {status}")
        with mock.patch.object(check, "run_command", lambda *_: [runner]):
            self.check.guest(some_guest(**guest))
        return self.found()

    def test_passed(self):
        self.assertEqual(self.judge("run: a.sh: PASS (3 results, 0 skipped) 5 s", 0),
                         [("PASS", "a.sh test switch")])
        self.assertEqual(self.check.results.items[0]["seconds"], 5)

    def test_silent_runner(self):
        for status in (0, 4):
            self.assertEqual(self.judge("", status)[-1], ("FAIL", "a.sh test switch"))
            (self.tmp / "log" / "test-switch-a" / "rerun.sh").unlink()
            (self.tmp / "log" / "test-switch-a").rmdir()

    def test_runner_that_fails_after_its_verdicts(self):
        self.assertEqual(self.judge("run: a.sh: PASS (3 results, 0 skipped)", 1)[-1],
                         ("FAIL", "guest test switch"))

    def test_test_that_is_missing(self):
        self.assertEqual(self.judge("run: a.sh: PASS (3 results, 0 skipped)", 0,
                                    tests=["a.sh", "b.sh"])[-1],
                         ("FAIL", "b.sh test switch"))

    def test_what_is_not_a_test(self):
        self.assertEqual(self.judge("run: a.sh: PASS (1 results, 0 skipped)\n"
                                    "run: boot: FAIL (kernel log: BUG: x)", 1)[-1],
                         ("FAIL", "boot test switch"))
        self.assertIn("T=a.sh", self.check.results.items[-1]["again"])

    def test_skip(self):
        for kernel, verdict in (("test", "FAIL"), ("base", "SKIP")):
            self.assertEqual(self.judge("run: a.sh: SKIP (no devices)", 4, kernel=kernel)[-1],
                             (verdict, f"a.sh {kernel} switch"))

    def test_machine_without_devices(self):
        for number, (output, verdict) in enumerate((("SKIP (no drive0)", "PASS"),
                                                    ("SKIP (no reason given)", "FAIL"),
                                                    ("PASS (3 results, 0 skipped)", "FAIL"))):
            found = self.judge(f"run: a.sh: {output}", 0, topology="none",
                               variables=[f"X={number}"])
            self.assertEqual(found[-1], (verdict, "a.sh test none"))

    def test_again(self):
        guest = some_guest(tests=["a.sh", "b.sh"], parameters=["x=1"])
        self.assertEqual(self.check.again(guest, guest.tests),
                         "make test 'T=a.sh b.sh' TOPO=switch KERNEL=test SEED=7 APPEND=x=1")


class NeverExecuted(Sandbox):
    def add(self, kernel, *lines):
        log = self.tmp / "log" / "x.log"
        ktap = "\n".join(f"{line}" for line in lines)
        log.write_text(f"# p2pdma-run: start a.sh\n{ktap}\n# p2pdma-run: end a.sh\n")
        self.check.results.add("PASS", f"a.sh {kernel}", log=log, kernel=kernel)

    def judge(self, allowed=()):
        before = len(self.found())
        self.check.results.never_executed(set(allowed))
        return self.found()[before:]

    def test_skipped_by_all(self):
        self.add("test", "ok 1 one: no device # SKIP", "ok 2 two # SKIP no reason", "ok 3 three")
        self.add("base", "ok 1 one")
        self.assertEqual(self.judge(), [("FAIL", "a.sh: one"), ("FAIL", "a.sh: two")])
        self.assertEqual(self.judge([("a.sh", "one")]), [("FAIL", "a.sh: two")])

    def test_executed_by_one(self):
        self.add("test", "ok 1 one: no device # SKIP")
        self.add("debug", "ok 1 one")
        self.assertEqual(self.judge(), [])


class Files(Sandbox):
    def test_status_and_files(self):
        self.check.results.add("PASS", "a")
        with mock.patch("builtins.print"):
            self.assertEqual(self.check.results.write(), 0)
            self.check.results.add("FAIL", "b", "why")
            self.assertEqual(self.check.results.write(), 1)
        directory = self.check.results.directory
        self.assertEqual([i["name"] for i in json.loads((directory / "results.json").read_text())],
                         ["a", "b"])
        self.assertIn('failure message="why"', (directory / "junit.xml").read_text())
        self.assertTrue((directory / "index.html").exists())

    def test_estimate(self):
        file = self.tmp / "d.json"
        file.write_text('{"a": 100, "b": 300}')
        with mock.patch("time.monotonic", side_effect=[0, 120]):
            progress = results.Progress(file)
            progress.plan(["a", "b"])
            self.assertEqual(progress.finished("a", 100),
                             "# 1 of 2, 2 min, about 6 min left")


class Table(unittest.TestCase):
    def test_names_are_unique(self):
        names = [guest.name for guest in matrix.Matrix().guests]
        self.assertEqual(len(names), len(set(names)))

    def test_needs_and_own_parameters(self):
        guest = some_guest(tests=["nvmet_stack.sh"], parameters=["x=1"], variables=["Y=2"])
        command = check.run_command(matrix.Matrix(), guest, guest.tests, "5")
        self.assertEqual(command[command.index("--append") + 1], "nvme_core.multipath=Y x=1")
        self.assertEqual(command[-5:], ["--var", "Y=2", "--var", "P2P_SEED=5", "nvmet_stack.sh"])


if __name__ == "__main__":
    sys.exit(unittest.main())
