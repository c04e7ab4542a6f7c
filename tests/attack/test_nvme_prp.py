# SPDX-License-Identifier: BSD-3-Clause
"""Row N6: physical region pages, good and bad (base specification 2.0, 4.1.1), and what of row D is about data: 4.1.1 says where, and
the status says when there is no memory."""

import os
import random
import struct

import pytest

from pylib import nvme_spec as spec
from pylib import wire
from pylib.memory import PAGE, GuestMemory
from pylib.nvme import expect
from pylib.pci_guest import BASE

OUTSIDE = 0x7000_0000
BAD_MEMORY = (spec.DATA_TRANSFER_ERROR, spec.INVALID_FIELD)
BAD_OFFSET = (spec.PRP_OFFSET_INVALID, spec.INVALID_FIELD)


@pytest.fixture(params=[False, True], ids=["shared", "remote"])
def guest(nvme_server, request):
    """With memory that the server sees, and with memory that it asks for."""
    return nvme_server.guest(remote=request.param)


def read(nvme, blocks, prp1, prp2=0, slba=0):
    return nvme.run(1, spec.READ, nsid=1, prp1=prp1, prp2=prp2, **spec.rw_words(slba, blocks))


def write(nvme, blocks, prp1, prp2=0, slba=0):
    return nvme.run(1, spec.WRITE, nsid=1, prp1=prp1, prp2=prp2, **spec.rw_words(slba, blocks))


# --- good ones ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("blocks", [1, 7, 8, 9, 15, 16, 17, 24, 128, 1024, 2048])
@pytest.mark.parametrize("offset", [0, 4, 512, 2048, 4092])
def test_every_length_at_every_offset_moves_the_exact_bytes(guest, blocks, offset):
    data = os.urandom(blocks * 512)
    mark = guest.space.mark()
    guest.write(3, data, offset=offset)
    guest.space.release(mark)
    around = guest.buffer(length=len(data) + 3 * PAGE)
    address = around + PAGE + offset
    prp1, prp2 = guest.prps(address, len(data))
    expect(read(guest, blocks, prp1, prp2, slba=3), spec.OK)
    assert guest.space.read(around, PAGE + offset) == b"\xA5" * (PAGE + offset)
    assert guest.space.read(address, len(data)) == data
    assert guest.space.read(address + len(data), 64) == b"\xA5" * 64


@pytest.mark.parametrize("list_offset", [0, 8, 2048, 4096 - 16, 4096 - 8])
def test_list_that_begins_anywhere_in_its_page_goes_on_in_another(guest, list_offset):
    """4.1.1: a list's last entry in its page points to the next where more are needed."""
    data = os.urandom(256 * 512)
    mark = guest.space.mark()
    guest.write(0, data)
    guest.space.release(mark)
    address = guest.buffer(length=len(data))
    prp1, prp2 = guest.prps(address, len(data), list_offset=list_offset)
    if list_offset == 4096 - 8 and len(data) > 2 * PAGE:
        assert guest.space.u64(prp2) % PAGE == 0
    expect(read(guest, 256, prp1, prp2), spec.OK)
    assert guest.space.read(address, len(data)) == data


def test_pages_in_any_order_and_the_same_page_twice(guest):
    dice = random.Random(1)
    pages = [guest.buffer(os.urandom(PAGE)) for _ in range(32)]
    dice.shuffle(pages)
    order = [pages[0], *pages, pages[5]]
    expect(write(guest, 34 * 8, order[0], guest.prp_list(order[1:])), spec.OK)
    assert guest.read(0, 34 * 8) == b"".join(guest.space.read(page, PAGE) for page in order)


def test_second_pointer_means_nothing_where_one_page_is_enough(guest):
    """4.1.1: reserved then; whatever stands there."""
    address = guest.buffer(length=512)
    expect(read(guest, 1, address, OUTSIDE + 3), spec.OK)


# --- N6 -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("offset", [1, 2, 3, 511])
def test_n06_first_pointer_that_is_no_multiple_of_four_is_refused(guest, offset):
    """4.1.1: bits 1:0 are zero, or PRP Offset Invalid."""
    address = guest.buffer(length=PAGE)
    expect(read(guest, 1, address + offset), *BAD_OFFSET)
    assert guest.space.read(address, PAGE) == b"\xA5" * PAGE
    guest.assert_works()


@pytest.mark.parametrize("offset", [1, 4, 8, 512, 4095])
def test_n06_second_page_with_an_offset_is_refused(guest, offset):
    address = guest.buffer(length=3 * PAGE)
    expect(read(guest, 16, address, address + PAGE + offset), *BAD_OFFSET)
    guest.assert_works()


@pytest.mark.parametrize("where", [0, 1, 14])
@pytest.mark.parametrize("offset", [1, 4, 8, 512, 4095])
def test_n06_page_of_a_list_with_an_offset_is_refused(guest, where, offset):
    pages = [guest.buffer(length=PAGE) for _ in range(15)]
    pages[where] += offset
    expect(read(guest, 16 * 8, guest.buffer(length=PAGE), guest.prp_list(pages)), *BAD_OFFSET)
    guest.assert_works()


@pytest.mark.parametrize("offset", [1, 2, 4, 7])
def test_n06_list_that_is_no_multiple_of_eight_is_refused(guest, offset):
    pages = guest.prp_list([guest.buffer(length=PAGE) for _ in range(3)])
    expect(read(guest, 32, guest.buffer(length=PAGE), pages + offset), *BAD_OFFSET)
    guest.assert_works()


def test_n06_second_pointer_of_zero_fails_where_there_is_no_memory_at_zero(guest):
    for blocks in (16, 32, 256):
        expect(read(guest, blocks, guest.buffer(length=PAGE), 0), *BAD_MEMORY)
    guest.assert_works()


def test_n06_first_pointer_of_zero_fails_where_there_is_no_memory_at_zero(guest):
    expect(read(guest, 1, 0), *BAD_MEMORY)
    expect(write(guest, 8, 0), *BAD_MEMORY)
    guest.assert_works()


@pytest.mark.parametrize("where", [0, 1, 14])
@pytest.mark.parametrize("entry", [0, OUTSIDE, wire.U64_MAX - 0xFFF, 1 << 63])
def test_n06_list_with_a_page_that_is_no_memory_fails(guest, where, entry):
    pages = [guest.buffer(length=PAGE) for _ in range(15)]
    pages[where] = entry
    expect(read(guest, 16 * 8, guest.buffer(length=PAGE), guest.prp_list(pages)), *BAD_MEMORY)
    expect(write(guest, 16 * 8, guest.buffer(length=PAGE), guest.prp_list(pages)), *BAD_MEMORY)
    guest.assert_works()


@pytest.mark.parametrize("address", [OUTSIDE, wire.U64_MAX - 0xFFF, BASE - PAGE])
def test_n06_list_that_lies_in_no_memory_fails(guest, address):
    expect(read(guest, 32, guest.buffer(length=PAGE), address), *BAD_MEMORY)
    guest.assert_works()


def test_n06_list_that_points_to_itself_ends_in_a_bounded_time(guest):
    """Its only entry, the last of its page, is a pointer to the same entry."""
    address = guest.allocate(PAGE) + PAGE - 8
    guest.space.put_u64(address, address)
    expect(read(guest, 2048, guest.buffer(length=PAGE), address), *BAD_OFFSET, spec.DATA_TRANSFER_ERROR)
    guest.assert_works()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_n06_lists_in_a_cycle_of_nothing_but_pointers_end_in_a_bounded_time(guest, length):
    lists = [guest.allocate(PAGE) + PAGE - 8 for _ in range(length)]
    for here, there in zip(lists, lists[1:] + lists[:1]):
        guest.space.put_u64(here, there)
    expect(read(guest, 2048, guest.buffer(length=PAGE), lists[0]), *BAD_OFFSET, spec.DATA_TRANSFER_ERROR)
    guest.assert_works()


def test_n06_list_whose_pointer_leads_back_to_its_own_page_is_read_as_often_as_the_length_says(guest):
    """Entries from 508 on, then the same page from its start: 256 pages are wanted, so that it ends."""
    page = guest.allocate(PAGE)
    target = guest.buffer(length=PAGE)
    guest.space.write(page, struct.pack("<512Q", *[target] * 512))
    guest.space.put_u64(page + PAGE - 8, page)
    done = read(guest, 2048, target, page + PAGE - 32)
    expect(done, spec.OK, *BAD_OFFSET)
    guest.assert_works()


def test_n06_pointer_to_the_next_list_that_is_no_memory_fails(guest):
    pages = guest.prp_list([guest.buffer(length=PAGE) for _ in range(3)], offset=PAGE - 16)
    guest.space.put_u64((pages | 0xFFF) - 7, OUTSIDE)
    expect(read(guest, 32, guest.buffer(length=PAGE), pages), *BAD_MEMORY)
    guest.assert_works()


def test_n06_data_that_run_past_the_end_of_memory_fail_and_touch_nothing_behind(guest):
    window = guest.add_memory(0x5000_0000, PAGE, remote=bool(guest.dma))
    expect(read(guest, 8, window.iova + 512), *BAD_MEMORY)
    expect(read(guest, 16, window.iova, window.iova + PAGE), *BAD_MEMORY)
    expect(read(guest, 8, window.iova), spec.OK)
    guest.assert_works()


@pytest.mark.parametrize("seed", range(6))
def test_n06_random_pointers_end_with_a_status(guest, seed):
    """Two hundred commands whose pointers and lists are made of good and bad addresses."""
    dice = random.Random(seed)
    pages = [guest.buffer(length=PAGE) for _ in range(64)]
    slots = [guest.allocate(PAGE) for _ in range(4)]

    def pointer():
        return dice.choice([dice.choice(pages), dice.choice(pages) + dice.randrange(PAGE), dice.choice(slots) + 8 * dice.randrange(512),
                            0, OUTSIDE, dice.getrandbits(64)])
    for _ in range(200):
        for slot in slots:
            guest.space.write(slot, b"".join(struct.pack("<Q", pointer() if dice.random() < 0.05 else dice.choice(pages))
                                             for _ in range(512)))
        done = dice.choice([read, write])(guest, dice.choice([1, 8, 9, 16, 17, 100, 2048]), pointer(), pointer())
        expect(done, spec.OK, *BAD_OFFSET, *BAD_MEMORY)
    guest.assert_works()


# --- D3 to D8 with this card --------------------------------------------------------------------------------------

def test_d03_page_that_lies_in_two_regions_is_split_between_their_files(nvme):
    low = nvme.add_memory(0x5000_0000, PAGE)
    high = nvme.add_memory(0x5000_1000, PAGE)
    nvme.write(0, b"\x11" * 512 + b"\x22" * 512)
    expect(read(nvme, 2, low.iova + PAGE - 512, high.iova), spec.OK)
    assert low.memory.read(PAGE - 512, 512) == b"\x11" * 512 and high.memory.read(0, 512) == b"\x22" * 512


def test_d05_read_into_a_read_only_region_fails_and_writes_nothing(nvme):
    window = nvme.add_memory(0x5000_0000, PAGE, flags=wire.MAP_READ)
    expect(read(nvme, 1, window.iova), *BAD_MEMORY)
    assert window.memory.read(0, 512) == bytes(512)
    expect(write(nvme, 1, window.iova), spec.OK)
    nvme.assert_works()


def test_d05_write_from_a_region_that_may_only_be_written_fails(nvme):
    window = nvme.add_memory(0x5000_0000, PAGE, flags=wire.MAP_WRITE)
    expect(write(nvme, 1, window.iova), *BAD_MEMORY)
    expect(read(nvme, 1, window.iova), spec.OK)
    nvme.assert_works()


@pytest.mark.parametrize("which", ["submissions", "completions"])
def test_d05_queue_in_memory_that_may_not_be_used_so_is_fatal(nvme_server, which):
    nvme = nvme_server.guest(queues=0)
    window = nvme.add_memory(0x5000_0000, 2 * PAGE, flags=wire.MAP_READ if which == "completions" else wire.MAP_WRITE)
    done = nvme.create_cq(1, 16, **({"address": window.iova} if which == "completions" else {}))
    if done.status == spec.OK:
        done = nvme.create_sq(1, 16, **({"address": window.iova} if which == "submissions" else {}))
    if done.status == spec.OK:
        nvme.put(1, spec.FLUSH, nsid=1)
        nvme.kick(1)
        nvme.assert_fatal()
    nvme.disable()
    nvme.bring_up()
    nvme.make_queue_pair(1)
    nvme.assert_works()


def test_d06_live_queues_survive_an_unmap_and_a_map_of_the_memory_they_lie_in(nvme):
    """SeaBIOS lets QEMU do so at the end of its POST. Addresses are resolved again."""
    nvme.write(7, b"\x77" * 512)
    window = nvme.space.find(BASE)
    for _ in range(5):
        nvme.client.dma_unmap(window.iova, window.size)
        nvme.client.dma_map(window.iova, window.size, fd=window.memory.fd)
        assert not nvme.fatal
        assert nvme.read(7, 1) == b"\x77" * 512
        nvme.controller()


def test_d06_live_queues_survive_memory_that_comes_back_in_pieces_and_another_file(nvme):
    window = nvme.space.find(BASE)
    content = window.memory.read(0, window.size)
    nvme.client.dma_unmap(window.iova, window.size)
    nvme.space.remove(window)
    half = window.size // 2
    for start in (0, half):
        memory = GuestMemory(half)
        nvme.memories.append(memory)
        memory.write(0, content[start:start + half])
        nvme.add_memory(BASE + start, half, memory=memory)
    nvme.assert_works()
    nvme.controller()


def test_d06_doorbell_while_the_queues_are_unmapped_crashes_nobody(nvme):
    """The queues are lost then, or go on when memory is back."""
    window = nvme.space.find(BASE)
    nvme.put(1, spec.FLUSH, nsid=1)
    tail = nvme.sqs[1].tail
    nvme.client.dma_unmap(window.iova, window.size)
    nvme.ring(1, tail)
    nvme.client.fence()
    nvme.until(lambda: nvme.fatal, 0.2)
    nvme.client.dma_map(window.iova, window.size, fd=window.memory.fd)
    nvme.client.fence()
    nvme.recover()


def test_d08_translation_is_not_used_after_its_region_changed(nvme):
    nvme.write(0, b"\x42" * 512)
    first = nvme.add_memory(0x5000_0000, PAGE)
    expect(read(nvme, 1, first.iova), spec.OK)
    nvme.remove_memory(first)
    first.memory.write(0, bytes(512))
    second = nvme.add_memory(0x5000_0000, PAGE)
    expect(read(nvme, 1, second.iova), spec.OK)
    assert first.memory.read(0, 512) == bytes(512) and second.memory.read(0, 512) == b"\x42" * 512
    nvme.remove_memory(second)
    expect(read(nvme, 1, second.iova), *BAD_MEMORY)
