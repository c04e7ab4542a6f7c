# SPDX-License-Identifier: BSD-3-Clause
"""A guest with an NVMe controller, and its driver, for tests that attack one spot of it.

`NvmeGuest.boot(path)` does what a VMM and a driver do up to I/O queues. Everything is reachable (client, space, registers,
queues), and nothing is checked on the way to the device: any command, doorbell or register may be wrong.
"""

import os
import struct
import time
import unittest
from types import SimpleNamespace

from . import nvme_spec as spec
from . import pci, wire
from .dma import DmaResponder
from .events import PATIENCE, wait_until
from .memory import PAGE
from .nvme_spec import Completion
from .pci_guest import BASE, PciGuest

# What a guest of virtio-blk has: where SIDECARD_DEVICE gives tests for any device this one, those that ask for it are skipped.
OF_VIRTIO = {"virtio", "queue", "queues", "queue_events", "config_event", "prepare", "segments", "submit", "transfer", "do", "kick_events",
             "discard", "broken", "assert_broken"}
LIST_ENTRIES = PAGE // 8


def not_here(what):
    """Ends a test for every device that asks for something that NVMe has not."""
    raise unittest.SkipTest(f"{what} is not NVMe's")


def expect(done, *statuses):
    """Fails unless the completion has one of these statuses; gives it."""
    names = ", ".join(f"{status:#05x}" for status in statuses)
    assert done.status in statuses, f"{done}; expected: {names}"
    return done


class Submissions:
    """A submission queue in guest memory."""

    ENTRY = 64

    def __init__(self, space, qid, size, completions, address):
        self.space, self.qid, self.size, self.completions, self.address = space, qid, size, completions, address
        self.tail = 0
        self.last_cid = 0xFF

    def fresh_cid(self):
        self.last_cid = (self.last_cid + 1) % 0xFFFF  # FFFFh is no good identifier (base figure 87)
        return self.last_cid

    def slot(self, index):
        return self.address + index % self.size * self.ENTRY

    def put(self, command):
        self.space.write(self.slot(self.tail), command)
        self.tail = (self.tail + 1) % self.size


class Completions:
    """A completion queue in guest memory."""

    ENTRY = 16

    def __init__(self, space, qid, size, address, vector=0):
        self.space, self.qid, self.size, self.address, self.vector = space, qid, size, address, vector
        self.head, self.phase = 0, 1

    def peek(self):
        """The next entry, or None when it is not there yet."""
        at = self.address + self.head * self.ENTRY
        if self.space.u32(at + 12) >> 16 & 1 != self.phase:
            return None
        return Completion.parse(self.space.read(at, self.ENTRY))

    def advance(self):
        self.head += 1
        if self.head == self.size:
            self.head, self.phase = 0, self.phase ^ 1


class NvmeGuest(PciGuest):
    """`doorbells` says how they are rung: message, posted (a message without a reply), mapped, or shadow (then `shadow` and
    `event_index` are the buffers' addresses)."""

    def __init__(self, client):
        super().__init__(client)
        self.doorbells = "message"
        self.page = None  # a mapping of the doorbells
        self.shadow = self.event_index = 0
        self.rung = 0  # doorbells that were written to the device
        self.sqs, self.cqs = {}, {}
        self.vectors = []
        self.outstanding = {}  # (queue, cid): how many commands
        self.done = []  # completions that somebody else waits for
        self.capabilities = None
        self.dma = None
        # False: every command has memory of its own. TSan doesn't see how a guest orders what two queues do.
        self.reuse = True
        self._options = {}
        self._block_size = None

    def __getattr__(self, name):
        if name in OF_VIRTIO and "SIDECARD_DEVICE" in os.environ:
            not_here(name)
        raise AttributeError(name)

    # --- registers -----------------------------------------------------------------------------------------------

    def get(self, register, size=4):
        return self.client.read_uint(wire.BAR0, register, size)

    def set(self, register, value, size=4, *, posted=False):
        self.client.write_uint(wire.BAR0, register, size, value, posted=posted)

    def get8(self, register):
        """A 64-bit register as drivers without 64-bit accesses read it."""
        return self.get(register) | self.get(register + 4) << 32

    def set8(self, register, value):
        self.set(register, value & 0xFFFFFFFF)
        self.set(register + 4, value >> 32)

    @property
    def csts(self):
        return self.get(spec.CSTS)

    def wait_csts(self, mask, value, timeout=PATIENCE):
        """Waits until CSTS has this value under this mask."""
        assert self.until(lambda: self.csts & mask == value, timeout), f"CSTS is {self.csts:#x}, {value:#x} of {mask:#x} is due"

    def until(self, condition, timeout=PATIENCE):
        """Waits for a condition; remote memory is served meanwhile."""
        return self.client.serve_commands(condition, timeout) if self.dma else wait_until(condition, timeout)

    # --- coming up -----------------------------------------------------------------------------------------------

    def start(self, *, memory=8 << 20, base=BASE, seal="shrink", remote=False, queues=1, queue_size=64, admin_size=32, interrupts="msix",
              vectors=None, enable=True, **others):
        """enable: False leaves the controller as it was found. remote: memory without an fd."""
        if others:
            not_here(", ".join(others))
        self._options = {"queues": queues, "queue_size": queue_size, "admin_size": admin_size, "interrupts": interrupts}
        self.add_memory(base, memory, seal=seal, remote=remote)
        if remote:
            self.dma = DmaResponder(self.client, self.space)
        self.capabilities = spec.Capabilities(self.get(spec.CAP, 8))
        self.pci.set_command(pci.COMMAND_MEMORY | pci.COMMAND_MASTER)
        if interrupts == "msix":
            self.vectors = self.connect_msix(vectors or min(queues + 1, self.pci.msix()[0]))
        elif interrupts == "intx":
            self.connect_intx()
        if enable:
            self.bring_up()

    def bring_up(self):
        """Enable and I/O queues; may be done again after a reset (base 3.5.1)."""
        self.enable(self._options["admin_size"])
        count = self._options["queues"]
        if count:
            assert self.set_feature(spec.F_QUEUES, count - 1 | (count - 1) << 16).status == spec.OK
        for qid in range(1, count + 1):
            self.make_queue_pair(qid, self._options["queue_size"], vector=qid % len(self.vectors) if self.vectors else 0)
        for event in self._events:
            event.clear()

    def forget_queues(self):
        """What the host knows of its queues ends with a reset."""
        self.sqs, self.cqs, self.outstanding, self.done = {}, {}, {}, []
        self.shadow = self.event_index = 0
        if self.doorbells == "shadow":
            self.doorbells = "message"

    def set_admin_queues(self, size, cq_size=None):
        """Fresh admin queues: AQA, ASQ, ACQ."""
        self.forget_queues()
        cq_size = cq_size or size
        sq, cq = self.allocate(size * 64), self.allocate(cq_size * 16)
        self.cqs[0] = Completions(self.space, 0, cq_size, cq)
        self.sqs[0] = Submissions(self.space, 0, size, self.cqs[0], sq)
        self.set(spec.AQA, size - 1 | (cq_size - 1) << 16)
        self.set8(spec.ASQ, sq)
        self.set8(spec.ACQ, cq)

    def enable(self, admin_size=32, **fields):
        """CC.EN with these fields of CC, up to CSTS.RDY."""
        if self.get(spec.CC) & spec.EN:
            self.disable()
        self.set_admin_queues(admin_size)
        self.set(spec.CC, spec.cc(**fields))
        self.wait_csts(spec.RDY | spec.CFS, spec.RDY, max(self.capabilities.timeout_s, PATIENCE))

    def disable(self):
        """A controller reset: CC.EN from one to zero (base 3.7.2)."""
        self.set(spec.CC, self.get(spec.CC) & ~spec.EN)
        self.wait_csts(spec.RDY, 0)

    def restart(self):
        self.disable()
        self.bring_up()

    def shut_down(self, kind=spec.SHN_NORMAL):
        self.set(spec.CC, self.get(spec.CC) & ~spec.SHN_MASK | kind)
        self.wait_csts(spec.SHST_MASK, spec.SHST_DONE)

    # --- memory --------------------------------------------------------------------------------------------------

    def allocate(self, size, align=PAGE):
        """Cleared guest memory."""
        address = self.space.alloc(size, align)
        self.space.fill(address, size, 0)
        return address

    def release(self, mark):
        """Memory since `mark` may be used again."""
        if self.reuse:
            self.space.release(mark)

    def buffer(self, content=b"", *, length=0, align=PAGE, offset=0):
        """Memory for data, `offset` behind an aligned address: the content, or so many bytes that nobody has written."""
        size = len(content) or length
        address = self.space.alloc(size + offset, align) + offset
        self.space.write(address, content or b"\xA5" * size)
        return address

    def prps(self, address, length, *, list_offset=0):
        """PRP 1 and 2 of contiguous memory, with lists where they are needed (base 4.1.1). list_offset: the first list
        begins that far into its page."""
        first = PAGE - address % PAGE
        pages = [address + first + at for at in range(0, max(length - first, 0), PAGE)]
        if len(pages) <= 1:
            return address, pages[0] if pages else 0
        return address, self.prp_list(pages, list_offset)

    def prp_list(self, entries, offset=0):
        """The address of a list that holds these entries; one page of it points to the next as its last entry."""
        room = LIST_ENTRIES - offset // 8
        address = self.allocate(PAGE) + offset
        if len(entries) > room:
            entries = [*entries[:room - 1], self.prp_list(entries[room - 1:])]
        self.space.write(address, struct.pack(f"<{len(entries)}Q", *entries))
        return address

    # --- queues --------------------------------------------------------------------------------------------------

    def create_cq(self, qid, size, *, vector=0, address=None, flags=None, **more):
        """The command's completion; the queue is known from then on if it was a good one."""
        address = self.allocate(max(size, 1) * 16) if address is None else address
        if flags is None:
            flags = 3 if self._options["interrupts"] else 1  # PC, IEN
        done = self.admin(spec.CREATE_CQ, **{"prp1": address, "cdw10": qid & 0xFFFF | ((size - 1) & 0xFFFF) << 16,
                                             "cdw11": flags | vector << 16, **more})
        if done.status == spec.OK:
            self.cqs[qid] = Completions(self.space, qid, size, address, vector)
        return done

    def create_sq(self, qid, size, *, cqid=None, address=None, flags=1, **more):
        cqid = qid if cqid is None else cqid
        address = self.allocate(max(size, 1) * 64) if address is None else address
        done = self.admin(spec.CREATE_SQ, **{"prp1": address, "cdw10": qid & 0xFFFF | ((size - 1) & 0xFFFF) << 16,
                                             "cdw11": flags | cqid << 16, **more})
        if done.status == spec.OK:
            self.sqs[qid] = Submissions(self.space, qid, size, self.cqs[cqid], address)
        return done

    def delete_sq(self, qid):
        return self.admin(spec.DELETE_SQ, cdw10=qid)

    def delete_cq(self, qid):
        return self.admin(spec.DELETE_CQ, cdw10=qid)

    def make_queue_pair(self, qid, size=64, *, vector=0):
        for done in (self.create_cq(qid, size, vector=vector), self.create_sq(qid, size)):
            assert done.status == spec.OK, f"queue {qid} cannot be made: {done}"

    # --- doorbells -----------------------------------------------------------------------------------------------

    def doorbell_offset(self, qid, completion):
        """Behind the first doorbell (base 3.1.4)."""
        return (2 * qid + completion) * self.capabilities.stride

    def ring(self, qid, value, *, completion=False, size=4):
        """Writes a doorbell, whatever the value, in the way of `doorbells`."""
        at = self.doorbell_offset(qid, completion)
        if self.doorbells == "shadow" and qid != 0:
            old = self.space.u32(self.shadow + at)
            self.space.put_u32(self.shadow + at, value)
            event = self.space.u32(self.event_index + at)
            if (value - event - 1) & 0xFFFF >= (value - old) & 0xFFFF:
                return
        self.rung += 1
        if self.doorbells == "mapped":
            with memoryview(self.page) as page, page.cast("I") as words:
                words[at // 4] = value & 0xFFFFFFFF  # by one store
        else:
            self.set(spec.DOORBELLS + at, value, size, posted=self.doorbells == "posted")

    def map_doorbells(self):
        """Doorbells are written as memory from now on. Whether there are some to be mapped."""
        mapped = self.client.map_region(wire.BAR0)
        if mapped is None:
            return False
        offset, _, self.page = mapped
        assert offset == spec.DOORBELLS
        self.doorbells = "mapped"
        return True

    def close(self):
        if self.page is not None:
            self.page.close()
        super().close()

    def use_shadow_doorbells(self):
        """Doorbell Buffer Config (base 5.8), whose buffers begin with what the doorbells hold."""
        self.shadow, self.event_index = self.allocate(PAGE), self.allocate(PAGE)
        for qid, sq in self.sqs.items():
            self.space.put_u32(self.shadow + self.doorbell_offset(qid, False), sq.tail)
        for qid, cq in self.cqs.items():
            self.space.put_u32(self.shadow + self.doorbell_offset(qid, True), cq.head)
        done = self.admin(spec.DBBUF, prp1=self.shadow, prp2=self.event_index)
        assert done.status == spec.OK, f"shadow doorbells are refused: {done}"
        self.doorbells = "shadow"

    # --- commands ------------------------------------------------------------------------------------------------

    def put(self, sqid, opcode, *, cid=None, **fields):
        """Lays a command into the queue; its identifier. The doorbell is `kick`'s."""
        sq = self.sqs[sqid]
        cid = sq.fresh_cid() if cid is None else cid
        return self.put_raw(sqid, spec.command(opcode, cid=cid, **fields))

    def put_raw(self, sqid, command):
        cid = struct.unpack_from("<H", command, 2)[0]
        self.sqs[sqid].put(command)
        self.outstanding[sqid, cid] = self.outstanding.get((sqid, cid), 0) + 1
        return cid

    def kick(self, sqid):
        self.ring(sqid, self.sqs[sqid].tail)

    def issue(self, sqid, opcode, **fields):
        cid = self.put(sqid, opcode, **fields)
        self.kick(sqid)
        return cid

    def take(self, cqid, *, acknowledge=True):
        """All completions that are there, each checked; their number."""
        cq, found = self.cqs[cqid], []
        while True:
            entry = cq.peek()
            if entry is None:
                break
            self._check(cq, entry)
            found.append(entry)
            cq.advance()
            if len(found) == cq.size:
                break
        if found and acknowledge:
            self.ring(cqid, cq.head, completion=True)
        self.done += found
        return len(found)

    def _check(self, cq, entry):
        sq = self.sqs.get(entry.sq_id)
        assert sq is None or sq.completions is cq, f"on the wrong queue {cq.qid}: {entry}"
        assert sq is None or entry.sq_head < sq.size, f"a head of {entry.sq_head} in a queue of {sq.size}: {entry}"
        key = (entry.sq_id, entry.cid)
        assert self.outstanding.get(key, 0) > 0, f"of a command that nobody submitted, or a second time: {entry}"
        self.outstanding[key] -= 1

    def find(self, sqid, cid):
        """Takes a completion out of those that have come; None without one."""
        for entry in self.done:
            if (entry.sq_id, entry.cid) == (sqid, cid):
                self.done.remove(entry)
                return entry
        return None

    def finish(self, sqid, cid, timeout=PATIENCE):
        """Waits for a command's completion."""
        cqid = self.sqs[sqid].completions.qid
        found = []

        def ready():
            self.take(cqid)
            entry = self.find(sqid, cid)
            if entry is not None:
                found.append(entry)
            return found
        assert self.until(ready, timeout), f"command {cid:#x} on queue {sqid} was not completed in time (CSTS {self.csts:#x})"
        return found[0]

    def finish_all(self, timeout=PATIENCE):
        """Waits until nothing is outstanding but Asynchronous Event Requests; the completions. For good commands."""
        def settled():
            for cqid in self.cqs:
                self.take(cqid)
            return not any(self.outstanding.values())
        assert self.until(settled, timeout), f"outstanding: {[key for key, count in self.outstanding.items() if count]}"
        done, self.done = self.done, []
        return done

    def nothing_comes(self, sqid, cid, seconds=0.1):
        """True while the command is not completed for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for cqid in self.cqs:
                self.take(cqid)
            if any((entry.sq_id, entry.cid) == (sqid, cid) for entry in self.done):
                return False
            self.until(lambda: False, 0.01)
        return True

    def run(self, sqid, opcode, *, timeout=PATIENCE, **fields):
        """A command to its end. A list of PRPs is not made: see `io`."""
        return self.finish(sqid, self.issue(sqid, opcode, **fields), timeout)

    def admin(self, opcode, **fields):
        return self.run(0, opcode, **fields)

    # --- admin commands ------------------------------------------------------------------------------------------

    def into(self, opcode, length, **fields):
        """An admin command that fills a buffer: the completion and the bytes."""
        mark = self.space.mark()
        address = self.buffer(length=length)
        prp1, prp2 = self.prps(address, length)
        done = self.admin(opcode, **{"prp1": prp1, "prp2": prp2, **fields})
        data = self.space.read(address, length)
        self.release(mark)
        return done, data

    def identify(self, cns, *, nsid=0, cntid=0, csi=0, **more):
        """4096 bytes; the command has to succeed."""
        done, data = self.into(spec.IDENTIFY, 4096, nsid=nsid, cdw10=cns | cntid << 16, cdw11=csi << 24, **more)
        assert done.status == spec.OK, f"Identify {cns:#x} of namespace {nsid:#x}: {done}"
        return data

    def controller(self):
        return spec.Controller(self.identify(spec.CNS_CONTROLLER))

    def namespace(self, nsid=1):
        return spec.Namespace(self.identify(spec.CNS_NAMESPACE, nsid=nsid))

    def active_namespaces(self, after=0):
        numbers = struct.unpack("<1024I", self.identify(spec.CNS_ACTIVE, nsid=after))
        return [nsid for nsid in numbers if nsid]

    def log(self, page, length, *, offset=0, nsid=spec.ALL, lsp=0, rae=0, lsi=0, csi=0, **more):
        """Get Log Page: the completion and the bytes."""
        dwords = length // 4 - 1
        return self.into(spec.GET_LOG, max(length, 4), **{
            "nsid": nsid, "cdw10": page | lsp << 8 | rae << 15 | (dwords & 0xFFFF) << 16, "cdw11": dwords >> 16 & 0xFFFF | lsi << 16,
            "cdw12": offset & 0xFFFFFFFF, "cdw13": offset >> 32, "cdw14": csi << 24, **more})

    def get_feature(self, feature, *, select=0, nsid=0, cdw11=0, **more):
        return self.admin(spec.GET_FEATURES, nsid=nsid, cdw10=feature | select << 8, cdw11=cdw11, **more)

    def set_feature(self, feature, value=0, *, save=0, nsid=0, **more):
        return self.admin(spec.SET_FEATURES, nsid=nsid, cdw10=feature | save << 31, cdw11=value, **more)

    # --- I/O -----------------------------------------------------------------------------------------------------

    @property
    def block_size(self):
        if self._block_size is None:
            self._block_size = self.namespace().block_size
        return self._block_size

    @property
    def config(self):
        """What tests for every kind of disk ask for."""
        return SimpleNamespace(blk_size=self.block_size)

    def pointers(self, address, length, sgl):
        """The fields that say where data is."""
        if sgl:
            return {"psdt": spec.SGL, "dptr": spec.sgl(spec.SGL_DATA, address, length)}
        prp1, prp2 = self.prps(address, length)
        return {"prp1": prp1, "prp2": prp2}

    def put_io(self, opcode, slba, blocks, address, *, sqid=1, nsid=1, sgl=False, flags=0, **fields):
        """Lays a command of blocks into the queue, with data in contiguous memory."""
        where = self.pointers(address, blocks * self.block_size, sgl)
        return self.put(sqid, opcode, **{"nsid": nsid, **spec.rw_words(slba, blocks, flags=flags), **where, **fields})

    def io(self, opcode, slba, blocks, address, *, sqid=1, **fields):
        cid = self.put_io(opcode, slba, blocks, address, sqid=sqid, **fields)
        self.kick(sqid)
        return self.finish(sqid, cid)

    def read(self, slba, blocks, *, offset=0, **fields):
        """The bytes of so many blocks."""
        mark = self.space.mark()
        address = self.buffer(length=blocks * self.block_size, offset=offset)
        done = self.io(spec.READ, slba, blocks, address, **fields)
        assert done.status == spec.OK, f"reading {blocks} blocks at {slba}: {done}"
        data = self.space.read(address, blocks * self.block_size)
        self.release(mark)
        return data

    def write(self, slba, data, *, offset=0, opcode=spec.WRITE, **fields):
        mark = self.space.mark()
        address = self.buffer(data, offset=offset)
        done = self.io(opcode, slba, len(data) // self.block_size, address, **fields)
        assert done.status == spec.OK, f"writing {len(data)} bytes at block {slba}: {done}"
        self.release(mark)

    def compare(self, slba, data, **fields):
        """The completion of a Compare."""
        mark = self.space.mark()
        done = self.io(spec.COMPARE, slba, len(data) // self.block_size, self.buffer(data), **fields)
        self.release(mark)
        return done

    def flush(self, *, sqid=1, nsid=1):
        return self.run(sqid, spec.FLUSH, nsid=nsid)

    def dataset_management(self, ranges, *, attributes=spec.DSM_DEALLOCATE, sqid=1, nsid=1, **fields):
        """The completion; ranges: bytes of `dsm_range` each."""
        mark = self.space.mark()
        address = self.buffer(b"".join(ranges), length=16)
        done = self.run(sqid, spec.DSM, **{"nsid": nsid, "prp1": address, "cdw10": len(ranges) - 1 & 0xFF, "cdw11": attributes, **fields})
        self.release(mark)
        return done

    # --- what must be so -----------------------------------------------------------------------------------------

    def assert_works(self, slba=0, *, sqid=1):
        """A verified write and read."""
        data = os.urandom(self.block_size)
        self.write(slba, data, sqid=sqid)
        assert self.read(slba, 1, sqid=sqid) == data, "what was written isn't what is read"

    @property
    def fatal(self):
        return bool(self.csts & spec.CFS)

    def assert_fatal(self, timeout=PATIENCE):
        """BREAK: CSTS.CFS (base 3.1.3.6)."""
        self.wait_csts(spec.CFS, spec.CFS, timeout)

    def recover(self):
        """After a BREAK: a reset heals the controller."""
        self.restart()
        assert not self.fatal, "CSTS.CFS survives a reset"
        self.assert_works()
