# SPDX-License-Identifier: GPL-2.0
"""Read scripts/matrix: kernels, and the guests in which the tests run."""

import re
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).with_name("matrix")
BUILD = FILE.parent.parent / "build"


@dataclass
class Kernel:
    name: str
    source: str     # series or base
    config: str
    slower: int     # than "test", for time limits
    options: list   # of run.py


@dataclass
class Guest:
    kernel: Kernel
    topology: str
    minutes: int
    tests: list
    part: str = ""
    parameters: list = field(default_factory=list)
    variables: list = field(default_factory=list)

    @property
    def name(self):
        """Unique: that of its log directory"""
        words = [self.kernel.name, self.topology, self.tests[0].removesuffix(".sh"),
                 *self.parameters, *self.variables]
        return re.sub(r"[^\w.=:-]", "_", "-".join(words).replace("*", "all"))


def is_variable(word):
    return re.match(r"[A-Z0-9_]+=", word) is not None


def as_options(words):
    """Words of the table as options of run.py: NAME=VALUE becomes --var NAME=VALUE."""
    return [o for w in words for o in (["--var", w] if is_variable(w) else [w])]


def read_sections():
    sections, name = {}, None
    for line in FILE.read_text().splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            sections[name] = []
        elif line and not line.startswith("#"):
            sections[name].append(line.split())
    return sections


class Matrix:
    def __init__(self):
        sections = read_sections()
        self.kernels = {}
        for name, source, config, slower, *options in sections["kernels"]:
            options = [option.replace("{build}", str(BUILD)) for option in options]
            self.kernels[name] = Kernel(name, source, config, int(slower),
                                        as_options(options))
        self.may_skip = re.compile("|".join(map(" ".join, sections["may skip"])))
        self.must_not_skip = {kernel: " ".join(words)
                              for kernel, *words in sections["must not skip"]}
        self.needs = {test: parameters for test, *parameters in sections["needs"]}
        self.only_in_all = {(test, " ".join(words))
                            for test, *words in sections["only in check-all"]}
        (_, _, *columns, _), *rows = sections["guests"]
        self.guests = [guest for row in rows for guest in self._guests_of(row, columns)]
        self.parts = list(dict.fromkeys(guest.part for guest in self.guests))

    def _guests_of(self, row, columns):
        """A guest for each kernel that runs this line."""
        topology, minutes, *row = row
        words = row[len(columns):]
        tests = [w for w in words if "=" not in w]
        for kernel, part in zip(columns, row):
            if part != "-":
                yield Guest(self.kernels[kernel], topology, int(minutes), tests, part,
                            [w for w in words if "=" in w and not is_variable(w)],
                            [w for w in words if is_variable(w)])

    def may(self, kernel, skipped):
        """May this kernel skip a result, by what it says?"""
        forbidden = self.must_not_skip.get(kernel.name)
        return self.may_skip.search(skipped) and not (forbidden and
                                                      re.search(forbidden, skipped))

    def parameters_for(self, tests):
        return [p for test in tests for p in self.needs.get(test, [])]
