# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard check` finds a back end that does not do again what its log says is in flight. What makes one of ours wrong is a proxy that
meddles with the log (pylib/relay.py). All are tried with SIDECARD_MORE=1."""

import os

import pytest

from pylib import relay
from pylib.backend import Backend
from pylib.checks import Over, check
from pylib.events import patiently
from pylib.relay import Log, Relay

MORE = os.environ.get("SIDECARD_MORE") == "1"
FAULTS = [(relay.lost, "replayed"), (relay.last_batch_done_twice, "last-batch-shown"),
          (relay.last_batch_forgotten, "last-batch-not-shown")]
# Of a packed ring one cannot always tell two that were used in another order from one that stands for both.
CELLS = [(layout, *fault) for layout in ("split", "packed") for fault in FAULTS] + [("split", relay.other_order, "replayed-in-order")]


def told(workdir, behind, meddle, name, timeout=60):
    path = workdir.path / f"p{timeout}"
    with Relay(path, behind, meddle):
        _, tests, _ = check(Over("vhost-user", path), name, "--device=blk", timeout=timeout)
    return tests


@pytest.mark.parametrize("layout", ["split", "packed"])
def test_what_is_in_flight_is_done_again(serve, workdir, layout):
    """What the tests below find is then what the proxy does, and not that there is one."""
    server = serve("ram:16M", "--in-order=on", transport="vhost-user")
    tests = told(workdir, server.path, Log(layout == "packed", lambda *_: None), f"inflight-{layout}/*")
    assert len(tests) == 5 and all(test["result"] == "passed" for test in tests.values()), tests


@pytest.mark.parametrize("layout, how, name", CELLS if MORE else CELLS[::4], ids=lambda value: getattr(value, "__name__", value))
def test_a_log_that_is_not_followed_is_found(serve, workdir, layout, how, name):
    server = serve("ram:16M", f"--in-order={'on' if how is relay.other_order else 'off'}", transport="vhost-user")
    name = f"inflight-{layout}/{name}"

    def attempt(seconds):
        test = told(workdir, server.path, Log(layout == "packed", how), name, seconds)[name]
        assert test["result"] == "failed" and test["section"] == "vhost-user, Inflight I/O tracking", test
    patiently(attempt)


def test_requests_that_are_lost_with_the_connection_are_found(workdir):
    def attempt(seconds):
        path = workdir.path / f"s{seconds}"
        with Backend(path, "loses the first of a batch"):
            _, tests, _ = check(Over("vhost-user", path), "inflight-split/reconnect", timeout=seconds)
        test = tests["inflight-split/reconnect"]
        assert test["result"] == "failed" and test["section"] == "vhost-user, Inflight I/O tracking", test
    patiently(attempt)


def test_a_log_of_another_form_is_no_fault(workdir):
    """This one keeps none."""
    with Backend(workdir.path / "s"):
        _, tests, _ = check(Over("vhost-user", workdir.path / "s"), "inflight-split/*")
    assert tests["inflight-split/replayed"]["result"] == "not_offered" and "need not be" in tests["inflight-split/replayed"]["why"]
    assert tests["inflight-split/reconnect"]["result"] == "passed"
