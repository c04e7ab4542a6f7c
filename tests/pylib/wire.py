# SPDX-License-Identifier: BSD-3-Clause
"""vfio-user messages as bytes: constants, structures and builders, with no I/O.

Builders make well-formed payloads by default; every field can be given a wrong value, because that is what
the attack tests are for. Numbers are host endian, as the specification says (docs/interop/vfio-user.rst of QEMU).
"""

import enum
import json
import struct
from dataclasses import dataclass, field

HEADER = struct.Struct("=HHIII")  # msg_id, cmd, msg_size (with this header), flags, errno
HEADER_SIZE = HEADER.size

# Limits that the server promises.
MAX_DATA_XFER = 1 << 20
MAX_MESSAGE = MAX_DATA_XFER + 64
MAX_FDS = 16
MAX_REGIONS = 65535
PARTIAL_DEADLINE_S = 5.0
HANDSHAKE_DEADLINE_S = 10.0


class Cmd(enum.IntEnum):
    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    GET_INFO = 4
    GET_REGION_INFO = 5
    GET_REGION_IO_FDS = 6
    GET_IRQ_INFO = 7
    SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    RESET = 13
    DIRTY_PAGES = 14
    REGION_WRITE_MULTI = 15
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18


TYPE_MASK = 0xF
TYPE_COMMAND = 0
TYPE_REPLY = 1
NO_REPLY = 0x10
ERROR = 0x20

# DMA_MAP flags.
MAP_READ = 1
MAP_WRITE = 2
MAP_RW = 3
MAP_MMAP = 4
MAP_FILE_IO = 8
UNMAP_DIRTY_BITMAP = 1
UNMAP_ALL = 2

# GET_INFO flags.
INFO_RESET = 1
INFO_PCI = 2

# GET_REGION_INFO flags.
REGION_READABLE = 1
REGION_WRITABLE = 2
REGION_MMAP = 4
REGION_CAPS = 8

BAR0, BAR1, BAR2, BAR3, BAR4, BAR5, ROM, CONFIG, VGA = range(9)
NUM_REGIONS = 9

IRQ_INTX, IRQ_MSI, IRQ_MSIX, IRQ_ERR, IRQ_REQ = range(5)
NUM_IRQS = 5
IRQ_INFO_EVENTFD = 1
IRQ_INFO_MASKABLE = 2
IRQ_INFO_AUTOMASKED = 4
IRQ_INFO_NORESIZE = 8

# SET_IRQS flags: one DATA and one ACTION.
DATA_NONE = 1
DATA_BOOL = 2
DATA_EVENTFD = 4
ACTION_MASK = 8
ACTION_UNMASK = 16
ACTION_TRIGGER = 32

U64_MAX = (1 << 64) - 1
U32_MAX = (1 << 32) - 1


@dataclass
class Message:
    """One message as it arrived; `fds` belong to whoever holds it."""

    msg_id: int
    cmd: int
    size: int
    flags: int
    errno: int
    payload: bytes = b""
    fds: list = field(default_factory=list)

    @property
    def is_reply(self):
        return self.flags & TYPE_MASK == TYPE_REPLY

    @property
    def is_error(self):
        return bool(self.flags & ERROR)

    def __str__(self):
        name = Cmd(self.cmd).name if self.cmd in Cmd._value2member_map_ else str(self.cmd)
        return (f"<{name} id {self.msg_id} size {self.size} flags {self.flags:#x} errno {self.errno} "
                f"payload {self.payload[:48].hex()}{'...' if len(self.payload) > 48 else ''} fds {len(self.fds)}>")


def pack(cmd, payload=b"", *, msg_id=0, flags=0, errno=0, size=None):
    """A whole message; `size` overrides the honest msg_size."""
    if size is None:
        size = HEADER_SIZE + len(payload)
    return HEADER.pack(msg_id & 0xFFFF, cmd & 0xFFFF, size & U32_MAX, flags & U32_MAX, errno & U32_MAX) + payload


def unpack_header(data):
    return Message(*HEADER.unpack(data))


# --- VERSION ------------------------------------------------------------------------------------------------

def version(capabilities=None, *, major=0, minor=0, text=None):
    """VERSION payload. capabilities: a dict (or None for no JSON at all); text: raw bytes for the JSON."""
    head = struct.pack("=HH", major, minor)
    if text is not None:
        return head + text
    if capabilities is None:
        return head
    return head + json.dumps({"capabilities": capabilities}).encode() + b"\0"


def parse_version(payload):
    """(major, minor, the JSON's bytes with everything behind the two numbers)."""
    major, minor = struct.unpack_from("=HH", payload)
    return major, minor, payload[4:]


def twin_index(payload):
    """Which fd of a VERSION reply is the twin socket's, or None."""
    twin = json.loads(payload[4:-1] or b"{}").get("capabilities", {}).get("twin_socket", {})
    return twin["fd_index"] if twin.get("supported") else None


OUR_CAPS = {"max_msg_fds": 16, "max_data_xfer_size": MAX_DATA_XFER, "max_dma_maps": 65535, "pgsizes": 4096}

TWIN_CAPS = {**OUR_CAPS, "write_multiple": True, "twin_socket": {"supported": True}}

# Byte-exact proposals of clients in the field.
QEMU_CAPS_TEXT = (b'{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, '
                  b'"max_data_xfer_size": 1048576, "migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, '
                  b'"write_multiple": true}}\0')
CH_CAPS_TEXT = b'{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}\0'


# --- DMA ----------------------------------------------------------------------------------------------------

def dma_map(addr, size, *, offset=0, flags=MAP_RW, argsz=32):
    return struct.pack("=IIQQQ", argsz, flags, offset & U64_MAX, addr & U64_MAX, size & U64_MAX)


def dma_unmap(addr, size, *, flags=0, argsz=24):
    return struct.pack("=IIQQ", argsz, flags, addr & U64_MAX, size & U64_MAX)


# --- information --------------------------------------------------------------------------------------------

def device_info(*, argsz=16):
    return struct.pack("=IIII", argsz, 0, 0, 0)


@dataclass
class DeviceInfo:
    argsz: int
    flags: int
    num_regions: int
    num_irqs: int


def parse_device_info(payload):
    return DeviceInfo(*struct.unpack("=IIII", payload))


def region_info(index, *, argsz=32, flags=0):
    return struct.pack("=IIIIQQ", argsz, flags, index, 0, 0, 0)


@dataclass
class RegionInfo:
    argsz: int
    flags: int
    index: int
    cap_offset: int
    size: int
    offset: int


def parse_region_info(payload):
    return RegionInfo(*struct.unpack_from("=IIIIQQ", payload))


def irq_info(index, *, argsz=16):
    return struct.pack("=IIII", argsz, 0, index, 0)


@dataclass
class IrqInfo:
    argsz: int
    flags: int
    index: int
    count: int


def parse_irq_info(payload):
    return IrqInfo(*struct.unpack_from("=IIII", payload))


def set_irqs(index, flags, start, count, data=b"", *, argsz=None):
    return struct.pack("=IIIII", 20 + len(data) if argsz is None else argsz, flags, index, start, count) + data


def region_io_fds(index, *, argsz=16, flags=0, count=0):
    return struct.pack("=IIII", argsz, flags, index, count)


IOEVENTFD = struct.Struct("=QQIIIIQ")


@dataclass
class IoEventFd:
    offset: int
    size: int
    fd_index: int
    type: int
    flags: int
    padding: int
    datamatch: int


@dataclass
class RegionIoFds:
    argsz: int
    flags: int
    index: int
    count: int
    entries: list


def parse_region_io_fds(payload):
    argsz, flags, index, count = struct.unpack_from("=IIII", payload)
    assert len(payload) == 16 + count * IOEVENTFD.size, f"{count} entries in a payload of {len(payload)} bytes"
    return RegionIoFds(argsz, flags, index, count,
                       [IoEventFd(*IOEVENTFD.unpack_from(payload, 16 + i * IOEVENTFD.size)) for i in range(count)])


# --- regions ------------------------------------------------------------------------------------------------

def region_read(region, offset, count):
    return struct.pack("=QII", offset & U64_MAX, region & U32_MAX, count & U32_MAX)


def region_write(region, offset, data, *, count=None):
    return struct.pack("=QII", offset & U64_MAX, region & U32_MAX,
                       (len(data) if count is None else count) & U32_MAX) + data


def region_write_multi(writes, *, wr_cnt=None):
    """writes: (region, offset, data of at most 8 bytes)."""
    body = b"".join(struct.pack("=QII8s", off, region, len(data), data) for region, off, data in writes)
    return struct.pack("=Q", len(writes) if wr_cnt is None else wr_cnt) + body


def device_feature(index, flags=1 << 16, data=b"", *, argsz=None):
    return struct.pack("=II", 8 + len(data) if argsz is None else argsz, flags | index) + data


# --- DMA messages of the server -----------------------------------------------------------------------------

def parse_dma_rw(payload):
    """(address, count) of a DMA_READ or DMA_WRITE command with the 64-bit count."""
    return struct.unpack_from("=QQ", payload)


def dma_rw_reply(addr, count, data=b""):
    return struct.pack("=QQ", addr & U64_MAX, count & U64_MAX) + data


def well_formed(guest_addr=0x1000_0000):
    """One good sample of each command with a fixed payload: {name: (cmd, payload)}; for truncation tests."""
    return {
        "dma_map": (Cmd.DMA_MAP, dma_map(guest_addr, 0x10000)),
        "dma_unmap": (Cmd.DMA_UNMAP, dma_unmap(guest_addr, 0x10000)),
        "get_info": (Cmd.GET_INFO, device_info()),
        "get_region_info": (Cmd.GET_REGION_INFO, region_info(CONFIG)),
        "get_region_io_fds": (Cmd.GET_REGION_IO_FDS, region_io_fds(BAR4)),
        "get_irq_info": (Cmd.GET_IRQ_INFO, irq_info(IRQ_MSIX)),
        "set_irqs": (Cmd.SET_IRQS, set_irqs(IRQ_MSIX, DATA_NONE | ACTION_TRIGGER, 0, 0)),
        "region_read": (Cmd.REGION_READ, region_read(CONFIG, 0, 4)),
        "region_write": (Cmd.REGION_WRITE, region_write(CONFIG, 0x3C, b"\x05")),
        "region_write_multi": (Cmd.REGION_WRITE_MULTI, region_write_multi([(BAR4, 0, b"\0\0\0\0")])),
        "device_feature": (Cmd.DEVICE_FEATURE, device_feature(1)),
        "mig_data_read": (Cmd.MIG_DATA_READ, struct.pack("=II", 16, 8)),
        "mig_data_write": (Cmd.MIG_DATA_WRITE, struct.pack("=II", 16, 8) + b"\0" * 8),
    }
