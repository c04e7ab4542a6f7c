# SPDX-License-Identifier: BSD-3-Clause
"""NVM Express's numbers and layouts as bytes (base specification 2.0, NVM command set 1.0), with no I/O.

Builders make well-formed structures by default; every field can be given a wrong value."""

import struct
from dataclasses import dataclass

# Registers (base 3.1.3).
CAP, VS, INTMS, INTMC, CC, CSTS, NSSR, AQA, ASQ, ACQ = 0x00, 0x08, 0x0C, 0x10, 0x14, 0x1C, 0x20, 0x24, 0x28, 0x30
CMBLOC, CMBSZ, BPINFO = 0x38, 0x3C, 0x40
DOORBELLS = 0x1000

EN = 1
SHN_NONE, SHN_NORMAL, SHN_ABRUPT, SHN_MASK = 0 << 14, 1 << 14, 2 << 14, 3 << 14
RDY, CFS, NSSRO, PP = 1, 2, 1 << 4, 1 << 5
SHST_NONE, SHST_BUSY, SHST_DONE, SHST_MASK = 0 << 2, 1 << 2, 2 << 2, 3 << 2
NSSR_MAGIC = 0x4E564D65  # "NVMe", 3.1.3.8


def cc(*, en=1, css=0, mps=0, ams=0, shn=0, iosqes=6, iocqes=4):
    """CC's fields (base 3.1.3.5); shn: one of SHN_*."""
    return en | css << 4 | mps << 7 | ams << 11 | shn | iosqes << 16 | iocqes << 20


# Admin commands (base figure 138) and those of the NVM command set (NVM 1.0 figure 14).
DELETE_SQ, CREATE_SQ, GET_LOG, DELETE_CQ, CREATE_CQ, IDENTIFY, ABORT = 0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08
SET_FEATURES, GET_FEATURES, ASYNC_EVENT, KEEP_ALIVE, DBBUF = 0x09, 0x0A, 0x0C, 0x18, 0x7C
NS_MANAGEMENT, FW_COMMIT, FW_DOWNLOAD, SELF_TEST, NS_ATTACH, DIRECTIVE_SEND, DIRECTIVE_RECEIVE = 0x0D, 0x10, 0x11, 0x14, 0x15, 0x19, 0x1A
VIRTUALIZATION, MI_SEND, MI_RECEIVE, FABRICS, FORMAT, SECURITY_SEND, SECURITY_RECEIVE = 0x1C, 0x1D, 0x1E, 0x7F, 0x80, 0x81, 0x82
SANITIZE, LBA_STATUS = 0x84, 0x86
FLUSH, WRITE, READ, WRITE_UNCORRECTABLE, COMPARE, WRITE_ZEROES, DSM, VERIFY = 0x00, 0x01, 0x02, 0x04, 0x05, 0x08, 0x09, 0x0C
RESV_REGISTER, RESV_REPORT, RESV_ACQUIRE, RESV_RELEASE, COPY = 0x0D, 0x0E, 0x11, 0x15, 0x19

# Statuses: status code type << 8 | status code (base 3.3.3.2).
OK = 0x000
INVALID_OPCODE = 0x001
INVALID_FIELD = 0x002
CID_CONFLICT = 0x003
DATA_TRANSFER_ERROR = 0x004
INTERNAL_ERROR = 0x006
ABORT_REQUESTED = 0x007
SQ_DELETED = 0x008
FUSED_FAILED = 0x009
FUSED_MISSING = 0x00A
INVALID_NAMESPACE = 0x00B
SEQUENCE_ERROR = 0x00C
INVALID_SGL_SEGMENT = 0x00D
INVALID_SGL_COUNT = 0x00E
SGL_LENGTH_INVALID = 0x00F
SGL_TYPE_INVALID = 0x011
PRP_OFFSET_INVALID = 0x013
SGL_OFFSET_INVALID = 0x016
KEEP_ALIVE_INVALID = 0x01A
SGL_GRANULARITY = 0x01E
WRITE_PROTECTED = 0x020
LBA_OUT_OF_RANGE = 0x080
CAPACITY_EXCEEDED = 0x081
CQ_INVALID = 0x100
QID_INVALID = 0x101
QUEUE_SIZE_INVALID = 0x102
ABORT_LIMIT = 0x103
ASYNC_LIMIT = 0x105
VECTOR_INVALID = 0x108
LOG_PAGE_INVALID = 0x109
INVALID_QUEUE_DELETION = 0x10C
NOT_SAVEABLE = 0x10D
NOT_CHANGEABLE = 0x10E
NOT_NS_SPECIFIC = 0x10F
CONFLICTING_ATTRIBUTES = 0x180
WRITE_TO_READ_ONLY = 0x182
COMMAND_SIZE_LIMIT = 0x183
COMPARE_FAILURE = 0x285
ACCESS_DENIED = 0x286

# Features (base figure 317), log pages (base figure 202), CNS values (base figure 273).
F_ARBITRATION, F_POWER, F_TEMPERATURE, F_ERROR_RECOVERY, F_WRITE_CACHE, F_QUEUES = 1, 2, 4, 5, 6, 7
F_COALESCING, F_VECTOR, F_ATOMICITY, F_ASYNC, F_TIMESTAMP, F_KEEP_ALIVE = 8, 9, 0xA, 0xB, 0xE, 0xF
LOG_SUPPORTED, LOG_ERROR, LOG_SMART, LOG_FIRMWARE, LOG_CHANGED_NS, LOG_EFFECTS, LOG_FEATURES = 0, 1, 2, 3, 4, 5, 0x12
CNS_NAMESPACE, CNS_CONTROLLER, CNS_ACTIVE, CNS_DESCRIPTORS = 0, 1, 2, 3
CNS_CSI_NAMESPACE, CNS_CSI_CONTROLLER, CNS_CSI_ACTIVE, CNS_INDEPENDENT, CNS_COMMAND_SETS = 5, 6, 7, 8, 0x1C

ALL = 0xFFFFFFFF  # the broadcast NSID

# The kinds of events (base figure 145): type and information of a completed Asynchronous Event Request's dword 0.
EVENT_ERROR, EVENT_NOTICE = 0, 2
EVENT_BAD_DOORBELL, EVENT_BAD_DOORBELL_VALUE = 0, 1
EVENT_NS_CHANGED = 0
NS_CHANGED_NOTICES = 1 << 8  # in feature F_ASYNC


# --- commands ---------------------------------------------------------------------------------------------------

PRP, SGL, SGL_METADATA, PSDT_RESERVED = range(4)
COMMAND = struct.Struct("<BBHIIIQ16s6I")


def command(opcode, *, cid=0, fuse=0, psdt=PRP, reserved=0, nsid=0, cdw2=0, cdw3=0, mptr=0, prp1=0, prp2=0, dptr=None,
            cdw10=0, cdw11=0, cdw12=0, cdw13=0, cdw14=0, cdw15=0):
    """64 bytes (base figure 88). dptr: 16 bytes in place of two PRPs; reserved: bits 13:10 of dword 0."""
    if dptr is None:
        dptr = struct.pack("<QQ", prp1 & (1 << 64) - 1, prp2 & (1 << 64) - 1)
    words = [word & 0xFFFFFFFF for word in (cdw10, cdw11, cdw12, cdw13, cdw14, cdw15)]
    return COMMAND.pack(opcode, fuse | reserved << 2 | psdt << 6, cid & 0xFFFF, nsid & 0xFFFFFFFF, cdw2, cdw3, mptr, dptr, *words)


SGL_DATA, SGL_BUCKET, SGL_SEGMENT, SGL_LAST, SGL_KEYED, SGL_TRANSPORT = range(6)


def sgl(kind, address, length, *, subtype=0, reserved=b"\0\0\0"):
    """An SGL descriptor (base 4.1.2)."""
    return struct.pack("<QI3sB", address & (1 << 64) - 1, length & 0xFFFFFFFF, reserved, kind << 4 | subtype)


def rw_words(slba, blocks, *, flags=0):
    """Dwords 10 to 12 of what names a range of blocks; `blocks` counts from one; flags: bits 31:16 of dword 12."""
    return {"cdw10": slba & 0xFFFFFFFF, "cdw11": slba >> 32 & 0xFFFFFFFF, "cdw12": (blocks - 1) & 0xFFFF | flags << 16}


def dsm_range(slba, blocks, *, attributes=0):
    """A range of Dataset Management; here `blocks` counts from zero (NVM 1.0 figure 42)."""
    return struct.pack("<IIQ", attributes, blocks & 0xFFFFFFFF, slba & (1 << 64) - 1)


DSM_DEALLOCATE = 1 << 2  # in dword 11


@dataclass(frozen=True)
class Completion:
    """A completion queue entry (base 3.3.3.2)."""

    result: int
    result_high: int
    sq_head: int
    sq_id: int
    cid: int
    phase: int
    status: int
    again: int  # CRD
    more: bool
    dnr: bool

    @classmethod
    def parse(cls, data):
        result, high, head, sq_id, cid, word = struct.unpack("<IIHHHH", data)
        return cls(result, high, head, sq_id, cid, word & 1, (word >> 1) & 0x7FF, word >> 12 & 3, bool(word >> 14 & 1), bool(word >> 15))

    def __str__(self):
        return f"status {self.status:#05x} of command {self.cid:#x} on queue {self.sq_id} (result {self.result:#x}, dnr {self.dnr})"


# --- structures ---------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Capabilities:
    """CAP (base 3.1.3.1)."""

    value: int

    def _bits(self, low, count):
        return self.value >> low & (1 << count) - 1

    @property
    def entries(self):
        """Most entries of a queue; MQES counts from zero."""
        return self._bits(0, 16) + 1

    @property
    def contiguous(self):
        return self._bits(16, 1)

    @property
    def arbitration(self):
        return self._bits(17, 2)

    @property
    def timeout_s(self):
        return self._bits(24, 8) / 2

    @property
    def stride(self):
        """Bytes from a doorbell to the next."""
        return 4 << self._bits(32, 4)

    @property
    def subsystem_reset(self):
        return self._bits(36, 1)

    @property
    def command_sets(self):
        return self._bits(37, 8)

    @property
    def page_min(self):
        """MPSMIN: 4096 << this is the smallest page."""
        return self._bits(48, 4)

    @property
    def page_max(self):
        return self._bits(52, 4)


def text(data):
    """An ASCII field, padded with blanks (base 1.4.2)."""
    return data.decode("ascii").rstrip(" ")


@dataclass(frozen=True)
class Controller:
    """Identify Controller (base figure 275)."""

    raw: bytes

    def u8(self, at):
        return self.raw[at]

    def u16(self, at):
        return struct.unpack_from("<H", self.raw, at)[0]

    def u32(self, at):
        return struct.unpack_from("<I", self.raw, at)[0]

    serial = property(lambda self: text(self.raw[4:24]))
    model = property(lambda self: text(self.raw[24:64]))
    firmware = property(lambda self: text(self.raw[64:72]))
    mdts = property(lambda self: self.u8(77))
    cntlid = property(lambda self: self.u16(78))
    version = property(lambda self: self.u32(80))
    oaes = property(lambda self: self.u32(92))
    oacs = property(lambda self: self.u16(256))
    acl = property(lambda self: self.u8(258))  # Abort Command Limit, from zero
    aerl = property(lambda self: self.u8(259))  # Asynchronous Event Request Limit, from zero
    lpa = property(lambda self: self.u8(261))
    elpe = property(lambda self: self.u8(262))  # Error Log Page Entries, from zero
    npss = property(lambda self: self.u8(263))
    kas = property(lambda self: self.u16(320))  # keep alive's granularity in units of 100 ms
    sqes = property(lambda self: self.u8(512))
    cqes = property(lambda self: self.u8(513))
    maxcmd = property(lambda self: self.u16(514))
    nn = property(lambda self: self.u32(516))
    oncs = property(lambda self: self.u16(520))
    fuses = property(lambda self: self.u16(522))
    vwc = property(lambda self: self.u8(525))
    sgls = property(lambda self: self.u32(536))
    mnan = property(lambda self: self.u32(540))
    subnqn = property(lambda self: self.raw[768:1024].rstrip(b"\0").decode("ascii"))


# Bits of Controller.oacs and .oncs.
OACS_DBBUF = 1 << 8
ONCS_COMPARE, ONCS_DSM, ONCS_WRITE_ZEROES, ONCS_TIMESTAMP = 1 << 0, 1 << 2, 1 << 3, 1 << 6


@dataclass(frozen=True)
class Namespace:
    """Identify Namespace (NVM 1.0 figure 97)."""

    raw: bytes

    def u64(self, at):
        return struct.unpack_from("<Q", self.raw, at)[0]

    size = property(lambda self: self.u64(0))  # blocks
    capacity = property(lambda self: self.u64(8))
    utilised = property(lambda self: self.u64(16))
    features = property(lambda self: self.raw[24])
    formats = property(lambda self: self.raw[25] + 1)
    format = property(lambda self: self.raw[26] & 0xF)
    attributes = property(lambda self: self.raw[99])  # NSATTR: bit 0, write protected
    nguid = property(lambda self: self.raw[104:120])
    eui64 = property(lambda self: self.raw[120:128])

    @property
    def block_size(self):
        return 1 << self.raw[128 + 4 * self.format + 2]
