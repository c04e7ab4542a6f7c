# SPDX-License-Identifier: BSD-3-Clause
"""Rows N10, N12 and D6 with I/O that does not end: reset, shutdown, deletion, abort, unmap and disconnect while commands are in flight.
They wait for the image's lock, which another server holds, or behind a gate. Sections are those of the base specification 2.0."""

import errno
import os
import time

import pytest

from pylib import nvme_spec as spec
from pylib import wire
from pylib.client import Refused
from pylib.faults import READ, WRITE
from pylib.memory import PAGE
from pylib.nvme import expect
from pylib.pci_guest import BASE
from pylib.wire import Cmd

COUNT = 16


class Held:
    """A guest whose reads of the image do not end until `let_go`."""

    def __init__(self, serve, image, faulty_disk, *options, **kwargs):
        self.disk = faulty_disk
        self.server = serve(image, *options, device="nvme")
        self.nvme = self.server.guest(**kwargs)
        self.nvme.assert_works()
        self.address = self.nvme.buffer(length=COUNT * PAGE)
        self.disk.hold(READ)

    def submit(self, count=COUNT, sqid=1):
        """So many reads, each into a page of its own; waits until one of them is held."""
        before = self.disk.hits(READ)
        cids = [self.nvme.put_io(spec.READ, 8 * number, 8, self.address + number * PAGE, sqid=sqid) for number in range(count)]
        self.nvme.kick(sqid)
        assert self.nvme.until(lambda: self.disk.hits(READ) > before), "no read has begun"
        return cids

    def let_go(self):
        self.disk.open_gate()

    def untouched(self):
        return self.nvme.space.read(self.address, COUNT * PAGE) == b"\xA5" * (COUNT * PAGE)


@pytest.fixture
def held(serve, image, faulty_disk):
    made = Held(serve, image, faulty_disk)
    yield made
    made.let_go()


def whole(held, cids):
    """All are done, each with the bytes of its place."""
    for number, cid in enumerate(cids):
        expect(held.nvme.finish(1, cid), spec.OK)
        data = held.nvme.space.read(held.address + number * PAGE, PAGE)
        expected = b"".join((8 * number + sector).to_bytes(8, "little") * 64 for sector in range(8))
        assert data == expected or number == 0


def test_held_commands_end_when_they_may(held):
    cids = held.submit()
    assert held.nvme.nothing_comes(1, cids[0])
    held.let_go()
    whole(held, cids)


# --- N12 ----------------------------------------------------------------------------------------------------------

def test_n12_disable_with_reads_in_flight_waits_for_them_and_nothing_is_written_after_it(held):
    """3.7.2: RDY goes to zero when the controller has stopped; the host takes its memory back then."""
    held.submit()
    nvme = held.nvme
    nvme.set(spec.CC, nvme.get(spec.CC) & ~spec.EN)
    assert nvme.get(spec.CC) & spec.EN == 0, "registers answer meanwhile"
    ready = nvme.csts & spec.RDY
    held.let_go()
    nvme.wait_csts(spec.RDY, 0)
    nvme.space.fill(held.address, COUNT * PAGE, 0x5A)
    nvme.until(lambda: False, 0.1)
    assert nvme.space.read(held.address, COUNT * PAGE) == b"\x5A" * (COUNT * PAGE), "written after RDY was zero"
    assert ready, "RDY was zero while a read into the guest's memory went on"
    nvme.bring_up()
    nvme.assert_works()


def test_n12_no_completion_is_written_after_a_disable(held):
    held.submit()
    nvme = held.nvme
    cq = nvme.cqs[1]
    before = nvme.space.read(cq.address, cq.size * 16)
    nvme.set(spec.CC, nvme.get(spec.CC) & ~spec.EN)
    held.let_go()
    nvme.wait_csts(spec.RDY, 0)
    assert nvme.space.read(cq.address, cq.size * 16) == before


def test_n12_enable_before_the_disable_has_ended_comes_to_a_good_end(held):
    """3.1.3.5: a host shall wait for RDY; one that does not gets a controller that a reset heals."""
    held.submit()
    nvme = held.nvme
    nvme.set(spec.CC, 0)
    nvme.set_admin_queues(32)
    nvme.set(spec.CC, spec.cc())
    nvme.set(spec.CC, 0)
    nvme.set(spec.CC, spec.cc())
    nvme.client.fence()
    held.let_go()
    nvme.until(lambda: nvme.csts & (spec.RDY | spec.CFS), 2.0)
    nvme.set(spec.CC, 0)
    nvme.wait_csts(spec.RDY | spec.CFS, 0)
    nvme.bring_up()
    nvme.assert_works()


@pytest.mark.parametrize("kind", [spec.SHN_NORMAL, spec.SHN_ABRUPT])
def test_n12_shutdown_with_reads_in_flight_ends(held, kind):
    held.submit()
    nvme = held.nvme
    nvme.set(spec.CC, nvme.get(spec.CC) | kind)
    nvme.client.fence()
    held.let_go()
    nvme.wait_csts(spec.SHST_MASK, spec.SHST_DONE)
    nvme.disable()
    nvme.bring_up()
    nvme.assert_works()


def test_n12_device_reset_with_reads_in_flight_ends_once_they_have(held):
    held.submit()
    nvme = held.nvme
    with pytest.raises(Refused) as refused:
        nvme.client.call(Cmd.RESET)
    assert refused.value.errno == errno.EBUSY
    held.let_go()
    nvme.client.reset()
    assert nvme.csts == 0 and nvme.get(spec.CC) == 0
    nvme.pci.set_command(6)
    nvme.pci.enable_msix()
    nvme.bring_up()
    nvme.assert_works()


def test_n12_disconnect_with_reads_in_flight_leaves_nothing_and_the_next_is_served(held):
    held.submit()
    held.nvme.close()
    held.let_go()


def test_n12_disable_and_enable_under_load_twenty_times(serve, image):
    """Nothing is held here: commands end while the reset begins, in every possible order."""
    nvme = serve(image, "--queues=4", "--threads=2", device="nvme").guest(queues=4, memory=16 << 20)
    for _ in range(20):
        mark = nvme.space.mark()
        address = nvme.buffer(length=64 * PAGE)
        for qid in range(1, 5):
            for number in range(50):
                nvme.put_io(spec.READ if number % 2 else spec.WRITE, 8 * number, 8, address + number * PAGE, sqid=qid)
            nvme.kick(qid)
        nvme.restart()
        nvme.space.release(mark)
        nvme.assert_works()


@pytest.mark.parametrize("how", ["delete", "disable", "shut down"])
def test_n12_end_of_a_queue_under_load_from_another_thread(serve, image, how):
    """Registers and doorbells are written at once."""
    server = serve(image, "--queues=2", "--threads=2", device="nvme")
    nvme = server.guest(queues=2)
    for _ in range(10):
        address = nvme.buffer(length=PAGE)
        for _ in range(60):
            nvme.put_io(spec.READ, 0, 8, address, sqid=2)
        nvme.ring(2, nvme.sqs[2].tail)
        if how == "delete":
            expect(nvme.delete_sq(2), spec.OK)
            nvme.finish_all()
            expect(nvme.delete_cq(2), spec.OK)
            nvme.make_queue_pair(2, vector=2)
            continue
        nvme.shut_down() if how == "shut down" else None
        nvme.restart()
    nvme.assert_works(sqid=2)


# --- N10 and N1: abort and deletion -------------------------------------------------------------------------------

def test_n10_abort_of_a_command_in_flight_completes_it_once(held):
    """5.1: aborted, with Command Abort Requested; or not, and it ends in its own time."""
    nvme = held.nvme
    cids = held.submit()
    for cid in (cids[0], cids[-1]):
        done = expect(nvme.admin(spec.ABORT, cdw10=1 | cid << 16), spec.OK)
        if done.result & 1 == 0:
            expect(nvme.finish(1, cid), spec.ABORT_REQUESTED)
            cids.remove(cid)
    held.let_go()
    entries = nvme.finish_all()
    assert sorted(done.cid for done in entries) == sorted(cids)
    for done in entries:
        expect(done, spec.OK)


def test_n01_deletion_of_a_queue_with_commands_in_flight_completes_each_of_them_once(held):
    """5.7: the deletion ends after all commands; those aborted have Command Aborted due to SQ Deletion. Meanwhile other commands go on."""
    nvme = held.nvme
    held.submit()
    deletion = nvme.issue(0, spec.DELETE_SQ, cdw10=1)
    nvme.controller()
    before_end = nvme.find(0, deletion)
    held.let_go()
    if before_end is None:
        before_end = nvme.finish(0, deletion)
    expect(before_end, spec.OK)
    for done in nvme.finish_all():
        expect(done, spec.OK, spec.SQ_DELETED)
    expect(nvme.delete_cq(1), spec.OK)
    nvme.make_queue_pair(1, vector=1)
    nvme.assert_works()


def test_n01_queue_that_is_being_deleted_is_not_made_or_deleted_again(held):
    nvme = held.nvme
    held.submit()
    first = nvme.issue(0, spec.DELETE_SQ, cdw10=1)
    nvme.controller()
    over = nvme.find(0, first)
    again = nvme.issue(0, spec.DELETE_SQ, cdw10=1)
    made = nvme.issue(0, spec.CREATE_SQ, prp1=nvme.allocate(PAGE), cdw10=1 | 15 << 16, cdw11=1 | 1 << 16)
    nvme.client.fence()
    held.let_go()
    expect(over or nvme.finish(0, first), spec.OK)
    expect(nvme.finish(0, again), spec.QID_INVALID, spec.OK, spec.SEQUENCE_ERROR)
    nvme.finish(0, made)
    nvme.finish_all()
    nvme.recover()


def test_n12_disable_while_a_deletion_waits(held):
    nvme = held.nvme
    held.submit()
    nvme.issue(0, spec.DELETE_SQ, cdw10=1)
    nvme.controller()
    nvme.set(spec.CC, 0)
    nvme.client.fence()
    held.let_go()
    nvme.wait_csts(spec.RDY, 0)
    nvme.bring_up()
    nvme.assert_works()


def test_n04_doorbells_of_a_queue_that_is_being_deleted_harm_nothing(held):
    nvme = held.nvme
    held.submit()
    deletion = nvme.issue(0, spec.DELETE_SQ, cdw10=1)
    for value in range(64):
        nvme.ring(1, value)
    nvme.client.fence()
    held.let_go()
    nvme.outstanding.update({(1, cid): 64 for cid in range(0x200)})
    expect(nvme.finish(0, deletion), spec.OK)
    nvme.recover()


# --- D6 -----------------------------------------------------------------------------------------------------------

def test_d06_unmap_of_a_busy_buffer_is_answered_ebusy_and_works_once_it_is_free(held):
    nvme = held.nvme
    window = nvme.add_memory(BASE + (1 << 30), 1 << 20)
    before = held.disk.hits(READ)
    cid = nvme.put_io(spec.READ, 0, 8, window.iova)
    nvme.kick(1)
    assert nvme.until(lambda: held.disk.hits(READ) > before)
    began = time.monotonic()
    with pytest.raises(Refused) as refused:
        nvme.client.dma_unmap(window.iova, window.size)
    assert refused.value.errno == errno.EBUSY and time.monotonic() - began > 3.5
    held.let_go()
    expect(nvme.finish(1, cid), spec.OK)
    nvme.remove_memory(window)
    nvme.assert_works()


def test_d06_unmap_with_reads_in_flight_is_answered_when_they_have_ended_and_nothing_is_written_after_it(held):
    nvme = held.nvme
    window = nvme.add_memory(BASE + (1 << 30), 1 << 20)
    before = held.disk.hits(READ)
    cid = nvme.put_io(spec.READ, 0, 8, window.iova)
    nvme.kick(1)
    assert nvme.until(lambda: held.disk.hits(READ) > before)
    sent = nvme.client.send(Cmd.DMA_UNMAP, wire.dma_unmap(window.iova, window.size))
    assert nvme.client.silent(0.2), "the unmap was answered while the read went on"
    held.let_go()
    reply = nvme.client.reply_to(sent)
    assert not reply.is_error
    expect(nvme.finish(1, cid), spec.OK)


# --- faults of the disk -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("op, opcode, statuses", [
    (READ, spec.READ, (0x281, spec.INTERNAL_ERROR)), (WRITE, spec.WRITE, (0x280, spec.INTERNAL_ERROR))])
def test_b01_error_of_the_disk_is_a_status_of_the_command(serve, image, faulty_disk, op, opcode, statuses):
    """Figure 99: Write Fault, Unrecovered Read Error."""
    nvme = serve(image, device="nvme").guest()
    nvme.assert_works()
    faulty_disk.fail(op, errno.EIO)
    expect(nvme.io(opcode, 0, 8, nvme.buffer(length=PAGE)), *statuses)
    nvme.assert_works()


def test_b01_full_disk_is_capacity_exceeded(serve, image, faulty_disk):
    nvme = serve(image, device="nvme").guest()
    nvme.assert_works()
    faulty_disk.fail(WRITE, errno.ENOSPC)
    expect(nvme.io(spec.WRITE, 0, 8, nvme.buffer(length=PAGE)), spec.CAPACITY_EXCEEDED, 0x280, spec.INTERNAL_ERROR)
    nvme.assert_works()


def test_b01_short_transfers_are_continued(serve, image, faulty_disk):
    nvme = serve(image, device="nvme").guest()
    data = os.urandom(64 << 10)
    faulty_disk.shorten(WRITE, 512, times=3)
    nvme.write(0, data)
    faulty_disk.shorten(READ, 1000, times=3)
    assert nvme.read(0, 128) == data


# --- one guest and another ----------------------------------------------------------------------------------------

def test_p05_full_queues_of_bad_commands_leave_a_neighbour_of_the_same_process_its_turn(nvme_server):
    """Eight queues that never stop, and one command at a time beside them on the admin queue."""
    nvme = nvme_server.guest(queues=8, memory=16 << 20)
    for qid in range(2, 9):
        for number in range(63):
            nvme.put(qid, 0x7F, cid=number)
        nvme.kick(qid)
    for _ in range(100):
        nvme.controller()
        nvme.assert_works()
    entries = [done for done in nvme.finish_all() if done.sq_id >= 2]
    assert len(entries) == 7 * 63
    assert all(done.status == spec.INVALID_OPCODE for done in entries)
