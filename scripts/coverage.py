#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Say which lines that the series adds to the kernel were never executed.

    coverage.py NOTES KNOWN DATA.tar...

NOTES has the compiler's .gcno files, and a file "diff" with what the series adds to the
source that they were made from. Each DATA.tar is what a guest has counted. KNOWN lists
lines that no test executes, with the reason:

    FILE: FUNCTION: LINE  # REASON

Each entry is for one line; "FILE: *" is for a file of which nothing is counted. Fails if
less is executed than the goal, if a line is neither executed nor in KNOWN, or if KNOWN
has a line that is not counted.
"""

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

GOAL = 94  # percent; to be raised with each test that reaches more
# Code that tests has nothing that tests it.
TESTS = re.compile(r"-test\.c$|^tools/|^Documentation/")


def added_lines(diff):
    """What the series adds: {file: {number: text}}."""
    lines = defaultdict(dict)
    name, number = None, 0
    for line in diff.splitlines():
        if line.startswith("+++ "):
            name = line[6:]
        elif line.startswith("@@"):
            number = int(re.search(r"\+(\d+)", line)[1])
        elif line.startswith("+"):
            if not TESTS.search(name):
                lines[name][number] = line[1:].strip()
            number += 1
    return lines


def unpack(archive, notes, directory):
    """The guest's files in the directory, each beside the compiler's; their paths."""
    found = []
    with tarfile.open(archive) as tar:
        for member in tar:
            # The guest knows the objects by where they were built.
            _, _, name = member.name.partition("/.obj-coverage/")
            note = notes / name.replace(".gcda", ".gcno")
            if not member.isfile() or not note.exists():
                continue
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tar.extractfile(member).read())
            path.with_suffix(".gcno").write_bytes(note.read_bytes())
            found.append(str(path.relative_to(directory)))
    return found


def count(archive, notes, executed, functions):
    """Add what one guest has executed: {(file, line): times}, and whose lines these are."""
    with tempfile.TemporaryDirectory() as directory:
        files = unpack(archive, notes, Path(directory))
        out = subprocess.run(["gcov", "--json-format", "--stdout", *files],
                             cwd=directory, check=True, capture_output=True, text=True)
    for report in out.stdout.splitlines():
        for source in json.loads(report)["files"]:
            name = re.sub(r"^(.*/\.obj-coverage/)?(\.\./)*", "", source["file"])
            for line in source["lines"]:
                executed[name, line["line_number"]] += line["count"]
                functions[name, line["line_number"]] = line.get("function_name", "")
    return len(files)


def read_known(path):
    known = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            what, separator, reason = line.rpartition("  # ")
            if not separator or not reason:
                sys.exit(f"{path}: no reason: {line}")
            known.setdefault(what, []).append(reason)
    return known


def added_and_counted(added, functions):
    """Lines that the series adds and the compiler counts: {(file, line): key in KNOWN}."""
    return {(name, number): f"{name}: {functions[name, number]}: {text}"
            for name, lines in added.items() for number, text in lines.items()
            if (name, number) in functions}


def find_missing(added, executed, keys):
    """What was not executed, as (key in KNOWN, text)."""
    counted = {name for name, _ in executed}
    for name in added:
        if name.endswith(".c") and name not in counted:
            yield f"{name}: *", f"{name}: nothing is counted"
    for (name, number), key in keys.items():
        if not executed[name, number]:
            yield key, f"{name}:{number}: {added[name][number]}"


def show_counts(added, executed):
    """Print how much of each file was executed; return percent of all."""
    total, hit = Counter(), Counter()
    for name, lines in added.items():
        found = [executed[name, number] for number in lines if (name, number) in executed]
        total[name] = len(found)
        hit[name] = sum(n > 0 for n in found)
    rows = [(hit[n], total[n], n) for n in sorted(total) if total[n] or n.endswith(".c")]
    for some, of_all, name in [*rows, (hit.total(), total.total(), "all")]:
        print(f"{some:5} of {of_all:5}  {100 * some / max(of_all, 1):5.1f} %  {name}")
    return 100 * hit.total() / max(total.total(), 1)


def main():
    notes, known_file, *archives = map(Path, sys.argv[1:])
    added = added_lines((notes / "diff").read_text())
    known = read_known(known_file)
    wrong, executed, functions = [], Counter(), {}
    for archive in archives:
        # A guest that was lost has sent nothing, or a part.
        try:
            if not count(archive, notes, executed, functions):
                wrong.append(f"{archive}: has counted nothing")
        except (tarfile.TarError, EOFError) as error:
            wrong.append(f"{archive}: {error}")
    percent = show_counts(added, executed)
    if percent < GOAL:
        wrong.append(f"the goal is {GOAL} %")
    keys = added_and_counted(added, functions)
    there = {*keys.values(), *(f"{name}: *" for name in added)}
    wrong += [f"{known_file}: not counted: {key}" for key in known if key not in there]
    for key, text in find_missing(added, executed, keys):
        if known.get(key):
            print(f"  {text}  # {known[key].pop(0)}")
        else:
            wrong.append(f"not executed: {key}")
    for key, reasons in known.items():
        for reason in reasons:
            print(f"  executed: {key}  # {reason}")
    for line in wrong:
        print(f"FAIL: {line}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
