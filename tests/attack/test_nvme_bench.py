# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard bench` against `sidecard serve` with an NVMe controller between them: data comes back as it was written by every way to
say where it is, to wait, and to tell the controller of it."""

import json

import pytest

from pylib.server import run_command


def bench(server, workdir, *options, status=0):
    """Writes and verifies; the results, or what was said."""
    ended, results, stderr = run_command(
        "bench", server.path, "--rw=randrw", "--verify", "--size=2m", "--iodepth=16", "--numjobs=2", "--json", *options,
        log_dir=workdir.path, timeout=120)
    assert ended == status, stderr
    return json.loads(results)["jobs"][0] if status == 0 else stderr


@pytest.mark.parametrize("waits", ["--interrupt", "--poll"])
@pytest.mark.parametrize("how", [["--shadow-doorbells=on"], ["--shadow-doorbells=off"], ["--sgl", "--shadow-doorbells=on"],
                                 ["--memory=private"], ["--memory=private", "--sgl", "--twin-socket=on"]])
def test_data_comes_back_by_every_way(serve, workdir, how, waits):
    server = serve("ram:16M", "--queues=2", "--threads=2", "--serial=BENCH", device="nvme")
    device = bench(server, workdir, waits, *how)["device"]
    assert device["verified_blocks"] > 200
    assert device["device"] == "nvme"
    assert device["serial"] == "BENCH"
    assert device["data_by"] == ("sgl" if "--sgl" in how else "prp")
    assert device["shadow_doorbells"] == ("--shadow-doorbells=on" in how)


@pytest.mark.parametrize("poll", ["never", "adaptive", "always"])
@pytest.mark.parametrize("shadows", ["on", "off"])
def test_data_comes_back_however_the_controller_waits(serve, workdir, poll, shadows):
    server = serve("ram:16M", "--queues=2", f"--poll={poll}", device="nvme")
    device = bench(server, workdir, f"--shadow-doorbells={shadows}")["device"]
    assert device["verified_blocks"] > 200
    assert device["notified_by"] == ("mapped" if poll == "always" else "message")


@pytest.mark.parametrize("size", ["512", "4k", "128k", "1m"])
@pytest.mark.parametrize("block", ["512", "4096"])
def test_requests_of_every_size_come_back(serve, workdir, size, block):
    server = serve(workdir.file("disk.img", size=16 << 20), "--queues=2", f"--block-size={block}", device="nvme")
    if size == "512" and block == "4096":
        assert "multiple of the disk's block size, 4096" in bench(server, workdir, f"--bs={size}", status=2)
    else:
        bench(server, workdir, f"--bs={size}", "--size=8m")


def test_what_the_controller_has_not_got_is_said(serve, workdir):
    server = serve("ram:16M", "--queues=2", device="nvme")
    assert "no active namespace 7" in bench(server, workdir, "--namespace=7", status=1)
    assert "the disk takes requests of at most 1048576" in bench(server, workdir, "--bs=2m", status=2)
    assert "the disk has 2 queues" in bench(server, workdir, "--numjobs=3", status=2)
    assert "no shadow doorbells" in bench(server, workdir, "--memory=private", "--shadow-doorbells=on", status=1)
    assert "takes shadow doorbells" in bench(server, workdir, "--notify=ioeventfd", "--shadow-doorbells=off", status=1)


def test_what_is_nvmes_is_not_for_other_disks(serve, workdir):
    server = serve("ram:16M", "--queues=2", device="virtio-blk")
    assert "that is for NVMe controllers, and the disk is virtio-blk" in bench(server, workdir, "--sgl", status=2)
