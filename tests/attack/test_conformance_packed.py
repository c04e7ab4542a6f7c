# SPDX-License-Identifier: BSD-3-Clause
"""The virtio disk over packed rings, as an honest driver sees it: requests, order, wrap counters, event suppression
(row R14), and memory that comes and goes under a live ring."""

import os
import threading

import pytest

from pylib import blk, virtio, wire
from pylib.events import wait_until
from pylib.packed import AT_DESC, DISABLE, ENABLE, Position
from pylib.ring import Segment
from pylib.vm import USUAL_FEATURES
from pylib.wire import Cmd

M = 1 << 20
EVENT_IDX = USUAL_FEATURES | virtio.F_EVENT_IDX


@pytest.fixture
def guest(server):
    return server.guest(packed=True)


@pytest.fixture(params=["ram", "file", "direct"])
def disk(request, serve, image):
    if request.param == "ram":
        return serve("ram:8M")
    return serve(image, *(["--direct"] if request.param == "direct" else []))


def as_many_as_fit(guest, sector=0):
    """Reads of one sector, by tables and by chains in turn, until the ring is full; offered, not kicked."""
    requests = []
    while guest.queue.room > 0:
        request = guest.prepare(blk.T_IN, sector + len(requests), length=512)
        guest.submit(request, indirect=guest.queue.room < 3 or len(requests) % 3 == 0, kick=False)
        requests.append(request)
    return requests


# --- requests ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("indirect", [False, True])
def test_every_request_works(disk, indirect):
    guest = disk.guest(packed=True, memory=8 * M)
    data = os.urandom(1 << 20)
    guest.write(3, data, indirect=indirect)
    assert guest.read(3, len(data) // 512, indirect=indirect) == data
    guest.flush(indirect=indirect)
    assert guest.discard(100, 50) == blk.S_OK
    assert guest.discard(200, 50, blk.T_WRITE_ZEROES) == blk.S_OK
    content = guest.read(0, 300)
    assert content[200 * 512:250 * 512] == b"\0" * 50 * 512
    assert content[250 * 512:] == data[247 * 512:297 * 512]
    assert content[3 * 512:100 * 512] == data[:97 * 512]


def test_identity_and_errors_have_their_lengths(serve):
    guest = serve("ram:16M", "--serial=packed-disk").guest(packed=True)
    result = guest.do(blk.T_GET_ID, length=20)
    assert (result.status, result.data, result.used) == (blk.S_OK, b"packed-disk".ljust(20, b"\0"), 21)
    assert guest.do(blk.T_IN, 1 << 40, length=512).status == blk.S_IOERR
    assert guest.do(77, 0).status == blk.S_UNSUPP
    assert guest.do(blk.T_FLUSH).used == 1


def test_write_reaches_the_image_and_nothing_else_in_it(serve, image):
    guest = serve(image).guest(packed=True)
    before = image.read_bytes()
    guest.write(100, b"\x5A" * 2048)
    guest.flush()
    assert image.read_bytes() == before[:51200] + b"\x5A" * 2048 + before[53248:]


@pytest.mark.parametrize("extra", [0, virtio.F_EVENT_IDX, virtio.F_INDIRECT_DESC, virtio.F_RING_RESET,
                                   virtio.F_EVENT_IDX | virtio.F_ACCESS_PLATFORM | virtio.F_INDIRECT_DESC])
def test_every_combination_of_ring_features_works(server, extra):
    guest = server.guest(packed=True, features=virtio.F_VERSION_1 | extra)
    guest.assert_works()


@pytest.mark.parametrize("threads", [1, 2])
def test_queues_work_side_by_side(serve, threads):
    guest = serve("ram:16M", "--queues=3", f"--threads={threads}").guest(packed=True, queues=3, queue_size=9)
    guest.reuse = False
    for index in range(3):
        guest.write(index, bytes([index + 1]) * 512, queue=index)
    for index in range(3):
        assert guest.read(index, 1, queue=2 - index) == bytes([index + 1]) * 512


def test_a_split_driver_may_follow_a_packed_one_and_the_other_way_round(server):
    """The format is negotiated anew after each reset."""
    for packed in (True, False, True):
        guest = server.guest(packed=packed)
        guest.assert_works()
        guest.virtio.reset()
        guest.close()


# --- laps and order -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 64, 77])
def test_full_ring_after_full_ring_completes_each_request_once(disk, size):
    """Eight laps; where the ring begins again falls between chains and into them."""
    guest = disk.guest(packed=True, queue_size=size)
    data = os.urandom(512 * 128)
    guest.write(0, data, indirect=True)
    for _ in range(8):
        mark = guest.space.mark()
        requests = {request.head: request for request in as_many_as_fit(guest)}
        guest.kick(posted=True)
        done = guest.queue.wait(len(requests))
        assert sorted(head for head, _ in done) == sorted(requests)
        for head, length in done:
            request = requests[head]
            assert length == 513
            assert guest.space.read(request.data, 512) == data[512 * request.sector:512 * request.sector + 512]
        assert guest.queue.room == size
        guest.space.release(mark)


def test_ring_of_32768_entries_can_be_filled_whole_and_wraps(serve):
    guest = serve("ram:16M", "--queue-size=32768").guest(packed=True, queue_size=32768, memory=8 * M)
    header, status = guest.space.alloc(16), guest.space.alloc(1, 1)
    guest.space.write(header, blk.header(blk.T_FLUSH))
    for _ in range(2):
        for _ in range(16384):
            guest.queue.add([Segment(header, 16), Segment(status, 1, True)])
        guest.kick(posted=True)
        assert len(guest.queue.wait(16384)) == 16384
    assert guest.queue.next_used == Position(32768)


@pytest.mark.parametrize("size", [7, 8, 64])
def test_requests_that_overtake_others_are_given_back_by_their_ids(stuck_guest, size):
    """Two reads wait for the image; requests for the serial, behind them, come back at once, several laps long. Used
    descriptors are written over entries of chains in flight."""
    owner, guest = stuck_guest("--serial=overtaker", packed=True, queue_size=size)
    slow = [guest.submit(guest.prepare(blk.T_IN, 8 * i, length=4096)) for i in range(2)]
    for turn in range(3 * size):
        result = guest.do(blk.T_GET_ID, length=20, indirect=size < 9)
        assert (result.status, result.data) == (blk.S_OK, b"overtaker".ljust(20, b"\0")), f"turn {turn}"
    assert guest.queue.room == size - 6 and not guest.queue.given_back()
    content = [(8 * i + s).to_bytes(8, "little") * 64 for i in range(2) for s in range(8)]
    assert owner.stop() == 0
    done = dict(guest.queue.wait(2))
    assert done == {request.head: 4097 for request in slow}
    read = b"".join(guest.space.read(request.data, 4096) for request in slow)
    assert read[512:] == b"".join(content[1:]), "the first sector is what the other server's check has written"
    assert guest.queue.room == size
    guest.assert_works(100)


def test_many_requests_of_different_sizes_in_any_order_come_back_once_each(serve, image):
    guest = serve(image, "--direct").guest(packed=True, queue_size=100, memory=32 * M)
    for _ in range(4):
        mark = guest.space.mark()
        requests = {}
        for i in range(33):
            length = 512 << (i * 5 % 11)
            request = guest.prepare(blk.T_IN, 300 * i, length=length)
            guest.submit(request, indirect=i % 4 == 0, kick=i % 8 == 0)
            requests[request.head] = request
        guest.kick()
        done = dict(guest.queue.wait(33))
        for head, request in requests.items():
            assert done.pop(head) == request.length + 1
            for offset in (0, request.length - 512):
                sector = request.sector + offset // 512
                assert guest.space.read(request.data + offset, 8) == sector.to_bytes(8, "little")
        assert not done
        guest.space.release(mark)


# --- events -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("features", [USUAL_FEATURES, EVENT_IDX], ids=["plain", "event index"])
def test_enable_interrupts_for_each_and_disable_for_none(server, features):
    guest = server.guest(packed=True, features=features, queue_size=7)
    event = guest.queue_events[0]
    for _ in range(12):
        guest.queue.ask_never()
        guest.read(0, 1)
        assert not event.wait(0.01)
        guest.queue.ask_always()
        guest.read(0, 1)
        assert event.wait(), "no interrupt"


@pytest.mark.parametrize("size", [3, 4, 5, 7, 64])
def test_r14_interrupt_comes_exactly_when_the_position_that_was_asked_for_is_used(server, size):
    """Also when it lies inside a chain, where the wrap counter turns, and on the next lap."""
    guest = server.guest(packed=True, features=EVENT_IDX, queue_size=size)
    queue, event = guest.queue, guest.queue_events[0]
    event.clear()
    for turn in range(3 * size):
        inside = turn % 3
        queue.ask_at(queue.next_used.ahead(inside))
        guest.read(0, 1)
        assert event.wait(), f"nothing after {inside} entries, now at {queue.next_used}"
        if turn % 2:
            guest.flush(indirect=True)  # places move by one
            event.clear()
        queue.ask_at(queue.next_used.ahead(3))
        guest.read(0, 1)
        assert not event.wait(0.005), f"an interrupt too early, now at {queue.next_used}"
        guest.flush(indirect=True)
        assert event.wait(), f"the position that was asked for is used, now at {queue.next_used}"


def test_r14_position_on_the_lap_before_or_after_does_not_interrupt(server):
    guest = server.guest(packed=True, features=EVENT_IDX, queue_size=8)
    queue, event = guest.queue, guest.queue_events[0]
    for _ in range(20):
        wrong = queue.next_used.copy()
        wrong.wrap = not wrong.wrap
        queue.ask_at(wrong)
        guest.flush(indirect=True)
        assert not event.wait(0.005), f"asked for {wrong}"


@pytest.mark.parametrize("word", [0x7FFF, 0xFFFF, 200, 0x8000 | 200, 64, 0x8040])
def test_r14_position_outside_the_ring_does_not_stop_the_queue(server, word):
    guest = server.guest(packed=True, features=EVENT_IDX)
    for _ in range(70):
        guest.queue.set_driver_event(word, AT_DESC)
        guest.flush()
    guest.queue.ask_at(guest.queue.next_used)
    guest.queue_events[0].clear()
    guest.flush()
    assert guest.queue_events[0].wait()


@pytest.mark.parametrize("flags", [3, 4, 0xFFFF, 0x8001])
def test_r14_reserved_event_flags_do_not_stop_the_queue(guest, flags):
    guest.queue.set_driver_event(0, flags)
    for _ in range(10):
        guest.assert_works()
    guest.queue.ask_always()
    guest.queue_events[0].clear()
    guest.assert_works()
    assert guest.queue_events[0].wait()


@pytest.mark.parametrize("size", [100, 256])
def test_r14_no_interrupt_is_lost_over_many_laps(server, size):
    """Batches that end anywhere in the ring; the last position of each has to interrupt."""
    guest = server.guest(packed=True, features=EVENT_IDX, queue_size=size)
    queue, event = guest.queue, guest.queue_events[0]
    header, status = guest.space.alloc(16), guest.space.alloc(1, 1)
    guest.space.write(header, blk.header(blk.T_FLUSH))
    for batch in range(300):
        count = 1 + batch * 7 % (size // 2)
        queue.ask_at(queue.next_avail.ahead(2 * count - 2))
        for _ in range(count):
            queue.add([Segment(header, 16), Segment(status, 1, True)])
        guest.kick(posted=True)
        assert event.wait(), f"no interrupt for the batch of {count} that ends at {queue.next_avail}"
        assert len(queue.wait(count)) == count
    guest.client.fence()


@pytest.mark.parametrize("features", [USUAL_FEATURES, EVENT_IDX], ids=["plain", "event index"])
@pytest.mark.parametrize("size", [3, 7, 64])
def test_r14_driver_that_kicks_only_when_the_device_asks_for_it_loses_nothing(server, features, size):
    guest = server.guest(packed=True, features=features, queue_size=size)
    kicks = 0
    def asks_for_kicks():
        word, flags = guest.queue.device_event()
        if features == EVENT_IDX:
            return (word, flags) == (guest.queue.next_avail.word(), AT_DESC)
        return flags == ENABLE
    assert wait_until(asks_for_kicks), "a device that nobody has asked for anything sleeps"
    for turn in range(300):
        request = guest.prepare(blk.T_IN, 0, length=512)
        guest.submit(request, indirect=turn % 3 == 0, kick=False)
        if guest.queue.kick_due(1 if turn % 3 == 0 else 3):
            kicks += 1
            guest.kick(posted=True)
        assert guest.finish(request).status == blk.S_OK
        guest.space.release(guest.space.windows[0].iova + (1 << 20))
    assert kicks > 0
    assert wait_until(asks_for_kicks), f"the device is idle, and its event structure says {guest.queue.device_event()}"


def test_device_asks_for_no_kicks_while_it_is_busy(stuck_guest):
    """Its structure is one of the three that there are, whatever it is doing, and never names a place far away."""
    owner, guest = stuck_guest(packed=True, features=EVENT_IDX)
    seen = set()
    for _ in range(20):
        guest.submit(guest.prepare(blk.T_IN, 0, length=512), indirect=True)
        word, flags = guest.queue.device_event()
        seen.add(flags)
        assert flags in (ENABLE, DISABLE, AT_DESC)
        if flags == AT_DESC:
            assert word & 0x7FFF < 64
    assert owner.stop() == 0
    assert len(guest.queue.wait(20)) == 20


# --- memory -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("before", range(5))
def test_d06_ring_goes_on_where_it_was_after_an_unmap_and_a_map_of_its_memory(server, before):
    """On both laps: positions and wrap counters are the device's own."""
    guest = server.guest(packed=True, queue_size=5)
    window = guest.space.windows[0]
    for _ in range(before):
        guest.flush(indirect=True)
    for _ in range(12):
        guest.client.dma_unmap(window.iova, window.size)
        guest.client.dma_map(window.iova, window.size, fd=window.memory.fd)
        guest.flush()
    guest.assert_works()


def test_d06_ring_whose_memory_comes_back_in_pieces_goes_on(guest):
    """The second piece begins inside the ring itself."""
    window = guest.space.windows[0]
    guest.queue.desc_addr = window.iova + 0x100000 - 512
    guest.restart()
    guest.assert_works()
    guest.client.dma_unmap(window.iova, window.size)
    for offset, size in ((0, 0x100000), (0x100000, 0x40000), (0x140000, window.size - 0x140000)):
        guest.client.dma_map(window.iova + offset, size, fd=window.memory.fd, offset=offset)
    for _ in range(70):
        guest.assert_works()


def test_d06_request_offered_while_the_ring_was_unmapped_is_served_when_it_is_back(guest):
    window = guest.space.windows[0]
    guest.client.dma_unmap(window.iova, window.size)
    request = guest.submit(guest.prepare(blk.T_IN, 0, length=512))
    guest.client.fence()
    assert not guest.queue.given_back()
    guest.client.dma_map(window.iova, window.size, fd=window.memory.fd)
    assert guest.finish(request).status == blk.S_OK


@pytest.mark.parametrize("options", [(), ("--direct",), ("--threads=2",)])
def test_d06_unmap_and_map_of_the_ring_with_requests_in_flight_loses_none(serve, image, packed, options):
    """Nobody kicks after the map, and nothing more is sent: each completion is to be seen all the same."""
    guest = serve(image, *options).guest(packed=packed, memory=8 * M)
    window = guest.space.windows[0]
    for turn in range(150):
        mark = guest.space.mark()
        guest.queue_events[0].clear()  # a queue that polls needs no kick to interrupt
        requests = [guest.submit(guest.prepare(blk.T_IN, 8 * i, length=4096), kick=False) for i in range(1 + turn % 4)]
        guest.kick(posted=True)
        guest.client.dma_unmap(window.iova, window.size)
        guest.client.dma_map(window.iova, window.size, fd=window.memory.fd)
        done = guest.queue.wait(len(requests))
        assert len(done) == len(requests), f"turn {turn}: {len(done)} of {len(requests)} requests came back"
        assert guest.queue_events[0].wait(), f"turn {turn}: no interrupt"
        guest.space.release(mark)


@pytest.mark.parametrize("steps", range(5))
def test_d06_completion_that_meets_the_unmap_of_its_ring_is_shown(server, packed, steps):
    """A request of many small steps and, in the same write, the kick, changes of other memory, and the unmap of the
    ring's: the request ends somewhere among them. It is to be seen when the memory is back, without another kick."""
    guest = server.guest(packed=packed)
    window = guest.space.windows[0]
    notify = guest.virtio.structures[virtio.CFG_NOTIFY]
    body = wire.region_write(notify.bar, notify.offset + guest.virtio.notify_offsets[0] * notify.multiplier, b"\0\0")
    for segments in range(1, min(guest.config.max_write_zeroes_seg, 9) + 1):
        data = b"".join(blk.discard_segment(8 * i, 1) for i in range(segments))
        guest.queue_events[0].clear()
        request = guest.submit(guest.prepare(blk.T_WRITE_ZEROES, data=data), kick=False)
        messages = [wire.pack(Cmd.REGION_WRITE, body, flags=wire.NO_REPLY)]
        for step in range(steps):
            change = wire.dma_unmap(1 << 40, 4096) if step % 2 else wire.dma_map(1 << 40, 4096)
            messages.append(wire.pack(Cmd.DMA_UNMAP if step % 2 else Cmd.DMA_MAP, change))
        messages.append(wire.pack(Cmd.DMA_UNMAP, wire.dma_unmap(window.iova, window.size)))
        guest.client.send_bytes(b"".join(messages))
        for _ in messages[1:]:
            reply = guest.client.recv()
            assert not reply.is_error, str(reply)
        if steps % 2:
            guest.client.dma_unmap(1 << 40, 4096)
        guest.client.dma_map(window.iova, window.size, fd=window.memory.fd)
        assert guest.finish(request).status == blk.S_OK, f"{segments} segments"
        assert guest.queue_events[0].wait(), f"no interrupt for {segments} segments"


def test_r11_r12_table_and_lengths_that_flip_all_the_time_never_mix(server):
    """The indirect table's second descriptor alternates between two good places: what was taken, was taken whole."""
    guest = server.guest(packed=True)
    guest.write(0, b"\x0A" * 512)
    request = guest.prepare(blk.T_IN, 0, length=512)
    other = guest.space.alloc(1024, 512)
    table = guest.space.alloc(48, 16)
    tables = [guest.queue.indirect_table([Segment(request.header, 16), Segment(place, size, True),
                                          Segment(request.status_addr, 1, True)])
              for place, size in ((request.data, 512), (other, 1024), (request.data, 511))]
    stop = threading.Event()

    def flip():
        while not stop.is_set():
            for raw in tables:
                guest.space.write(table, raw)
    guest.space.write(table, tables[0])
    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for _ in range(150):
            guest.queue.put_chain((table, 48, 4), buffer_id=3)
            guest.kick(posted=True)
            done = guest.queue.wait(1)
            assert done and done[0][0] == 3
            assert done[0][1] in (0, 1, 512, 513, 1025) or guest.broken
    finally:
        stop.set()
        thread.join()
    guest.recover()
