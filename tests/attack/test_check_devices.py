# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard check` finds nothing wrong with our servers, in whatever way they serve. test_check_lies.py is about what it finds."""

import os

import pytest

from pylib.checks import assert_all_passed

DEVICES = [("virtio-blk", "--queues=4"), ("nvme", "--poll=always")]


@pytest.mark.parametrize("device, option", DEVICES, ids=[device for device, _ in DEVICES])
def test_our_servers_pass(serve, device, option):
    server = serve("ram:16M", option, device=device, transport="vfio-user")
    assert_all_passed(server.path, "--destructive")


# --- every mode, with SIDECARD_MORE=1 ---

MODES = [(device, f"--loop={loop}", f"--poll={poll}", *more)
         for device in ("virtio-blk", "nvme")
         for loop, poll, more in (("epoll", "never", ["--queues=1"]), ("epoll", "adaptive", ["--queues=4", "--threads=2"]),
                                  ("epoll", "always", ["--queues=2"]), ("io_uring", "never", ["--queues=4", "--threads=2"]),
                                  ("io_uring", "adaptive", ["--queues=1"]), ("io_uring", "always", ["--queues=4", "--threads=2"]))]
MODES += [("virtio-blk", *more) for more in (["--packed=off"], ["--in-order=on"], ["--block-size=4096"], ["--queue-size=8"])]
MODES += [("nvme", *more) for more in (["--read-only"], ["--block-size=4096"], ["--vectors=1"], ["--queue-size=2"])]


@pytest.mark.skipif(os.environ.get("SIDECARD_MORE") != "1", reason="beside make check")
@pytest.mark.parametrize("mode", MODES, ids=[" ".join(mode) for mode in MODES])
def test_every_mode_passes(serve, workdir, mode):
    device, *options = mode
    server = serve(workdir.file("disk", 16 << 20), *options, device=device, transport="vfio-user")
    server.check_service = "--read-only" not in options and "--queue-size=2" not in options # for it writes, and with several in flight
    assert_all_passed(server.path, "--destructive")
