# SPDX-License-Identifier: GPL-2.0
"""The host's end of the control channel, and QEMU's monitor

The guest sends a line: a number, a command and its arguments.  The answer is a line too:
the number again, and then what the function of that name in COMMANDS returns.
"""

import errno
import json
import mmap
import os
import queue
import re
import socket
import threading
from contextlib import suppress

SCRUBBED = b"\xa5"
DATA = 64 << 10     # that "same" compares


class Failure(Exception):
    """What the guest is told instead of an answer"""


def written(file):
    """The parts of a sparse file that are not holes: (start, end)"""
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # behind the last one
                return
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


class Monitor:
    """QMP.  Debian 12 has no package of QEMU's own library for it."""

    def __init__(self, connection):
        self.connection = connection
        self.lock = threading.Lock()
        self.asked = 0
        self.answers = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.send("qmp_capabilities")

    def _read(self):
        with suppress(OSError, ValueError):     # QEMU was killed
            for line in self.connection.makefile():
                self.answers.put(json.loads(line))
        self.answers.put(None)

    def send(self, execute, **more):
        """Do not wait, neither for the answer nor for room in the socket: QEMU may be what
        hangs."""
        question = json.dumps({"execute": execute, **more})
        with self.lock:
            self.connection.sendall(question.encode() + b"\n", socket.MSG_DONTWAIT)

    def ask(self, execute, **arguments):
        """Send a command and wait for its answer.  Only one thread may do that.  Skip events,
        and answers to send()."""
        self.asked += 1
        self.send(execute, arguments=arguments, id=self.asked)
        answer = {}
        while answer.get("id") != self.asked:
            answer = self.answers.get()
            if answer is None:
                raise Failure("QEMU has ended")
        if answer.get("return") not in ({}, ""):
            raise Failure(json.dumps(answer))

    def line(self, command):
        """Run a command of QEMU's human monitor, which knows the syntax of -device."""
        self.ask("human-monitor-command", **{"command-line": command})


class Control:
    def __init__(self, machine, monitor, counting):
        self.machine = machine
        self.work = machine.work
        self.monitor = monitor
        self.counting = counting
        self.plugged = 0

    def backing(self, name):
        path = os.path.join(self.work, f"{name}.bar")
        if not re.fullmatch(r"[a-z0-9]+", name) or not os.path.exists(path):
            raise Failure(f"no BAR '{name}'")
        return path

    def argument(self, name):
        """The argument of QEMU that made this device"""
        argument = self.machine.argument(name)
        if not argument:
            raise Failure(f"no device '{name}'")
        return argument

    def witness(self, bar, string):
        """Is the string in the BAR's backing?"""
        with open(self.backing(bar), "rb") as file, \
             mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
            for start, end in written(file.fileno()):
                offset = memory.find(string.encode(), start, end)
                if offset >= 0:
                    return f"found {offset}"
        return "absent"

    def scrub(self, bar, _):
        """Overwrite the backing in place, QEMU has it mapped."""
        path = self.backing(bar)
        with open(path, "r+b") as file:
            for _ in range(os.path.getsize(path) >> 20):
                file.write(SCRUBBED * (1 << 20))
        return "ok"

    def same(self, bar, where):
        """where: "OFFSET DRIVE"; does the drive begin with what is there in the BAR?"""
        path = self.backing(bar)
        match = re.fullmatch(r"(\d+) ([a-z0-9]+)", where)
        if not match:
            return "different"
        with open(path, "rb") as memory, open(f"{self.work}/{match[2]}.img", "rb") as drive:
            memory.seek(int(match[1]))
            data = memory.read(DATA)
            return "ok" if data == drive.read(DATA) else "different"

    def count(self, *_):
        """The kernel's instructions in the last run that was counted: how many samples,
        their lower quartile and their mean"""
        if not self.counting:
            raise Failure("instructions are not counted: see run.py --count")
        with open(f"{self.work}/insns", encoding="ascii") as file:
            samples = sorted(map(int, (file.read().splitlines() or [""])[-1].split()))
        if not samples:
            raise Failure("no samples")
        number = len(samples)
        return f"{number} {samples[(number + 3) // 4 - 1]} {sum(samples) / number:.0f}"

    def owners(self, ranges, _):
        """START:END:OWNER,...: for insn_count.c"""
        with open(f"{self.work}/owners", "w", encoding="ascii") as file:
            file.write(ranges.replace(",", "\n").replace(":", " ") + "\n")
        return "ok"

    def unplug(self, device, _):
        """Ask the guest for it, as the button at a slot does."""
        self.argument(device)
        self.monitor.ask("device_del", id=device)
        return "ok"

    def plug(self, device, _):
        """As it was at the start.  Its memory is a new backend of the same file, because
        QEMU 7.2 aborts if a device is given the backend of another."""
        argument, old = self.argument(device), f"mem-{device}"
        if f",memdev={old}" in argument:
            self.plugged += 1
            new = f"{old}-{self.plugged}"
            memory = self.argument(old)
            self.monitor.line("object_add " + memory.replace(f",id={old},", f",id={new},"))
            argument = argument.replace(f",memdev={old},", f",memdev={new},")
        self.monitor.line(f"device_add {argument}")
        return "ok"

    def rate(self, drive, number):
        """Limit the drive to so many I/Os in a second; 0 means no limit."""
        self.argument(drive)
        self.monitor.line(f"block_set_io_throttle {drive} 0 0 0 {number} 0 0")
        return "ok"

    def stall(self, drive, _):
        """A queue of 16 takes more than 5 seconds.  Not slower than that: if the guest
        resets the drive meanwhile, QEMU itself hangs until that queue is done."""
        return self.rate(drive, 3)

    def slow(self, drive, _):
        """A command takes a tenth of a second."""
        return self.rate(drive, 10)

    def resume(self, drive, _):
        return self.rate(drive, 0)

    def link_error(self, device, _):
        """Inject a fatal error on the link to the device, which its port reports."""
        bus = re.search(r",bus=([^,]+)", self.argument(device))[1]
        try:
            self.monitor.line(f"pcie_aer_inject_error {bus} DLP")
        except Failure as answer:
            # On success it says what it did, which line() takes for an error.
            if "OK id:" not in str(answer):
                raise
        return "ok"

    COMMANDS = ("witness", "scrub", "same", "count", "owners", "unplug", "plug", "stall",
                "slow", "resume", "link_error")

    def answer(self, command, name, argument):
        try:
            if command not in self.COMMANDS:
                raise Failure(f"unknown command '{command}'")
            return getattr(self, command)(name, argument)
        except Failure as failure:
            return f"error {failure}"
        except Exception as error:  # whatever it is, the guest waits for an answer
            return f"error {error!r}"

    def serve(self, connection):
        """Until QEMU ends"""
        with suppress(OSError):     # QEMU was killed
            for line in connection.makefile():
                number, command, name, argument, *_ = [*line.rstrip("\n").split(" ", 3),
                                                       "", "", ""]
                answer = self.answer(command, name, argument)
                connection.sendall(f"{number} {answer}\n".encode())
