# SPDX-License-Identifier: BSD-3-Clause
"""Runs `sidecard check` and reads what it says."""

import json

from .server import run_command


class Over:
    """A path, as the command wants it when it is not to find out which protocol is spoken there: of somebody who speaks it wrongly it
    would ask for as long as an answer may take."""

    def __init__(self, protocol, path):
        self.parent, self.text = path.parent, f"{protocol}:{path}"

    def __str__(self):
        return self.text


def check(path, only="*", *options, timeout=60):
    """(exit status, {test: what is told of it}, the sums)."""
    status, out, err = run_command("check", path, f"--only={only}", f"--timeout={timeout}", "--json", *options, log_dir=path.parent,
                                   timeout=300)
    assert out, f"status {status}: {err}"
    told = json.loads(out)
    return status, {test["name"]: test for test in told["tests"]}, told["sums"]


def assert_all_passed(path, *options, only="*"):
    """Nothing failed, and nothing is worth a remark."""
    status, tests, sums = check(path, only, *options)
    wrong = [test for test in tests.values() if test["result"] in ("failed", "noted")]
    assert not wrong and status == 0, json.dumps(wrong, indent=1)
    assert sums["passed"] > 0


def assert_found(path, test, word, options=(), **more):
    """That test fails, for a reason with that word in it. "note: WORD": it makes a remark."""
    status, tests, sums = check(path, test, *options, **more)
    told = tests[test]
    if word.startswith("note: "):
        assert told["result"] == "noted" and status == 0 and word[6:] in told["note"], told
        return
    assert told["result"] == "failed" and status == 1 and sums["failed"] == 1, told
    assert word in told["asked"], told
