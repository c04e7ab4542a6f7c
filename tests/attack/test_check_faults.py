# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard check` against a back end with one fault: the test that is meant for it finds it. Without a fault nothing fails. Most are
tried with SIDECARD_MORE=1 only."""

import json
import os

import pytest

from pylib.backend import Backend
from pylib.events import patiently
from pylib.server import run_command

# What is wrong with the back end, which test fails (or "noted:" which makes a remark) for that.
FAULTS = [
    ("no reply flag", "features/offered"),
    ("no acknowledgement", "reply-ack/done"),
    ("acknowledges unasked", "reply-ack/only-when-asked"),
    ("no queues", "queue-num/some"),
    ("forgets DRIVER", "status/steps"),
    ("no inflight fd", "inflight/made"),
    ("ignores the offset", "config/offset"),
    ("lets the capacity be written", "config/read-only"),
    ("keeps the fd of REM_MEM_REG", "memory/remove-with-fd"),
    ("one too far in GET_VRING_BASE", "vring-split/stop-and-go"),
    ("goes on when it is stopped", "vring-split/stopped-is-quiet"),
    ("takes the used index for 0", "vring-split/start-anywhere"),
    ("forgets every 50th notification", "split/wanted-notifications"),
    ("loses the last of a batch", "split/full"),
    ("uses one twice", "split/full"),
    ("names another chain", "split/shapes"),
    ("sets flags with the event index", "split-event/device-flags"),
    ("never interrupts", "split/interrupt-asked-for"),
    ("interrupts always", "noted: split/no-interrupt-asked-for"),
    ("interrupts only at the event index", "split-event/interrupt-in-batch"),
    ("knows no event index", "noted: split-event/interrupt-at"),
    ("logs nothing", "log/marked"),
    ("never calls in band", "in-band-split/requests"),
    ("takes tables only at the head", "split/direct-then-indirect"),
    ("wants the header in one descriptor", "split/shapes"),
    ("puts the status behind the first piece", "split/shapes"),
    ("writes past the end of a buffer", "split/shapes"),
    ("says it wrote more", "split/shapes"),
    ("forgets the last sector of long writes", "data-split/written"),
    ("takes unknown flags", "data/range-flags"),
    ("writes no zeroes", "data/zeroes"),
]
MORE = os.environ.get("SIDECARD_MORE") == "1"
CHOSEN = FAULTS if MORE else FAULTS[5::6]


def check(workdir, *options, fault=None):
    """{test: (result, all that is said of it)}"""
    with Backend(workdir.path / "s", fault):
        status, results, stderr = run_command("check", f"vhost-user:{workdir.path / 's'}", "--destructive", "--json", *options,
                                              log_dir=workdir.path, timeout=300)
    assert status in (0, 1), stderr
    tests = {test["name"]: (test["result"], test) for test in json.loads(results)["tests"]}
    assert (status == 1) == any(result == "failed" for result, _ in tests.values())
    return tests


@pytest.mark.skipif(not MORE, reason="beside make check")
def test_nothing_fails_without_a_fault(workdir):
    for name, (result, said) in check(workdir).items():
        assert result in ("passed", "not_offered") or name == "vring/wrong-fds", said


@pytest.mark.parametrize("fault, meant", CHOSEN, ids=[fault for fault, _ in CHOSEN])
def test_a_fault_is_found_by_the_test_that_is_meant_for_it(workdir, fault, meant):
    expected, name = ("noted", meant[len("noted: "):]) if meant.startswith("noted: ") else ("failed", meant)

    def attempt(seconds):
        result, said = check(workdir, f"--only={name}", f"--timeout={seconds}", fault=fault)[name]
        assert result == expected, said
        assert said["note" if expected == "noted" else "asked"]
    patiently(attempt)
