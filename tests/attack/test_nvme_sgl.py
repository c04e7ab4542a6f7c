# SPDX-License-Identifier: BSD-3-Clause
"""Row N7: scatter gather lists, good and bad (base specification 2.0, 4.1.2)."""

import os
import random

import pytest

from pylib import nvme_spec as spec
from pylib import wire
from pylib.memory import PAGE
from pylib.nvme import expect
from pylib.nvme_spec import SGL_BUCKET, SGL_DATA, SGL_LAST, SGL_SEGMENT, sgl

OUTSIDE = 0x7000_0000
BAD_SEGMENT = (spec.INVALID_SGL_SEGMENT, spec.INVALID_SGL_COUNT)
BAD_MEMORY = (spec.DATA_TRANSFER_ERROR, spec.INVALID_FIELD)
BAD_OF_ANY_KIND = (spec.INVALID_SGL_SEGMENT, spec.INVALID_SGL_COUNT, spec.SGL_LENGTH_INVALID, spec.SGL_TYPE_INVALID,
                   spec.SGL_OFFSET_INVALID, spec.SGL_GRANULARITY, *BAD_MEMORY)


@pytest.fixture(params=[False, True], ids=["shared", "remote"])
def guest(nvme_server, request):
    nvme = nvme_server.guest(remote=request.param)
    assert nvme.controller().sgls & 3, "SGLs are offered (Identify Controller, SGLS)"
    return nvme


def transfer(nvme, opcode, blocks, descriptor, slba=0, **fields):
    return nvme.run(1, opcode, **{"nsid": 1, "psdt": spec.SGL, "dptr": descriptor, **spec.rw_words(slba, blocks), **fields})


def read(nvme, blocks, descriptor, slba=0):
    return transfer(nvme, spec.READ, blocks, descriptor, slba)


def write(nvme, blocks, descriptor, slba=0):
    return transfer(nvme, spec.WRITE, blocks, descriptor, slba)


def segment(nvme, *descriptors, kind=SGL_LAST):
    """The descriptors in memory, and the descriptor that points to them."""
    body = b"".join(descriptors)
    return sgl(kind, nvme.buffer(body, align=16), len(body))


# --- good ones ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("blocks", [1, 9, 128, 2048])
@pytest.mark.parametrize("offset", [0, 4, 512, 4092])
def test_one_block_of_data_moves_the_exact_bytes(guest, blocks, offset):
    data = os.urandom(blocks * 512)
    mark = guest.space.mark()
    guest.write(3, data, offset=offset, sgl=True)
    guest.space.release(mark)
    assert guest.read(3, blocks) == data
    guest.space.release(mark)
    assert guest.read(3, blocks, offset=offset, sgl=True) == data


@pytest.mark.parametrize("lengths", [[512], [4, 508], [100, 412, 512], [512] * 8, [4] * 128, [1000, 24, 3072]])
def test_blocks_of_data_of_all_lengths_in_a_last_segment(guest, lengths):
    data = os.urandom(sum(lengths))
    assert len(data) % 512 == 0
    parts, at = [], 0
    for length in lengths:
        parts.append(sgl(SGL_DATA, guest.buffer(data[at:at + length], align=16, offset=4), length))
        at += length
    expect(write(guest, len(data) // 512, segment(guest, *parts)), spec.OK)
    assert guest.read(0, len(data) // 512) == data


@pytest.mark.parametrize("length", [2, 3, 10])
def test_segments_in_a_chain(guest, length):
    """A segment's last descriptor names the next; the one before the last is of its own kind."""
    pages = [guest.buffer(os.urandom(512)) for _ in range(2 * length)]
    pointer = None
    for index in reversed(range(length)):
        body = [sgl(SGL_DATA, page, 512) for page in pages[2 * index:2 * index + 2]]
        kind = SGL_SEGMENT if pointer and index < length - 1 else SGL_LAST
        pointer = segment(guest, *body, *([pointer] if pointer else []), kind=kind)
    expect(write(guest, 2 * length, pointer), spec.OK)
    assert guest.read(0, 2 * length) == b"".join(guest.space.read(page, 512) for page in pages)


def test_empty_blocks_of_data_are_nothing(guest):
    """4.1.2: a length of zero is valid for data, whatever the address."""
    address = guest.buffer(os.urandom(1024))
    body = [sgl(SGL_DATA, OUTSIDE, 0), sgl(SGL_DATA, address, 512), sgl(SGL_DATA, 0, 0), sgl(SGL_DATA, address + 512, 512),
            sgl(SGL_DATA, wire.U64_MAX, 0)]
    done = write(guest, 2, segment(guest, *body))
    expect(done, spec.OK, spec.SGL_OFFSET_INVALID, *BAD_MEMORY)
    if done.status == spec.OK:
        assert guest.read(0, 2) == guest.space.read(address, 1024)
    guest.assert_works()


def test_bit_bucket_swallows_what_is_read(guest):
    if not guest.controller().sgls >> 16 & 1:
        pytest.skip("SGLS bit 16: no bit buckets")
    data = os.urandom(2048)
    guest.write(0, data)
    address = guest.buffer(length=1024)
    body = [sgl(SGL_DATA, address, 512), sgl(SGL_BUCKET, 0, 1024), sgl(SGL_DATA, address + 512, 512)]
    expect(read(guest, 4, segment(guest, *body)), spec.OK)
    assert guest.space.read(address, 1024) == data[:512] + data[1536:]
    expect(read(guest, 4, sgl(SGL_BUCKET, 0, 2048)), spec.OK)


def test_bit_bucket_in_a_write_has_no_effect(guest):
    """4.1.2.1.2: it is passed over where the list says where data come from."""
    if not guest.controller().sgls >> 16 & 1:
        pytest.skip("SGLS bit 16: no bit buckets")
    address = guest.buffer(os.urandom(1024))
    body = [sgl(SGL_DATA, address, 512), sgl(SGL_BUCKET, 0, 4096), sgl(SGL_DATA, address + 512, 512)]
    expect(write(guest, 2, segment(guest, *body)), spec.OK)
    assert guest.read(0, 2) == guest.space.read(address, 1024)
    expect(write(guest, 2, sgl(SGL_BUCKET, 0, 1024)), spec.SGL_LENGTH_INVALID)


# --- N7 -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", [SGL_SEGMENT, SGL_LAST])
@pytest.mark.parametrize("length", [0, 1, 8, 15, 17, 24, 0xFFFFFFFF])
def test_n07_segment_whose_length_is_no_number_of_descriptors_is_refused(guest, kind, length):
    """4.1.2: Invalid SGL Segment Descriptor: zero, or not a multiple of 16."""
    address = guest.buffer(sgl(SGL_DATA, guest.buffer(length=512), 512) * 4)
    expect(read(guest, 1, sgl(kind, address, length)), *BAD_SEGMENT)
    guest.assert_works()


@pytest.mark.parametrize("kind", [SGL_SEGMENT, SGL_LAST])
def test_n07_segment_that_names_itself_ends_in_a_bounded_time(guest, kind):
    address = guest.allocate(16, 16)
    guest.space.write(address, sgl(kind, address, 16))
    expect(read(guest, 1, sgl(SGL_SEGMENT, address, 16)), *BAD_OF_ANY_KIND)
    guest.assert_works()


@pytest.mark.parametrize("empty", [True, False], ids=["of nothing", "with data"])
def test_n07_segments_in_a_cycle_end_in_a_bounded_time(guest, empty):
    """With blocks of nothing in them, so that no length ever ends it; or with data."""
    segments = [guest.allocate(32, 16) for _ in range(3)]
    data = sgl(SGL_DATA, guest.buffer(length=512), 0 if empty else 4)
    for here, there in zip(segments, segments[1:] + segments[:1]):
        guest.space.write(here, data + sgl(SGL_SEGMENT, there, 32))
    expect(read(guest, 2048, sgl(SGL_SEGMENT, segments[0], 32)), *BAD_OF_ANY_KIND)
    guest.assert_works()


def test_n07_more_descriptors_than_anybody_needs_are_refused_or_done_in_a_bounded_time(guest):
    address = guest.buffer(sgl(SGL_DATA, guest.buffer(length=512), 0) * 65536)
    expect(read(guest, 1, sgl(SGL_LAST, address, 16 * 65536)), *BAD_OF_ANY_KIND)
    guest.assert_works()


def test_n07_last_segment_that_is_not_the_last_is_refused(guest):
    """4.1.2.1.4: a last segment has neither a segment nor a last segment in it."""
    inner = segment(guest, sgl(SGL_DATA, guest.buffer(length=512), 512))
    for descriptor in (inner, sgl(SGL_SEGMENT, guest.allocate(16, 16), 16)):
        expect(read(guest, 1, segment(guest, descriptor, kind=SGL_LAST)), *BAD_SEGMENT)
    guest.assert_works()


def test_n07_pointer_to_a_segment_anywhere_but_at_the_end_is_refused(guest):
    """4.1.2.1.3: it is the last descriptor of its segment."""
    data = sgl(SGL_DATA, guest.buffer(length=512), 256)
    inner = segment(guest, data)
    expect(read(guest, 1, segment(guest, data, inner, data, kind=SGL_SEGMENT)), *BAD_SEGMENT)
    guest.assert_works()


def test_n07_segment_that_ends_without_a_pointer_is_refused(guest):
    """4.1.2.1.3: the last descriptor of a segment that is not the last names another."""
    data = sgl(SGL_DATA, guest.buffer(length=512), 256)
    expect(read(guest, 1, segment(guest, data, data, kind=SGL_SEGMENT)), *BAD_SEGMENT)
    guest.assert_works()


@pytest.mark.parametrize("lengths", [[], [0], [508], [256, 252], [4]])
def test_n07_less_data_than_the_command_moves_is_refused(guest, lengths):
    """Data SGL Length Invalid."""
    address = guest.buffer(length=1024)
    body = [sgl(SGL_DATA, address, length) for length in lengths]
    done = read(guest, 1, segment(guest, *body) if len(body) != 1 else body[0]) if body else read(guest, 1, bytes(16))
    expect(done, spec.SGL_LENGTH_INVALID)
    assert guest.space.read(address, 1024) == b"\xA5" * 1024
    guest.assert_works()


@pytest.mark.parametrize("opcode", [spec.READ, spec.WRITE])
@pytest.mark.parametrize("more", [4, 512, 0xFFFFF000])
def test_n07_more_data_than_the_command_moves_is_what_identify_says(guest, opcode, more):
    """SGLS bit 18: a longer list is taken; without it, Data SGL Length Invalid."""
    longer = guest.controller().sgls >> 18 & 1
    address = guest.buffer(length=8192)
    done = transfer(guest, opcode, 1, sgl(SGL_DATA, address, (512 + more) & 0xFFFFFFFF))
    expect(done, *((spec.OK, *BAD_MEMORY) if longer else (spec.SGL_LENGTH_INVALID,)))
    assert guest.space.read(address + 512, 4096) == b"\xA5" * 4096
    guest.assert_works()


@pytest.mark.parametrize("kind", [4, 5, 6, 7, 14, 15])
@pytest.mark.parametrize("inside", [False, True])
def test_n07_kind_of_descriptor_that_is_not_there_is_refused(guest, kind, inside):
    """SGL Descriptor Type Invalid: keyed and transport ones are of fabrics, 15 of vendors, the rest reserved."""
    descriptor = sgl(kind, guest.buffer(length=512), 512)
    expect(read(guest, 1, segment(guest, descriptor) if inside else descriptor), spec.SGL_TYPE_INVALID)
    guest.assert_works()


@pytest.mark.parametrize("kind", [SGL_DATA, SGL_SEGMENT, SGL_LAST])
@pytest.mark.parametrize("subtype", [1, 2, 9, 15])
def test_n07_subtype_that_is_not_there_is_refused(guest, kind, subtype):
    """4.1.2: on PCIe addresses are addresses."""
    target = guest.buffer(sgl(SGL_DATA, guest.buffer(length=512), 512), align=512)
    expect(read(guest, 1, sgl(kind, target, 512 if kind == SGL_DATA else 16, subtype=subtype)), spec.SGL_TYPE_INVALID)
    guest.assert_works()


def test_n07_bit_bucket_where_none_is_offered_is_refused(guest):
    if guest.controller().sgls >> 16 & 1:
        pytest.skip("SGLS bit 16: they are offered")
    expect(read(guest, 1, sgl(SGL_BUCKET, 0, 512)), spec.SGL_TYPE_INVALID)


@pytest.mark.parametrize("address", [0, OUTSIDE, wire.U64_MAX - 15, wire.U64_MAX - 0xFFF, 1 << 63])
def test_n07_addresses_where_no_memory_is_fail(guest, address):
    good = sgl(SGL_DATA, guest.buffer(length=512), 256)
    for descriptor in (sgl(SGL_DATA, address & ~3, 512), sgl(SGL_LAST, address & ~15, 16), sgl(SGL_SEGMENT, address & ~15, 32),
                       segment(guest, good, sgl(SGL_DATA, address & ~3, 256))):
        expect(read(guest, 1, descriptor), *BAD_MEMORY, *BAD_SEGMENT)
        expect(write(guest, 1, descriptor), *BAD_MEMORY, *BAD_SEGMENT)
    guest.assert_works()


def test_n07_lengths_whose_sum_wraps_are_refused(guest):
    """Thirty-two bits of length each."""
    address = guest.buffer(length=1024)
    for lengths in ([0xFFFFFFFF, 513], [0xFFFFFE00, 1024], [0x80000000, 0x80000000, 512]):
        body = [sgl(SGL_DATA, address, length) for length in lengths]
        expect(write(guest, 1, segment(guest, *body)), *BAD_OF_ANY_KIND)
        expect(read(guest, 1, segment(guest, *body)), *BAD_OF_ANY_KIND)
    guest.assert_works()


@pytest.mark.parametrize("offset", [1, 2, 4, 8, 15])
def test_n07_segment_at_an_odd_place_is_read_or_refused(guest, offset):
    body = sgl(SGL_DATA, guest.buffer(length=512), 512)
    expect(read(guest, 1, sgl(SGL_LAST, guest.buffer(body, offset=offset), 16)), spec.OK, *BAD_OF_ANY_KIND)
    guest.assert_works()


def test_n07_admin_commands_take_no_lists(guest):
    """3.3.3.1, PSDT: on PCIe admin commands use PRPs."""
    address = guest.buffer(length=PAGE)
    for psdt in (spec.SGL, spec.SGL_METADATA, spec.PSDT_RESERVED):
        done = guest.admin(spec.IDENTIFY, psdt=psdt, dptr=sgl(SGL_DATA, address, PAGE), cdw10=spec.CNS_CONTROLLER)
        expect(done, spec.INVALID_FIELD)
    assert guest.space.read(address, PAGE) == b"\xA5" * PAGE


@pytest.mark.parametrize("seed", range(6))
def test_n07_random_lists_end_with_a_status(guest, seed):
    """Two hundred commands whose descriptors are thrown together."""
    dice = random.Random(seed)
    data = guest.buffer(length=16 * PAGE)
    lists = [guest.allocate(512, 16) for _ in range(4)]

    def descriptor():
        kind = dice.choice([SGL_DATA] * 6 + [SGL_SEGMENT, SGL_LAST, SGL_BUCKET, dice.randrange(16)])
        if kind in (SGL_SEGMENT, SGL_LAST):
            return sgl(kind, dice.choice(lists), dice.choice([16, 32, 128, 512, dice.randrange(600)]))
        length = dice.choice([0, 4, 512, 512, 512, 4096, dice.getrandbits(32)])
        return sgl(kind, dice.choice([data + 4 * dice.randrange(PAGE)] * 8 + [OUTSIDE, dice.getrandbits(64)]), length,
                   subtype=dice.choice([0] * 15 + [1]))
    for _ in range(200):
        for address in lists:
            guest.space.write(address, b"".join(descriptor() for _ in range(32)))
        done = dice.choice([read, write])(guest, dice.choice([1, 2, 8, 100]), descriptor())
        expect(done, spec.OK, *BAD_OF_ANY_KIND)
    guest.assert_works()
