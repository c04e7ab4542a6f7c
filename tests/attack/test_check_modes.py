# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard check` on our own servers: nothing fails, and nothing is worth a remark, in any mode. Most modes are tried with
SIDECARD_MORE=1 only."""

import json
import os

import pytest

from pylib.server import run_command

MORE = os.environ.get("SIDECARD_MORE") == "1"
SHORT = [("vhost-user", ())]
LONG = [(transport, options) for transport in ("vfio-user", "vhost-user") for options in (
    (), ("--queues=1",), ("--loop=epoll",), ("--threads=2", "--poll=always"), ("--in-order=on", "--poll=never", "--threads=2"))]
MODES = LONG if MORE else SHORT


@pytest.mark.parametrize("transport, options", MODES, ids=[" ".join([transport, *options]) for transport, options in MODES])
def test_our_own_disk_passes(serve, workdir, transport, options):
    server = serve("ram:16M", *(() if "--queues=1" in options else ("--queues=4",)), *options, transport=transport)
    prefix = "vhost-user:" if transport == "vhost-user" else ""
    status, results, stderr = run_command("check", f"{prefix}{server.path}", "--destructive", "--json", log_dir=workdir.path, timeout=300)
    told = json.loads(results)
    assert not [test for test in told["tests"] if test["result"] not in ("passed", "not_offered")], stderr
    assert status == 0 and told["sums"]["passed"] > 130


@pytest.mark.parametrize("transport", ["vfio-user", "vhost-user"])
def test_our_own_read_only_disk_passes(serve, workdir, image, transport):
    server = serve(image, "--read-only", transport=transport)
    server.check_service = False  # it writes
    prefix = "vhost-user:" if transport == "vhost-user" else ""
    status, results, _ = run_command("check", f"{prefix}{server.path}", "--destructive", "--json", "--only=d*/*", log_dir=workdir.path,
                                     timeout=100)
    tests = {test["name"]: test["result"] for test in json.loads(results)["tests"]}
    assert status == 0 and tests["data/read-only"] == "passed" and tests["data-split/written"] == "not_offered"
