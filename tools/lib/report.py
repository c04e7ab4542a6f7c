# SPDX-License-Identifier: BSD-3-Clause
"""Tables and plots of what tools/bench has found."""

import statistics

from . import plots
from .figures import rounded, table, thousands
from .turns import summaries

HEAD = ["measured", "IOPS, median", "to the first", "lowest to highest", "p50 µs", "p99 µs", "server's calls / I/O",
        "client's calls / I/O", "server's CPU µs / I/O", "I/O a CPU second, to the first", "round trip ns", "rounds"]


def shown(value, form=rounded):
    return "" if value is None else form(value)


def rows(case):
    """Of each distance at which the sides were measured."""
    for line in summaries(case).values():
        for side, found in zip(case["sides"], line):
            if not found["rounds"]:
                continue
            ratios, calls = found["ratios"], side["calls"] or {}
            mean = found.get("mean")
            yield [*case["what"].values(), side["name"], thousands(found["iops"]),
                   f"{statistics.median(ratios):.2f}" if ratios else "", f"{ratios[0]:.2f} to {ratios[-1]:.2f}" if ratios else "",
                   f"mean {rounded(mean)}" if mean else shown(found.get("p50")), shown(found.get("p99")),
                   shown(calls.get("server"), "{:.3f}".format), shown(calls.get("client"), "{:.3f}".format), rounded(found["cpu"]),
                   f"{statistics.median(found['cpu_ratios']):.2f}" if found["cpu_ratios"] else "",
                   f"{found['round_trip_ns']:.0f}", found["rounds"]]


def cases_text(found, cases):
    runs = [run for case in cases for side in case["sides"] for run in side["runs"]]
    changing = sum(run["distance"] == "changing" for run in runs)
    lines = [f"{found['machine']} {found['rounds']} rounds of {found['seconds']} s for each line, the sides in turn.", ""]
    if changing:
        lines[0] += f" {changing} of {len(runs)} runs are left out: the distance of the processors changed meanwhile."
    cached = [run["cached"] for run in runs if "cached" in run]
    if cached:
        lines[0] += f" Before a run, the page cache had {' or '.join(f'{value:.0%}' for value in sorted({round(value, 2) for value in cached}))}" \
                    " of a file."
    lines += table([*cases[0]["what"], *HEAD], [row for case in cases for row in rows(case)])
    return lines


def part_text(found, part):
    if "missing" in part:
        return f"Left out: {part['missing']}.\n"
    lines = cases_text(found, part["cases"]) if "cases" in part else []
    if "table" in part:
        lines += table(part["table"]["head"], part["table"]["rows"])
    note = [part["note"], ""] if "note" in part else []
    return "\n".join([*note, *lines]) + "\n"


# --- plots, of the part depth ---

def series(cases, figure):
    """{side: [(in flight, median)]} of what was measured at the distance that most runs have."""
    found = {}
    for case in cases:
        by_distance = summaries(case)
        distance = max(by_distance, key=lambda name: sum(side["rounds"] for side in by_distance[name]), default=None)
        for side, summary in zip(case["sides"], by_distance.get(distance, [])):
            if summary.get(figure):
                found.setdefault(side["name"], []).append((case["iodepth"], summary[figure]))
    return found


def percentiles(case):
    """{side: [(1 / (1 - share), microseconds)]}: medians over the runs."""
    found = {}
    for side in case["sides"]:
        runs = [run["percentiles"] for run in side["runs"] if "percentiles" in run]
        points = []
        for name in runs[0] if runs else ():
            share = float(name) / 100
            value = statistics.median(run[name] for run in runs)
            if 0 < share < 1 and value > 0:
                points.append((1 / (1 - share), value))
        if points:
            found[side["name"]] = sorted(points)
    return found


def write_plots(found, folder):
    """Gives the paths."""
    cases = found["parts"].get("depth", {}).get("cases")
    if not cases:
        return []
    ticks = [(case["iodepth"], str(case["iodepth"])) for case in cases]
    drawn = {"iops": plots.lines("Random reads of 4 KiB", "requests in flight", "IOPS", series(cases, "iops"), ticks),
             "cpu": plots.lines("The server's CPU for each request", "requests in flight", "µs", series(cases, "cpu"), ticks)}
    shares = [(2, "50 %"), (10, "90 %"), (100, "99 %"), (1000, "99.9 %"), (10000, "99.99 %")]
    for case in cases:
        if case["iodepth"] in (1, 32):
            lines = percentiles(case)
            title = f"Latency, {case['iodepth']} in flight"
            drawn[f"latency-{case['iodepth']}"] = plots.lines(title, "of all requests", "µs", lines, shares)
    paths = []
    for name, document in drawn.items():
        paths.append(folder / f"{name}.svg")
        paths[-1].write_text(document, encoding="utf-8")
    return paths
