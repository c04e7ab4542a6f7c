# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard check` against a back end with one fault: the test that is meant for it finds it. Without a fault nothing fails. Most are
tried with SIDECARD_MORE=1 only."""

import json
import os

import pytest

from pylib.backend import Backend
from pylib.backend_devices import Disk, Entropy
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
    ("says that an fd comes with it", "device-state/saved"),
    ("does not close the state", "device-state/saved"),
    ("never checks its state", "device-state/saved"),
    ("does not take its own state", "device-state/loaded"),
    ("takes any state", "noted: device-state/no-state"),
    ("takes unknown flags", "data/range-flags"),
    ("writes no zeroes", "data/zeroes"),
]
MORE = os.environ.get("SIDECARD_MORE") == "1"
CHOSEN = FAULTS if MORE else FAULTS[5::6]


def check(workdir, *options, fault=None, device=Disk):
    """{test: (result, all that is said of it)}"""
    with Backend(workdir.path / "s", fault, device):
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


def test_a_back_end_may_bring_a_channel_of_its_own_for_the_state(workdir):
    result, said = check(workdir, "--only=device-state/loaded", fault="brings a channel of its own")["device-state/loaded"]
    assert result == "passed", said


# --- a device that is no disk ---

OF_ENTROPY = [
    ("gives nothing", "split/shapes", "one or more"),
    ("only says that it gives", "split/shapes", "must have written"),
    ("says it wrote more", "split/full", "at least as many bytes"),
    ("uses one twice", "split/full", "once"),
    ("never interrupts", "split/interrupt-asked-for", "notification"),
    ("takes tables only at the head", "split/direct-then-indirect", ""),
    ("writes past the end of a buffer", "split/shapes", "not in the chain"),
    ("one too far in GET_VRING_BASE", "vring-split/stop-and-go", "where it is"),
    ("logs nothing", "log/marked", "marked"),
]
OWN = ["--request=,64"] # a device that the tester has never heard of


@pytest.mark.skipif(not MORE, reason="beside make check")
@pytest.mark.parametrize("how", [["--device=rng"], OWN], ids=["rng", "request"])
def test_nothing_fails_of_an_entropy_device_without_a_fault(workdir, how):
    tests = check(workdir, *how, "--only=[lsv]*/*", device=Entropy)
    for name, (result, said) in tests.items():
        assert result in ("passed", "not_offered") or name == "vring/wrong-fds", said
    for name in ("split/shapes", "split/index-wraps", "split-event/interrupt-in-batch", "split-mistakes/garbage",
                 "vring-split/stop-in-flight"):
        assert tests[name][0] == "passed"
    assert tests["split-mistakes/parts-missing"][0] == "not_offered", "which parts a request has is the affair of a disk"


@pytest.mark.parametrize("fault, name, word", OF_ENTROPY if MORE else OF_ENTROPY[:2])
def test_a_fault_of_an_entropy_device_is_found(workdir, fault, name, word):
    def attempt(seconds):
        result, said = check(workdir, "--device=rng", f"--only={name}", f"--timeout={seconds}", fault=fault, device=Entropy)[name]
        assert result == "failed" and word in said["asked"], said
    patiently(attempt)


def test_rings_of_a_device_of_an_unknown_kind_are_not_offered(workdir):
    result, said = check(workdir, "--only=split/full", device=Entropy)["split/full"]
    assert result == "not_offered" and "--request" in said["why"]


@pytest.mark.parametrize("request_", ["64", "0,64", "0g,64", ",", "00" * 257 + ",1", ",65537", ",x"],
                         ids=["no-comma", "half-a-byte", "no-digit", "nothing", "too-much-out", "too-much-in", "no-number"])
def test_a_request_that_cannot_be_is_refused(workdir, request_):
    status, _, stderr = run_command("check", workdir.path / "s", f"--request={request_}", log_dir=workdir.path)
    assert status == 2 and "type for example --request=0100,64" in stderr


def test_a_disk_needs_no_request(workdir):
    with Backend(workdir.path / "s"):
        status, _, stderr = run_command("check", f"vhost-user:{workdir.path / 's'}", "--request=,64", log_dir=workdir.path)
    assert status == 2 and "leave --request out" in stderr
