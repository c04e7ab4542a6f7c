# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard check` finds nothing wrong with our vhost-user back end, in any mode (over vfio-user: test_check_devices.py). Most modes are
tried with SIDECARD_MORE=1 only."""

import os

import pytest

from pylib.checks import Over, assert_all_passed, check

MORE = os.environ.get("SIDECARD_MORE") == "1"
MODES = [("--queues=4",)] + ([
    ("--queues=1",), ("--poll=never", "--queues=2"), ("--loop=epoll", "--queues=4"), ("--threads=2", "--poll=always", "--queues=4"),
    ("--in-order=on", "--poll=never", "--threads=2", "--queues=4"), ("--loop=epoll", "--poll=always", "--threads=2", "--queues=2"),
    ("--packed=off",), ("--block-size=4096",), ("--queue-size=8",)] if MORE else [])


@pytest.mark.parametrize("mode", MODES, ids=[" ".join(mode) for mode in MODES])
def test_our_back_end_passes(serve, workdir, mode):
    server = serve(workdir.file("disk", 16 << 20) if MORE else "ram:16M", *mode, transport="vhost-user")
    assert_all_passed(Over("vhost-user", server.path), "--destructive")


@pytest.mark.parametrize("transport", ["vfio-user", "vhost-user"])
def test_our_own_read_only_disk_passes(serve, image, transport):
    server = serve(image, "--read-only", transport=transport)
    server.check_service = False  # it writes
    status, tests, _ = check(Over("vhost-user", server.path) if transport == "vhost-user" else server.path, "d*/*", "--destructive")
    assert status == 0
    assert tests["data/read-only"]["result"] == "passed" and tests["data-split/written"]["result"] == "not_offered"


def test_which_protocol_a_path_speaks_is_found_out(serve):
    """The same test names another section over each transport."""
    for transport, group in (("vfio-user", "version/accepted"), ("vhost-user", "framing/*")):
        status, tests, _ = check(serve("ram:16M", transport=transport).path, group)
        assert status == 0 and tests and all(test["result"] == "passed" for test in tests.values())
