#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Write what a run of check.sh has found for other programs, and as a page.

    results.py DIRECTORY

Reads DIRECTORY/verdicts: lines of verdict, name and details, log, and how to run it
again. Writes results.json, junit.xml and index.html beside it.
"""

import html
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from page import page

STYLE = """
.FAIL { color: #c22; font-weight: bold; } .SKIP { color: #888; } .PASS { color: #282; }
pre { overflow-x: auto; }
"""


def ktap_results(log, test):
    """What a test has reported: verdict and description of each result."""
    text = re.search(rf"^# p2pdma-run: start {re.escape(test)}\b.*?$(.*?)"
                     rf"^# p2pdma-run: end {re.escape(test)}\b", log, re.M | re.S)
    found = []
    for line in text[1].splitlines() if text else []:
        match = re.match(r"(ok|not ok) \d+ (.*)", line)
        if match:
            skipped = "# SKIP" in line
            verdict = "SKIP" if skipped else "PASS" if match[1] == "ok" else "FAIL"
            found.append({"verdict": verdict, "name": match[2]})
    return found


def read_line(line, directory):
    verdict, what, log, again = line.split("\t")
    name, _, details = what.partition(" ")
    seconds = re.search(r"(\d+) s\)?$", details)
    path = Path(log)
    text = path.read_text(errors="replace") if path.is_file() else ""
    test = name.split("-")[0]
    return {
        "verdict": verdict, "name": name, "details": details,
        "seconds": int(seconds[1]) if seconds else 0,
        "log": str(path.relative_to(directory)) if path.is_relative_to(directory) else "",
        "again": again,
        "results": ktap_results(text, test) or ktap_results(text, f"{test}.sh"),
    }


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
                + f"<td>{html.escape(item['details'])}{again}")

    order = ["FAIL", "SKIP", "PASS"]
    count = ", ".join(f"{sum(i['verdict'] == v for i in items)} {v}" for v in order)
    rows = map(row, sorted(items, key=lambda i: order.index(i["verdict"])))
    return page("Results", STYLE, f"<p>{count}<table>" + "\n".join(rows) + "</table>")


def main():
    directory = Path(sys.argv[1]).resolve()
    lines = (directory / "verdicts").read_text().splitlines()
    items = [read_line(line, directory) for line in lines]
    (directory / "results.json").write_text(json.dumps(items, indent=1) + "\n")
    (directory / "junit.xml").write_text(to_junit(items))
    (directory / "index.html").write_text(to_html(items))


if __name__ == "__main__":
    main()
