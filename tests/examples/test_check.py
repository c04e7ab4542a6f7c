# SPDX-License-Identifier: BSD-3-Clause
"""The examples against the specifications: `sidecard check` finds nothing, and `sidecard inspect` sees what they are."""

import json

import pytest

from pylib.server import run_command

# Example, how it is reached, what the tester has to be told, and how many tests have something to test at least.
DEVICES = [("card", "", [], 80), ("entropy", "vfio-user:", [], 190), ("entropy", "vhost-user:", ["--device=rng"], 130)]


@pytest.mark.parametrize("name, prefix, options, least", DEVICES)
def test_it_is_what_the_specifications_say(start, tmp_path, name, prefix, options, least):
    program = start(name, prefix)
    status, stdout, stderr = run_command("check", f"{prefix}{program.socket}", "--json", *options, log_dir=tmp_path, timeout=300)
    tests = json.loads(stdout)["tests"]
    failed = [test for test in tests if test["result"] == "failed"]
    assert status == 0 and not failed, f"{failed}\n{stderr}"
    assert sum(test["result"] == "passed" for test in tests) >= least


def test_inspect_shows_the_card(start, tmp_path):
    program = start("card")
    status, stdout, stderr = run_command("inspect", program.socket, "--json", log_dir=tmp_path)
    assert status == 0, stderr
    seen = json.loads(stdout)
    assert seen["protocol"] == "vfio-user"
    assert seen["regions"][0]["areas"] == [{"offset": "0x1000", "size": 4096}], "the page that can be mapped"
    assert '"0xca4d"' in stdout and "MSI-X" in stdout
