# SPDX-License-Identifier: BSD-3-Clause
"""What became of the tests of one part, whatever ran them: counts, the names of those that failed, and why."""

import json
import re
import xml.etree.ElementTree as ElementTree

SUM_LINE = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.MULTILINE)


class Results:
    def __init__(self):
        self.passed = 0
        self.skipped = 0
        self.failed = []  # names, each with a reason behind ": " where one is known

    @property
    def ran(self):
        return self.passed + len(self.failed)

    def add(self, other):
        self.passed += other.passed
        self.skipped += other.skipped
        self.failed += other.failed

    def good(self):
        self.passed += 1

    def bad(self, name):
        self.failed.append(name)

    def line(self):
        return f"{self.passed} passed, {len(self.failed)} failed, {self.skipped} skipped"


def from_junit(path):
    """pytest's --junitxml; a test that failed and whose teardown failed too is one."""
    outcomes = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}::{case.get('name')}"
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        if bad is not None:
            outcomes[name] = "failed: " + (bad.get("message") or "?").splitlines()[0][:160]
        elif case.find("skipped") is not None:
            outcomes.setdefault(name, "skipped")
        else:
            outcomes.setdefault(name, "passed")
    results = Results()
    for name, outcome in outcomes.items():
        if outcome == "passed":
            results.passed += 1
        elif outcome == "skipped":
            results.skipped += 1
        else:
            results.failed.append(f"{name}: {outcome.removeprefix('failed: ')}")
    return results


def from_meson(path, prefix):
    """meson's testlog.json: one object a line."""
    results = Results()
    with open(path, encoding="utf-8") as log:
        for line in log:
            test = json.loads(line)
            if test["result"] == "OK":
                results.passed += 1
            elif test["result"] == "SKIP":
                results.skipped += 1
            else:
                results.failed.append(f"{prefix}{test['name']}: {test['result'].lower()}")
    return results


def from_sum_line(text, name):
    """The last line of the form "N passed, N failed[, N skipped]"."""
    results = Results()
    found = SUM_LINE.findall(text)
    if not found:
        results.bad(f"{name}: printed no sum of passed and failed")
        return results
    passed, failed, skipped = found[-1]
    results.passed = int(passed)
    results.skipped = int(skipped or 0)
    # Such programs say in a line of its own what failed.
    said = [line.strip() for line in text.splitlines() if re.search(r"\bFAIL(ED)?\b", line)]
    for number in range(int(failed)):
        results.bad(f"{name}: {said[number] if number < len(said) else f'number {number + 1} of {failed}'}")
    return results
