# SPDX-License-Identifier: BSD-3-Clause
"""Rows D, and F5 and F6, over vhost-user: the front end's table of memory."""

import os
import threading

import pytest

from pylib import blk, vhost
from pylib.events import wait_until
from pylib.memory import GuestMemory
from pylib.ring import Segment
from pylib.vhost import Req, region, slot, table
from pylib.vm import BASE

SIZE = 0x10000
ADDR = 0x4000_0000
TOP = (1 << 64) - 1


@pytest.fixture
def memory():
    with GuestMemory(SIZE) as memory:
        yield memory


@pytest.mark.parametrize("guest, size, user, offset", [
    (TOP - 0xFFF, 0x2000, ADDR, 0), (ADDR, TOP - 0xFFF, ADDR, 0), (ADDR, 0x2000, TOP - 0xFFF, 0), (ADDR, SIZE, ADDR, TOP - 0xFFF),
    (ADDR, SIZE, ADDR, 1 << 63), (ADDR, 1 << 63, ADDR, 1 << 63), (ADDR, SIZE, ADDR, 4096), (ADDR, SIZE + 1, ADDR, 0),
    (ADDR, (8 << 40) + 4096, ADDR, 0),
])
def test_d01_a_region_whose_sums_wrap_or_that_is_longer_than_its_file_is_refused(front, memory, guest, size, user, offset):
    front.refused(Req.ADD_MEM_REG, slot(guest, size, user=user, offset=offset), fds=[memory.fd])
    front.refused(Req.SET_MEM_TABLE, table(region(guest, size, user=user, offset=offset)), fds=[memory.fd])
    front.fence()


@pytest.mark.parametrize("guest, size, user", [
    (ADDR, SIZE, ADDR), (ADDR + 4096, 4096, 0x1000), (ADDR - 4096, 8192, 0x1000), (0x1000, SIZE, ADDR),
    (0x1000, 4096, ADDR + SIZE - 4096), (0x1000, 8192, ADDR - 4096), (0x1000, 0, 0x1000),
])
def test_d02_overlapping_doubled_and_empty_regions_are_refused(front, memory, guest, size, user):
    """By either of their addresses."""
    front.tell(Req.ADD_MEM_REG, slot(ADDR, SIZE, user=ADDR), fds=[memory.fd])
    front.refused(Req.ADD_MEM_REG, slot(guest, size, user=user), fds=[memory.fd])
    front.refused(Req.SET_MEM_TABLE, table(region(ADDR, SIZE, user=ADDR), region(guest, size, user=user)), fds=[memory.fd] * 2)
    front.tell(Req.REM_MEM_REG, slot(ADDR, SIZE, user=ADDR))


@pytest.mark.parametrize("guest, size, user", [(ADDR, SIZE, ADDR + 4096), (ADDR, 4096, ADDR), (ADDR + 4096, SIZE, ADDR), (0, 0, 0)])
def test_d02_only_the_exact_region_is_removed(front, memory, guest, size, user):
    front.tell(Req.ADD_MEM_REG, slot(ADDR, SIZE, user=ADDR), fds=[memory.fd])
    front.refused(Req.REM_MEM_REG, slot(guest, size, user=user))
    front.tell(Req.REM_MEM_REG, slot(ADDR, SIZE, user=ADDR), fds=[memory.fd])
    front.refused(Req.REM_MEM_REG, slot(ADDR, SIZE, user=ADDR))


def test_d02_a_table_that_is_refused_leaves_the_one_before(vhost_guest, memory):
    windows = vhost_guest.space.windows
    good = [region(w.iova, w.size, offset=w.offset) for w in windows]
    fds = [w.memory.fd for w in windows]
    vhost_guest.client.refused(Req.SET_MEM_TABLE, table(*good, region(ADDR, 2 * SIZE)), fds=[*fds, memory.fd])
    vhost_guest.assert_works()


def test_d03_a_request_across_two_regions_is_split_between_their_files(vhost_guest):
    first, second = vhost_guest.add_memory(ADDR, SIZE), vhost_guest.add_memory(ADDR + SIZE, SIZE)
    data = os.urandom(4096)
    vhost_guest.write(8, data)
    assert vhost_guest.transfer(blk.T_IN, 8, Segment(ADDR + SIZE - 1024, 4096, True)).status == blk.S_OK
    assert first.memory.read(SIZE - 1024, 1024) + second.memory.read(0, 3072) == data


def test_d03_a_request_into_a_hole_fails(vhost_guest):
    vhost_guest.add_memory(ADDR, SIZE)
    for addr in (ADDR + SIZE - 512, ADDR - 512, 0, TOP - 511):
        assert vhost_guest.transfer(blk.T_OUT, 0, Segment(addr, 1024)).status == blk.S_IOERR
    vhost_guest.assert_works()


def test_d03_a_vring_that_passes_the_end_of_its_region_is_refused(vhost_server, packed):
    """Although the guest's memory goes on there, in another region."""
    guest = vhost_server.guest(packed=packed, run=False)
    guest.add_memory(ADDR, SIZE)
    guest.add_memory(ADDR + SIZE, SIZE)
    client, queue = guest.client, guest.queue
    client.tell(Req.SET_VRING_NUM, vhost.state(0, queue.size))
    client.tell(Req.SET_VRING_BASE, vhost.state(0, 0x80008000 if packed else 0))
    good = queue.desc_addr, queue.avail_addr, queue.used_addr
    for number, size in enumerate((16 * queue.size, 4, 4)):
        areas = list(good)
        areas[number] = ADDR + SIZE - size // 2 & ~1
        queue.desc_addr, queue.avail_addr, queue.used_addr = areas
        client.tell(Req.SET_VRING_ADDR, vhost.addresses(0, queue))
        client.tell(Req.SET_VRING_ENABLE, vhost.state(0, 1))
        client.refused(Req.SET_VRING_KICK, vhost.U64.pack(0), fds=[guest.kick_events[0].fd])
    queue.desc_addr, queue.avail_addr, queue.used_addr = good
    guest.run()
    guest.assert_works()


def test_d06_a_region_in_use_is_given_up_when_its_request_has_ended(serve, image):
    """The back end answers when nothing touches the memory any more."""
    owner, waiter = serve(image), serve(image, transport="vhost-user")
    owner.guest().assert_works()
    guest = waiter.guest()
    window = guest.add_memory(ADDR, SIZE)
    request = guest.submit(guest.prepare(blk.T_IN, 0, length=4096, data_addr=window.iova))
    guest.client.send(Req.REM_MEM_REG, slot(ADDR, SIZE), flags=vhost.VERSION | vhost.NEED_REPLY)
    assert guest.client.silent(0.5), "the region is given up with I/O in flight"
    assert owner.stop() == 0
    assert guest.client.reply(Req.REM_MEM_REG).value == 0
    assert guest.finish(request).status == blk.S_OK
    guest.space.remove(window)
    assert guest.transfer(blk.T_OUT, 0, Segment(ADDR, 512)).status == blk.S_IOERR


def test_d06_tables_come_and_go_under_load(vhost_server, packed):
    guest = vhost_server.guest(queues=4, packed=packed)
    guest.reuse = False
    stop = threading.Event()

    def change():
        while not stop.is_set():
            with GuestMemory(SIZE) as memory:
                guest.client.tell(Req.ADD_MEM_REG, slot(ADDR, SIZE), fds=[memory.fd])
                guest.client.tell(Req.REM_MEM_REG, slot(ADDR, SIZE))
    changer = threading.Thread(target=change)
    changer.start()
    try:
        for i in range(400):
            data = bytes([i % 251 + 1]) * 512
            guest.write(i % 64, data, queue=i % 4)
            assert guest.read(i % 64, 1, queue=i % 4) == data
    finally:
        stop.set()
        changer.join()


def test_d07_slots_are_limited_and_each_that_goes_makes_room_for_one(vhost_guest, memory):
    client = vhost_guest.client
    limit = client.ask(Req.GET_MAX_MEM_SLOTS).value

    def window(i):
        return slot(ADDR + i * 8192, 4096, offset=i % 16 * 4096)
    for i in range(limit - 1):
        client.tell(Req.ADD_MEM_REG, window(i), fds=[memory.fd])
    client.refused(Req.ADD_MEM_REG, window(limit), fds=[memory.fd])
    client.tell(Req.REM_MEM_REG, window(7))
    client.tell(Req.ADD_MEM_REG, window(limit), fds=[memory.fd])
    memory.write(0x3000, b"\x5a" * 512)
    assert vhost_guest.transfer(blk.T_OUT, 9, Segment(ADDR + 3 * 8192, 512)).status == blk.S_OK
    assert vhost_guest.read(9, 1) == b"\x5a" * 512


def test_d08_a_vring_goes_on_where_its_memory_moves_in_the_front_ends_own(vhost_guest):
    """The same guest memory at other addresses of the front end: what was started stays where it is."""
    windows = vhost_guest.space.windows
    vhost_guest.client.tell(Req.SET_MEM_TABLE, table(*(region(w.iova, w.size, user=w.iova + (1 << 32)) for w in windows)),
                            fds=[w.memory.fd for w in windows])
    vhost_guest.assert_works()


def test_d08_a_vring_whose_memory_is_away_sleeps_and_wakes_with_it(vhost_guest):
    vhost_guest.assert_works()
    vhost_guest.client.tell(Req.SET_MEM_TABLE, table())
    request = vhost_guest.submit(vhost_guest.prepare(blk.T_OUT, 3, data=b"\x77" * 512))
    assert not vhost_guest.queue.wait(1, 0.1)
    vhost_guest.set_table()
    assert vhost_guest.finish(request).status == blk.S_OK
    assert vhost_guest.read(3, 1) == b"\x77" * 512


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory", "device", "plain file", "read-only memfd"])
def test_f05_something_else_than_memory_is_refused(front, workdir, kind):
    import socket
    ends, pipe = socket.socketpair(), os.pipe()
    with GuestMemory(SIZE) as memory:
        fd = {"pipe": lambda: pipe[0], "socket": ends[0].fileno, "directory": lambda: os.open("/tmp", os.O_RDONLY),
              "device": lambda: os.open("/dev/zero", os.O_RDWR),
              "plain file": lambda: os.open(workdir.file("plain", size=SIZE), os.O_RDWR),
              "read-only memfd": lambda: os.open(f"/proc/self/fd/{memory.fd}", os.O_RDONLY)}[kind]()
        front.refused(Req.ADD_MEM_REG, slot(ADDR, 4096), fds=[fd])
        front.refused(Req.SET_MEM_TABLE, table(region(ADDR, 4096)), fds=[fd])
    front.fence()
    for end in ends:
        end.close()
    for end in {*pipe, fd}:
        try:
            os.close(end)
        except OSError:
            pass


def test_f06_memory_of_a_front_end_that_has_gone_is_unmapped(vhost_server):
    guest = vhost_server.guest()
    guest.assert_works()
    guest.close()

    def gone():
        with open(f"/proc/{vhost_server.pid}/maps", encoding="utf-8") as maps:
            return "memfd:guest-memory" not in maps.read()
    assert wait_until(gone)
