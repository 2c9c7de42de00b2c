# SPDX-License-Identifier: GPL-2.0
"""Report the results of check.py: on the terminal, as JSON and JUnit, and as a page."""

import html
import json
import re
import shutil
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path

from page import page

KEPT = 5    # runs
GUESS = 60  # seconds, for what has never run here

STYLE = """
.FAIL { color: #c22; font-weight: bold; } .SKIP { color: #888; } .PASS { color: #282; }
pre { overflow-x: auto; }
"""


def lib_sh(code, *arguments):
    """What shell code prints that uses lib.sh"""
    command = ["bash", "-c", f'. "$0"; {code}', Path(__file__).with_name("lib.sh"), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", check=True).stdout


def ktap_results(log, test):
    """What a test has reported: verdict and description of each result."""
    start, end = (rf"# p2pdma-run: {word} {re.escape(test)}$" for word in ("start", "end"))
    text = re.search(f"{start}(.*?){end}", log, re.M | re.S)
    found = []
    for line in text[1].splitlines() if text else []:
        match = re.match(r"(ok|not ok) \d+ (.*)", line)
        if match:
            skipped = "# SKIP" in line
            verdict = "SKIP" if skipped else "PASS" if match[1] == "ok" else "FAIL"
            found.append({"verdict": verdict, "name": match[2]})
    return found


def is_of(name, result):
    """Is what was skipped this result?  The reason follows its name."""
    skipped = re.split(" *# SKIP", name)[0]
    return skipped == result or skipped.startswith(f"{result}: ")


def to_junit(items):
    suites = ET.Element("testsuites")
    for item in items:
        results = item["results"] or [{"verdict": item["verdict"], "name": item["name"]}]
        # What the runner has seen, such as a splat, is no result of the test's own.
        if item["verdict"] == "FAIL" and all(r["verdict"] != "FAIL" for r in results):
            results = [*results, {"verdict": "FAIL", "name": "as a whole"}]
        count = {v: sum(r["verdict"] == v for r in results) for v in ("FAIL", "SKIP")}
        suite = ET.SubElement(suites, "testsuite", name=item["name"],
                              tests=str(len(results)), failures=str(count["FAIL"]),
                              skipped=str(count["SKIP"]), time=str(item["seconds"]))
        for result in results:
            case = ET.SubElement(suite, "testcase", classname=item["name"],
                                 name=result["name"])
            if result["verdict"] == "FAIL":
                ET.SubElement(case, "failure", message=item["details"])
            elif result["verdict"] == "SKIP":
                ET.SubElement(case, "skipped", message=item["details"])
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def to_html(items):
    def row(item):
        log = html.escape(item["log"])
        again = item["again"] if item["verdict"] == "FAIL" else ""
        again = again and f"<pre>{html.escape(again)}</pre>"
        return (f"<tr><td class={item['verdict']}>{item['verdict']}<td>"
                + (f"<a href='{log}'>{html.escape(item['name'])}</a>" if log
                   else html.escape(item["name"]))
                + f"<td>{html.escape(item['details'])}{again}<td>{item['seconds']} s")

    order = ["FAIL", "SKIP", "PASS"]
    count = ", ".join(f"{sum(i['verdict'] == v for i in items)} {v}" for v in order)
    rows = map(row, sorted(items, key=lambda i: order.index(i["verdict"])))
    return page("Results", STYLE, f"<p>{count}<table>" + "\n".join(rows) + "</table>")


class Progress:
    """Estimates how long it will still take, from the durations of earlier runs."""

    def __init__(self, file):
        self.file = file
        self.before = {}
        with suppress(OSError, ValueError):
            self.before = json.loads(file.read_text())
        self.now = {}
        self.planned = {}
        self.start = time.monotonic()

    def plan(self, names):
        self.planned.update((n, max(self.before.get(n, GUESS), 1)) for n in names)

    def finished(self, name, seconds):
        """Return a line about the run as a whole, if there is more to come."""
        self.now[name] = round(seconds)
        self.plan([name] if name not in self.planned else [])
        done = sum(self.planned[n] for n in self.now)
        left = sum(self.planned.values()) - done
        elapsed = time.monotonic() - self.start
        return (f"# {len(self.now)} of {len(self.planned)}, {elapsed / 60:.0f} min, about "
                f"{elapsed * left / done / 60:.0f} min left") if left else ""

    def write(self):
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps({**self.before, **self.now}, indent=1) + "\n")
        new.replace(self.file)


class Results:
    def __init__(self, directory, logs, durations):
        """logs: a link to the newest run's"""
        self.directory = directory.resolve() / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        self.logs = self.directory / "log"
        self.logs.mkdir(parents=True)
        if logs.is_symlink():
            logs.unlink()
        shutil.rmtree(logs, ignore_errors=True)
        logs.symlink_to(self.logs.relative_to(logs.parent.resolve()))
        for old in sorted(directory.iterdir())[:-KEPT]:
            shutil.rmtree(old)
        self.items = []
        self.progress = Progress(durations)
        self.lock = threading.RLock()

    def show(self, text):
        with self.lock:
            print(text, end="" if text.endswith("\n") else "\n", flush=True)

    def plan(self, names):
        with self.lock:
            self.progress.plan(names)

    def finished(self, name, seconds):
        with self.lock:
            line = self.progress.finished(name, seconds)
            if line:
                self.show(line)

    def add(self, verdict, name, details="", seconds=0, *, log=None, again="", kernel=""):
        """again: the command that does it once more; kernel: the guest's, if it had one"""
        text = log.read_text(errors="replace") if log else ""
        item = {
            "verdict": verdict, "name": name, "details": details, "kernel": kernel,
            "seconds": round(seconds), "again": again,
            "log": str(log.relative_to(self.directory)) if log else "",
            "results": ktap_results(text, name.split()[0]),
        }
        lines = [f"{verdict} {name}" + (f" ({details})" if details else "")
                 + (f" {seconds:.0f} s" if seconds else "")]
        if verdict == "FAIL" and log:
            lines += [lib_sh('show_errors "$1"', log).rstrip(), f"log: {log}"]
        if verdict == "FAIL" and again:
            lines.append(f"again: {again}")
        with self.lock:
            self.items.append(item)
            self.show("\n".join(lines))
        return item

    def never_executed(self, allowed):
        """Add a failure for each result that every guest with a patched kernel skipped:
        nothing tests it."""
        skipped, executed = set(), set(allowed)
        for item in self.items:
            if item["kernel"] not in ("", "base"):
                test = item["name"].split()[0]
                for result in item["results"]:
                    which = skipped if result["verdict"] == "SKIP" else executed
                    which.add((test, result["name"]))
        for test, name in sorted(skipped):
            if not any(test == t and is_of(name, result) for t, result in executed):
                self.add("FAIL", f"{test}: {name}", "skipped by every guest")

    def count(self, verdict):
        return sum(item["verdict"] == verdict for item in self.items)

    def write(self):
        """Return the exit status."""
        self.progress.write()
        (self.directory / "results.json").write_text(json.dumps(self.items, indent=1) + "\n")
        (self.directory / "junit.xml").write_text(to_junit(self.items))
        (self.directory / "index.html").write_text(to_html(self.items))
        print(f"results: {self.directory}/index.html")
        print(f"{self.count('PASS')} passed, {self.count('FAIL')} failed, "
              f"{self.count('SKIP')} skipped", flush=True)
        return 1 if self.count("FAIL") else 0
