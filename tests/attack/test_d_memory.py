# SPDX-License-Identifier: BSD-3-Clause
"""Rows D1 to D8: the table of guest memory."""

import errno
import os
import time

import pytest

from pylib import blk, wire
from pylib.events import wait_until
from pylib.memory import GuestMemory
from pylib.ring import Segment
from pylib.vm import BASE
from pylib.wire import Cmd

SIZE = 0x10000
ADDR = 0x4000_0000


@pytest.fixture
def memory():
    with GuestMemory(SIZE) as memory:
        yield memory


# --- D1 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("addr, size, offset", [
    (wire.U64_MAX - 0xFFF, 0x2000, 0), (wire.U64_MAX - 0xFFFF, 0x20000, 0), (0x1000, wire.U64_MAX - 0xFFF, 0),
    (ADDR, SIZE, wire.U64_MAX - 0xFFF), (ADDR, SIZE, 1 << 63), (ADDR, wire.U64_MAX, 0), (ADDR, wire.U64_MAX, 4096),
    (ADDR, 1 << 63, 1 << 63),
])
@pytest.mark.parametrize("with_fd", [True, False])
def test_d01_map_whose_sums_wrap_is_refused(client, memory, addr, size, offset, with_fd):
    if not with_fd and addr + size <= 1 << 64 and size <= 8 << 40:
        pytest.skip("the offset means nothing without an fd")
    client.refused(Cmd.DMA_MAP, wire.dma_map(addr, size, offset=offset), fds=[memory.fd] if with_fd else [])
    client.fence()


def test_d01_map_up_to_the_last_byte_of_the_address_space_works_or_is_refused_but_does_not_wrap(guest):
    top = (1 << 64) - SIZE
    with GuestMemory(SIZE) as memory:
        reply = guest.client.exchange(Cmd.DMA_MAP, wire.dma_map(top, SIZE), fds=[memory.fd])
        if reply.is_error:
            guest.client.check_refusal(reply)
            return
        memory.write(SIZE - 512, b"\x66" * 512)
        assert guest.transfer(blk.T_OUT, 1, Segment(wire.U64_MAX - 511, 512)).status == blk.S_OK
        assert guest.transfer(blk.T_OUT, 1, Segment(wire.U64_MAX - 511, 1024)).status == blk.S_IOERR
        assert guest.read(1, 1) == b"\x66" * 512


def test_d01_region_larger_than_eight_terabytes_is_refused(client):
    client.refused(Cmd.DMA_MAP, wire.dma_map(0, (8 << 40) + 4096))
    client.fence()


# --- D2 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("addr, size", [
    (ADDR, SIZE), (ADDR, 4096), (ADDR + 4096, 4096), (ADDR + SIZE - 4096, SIZE), (ADDR - 4096, SIZE),
    (ADDR - SIZE, 3 * SIZE),
])
def test_d02_overlapping_or_duplicate_region_is_refused(client, memory, addr, size):
    client.dma_map(ADDR, SIZE, fd=memory.fd)
    with GuestMemory(4 * SIZE) as other:
        client.refused(Cmd.DMA_MAP, wire.dma_map(addr, size), fds=[other.fd], errnos=(errno.EEXIST,))
        client.refused(Cmd.DMA_MAP, wire.dma_map(addr, size), errnos=(errno.EEXIST,))
    client.dma_unmap(ADDR, SIZE)
    client.dma_map(addr, size)


def test_d02_adjacent_regions_do_not_overlap(client, memory):
    for i in (0, 2, 1, 3):
        client.dma_map(ADDR + i * SIZE, SIZE, fd=memory.fd)
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR + SIZE, SIZE), errnos=(errno.EEXIST,))


@pytest.mark.parametrize("with_fd", [True, False])
def test_d02_region_of_zero_bytes_is_refused(client, memory, with_fd):
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, 0), fds=[memory.fd] if with_fd else [])
    client.fence()


@pytest.mark.parametrize("addr, size, offset", [(ADDR + 1, 4096, 0), (ADDR + 512, 4096, 0), (ADDR, 4095, 0),
                                                (ADDR, 1, 0), (ADDR, 4097, 0), (ADDR, 4096, 1), (ADDR, 4096, 2048)])
def test_d02_unaligned_region_is_refused(client, memory, addr, size, offset):
    client.refused(Cmd.DMA_MAP, wire.dma_map(addr, size, offset=offset), fds=[memory.fd])
    client.fence()


@pytest.mark.parametrize("flags", [16, 1 << 8, 1 << 31, 0xFFFFFFF0])
def test_d02_unknown_map_flags_are_refused(client, memory, flags):
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE, flags=wire.MAP_RW | flags), fds=[memory.fd])
    client.fence()


def test_d02_map_that_allows_neither_reading_nor_writing_is_refused(client, memory):
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE, flags=0), fds=[memory.fd])


@pytest.mark.parametrize("addr, size", [(ADDR, 4096), (ADDR + 4096, 4096), (ADDR, SIZE + 4096), (ADDR - 4096, SIZE),
                                        (0, 4096), (ADDR + SIZE, SIZE), (ADDR, 0), (0, 0)])
def test_d02_unmap_of_what_is_not_exactly_a_region_is_refused(client, memory, addr, size):
    client.dma_map(ADDR, SIZE, fd=memory.fd)
    client.refused(Cmd.DMA_UNMAP, wire.dma_unmap(addr, size))
    client.fence()
    client.dma_unmap(ADDR, SIZE)
    client.refused(Cmd.DMA_UNMAP, wire.dma_unmap(ADDR, SIZE), errnos=(errno.ENOENT,))


def test_d02_unmap_reply_repeats_the_request(client, memory):
    client.dma_map(ADDR, SIZE, fd=memory.fd)
    assert client.dma_unmap(ADDR, SIZE)[8:] == wire.dma_unmap(ADDR, SIZE)[8:]


@pytest.mark.parametrize("flags", [1, 4, 1 << 31])
def test_d02_unmap_with_flags_that_are_not_implemented_is_refused(client, memory, flags):
    """A dirty bitmap that isn't kept must not be promised."""
    client.dma_map(ADDR, SIZE, fd=memory.fd)
    client.refused(Cmd.DMA_UNMAP, wire.dma_unmap(ADDR, SIZE, flags=flags))
    client.fence()


def test_d02_unmap_all_with_an_address_is_refused_and_without_one_unmaps_all_or_is_refused(client, memory):
    for i in range(3):
        client.dma_map(ADDR + 2 * i * SIZE, SIZE, fd=memory.fd)
    client.refused(Cmd.DMA_UNMAP, wire.dma_unmap(ADDR, SIZE, flags=wire.UNMAP_ALL))
    reply = client.exchange(Cmd.DMA_UNMAP, wire.dma_unmap(0, 0, flags=wire.UNMAP_ALL))
    for i in range(3):
        again = client.exchange(Cmd.DMA_MAP, wire.dma_map(ADDR + 2 * i * SIZE, SIZE), fds=[memory.fd])
        assert again.is_error == reply.is_error


# --- D3 -----------------------------------------------------------------------------------------------------

def test_d03_request_across_two_adjacent_regions_is_split_between_their_files(guest):
    left = guest.add_memory(ADDR, SIZE)
    right = guest.add_memory(ADDR + SIZE, SIZE)
    data = os.urandom(8192)
    guest.write(16, data)
    left.memory.write(0, b"\xAB" * SIZE)
    right.memory.write(0, b"\xCD" * SIZE)
    result = guest.transfer(blk.T_IN, 16, Segment(ADDR + SIZE - 4096 - 100, 8192, True))
    assert result.status == blk.S_OK
    assert left.memory.read(SIZE - 4196, 4196) + right.memory.read(0, 3996) == data
    assert left.memory.read(0, SIZE - 4196) == b"\xAB" * (SIZE - 4196)
    assert right.memory.read(3996, SIZE - 3996) == b"\xCD" * (SIZE - 3996)


def test_d03_request_header_and_status_across_two_regions_are_read_whole(guest):
    guest.add_memory(ADDR, SIZE)
    guest.add_memory(ADDR + SIZE, SIZE)
    guest.write(3, b"\x99" * 512)
    header = ADDR + SIZE - 9
    guest.space.windows[1].memory.write(SIZE - 9, blk.header(blk.T_IN, 3)[:9])
    guest.space.windows[2].memory.write(0, blk.header(blk.T_IN, 3)[9:])
    request = guest.prepare(blk.T_IN, 3, length=512)
    segments = guest.segments(request, writable=True)
    segments[0] = Segment(header, 16)
    guest.submit(request, segments)
    assert guest.finish(request).data == b"\x99" * 512


@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
def test_d03_request_that_runs_past_its_region_fails_and_touches_nothing_behind(guest, kind):
    """The file goes on behind the region; the region doesn't."""
    memory = GuestMemory(2 * SIZE)
    guest.memories.append(memory)
    guest.write(0, b"\x11" * 4096)
    guest.add_memory(ADDR, SIZE, memory=memory)
    memory.write(0, b"\x22" * 2 * SIZE)
    result = guest.transfer(kind, 0, Segment(ADDR + SIZE - 2048, 4096, kind == blk.T_IN))
    assert result.status == blk.S_IOERR
    assert memory.read(SIZE, SIZE) == b"\x22" * SIZE
    if kind == blk.T_OUT:
        assert guest.read(4, 4) == b"\x11" * 2048, "bytes from behind the region reached the disk"


@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
def test_d03_request_across_a_hole_between_regions_fails(guest, kind):
    guest.add_memory(ADDR, SIZE)
    guest.add_memory(ADDR + SIZE + 4096, SIZE)
    result = guest.transfer(kind, 0, Segment(ADDR + SIZE - 512, 8192, kind == blk.T_IN))
    assert result.status == blk.S_IOERR
    guest.assert_works()


@pytest.mark.parametrize("addr", [0, 0xDEAD_0000, wire.U64_MAX, wire.U64_MAX - 255, 1 << 63])
@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
def test_d03_data_at_an_address_that_is_no_memory_fails(guest, kind, addr):
    result = guest.transfer(kind, 0, Segment(addr, 512, kind == blk.T_IN))
    assert result.status == blk.S_IOERR
    guest.assert_works()


# --- D4 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("addr", [0, 0xDEAD_0000, wire.U64_MAX, BASE + (4 << 20)])
@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
def test_d04_zero_length_buffer_at_a_bad_address_fails(guest, kind, addr):
    data = guest.space.alloc(512, 512)
    request = guest.prepare(kind, 0)
    guest.submit(request, [Segment(request.header, 16), Segment(addr, 0, kind == blk.T_IN),
                           Segment(data, 512, kind == blk.T_IN), Segment(request.status_addr, 1, True)])
    if wait_until(lambda: guest.broken or guest.queue.used_idx() != guest.queue.last_used) and guest.broken:
        guest.recover()
        return
    assert guest.finish(request).status in (blk.S_IOERR, blk.S_UNSUPP)
    guest.assert_works()


def test_d04_zero_length_buffer_at_a_good_address_harms_nothing(guest):
    data = guest.space.alloc(512, 512)
    request = guest.prepare(blk.T_IN, 0)
    guest.submit(request, [Segment(request.header, 16), Segment(data, 0, True), Segment(data, 512, True),
                           Segment(request.status_addr, 1, True)])
    if wait_until(lambda: guest.broken or guest.queue.used_idx() != guest.queue.last_used) and guest.broken:
        guest.recover()
        return
    guest.finish(request)
    guest.assert_works()


# --- D5 -----------------------------------------------------------------------------------------------------

def test_d05_read_into_a_read_only_region_fails_and_writes_nothing(guest):
    guest.write(0, b"\x31" * 512)
    window = guest.add_memory(ADDR, SIZE, flags=wire.MAP_READ)
    window.memory.write(0, b"\x55" * SIZE)
    assert guest.transfer(blk.T_IN, 0, Segment(ADDR + 4096, 512, True)).status == blk.S_IOERR
    assert window.memory.read(0, SIZE) == b"\x55" * SIZE
    assert guest.transfer(blk.T_OUT, 1, Segment(ADDR + 4096, 512)).status == blk.S_OK


def test_d05_write_from_a_region_that_may_only_be_written_fails(guest):
    guest.write(0, b"\x32" * 512)
    window = guest.add_memory(ADDR, SIZE, flags=wire.MAP_WRITE)
    window.memory.write(0, b"\x55" * SIZE)
    assert guest.transfer(blk.T_OUT, 0, Segment(ADDR, 512)).status == blk.S_IOERR
    assert guest.read(0, 1) == b"\x32" * 512
    assert guest.transfer(blk.T_IN, 0, Segment(ADDR, 512, True)).status == blk.S_OK
    assert window.memory.read(0, 512) == b"\x32" * 512


def test_d05_status_byte_in_a_read_only_region_gives_the_head_back_or_breaks(guest):
    window = guest.add_memory(ADDR, SIZE, flags=wire.MAP_READ)
    window.memory.write(0, b"\x55" * SIZE)
    request = guest.prepare(blk.T_IN, 0, length=512)
    segments = guest.segments(request, writable=True)
    segments[-1] = Segment(ADDR, 1, True)
    guest.submit(request, segments)
    assert wait_until(lambda: guest.broken or guest.queue.take())
    assert window.memory.read(0, 16) == b"\x55" * 16
    guest.recover()


def test_d05_used_ring_in_a_read_only_region_breaks_the_device(server):
    guest = server.guest(driver_ok=False)
    window = guest.add_memory(ADDR, SIZE, flags=wire.MAP_READ)
    window.memory.write(0, b"\x55" * SIZE)
    guest.virtio.reset()
    assert guest.virtio.negotiate(guest._options["features"])
    guest.virtio.set("config_msix_vector", 0)
    guest.queue.used_addr = ADDR
    guest.virtio.setup_queue(0, guest.queue, vector=1)
    guest.virtio.driver_ok()
    guest.kick()
    guest.assert_broken()
    assert window.memory.read(0, SIZE) == b"\x55" * SIZE


@pytest.mark.parametrize("kind, data_writable", [(blk.T_IN, False), (blk.T_OUT, True), (blk.T_GET_ID, False)])
def test_d05_data_in_the_wrong_direction_fails_and_is_not_written(guest, kind, data_writable):
    guest.write(0, b"\x33" * 512)
    data = guest.space.alloc(512, 512)
    guest.space.write(data, b"\x44" * 512)
    result = guest.transfer(kind, 0, Segment(data, 512, data_writable))
    assert result.status in (blk.S_IOERR, blk.S_UNSUPP)
    assert guest.space.read(data, 512) == b"\x44" * 512
    assert guest.read(0, 1) == b"\x33" * 512


# --- D6 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [(), ("--direct",), ("--threads=2",)])
def test_d06_unmap_while_io_is_in_flight_is_drained_first(serve, image, options):
    """After the reply not a byte of the region's file changes."""
    guest = serve(image, *options).guest(queue_size=128)
    for turn in range(5):
        window = guest.add_memory(ADDR, 4 << 20)
        for i in range(32):
            request = guest.prepare(blk.T_IN, 256 * i)
            guest.submit(request, [Segment(request.header, 16), Segment(ADDR + (i << 17), 1 << 17, True),
                                   Segment(request.status_addr, 1, True)], kick=False)
        guest.kick(posted=True)
        guest.client.dma_unmap(ADDR, 4 << 20)
        window.memory.write(0, b"\xEE" * (4 << 20))
        guest.queue.wait(32)
        time.sleep(0.01)
        assert window.memory.read(0, 4 << 20).count(0xEE) == 4 << 20, f"turn {turn}: written after the reply"
        guest.space.remove(window)
        window.memory.close()
    assert not guest.broken


def test_d06_unmap_of_the_rings_memory_while_io_is_in_flight_hurts_no_one(serve, image):
    server = serve(image)
    guest = server.guest(queue_size=128)
    window = guest.space.windows[0]
    for i in range(16):
        guest.submit(guest.prepare(blk.T_IN, 256 * i, length=1 << 16), kick=False)
    guest.kick(posted=True)
    guest.client.dma_unmap(window.iova, window.size)
    before = window.memory.read(0, window.size)
    time.sleep(0.05)
    assert window.memory.read(0, window.size) == before
    guest.client.fence()


def test_d06_live_queue_survives_an_unmap_and_a_map_of_the_memory_it_lies_in(guest):
    """SeaBIOS on q35 makes QEMU do it, with its own driver's queues still enabled."""
    window = guest.space.windows[0]
    for _ in range(3):
        guest.client.dma_unmap(window.iova, window.size)
        guest.client.dma_map(window.iova, window.size, fd=window.memory.fd)
        guest.assert_works()
    # As the PAM registers have it: the one region comes back as three.
    guest.client.dma_unmap(window.iova, window.size)
    for offset, size in ((0, 0x100000), (0x100000, 0x40000), (0x140000, window.size - 0x140000)):
        guest.client.dma_map(window.iova + offset, size, fd=window.memory.fd, offset=offset)
    guest.assert_works()


def test_d06_kick_while_the_rings_are_unmapped_does_not_crash(guest):
    window = guest.space.windows[0]
    request = guest.prepare(blk.T_IN, 0, length=512)
    guest.client.dma_unmap(window.iova, window.size)
    guest.submit(request)
    guest.client.fence()
    guest.client.dma_map(window.iova, window.size, fd=window.memory.fd)
    guest.kick()
    if not wait_until(lambda: guest.broken or guest.queue.take(), 0.5) or guest.broken:
        guest.recover()


# --- D7 -----------------------------------------------------------------------------------------------------

def map_many(client, count, *, first=0, fd=None):
    """Pipelines maps of one page each; gives the number of refusals and the first index that was refused."""
    refused, at = 0, None
    step = 500
    for start in range(first, first + count, step):
        numbers = range(start, min(start + step, first + count))
        if fd is None:
            client.send_bytes(b"".join(
                wire.pack(Cmd.DMA_MAP, wire.dma_map((1 << 40) + i * 8192, 4096), msg_id=i & 0xFFFF) for i in numbers))
        else:
            for i in numbers:
                client.send(Cmd.DMA_MAP, wire.dma_map((1 << 40) + i * 8192, 4096), fds=[fd], msg_id=i & 0xFFFF)
        for i in numbers:
            reply = client.recv()
            assert reply.msg_id == i & 0xFFFF
            if reply.is_error:
                refused += 1
                at = i if at is None else at
    return refused, at


def test_d07_maps_beyond_the_limit_are_refused_and_memory_stays_bounded(server):
    """65535 regions are the limit; the ones before it still work, and each that goes makes room for one."""
    guest = server.guest()
    before = server.resident_bytes()
    used = server.cpu_seconds()
    refused, at = map_many(guest.client, wire.MAX_REGIONS + 100)
    assert server.cpu_seconds() - used < 30, "mapping is slower than linear"
    assert (refused, at) == (101, wire.MAX_REGIONS - 1), "one region was there before"
    server.assert_grew_less(before, 64 << 20)
    guest.assert_works()
    guest.client.dma_unmap((1 << 40) + 8192, 4096)
    guest.client.dma_map((1 << 40) + 8192, 4096)
    guest.client.refused(Cmd.DMA_MAP, wire.dma_map((2 << 40), 4096))
    guest.client.fence()


def test_d07_data_lands_in_the_right_one_of_65535_windows(server):
    """All the windows that a session may have, then every other one of them, then none, then all again."""
    guest = server.guest()
    before = server.resident_bytes()
    count = wire.MAX_REGIONS - len(guest.space.windows)
    with GuestMemory(count * 4096) as memory:
        def window(i):
            return (1 << 40) + i * 8192

        def check(numbers, mapped):
            for i in numbers:
                memory.write(i * 4096, bytes([1 + i % 251]) * 512)
                status = guest.transfer(blk.T_OUT, i % 64, Segment(window(i), 512)).status
                assert status == (blk.S_OK if mapped(i) else blk.S_IOERR), i
                if mapped(i):
                    assert guest.read(i % 64, 1) == bytes([1 + i % 251]) * 512, i
        places = sorted({0, 1, 127, 128, 129, 8191, 8192, count // 2, count - 2, count - 1,
                         *(i * 7919 % count for i in range(100))})
        for _ in range(2):
            for start in range(0, count, 500):
                for i in range(start, min(start + 500, count)):
                    guest.client.send(Cmd.DMA_MAP, wire.dma_map(window(i), 4096, offset=i * 4096), fds=[memory.fd])
                for i in range(start, min(start + 500, count)):
                    assert not guest.client.recv().is_error
            guest.client.refused(Cmd.DMA_MAP, wire.dma_map(window(count), 4096), fds=[memory.fd], errnos=(errno.ENOSPC,))
            check(places, lambda i: True)
            for start in range(0, count, 1000):
                for i in range(start, min(start + 1000, count), 2):
                    guest.client.send(Cmd.DMA_UNMAP, wire.dma_unmap(window(i), 4096))
                for i in range(start, min(start + 1000, count), 2):
                    assert not guest.client.recv().is_error
            check(places, lambda i: i % 2 == 1)
            guest.client.dma_unmap(0, 0, flags=wire.UNMAP_ALL)
            for kept in guest.space.windows:
                guest.client.dma_map(kept.iova, kept.size, fd=kept.memory.fd, offset=kept.offset)
            check(places[:5], lambda i: False)
        server.assert_grew_less(before, 32 << 20)


def test_d07_ten_thousand_windows_into_one_file_are_one_mapping(server):
    guest = server.guest()
    refused, _ = map_many(guest.client, 10_000, fd=guest.memories[0].fd)
    assert refused == 0
    with open(f"/proc/{server.pid}/maps", encoding="utf-8") as maps:
        count = sum("memfd:guest-memory" in line for line in maps)
    assert count <= 4, f"{count} mappings of one file"
    guest.assert_works()


def test_d07_map_and_unmap_for_ever_leaves_memory_constant(server):
    client = server.client()

    def turn(count):
        with GuestMemory(1 << 20) as memory:
            for _ in range(count):
                client.dma_map(ADDR, 1 << 20, fd=memory.fd)
                client.dma_unmap(ADDR, 1 << 20)
    turn(200)
    before = server.resident_bytes()
    turn(2000)
    server.assert_grew_less(before, 4 << 20)


def test_d07_many_different_files_are_bounded_by_a_refusal_and_given_back(server):
    """Each file is a mapping of its own."""
    client = server.client()
    for i in range(300):
        with GuestMemory(4096) as memory:
            client.dma_map(ADDR + 4096 * i, 4096, fd=memory.fd)
    client.close()
    server.assert_fds_back()

    def gone():
        with open(f"/proc/{server.pid}/maps", encoding="utf-8") as maps:
            return "memfd:guest-memory" not in maps.read()
    assert wait_until(gone), "a client's memory is still mapped after it is gone"


# --- D8 -----------------------------------------------------------------------------------------------------

def test_d08_translation_is_not_used_after_its_region_changed(guest):
    guest.write(0, b"\x01" * 512)
    guest.write(1, b"\x02" * 512)
    first = guest.add_memory(ADDR, SIZE)
    assert guest.transfer(blk.T_IN, 0, Segment(ADDR, 512, True)).status == blk.S_OK
    guest.remove_memory(first)
    assert guest.transfer(blk.T_IN, 1, Segment(ADDR, 512, True)).status == blk.S_IOERR
    second = guest.add_memory(ADDR, SIZE)
    assert guest.transfer(blk.T_IN, 1, Segment(ADDR, 512, True)).status == blk.S_OK
    assert first.memory.read(0, 512) == b"\x01" * 512, "the old file was written through a stale translation"
    assert second.memory.read(0, 512) == b"\x02" * 512


def test_d08_region_that_moved_inside_its_file_is_seen_at_once(guest):
    memory = GuestMemory(4 * SIZE)
    guest.memories.append(memory)
    for turn in range(4):
        guest.write(0, bytes([turn + 1]) * 512)
        window = guest.add_memory(ADDR, SIZE, memory=memory, offset=turn * SIZE)
        assert guest.transfer(blk.T_IN, 0, Segment(ADDR, 512, True)).status == blk.S_OK
        guest.remove_memory(window)
    assert [memory.read(i * SIZE, 1) for i in range(4)] == [b"\1", b"\2", b"\3", b"\4"]


def test_d08_region_that_became_read_only_is_not_written_any_more(guest):
    window = guest.add_memory(ADDR, SIZE)
    assert guest.transfer(blk.T_IN, 0, Segment(ADDR, 512, True)).status == blk.S_OK
    guest.remove_memory(window)
    window = guest.add_memory(ADDR, SIZE, memory=window.memory, flags=wire.MAP_READ)
    window.memory.write(0, b"\x77" * SIZE)
    assert guest.transfer(blk.T_IN, 0, Segment(ADDR, 512, True)).status == blk.S_IOERR
    assert window.memory.read(0, SIZE) == b"\x77" * SIZE
