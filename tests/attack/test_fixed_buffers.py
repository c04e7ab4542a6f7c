# SPDX-License-Identifier: BSD-3-Clause
"""--fixed-buffers: guest memory that is registered with io_uring. The kernel tells how much a process has pinned so (VmPin); what is done
by it is counted by pylib/faults.c, which stands before the kernel."""

import errno
import os
import resource
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest

from pylib import blk, nvme_spec as spec, wire
from pylib.client import Refused
from pylib.events import wait_until
from pylib.faults import READ
from pylib.ring import Segment
from pylib.server import ROOT, binary
from pylib.vm import BASE

REGION = 1 << 20
ADDR = BASE + (1 << 30)
TRIES = 1000  # memory is registered when it was used a few times, and then at the next turn
KINDS = [("vfio-user", "virtio-blk"), ("vhost-user", "virtio-blk"), ("vfio-user", "nvme")]


@pytest.fixture(autouse=True)
def io_uring_is_there(cli, workdir):
    if "--loop=epoll" in shlex.split(os.environ.get("SIDECARD_SERVE_ARGS", "")):
        pytest.skip("memory is registered with io_uring only")
    _, stderr = cli("serve", workdir.path / "try", "virtio-blk", "null:no size", "--loop=io_uring")
    if "io_uring is not permitted" in stderr:
        pytest.skip("this host forbids io_uring, which is then not there to test")


def pinned(server):
    """Bytes."""
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmPin:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the kernel tells nothing of pinned memory")


def into(guest, address, *, sector=0, length=4096):
    """A read to this place."""
    if hasattr(guest, "create_cq"):
        assert guest.io(spec.READ, sector, length // guest.block_size, address).status == spec.OK
        return
    request = guest.prepare(blk.T_IN, sector)
    guest.submit(request, [Segment(request.header, 16), Segment(address, length, True), Segment(request.status_addr, 1, True)])
    assert guest.finish(request).status == blk.S_OK


def warm(server, guest, address):
    """Reads there until it is registered."""
    before, mark = pinned(server), guest.space.mark()
    for _ in range(TRIES):
        into(guest, address)
        guest.space.release(mark)
        if pinned(server) > before:
            return
    raise AssertionError("nothing is registered")


@pytest.fixture(params=KINDS, ids="-".join)
def fixed(request, serve, image, faulty_disk):
    """(server, guest, another window of its memory), of each kind."""
    transport, device = request.param
    server = serve(image, "--fixed-buffers", transport=transport, device=device)
    guest = server.guest()
    return server, guest, guest.add_memory(ADDR, REGION)


def test_data_is_moved_by_registered_memory_and_is_right(fixed, faulty_disk):
    server, guest, window = fixed
    warm(server, guest, window.iova)
    before = faulty_disk.fixed
    for i in range(8):
        into(guest, window.iova + i * 4096, sector=8 * i)
        assert window.memory.read(i * 4096, 8) == (8 * i).to_bytes(8, "little")
    assert faulty_disk.fixed == before + 8
    guest.assert_works()


@pytest.mark.parametrize("options", [("--direct",), ("--threads=2", "--queues=2"), ("--poll=always",)])
def test_it_goes_with_other_options(serve, image, faulty_disk, options):
    server = serve(image, "--fixed-buffers", *options)
    guest = server.guest(queues=2 if "--queues=2" in options else 1)
    guest.reuse = False
    for queue in range(len(guest.queues)):
        before = pinned(server)
        for _ in range(40):
            guest.read(8, 8, queue=queue)
        assert wait_until(lambda: pinned(server) > before), "each loop has what its queues use"
    guest.assert_works()
    assert faulty_disk.fixed > 0


def test_memory_that_is_taken_back_is_not_pinned_any_more_when_that_is_answered(fixed):
    server, guest, window = fixed
    for _ in range(10):
        warm(server, guest, window.iova)
        guest.remove_memory(window)
        assert pinned(server) == 0
        window = guest.add_memory(ADDR, REGION)
    guest.assert_works()


def test_all_memory_is_taken_back_at_once(serve, image):
    server = serve(image, "--fixed-buffers")
    guest = server.guest()
    window = guest.add_memory(ADDR, REGION)
    warm(server, guest, BASE + (2 << 20))
    warm(server, guest, window.iova)
    guest.client.dma_unmap(0, 0, flags=wire.UNMAP_ALL)
    assert pinned(server) == 0


def test_io_goes_on_when_memory_comes_and_goes(serve, image):
    """Maps and unmaps of one region under I/O to another, and to that one in between."""
    server = serve(image, "--fixed-buffers", "--threads=2", "--queues=2")
    guest = server.guest(queues=2)
    guest.reuse = False
    start = guest.space.mark()
    for i in range(60):
        guest.space.release(start)
        window = guest.add_memory(ADDR + i % 3 * REGION, REGION)
        requests = [guest.submit(guest.prepare(blk.T_IN, 8 * j, length=4096, queue=1)) for j in range(16)]
        for _ in range(i % 25):
            into(guest, window.iova)
        guest.remove_memory(window)
        done = 0
        while done < len(requests):
            ended = guest.queues[1].wait(1, 10)
            assert ended
            done += len(ended)
    guest.assert_works()


def test_the_same_table_again_keeps_what_is_registered(serve, image):
    server = serve(image, "--fixed-buffers", transport="vhost-user")
    guest = server.guest()
    guest.add_memory(ADDR, REGION)
    warm(server, guest, ADDR)
    before = pinned(server)
    guest.set_table()
    assert pinned(server) >= before
    into(guest, ADDR)
    guest.assert_works()


def stuck_read(server, guest, address, disk):
    """A read into registered memory that does not end."""
    warm(server, guest, address)
    disk.hold(READ)
    request = guest.prepare(blk.T_IN, 8)
    guest.submit(request, [Segment(request.header, 16), Segment(address, 4096, True), Segment(request.status_addr, 1, True)])
    assert wait_until(lambda: disk.hits(READ) == 1)
    return request


def test_unmap_under_io_that_does_not_end_is_answered_ebusy_and_works_once_it_has(serve, image, faulty_disk):
    server = serve(image, "--fixed-buffers")
    guest = server.guest()
    window = guest.add_memory(ADDR, REGION)
    request = stuck_read(server, guest, window.iova, faulty_disk)
    with pytest.raises(Refused) as refused:
        guest.client.dma_unmap(window.iova, window.size, timeout=60)
    assert refused.value.reply.errno == errno.EBUSY
    faulty_disk.open_gate()
    assert guest.finish(request).status == blk.S_OK
    assert window.memory.read(0, 8) == (8).to_bytes(8, "little")
    faulty_disk.close_gate()
    warm(server, guest, window.iova)  # what was kept is registered again
    guest.remove_memory(window)
    assert pinned(server) == 0
    guest.assert_works()


@pytest.mark.parametrize("transport", ["vfio-user", "vhost-user"])
def test_a_client_that_goes_with_io_in_flight_leaves_nothing(serve, image, faulty_disk, transport):
    server = serve(image, "--fixed-buffers", transport=transport)
    guest = server.guest()
    guest.add_memory(ADDR, REGION)
    stuck_read(server, guest, ADDR, faulty_disk)
    guest.client.close()
    faulty_disk.open_gate()
    server.assert_fds_back(timeout=30)
    assert wait_until(lambda: pinned(server) == 0, 30)
    faulty_disk.close_gate()
    server.guest().assert_works()


def test_the_server_ends_with_memory_registered(fixed):
    server, guest, window = fixed
    warm(server, guest, window.iova)
    assert server.stop() == 0


def limit_locked_memory(monkeypatch):
    """Root may lock all memory there is: its right to do so is taken away from every `sidecard` that this test starts."""
    if os.geteuid() != 0:
        return
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not there")
    monkeypatch.setenv("SIDECARD", shlex.join(["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", *binary()]))


def test_too_little_memory_may_be_locked_is_said_once_and_io_goes_on(serve, image, monkeypatch):
    limit_locked_memory(monkeypatch)
    server = serve(image, "--fixed-buffers")
    resource.prlimit(server.pid, resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))
    for _ in range(2):
        guest = server.guest()
        window = guest.add_memory(ADDR, REGION)
        for i in range(60):
            into(guest, window.iova + i * 4096)
            into(guest, BASE + (2 << 20))
        assert pinned(server) == 0
        guest.assert_works()
        guest.close()
    lines = [line for line in server.stderr().splitlines() if "fixed-buffers" in line]
    assert len(lines) == 1 and "64 KiB" in lines[0] and "LimitMEMLOCK" in lines[0]


def test_memory_that_cannot_be_registered_is_used_without(serve, image, tmp_path):
    """A plain file, which io_uring takes nowhere (tmpfs it does)."""
    server = serve(image, "--fixed-buffers", "--allow-file-memory")
    guest = server.guest()
    with open(tmp_path / "memory", "w+b") as file:
        file.truncate(REGION)
        guest.client.dma_map(ADDR, REGION, fd=file.fileno())
        for i in range(60):
            into(guest, ADDR + i * 4096, sector=i)
        file.seek(59 * 4096)
        assert file.read(8) == (59).to_bytes(8, "little")
    assert sum("fixed-buffers" in line for line in server.stderr().splitlines()) <= 1
    guest.assert_works()


def test_epoll_and_registered_memory_are_not_asked_for_together(cli, image, workdir):
    status, stderr = cli("serve", workdir.path / "x", "virtio-blk", image, "--fixed-buffers", "--loop=epoll")
    assert status != 0 and "fixed-buffers" in stderr and "loop=epoll" in stderr


def test_where_io_uring_is_refused_that_is_said_once(serve_cards, image, workdir, monkeypatch):
    monkeypatch.setenv("SIDECARD", shlex.join([sys.executable, str(ROOT / "tests/pylib/refuse_io_uring.py"), "EPERM", "setup", *binary()]))
    server = serve_cards([{"socket": name, "device": "virtio-blk", "backend": "ram:1M", "fixed-buffers": True} for name in ("a", "b")])
    server.guest().assert_works()
    assert server.stderr().count("fixed-buffers: io_uring is not permitted here") == 1


def test_a_file_says_it_for_each_card(serve_cards, image):
    server = serve_cards([{"socket": "a", "device": "virtio-blk", "backend": str(image), "fixed-buffers": True},
                          {"socket": "b", "device": "virtio-blk", "backend": "ram:8M"}])
    without = server.guest_of(1)
    for i in range(60):
        into(without, BASE + (2 << 20))
    assert pinned(server) == 0
    guest = server.guest_of(0)
    warm(server, guest, BASE + (2 << 20))
    guest.assert_works()


def test_a_server_that_is_killed_leaves_no_memory_pinned(serve, image):
    """What it had pinned is the kernel's to let go; the next one finds all of it."""
    server = serve(image, "--fixed-buffers")
    guest = server.guest()
    window = guest.add_memory(ADDR, REGION)
    warm(server, guest, window.iova)
    server.may_die_by = (signal.SIGKILL,)
    server.process.kill()
    server.process.wait()
    guest.close()
    serve(image, "--fixed-buffers").guest().assert_works()
