# SPDX-License-Identifier: BSD-3-Clause
"""Rows R8, R21, R22, R24: virtio-blk requests of every layout and with every lie in their fields, over both formats."""

import os

import pytest

from pylib import blk, virtio
from pylib.events import PATIENCE, wait_until
from pylib.ring import INDIRECT, NEXT, WRITE, Segment
from pylib.vm import USUAL_FEATURES

BAD = (blk.S_IOERR, blk.S_UNSUPP)


@pytest.fixture
def guest(either):
    """All these requests are sent over rings of both formats."""
    return either


def given_back(guest, head, timeout=PATIENCE):
    """The head comes back, whatever its status; the used length."""
    done = guest.queue.wait(1, timeout)
    assert done and done[0][0] == head, f"head {head} is leaked: {done}, device status {guest.virtio.status:#x}"
    return done[0][1]


def send(guest, segments):
    head = guest.queue.add(segments)
    guest.kick()
    return given_back(guest, head)


# --- R8 -----------------------------------------------------------------------------------------------------

def test_r08_readable_descriptor_behind_a_writable_one_gives_the_head_back(guest):
    guest.write(0, b"\x12" * 512)
    header, data, status = guest.space.alloc(16), guest.space.alloc(512, 512), guest.space.alloc(1, 1)
    guest.space.write(header, blk.header(blk.T_IN, 0))
    guest.space.write(status, bytes([blk.NOT_SET]))
    guest.space.write(data, b"\x77" * 512)
    used = send(guest, [Segment(header, 16), Segment(data, 512, True), Segment(header, 16), Segment(status, 1, True)])
    assert guest.space.read(status, 1)[0] in (blk.NOT_SET, *BAD)
    assert used <= 513
    guest.assert_works()


def test_r08_request_without_a_writable_byte_gives_the_head_back_with_length_zero(guest):
    guest.write(0, b"\x13" * 512)
    header, data = guest.space.alloc(16), guest.space.alloc(512, 512)
    guest.space.write(header, blk.header(blk.T_OUT, 0))
    guest.space.write(data, b"\x99" * 512)
    assert send(guest, [Segment(header, 16), Segment(data, 512)]) == 0
    assert guest.read(0, 1) == b"\x13" * 512, "a write that can't report its status was executed"


@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT, blk.T_FLUSH, blk.T_GET_ID, blk.T_DISCARD, 77])
def test_r08_header_alone_gives_the_head_back_with_length_zero(guest, kind):
    header = guest.space.alloc(16)
    guest.space.write(header, blk.header(kind))
    assert send(guest, [Segment(header, 16)]) == 0
    guest.assert_works()


def test_r08_status_byte_of_zero_length_gives_the_head_back_with_length_zero(guest):
    header, status = guest.space.alloc(16), guest.space.alloc(1, 1)
    guest.space.write(header, blk.header(blk.T_FLUSH))
    head = guest.queue.add([Segment(header, 16), Segment(status, 0, True)])
    guest.kick()
    assert wait_until(lambda: guest.queue.given_back() or guest.broken)
    if guest.broken:
        guest.recover()
    else:
        assert given_back(guest, head) == 0


def test_r08_chain_of_writable_descriptors_only_gives_the_head_back(guest):
    data = guest.space.alloc(512, 512)
    send(guest, [Segment(data, 512, True)])
    guest.assert_works()


@pytest.mark.parametrize("kind, writable", [(blk.T_IN, False), (blk.T_OUT, True)])
def test_r08_data_in_the_wrong_direction_gives_the_head_back_with_an_error(guest, kind, writable):
    guest.write(0, b"\x14" * 512)
    request = guest.prepare(kind, 0, length=512)
    guest.submit(request, guest.segments(request, writable=writable))
    result = guest.finish(request)
    assert result.status in BAD
    assert guest.read(0, 1) == b"\x14" * 512
    guest.assert_works()


def test_r08_status_byte_outside_memory_gives_the_head_back_or_breaks(guest):
    header = guest.space.alloc(16)
    guest.space.write(header, blk.header(blk.T_FLUSH))
    head = guest.queue.add([Segment(header, 16), Segment(0xDEAD_0000, 1, True)])
    guest.kick()
    assert wait_until(lambda: guest.queue.given_back() or guest.broken)
    if guest.broken:
        guest.recover()
    else:
        assert given_back(guest, head) == 0
        guest.assert_works()


def test_r08_bad_requests_in_a_row_never_stall_the_queue(guest):
    """Three times the queue's size of leaks would be seen."""
    header = guest.space.alloc(16)
    for i in range(200):
        guest.space.write(header, blk.header(i))
        send(guest, [Segment(header, 16)])
    guest.assert_works()


# --- R21, R22 -----------------------------------------------------------------------------------------------

def bytes_of(addr, count, writable=False):
    return [Segment(addr + i, 1, writable) for i in range(count)]


@pytest.mark.parametrize("indirect", [False, True])
def test_r21_header_in_sixteen_descriptors_of_one_byte_works(guest, indirect):
    data = os.urandom(512)
    guest.write(9, data)
    request = guest.prepare(blk.T_IN, 9, length=512)
    guest.submit(request, [*bytes_of(request.header, 16), Segment(request.data, 512, True),
                           Segment(request.status_addr, 1, True)], indirect=indirect)
    result = guest.finish(request)
    assert (result.status, result.data, result.used) == (blk.S_OK, data, 513)


def test_r21_header_pieces_that_lie_scattered_in_memory_are_read_in_chain_order(guest):
    data = os.urandom(512)
    guest.write(10, data)
    raw = blk.header(blk.T_IN, 10)
    places = [guest.space.alloc(64, 16) for _ in range(16)]
    for i, place in enumerate(reversed(places)):
        guest.space.write(place, raw[i:i + 1])
    request = guest.prepare(blk.T_IN, 10, length=512)
    guest.submit(request, [*(Segment(place, 1) for place in reversed(places)), Segment(request.data, 512, True),
                           Segment(request.status_addr, 1, True)])
    assert guest.finish(request).data == data


@pytest.mark.parametrize("cut", [1, 8, 15, 17, 20, 100, 527])
def test_r21_header_and_data_of_a_write_share_descriptors_in_any_way(guest, cut):
    """16 + 512 readable bytes as one stream, cut anywhere."""
    data = os.urandom(512)
    request = guest.prepare(blk.T_OUT, 11)
    stream = guest.space.alloc(528, 16)
    guest.space.write(stream, blk.header(blk.T_OUT, 11) + data)
    guest.submit(request, [Segment(stream, cut), Segment(stream + cut, 528 - cut),
                           Segment(request.status_addr, 1, True)])
    assert guest.finish(request).status == blk.S_OK
    assert guest.read(11, 1) == data


@pytest.mark.parametrize("cut", [1, 100, 511, 512])
def test_r21_data_and_status_of_a_read_share_descriptors_in_any_way(guest, cut):
    """The status is the last writable byte, wherever its descriptor begins."""
    data = os.urandom(512)
    guest.write(12, data)
    request = guest.prepare(blk.T_IN, 12)
    stream = guest.space.alloc(513, 16)
    guest.space.fill(stream, 513, blk.NOT_SET)
    guest.submit(request, [Segment(request.header, 16), Segment(stream, cut, True), Segment(stream + cut, 513 - cut, True)])
    assert given_back(guest, request.head) == 513
    assert guest.space.read(stream, 513) == data + bytes([blk.S_OK])


def test_r21_whole_request_in_single_bytes_works(serve, packed):
    """16 + 512 + 1 descriptors."""
    guest = serve("ram:16M", "--queue-size=1024", "--seg-max=1022").guest(queue_size=1024, packed=packed)
    data = os.urandom(512)
    guest.write(13, data)
    request = guest.prepare(blk.T_IN, 13, length=512)
    guest.submit(request, [*bytes_of(request.header, 16), *bytes_of(request.data, 512, True),
                           Segment(request.status_addr, 1, True)])
    result = guest.finish(request)
    assert (result.status, result.data) == (blk.S_OK, data)


def test_r21_identity_in_pieces_works(guest):
    request = guest.prepare(blk.T_GET_ID)
    place = guest.space.alloc(20)
    guest.submit(request, [*bytes_of(request.header, 16), *bytes_of(place, 20, True),
                           Segment(request.status_addr, 1, True)])
    assert guest.finish(request).status == blk.S_OK


@pytest.mark.parametrize("length", [0, 1, 4, 8, 15])
@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT, blk.T_FLUSH])
def test_r22_chain_shorter_than_the_header_fails(guest, kind, length):
    header, status = guest.space.alloc(16), guest.space.alloc(1, 1)
    guest.space.write(header, blk.header(kind))
    guest.space.write(status, bytes([blk.NOT_SET]))
    segments = [Segment(header, length)] if length else []
    used = send(guest, [*segments, Segment(status, 1, True)])
    assert guest.space.read(status, 1)[0] in BAD or used == 0
    assert guest.space.read(status, 1)[0] != blk.S_OK
    guest.assert_works()


# --- R24 ----------------------------------------------------------------------------------------------------

CAPACITY = (16 << 20) // 512
FAR = [CAPACITY, CAPACITY + 1, 1 << 54, (1 << 55) - 1, 1 << 55, (1 << 55) + 1, 1 << 56, 1 << 63, (1 << 64) - 1,
       (1 << 64) - (1 << 20), ((1 << 64) - 512) // 512]


@pytest.mark.parametrize("sector", FAR)
@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
def test_r24_sector_past_the_end_or_that_overflows_in_bytes_fails(guest, kind, sector):
    """2^55 * 512 is 0: the first sector must not be hit."""
    guest.write(0, b"\x41" * 512)
    result = guest.do(kind, sector, **({"length": 512} if kind == blk.T_IN else {"data": b"\x42" * 512}))
    assert result.status in BAD
    assert guest.read(0, 1) == b"\x41" * 512


@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
def test_r24_request_that_begins_inside_and_ends_past_the_end_fails_whole(guest, kind):
    guest.write(CAPACITY - 1, b"\x43" * 512)
    result = guest.do(kind, CAPACITY - 1, **({"length": 1024} if kind == blk.T_IN else {"data": b"\x44" * 1024}))
    assert result.status in BAD
    assert guest.read(CAPACITY - 1, 1) == b"\x43" * 512


SEGMENTS = [(sector, 1) for sector in FAR] + [
    (0, CAPACITY + 1), (0, 0x800000), (0, 0x800001), (0, 0x01000000), (0, 0x80000000), (0, 0xFFFFFFFF),
    (1, 0xFFFFFFFF), (CAPACITY - 1, 2), (1 << 55, 0x800000), ((1 << 64) - 1, 0xFFFFFFFF), (8, (1 << 32) - 8)]


@pytest.mark.parametrize("sector, count", SEGMENTS)
@pytest.mark.parametrize("kind", [blk.T_DISCARD, blk.T_WRITE_ZEROES])
def test_r24_discard_and_zeroes_past_the_end_or_that_overflow_fail(guest, kind, sector, count):
    """0x800000 sectors are 2^32 bytes: in 32 bits they are none, and 'success' would be a lie."""
    guest.write(0, b"\x45" * 4096)
    guest.write(CAPACITY - 8, b"\x46" * 4096)
    assert guest.discard(sector, count, kind) in BAD
    assert guest.read(0, 8) == b"\x45" * 4096
    assert guest.read(CAPACITY - 8, 8) == b"\x46" * 4096


@pytest.mark.parametrize("kind", [blk.T_DISCARD, blk.T_WRITE_ZEROES])
def test_r24_segments_above_the_advertised_maximum_fail(serve, kind):
    """What the configuration says has to be enforced: a 1 TiB disk has room for it."""
    guest = serve("null:1T").guest()
    config = guest.config
    limit = config.max_discard_sectors if kind == blk.T_DISCARD else config.max_write_zeroes_sectors
    assert limit > 0
    assert guest.discard(0, limit, kind) == blk.S_OK
    if limit < 0xFFFFFFFF:
        assert guest.discard(0, limit + 1, kind) in BAD
        assert guest.discard(0, 0xFFFFFFFF, kind) in BAD


@pytest.mark.parametrize("kind", [blk.T_DISCARD, blk.T_WRITE_ZEROES])
def test_r24_more_segments_than_advertised_fail_and_change_nothing(guest, kind):
    config = guest.config
    limit = config.max_discard_seg if kind == blk.T_DISCARD else config.max_write_zeroes_seg
    assert limit >= 1
    guest.write(0, b"\x47" * 512)
    count = limit + 1
    data = b"".join(blk.discard_segment(0, 1) for _ in range(count))
    assert guest.do(kind, data=data).status in BAD
    assert guest.read(0, 1) == b"\x47" * 512


@pytest.mark.parametrize("length", [1, 8, 15, 17, 24, 31])
@pytest.mark.parametrize("kind", [blk.T_DISCARD, blk.T_WRITE_ZEROES])
def test_r24_segment_list_that_is_no_multiple_of_sixteen_fails(guest, kind, length):
    guest.write(0, b"\x48" * 512)
    data = (blk.discard_segment(0, 1) * 2)[:length]
    assert guest.do(kind, data=data).status in BAD
    assert guest.read(0, 1) == b"\x48" * 512


@pytest.mark.parametrize("kind", [blk.T_DISCARD, blk.T_WRITE_ZEROES])
def test_r24_empty_segment_list_fails_or_does_nothing(guest, kind):
    guest.write(0, b"\x49" * 512)
    assert guest.do(kind).status in (blk.S_OK, *BAD)
    assert guest.read(0, 1) == b"\x49" * 512


@pytest.mark.parametrize("cut", [1, 4, 8, 12, 15])
def test_r24_segment_split_over_two_descriptors_zeroes_exactly_or_fails(guest, cut):
    guest.write(4, b"\x4A" * 2048)
    request = guest.prepare(blk.T_WRITE_ZEROES)
    place = guest.space.alloc(16)
    guest.space.write(place, blk.discard_segment(5, 2))
    guest.submit(request, [Segment(request.header, 16), Segment(place, cut), Segment(place + cut, 16 - cut),
                           Segment(request.status_addr, 1, True)])
    status = guest.finish(request).status
    content = guest.read(4, 4)
    if status == blk.S_OK:
        assert content == b"\x4A" * 512 + b"\0" * 1024 + b"\x4A" * 512
    else:
        assert status in BAD and content == b"\x4A" * 2048


@pytest.mark.parametrize("kind, flags", [(blk.T_DISCARD, 1), (blk.T_DISCARD, 2), (blk.T_DISCARD, 1 << 31),
                                         (blk.T_WRITE_ZEROES, 2), (blk.T_WRITE_ZEROES, 3),
                                         (blk.T_WRITE_ZEROES, 0x80000001)])
def test_r24_unknown_segment_flags_and_unmap_on_a_discard_are_unsupported(guest, kind, flags):
    """5.2.6.2 wants VIRTIO_BLK_S_UNSUPP here."""
    guest.write(0, b"\x4B" * 512)
    assert guest.discard(0, 1, kind, flags) == blk.S_UNSUPP
    assert guest.read(0, 1) == b"\x4B" * 512


@pytest.mark.parametrize("length", [1, 511, 513, 1000, 4095])
@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
def test_r24_data_that_is_no_multiple_of_a_sector_fails(guest, kind, length):
    guest.write(0, b"\x4C" * 4096)
    result = guest.do(kind, 0, **({"length": length} if kind == blk.T_IN else {"data": b"\x4D" * length}))
    assert result.status in BAD
    assert guest.read(0, 8) == b"\x4C" * 4096


@pytest.mark.parametrize("kind", [blk.T_IN, blk.T_OUT])
def test_r24_read_and_write_of_no_data_end_with_a_status(guest, kind):
    for sector in (0, CAPACITY, CAPACITY + 1, 1 << 55, (1 << 64) - 1):
        assert guest.do(kind, sector).status in (blk.S_OK, *BAD)
    guest.assert_works()


@pytest.mark.parametrize("sector, sectors", [(1, 8), (0, 1), (7, 1), (8, 9)])
def test_r24_request_that_is_not_aligned_to_a_block_of_4096_fails(serve, workdir, sector, sectors):
    guest = serve(workdir.file("disk", 1 << 20), "--block-size=4096").guest()
    assert guest.config.blk_size == 4096
    assert guest.do(blk.T_IN, sector, length=512 * sectors).status in BAD
    assert guest.do(blk.T_OUT, sector, data=b"\xAA" * 512 * sectors).status in BAD
    assert guest.read(0, 24) == b"\0" * 24 * 512


def test_r24_one_mebibyte_and_more_in_one_request_moves_exactly(serve):
    guest = serve("ram:64M").guest(memory=40 << 20)
    data = os.urandom(16 << 20)
    guest.write(3, data)
    assert guest.read(3, len(data) // 512) == data


def test_r24_length_beyond_size_max_works_or_fails(serve):
    guest = serve("ram:16M", "--size-max=4096", "--seg-max=4").guest()
    assert (guest.config.size_max, guest.config.seg_max) == (4096, 4)
    status = guest.do(blk.T_IN, 0, length=8192).status
    assert status in (blk.S_OK, *BAD)
    guest.assert_works()


@pytest.mark.parametrize("kind", [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 0x80, 0x100, 0x10000, 0x80000000, 0xFFFFFFFF,
                                  0x80000001])
def test_r24_unknown_request_type_is_unsupported(guest, kind):
    """Also with the barrier bit of old drivers, which isn't a write."""
    guest.write(0, b"\x4E" * 512)
    assert guest.do(kind, 0, data=b"\x4F" * 512).status == blk.S_UNSUPP
    assert guest.do(kind, 0, length=512).status == blk.S_UNSUPP
    assert guest.do(kind, 0).status == blk.S_UNSUPP
    assert guest.read(0, 1) == b"\x4E" * 512


@pytest.mark.parametrize("feature, kind", [(blk.F_DISCARD, blk.T_DISCARD), (blk.F_WRITE_ZEROES, blk.T_WRITE_ZEROES)])
def test_r24_request_of_a_feature_that_was_not_negotiated_is_unsupported(server, feature, kind):
    guest = server.guest(features=USUAL_FEATURES & ~feature)
    guest.write(0, b"\x50" * 512)
    assert guest.do(kind, data=blk.discard_segment(0, 1)).status in BAD
    assert guest.read(0, 1) == b"\x50" * 512


@pytest.mark.parametrize("length", [1, 8, 19])
def test_r24_identity_into_less_than_twenty_bytes_fails_or_is_cut(guest, length):
    """5.2.6: 20 bytes; a shorter buffer must not be overrun."""
    place = guest.space.alloc(64, 16)
    guest.space.fill(place, 64, 0xEE)
    request = guest.prepare(blk.T_GET_ID)
    guest.submit(request, [Segment(request.header, 16), Segment(place, length, True),
                           Segment(request.status_addr, 1, True)])
    assert guest.finish(request).status in (blk.S_OK, *BAD)
    assert guest.space.read(place + length, 64 - length) == b"\xEE" * (64 - length)


def test_r24_identity_into_a_longer_buffer_fills_twenty_bytes_at_most(serve):
    guest = serve("ram:16M", "--serial=twenty-bytes-of-name").guest()
    place = guest.space.alloc(64, 16)
    guest.space.fill(place, 64, 0xEE)
    request = guest.prepare(blk.T_GET_ID)
    guest.submit(request, [Segment(request.header, 16), Segment(place, 64, True),
                           Segment(request.status_addr, 1, True)])
    assert guest.finish(request).status in (blk.S_OK, *BAD)
    assert guest.space.read(place + 20, 44).strip(b"\0\xEE") == b""


def test_r24_flush_with_a_sector_or_data_harms_nothing(guest):
    guest.write(0, b"\x51" * 512)
    assert guest.do(blk.T_FLUSH, 12345).status in (blk.S_OK, *BAD)
    assert guest.do(blk.T_FLUSH, 0, data=b"\x52" * 512).status in (blk.S_OK, *BAD)
    assert guest.read(0, 1) == b"\x51" * 512


def test_r_descriptor_with_unknown_flags_works_or_breaks(guest):
    header, status = guest.space.alloc(16), guest.space.alloc(1, 1)
    guest.space.write(header, blk.header(blk.T_FLUSH))
    guest.space.write(status, bytes([blk.NOT_SET]))
    unknown = 0x7F78 if guest.queue.packed else 0xFFF8
    guest.queue.put_chain((header, 16, NEXT | unknown), (status, 1, WRITE | unknown))
    guest.kick()
    assert wait_until(lambda: guest.queue.given_back() or guest.broken)
    if not guest.broken:
        assert guest.queue.take() == [(0, 1)]


def break_queue(guest, index=0):
    """A table that isn't in memory breaks a queue of either format."""
    guest.queues[index].put_chain((0xDEAD_0000, 48, INDIRECT))
    guest.kick(index)
    guest.assert_broken()


def test_r_request_after_needs_reset_is_not_served_until_the_reset(guest):
    break_queue(guest)
    for _ in range(5):
        guest.submit(guest.prepare(blk.T_IN, 0, length=512))
    guest.client.fence()
    assert not guest.queue.given_back()
    assert guest.virtio.status & virtio.NEEDS_RESET
    guest.recover()


def test_r_all_queues_of_a_broken_device_are_healed_by_one_reset(serve, packed):
    guest = serve("ram:16M", "--queues=4").guest(queues=4, packed=packed)
    break_queue(guest, 2)
    guest.restart()
    for index in range(4):
        guest.write(index, bytes([index + 1]) * 512, queue=index)
    for index in range(4):
        assert guest.read(index, 1, queue=3 - index) == bytes([index + 1]) * 512


def test_r_indirect_and_direct_requests_interleave(guest):
    for sector in range(60):
        guest.write(sector, bytes([sector + 1]) * 512, indirect=bool(sector & 1))
    for sector in range(60):
        assert guest.read(sector, 1, indirect=not sector & 1) == bytes([sector + 1]) * 512
