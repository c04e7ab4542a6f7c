# SPDX-License-Identifier: BSD-3-Clause
"""The driver's side of virtio over PCI (virtio 1.2, section 4.1), found through the capability list."""

import struct
from dataclasses import dataclass

from . import pci
from .events import PATIENCE, wait_until

CFG_COMMON, CFG_NOTIFY, CFG_ISR, CFG_DEVICE, CFG_PCI = 1, 2, 3, 4, 5

ACKNOWLEDGE = 1
DRIVER = 2
DRIVER_OK = 4
FEATURES_OK = 8
NEEDS_RESET = 0x40
FAILED = 0x80

NO_VECTOR = 0xFFFF

F_INDIRECT_DESC = 1 << 28
F_EVENT_IDX = 1 << 29
F_VERSION_1 = 1 << 32
F_ACCESS_PLATFORM = 1 << 33
F_RING_PACKED = 1 << 34
F_IN_ORDER = 1 << 35
F_ORDER_PLATFORM = 1 << 36
F_NOTIFICATION_DATA = 1 << 38
F_NOTIF_CONFIG_DATA = 1 << 39
F_RING_RESET = 1 << 40

# Common configuration: name -> (offset, size).
COMMON = {
    "device_feature_select": (0, 4),
    "device_feature": (4, 4),
    "driver_feature_select": (8, 4),
    "driver_feature": (12, 4),
    "config_msix_vector": (16, 2),
    "num_queues": (18, 2),
    "device_status": (20, 1),
    "config_generation": (21, 1),
    "queue_select": (22, 2),
    "queue_size": (24, 2),
    "queue_msix_vector": (26, 2),
    "queue_enable": (28, 2),
    "queue_notify_off": (30, 2),
    "queue_desc": (32, 8),
    "queue_driver": (40, 8),
    "queue_device": (48, 8),
    "queue_notify_data": (56, 2),
    "queue_reset": (58, 2),
}


@dataclass(frozen=True)
class Structure:
    bar: int
    offset: int
    length: int
    multiplier: int = 0
    at: int = 0  # of the capability in config space


class VirtioPci:
    def __init__(self, client):
        self.client = client
        self.pci = pci.PciFunction(client)
        self.structures = {}
        self.notify_offsets = {}
        self.features = 0

    def discover(self):
        """Walks the vendor capabilities; the first of each kind counts."""
        for cap in self.pci.capabilities():
            if cap.id != pci.CAP_VENDOR:
                continue
            kind, bar = cap.raw[3], cap.raw[4]
            offset, length = struct.unpack_from("<II", cap.raw, 8)
            multiplier = struct.unpack_from("<I", cap.raw, 16)[0] if kind == CFG_NOTIFY else 0
            self.structures.setdefault(kind, Structure(bar, offset, length, multiplier, cap.at))
        for kind in (CFG_COMMON, CFG_NOTIFY, CFG_ISR, CFG_DEVICE):
            assert kind in self.structures, f"no virtio capability of type {kind}"
        return self

    # --- registers -------------------------------------------------------------------------------------------

    def get(self, name):
        where = self.structures[CFG_COMMON]
        offset, size = COMMON[name]
        if size == 8:  # drivers use 32-bit accesses here (4.1.3.1)
            low = self.client.read_uint(where.bar, where.offset + offset, 4)
            return low | self.client.read_uint(where.bar, where.offset + offset + 4, 4) << 32
        return self.client.read_uint(where.bar, where.offset + offset, size)

    def set(self, name, value):
        where = self.structures[CFG_COMMON]
        offset, size = COMMON[name]
        if size == 8:
            self.client.write_uint(where.bar, where.offset + offset, 4, value)
            self.client.write_uint(where.bar, where.offset + offset + 4, 4, value >> 32)
            return
        self.client.write_uint(where.bar, where.offset + offset, size, value)

    def isr(self):
        where = self.structures[CFG_ISR]
        return self.client.read_uint(where.bar, where.offset, 1)

    def config_read(self, offset, count):
        where = self.structures[CFG_DEVICE]
        return self.client.read_region(where.bar, where.offset + offset, count)

    def config_write(self, offset, data):
        where = self.structures[CFG_DEVICE]
        self.client.write_region(where.bar, where.offset + offset, data)

    def notify(self, queue, *, posted=False, size=None, position=0, value=None):
        """A notification as 4.1.5.2 has it; `position`: what one with data says of the ring. Another size or value may
        be given."""
        where = self.structures[CFG_NOTIFY]
        at = where.offset + self.notify_offsets.get(queue, queue) * where.multiplier
        if size is None:
            size = 4 if self.features & F_NOTIFICATION_DATA else 2
        if value is None:
            value = queue | position << 16 if size >= 4 else queue
        self.client.write_uint(where.bar, at, size, value, posted=posted)

    # --- life ------------------------------------------------------------------------------------------------

    @property
    def status(self):
        return self.get("device_status")

    @status.setter
    def status(self, value):
        self.set("device_status", value)

    def reset(self, timeout=PATIENCE):
        self.status = 0
        assert wait_until(lambda: self.status == 0, timeout), "the device doesn't finish its reset"
        self.features = 0

    def device_features(self):
        value = 0
        for word in (0, 1):
            self.set("device_feature_select", word)
            value |= self.get("device_feature") << (32 * word)
        return value

    def set_driver_features(self, value):
        for word in (0, 1):
            self.set("driver_feature_select", word)
            self.set("driver_feature", value >> (32 * word) & 0xFFFFFFFF)

    def negotiate(self, wanted=None, *, exact=False):
        """Reset up to FEATURES_OK. wanted: bits to take (None: all that is offered); exact: also unoffered ones."""
        self.reset()
        self.status = ACKNOWLEDGE
        self.status = ACKNOWLEDGE | DRIVER
        offered = self.device_features()
        take = offered if wanted is None else wanted if exact else wanted & offered
        self.set_driver_features(take)
        self.status = ACKNOWLEDGE | DRIVER | FEATURES_OK
        self.features = take
        return bool(self.status & FEATURES_OK)

    def setup_queue(self, index, queue, *, vector=NO_VECTOR, enable=True):
        self.set("queue_select", index)
        self.notify_offsets[index] = self.get("queue_notify_off")
        self.set("queue_size", queue.size)
        assert self.get("queue_size") == queue.size, f"queue size {queue.size} was not taken"
        self.set("queue_desc", queue.desc_addr)
        self.set("queue_driver", queue.avail_addr)
        self.set("queue_device", queue.used_addr)
        self.set("queue_msix_vector", vector)
        if vector != NO_VECTOR:
            assert self.get("queue_msix_vector") == vector, f"vector {vector} was not taken for queue {index}"
        if enable:
            self.set("queue_enable", 1)

    def driver_ok(self):
        self.status = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
