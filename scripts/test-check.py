#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Tests of check.py: whatever fails must turn the result red."""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
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
        """What runs ends, with its children; nothing else begins."""
        mark = self.tmp / "mark"
        script = self.script(f"(sleep 3; touch {mark}) & touch {mark}.begun; wait")
        jobs = [lambda: self.check.item(script), lambda: self.check.item(script)]
        thread = threading.Thread(target=self.check.queue, args=(1, jobs))
        thread.start()
        while not Path(f"{mark}.begun").exists():
            time.sleep(0.01)
        start = time.monotonic()
        self.check.processes.stop()
        thread.join()
        self.assertLess(time.monotonic() - start, 2)
        # What it took says nothing about the next time.
        self.assertEqual(self.check.results.progress.now, {})
        time.sleep(max(0, start + 3.5 - time.monotonic()))
        self.assertFalse(mark.exists())
        self.assertEqual(self.found(), [("FAIL", "script")])

    def test_interrupted_while_it_starts(self):
        real = subprocess.Popen

        def popen(*args, **kwargs):
            process = real(*args, **kwargs)
            self.check.processes.stop()
            return process

        with mock.patch.object(subprocess, "Popen", popen):
            start = time.monotonic()
            self.check.item(self.script("sleep 5"))
        self.assertLess(time.monotonic() - start, 3)


class Guests(Sandbox):
    def judge(self, output, status, **guest):
        """The results of a guest whose runner prints this and ends with this status"""
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
            shutil.rmtree(self.check.results.logs / "test-switch-a")

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
            ktap = "# p2pdma-run: start a.sh\nok 1 x # SKIP no drive0\n# p2pdma-run: end a.sh"
            found = self.judge(f"{ktap}\nrun: a.sh: {output}", 0, topology="none",
                               variables=[f"X={number}"])
            self.assertEqual(found[-1], (verdict, "a.sh test none"))

    def test_results_that_are_skipped(self):
        ktap = "# p2pdma-run: start a.sh\n%s\n# p2pdma-run: end a.sh\n" \
            "run: a.sh: PASS (2 results, 1 skipped)"
        for number, (reason, last) in enumerate((("no reason that is known", "FAIL"),
                                                 ("there is no bpftrace", "PASS"))):
            found = self.judge(ktap % f"ok 1 x: {reason} # SKIP\nok 2 y", 0,
                               variables=[f"X={number}"])
            self.assertEqual(found[-1][0], last)
        self.judge(ktap % "ok 1 x: no reason # SKIP\nok 2 y", 0, kernel="base")
        self.assertEqual(self.found()[-1], ("PASS", "a.sh base switch"))

    def test_result_that_the_kernel_is_there_for(self):
        kernels = self.check.matrix.kernels
        self.assertTrue(self.check.matrix.may(kernels["test"], "x: there is no bpftrace # SKIP"))
        self.assertFalse(self.check.matrix.may(kernels["bpf"], "x: there is no bpftrace # SKIP"))
        self.assertTrue(self.check.matrix.may(kernels["bpf"], "no device huge"))

    def test_what_is_wrong_is_shown(self):
        self.judge("x\n" * 50 + "kernel: BUG\nnot ok 1 y\nrun: a.sh: FAIL (1 failed)", 1)
        shown = "".join(call.args[0] for call in results.Results.show.call_args_list)
        self.assertIn("not ok 1 y", shown)

    def test_lines_of_the_source(self):
        """In the log of a guest that failed, whose kernel has debug info"""
        kernel = check.kernel_dir(self.check.matrix.kernels["debug"])
        (kernel / "init").mkdir(parents=True)
        (kernel / "init/main.c").write_text("int kernel_init;\nint broken(void)\n{\n"
                                            "\treturn 1;\n}\nint main(void) { return 0; }\n")
        subprocess.run(["gcc", "-g", "-O0", "-o", kernel / "vmlinux", kernel / "init/main.c"],
                       check=True)
        for status in (0, 1):
            logs = self.check.results.logs / f"debug-switch-a-X={status}"
            self.judge(f"END\necho ' broken+0x1/0x10' >{logs}/console.log\ncat <<'END'", status,
                       kernel="debug", variables=[f"X={status}"])
            self.assertEqual((logs / "decoded.log").exists(), bool(status))
        self.assertRegex((logs / "decoded.log").read_text(), r"broken \(.*init/main\.c:\d\)")

    def test_again(self):
        guest = some_guest(tests=["a.sh", "b.sh"], parameters=["x=1"], variables=["Y=2"])
        self.assertEqual(
            self.check.again(guest, guest.tests),
            "make test 'T=a.sh b.sh' TOPO=switch KERNEL=test SEED=7 APPEND=x=1 VARS=Y=2")

    def test_seed(self):
        self.check.seed = ""
        self.assertEqual(self.check.seed_of(some_guest(part="coverage")), "1")
        self.assertEqual(self.check.seed_of(some_guest(part="churn")), "")

    def test_rerun_keeps_the_logs(self):
        self.judge("run: a.sh: PASS (1 results, 0 skipped)", 0)
        logs = self.check.results.logs / "test-switch-a"
        command = check.run_command(self.check.matrix, some_guest(), ["a.sh"], "7", logs)
        with mock.patch.object(check, "run_command", lambda *_: [self.script("true"), *command]):
            shutil.rmtree(logs)
            self.check.guest(some_guest())
        self.assertIn(f"--log {logs}/rerun ", (logs / "rerun.sh").read_text())


class NeverExecuted(Sandbox):
    def add(self, kernel, *lines):
        log = self.check.results.logs / "x.log"
        ktap = "\n".join(lines)
        log.write_text(f"# p2pdma-run: start a.sh\n{ktap}\n# p2pdma-run: end a.sh\n")
        self.check.results.add("PASS", f"a.sh {kernel}", log=log, kernel=kernel)

    def judge(self, allowed=()):
        before = len(self.found())
        self.check.results.never_executed(set(allowed))
        return self.found()[before:]

    def test_skipped_by_all(self):
        one, two = "m: one: no device # SKIP", "two # SKIP no reason"
        self.add("test", f"ok 1 {one}", f"ok 2 {two}", "ok 3 m: three")
        self.add("base", "ok 1 m: one")
        self.assertEqual(self.judge(), [("FAIL", f"a.sh: {one}"), ("FAIL", f"a.sh: {two}")])
        self.assertEqual(self.judge([("a.sh", "m: one")]), [("FAIL", f"a.sh: {two}")])

    def test_executed_by_one(self):
        self.add("test", "ok 1 m: one: no device # SKIP")
        self.add("debug", "ok 1 m: one")
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
        for first, line in ((100, "# 1 of 2, 2 min, about 6 min left"),
                            (0, "# 1 of 2, 2 min, about 600 min left")):
            file = self.tmp / "d.json"
            file.write_text(json.dumps({"a": first, "b": 300}))
            with mock.patch("time.monotonic", side_effect=[0, 120]):
                progress = results.Progress(file)
                progress.plan(["a", "b"])
                self.assertEqual(progress.finished("a", 100), line)


class Table(unittest.TestCase):
    def test_names_are_unique(self):
        names = [guest.name for guest in matrix.Matrix().guests]
        self.assertEqual(len(names), len(set(names)))

    def test_reasons_to_skip(self):
        """As churn.sh gives one with four cycles, and with more"""
        reasons = matrix.Matrix().may_skip
        self.assertTrue(reasons.search("all events happened: there are more than 4 # SKIP"))
        self.assertFalse(reasons.search("all events happened: there are more than 40 # SKIP"))

    def test_columns(self):
        """A typing error must not take a guest from the checks."""
        table = matrix.Matrix()
        self.assertEqual(set(table.parts), {"check", "churn", "failures", "debug", "base",
                                            "inject", "bpf", "races", "coverage"})
        topologies = (check.QEMU / "topology.py").read_text()
        for guest in table.guests:
            self.assertIn(f'"{guest.topology}":', topologies)
            for test in guest.tests:
                self.assertRegex(test, r"^([a-z0-9_]+(\.sh)?|\*)$")

    def test_command(self):
        guest = some_guest("debug", tests=["nvmet_stack.sh"], parameters=["x=1"],
                           variables=["P2P_CYCLES=4"])
        command = check.run_command(matrix.Matrix(), guest, guest.tests, "5", "/log")
        options = dict(zip(command[1::2], command[2::2]))
        self.assertEqual(options["--append"], "nvme_core.multipath=Y x=1")
        self.assertEqual(options["--timeout"], "3600")
        self.assertEqual(options["--mem"], "2048")
        # The last one counts.
        self.assertEqual(command[-5:], ["--var", "P2P_CYCLES=4", "--var", "P2P_SEED=5",
                                        "nvmet_stack.sh"])
        kcsan = check.run_command(matrix.Matrix(), some_guest("kcsan"), ["a.sh"], "", "/log")
        self.assertIn(str(matrix.BUILD / "series-functions"), kcsan)


class Program(Sandbox):
    """All of it, with scripts and a runner that do next to nothing"""

    def setUp(self):
        super().setUp()
        self.broken = self.tmp / "broken"
        for name in ("tests-series-test", "tests-base-test", "tests-series-debug"):
            (self.tmp / name).mkdir()
            (self.tmp / name / "kselftest-list.txt").write_text(
                "".join(f"p2pdma:{test}\n" for test in self.all_tests()))
        script = self.script(f"[ ! -e {self.broken} ]")
        for name in ("tree.sh", "kernel.sh", "demo.sh", "functions.sh", "coverage.py",
                     *check.BESIDE, *check.AFTER, *sum(check.MORE.values(), [])):
            path = self.tmp / Path(name.split()[0]).name
            shutil.copy(script, path)
        path = self.tmp / "qemu" / "run.py"
        path.parent.mkdir()
        path.write_text("#!/bin/sh\nfor word; do case $word in --*) tests=;; *=*) ;; "
                        "*) tests=\"$tests $word\";; esac; done\n"
                        "for t in $tests; do echo \"run: $t: PASS (1 results, 0 skipped)\"; done\n")
        path.chmod(0o755)
        self.enterContext(mock.patch.object(check, "SCRIPTS", self.tmp))
        self.enterContext(mock.patch.object(check, "QEMU", path.parent))
        for name in ("BESIDE", "AFTER"):
            self.enterContext(mock.patch.object(check, name, [
                " ".join([Path(item.split()[0]).name, *item.split()[1:]])
                for item in getattr(check, name)]))

    @staticmethod
    def all_tests():
        return sorted({t for g in matrix.Matrix().guests for t in g.tests} - {"*"})

    def run_parts(self, what="check", parts=()):
        self.check.queue(1, [lambda: check.run_parts(self.check, what, parts, 1)])
        with mock.patch("builtins.print"):
            return self.check.results.write(), [name for _, name in self.found()]

    def failed(self):
        return [name for verdict, name in self.found() if verdict == "FAIL"]

    def test_check(self):
        status, names = self.run_parts()
        # In the machine without devices nothing must pass.
        self.assertEqual({name.split()[-1] for name in self.failed()}, {"none"})
        self.assertEqual(status, 1)
        for name in ("lint", "kunit", "test-verdict", "curve", "test-runner", "cost", "demo",
                     "nvmet.sh test bridge", "bio_features.sh debug bridge",
                     "large.sh base large", "verbs.sh test iommu-strict ib_core.force_mr=1"):
            self.assertIn(name, names)

    def test_all(self):
        """Every guest of the table, and every script"""
        table = self.check.matrix
        _, names = self.run_parts("all", check.all_parts(table))
        for guest in table.guests:
            where = " ".join([guest.kernel.name, guest.topology, *guest.parameters])
            for test in guest.tests:
                self.assertIn(f"{test} {where}".replace("*", "nvmet.sh"), names)
        for item in [*check.BESIDE, *check.AFTER, *sum(check.MORE.values(), []), "coverage"]:
            self.assertIn(check.item_name(item), names)

    def test_some_parts(self):
        _, names = self.run_parts("more", ["churn", "patches"])
        self.assertEqual({name for name in names if "kernel-" not in name},
                         {"tree-tree", *(f"churn.sh test {topology}" for topology in
                                         ("switch", "bridge", "iommu-lazy", "iommu-strict"))})
        self.assertIn("kernel-each-series-test", names)

    def test_nothing_without_the_tree(self):
        self.broken.touch()
        self.assertEqual(self.run_parts(), (1, ["tree-tree"]))

    def test_skipped_by_all_is_looked_for(self):
        with mock.patch.object(self.check.results, "never_executed") as looked:
            self.run_parts()
        looked.assert_called_once_with(self.check.matrix.only_in_all)

    def test_test_that_is_in_no_guest_is_looked_for(self):
        with (self.tmp / "tests-series-test" / "kselftest-list.txt").open("a") as file:
            file.write("p2pdma:new.sh\n")
        self.run_parts()
        self.assertIn("new.sh", self.failed())

    def test_kernel_that_cannot_be_built(self):
        (self.tmp / "kernel.sh").write_text('#!/bin/sh\n[ "$2$3" != seriestest ]\n')
        shutil.rmtree(self.tmp / "tests-series-test")
        status, names = self.run_parts()
        self.assertEqual(self.failed(), ["kernel-build-series-test", "kernel-tests-series-test"])
        self.assertIn("lint", names)
        self.assertIn("bio_features.sh debug bridge", names)
        self.assertEqual(status, 1)

    def test_interrupted(self):
        self.check.processes.stop()
        self.assertEqual(self.run_parts(), (1, ["check.py"]))

    def test_tests_in_the_kernel(self):
        console = self.check.results.logs / "coverage-bridge-x-kunit" / "console.log"
        console.parent.mkdir()
        console.write_text("[ 1.0] ok 1 blk-dma-addr\n")
        shutil.copy(self.tmp / "tree.sh", self.tmp / "coverage.py")
        self.check.coverage()
        self.assertEqual(self.found(), [("PASS", "blk-dma-addr in a guest"),
                                        ("FAIL", "p2pmem-pool in a guest"),
                                        ("PASS", "coverage")])


if __name__ == "__main__":
    sys.exit(unittest.main())
