# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard bench`, the project's own driver, against `sidecard serve`, each a process: data comes back as it was written whether
memory is shared or not, over either ring and socket, and however the disk is notified."""

import json

import pytest

from pylib.server import run_command

SIZE = "2m"


def bench(server, workdir, *options):
    """Writes and verifies; the results."""
    status, results, stderr = run_command(
        "bench", server.path, "--rw=randrw", "--verify", f"--size={SIZE}", "--iodepth=16", "--numjobs=2", "--json", *options,
        log_dir=workdir.path, timeout=120)
    assert status == 0, stderr
    return json.loads(results)["jobs"][0]


@pytest.mark.parametrize("twin", ["off", "on"])
@pytest.mark.parametrize("packed", ["off", "on"])
@pytest.mark.parametrize("memory", ["shared", "private"])
def test_data_comes_back_by_every_way_to_reach_memory(serve, workdir, memory, packed, twin):
    server = serve("ram:16M", "--queues=2", "--threads=2")
    job = bench(server, workdir, f"--memory={memory}", f"--packed={packed}", f"--twin-socket={twin}")
    assert job["device"]["verified_blocks"] > 200  # about half of the requests write
    assert job["device"]["ring"] == ("packed" if packed == "on" else "split")
    assert job["job options"]["memory"] == memory


@pytest.mark.parametrize("memory", ["shared", "private"])
@pytest.mark.parametrize("notify, by", [("auto", "ioeventfd"), ("ioeventfd", "ioeventfd"), ("message", "message")])
def test_the_disk_is_notified_as_asked_for(serve, workdir, notify, by, memory):
    server = serve("ram:16M", "--queues=2")
    job = bench(server, workdir, f"--notify={notify}", f"--memory={memory}", "--poll")
    assert job["device"]["notified_by"] == by
    assert job["device"]["notifications"] > 0


@pytest.mark.parametrize("memory", ["shared", "private"])
@pytest.mark.parametrize("packed", ["on", "off"])
@pytest.mark.parametrize("event_idx", ["on", "off"])
def test_a_disk_that_is_always_polled_is_notified_by_its_registers_as_memory(serve, workdir, packed, event_idx, memory):
    """Such a notification wakes nobody: rings in private memory, which are not polled, need it all the same."""
    server = serve("ram:16M", "--queues=2", "--poll=always")
    job = bench(server, workdir, f"--memory={memory}", f"--packed={packed}", f"--event-idx={event_idx}")
    assert job["device"]["notified_by"] == "mapped"
    assert job["device"]["verified_blocks"] > 200
    if memory == "private":
        assert job["device"]["notifications"] > 0


def test_what_the_server_does_not_offer_is_said(serve, workdir):
    server = serve("ram:16M")
    status, _, stderr = run_command("bench", server.path, "--notify=mapped", "--number_ios=1", log_dir=workdir.path)
    assert status == 1
    assert "offers no mapped register for queue 0" in stderr


@pytest.mark.parametrize("writer, reader", [("private", "shared"), ("shared", "private")])
def test_what_was_written_with_one_kind_of_memory_is_read_with_the_other(serve, workdir, writer, reader):
    server = serve(workdir.file("disk.img", size=4 << 20), "--queues=2")
    options = ("--bs=64k", "--rw=write"), ("--bs=64k", "--rw=read")
    bench(server, workdir, f"--memory={writer}", *options[0])
    job = bench(server, workdir, f"--memory={reader}", *options[1])
    assert job["write"]["total_ios"] == 0
    assert job["device"]["verified_blocks"] == 32


@pytest.mark.parametrize("packed", ["off", "on"])
@pytest.mark.parametrize("waits", ["--interrupt", "--poll"])
@pytest.mark.parametrize("iommu", ["on", "flush"])
def test_data_comes_back_from_behind_an_iommu(serve, workdir, iommu, waits, packed):
    server = serve("ram:16M", "--queues=2", "--threads=2", transport="vhost-user")
    status, results, stderr = run_command(
        "bench", f"vhost-user:{server.path}", "--rw=randrw", "--bs=16k", "--verify", "--size=8m", "--iodepth=16", "--numjobs=2", "--json",
        f"--iommu={iommu}", f"--packed={packed}", waits, log_dir=workdir.path, timeout=120)
    assert status == 0, stderr
    job = json.loads(results)["jobs"][0]
    assert job["device"]["verified_blocks"] > 100 and job["job options"]["iommu"] == iommu


def test_there_is_no_iommu_over_vfio_user(serve, workdir):
    status, _, stderr = run_command("bench", serve().path, "--iommu=on", log_dir=workdir.path)
    assert status == 2 and "only a vhost-user back end" in stderr
