# SPDX-License-Identifier: BSD-3-Clause
"""What a loop can wait by: io_uring, or epoll with threads for file I/O; and the choice between them."""

import os
import shlex
import signal
import sys
import time

import pytest

from pylib import blk
from pylib.events import PATIENCE, wait_until
from pylib.server import ROOT, binary

M = 1 << 20
HELPER = ROOT / "tests" / "pylib" / "refuse_io_uring.py"


def forbid_io_uring(monkeypatch, error, call="setup"):
    """For every `sidecard` that this test starts."""
    monkeypatch.setenv("SIDECARD", shlex.join([sys.executable, str(HELPER), error, call, *binary()]))


def waits_by(server):
    """What the process has open to wait by."""
    words = {"anon_inode:[io_uring]": "io_uring", "anon_inode:[eventpoll]": "epoll"}
    return " and ".join(sorted({words[what] for what in server.fds().values() if what in words}))


@pytest.fixture(params=["ram", "file", "direct", "null"])
def backend(request, image):
    """Arguments of `serve`."""
    known = {"ram": ["ram:8M"], "file": [image], "direct": [image, "--direct"], "null": ["null:8M"]}
    return known[request.param]


# --- the disk, whatever the loop waits by ---------------------------------------------------------------

def test_server_waits_by_what_it_was_told(serve, loop_kind):
    server = serve("ram:16M", f"--loop={loop_kind}")
    assert waits_by(server) == loop_kind
    server.guest().assert_works()


def test_requests_of_every_kind_work(serve, backend, loop_kind):
    server = serve(*backend, f"--loop={loop_kind}")
    guest = server.guest(memory=8 * M)
    keeps = not server.backend.startswith("null")
    data = os.urandom(65536)
    guest.write(100, data)
    guest.flush()
    got = guest.read(100, 128)
    assert got == data or not keeps
    assert guest.discard(0, 64) == blk.S_OK
    assert guest.discard(110, 8, blk.T_WRITE_ZEROES) == blk.S_OK
    assert guest.discard(130, 8, blk.T_WRITE_ZEROES, blk.WZ_UNMAP) == blk.S_OK
    expected = bytearray(data)
    expected[10 * 512:18 * 512] = bytes(8 * 512)
    expected[30 * 512:38 * 512] = bytes(8 * 512)
    got = guest.read(100, 128)
    assert got == expected or not keeps
    assert guest.do(blk.T_IN, 16384, length=512).status == blk.S_IOERR
    guest.read(16383, 1)


def test_image_holds_what_was_written(serve, image, loop_kind):
    guest = serve(image, f"--loop={loop_kind}").guest(memory=8 * M)
    data = os.urandom(4096)
    guest.write(8000, data)
    guest.flush()
    content = image.read_bytes()
    assert content[8000 * 512:8008 * 512] == data
    assert content[:8] == bytes(8) and content[512:520] == (1).to_bytes(8, "little")


def test_without_a_write_cache_writes_are_durable_writes(serve, image, loop_kind):
    guest = serve(image, f"--loop={loop_kind}", "--write-cache=off").guest()
    guest.write(7, b"\x07" * 512)
    assert guest.read(7, 1) == b"\x07" * 512


def test_many_requests_in_flight_come_back_each_once(serve, backend, loop_kind):
    server = serve(*backend, f"--loop={loop_kind}", "--queues=2", "--threads=2")
    guest = server.guest(queue_size=256, queues=2, memory=16 * M)
    requests = {}
    for index in range(160):
        request = guest.prepare(blk.T_OUT, 64 * index, data=bytes([index]) * 4096, queue=index % 2)
        guest.submit(request, kick=False)
        requests[index % 2, request.head] = request
    for queue in range(2):
        guest.kick(queue, posted=True)
    for queue in range(2):
        done = guest.queues[queue].wait(80)
        assert len(done) == 80
        assert {head for head, _ in done} == {head for of, head in requests if of == queue}
    assert all(guest.space.read(request.status_addr, 1) == b"\0" for request in requests.values())
    if not server.backend.startswith("null"):
        for index in (0, 1, 77, 159):
            assert guest.read(64 * index, 8) == bytes([index]) * 4096


def test_reset_with_requests_in_flight_ends_and_the_disk_works_again(serve, backend, loop_kind):
    guest = serve(*backend, f"--loop={loop_kind}").guest(queue_size=128, memory=8 * M)
    for turn in range(10):
        for index in range(32):
            guest.submit(guest.prepare(blk.T_IN, 128 * index, length=1 << 15), kick=False)
        guest.kick(posted=True)
        guest.virtio.reset()
        used = guest.queue.used_idx()
        time.sleep(0.002)
        assert guest.queue.used_idx() == used, "a request came back after the reset"
        guest.bring_up()
        guest.space.release(guest.queue.used_addr + 4096)
    guest.client.reset()
    guest.bring_up()
    guest.read(0, 1)


def test_client_that_goes_in_the_middle_leaves_the_disk_to_the_next(serve, backend, loop_kind):
    server = serve(*backend, f"--loop={loop_kind}")
    for turn in range(10):
        guest = server.guest(queue_size=128, memory=8 * M)
        for index in range(32):
            guest.submit(guest.prepare(blk.T_OUT, 128 * index, data=bytes([turn]) * (1 << 14)), kick=False)
        guest.kick(posted=True)
        guest.close()
    server.guest().read(0, 1)


def test_resize_by_sighup_reaches_the_guest(serve, workdir, loop_kind):
    path = workdir.file("disk", 4 * M)
    server = serve(path, f"--loop={loop_kind}")
    guest = server.guest()
    for size in (8 * M, 2 * M):
        os.truncate(path, size)
        server.signal(signal.SIGHUP)
        assert guest.config_event.wait(), "no configuration interrupt"
        assert blk.parse_config(guest.virtio.config_read(0, blk.CONFIG_SIZE)).capacity == size // 512
        guest.write(size // 512 - 1, b"\x5A" * 512)
        assert guest.do(blk.T_IN, size // 512, length=512).status == blk.S_IOERR


def test_image_in_use_is_waited_for(serve, image, loop_kind):
    first, second = serve(image, f"--loop={loop_kind}"), serve(image, f"--loop={loop_kind}")
    holder = first.guest()
    holder.assert_works()  # has the lock: until then either may get it
    waiter = second.guest()
    request = waiter.prepare(blk.T_IN, 9, length=512)
    waiter.submit(request)
    assert not waiter.queue.wait(1, 0.2), "two processes work on one image at the same time"
    holder.close()
    assert waiter.finish(request).status == blk.S_OK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_server_with_io_in_flight(serve, image, loop_kind, number):
    server = serve(image, f"--loop={loop_kind}")
    guest = server.guest(queue_size=128, memory=8 * M)
    for index in range(32):
        guest.submit(guest.prepare(blk.T_IN, 128 * index, length=1 << 16), kick=False)
    guest.kick(posted=True)
    server.signal(number)
    server.exit_status = server.process.wait(PATIENCE)
    assert server.exit_status == 0


def test_idle_server_sleeps_and_keeps_no_threads_for_io(serve, image, loop_kind):
    server = serve(image, f"--loop={loop_kind}", "--threads=2")
    guest = server.guest(queue_size=128, memory=8 * M)
    at_first = server.threads()  # all of them run by now, and nothing was read or written
    for index in range(32):
        guest.submit(guest.prepare(blk.T_OUT, 128 * index, data=bytes(1 << 15)), kick=False)
    guest.kick(posted=True)
    assert len(guest.queue.wait(32)) == 32
    assert wait_until(lambda: len(server.threads()) <= len(at_first)), "threads for file I/O are left"
    server.assert_comes_to_rest(0.5)


# --- the choice -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("error", ["EPERM", "ENOSYS", "EACCES"])
@pytest.mark.parametrize("count", [1, 3])
def test_server_uses_epoll_and_says_so_where_io_uring_is_refused(serve, image, monkeypatch, error, count):
    forbid_io_uring(monkeypatch, error)
    server = serve(image, "--loop=auto", "--log-level=info", f"--threads={count}", f"--queues={count}")
    assert waits_by(server) == "epoll"
    assert server.stderr().count("using epoll") == 1, server.stderr()
    server.guest(queues=count).assert_works()


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS", "EACCES"])
@pytest.mark.parametrize("call", ["enter", "register"])
def test_server_uses_epoll_also_where_only_a_part_of_io_uring_is_refused(serve, image, monkeypatch, error, call):
    """A ring that can be made and not be used is none."""
    forbid_io_uring(monkeypatch, error, call)
    server = serve(image, "--loop=auto", "--log-level=info")
    assert waits_by(server) == "epoll"
    assert server.stderr().count("using epoll") == 1, server.stderr()
    server.guest().assert_works()


def test_fallback_is_no_reason_for_a_warning(serve, image, monkeypatch):
    forbid_io_uring(monkeypatch, "EPERM")
    server = serve(image, "--loop=auto", "--log-level=warning")
    server.guest().assert_works()
    server.close_clients()
    assert server.stop() == 0
    assert server.stderr() == ""


@pytest.mark.parametrize("call", ["setup", "enter", "register"])
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS", "EACCES"])
def test_io_uring_that_is_demanded_and_refused_is_one_line_and_status_1(cli, workdir, monkeypatch, error, call):
    forbid_io_uring(monkeypatch, error, call)
    status, stderr = cli("serve", workdir.path / "s", "virtio-blk", "ram:16M", "--loop=io_uring")
    assert status == 1
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.startswith("sidecard: io_uring is not permitted here")
    assert "--loop=epoll" in stderr and "kernel.io_uring_disabled" in stderr
    assert not (workdir.path / "s").exists()


def test_other_reasons_why_there_is_no_io_uring_are_not_hidden(cli, workdir, monkeypatch):
    forbid_io_uring(monkeypatch, "EMFILE")
    status, stderr = cli("serve", workdir.path / "s", "virtio-blk", "ram:16M")
    assert status == 1
    assert len(stderr.splitlines()) == 1 and "cannot make an io_uring" in stderr, stderr


def test_epoll_that_is_demanded_does_not_ask_for_io_uring(serve, monkeypatch):
    forbid_io_uring(monkeypatch, "EMFILE")
    server = serve("ram:16M", "--loop=epoll", "--log-level=info")
    assert waits_by(server) == "epoll"
    assert "epoll" not in server.stderr(), "nobody has to be told what he has asked for"
    server.guest().assert_works()


@pytest.mark.parametrize("value", ["", "select", "uring", "EPOLL", "epoll "])
def test_loop_that_there_is_not(cli, workdir, value):
    status, stderr = cli("serve", workdir.path / "s", "virtio-blk", "ram:16M", f"--loop={value}")
    assert status == 2
    assert len(stderr.splitlines()) == 1 and f"--loop={value}" in stderr and "io_uring" in stderr, stderr
