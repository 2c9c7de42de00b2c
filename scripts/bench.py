#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Make the report of what bench.sh has counted.

    bench.py DIRECTORY

Reads DIRECTORY/raw and writes report.html, summary.md, modes.svg, sizes.svg, bench.csv
and bench.json beside it.
"""

import bisect
import csv
import html
import io
import json
import platform
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib
from page import page

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend was chosen)

OWNERS = ["nobody", "system", "host", "nic", "target"]  # as bench.sh numbers them
TARGET = OWNERS.index("target")
TREES = ["base", "series"]

# Parts of the target's path: the first pattern that matches a function's name wins.
GROUPS = [
    ("mapping for DMA, IOMMU",
     r"(__)?dma_|iommu|.*iova|intel_|qi_|cache_tag|(__)?domain_|.*_pte|pfn_to_dma"
     r"|__(un)?map_range|blk_rq_dma|blk_dma|swiotlb|pci_p2pdma_map|.*dmar|fq_|debug_dma"),
    ("pool of peer-to-peer memory", r".*p2pmem_pool|gen_pool|bitmap_|.*p2pmem|.*p2pdma"),
    ("nvmet, nvmet-rdma", r"nvmet_"),
    ("RDMA core", r"rdma_|(__)?ib_"),
    ("nvme", r"nvme_"),
    ("memory allocator", r".*(kmalloc|kfree|kmem_cache|sgl_|slab|alloc_pages|rmqueue|free_"
                         r"|get_page|sg_|clear_page|memset|zero_)"),
    ("block layer", r"(__)?blk|(__)?bio|submit_bio|bvec|sbitmap|(__)?sbq|.*io_ticks|part_"),
]
OTHER = "other"

# Work that mapping takes, as calls of functions
CALLS = {
    # dma_map_page_attrs() calls the first of these.
    "DMA mappings": ["dma_map_phys", "__dma_map_sg_attrs", "dma_iova_link"],
    "IOVA allocations": ["alloc_iova_fast"],
    "page-table updates": ["iommu_map_nosync", "iommu_map", "__iommu_unmap",
                           "iommu_unmap_fast", "iommu_unmap"],
    "IOTLB invalidations": ["qi_submit_sync"],
}

GOALS = [  # mode, bytes, at least so many percent below the base
    ("none", 4096, 12), ("lazy", 4096, 40), ("strict", 4096, 40),
    ("strict", 131072, 60), ("strict", 1048576, 85),
]

# What is compared: label, color, kernel, workload
COMPARED = [
    ("base: peer-to-peer, pages", "base", "base", "p2pmem"),
    ("series: peer-to-peer, addresses", "series", "series", "p2pmem"),
    ("series: system memory", "system", "series", "system"),
]

COLORS = {"base": "#c4682f", "series": "#2f7dc4", "system": "#8a8a8a"}
TEXT = "#010203"  # stands for the page's own color


def size_name(size):
    return f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"


def group_of(name):
    return next((g for g, pattern in GROUPS if re.match(pattern, name)), OTHER)


class Symbols:
    """Functions by address, from the "# text:" lines of a guest."""

    def __init__(self, lines):
        texts = sorted((int(a, 16), name) for a, name in
                       (line.split()[2:4] for line in lines if line.startswith("# text: ")))
        self.addresses = [a for a, _ in texts]
        self.names = [name for _, name in texts]

    def find(self, address):
        """The function that has the address, and whether it begins there."""
        i = bisect.bisect_right(self.addresses, address) - 1
        return self.names[i], self.addresses[i] == address


def read_profile(text, symbols, samples):
    """Instructions and calls per I/O of one run, by owner and function."""
    insns = [defaultdict(float) for _ in OWNERS]
    calls = defaultdict(float)
    for line in text.splitlines():
        address, length, *execs = line.split()
        name, begins = symbols.find(int(address, 16))
        for owner, n in enumerate(map(int, execs[:len(OWNERS)])):
            if n:
                insns[owner][name] += n * int(length) / samples
                if begins and owner == TARGET:
                    calls[name] += n / samples
    return insns, calls


def read_guest(path):
    """Yield what each run of a guest has counted."""
    lines = path.read_text(errors="replace").replace("\r", "").splitlines()
    symbols = Symbols(lines)
    rows = [line.split()[2:] for line in lines if line.startswith("# cost: ")]
    profiles = path.with_suffix(".profile").read_text().split("\n\n")[:-1]
    if len(rows) != len(profiles):
        sys.exit(f"{path}: {len(rows)} runs, but {len(profiles)} profiles")
    tree, mode, _ = path.stem.split(".")
    for (workload, direction, size, quartile, mean), text in zip(rows, profiles):
        whole = sum(int(n) * sum(map(int, execs)) for _, n, *execs in
                    map(str.split, text.splitlines()))
        samples = round(whole / int(mean))
        insns, calls = read_profile(text, symbols, samples)
        yield (tree, mode, workload, direction, int(size)), {
            "guest": int(quartile),
            "owners": {o: sum(f.values()) for o, f in zip(OWNERS, insns)},
            "functions": dict(insns[TARGET]),
            "calls": {what: sum(calls[name] for name in names)
                      for what, names in CALLS.items()},
        }


class Results:
    """All runs: the median of the boots, and how far they are apart."""

    def __init__(self, raw):
        self.runs = defaultdict(list)
        for path in sorted(raw.glob("*.*.*.out")):
            for key, run in read_guest(path):
                self.runs[key].append(run)
        if not self.runs:
            sys.exit(f"nothing was counted in {raw}")
        for key, runs in self.runs.items():
            if key[2] != "null_blk" and not all(run["owners"]["target"] for run in runs):
                sys.exit(f"{key}: nothing was executed for the target")
        found = {key[1] for key in self.runs}
        self.modes = [m for m in ("none", "none-mr", "passthrough", "lazy", "strict")
                      if m in found]
        self.sizes = sorted({key[4] for key in self.runs if key[2] == "p2pmem"})
        self.boots = max(len(runs) for runs in self.runs.values())

    def values(self, key, what="target"):
        if what == "guest":
            return [run["guest"] for run in self.runs.get(key, [])]
        return [run["owners"][what] for run in self.runs.get(key, [])]

    def median(self, key, what="target"):
        values = self.values(key, what)
        return statistics.median(values) if values else None

    def spread(self, key, what="target"):
        """Percent between the lowest and the highest boot."""
        values = self.values(key, what)
        return (max(values) / min(values) - 1) * 100 if values and min(values) else 0

    def calls(self, key, what):
        return statistics.median(run["calls"][what] for run in self.runs[key])

    def functions(self, key):
        total = defaultdict(list)
        for run in self.runs[key]:
            for name, n in run["functions"].items():
                total[name].append(n)
        return {name: statistics.median(n + [0] * (len(self.runs[key]) - len(n)))
                for name, n in total.items()}

    def groups(self, key):
        sums = defaultdict(float)
        for name, n in self.functions(key).items():
            sums[group_of(name)] += n
        return sums


def read_large(raw):
    """Rows of large.sh: what it takes to register memory, by size: microseconds, and KiB in
    all, in struct pages, and in page tables of the IOMMU"""
    rows = defaultdict(dict)
    for tree in TREES:
        for line in (raw / f"{tree}.large.out").read_text(errors="replace").splitlines():
            match = re.match(r"# large: (\d+) (\d+) \S+ (-?\d+) (\d+) (\S+)", line)
            if match:
                rows[int(match[1])][tree] = (*map(int, match.groups()[1:4]), match[5])
        if not any(tree in row for row in rows.values()):
            sys.exit(f"nothing was registered in {raw}/{tree}.large.out")
    return rows


def read_native(raw):
    """Picoseconds for each operation that KUnit measured: (reference, series) of each run."""
    times = defaultdict(list)
    for path in sorted(raw.glob("native.*.out")):
        for line in path.read_text(errors="replace").splitlines():
            match = re.search(r" bench: (.*: .*) (\d+) ps, series (\d+) ps$", line)
            if match:
                times[match[1]].append((int(match[2]), int(match[3])))
        if not times:
            sys.exit(f"nothing was measured in {path}")
    return times


# --- tables: a title, a header, and rows of text ---

def change(before, after):
    return f"{(after / before - 1) * 100:+.1f} %" if before and after else ""


def with_spread(results, key, what="target"):
    value = results.median(key, what)
    if value is None:
        return "-"
    spread = results.spread(key, what)
    return f"{value:,.0f}" + (f" (±{spread / 2:.1f} %)" if spread > 1 else "")


def target_table(results, workload, what="target", label="",
                 names=("base, pages", "series, addresses")):
    rows = []
    for mode in results.modes:
        for direction in ("read", "write"):
            for size in results.sizes:
                base, series = ((tree, mode, workload, direction, size) for tree in TREES)
                if series not in results.runs:
                    continue
                system = ("series", mode, workload.replace("p2pmem", "system"), direction,
                          size)
                rows.append([
                    mode, f"{label}{direction} {size_name(size)}",
                    with_spread(results, base, what), with_spread(results, series, what),
                    change(results.median(base, what), results.median(series, what)),
                    with_spread(results, system, what)
                    if system != series and system in results.runs else "",
                ])
    header = ["IOMMU", "I/O", *names, "change", "series, system memory"]
    if any(row[-1] for row in rows):
        return header, rows
    return header[:-1], [row[:-1] for row in rows]


def controllers_table(results):
    header, rows = target_table(results, "controllers-1", label="1 controller, ")
    for number in (4, 16):
        rows += target_table(results, f"controllers-{number}",
                             label=f"{number} controllers, ")[1]
    return header, rows


def work_table(results):
    rows = []
    for mode in results.modes:
        for workload in ("p2pmem", "head", "raid0"):
            for size in (4096, 1048576):
                for tree in TREES:
                    key = (tree, mode, workload, "read", size)
                    if key in results.runs:
                        rows.append([mode, f"{workload} {size_name(size)}", tree] +
                                    [f"{results.calls(key, what):.2f}" for what in CALLS])
    return ["IOMMU", "read", "kernel"] + list(CALLS), rows


def goal_table(results):
    rows = []
    for mode, size, goal in GOALS:
        base, series = (results.median((tree, mode, "p2pmem", "read", size))
                        for tree in TREES)
        row = [f"{size_name(size)}, {mode}", f"-{goal} %"]
        if base and series:
            percent = (1 - series / base) * 100
            row += [f"{-percent:+.1f} %", "yes" if percent >= goal else "NO"]
        else:
            row += ["not measured", "-"]
        rows.append(row)
    # A single row varies by more than this goal, their sum does not.
    none, strict = (sum(results.median(key) for key in results.runs
                        if key[:3] == ("series", mode, "p2pmem"))
                    for mode in ("none", "strict"))
    if none and strict:
        rows.append(["series, all sizes: strict against none", "±0.2 %",
                     change(none, strict), "yes" if abs(strict / none - 1) <= 0.002 else "NO"])
    return ["read, target's path", "goal", "measured", "reached"], rows


def top_table(results, mode="strict", size=4096):
    base, series = (results.functions((tree, mode, "p2pmem", "read", size))
                    for tree in TREES)
    names = sorted(series, key=series.get, reverse=True)[:15]
    return ["function", "group", "base", "series"], [
        [name, group_of(name), f"{base.get(name, 0):.0f}", f"{series[name]:.0f}"]
        for name in names]


def compare_guest(results, names, header):
    """Rows of two runs each; names has their first and second key, but mode and I/O."""
    rows = []
    for mode in results.modes:
        for label, first, second in names:
            for direction in ("read", "write"):
                for size in (4096, 131072):
                    a, b = ((tree, mode, workload, direction, size)
                            for tree, workload in (first, second))
                    if a in results.runs and b in results.runs:
                        rows.append([mode, f"{label}{direction} {size_name(size)}",
                                     with_spread(results, a, "guest"),
                                     with_spread(results, b, "guest"),
                                     change(results.median(a, "guest"),
                                            results.median(b, "guest"))])
    return ["IOMMU", "I/O", *header, "change"], rows


def drive_table(results):
    return compare_guest(results, [("", ("series", "drive-pages"), ("series", "drive-address"))],
                         ["pages of system memory", "p2pmem by address"])


def ordinary_table(results):
    return compare_guest(results, [(f"{disk}, ", ("base", disk), ("series", disk))
                                   for disk in ("null_blk", "nvme")], TREES)


def sizes_table(raw):
    path = raw / "sizes.txt"
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    return ["struct", "inline encryption", "base (bytes)", "series (bytes)"], [
        line.split() for line in lines]


def large_table(large):
    rows = []
    for gib in sorted(large):
        row = [f"{gib} GiB"]
        for tree in TREES:
            us, *kib, tables = large[gib].get(tree, (None, "-"))
            row += [f"{us / 1000:,.1f}", *[f"{k / 1024:,.1f}" for k in kib]] if us else ["-"] * 3
        rows.append([*row, tables])
    return ["memory", *[f"{tree} ({what})" for tree in TREES
                        for what in ("ms", "MiB", "MiB in struct pages")],
            "series (KiB in page tables when mapped)"], rows


def native_table(raw):
    def cell(values):
        return (f"{statistics.median(values) / 1000:,.1f} "
                f"({min(values) / 1000:,.1f} to {max(values) / 1000:,.1f})")

    rows = []
    for name, times in read_native(raw).items():
        what, reference = name.split(": ")
        before, after = zip(*times)
        rows.append([what, reference, cell(before), cell(after),
                     change(statistics.median(before), statistics.median(after))])
    return ["operation", "compared with", "that (ns)", "series (ns)", "change"], rows


def processor():
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return f"{len(models)} x {models[0]}" if models else platform.machine()


# --- plots ---

def finish(figure):
    """An SVG in which what is TEXT can be given a color."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, bbox_inches="tight",
                   metadata={"Date": None})
    plt.close(figure)
    return out.getvalue()


def inline(svg):
    """The same as a part of a page, with its colors and width."""
    svg = svg[svg.index("<svg"):].replace(TEXT, "currentColor")
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', svg, count=1)


def legend(ax):
    ax.legend(frameon=False, fontsize=8, ncol=3, loc="lower center", bbox_to_anchor=(0.5, 1))


def axes(title, xlabel, ylabel):
    figure, ax = plt.subplots(figsize=(7, 3.6))
    ax.set_title(title, pad=24)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(axis="y", alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def plot_modes(results, size):
    figure, ax = axes(f"Target's instructions for a {size_name(size)} read",
                      "IOMMU mode", "instructions per I/O")
    for i, (label, color, tree, workload) in enumerate(COMPARED):
        values = [results.median((tree, mode, workload, "read", size)) or 0
                  for mode in results.modes]
        bars = ax.bar([x + (i - 1) * 0.27 for x in range(len(results.modes))], values,
                      0.25, label=label, color=COLORS[color])
        ax.bar_label(bars, [f"{v:,.0f}" for v in values], fontsize=7, padding=1)
    ax.set_xticks(range(len(results.modes)), results.modes)
    legend(ax)
    return finish(figure)


def plot_sizes(results, mode):
    figure, ax = axes(f"Target's instructions by size of a read, IOMMU: {mode}",
                      "size", "instructions per I/O (logarithmic)")
    for label, color, tree, workload in COMPARED:
        ax.plot(range(len(results.sizes)),
                [results.median((tree, mode, workload, "read", size))
                 for size in results.sizes],
                marker="o", label=label, color=COLORS[color])
    ax.set_yscale("log")
    ax.set_xticks(range(len(results.sizes)), map(size_name, results.sizes))
    legend(ax)
    return finish(figure)


def plot_stack(results, size):
    bars = [(mode, tree) for mode in results.modes for tree in TREES]
    figure, ax = axes(f"Where the target's instructions go, {size_name(size)} read",
                      "IOMMU mode and kernel", "instructions per I/O")
    bottom = [0] * len(bars)
    palette = plt.get_cmap("tab10")
    for i, group in enumerate([g for g, _ in GROUPS] + [OTHER]):
        values = [results.groups((tree, mode, "p2pmem", "read", size))[group]
                  for mode, tree in bars]
        ax.bar(range(len(bars)), values, 0.7, bottom, label=group, color=palette(i))
        bottom = [b + v for b, v in zip(bottom, values)]
    ax.set_xticks(range(len(bars)), [f"{mode}\n{tree}" for mode, tree in bars], fontsize=7)
    ax.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return finish(figure)


def plot_large(large):
    figure, ax = axes("Memory that registering peer-to-peer memory takes", "GiB registered",
                      "MiB taken (logarithmic)")
    for tree in TREES:
        points = [(gib, large[gib][tree][1] / 1024) for gib in sorted(large)
                  if tree in large[gib] and large[gib][tree][1] > 0]
        ax.plot(*zip(*points), marker="o", label=tree, color=COLORS[tree])
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sorted(large), sorted(large))
    legend(ax)
    return finish(figure)


# --- the report ---

NOT_SHOWN = (
    "Emulation cannot show latency, bandwidth, how long a flush of an IOTLB takes, what "
    "PCIe transfers cost, or misses of a processor's caches. An emulated IOMMU flushes in no "
    "time, so these figures understate what strict mode costs. Instructions are not time; "
    "that they are exact, and the same everywhere, is why they are shown.")

METHOD = (
    "Base and series have the same configuration and ran on the same emulated machines, with "
    "one processor, one I/O at a time if not stated otherwise. A QEMU plugin counts every kernel instruction. Code "
    "that only one party executes (nvme-rdma and system calls; the emulated NIC; nvmet, "
    "nvmet-rdma and nvme-pci; scheduler and idle loop) says who is at work, and shared code, "
    "such as the block layer, counts for the one whose own code ran last. "
    "The figures are the median of the boots; ± is shown where these differ by more than "
    "1 %. What needs no device is timed by the KUnit tests in User Mode Linux: replacing the "
    "oldest of so many buffers of 4 KiB (or failing to get one), and building and splitting a bio; the "
    "fastest and the slowest boot are in parentheses.")


def sections(results, large, raw):
    yield "Goals", goal_table(results), None
    yield ("Target's instructions per I/O, drive", target_table(results, "p2pmem"),
           [plot_modes(results, 4096), plot_modes(results, 131072),
            plot_sizes(results, "none"), plot_sizes(results, "strict")])
    yield ("Target's instructions per I/O, 32 at a time", target_table(results, "p2pmem-32"),
           None)
    yield ("Target's instructions per I/O, one of several controllers, each with a queue for "
           "reads and one for writes", controllers_table(results), None)
    yield ("Target's instructions per I/O, none of the pool is left",
           target_table(results, "exhausted", names=TREES), None)
    yield ("Target's instructions per I/O, multipath head", target_table(results, "head"),
           None)
    yield ("Target's instructions per I/O, raid0 of two drives, chunks of 64 KiB",
           target_table(results, "raid0"), None)
    yield ("Where the target's instructions go", top_table(results),
           [plot_stack(results, 4096), plot_stack(results, 131072)])
    yield "Work for mapping, calls per I/O on the target's path", work_table(results), None
    yield ("Instructions per I/O in the whole guest: host, NIC, target",
           target_table(results, "p2pmem", "guest"), None)
    yield "A drive alone, by a bio of the kernel", drive_table(results), None
    yield "Ordinary I/O, instructions of the kernel", ordinary_table(results), None
    yield "Registering memory, and mapping it", large_table(large), [plot_large(large)]
    yield (f"Without a device, at native speed ({processor()}), per operation",
           native_table(raw), None)
    yield "Sizes of structures", sizes_table(raw), None


def versions(results):
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True,
                          text=True, check=True).stdout.split("\n")[0]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True,
                            text=True, check=True,
                            cwd=Path(__file__).resolve().parent).stdout.strip()
    return (f"Commit {commit}, {qemu}, on {platform.machine()}; "
            f"boots of each kernel in each mode: {results.boots}.")


def to_markdown(parts, about):
    out = ["# What the series changes, measured", "", about, "", METHOD, "", NOT_SHOWN]
    for title, (header, rows), _ in parts:
        out += ["", f"## {title}", "", "| " + " | ".join(header) + " |",
                "|" + "---|" * len(header)]
        out += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(out) + "\n"


STYLE = """
table { font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
td, th { text-align: right; white-space: nowrap; }
td:nth-child(-n+2), th:nth-child(-n+2) { text-align: left; }
svg { max-width: 46rem; height: auto; display: block; margin: 1rem 0; }
"""


def to_html(parts, about):
    def cells(row, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in row) + "</tr>"

    out = [f"<p>{html.escape(text)}" for text in (about, METHOD, NOT_SHOWN)]
    for title, (header, rows), plots in parts:
        out.append(f"<h2>{html.escape(title)}</h2>")
        out += map(inline, plots or [])
        out.append("<div class=wide><table>" + cells(header, "th") +
                   "".join(cells(row, "td") for row in rows) + "</table></div>")
    return page("What the series changes, measured", STYLE, "\n".join(out))


def write_data(results, large, directory):
    fields = ["kernel", "iommu", "workload", "direction", "bytes", "boot", "guest"]
    with open(directory / "bench.csv", "w", newline="") as out:
        table = csv.writer(out)
        table.writerow(fields + OWNERS[1:] + list(CALLS))
        for key, runs in sorted(results.runs.items()):
            for boot, run in enumerate(runs, 1):
                table.writerow([*key, boot, run["guest"]] +
                               [round(run["owners"][o], 1) for o in OWNERS[1:]] +
                               [round(run["calls"][what], 3) for what in CALLS])
    data = [dict(zip(fields, [*key, boot]), **run)
            for key, runs in sorted(results.runs.items())
            for boot, run in enumerate(runs, 1)]
    (directory / "bench.json").write_text(
        json.dumps({"runs": data, "registering": large}, indent=1))


def main():
    directory = Path(sys.argv[1])
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "p2pmem",
                         "font.family": "sans-serif", "axes.edgecolor": TEXT,
                         "text.color": TEXT, "axes.labelcolor": TEXT,
                         "xtick.color": TEXT, "ytick.color": TEXT})
    raw = directory / "raw"
    results = Results(raw)
    large = read_large(raw)
    parts = [part for part in sections(results, large, raw) if part[1][1]]
    about = versions(results)
    write_data(results, large, directory)
    (directory / "summary.md").write_text(to_markdown(parts, about))
    (directory / "report.html").write_text(to_html(parts, about))
    for name, svg in [("modes", plot_modes(results, 4096)),
                      ("sizes", plot_sizes(results, "strict"))]:
        # readable on white and on black
        (directory / f"{name}.svg").write_text(svg.replace(TEXT, "#808080"))
    header, rows = parts[0][1]
    for row in [header] + rows:
        print("".join(f"{cell:<40}" if not i else f"{cell:>10}"
                      for i, cell in enumerate(row)))
    print(f"report: {directory / 'report.html'}")


if __name__ == "__main__":
    main()
