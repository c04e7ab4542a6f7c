# SPDX-License-Identifier: BSD-3-Clause
"""What `tools/bench --json` and --plots have to give, whatever the figures are."""

import json
import xml.etree.ElementTree as ElementTree

NUMBERS = ("iops", "ios", "seconds", "cpu")


def case_faults(name, case):
    if not case["what"] or len(case["sides"]) < 2:
        yield f"{name}: {case['what']} compares nothing"
    for side in case["sides"]:
        if not side["runs"]:
            yield f"{name}: {side['name']} was not measured"
        for run in side["runs"]:
            bad = [figure for figure in NUMBERS if not isinstance(run.get(figure), (int, float)) or run[figure] < 0]
            if bad or run["iops"] == 0:
                yield f"{name}: {side['name']} has no {', '.join(bad) or 'requests'}"
            if run["distance"] not in ("near", "far", "changing") or min(run["round_trip_ns"]) <= 0:
                yield f"{name}: {side['name']} was measured at no distance"


def faults(path, plots):
    """As texts; none: all is as it should be."""
    found = json.loads(path.read_text(encoding="utf-8"))
    wrong = [f"the JSON has no {key}" for key in ("format", "machine", "rounds", "seconds", "parts") if key not in found]
    for name, part in found.get("parts", {}).items():
        if "missing" in part:
            wrong.append(f"{name} is left out: {part['missing']}")
        for case in part.get("cases", ()):
            wrong += case_faults(name, case)
    for name in ("iops", "cpu", "latency-1", "latency-32"):
        plot = plots / f"{name}.svg"
        if not plot.exists():
            wrong.append(f"there is no plot {name}")
        elif not list(ElementTree.parse(plot).iter("{http://www.w3.org/2000/svg}polyline")):
            wrong.append(f"the plot {name} has no line")
    return wrong
