#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run P2PDMA tests in an emulated machine.

The tests' KTAP comes out first, then a line for each test:

  run: TEST: PASS|FAIL|SKIP (reason) N s

Exit status: 0 no test failed, 1 a test or the guest failed, 2 wrong arguments, or something
is missing on this machine, 4 every test was skipped.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import verdict
from control import Control, Monitor
from topology import TOPOLOGIES, Machine

HERE = Path(__file__).resolve().parent
QEMU = "qemu-system-x86_64"

# no_timer_check: on a busy machine the emulated timer can be too late for the kernel's
# check, which then panics.
# tsc=nowatchdog: until the kernel leaves jiffies for a better clock source, the watchdog
# of the others can wait for ever for a CPU that stop_machine() holds: its time limit is
# measured in jiffies, which stand still meanwhile.  One boot in some hundreds hung.
# But without that watchdog a wrong clock stays wrong, see clock_is_wrong().
# multipath=N: the tests use the disk of a single controller, not one that combines
# paths.
CMDLINE = ["console=ttyS0", "ignore_loglevel", "printk.devkmsg=on", "panic=-1",
           "oops=panic", "hung_task_panic=1", "softlockup_panic=1", "no_timer_check",
           "tsc=nowatchdog", "unknown_nmi_panic", "panic_sys_info=tasks,timers,all_bt",
           "nvme_core.multipath=N"]
LOGS = ("console", "output", "result", "qemu", "faults")


def die(what):
    print(f"run.py: {what}", file=sys.stderr)
    sys.exit(2)


def number(text):
    if not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 999999")
    return int(text)


def variable(text):
    if not re.match(r"[A-Za-z_]\w*=", text):
        raise argparse.ArgumentTypeError(f"NAME=VALUE is wanted, not '{text}'")
    return text


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    add = parser.add_argument
    add("--kernel", type=Path, required=True, metavar="DIR",
        help="has bzImage and lib/modules/<release>")
    add("--tests", type=Path, required=True, metavar="DIR",
        help="installed selftests: p2pdma/*.sh, kselftest/")
    add("--topology", choices=TOPOLOGIES, default="switch",
        help="how the devices are connected (default: switch)")
    add("--timeout", type=number, default=180, metavar="SECONDS",
        help="time limit of the whole run (default: 180)")
    add("--boot", type=number, default=300, metavar="SECONDS",
        help="time limit until the guest's init runs (default: 300)")
    add("--mem", type=number, default=1024, metavar="MB",
        help="memory of the guest, below 3072 (default: 1024)")
    add("--smp", type=number, default=2, metavar="N", help="processors (default: 2)")
    add("--append", default="", metavar="PARAMETERS", help="more kernel parameters")
    add("--var", type=variable, action="append", default=[], metavar="NAME=VALUE",
        help="variable for the tests, may be repeated")
    add("--tool", action="append", default=[], metavar="PROGRAM",
        help="program of this machine that the tests need, may be repeated")
    add("--workdir", type=Path, metavar="DIR",
        default=Path(tempfile.gettempdir(), f"p2pdma-qemu.{os.getuid()}"),
        help="for backing files and, unless P2PDMA_CACHE names another directory, for the "
        "cache of the root file system")
    add("--functions", type=Path, metavar="FILE",
        help="ignore KCSAN reports that name neither one of these functions nor one that "
        "OURS in verdict.py matches (default: every report is a failure)")
    add("--count", action="store_true",
        help="count instructions for the tests that ask for it: forces TCG and one "
        "processor")
    add("--profile", type=Path, metavar="FILE",
        help="also write where they were executed, see insn_count.c; implies --count")
    add("--log", type=Path, metavar="DIR",
        help="keep console.log, output.log, result.log, qemu.log, faults.log (what must "
        "not be in the kernel's), qemu-command, and coverage.tar if the kernel directory has gcno")
    add("--gdb", type=number, metavar="PORT",
        help="wait for a debugger on this TCP port of localhost")
    add("--keep", action="store_true", help="keep the run's working directory")
    add("--shell", action="store_true",
        help="a shell in the guest instead of tests, without time limit")
    add("test", nargs="*", help="name of an installed test")
    return check(parser.parse_intermixed_args())


def check(args):
    if args.mem >= 3072:
        die("--mem must be below 3072: the copy engine has 32-bit addresses")
    if not args.test and not args.shell:
        die("which tests? see --help")
    for test in args.test:
        path = args.tests / "p2pdma" / test
        if not re.fullmatch(r"[\w.-]+", test) or not os.access(path, os.X_OK):
            die(f"no executable {path}: is it installed?")
    if len(set(args.test)) != len(args.test):
        die("a test is named twice")
    if not (args.kernel / "bzImage").is_file():
        die(f"no bzImage in --kernel '{args.kernel}'")
    if args.functions and not (args.functions.is_file() and args.functions.stat().st_size):
        die(f"no functions in '{args.functions}'")
    for tool in (QEMU, "cpio", "setpriv"):
        if not shutil.which(tool):
            die(f"no '{tool}' found, please install qemu-system-x86, cpio and util-linux")
    args.count = args.count or bool(args.profile)
    return args


class Accelerator:
    """KVM or TCG.  /dev/kvm can exist and not work, so boot a kernel to find out, and keep
    the answer until this machine boots again."""

    def __init__(self, args, cache, work):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        self.file = cache / f"accel-{boot}"
        self.known = self.file.exists()
        if args.count:
            # The plugin cannot count what KVM executes.
            self.name = "tcg"
            self.known = True
        elif self.known:
            self.name = self.file.read_text(encoding="ascii").strip()
        else:
            works = os.access("/dev/kvm", os.W_OK) and self.probe(args.kernel, work)
            self.name = "kvm" if works else "tcg,thread=multi"

    @staticmethod
    def probe(kernel, work):
        """Firmware can run where a kernel cannot, so boot the kernel until it panics for
        want of a root file system, which ends QEMU."""
        log = work / "probe.log"
        command = [QEMU, "-M", "q35", "-accel", "kvm", "-m", "512", "-nodefaults",
                   "-no-reboot", "-display", "none", "-kernel", kernel / "bzImage",
                   "-append", "console=ttyS0 panic=-1", "-serial", f"file:{log}"]
        with suppress(subprocess.TimeoutExpired):
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=5,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
            return not ended.returncode and not verdict.blind(verdict.read_log(log))
        return False

    def keep(self):
        """Call this only if the guest came up: a kernel that never did says nothing."""
        if not self.known:
            new = self.file.with_suffix(f".{os.getpid()}")
            new.write_text(f"{self.name}\n", encoding="ascii")
            new.replace(self.file)


class Run:
    def __init__(self, args):
        self.args = args
        self.work = None
        self.qemu = None
        self.late = ""

    def prepare(self):
        base = self.args.workdir
        base.mkdir(parents=True, exist_ok=True)
        if base.stat().st_uid != os.getuid():
            die(f"the directory {base} is not yours, see --workdir")
        base = base.resolve()
        self.cache = Path(os.environ.get("P2PDMA_CACHE") or base / "cache")
        self.cache.mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(prefix="run.", dir=base))
        self.log = (self.args.log or self.work).resolve()
        self.log.mkdir(parents=True, exist_ok=True)
        # What an earlier run left must not be taken for this one's.
        for name in LOGS:
            (self.log / f"{name}.log").write_text("")

    def clean_up(self):
        """The guest ends with the run."""
        if self.qemu and self.qemu.poll() is None:
            self.qemu.kill()
            self.qemu.wait()
        if self.args.keep and self.work:
            print(f"run.py: kept {self.work}", file=sys.stderr)
        elif self.work:
            shutil.rmtree(self.work)

    # --- what the guest boots ---

    def rootfs(self, *arguments):
        """rootfs.sh's output"""
        result = subprocess.run([HERE / "rootfs.sh", *map(str, arguments)], check=False,
                                stdout=subprocess.PIPE, text=True)
        if result.returncode:
            die("cannot make the root file system")
        return result.stdout.strip()

    def write_config(self):
        settings = {"run_tests": " ".join(self.args.test),
                    "run_shell": "1" if self.args.shell else "",
                    "run_bars": " ".join(self.machine.bars),
                    "run_devs": " ".join(self.machine.devs)}
        lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
        for setting in [f"P2PDMA_TOPOLOGY={self.args.topology}", *self.args.var]:
            name, _, value = setting.partition("=")
            lines.append(f"export {name}={shlex.quote(value)}")
        (self.work / "run.conf").write_text("\n".join(lines) + "\n")

    def make_initrd(self):
        static = self.rootfs("static", self.cache, *self.args.tool)
        self.write_config()
        self.rootfs("run", self.args.kernel, self.args.tests, self.work / "run.conf",
                    self.work / "run.cpio")
        with (self.work / "initrd").open("wb") as initrd:
            for part in (static, self.work / "run.cpio"):
                with open(part, "rb") as file:
                    shutil.copyfileobj(file, initrd)

    def count_arguments(self):
        """Build the plugin, whose output Control.count() reads.  Skip the tests if QEMU cannot
        load it: it may lack plugins or want another version."""
        plugin = self.work / "insn_count.so"
        option = f"{plugin},out={self.work}/insns"
        if self.args.profile:
            option += f",profile={self.args.profile},owners={self.work}/owners"
        compiler = os.environ.get("CC") or "gcc"
        if subprocess.run([*compiler.split(), "-O2", "-shared", "-fPIC", "-o", plugin,
                           HERE / "insn_count.c"], check=False).returncode:
            die("cannot build insn_count.c")
        tried = subprocess.run(
            [QEMU, "-M", "none", "-accel", "tcg", "-nodefaults", "-display", "none",
             "-monitor", "stdio", "-plugin", option], input="quit\n", text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if tried.returncode:
            for test in self.args.test:
                said = (tried.stdout.splitlines() or [""])[-1]
                print(f"run: {test}: SKIP (QEMU cannot load the plugin: {said})")
            sys.exit(4)
        return ["-plugin", option]

    def console(self):
        log = self.log / "console.log"
        if self.args.shell:
            return f"stdio,signal=off,logfile={log}"
        return f"file,path={log}"

    def command(self, sockets, count):
        args = self.args
        ports = {"result": f"file,path={self.log}/result.log"}
        ports.update((name, f"socket,fd={end.fileno()}") for name, end in sockets.items())
        if (args.kernel / "gcno").is_dir():
            ports["coverage"] = f"file,path={self.log}/coverage.tar"
        monitor = ports.pop("qmp")
        words = [QEMU, "-M", "q35", "-accel", self.accelerator.name, "-m", str(args.mem),
                 "-smp", "1" if args.count else str(args.smp), "-no-reboot", "-nodefaults",
                 "-no-user-config", "-nic", "none", "-vga", "none", "-display", "none",
                 "-kernel", f"{args.kernel}/bzImage", "-initrd", f"{self.work}/initrd",
                 "-append", " ".join([*CMDLINE, *self.machine.cmdline, args.append]),
                 "-chardev", f"{self.console()},id=console", "-serial", "chardev:console",
                 "-chardev", f"{monitor},id=qmp", "-mon", "chardev=qmp,mode=control",
                 "-device", "virtio-serial-pci,addr=3"]
        for name, chardev in ports.items():
            words += ["-chardev", f"{chardev},id={name}",
                      "-device", f"virtserialport,chardev={name},name=p2pdma.{name}"]
        if args.gdb:
            words += ["-gdb", f"tcp:127.0.0.1:{args.gdb}", "-S"]
        return [*words, *self.machine.args, *count]

    # --- while it runs ---

    def copy_output(self, connection):
        with (self.log / "output.log").open("wb") as file, suppress(ConnectionResetError):
            while True:
                data = connection.recv(1 << 16)
                if not data:
                    return
                file.write(data)
                file.flush()
                sys.stdout.buffer.write(data)
                sys.stdout.flush()

    def overdue(self, seconds):
        """What the guest has not done in time, or "" """
        args = self.args
        if args.shell:
            return ""
        if seconds > args.timeout:
            return f"no end within {args.timeout} s"
        up = (self.log / "result.log").stat().st_size
        if not up and not args.gdb and seconds > args.boot:
            return f"not up within {args.boot} s"
        return ""

    def clock_is_wrong(self):
        """On a busy machine, the kernel can measure a wrong frequency of the TSC with the
        PIT, which it takes although the HPET disagrees.  Time then passes too fast."""
        with (self.log / "console.log").open("rb") as console:
            return b"PIT calibration deviates from" in console.read(1 << 16)

    def wait(self, monitor):
        """Until QEMU ends, or is of no use.

        A guest once hung while a drive was removed, until QEMU's monitor got a command, as
        if QEMU 7.2 had slept through its timers.  So ask it something every few seconds.

        A guest that does not come up or end in time gets an NMI, so that its kernel
        panics and shows its tasks, processors and timers.  If that does not help, QEMU is at
        fault and is killed.
        """
        start = time.monotonic()
        while True:
            with suppress(subprocess.TimeoutExpired):
                return self.qemu.wait(30 if self.late else 5)
            if self.late or self.clock_is_wrong():
                self.qemu.kill()
                continue
            self.late = self.overdue(time.monotonic() - start)
            with suppress(OSError):     # it has just ended
                monitor.send("inject-nmi" if self.late else "query-status")

    def boot(self, count):
        pairs = {name: socket.socketpair() for name in ("out", "ctl", "qmp")}
        ours = {name: pair[0] for name, pair in pairs.items()}
        theirs = {name: pair[1] for name, pair in pairs.items()}
        command = self.command(theirs, count)
        (self.log / "qemu-command").write_text(shlex.join(command) + "\n")
        stdio = {} if self.args.shell else {
            "stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT,
            "stdout": (self.log / "qemu.log").open("w")}
        monitor = Monitor(ours["qmp"])
        # QEMU ends with this process, even if that is killed.
        self.qemu = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            pass_fds=[end.fileno() for end in theirs.values()], **stdio)
        for end in theirs.values():
            end.close()
        control = Control(self.machine, monitor, self.args.count)
        # They end when QEMU closes its ends.
        threads = [threading.Thread(target=target, args=[ours[name]], daemon=True)
                   for name, target in (("out", self.copy_output), ("ctl", control.serve))]
        for thread in threads:
            thread.start()
        status = self.wait(monitor)
        for thread in threads:
            thread.join(10)
        return status

    def run(self):
        args = self.args
        self.prepare()
        count = self.count_arguments() if args.count else []
        more = [("drive2", "late_drive", "")] if args.count else []
        self.accelerator = Accelerator(args, self.cache, self.work)
        print(f"# accelerator: {self.accelerator.name}, topology: {args.topology}",
              flush=True)
        self.machine = Machine(args.topology, self.work, more)
        self.make_initrd()
        for _ in range(3):
            status = self.boot(count)
            if not self.clock_is_wrong():
                break
            print("# the guest's clock is wrong", flush=True)
        functions = args.functions.read_text().split() if args.functions else []
        result = verdict.Run(self.log, status, self.late, frozenset(functions))
        if result.report("up"):
            self.accelerator.keep()
        return 0 if args.shell else result.verdict(args.test)


def main():
    run = Run(parse())
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: sys.exit(1))
    try:
        return run.run()
    finally:
        run.clean_up()


if __name__ == "__main__":
    sys.exit(main())
