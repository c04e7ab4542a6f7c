# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard check` and devices that can be migrated over vfio-user: one that does it right passes, and each thing that can be wrong is
found by the test that is about it (pylib/migratable.py). All are tried with SIDECARD_MORE=1."""

import os

import pytest

from pylib.checks import Over, assert_found, check
from pylib.migratable import Migratable

FAULTS = [
    ("cannot stop and copy", "migration/states", "STOP_COPY"),
    ("always says that it runs", "migration/states", "must be complete"),
    ("does not stop and copy", "migration/states", "has to be supported"),
    ("answers a transition shortly", "migration/states", "same as the request"),
    ("goes to any state", "migration/no-such-state", "cannot be specified"),
    ("breaks when it refuses", "migration/no-such-state", "valid state"),
    ("gives data while it runs", "migration/data", "saving group"),
    ("gives more than it was asked for", "migration/data", "at most what was asked for"),
    ("has data without end", "migration/data", "has an end"),
    ("takes no second piece", "migration/data", "has to be done"),
    ("does not take its own state", "migration/data", "has to be supported"),
    ("is lost by a reset", "migration/reset", "has to be supported"),
]


def test_a_device_that_is_migrated_as_it_should_be_passes(workdir):
    with Migratable(workdir.path / "s"):
        for group in ("migration/*", "feature/*", "reset/*"):
            status, tests, _ = check(workdir.path / "s", group)
            assert status == 0 and all(test["result"] == "passed" for test in tests.values()), tests


@pytest.mark.parametrize("fault, test, word", FAULTS if os.environ.get("SIDECARD_MORE") == "1" else FAULTS[1::5],
                         ids=lambda value: value.replace(" ", "-"))
def test_a_fault_is_found(workdir, fault, test, word):
    with Migratable(workdir.path / "s", fault):
        assert_found(Over("vfio-user", workdir.path / "s"), test, word)
