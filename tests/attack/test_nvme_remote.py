# SPDX-License-Identifier: BSD-3-Clause
"""An NVMe controller whose guest's memory is reached by messages: rows W8, W11 and P6, and D12, where the guest names the controller's
own registers as memory. A VMM then sends a register access while it still owes the reply."""

import errno
import os

import pytest

from pylib import dma, wire
from pylib import nvme_spec as spec
from pylib.dma import Mirror
from pylib.memory import PAGE
from pylib.nvme import NvmeGuest, expect
from pylib.wire import Cmd

OWN = 0x9000_0000  # where the guest has BAR 0
OWN_SIZE = 0x4000


@pytest.fixture
def far(nvme_server):
    return nvme_server.guest(remote=True)


# --- W11, W8 ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("layout", [dma.COUNT_64, dma.COUNT_32, dma.TABLE])
def test_w11_each_layout_of_dma_messages_moves_the_exact_bytes(nvme_server, layout):
    far = NvmeGuest(nvme_server.client())
    nvme_server.handed_out.append(far)
    far.start(remote=True, enable=False)
    far.dma.layout = layout
    far.bring_up()
    for blocks in (1, 8, 9, 2048):
        data = os.urandom(512 * blocks)
        mark = far.space.mark()
        far.write(1, data, offset=12)
        assert far.read(1, blocks, offset=4) == data
        assert far.read(1, blocks, sgl=True) == data
        far.space.release(mark)


@pytest.mark.parametrize("limit", [4096, 5000, 65536, 100000])
def test_w11_messages_keep_to_the_clients_limit(nvme_server, limit):
    far = nvme_server.guest(remote=True, handshake={"capabilities": {**wire.OUR_CAPS, "max_data_xfer_size": limit}})
    far.dma.reads.clear()
    far.dma.writes.clear()
    data = os.urandom(512 * 512)
    far.write(0, data)
    assert far.read(0, 512) == data
    assert max(count for _, count in far.dma.reads + far.dma.writes) <= limit


def test_completion_is_written_after_its_data_and_before_its_interrupt(far):
    """Data, entry, interrupt, each answered before the next."""
    far.write(0, b"\x31" * 4096)
    assert far.until(far.vectors[1].pending)  # it comes when the entry was answered
    cq = far.cqs[1]
    address = far.buffer(length=4096)
    for event in far.vectors:
        event.clear()
    far.dma.writes.clear()
    far.dma.hold = lambda cmd, addr, count: cmd == Cmd.DMA_WRITE and address <= addr < address + 4096
    cid = far.put_io(spec.READ, 0, 8, address)
    far.kick(1)
    assert far.until(lambda: far.dma.held)
    far.until(lambda: False, 0.05)
    entries = [addr for addr, _ in far.dma.writes if cq.address <= addr < cq.address + cq.size * 16]
    assert not entries, "the entry was written before its data were"
    assert not far.vectors[1].pending()
    far.dma.release()
    far.dma.hold = lambda cmd, addr, count: cmd == Cmd.DMA_WRITE and cq.address <= addr < cq.address + cq.size * 16
    assert far.until(lambda: far.dma.held)
    far.until(lambda: False, 0.05)
    assert not far.vectors[1].pending(), "the interrupt came before the entry was there"
    far.dma.release()
    expect(far.finish(1, cid), spec.OK)
    assert far.until(far.vectors[1].pending)


@pytest.mark.parametrize("number", [errno.EFAULT, errno.EINVAL, errno.EPERM, 4095])
def test_w08_refusal_of_data_fails_the_command_alone(far, number):
    far.assert_works()
    address = far.buffer(length=PAGE)
    far.dma.spoil = lambda message, reply: (
        wire.pack(message.cmd, msg_id=message.msg_id, flags=wire.TYPE_REPLY | wire.ERROR, errno=number)
        if address <= wire.parse_dma_rw(message.payload)[0] < address + PAGE else reply)
    expect(far.io(spec.READ, 0, 8, address), spec.DATA_TRANSFER_ERROR)
    expect(far.io(spec.WRITE, 0, 8, address), spec.DATA_TRANSFER_ERROR)
    far.dma.spoil = None
    far.assert_works()


@pytest.mark.parametrize("which", ["submissions", "completions"])
def test_w08_refusal_of_a_queues_entries_is_fatal_and_a_reset_heals(far, which):
    """CSTS.CFS: there is no other way left to tell."""
    far.assert_works()
    queue = far.sqs[1] if which == "submissions" else far.cqs[1]
    end = queue.address + queue.size * queue.ENTRY
    far.dma.spoil = lambda message, reply: (
        wire.pack(message.cmd, msg_id=message.msg_id, flags=wire.TYPE_REPLY | wire.ERROR, errno=errno.EFAULT)
        if queue.address <= wire.parse_dma_rw(message.payload)[0] < end else reply)
    far.issue(1, spec.FLUSH, nsid=1)
    far.assert_fatal()
    far.dma.spoil = None
    far.recover()


def test_w08_reset_does_not_wait_for_messages_of_ours(far):
    """The client may hold the lock that would let it answer."""
    address = far.buffer(length=PAGE)
    far.dma.hold = lambda cmd, addr, count: address <= addr < address + PAGE
    far.issue(1, spec.READ, nsid=1, prp1=address, **spec.rw_words(0, 8))
    assert far.until(lambda: far.dma.held)
    far.client.reset()
    assert far.csts == 0
    far.dma.release()
    far.pci.set_command(6)
    far.pci.enable_msix()
    far.bring_up()
    far.assert_works()


def test_w08_disable_does_not_wait_for_messages_of_ours(far):
    address = far.buffer(length=PAGE)
    far.dma.hold = lambda cmd, addr, count: address <= addr < address + PAGE
    far.issue(1, spec.READ, nsid=1, prp1=address, **spec.rw_words(0, 8))
    assert far.until(lambda: far.dma.held)
    far.set(spec.CC, 0)
    assert far.until(lambda: far.csts & spec.RDY == 0), "it waits for the reply"
    far.dma.release()
    far.bring_up()
    far.assert_works()


def test_w08_disconnect_with_questions_open_leaves_nothing(far):
    far.dma.hold = lambda cmd, addr, count: True
    far.put(1, spec.FLUSH, nsid=1)
    far.kick(1)
    assert far.until(lambda: far.dma.held)
    far.close()


def test_p06_full_queues_of_large_reads_keep_memory_bounded(nvme_server):
    """Eight queues of 63 reads of a MiB each, all of whose data are held back."""
    far = nvme_server.guest(remote=True, queues=8, memory=8 << 20)
    window = far.add_memory(0x5000_0000, 1 << 20, remote=True)
    prp1, prp2 = far.prps(window.iova, 1 << 20)
    far.dma.hold = lambda cmd, addr, count: window.holds(addr, count)
    before = nvme_server.resident_bytes()
    for qid in range(1, 9):
        for _ in range(63):
            far.put(qid, spec.READ, nsid=1, prp1=prp1, prp2=prp2, **spec.rw_words(0, 2048))
        far.kick(qid)
    assert far.until(lambda: far.dma.held)
    far.until(lambda: False, 0.3)
    nvme_server.assert_grew_less(before, 8 * 24 << 20)
    far.dma.release()
    assert all(done.status == spec.OK for done in far.finish_all(60.0))


# --- D12 ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def mirror(far):
    return Mirror(far, far.dma, wire.BAR0, OWN, OWN_SIZE)


def settled(far):
    """Whatever it came to: the session lives, and a reset heals the controller."""
    far.until(lambda: False, 0.1)
    far.client.inbox.clear()
    far.client.reset()
    far.pci.set_command(6)
    far.pci.enable_msix()
    far._options["queues"] = 1
    for _ in range(3):
        far.bring_up()
        far.assert_works()
        far.disable()


@pytest.mark.parametrize("register", [0, spec.CC & ~0xFF, spec.DOORBELLS])
@pytest.mark.parametrize("content", [0x00, 0x01, 0x46, 0xFF])
def test_d12_disk_read_into_the_controllers_own_registers_is_safe(far, mirror, register, content):
    far.write(0, bytes([content]) * 1024)
    far.issue(1, spec.READ, nsid=1, prp1=OWN + register, **spec.rw_words(0, 2))
    assert far.until(lambda: mirror.accesses >= 256)
    settled(far)


@pytest.mark.parametrize("register", [0, spec.DOORBELLS])
def test_d12_disk_write_from_the_controllers_own_registers_is_safe(far, mirror, register):
    far.issue(1, spec.WRITE, nsid=1, prp1=OWN + register, **spec.rw_words(0, 2))
    assert far.until(lambda: mirror.accesses)
    settled(far)


@pytest.mark.parametrize("which", ["submissions", "completions", "list", "identify"])
def test_d12_structures_in_the_controllers_own_registers_are_safe(nvme_server, which):
    far = nvme_server.guest(remote=True, queues=0)
    mirror = Mirror(far, far.dma, wire.BAR0, OWN, OWN_SIZE)
    doorbells = OWN + spec.DOORBELLS
    if which == "identify":
        far.issue(0, spec.IDENTIFY, prp1=doorbells, cdw10=spec.CNS_CONTROLLER)
    else:
        expect(far.create_cq(1, 16, **({"address": doorbells} if which == "completions" else {})), spec.OK)
        expect(far.create_sq(1, 16, **({"address": doorbells} if which == "submissions" else {})), spec.OK)
        if which == "list":
            far.issue(1, spec.READ, nsid=1, prp1=far.buffer(length=PAGE), prp2=doorbells, **spec.rw_words(0, 64))
        elif which == "completions":
            far.issue(1, spec.FLUSH, nsid=1)
        else:
            far.ring(1, 15)
    assert far.until(lambda: mirror.accesses)
    settled(far)
