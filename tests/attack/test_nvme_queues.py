# SPDX-License-Identifier: BSD-3-Clause
"""Rows N1 to N5: NVMe's queues, made and deleted in every wrong way, and doorbells with every wrong value. Sections are those of the
base specification 2.0."""

import random
import struct

import pytest

from pylib import nvme_spec as spec
from pylib import wire
from pylib.events import PATIENCE
from pylib.nvme import expect
from pylib.wire import Cmd

QUEUES = 8  # of the shared server


@pytest.fixture
def bare(nvme_server):
    """A guest with admin queues and eight I/O queues to be made."""
    nvme = nvme_server.guest(queues=0, vectors=QUEUES + 1)
    expect(nvme.set_feature(spec.F_QUEUES, QUEUES - 1 | (QUEUES - 1) << 16), spec.OK)
    return nvme


# --- N1: identifiers and order ------------------------------------------------------------------------------------

@pytest.mark.parametrize("qid", [0, QUEUES + 1, 0x100, 0x7FFF, 0xFFFF])
def test_n01_completion_queue_of_an_identifier_that_is_not_there_is_refused(bare, qid):
    """5.4: Invalid Queue Identifier."""
    expect(bare.create_cq(qid, 16), spec.QID_INVALID)
    bare.make_queue_pair(1)
    bare.assert_works()


@pytest.mark.parametrize("qid", [0, QUEUES + 1, 0x100, 0x7FFF, 0xFFFF])
def test_n01_submission_queue_of_an_identifier_that_is_not_there_is_refused(bare, qid):
    """5.5: Invalid Queue Identifier."""
    expect(bare.create_cq(1, 16), spec.OK)
    expect(bare.create_sq(qid, 16, cqid=1), spec.QID_INVALID)
    expect(bare.create_sq(1, 16), spec.OK)
    bare.assert_works()


def test_n01_queue_that_is_there_already_is_not_made_again(nvme):
    """5.4, 5.5: Invalid Queue Identifier; the first goes on."""
    cq, sq = nvme.cqs[1], nvme.sqs[1]
    expect(nvme.create_cq(1, 32), spec.QID_INVALID)
    expect(nvme.create_sq(1, 32), spec.QID_INVALID)
    assert nvme.cqs[1] is cq and nvme.sqs[1] is sq
    nvme.assert_works()


@pytest.mark.parametrize("cqid, status", [(2, spec.CQ_INVALID), (QUEUES, spec.CQ_INVALID), (0, spec.QID_INVALID),
                                          (QUEUES + 1, spec.QID_INVALID), (0xFFFF, spec.QID_INVALID)])
def test_n01_submission_queue_of_a_completion_queue_that_is_not_there_is_refused(nvme, cqid, status):
    """5.5, CQID: zero and beyond the range are invalid identifiers, what is not created an invalid completion queue."""
    nvme.cqs.setdefault(cqid, None)
    done = nvme.admin(spec.CREATE_SQ, prp1=nvme.allocate(4096), cdw10=3 | 15 << 16, cdw11=1 | cqid << 16)
    nvme.cqs = {qid: cq for qid, cq in nvme.cqs.items() if cq}
    expect(done, status)
    nvme.assert_works()


def test_n01_completion_queue_with_a_submission_queue_is_not_deleted(nvme):
    """5.6: Invalid Queue Deletion; once the submission queue is gone it works."""
    expect(nvme.delete_cq(1), spec.INVALID_QUEUE_DELETION)
    nvme.assert_works()
    expect(nvme.delete_sq(1), spec.OK)
    expect(nvme.delete_cq(1), spec.OK)
    nvme.make_queue_pair(1)
    nvme.assert_works()


@pytest.mark.parametrize("qid", [0, 2, QUEUES, QUEUES + 1, 0xFFFF])
def test_n01_queue_that_is_not_there_is_not_deleted(nvme, qid):
    """5.6, 5.7: Invalid Queue Identifier, also of the admin queues."""
    expect(nvme.delete_sq(qid), spec.QID_INVALID)
    expect(nvme.delete_cq(qid), spec.QID_INVALID)
    nvme.assert_works()


def test_n01_queue_is_deleted_once(nvme):
    expect(nvme.delete_sq(1), spec.OK)
    expect(nvme.delete_sq(1), spec.QID_INVALID)
    expect(nvme.delete_cq(1), spec.OK)
    expect(nvme.delete_cq(1), spec.QID_INVALID)


def test_n01_thousand_queues_one_after_the_other(bare, nvme_server):
    """Nothing is left of what was deleted."""
    addresses = [bare.allocate(4096) for _ in range(2)]
    before = None
    for turn in range(1000):
        expect(bare.create_cq(1 + turn % QUEUES, 16, address=addresses[0]), spec.OK)
        expect(bare.create_sq(1 + turn % QUEUES, 16, address=addresses[1]), spec.OK)
        expect(bare.delete_sq(1 + turn % QUEUES), spec.OK)
        expect(bare.delete_cq(1 + turn % QUEUES), spec.OK)
        bare.space.fill(addresses[0], 4096, 0)
        if turn == 100:
            before = nvme_server.resident_bytes()
    nvme_server.assert_grew_less(before, 4 << 20)


def test_n01_number_of_queues_is_settled_before_the_first_is_made(nvme):
    """5.27.1.5: Command Sequence Error afterwards; FFFFh is no number."""
    expect(nvme.set_feature(spec.F_QUEUES, 3 | 3 << 16), spec.SEQUENCE_ERROR)
    done = expect(nvme.get_feature(spec.F_QUEUES), spec.OK)
    assert 0 <= done.result & 0xFFFF < QUEUES and 0 <= done.result >> 16 < QUEUES


@pytest.mark.parametrize("value", [0xFFFF, 0xFFFF << 16, 0xFFFFFFFF])
def test_n01_number_of_queues_of_all_ones_is_refused(nvme_server, value):
    """5.27.1.5: Invalid Field in Command."""
    nvme = nvme_server.guest(queues=0)
    expect(nvme.set_feature(spec.F_QUEUES, value), spec.INVALID_FIELD)


def test_n01_no_more_queues_are_given_than_there_are(nvme_server):
    nvme = nvme_server.guest(queues=0)
    done = expect(nvme.set_feature(spec.F_QUEUES, 0xFFFE | 0xFFFE << 16), spec.OK)
    assert done.result == QUEUES - 1 | (QUEUES - 1) << 16
    assert expect(nvme.get_feature(spec.F_QUEUES), spec.OK).result == done.result


@pytest.mark.parametrize("vector", [QUEUES + 1, 0x7FF, 0xFFFF])
def test_n01_interrupt_vector_that_is_not_there_is_refused(bare, vector):
    """5.4: Invalid Interrupt Vector."""
    count = bare.pci.msix()[0]
    if vector < count:
        vector = count
    expect(bare.create_cq(1, 16, vector=vector), spec.VECTOR_INVALID)
    expect(bare.create_cq(1, 16, vector=count - 1), spec.OK)


@pytest.mark.parametrize("offset", [4, 0x10, 0x800, 0xFFC])
def test_n01_queue_that_does_not_begin_with_a_page_is_refused(bare, offset):
    """5.4, 5.5, PRP 1: the offset shall be zero."""
    address = bare.allocate(8192) + offset
    expect(bare.create_cq(1, 16, address=address), spec.PRP_OFFSET_INVALID, spec.INVALID_FIELD)
    expect(bare.create_cq(1, 16), spec.OK)
    expect(bare.create_sq(1, 16, address=address), spec.PRP_OFFSET_INVALID, spec.INVALID_FIELD)


def test_n01_queue_that_is_not_contiguous_is_refused(bare):
    """CAP.CQR: queues shall be contiguous, or the field is invalid (5.4, 5.5, PC)."""
    expect(bare.create_cq(1, 16, flags=2), spec.INVALID_FIELD)
    expect(bare.create_cq(1, 16), spec.OK)
    expect(bare.create_sq(1, 16, flags=0), spec.INVALID_FIELD)


@pytest.mark.parametrize("address", [0, 0x7000_0000, wire.U64_MAX - 0xFFF])
def test_n01_queue_where_no_memory_is_is_refused_or_fatal_when_it_is_used(bare, address):
    done = bare.create_cq(1, 16, address=address)
    if done.status == spec.OK:
        bare.cqs[1].address = bare.allocate(4096)  # where the test may look
        expect(bare.create_sq(1, 16), spec.OK)
        bare.issue(1, spec.FLUSH, nsid=1)
        bare.assert_fatal()
    bare.disable()
    bare.bring_up()
    expect(bare.create_cq(1, 16), spec.OK)
    done = bare.create_sq(1, 16, address=address)
    if done.status == spec.OK:
        bare.ring(1, 1)
        bare.assert_fatal()


# --- N2: sizes ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [1, 1025, 2048, 0x10000])
def test_n02_queue_of_a_size_out_of_range_is_refused(bare, size):
    """5.4, 5.5: Invalid Queue Size: one entry, or more than CAP.MQES."""
    assert bare.capabilities.entries == 1024
    address = bare.allocate(4096)
    expect(bare.create_cq(1, size, address=address), spec.QUEUE_SIZE_INVALID)
    expect(bare.create_cq(1, 16), spec.OK)
    expect(bare.create_sq(1, size, address=address), spec.QUEUE_SIZE_INVALID)
    expect(bare.create_sq(1, 16), spec.OK)
    bare.assert_works()


@pytest.mark.parametrize("sq_size, cq_size", [(2, 2), (2, 1024), (1024, 2), (3, 5), (7, 3), (1023, 1024), (1024, 1024)])
def test_n02_queues_of_every_other_size_go_round(bare, sq_size, cq_size):
    expect(bare.create_cq(1, cq_size), spec.OK)
    expect(bare.create_sq(1, sq_size), spec.OK)
    for _ in range(2 * max(sq_size, cq_size) + 3 if max(sq_size, cq_size) < 100 else 3):
        bare.assert_works()
    if max(sq_size, cq_size) >= 100:
        count = min(sq_size, cq_size) - 1
        for _ in range(2 * max(sq_size, cq_size) // count + 1 if count > 100 else 30):
            for _ in range(count):
                bare.put(1, spec.FLUSH, nsid=1)
            bare.kick(1)
            assert all(done.status == spec.OK for done in bare.finish_all())


# --- N3: commands are copied --------------------------------------------------------------------------------------

def test_n03_command_is_fetched_once_and_what_happens_to_its_entry_after_that_is_nothing(nvme_server):
    """The entry is remote memory: each look at it is a message."""
    nvme = nvme_server.guest(remote=True, memory=4 << 20)
    nvme.write(5, b"\x5A" * 512)
    address = nvme.buffer(length=512)
    slot = nvme.sqs[1].slot(nvme.sqs[1].tail)
    nvme.dma.reads.clear()
    nvme.dma.hold = lambda cmd, addr, count: cmd == Cmd.DMA_WRITE and addr == address
    cid = nvme.put_io(spec.READ, 5, 1, address)
    nvme.kick(1)
    assert nvme.until(lambda: nvme.dma.held), "the data was never written"
    nvme.space.fill(slot, 64, 0xFF)
    nvme.dma.release()
    expect(nvme.finish(1, cid), spec.OK)
    assert nvme.space.read(address, 512) == b"\x5A" * 512
    looked = [(at, count) for at, count in nvme.dma.reads if at < slot + 64 and at + count > slot]
    assert len(looked) == 1, f"the entry was read {len(looked)} times: {looked}"


@pytest.mark.parametrize("seed", range(3))
def test_n03_entry_that_changes_all_the_time_is_one_command_or_the_other(nvme, seed):
    """A thousand reads whose block number is exchanged right behind the doorbell: what comes is one of the two blocks, whole."""
    dice = random.Random(seed)
    nvme.write(10, b"\x10" * 512)
    nvme.write(1034, b"\x20" * 512)
    address = nvme.buffer(length=512)
    for _ in range(300):
        slot = nvme.sqs[1].slot(nvme.sqs[1].tail)
        cid = nvme.put_io(spec.READ, 10, 1, address)
        nvme.set(spec.DOORBELLS + nvme.doorbell_offset(1, False), nvme.sqs[1].tail, posted=True)
        for _ in range(dice.randrange(4)):
            nvme.space.put_u32(slot + 40, dice.choice([10, 1034]))
        done = nvme.finish(1, cid)
        expect(done, spec.OK)
        assert nvme.space.read(address, 512) in (b"\x10" * 512, b"\x20" * 512)


# --- N4: doorbells ------------------------------------------------------------------------------------------------

def event_of(nvme, request, timeout=PATIENCE):
    """Type, information and log page of an asynchronous event (figure 145)."""
    done = expect(nvme.finish(0, request, timeout), spec.OK)
    return done.result & 7, done.result >> 8 & 0xFF, done.result >> 16 & 0xFF


@pytest.mark.parametrize("qid, completion", [(2, False), (2, True), (QUEUES, False), (QUEUES, True), (QUEUES + 1, False), (500, True),
                                             (1535, True)])
def test_n04_doorbell_of_a_queue_that_is_not_there_is_an_event_and_ignored(nvme, qid, completion):
    """3.1.4, figure 146: Write to Invalid Doorbell Register, in the error log."""
    request = nvme.issue(0, spec.ASYNC_EVENT)
    nvme.ring(qid, 1, completion=completion)
    assert event_of(nvme, request) == (spec.EVENT_ERROR, spec.EVENT_BAD_DOORBELL, spec.LOG_ERROR)
    assert not nvme.fatal
    nvme.assert_works()


@pytest.mark.parametrize("qid", [0, 1])
@pytest.mark.parametrize("value", ["size", "size + 1", 0x8000, 0xFFFF])
@pytest.mark.parametrize("completion", [False, True])
def test_n04_doorbell_value_beyond_the_queue_is_an_event_and_ignored(nvme, qid, value, completion):
    """Figure 146: Invalid Doorbell Write Value."""
    queue = nvme.cqs[qid] if completion else nvme.sqs[qid]
    request = nvme.issue(0, spec.ASYNC_EVENT)
    nvme.client.fence()
    nvme.ring(qid, {"size": queue.size, "size + 1": queue.size + 1}.get(value, value), completion=completion)
    assert event_of(nvme, request) == (spec.EVENT_ERROR, spec.EVENT_BAD_DOORBELL_VALUE, spec.LOG_ERROR)
    assert not nvme.fatal
    nvme.assert_works()


def test_n04_completion_head_beyond_what_was_completed_is_an_event_and_ignored(nvme):
    """Figure 146: a head that passes the tail."""
    request = nvme.issue(0, spec.ASYNC_EVENT)
    nvme.assert_works()
    nvme.ring(1, nvme.cqs[1].head + 5, completion=True)
    assert event_of(nvme, request) == (spec.EVENT_ERROR, spec.EVENT_BAD_DOORBELL_VALUE, spec.LOG_ERROR)
    nvme.assert_works()


def test_n04_same_head_and_tail_again_are_no_news(nvme):
    nvme.assert_works()
    request = nvme.issue(0, spec.ASYNC_EVENT)
    for _ in range(10):
        nvme.ring(1, nvme.sqs[1].tail)
        nvme.ring(1, nvme.cqs[1].head, completion=True)
    assert nvme.nothing_comes(0, request)
    nvme.assert_works()


def test_n04_events_that_nobody_asked_for_wait_and_come_once_until_the_log_is_read(nvme):
    """5.2: an event is kept until a request is there; its kind is masked until the log page is read."""
    for _ in range(5):
        nvme.ring(2, 1)
    first = nvme.issue(0, spec.ASYNC_EVENT)
    assert event_of(nvme, first)[1] == spec.EVENT_BAD_DOORBELL
    second = nvme.issue(0, spec.ASYNC_EVENT)
    nvme.ring(2, 1)
    assert nvme.nothing_comes(0, second), "the kind is masked until its log page is read"
    expect(nvme.log(spec.LOG_ERROR, 64)[0], spec.OK)
    nvme.ring(2, 1)
    assert event_of(nvme, second)[1] == spec.EVENT_BAD_DOORBELL


def test_n04_reading_the_log_and_keeping_the_event_leaves_the_mask(nvme):
    """5.16, RAE: Retain Asynchronous Event."""
    nvme.ring(2, 1)
    event_of(nvme, nvme.issue(0, spec.ASYNC_EVENT))
    second = nvme.issue(0, spec.ASYNC_EVENT)
    expect(nvme.log(spec.LOG_ERROR, 64, rae=1)[0], spec.OK)
    nvme.ring(2, 1)
    assert nvme.nothing_comes(0, second)


def test_n04_million_bad_doorbells_cost_no_memory(nvme, nvme_server):
    before = nvme_server.resident_bytes()
    burst = b"".join(wire.pack(Cmd.REGION_WRITE, wire.region_write(wire.BAR0, spec.DOORBELLS + 8 * qid, struct.pack("<I", 0xFFFF)),
                               flags=wire.NO_REPLY) for qid in range(1, 512))
    for _ in range(100):
        nvme.client.send_bytes(burst)
    nvme.client.fence()
    nvme_server.assert_grew_less(before, 4 << 20)
    nvme.assert_works()


def test_n04_tail_moved_over_entries_that_were_never_written_completes_them_somehow(nvme):
    """Whatever is in the queue is a command: here zeroes, a flush of namespace zero with the same identifier each."""
    sq = nvme.sqs[1]
    for index in range(sq.tail, sq.size - 1):
        nvme.space.fill(sq.slot(index), 64, 0)
        nvme.outstanding[1, 0] = nvme.outstanding.get((1, 0), 0) + 1
    count, sq.tail = sq.size - 1 - sq.tail, sq.size - 1
    nvme.kick(1)
    entries = nvme.finish_all()
    assert len(entries) == count
    for done in entries:
        expect(done, spec.INVALID_NAMESPACE, spec.CID_CONFLICT)
    nvme.assert_works()


# --- N5: a completion queue that nobody empties -------------------------------------------------------------------

def test_n05_full_completion_queue_holds_the_submission_queue_back(bare):
    """3.3.1.2: a queue is full with one entry free; nothing is written over what the host has not released."""
    expect(bare.create_cq(1, 4), spec.OK)
    expect(bare.create_sq(1, 16), spec.OK)
    cids = [bare.put(1, spec.FLUSH, nsid=1) for _ in range(12)]
    bare.kick(1)
    cq, seen = bare.cqs[1], []
    assert bare.until(lambda: bare.space.u32(cq.address + 2 * 16 + 12) >> 16 & 1)
    bare.client.fence()
    assert not bare.until(lambda: bare.space.u32(cq.address + 3 * 16 + 12) >> 16 & 1, 0.1), "an entry of the queue has to stay free"
    while len(seen) < 12:
        assert bare.until(lambda: bare.take(1)), f"no completion comes any more after {len(seen)}"
        seen += [done.cid for done in bare.done]
        bare.done.clear()
    assert sorted(seen) == sorted(cids)


def test_n05_completions_come_one_by_one_into_a_queue_of_two(bare):
    expect(bare.create_cq(1, 2), spec.OK)
    expect(bare.create_sq(1, 64), spec.OK)
    for round_ in range(3):
        for _ in range(20):
            bare.put(1, spec.FLUSH, nsid=1)
        bare.kick(1)
        assert len(bare.finish_all()) == 20, f"round {round_}"


def test_n05_full_completion_queue_burns_no_time_and_other_queues_go_on(bare, nvme_server):
    bare.make_queue_pair(2, 64, vector=2)
    expect(bare.create_cq(1, 2), spec.OK)
    expect(bare.create_sq(1, 64), spec.OK)
    for _ in range(30):
        bare.put(1, spec.FLUSH, nsid=1)
    bare.kick(1)
    bare.assert_works(8, sqid=2)
    before = nvme_server.cpu_seconds()
    bare.until(lambda: False, 0.5)
    assert nvme_server.cpu_seconds() - before < 0.2, "it spins"
    assert len(bare.finish_all()) == 30


def test_n05_full_admin_completion_queue_is_held_back_too(nvme_server):
    nvme = nvme_server.guest(queues=0, enable=False)
    nvme.set_admin_queues(32, 2)
    nvme.set(spec.CC, spec.cc())
    nvme.wait_csts(spec.RDY, spec.RDY)
    address = nvme.allocate(4096)
    for _ in range(20):
        nvme.put(0, spec.IDENTIFY, prp1=address, cdw10=spec.CNS_CONTROLLER)
    nvme.kick(0)
    assert all(done.status == spec.OK for done in nvme.finish_all())


@pytest.mark.parametrize("what", ["reset", "delete", "disconnect"])
def test_n05_full_completion_queue_is_no_obstacle_to_its_end(bare, what):
    expect(bare.create_cq(1, 2), spec.OK)
    expect(bare.create_sq(1, 64), spec.OK)
    for _ in range(30):
        bare.put(1, spec.FLUSH, nsid=1)
    bare.kick(1)
    if what == "reset":
        bare.disable()
        bare.bring_up()
    elif what == "delete":
        expect(bare.delete_sq(1), spec.OK)
        bare.take(1)
        expect(bare.delete_cq(1), spec.OK)
        bare.controller()


def test_n05_eight_submission_queues_share_one_completion_queue(bare):
    """3.3.1: several to one. Each completion names its queue, and none is lost where they do not fit at once."""
    expect(bare.create_cq(1, 8), spec.OK)
    for qid in range(1, QUEUES + 1):
        expect(bare.create_sq(qid, 16, cqid=1), spec.OK)
    for _ in range(4):
        for qid in range(1, QUEUES + 1):
            for _ in range(15):
                bare.put(qid, spec.FLUSH, nsid=1)
            bare.kick(qid)
        entries = bare.finish_all()
        assert len(entries) == 15 * QUEUES
        assert all(done.status == spec.OK for done in entries)
    for qid in range(1, QUEUES + 1):
        expect(bare.delete_cq(1), spec.INVALID_QUEUE_DELETION)
        expect(bare.delete_sq(qid), spec.OK)
    expect(bare.delete_cq(1), spec.OK)


# --- interrupts and heads -----------------------------------------------------------------------------------------

def test_each_queue_interrupts_by_its_own_vector(bare):
    for qid in range(1, QUEUES + 1):
        bare.make_queue_pair(qid, 16, vector=QUEUES + 1 - qid)
    for event in bare.vectors:
        event.clear()
    for qid in range(1, QUEUES + 1):
        bare.run(qid, spec.FLUSH, nsid=1)
        assert bare.vectors[QUEUES + 1 - qid].wait(), f"queue {qid} has not interrupted"
        assert not any(event.pending() for event in bare.vectors[1:])


def test_queue_without_interrupts_gives_none(bare):
    """5.4: IEN."""
    expect(bare.create_cq(1, 16, vector=1, flags=1), spec.OK)
    expect(bare.create_sq(1, 16), spec.OK)
    bare.vectors[1].clear()
    bare.run(1, spec.FLUSH, nsid=1)
    assert not bare.vectors[1].wait(0.1)


def test_pin_interrupt_is_masked_by_its_register(nvme_server):
    """3.1.3.3, 3.1.3.4: INTMS and INTMC with pin interrupts."""
    nvme = nvme_server.guest(interrupts="intx", queues=1)
    nvme.set(spec.INTMS, 1)
    nvme.take(0)
    nvme.intx_event.clear()
    nvme.client.unmask_irq(wire.IRQ_INTX)
    nvme.intx_event.clear()
    cid = nvme.issue(1, spec.FLUSH, nsid=1)
    assert nvme.until(lambda: nvme.cqs[1].peek())
    assert not nvme.intx_event.wait(0.1)
    nvme.set(spec.INTMC, 1)
    assert nvme.intx_event.wait(), "unmasked with a completion that is not taken"
    nvme.finish(1, cid)


def test_submission_head_in_completions_follows_the_queue_round(nvme):
    """3.3.3.2.1: SQHD frees entries for the host."""
    for _ in range(200):
        done = expect(nvme.run(1, spec.FLUSH, nsid=1), spec.OK)
        assert done.sq_head == nvme.sqs[1].tail
