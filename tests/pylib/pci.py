# SPDX-License-Identifier: BSD-3-Clause
"""A PCI function seen through vfio-user regions: header fields, capability walk, BAR sizing, MSI-X."""

import struct
from dataclasses import dataclass

from . import wire

VENDOR_ID = 0x00
DEVICE_ID = 0x02
COMMAND = 0x04
STATUS = 0x06
REVISION = 0x08
CLASS = 0x09
HEADER_TYPE = 0x0E
BAR = 0x10
SUBSYS_VENDOR = 0x2C
SUBSYS_ID = 0x2E
ROM_BAR = 0x30
CAP_POINTER = 0x34
INT_LINE = 0x3C
INT_PIN = 0x3D

COMMAND_MEMORY = 0x2
COMMAND_MASTER = 0x4
COMMAND_INTX_DISABLE = 0x400
STATUS_INTX = 0x8
STATUS_CAPS = 0x10

CAP_PM = 0x01
CAP_MSI = 0x05
CAP_VENDOR = 0x09
CAP_PCIE = 0x10
CAP_MSIX = 0x11

MSIX_ENABLE = 0x8000
MSIX_MASKALL = 0x4000


@dataclass(frozen=True)
class Capability:
    id: int
    at: int
    raw: bytes  # as long as the capability says (vendor) or as its kind is


class PciFunction:
    def __init__(self, client):
        self.client = client

    def read(self, offset, size):
        return self.client.read_uint(wire.CONFIG, offset, size)

    def write(self, offset, size, value):
        self.client.write_uint(wire.CONFIG, offset, size, value)

    def config(self, offset=0, count=256):
        return self.client.read_region(wire.CONFIG, offset, count)

    def capabilities(self):
        """The list in its order; a loop or a pointer out of range fails."""
        image = self.config()
        assert image[STATUS] & STATUS_CAPS, "the status register names no capability list"
        out, seen = [], set()
        at = image[CAP_POINTER] & 0xFC
        while at:
            assert at >= 0x40, f"a capability lies in the header: {at:#x}"
            assert at not in seen, f"the capability list is a loop at {at:#x}"
            seen.add(at)
            kind = image[at]
            length = {CAP_PM: 8, CAP_MSIX: 12, CAP_PCIE: 60}.get(kind, 16)
            if kind == CAP_VENDOR:
                length = image[at + 2]
            assert at + length <= 256, f"capability {kind:#x} at {at:#x} passes the end of config space"
            out.append(Capability(kind, at, bytes(image[at:at + length])))
            at = image[at + 1] & 0xFC
        return out

    def capability(self, kind):
        return next((cap for cap in self.capabilities() if cap.id == kind), None)

    def size_bar(self, index):
        """(size, low bits, is 64-bit) as a driver finds them: all ones, read back, old value again."""
        at = BAR + 4 * index
        old = self.read(at, 4)
        self.write(at, 4, 0xFFFFFFFF)
        low = self.read(at, 4)
        self.write(at, 4, old)
        if low == 0:
            return 0, 0, False
        wide = low & 1 == 0 and low >> 1 & 3 == 2
        mask = low & ~0xF if low & 1 == 0 else low & ~3
        if wide:
            old_high = self.read(at + 4, 4)
            self.write(at + 4, 4, 0xFFFFFFFF)
            mask |= self.read(at + 4, 4) << 32
            self.write(at + 4, 4, old_high)
            return (~mask & wire.U64_MAX) + 1, low & 0xF, True
        return (~mask & 0xFFFFFFFF) + 1, low & 0xF, False

    def msix(self):
        """(number of vectors, table BAR, table offset, PBA BAR, PBA offset, config offset)."""
        cap = self.capability(CAP_MSIX)
        assert cap is not None, "there is no MSI-X capability"
        control, table, pba = struct.unpack_from("<HII", cap.raw, 2)
        return (control & 0x7FF) + 1, table & 7, table & ~7, pba & 7, pba & ~7, cap.at

    def enable_msix(self, on=True):
        at = self.capability(CAP_MSIX).at + 2
        control = self.read(at, 2)
        self.write(at, 2, control | MSIX_ENABLE if on else control & ~MSIX_ENABLE)

    def set_command(self, value):
        self.write(COMMAND, 2, value)
