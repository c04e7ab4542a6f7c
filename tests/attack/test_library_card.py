# SPDX-License-Identifier: BSD-3-Clause
"""A card that somebody else has made with the library, and clients that are not kind to it: what its BARs' areas look like on the wire, DMA
to memory of both kinds, resets and clients that go while it is under way, and answers that never come."""

import errno
import fcntl
import mmap
import os
import struct

import pytest

from pylib import library, wire
from pylib.dma import DmaResponder
from pylib.events import EventFd, readable, wait_until
from pylib.library import AREAS, MEMORY, MEMORY_SIZE, REGISTERS, ServedCard, ended, get, order, put
from pylib.memory import AddressSpace, GuestMemory
from pylib.wire import Cmd

SHARED, FAR, BYTES = 0x10_0000, 0x90_0000, 0x8000

if not library.program().exists():
    pytest.skip(f"{library.program()} is not there: tools/build tests makes it", allow_module_level=True)


@pytest.fixture(params=["library's loop", "caller's loop"])
def card(request, workdir):
    served = ServedCard(workdir, *["outside"][:request.param == "caller's loop"])
    yield served
    served.finish()


class Machine:
    """A client with memory of both kinds; questions about the far one wait in `dma` when they are held."""

    def __init__(self, card, **options):
        self.client = card.connect()
        self.space = AddressSpace()
        self.memories = [GuestMemory(BYTES), GuestMemory(BYTES)]
        for iova, memory in zip((SHARED, FAR), self.memories):
            self.space.add(iova, BYTES, memory)
        self.client.dma_map(SHARED, BYTES, fd=self.memories[0].fd)
        self.client.dma_map(FAR, BYTES)
        self.dma = DmaResponder(self.client, self.space, **options)

    def close(self):
        self.client.close()
        for memory in self.memories:
            memory.close()


def test_every_area_is_named_once_and_nothing_else_can_be_mapped(card):
    client = card.connect()
    reply = client.exchange(Cmd.GET_REGION_INFO, wire.region_info(MEMORY, argsz=32))
    info = wire.parse_region_info(reply.payload)
    needed = 32 + 16 + 16 * len(AREAS)
    assert info.argsz == needed and not info.flags & (wire.REGION_MMAP | wire.REGION_CAPS) and not reply.fds
    reply = client.exchange(Cmd.GET_REGION_INFO, wire.region_info(MEMORY, argsz=needed))
    info = wire.parse_region_info(reply.payload)
    assert info.flags & wire.REGION_MMAP and info.flags & wire.REGION_CAPS and info.size == MEMORY_SIZE
    assert len(reply.payload) == needed and len(reply.fds) == 1
    cap, version, following, count, _ = struct.unpack_from("=HHIII", reply.payload, info.cap_offset)
    assert (cap, version, following, count) == (1, 1, 0, len(AREAS))
    assert [struct.unpack_from("=QQ", reply.payload, info.cap_offset + 16 + 16 * i) for i in range(count)] == AREAS
    fd = reply.fds[0]
    try:
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        with pytest.raises(OSError):
            os.ftruncate(fd, 0)
        for offset, size in AREAS:
            with mmap.mmap(fd, size, offset=info.offset + offset) as mapped:
                mapped[16:20] = b"abcd"
                assert client.read_region(MEMORY, offset + 16, 4) == b"abcd"
                client.write_region(MEMORY, offset + 20, b"efgh")
                assert mapped[16:24] == b"abcdefgh"
        # What the client writes between the areas is its own affair: the card's registers are there.
        with mmap.mmap(fd, 0x1000, offset=info.offset) as mapped:
            mapped[0:4] = b"xxxx"
        assert client.read_region(MEMORY, 0, 4) == b"\xdd\0\0\0"
        assert client.read_region(MEMORY, AREAS[0][0] - 4, 8)[4:] == b"\x5c\0\0\0"
    finally:
        os.close(fd)
    for index in (REGISTERS, library.MSIX):
        reply = client.exchange(Cmd.GET_REGION_INFO, wire.region_info(index, argsz=4096))
        assert not reply.fds and not wire.parse_region_info(reply.payload).flags & wire.REGION_MMAP


def test_the_next_client_gets_other_memory(card):
    fds = []
    for turn in range(3):
        client = card.connect()
        reply = client.exchange(Cmd.GET_REGION_INFO, wire.region_info(MEMORY, argsz=4096))
        fds += reply.fds
        assert client.read_region(MEMORY, AREAS[0][0], 8) == b"\x5c" + bytes(7)
        client.write_region(MEMORY, AREAS[0][0] + 4, b"mine")
        if turn > 0:
            os.pwrite(fds[0], b"still here", AREAS[0][0] + 4)
            assert client.read_region(MEMORY, AREAS[0][0] + 4, 4) == b"mine"
        client.close()
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("iova", [SHARED, FAR], ids=["shared", "far"])
def test_copies_and_windows(card, iova):
    machine = Machine(card)
    data = os.urandom(BYTES // 2)
    machine.space.write(iova, data)
    order(machine.client, library.READ, iova, len(data))
    assert ended(machine.client, 1) == (0, 0)
    order(machine.client, library.WRITE, iova + len(data), len(data))
    assert ended(machine.client, 2) == (0, 0)
    assert machine.space.read(iova + len(data), len(data)) == data
    order(machine.client, library.MAP_READ, iova, len(data))
    assert ended(machine.client, 3) == (0, 0) and get(machine.client, library.SUM) == sum(data)
    order(machine.client, library.MAP_WRITE, iova + 1, 4097)
    assert ended(machine.client, 4) == (0, 0)
    put(machine.client, library.DO, library.UNMAP)
    assert ended(machine.client, 6) == (0, 0)
    assert machine.space.read(iova, 4100) == data[:1] + b"\x01" * 4097 + data[4098:4100]
    machine.close()


def test_what_is_not_the_clients_memory_fails(card):
    machine = Machine(card)
    ranges = [(0, 8), (SHARED + BYTES - 4, 8), (FAR - 1, 2), (FAR + BYTES, 1), (2**64 - 4, 8), (2**64 - 1, 1)]
    count = 0
    for iova, size in ranges:
        for what in (library.READ, library.WRITE, library.MAP_READ, library.MAP_WRITE):
            count += 1
            order(machine.client, what, iova, size)
            assert ended(machine.client, count) == (0, errno.EFAULT), (iova, size, what)
    assert not machine.dma.reads and set(machine.dma.writes) <= {(FAR, 0)}  # which asks for the layout
    machine.close()


def test_a_client_that_refuses_fails_the_copy(card):
    machine = Machine(card)
    order(machine.client, library.READ, FAR, 64)
    assert ended(machine.client, 1) == (0, 0)
    machine.dma.refuse = errno.EIO
    for count, what in enumerate((library.READ, library.WRITE, library.MAP_READ), 2):
        order(machine.client, what, FAR, 64)
        assert ended(machine.client, count)[1] in (errno.EIO, errno.EFAULT)
    order(machine.client, library.MAP_WRITE, FAR, 64)
    assert ended(machine.client, 5) == (0, 0)
    put(machine.client, library.DO, library.UNMAP)
    assert ended(machine.client, 6) == (0, errno.EIO)
    machine.close()


def begin_and_hold(machine):
    """Has the card begin all it can with answers that do not come; how many."""
    order(machine.client, library.READ, FAR, 16)  # with the layout found out
    ended(machine.client, 1)
    machine.dma.hold = lambda *_: True
    for what in (library.READ, library.WRITE, library.MAP_READ):
        order(machine.client, what, FAR, 4096, 4096)
    order(machine.client, library.MAP_WRITE, FAR, 4096)
    order(machine.client, library.MAP_WRITE, SHARED, 4096)
    wait_until(lambda: get(machine.client, library.HELD) == 2)
    machine.client.serve_commands(lambda: len(machine.dma.held) >= 3)
    assert get(machine.client, library.DONE) == 3  # and three wait for the client
    return 3


def test_a_reset_does_not_wait_for_answers(card):
    machine = Machine(card)
    waiting = begin_and_hold(machine)
    machine.client.reset()
    assert (get(machine.client, library.CANCELLED), get(machine.client, library.HELD)) == (waiting, 0)
    machine.dma.release()  # late, and well formed: nobody wants them
    order(machine.client, library.READ, FAR, 512)
    assert ended(machine.client, 1) == (waiting, 0)
    machine.close()


def test_a_cancel_does_not_wait_for_answers(card):
    machine = Machine(card)
    waiting = begin_and_hold(machine)
    order(machine.client, library.CANCEL)
    assert ended(machine.client, 3 + waiting) == (waiting, errno.ECANCELED)
    assert get(machine.client, library.HELD) == 2  # windows stay the card's
    machine.dma.release()
    put(machine.client, library.DO, library.UNMAP)
    assert ended(machine.client, 5 + waiting) == (waiting, 0)
    machine.close()


def test_an_unmap_does_not_wait_for_answers(card):
    machine = Machine(card)
    order(machine.client, library.READ, FAR, 16)
    ended(machine.client, 1)
    machine.dma.hold = lambda *_: True
    order(machine.client, library.READ, FAR, 4096)
    machine.client.serve_commands(lambda: machine.dma.held)
    machine.client.dma_unmap(FAR, BYTES)
    machine.dma.release()
    assert ended(machine.client, 2)[1] in (0, errno.EFAULT)
    order(machine.client, library.READ, FAR, 16)
    assert ended(machine.client, 3) == (0, errno.EFAULT)
    machine.close()


def test_a_client_that_goes_leaves_nothing(card):
    first = card.connect()
    get(first, library.DONE)
    before = card.fd_count()
    first.close()
    for turn in range(4):
        machine = Machine(card)
        begin_and_hold(machine)
        if turn % 2:
            machine.client.sock.shutdown(1)
        machine.close()
    client = card.connect()
    assert [get(client, register) for register in (library.DONE, library.HELD, library.RESETS, library.CANCELLED)] == [0] * 4
    assert card.fd_count() == before


def test_a_wrong_answer_ends_the_session_alone(card):
    machine = Machine(card, spoil=lambda message, reply: reply[:17] + b"!" + reply[18:])
    order(machine.client, library.MAP_WRITE, SHARED, 64)
    order(machine.client, library.READ, FAR, 64)
    machine.client.serve_commands(lambda: machine.dma.reads)
    machine.client.dropped()
    machine.close()
    again = Machine(card)
    order(again.client, library.READ, FAR, 64)
    assert ended(again.client, 1) == (0, 0)
    again.close()


def test_more_than_may_be_under_way_is_refused_and_nothing_is_lost(card):
    machine = Machine(card)
    order(machine.client, library.READ, FAR, 16)
    ended(machine.client, 1)
    machine.dma.hold = lambda *_: True
    order(machine.client, library.READ_MANY, FAR)
    assert ended(machine.client, 1 + library.MANY - library.UNDER_WAY_MAX)[1] == errno.EAGAIN
    machine.dma.release()
    assert ended(machine.client, 1 + library.MANY) == (0, 0)
    machine.close()


def test_doorbells_ring_by_both_ways(card):
    machine = Machine(card)
    told = EventFd()
    machine.client.set_irq_eventfds(0, [told])
    info, bells = machine.client.region_io_fds(REGISTERS)
    assert [(entry.offset, entry.size) for entry in info.entries] == [(0x800, 4)]
    bells[0].signal()
    assert readable(told, 10.0)
    machine.client.write_uint(REGISTERS, 0x800, 4, 1)
    wait_until(lambda: get(machine.client, library.BELLS) == 2)
    machine.client.write_uint(REGISTERS, 0x800, 2, 1)  # of another size it is another register
    assert get(machine.client, library.BELLS) == 2
    for event in (told, *bells):
        event.close()
    machine.close()
