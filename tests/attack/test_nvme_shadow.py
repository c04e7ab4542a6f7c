# SPDX-License-Identifier: BSD-3-Clause
"""Row N11: shadow doorbells (base specification 2.0, 5.8 and annex B.5), good and bad."""

import os
import random

import pytest

from pylib import nvme_spec as spec
from pylib import wire
from pylib.memory import PAGE
from pylib.nvme import expect

BAD = (spec.INVALID_FIELD, spec.PRP_OFFSET_INVALID, spec.DATA_TRANSFER_ERROR)


@pytest.fixture
def shadow(nvme_server):
    """A guest whose I/O queues are made, as Linux does it, after the buffers were named."""
    nvme = nvme_server.guest(queues=0, vectors=9)
    expect(nvme.set_feature(spec.F_QUEUES, 7 | 7 << 16), spec.OK)
    nvme.use_shadow_doorbells()
    for qid in range(1, 5):
        nvme.make_queue_pair(qid, 16, vector=qid)
    return nvme


def settle(nvme, sqid):
    """Goes round the queue several times by whatever the event index asks for."""
    for _ in range(100):
        data = os.urandom(512)
        nvme.write(sqid, data, sqid=sqid)
        assert nvme.read(sqid, 1, sqid=sqid) == data


def test_identify_offers_them(nvme):
    assert nvme.controller().oacs & spec.OACS_DBBUF


def test_withheld_they_are_not_offered_and_refused(serve):
    """--shadow-doorbells=off."""
    guest = serve("ram:16M", "--shadow-doorbells=off", device="nvme").guest()
    assert not guest.controller().oacs & spec.OACS_DBBUF
    shadow, events = guest.space.alloc(PAGE, PAGE), guest.space.alloc(PAGE, PAGE)
    expect(guest.admin(spec.DBBUF, prp1=shadow, prp2=events), spec.INVALID_OPCODE)
    settle(guest, 1)


def test_queues_go_round_by_shadow_doorbells(shadow):
    for sqid in range(1, 5):
        settle(shadow, sqid)


def test_queues_that_were_there_before_go_on_by_shadow_doorbells(nvme):
    nvme.assert_works()
    nvme.use_shadow_doorbells()
    settle(nvme, 1)


def test_the_event_index_saves_doorbells_while_the_device_looks_by_itself(shadow):
    """B.5: under load most doorbells are never written; and none that is needed is lost, or this would not end."""
    before, count = shadow.rung, 0
    for _ in range(200):
        for _ in range(15):
            shadow.put(1, spec.FLUSH, nsid=1)
            shadow.kick(1)
            count += 1
        assert all(done.status == spec.OK for done in shadow.finish_all())
    print(f"{shadow.rung - before} doorbells for {count} commands")


def test_doorbell_that_is_written_all_the_same_does_no_harm(shadow):
    """A host that has not heard of the event index."""
    for _ in range(100):
        cid = shadow.put(1, spec.FLUSH, nsid=1)
        at = shadow.doorbell_offset(1, False)
        shadow.space.put_u32(shadow.shadow + at, shadow.sqs[1].tail)
        shadow.set(spec.DOORBELLS + at, shadow.sqs[1].tail)
        shadow.finish(1, cid)


def test_admin_queue_has_no_shadow(shadow):
    """B.5 leaves the admin queue's doorbells as they are; Linux writes them always."""
    for _ in range(100):
        shadow.controller()


def test_full_completion_queue_and_shadow_doorbells_lose_nothing(shadow):
    expect(shadow.create_cq(5, 3, vector=5), spec.OK)
    expect(shadow.create_sq(5, 64), spec.OK)
    for _ in range(10):
        for _ in range(50):
            shadow.put(5, spec.FLUSH, nsid=1)
        shadow.kick(5)
        assert len(shadow.finish_all()) == 50


def test_queue_that_is_deleted_and_made_again_begins_at_zero(shadow):
    for _ in range(5):
        settle(shadow, 1)
        expect(shadow.delete_sq(1), spec.OK)
        expect(shadow.delete_cq(1), spec.OK)
        for completion in (False, True):
            shadow.space.put_u32(shadow.shadow + shadow.doorbell_offset(1, completion), 0)
            shadow.space.put_u32(shadow.event_index + shadow.doorbell_offset(1, completion), 0)
        shadow.make_queue_pair(1, 16, vector=1)


def test_a_reset_ends_them(shadow):
    """5.8: until the next reset."""
    settle(shadow, 1)
    old = shadow.shadow
    shadow.disable()
    shadow.bring_up()
    shadow.make_queue_pair(1)
    shadow.space.fill(old, 2 * PAGE, 0xFF)
    settle(shadow, 1)


def test_n11_values_out_of_range_in_the_shadow_are_ignored_or_break_the_controller_alone(shadow):
    dice = random.Random(11)
    for _ in range(200):
        qid, completion = dice.randrange(0, 9), dice.random() < 0.5
        shadow.space.put_u32(shadow.shadow + shadow.doorbell_offset(qid, completion), dice.choice([16, 17, 0xFFFF, 0xFFFFFFFF, 1 << 31]))
        shadow.set(spec.DOORBELLS + shadow.doorbell_offset(1, False), shadow.sqs[1].tail)
    shadow.client.fence()
    shadow.disable()
    shadow.bring_up()
    shadow.make_queue_pair(1)
    shadow.assert_works()


def test_n11_event_index_that_the_host_writes_is_not_believed(shadow):
    """The device writes it and reads it never back: a doorbell that was rung is served whatever stands there."""
    dice = random.Random(12)
    for _ in range(100):
        shadow.space.put_u32(shadow.event_index + shadow.doorbell_offset(1, False), dice.getrandbits(32))
        shadow.space.put_u32(shadow.event_index + shadow.doorbell_offset(1, True), dice.getrandbits(32))
        cid = shadow.put(1, spec.FLUSH, nsid=1)
        at = shadow.doorbell_offset(1, False)
        shadow.space.put_u32(shadow.shadow + at, shadow.sqs[1].tail)
        shadow.set(spec.DOORBELLS + at, shadow.sqs[1].tail)
        shadow.finish(1, cid)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("offset", [1, 4, 8, 512, 4095])
def test_n11_buffer_that_does_not_begin_with_a_page_is_refused(nvme, which, offset):
    pages = [nvme.allocate(PAGE), nvme.allocate(PAGE)]
    pages[which] += offset
    expect(nvme.admin(spec.DBBUF, prp1=pages[0], prp2=pages[1]), *BAD)
    nvme.assert_works()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("address", [0, 0x7000_0000, wire.U64_MAX - 0xFFF, 1 << 63])
def test_n11_buffer_in_no_memory_is_refused(nvme, which, address):
    pages = [nvme.allocate(PAGE), nvme.allocate(PAGE)]
    pages[which] = address
    expect(nvme.admin(spec.DBBUF, prp1=pages[0], prp2=pages[1]), *BAD)
    nvme.assert_works()


def test_n11_one_page_for_both_is_refused(nvme):
    page = nvme.allocate(PAGE)
    expect(nvme.admin(spec.DBBUF, prp1=page, prp2=page), *BAD)
    nvme.assert_works()


@pytest.mark.parametrize("qid", [0, 1])
@pytest.mark.parametrize("which", ["submissions", "completions"])
def test_n11_buffer_inside_a_queue_is_refused(nvme, qid, which):
    queue = nvme.sqs[qid] if which == "submissions" else nvme.cqs[qid]
    page = nvme.allocate(PAGE)
    expect(nvme.admin(spec.DBBUF, prp1=queue.address, prp2=page), *BAD)
    expect(nvme.admin(spec.DBBUF, prp1=page, prp2=queue.address), *BAD)
    nvme.assert_works()


def test_n11_queue_over_the_buffers_is_refused(nvme):
    nvme.use_shadow_doorbells()
    for page in (nvme.shadow, nvme.event_index):
        expect(nvme.create_cq(2, 16, address=page), *BAD, spec.QID_INVALID)
    nvme.assert_works()


def test_n11_buffers_in_memory_that_is_not_seen_are_refused(nvme_server):
    """What is reached by messages is no place to look at all the time."""
    nvme = nvme_server.guest(remote=True)
    expect(nvme.admin(spec.DBBUF, prp1=nvme.allocate(PAGE), prp2=nvme.allocate(PAGE)), *BAD, spec.INVALID_OPCODE)
    nvme.assert_works()


def test_n11_buffers_in_read_only_memory_are_refused_or_break_the_controller_alone(nvme):
    window = nvme.add_memory(0x5000_0000, 2 * PAGE, flags=wire.MAP_READ)
    done = nvme.admin(spec.DBBUF, prp1=window.iova, prp2=window.iova + PAGE)
    if done.status == spec.OK:
        nvme.put(1, spec.FLUSH, nsid=1)
        nvme.kick(1)
        nvme.until(lambda: nvme.fatal, 0.1)
        nvme.recover()
        return
    expect(done, *BAD)
    nvme.assert_works()


def test_n11_buffers_that_are_named_twice_are_those_that_were_named_last(nvme):
    nvme.use_shadow_doorbells()
    settle(nvme, 1)
    old = nvme.shadow, nvme.event_index
    nvme.doorbells = "message"
    nvme.use_shadow_doorbells()
    for page in old:
        nvme.space.fill(page, PAGE, 0xFF)
    settle(nvme, 1)


def test_n11_buffers_that_are_unmapped_and_come_back(nvme):
    """SeaBIOS's unmapping under live queues reaches them too."""
    window = nvme.add_memory(0x5000_0000, 2 * PAGE)
    expect(nvme.admin(spec.DBBUF, prp1=window.iova, prp2=window.iova + PAGE), spec.OK)
    nvme.client.dma_unmap(window.iova, window.size)
    nvme.client.fence()
    nvme.client.dma_map(window.iova, window.size, fd=window.memory.fd)
    nvme.shadow, nvme.event_index, nvme.doorbells = window.iova, window.iova + PAGE, "shadow"
    nvme.space.put_u32(nvme.shadow + nvme.doorbell_offset(1, False), nvme.sqs[1].tail)
    nvme.space.put_u32(nvme.shadow + nvme.doorbell_offset(1, True), nvme.cqs[1].head)
    nvme.until(lambda: nvme.fatal, 0.05)
    if nvme.fatal:
        nvme.recover()
    else:
        settle(nvme, 1)


def test_n11_buffers_that_are_taken_away_for_good_hurt_nobody(nvme):
    window = nvme.add_memory(0x5000_0000, 2 * PAGE)
    expect(nvme.admin(spec.DBBUF, prp1=window.iova, prp2=window.iova + PAGE), spec.OK)
    nvme.remove_memory(window)
    nvme.put(1, spec.FLUSH, nsid=1)
    nvme.kick(1)
    nvme.until(lambda: nvme.fatal, 0.1)
    nvme.recover()
