# SPDX-License-Identifier: BSD-3-Clause
"""Each thing that an NVMe controller may do wrong is found by the test of `sidecard check` that is about it. What does wrong is a proxy
before a controller that does not: it changes registers, and commands in the client's memory before their doorbell is rung."""

import os
import struct

import pytest

from pylib.checks import Over, assert_found
from pylib.events import patiently
from pylib.liar import Lie, Liar, Memory
from pylib.server import Server, Workdir
from pylib.wire import Cmd

CAP, VS, CC, CSTS, AQA, ASQ, DOORBELLS = 0x00, 0x08, 0x14, 0x1C, 0x24, 0x28, 0x1000
IDENTIFY, CREATE_SQ, CREATE_CQ, DELETE_SQ, GET_LOG, ABORT, SET_FEATURES, GET_FEATURES = 6, 1, 5, 0, 2, 8, 9, 10
FLUSH, WRITE, READ, COMPARE, ZEROES = 0, 1, 2, 5, 8


class Registers(Lie):
    """Reads of BAR 0 give something else: read(offset, size, value). Writes for which lost(offset, value) is true are not done."""

    def __init__(self, read=None, lost=None):
        self.on_read, self.lost = read, lost

    def command(self, message):
        if message.cmd == Cmd.REGION_WRITE and self.lost:
            offset, region, _ = struct.unpack_from("=QII", message.payload)
            if region == 0 and self.lost(offset, int.from_bytes(message.payload[16:], "little")):
                return self.proxy.tell_instead(message, message.payload[:16])
        return message

    def reply(self, command, message):
        if message.cmd != Cmd.REGION_READ or message.is_error or not self.on_read:
            return message
        offset, region, count = struct.unpack_from("=QII", message.payload)
        if region == 0:
            value = self.on_read(offset, count, int.from_bytes(message.payload[16:], "little"))
            message.payload = message.payload[:16] + (value & (1 << 8 * count) - 1).to_bytes(count, "little")
        return message


class Commands(Lie):
    """Changes commands: admin(entry) and io(entry) get a bytearray of 64 bytes before the controller does."""

    def __init__(self, admin=None, io=None):
        self.edit = {0: admin, 1: io}
        self.memory = Memory()
        self.queues, self.asq, self.aqa = {}, 0, 0

    def gone(self):
        self.memory.forget()
        self.queues = {}

    def command(self, message):
        self.memory.see(message)
        for region, offset, data in self.writes(message):
            if region == 0:
                self.write(offset, int.from_bytes(data, "little"), len(data))
        return message

    @staticmethod
    def writes(message):
        if message.cmd == Cmd.REGION_WRITE:
            offset, region, _ = struct.unpack_from("=QII", message.payload)
            return [(region, offset, message.payload[16:])]
        if message.cmd == Cmd.REGION_WRITE_MULTI:
            return [(region, offset, data[:count]) for offset, region, count, data in struct.iter_unpack("=QII8s", message.payload[8:])]
        return []

    def write(self, offset, value, size):
        if offset in (ASQ, ASQ + 4):
            shift = 8 * (offset - ASQ)
            self.asq = self.asq & ~(((1 << 8 * size) - 1) << shift) | value << shift
        elif offset == AQA:
            self.aqa = value
        elif offset == CC and value & 1:
            self.queues = {0: [self.asq, (self.aqa & 0xFFF) + 1, 0]}
        elif offset >= DOORBELLS and (offset - DOORBELLS) % 8 == 0:
            self.ring((offset - DOORBELLS) // 8, value)

    def ring(self, number, tail):
        queue = self.queues.get(number)
        while queue and queue[2] != tail % queue[1]:
            pages, at = self.memory.at(queue[0] + 64 * queue[2], 64)
            entry = bytearray(pages[at:at + 64])
            true = bytes(entry)
            if number == 0 and entry[0] == CREATE_SQ and entry[40:42] == b"\1\0" and 1 not in self.queues:
                self.queues[1] = [struct.unpack_from("=Q", entry, 24)[0], struct.unpack_from("=H", entry, 42)[0] + 1, 0]
            if self.edit[number]:
                self.edit[number](entry)
            if entry != true:
                pages[at:at + 64] = bytes(entry)
            queue[2] = (queue[2] + 1) % queue[1]


def rewrite(when, **fields):
    """An edit of the commands that `when` picks: opcode, nsid, prp1, prp2, lba (or cdw10), cdw11, cdw12 get other values."""
    places = {"opcode": (0, "=B"), "nsid": (4, "=I"), "prp1": (24, "=Q"), "prp2": (32, "=Q"), "lba": (40, "=Q"), "cdw10": (40, "=I"),
              "cdw11": (44, "=I"), "cdw12": (48, "=I")}

    def edit(entry):
        if not when(entry):
            return
        for name, value in fields.items():
            offset, form = places[name]
            old = struct.unpack_from(form, entry, offset)[0]
            struct.pack_into(form, entry, offset, value(old) if callable(value) else value)
    return edit


def is_(opcode, **more):
    def when(entry):
        known = {"cns": entry[40], "nsid": struct.unpack_from("=I", entry, 4)[0], "id": struct.unpack_from("=H", entry, 40)[0],
                 "lba": struct.unpack_from("=Q", entry, 40)[0]}
        return entry[0] == opcode and all(value(known[name]) if callable(value) else known[name] == value for name, value in more.items())
    return when


# What can be done always, and does nothing.
HARMLESS = {"opcode": GET_FEATURES, "cdw10": 7, "cdw11": 0}


def done_instead(when):
    return lambda: Commands(admin=rewrite(when, **HARMLESS))


def flushed_instead(when):
    return lambda: Commands(io=rewrite(when, opcode=FLUSH, nsid=1))


def hasty(status):
    """CSTS is something else, of a controller that says that it takes no more than half a second."""
    def read(offset, size, value):
        if offset == CSTS:
            return status(value)
        return value & ~0xFF000000 | 1 << 24 if offset == CAP and size == 4 else value
    return read


# Lie, the test that has to find it, and a word of what it says.
LIES = {
    "cap-mqes": (lambda: Registers(lambda offset, size, value: value & ~0xFFFF if offset == CAP else value),
                 "nvme-registers/capabilities", "MQES"),
    "vs": (lambda: Registers(lambda offset, size, value: 0 if offset == VS else value), "nvme-registers/capabilities", "VS is"),
    "cap-halves": (lambda: Registers(lambda offset, size, value: value ^ 1 if size == 8 else value), "nvme-registers/widths", "halves"),
    "cap-changes": (lambda: Changing(), "nvme-registers/read-only", "read-only"),
    "aqa": (lambda: Registers(lost=lambda offset, value: offset == AQA), "nvme-registers/admin-queue", "AQA"),
    "asq": (lambda: Registers(lost=lambda offset, value: offset == ASQ + 4), "nvme-registers/admin-queue", "ASQ"),
    "aqa-reset": (lambda: Registers(lambda offset, size, value: 0 if offset == AQA else value), "nvme-registers/enable", "not reset"),
    "ready-never": (lambda: Registers(hasty(lambda value: value & ~1)), "nvme-registers/enable", "RDY"),
    "ready-always": (lambda: Registers(hasty(lambda value: value | 1)), "nvme-registers/enable", "RDY"),
    "failed": (lambda: Registers(lambda offset, size, value: value | 2 if offset == CSTS else value), "nvme-registers/enable", "failed"),
    "shutdown-never": (lambda: Registers(hasty(lambda value: value & ~12)), "nvme-registers/shutdown",
                       "SHST"),
    "reset-keeps-cc": (lambda: Registers(lambda offset, size, value: value | 1 << 20 if offset == CC else value), "nvme-registers/reset",
                       "CC is 0"),
    "doorbell-kills": (lambda: Registers(lambda offset, size, value: value | 2 if offset == CSTS and value & 1 else value),
                       "nvme-registers/doorbells", "failed"),

    "identify-other": (lambda: Commands(admin=rewrite(is_(IDENTIFY, cns=1), cdw10=0, nsid=1)), "nvme-admin/identify-controller", ""),
    "identify-list": (lambda: Commands(admin=rewrite(is_(IDENTIFY, cns=2, nsid=lambda nsid: nsid > 0), nsid=0)),
                      "nvme-admin/identify-namespaces", "greater"),
    "cns-taken": (lambda: Commands(admin=rewrite(is_(IDENTIFY, cns=0xFE), cdw10=1)), "nvme-admin/identify-refused", "CNS"),
    "nsid-taken": (lambda: Commands(admin=rewrite(is_(IDENTIFY, cns=0), nsid=1)), "nvme-admin/identify-refused", "above NN"),
    "opcode-taken": (done_instead(is_(0x3F)), "nvme-admin/invalid-opcodes", "reserved"),
    "opcode-other-status": (lambda: Commands(admin=rewrite(is_(0x3F), opcode=GET_FEATURES, cdw10=0x70)), "nvme-admin/invalid-opcodes",
                            "0x001"),
    "cq-0-taken": (done_instead(is_(CREATE_CQ, id=0)), "nvme-admin/create-cq-refused", "queue 0"),
    "cq-65535-taken": (done_instead(is_(CREATE_CQ, id=0xFFFF)), "nvme-admin/create-cq-refused", "65535"),
    "cq-small-taken": (done_instead(is_(CREATE_CQ, id=2)), "nvme-admin/create-cq-refused", "one entry"),
    "sq-0-taken": (done_instead(is_(CREATE_SQ, id=0)), "nvme-admin/create-sq-refused", "queue 0"),
    "sq-alone-taken": (done_instead(is_(CREATE_SQ, id=2)), "nvme-admin/create-sq-refused", "completion queue there is not"),
    "delete-unknown-taken": (done_instead(is_(DELETE_SQ, id=9)), "nvme-admin/delete-queues", "there is not"),
    "delete-cq-first-taken": (done_instead(is_(4, id=1)), "nvme-admin/delete-queues", "before its submission queue"),
    "feature-taken": (done_instead(is_(GET_FEATURES, cns=0x70)), "nvme-admin/features", "reserved"),
    "log-refused": (lambda: Commands(admin=rewrite(is_(GET_LOG), opcode=0x3F)), "nvme-admin/logs", "mandatory"),
    "log-taken": (done_instead(is_(GET_LOG, cns=0xBF)), "nvme-admin/logs", "reserved"),
    "abort-refused": (lambda: Commands(admin=rewrite(is_(ABORT), opcode=0x3F)), "nvme-admin/abort-nothing", "Abort"),

    "read-refused": (lambda: Commands(io=rewrite(is_(READ), opcode=0x3F)), "nvme-io/reads", "succeeds"),
    "read-elsewhere": (lambda: Commands(io=rewrite(is_(READ), prp1=lambda prp: prp + 4096)), "nvme-io/reads", "was"),
    "read-too-much": (lambda: Commands(io=rewrite(is_(READ), cdw12=lambda nlb: nlb + 1 if nlb == 15 else nlb)), "nvme-io/reads",
                      "succeeds"),
    "prp2-ignored": (lambda: Commands(io=rewrite(lambda entry: entry[0] == READ and entry[24] & 0xC0, prp2=lambda prp: prp - 4096)),
                     "nvme-io/prp-shapes", "where the PRPs say"),
    "range-taken": (lambda: Commands(io=rewrite(is_(READ, lba=lambda lba: lba > 30000), lba=0)), "nvme-io/out-of-range", "last block"),
    "range-other-status": (lambda: Commands(io=rewrite(is_(READ, lba=lambda lba: lba > 40000), opcode=0x3F)), "nvme-io/out-of-range",
                           "0x080"),
    "io-opcode-taken": (flushed_instead(is_(0x3F)), "nvme-io/refused", "reserved"),
    "io-nsid-taken": (flushed_instead(is_(READ, nsid=0)), "nvme-io/refused", "namespace 0"),
    "mdts-taken": (flushed_instead(lambda entry: entry[0] == READ and struct.unpack_from("=H", entry, 48)[0] > 2000), "nvme-io/refused",
                   "MDTS"),
    "memory-taken": (flushed_instead(lambda entry: entry[0] == READ and entry[24:32] == b"\0" * 8), "nvme-io/bad-memory", "there is not"),
    "wrap-lost": (lambda: Lost(), "nvme-io/wraps", "completed"),
    "flush-refused": (lambda: Commands(io=rewrite(is_(FLUSH), opcode=0x3F)), "nvme-io/flush", "mandatory"),
    "write-elsewhere": (lambda: Commands(io=rewrite(is_(WRITE), lba=lambda lba: lba ^ 8)), "nvme-io/writes", "read back"),
    "compare-taken": (lambda: Pairs(), "nvme-io/writes", "something else"),
    "zeroes-not-written": (flushed_instead(is_(ZEROES)), "nvme-io/zeroes", "zeroes"),
    "zeroes-too-far": (lambda: Commands(io=rewrite(is_(ZEROES), cdw12=lambda nlb: nlb + 1)), "nvme-io/zeroes", "next one"),
}


class Changing(Registers):
    """VS is what was written to it."""

    def __init__(self):
        self.written = None
        super().__init__(lambda offset, size, value: self.written if offset == VS and self.written is not None else value, self.note)

    def note(self, offset, value):
        if offset == VS:
            self.written = value
        return False


class Lost(Commands):
    """Each doorbell after the 40th is lost."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def command(self, message):
        rung = [offset for region, offset, _ in self.writes(message) if region == 0 and offset == DOORBELLS + 8]
        self.count += len(rung)
        return None if rung and self.count > 40 else message


class Pairs(Commands):
    """Every other Compare finds what it looks for, whatever is there."""

    def __init__(self):
        self.count = 0
        super().__init__(io=self.other)

    def other(self, entry):
        if entry[0] == COMPARE:
            self.count += 1
            if self.count % 2 == 0:
                entry[0] = FLUSH


@pytest.fixture(scope="module")
def behind():
    """A controller that tells the truth."""
    folder = Workdir()
    server = Server(folder, "ram:16M", "--queues=4", device="nvme", transport="vfio-user").start()
    yield server
    server.finish()
    folder.remove()


# Answers that do not come have to be waited for.
SLOW = {"ready-never", "ready-always", "shutdown-never", "wrap-lost"}


# Beside make check all are told.
FEW = ["aqa", "opcode-taken", "cq-0-taken", "read-elsewhere", "range-taken", "write-elsewhere"]


@pytest.mark.parametrize("lie", LIES if os.environ.get("SIDECARD_MORE") == "1" else FEW)
def test_a_lie_is_found(behind, workdir, lie):
    make, test, word = LIES[lie]

    def attempt(seconds):
        with Liar(workdir.path / f"p{seconds}", behind.path, make()) as liar:
            assert_found(Over("vfio-user", liar.path), test, word, options=["--destructive"], timeout=seconds)
    patiently(attempt) if lie in SLOW else attempt(60)
