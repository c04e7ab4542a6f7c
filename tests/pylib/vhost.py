# SPDX-License-Identifier: BSD-3-Clause
"""A vhost-user front end that does as it is told, also when that is wrong, and a guest behind it.

The numbers are the specification's (docs/interop/vhost-user.rst in QEMU). Guest memory has two addresses: the guest's,
which descriptors name, and the front end's own, which vrings do; here the second is the first plus USER.
"""

import errno
import socket
import struct
import time
import unittest
from dataclasses import dataclass, field
from enum import IntEnum

from . import virtio
from .client import Client
from .events import PATIENCE, wait_until
from .memory import AddressSpace, GuestMemory
from .packed import PackedQueue
from .ring import SplitQueue
from .vm import BASE, USUAL_FEATURES, Guest
from .wire import Cmd

HEADER = struct.Struct("<III")
STATE = struct.Struct("<II")
ADDRESSES = struct.Struct("<IIQQQQ")
REGION = struct.Struct("<QQQQ")
CONFIG = struct.Struct("<III")
INFLIGHT = struct.Struct("<QQHHxxxx")
U64 = struct.Struct("<Q")

VERSION, VERSION_MASK, REPLY, NEED_REPLY = 1, 3, 4, 8
USER = 0x7F00_0000_0000
TABLE_MAX, FDS_MAX, CONFIG_MAX = 8, 8, 256
NO_FD = 1 << 8

F_LOG_ALL = 1 << 26
F_PROTOCOL_FEATURES = 1 << 30


class Req(IntEnum):
    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    GET_CONFIG = 24
    SET_CONFIG = 25
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43


class P(IntEnum):
    """Protocol features, as bits."""

    MQ = 1 << 0
    LOG_SHMFD = 1 << 1
    REPLY_ACK = 1 << 3
    BACKEND_REQ = 1 << 5
    CONFIG = 1 << 9
    INFLIGHT_SHMFD = 1 << 12
    RESET_DEVICE = 1 << 13
    INBAND_NOTIFICATIONS = 1 << 14
    CONFIGURE_MEM_SLOTS = 1 << 15
    STATUS = 1 << 16
    DEVICE_STATE = 1 << 19


def pack(request, payload=b"", *, flags=VERSION, size=None):
    return HEADER.pack(request & 0xFFFFFFFF, flags & 0xFFFFFFFF, len(payload) if size is None else size) + payload


def state(index, number):
    return STATE.pack(index & 0xFFFFFFFF, number & 0xFFFFFFFF)


def addresses(index, queue, *, flags=0, log=0, user=USER):
    return ADDRESSES.pack(index, flags, queue.desc_addr + user, queue.used_addr + user, queue.avail_addr + user, log)


def region(guest, size, *, user=None, offset=0):
    user = guest + USER if user is None else user
    return REGION.pack(*(value & (2**64 - 1) for value in (guest, size, user, offset)))


def table(*regions, count=None):
    return struct.pack("<II", len(regions) if count is None else count, 0) + b"".join(regions)


def slot(*args, **kwargs):
    """The payload of ADD_MEM_REG and REM_MEM_REG."""
    return U64.pack(0) + region(*args, **kwargs)


def config(offset, size, data=None, *, flags=0):
    return CONFIG.pack(offset, size, flags) + (bytes(size) if data is None else data)


VFIO_ONLY = ("call", "exchange", "dma_map", "dma_unmap", "device_info", "region_info", "irq_info", "reset", "read_region", "write_region",
             "read_uint", "write_uint", "set_irq_eventfds", "disable_irqs", "mask_irq", "unmask_irq")


@dataclass
class Message:
    request: int
    flags: int
    payload: bytes
    fds: list = field(default_factory=list)

    @property
    def value(self):
        assert len(self.payload) == 8, f"a number is due: {self}"
        return U64.unpack(self.payload)[0]


class FrontEnd(Client):
    """A connection. `protocol`: the protocol features that were set."""

    def __getattribute__(self, name):
        if name in VFIO_ONLY:
            not_here(f"client.{name}")
        return super().__getattribute__(name)

    def __init__(self, sock, *, timeout=PATIENCE):
        super().__init__(sock, timeout=timeout)
        self.protocol = 0

    def send(self, request, payload=b"", *, fds=(), flags=VERSION, size=None):
        if isinstance(request, Cmd):
            not_here(request.name)
        self.send_bytes(pack(request, payload, flags=flags, size=size), fds)

    def recv_any(self, timeout=None):
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        self._fill(HEADER.size, deadline)
        request, flags, size = HEADER.unpack(bytes(self._buffer[:HEADER.size]))
        assert size <= CONFIG.size + CONFIG_MAX, f"the back end sends {size} bytes for request {request}"
        self._fill(HEADER.size + size, deadline)
        message = Message(request, flags, bytes(self._buffer[HEADER.size:HEADER.size + size]), self._fds)
        del self._buffer[:HEADER.size + size]
        self._fds = []
        return message

    def reply(self, request, timeout=None):
        message = self.recv_any(timeout)
        assert message.request == request, f"the reply to request {request} is due: {message}"
        assert message.flags == VERSION | REPLY, f"a reply's flags: {message}"
        return message

    def ask(self, request, payload=b"", *, fds=(), timeout=None):
        """A request that has a reply of its own."""
        self.send(request, payload, fds=fds)
        return self.reply(request, timeout)

    def acknowledged(self, request, payload=b"", *, fds=(), timeout=None, size=None):
        """What the acknowledgement says: 0, it was done."""
        assert self.protocol & P.REPLY_ACK
        self.send(request, payload, fds=fds, flags=VERSION | NEED_REPLY, size=size)
        return self.reply(request, timeout).value

    def tell(self, request, payload=b"", *, fds=(), timeout=None):
        """A request that has to succeed."""
        if self.protocol & P.REPLY_ACK:
            error = self.acknowledged(request, payload, fds=fds, timeout=timeout)
            assert error == 0, f"{Req(request).name} is refused with {error}"
        else:
            self.send(request, payload, fds=fds)

    def refused(self, request, payload=b"", *, fds=(), timeout=None, size=None):
        """REFUSE: the acknowledgement is an error."""
        error = self.acknowledged(request, payload, fds=fds, timeout=timeout, size=size)
        assert error != 0, f"{request!r} is accepted, but it has to be refused"
        return error

    def fence(self):
        """What was sent before has been handled, and the session goes on."""
        return self.ask(Req.GET_FEATURES).value

    def handshake(self, protocol=None):
        """As far as SET_OWNER. protocol: the features to set, those that are not offered left out; as a rule all but notifications in
        band, which change what a front end has to do."""
        assert self.fence() & F_PROTOCOL_FEATURES
        offered = self.ask(Req.GET_PROTOCOL_FEATURES).value
        wanted = offered & (~P.INBAND_NOTIFICATIONS if protocol is None else protocol)
        self.send(Req.SET_PROTOCOL_FEATURES, U64.pack(wanted))
        self.protocol = wanted
        self.tell(Req.SET_OWNER)
        return offered


def not_here(what):
    """Ends a test that asks for something that there is over vfio-user only."""
    raise unittest.SkipTest(f"{what} is not there over vhost-user")


class Registers:
    """The few things that a Guest asks its device about, over the protocol's own requests."""

    def __getattr__(self, name):
        return not_here(f"virtio.{name}")

    def __init__(self, guest):
        self.guest = guest
        self.features = 0

    @property
    def status(self):
        client = self.guest.client
        return client.ask(Req.GET_STATUS).value if client.protocol & P.STATUS else 0

    def config_read(self, offset, size):
        reply = self.guest.client.ask(Req.GET_CONFIG, config(offset, size))
        assert reply.payload[:CONFIG.size] == CONFIG.pack(offset, size, 0), f"the reply repeats the question: {reply}"
        return reply.payload[CONFIG.size:]

    def config_write(self, offset, data):
        """A guest's write, which hears nothing of it: the back end does not accept one to what is read-only, and says so to its VMM."""
        client, payload = self.guest.client, config(offset, len(data), data)
        if client.protocol & P.REPLY_ACK:
            assert client.acknowledged(Req.SET_CONFIG, payload) in (0, errno.EACCES)
        else:
            client.send(Req.SET_CONFIG, payload)

    def notify(self, queue, **_):
        self.guest.kick_events[queue].signal()

    def reset(self):
        self.guest.client.tell(Req.RESET_DEVICE)


class VhostGuest(Guest):
    """A guest with a virtio-blk device behind vhost-user."""

    def __init__(self, client):
        super().__init__(client)
        self.space = AddressSpace()
        self.virtio = Registers(self)
        self.kick_events, self.error_events = [], []

    @property
    def config_event(self):
        return not_here("an interrupt for the configuration")

    @config_event.setter
    def config_event(self, event):
        assert event is None

    @classmethod
    def boot(cls, path, **options):
        protocol = options.pop("protocol", None)
        guest = cls(FrontEnd.connect(path))
        try:
            guest.client.handshake(protocol)
            guest.start(**options)
        except BaseException:
            guest.close()
            raise
        return guest

    def start(self, *, memory=4 << 20, base=BASE, seal="shrink", features=USUAL_FEATURES, queues=1, queue_size=64, packed=False,
              run=True, **others):
        if others:
            not_here(", ".join(others))
        if packed:
            features |= virtio.F_RING_PACKED
        self._options = {"features": features, "queues": queues, "queue_size": queue_size, "packed": packed}
        self.add_memory(base, memory, seal=seal)
        self.config = self.read_config()
        for _ in range(queues):
            self.kick_events.append(self.event())
            self.queue_events.append(self.event())
            self.error_events.append(self.event())
        self.set_features()
        event_idx = bool(self.virtio.features & virtio.F_EVENT_IDX)
        kind = PackedQueue if packed else SplitQueue
        self.queues = [kind(self.space, queue_size, event_idx=event_idx) for _ in range(queues)]
        if run:
            self.run()

    def set_features(self):
        offered = self.client.fence()
        self.virtio.features = self.wanted_features() & offered
        if self._options["packed"]:
            assert self.virtio.features & virtio.F_RING_PACKED, "RING_PACKED isn't offered"
        self.client.tell(Req.SET_FEATURES, U64.pack(self.virtio.features | F_PROTOCOL_FEATURES))

    def wanted_features(self):
        """Behind an IOMMU is another guest: pylib.iommu."""
        return self._options["features"] & ~virtio.F_ACCESS_PLATFORM

    def add_memory(self, iova, size, *, seal="shrink", offset=0, memory=None, **_):
        """By ADD_MEM_REG where there is one; else the whole table again."""
        if memory is None:
            memory = GuestMemory(offset + size, seal=seal)
            self.memories.append(memory)
        window = self.space.add(iova, size, memory, offset)
        if self.client.protocol & P.CONFIGURE_MEM_SLOTS:
            self.client.tell(Req.ADD_MEM_REG, slot(iova, size, offset=offset), fds=[memory.fd])
        else:
            self.set_table()
        return window

    def remove_memory(self, window, *, timeout=None):
        self.client.tell(Req.REM_MEM_REG, slot(window.iova, window.size, offset=window.offset), timeout=timeout)
        self.space.remove(window)

    def set_table(self):
        windows = self.space.windows
        self.client.tell(Req.SET_MEM_TABLE, table(*(region(w.iova, w.size, offset=w.offset) for w in windows)),
                         fds=[w.memory.fd for w in windows])

    def bring_up(self, **others):
        """After a reset."""
        if others:
            not_here(", ".join(others))
        self.set_features()
        self.run()

    def run(self):
        """Starts every vring from its beginning, and enables it."""
        for event in self._events:
            event.clear()
        for index, queue in enumerate(self.queues):
            queue.clear()
            self.start_vring(index, 0x80008000 if queue.packed else 0)

    def vring_addresses(self, index):
        return addresses(index, self.queues[index])

    def start_vring(self, index, base):
        client, queue = self.client, self.queues[index]
        client.tell(Req.SET_VRING_NUM, state(index, queue.size))
        client.tell(Req.SET_VRING_BASE, state(index, base))
        client.tell(Req.SET_VRING_ADDR, self.vring_addresses(index))
        client.tell(Req.SET_VRING_CALL, U64.pack(index), fds=[self.queue_events[index].fd])
        client.tell(Req.SET_VRING_ERR, U64.pack(index), fds=[self.error_events[index].fd])
        client.tell(Req.SET_VRING_KICK, U64.pack(index), fds=[self.kick_events[index].fd])
        client.tell(Req.SET_VRING_ENABLE, state(index, 1))

    def stop_vring(self, index, timeout=None):
        """Where it stood."""
        got, base = STATE.unpack(self.client.ask(Req.GET_VRING_BASE, state(index, 0), timeout=timeout).payload)
        assert got == index
        return base

    def kick(self, queue=0, **_):
        self.kick_events[queue].signal()

    def restart(self):
        """As a VMM whose guest is reset."""
        for index in range(len(self.queues)):
            self.stop_vring(index)
        self.set_features()
        self.run()

    @property
    def broken(self):
        return any(event.pending() for event in self.error_events)

    def assert_broken(self, timeout=PATIENCE):
        assert wait_until(lambda: self.broken, timeout), "no error fd tells that a vring is broken"
        if self.client.protocol & P.STATUS:
            assert self.virtio.status & virtio.NEEDS_RESET

    def channel(self):
        """Gives the back end a socket for its own requests; our end of it."""
        ours, theirs = socket.socketpair()
        self.client.tell(Req.SET_BACKEND_REQ_FD, fds=[theirs.fileno()])
        theirs.close()
        return FrontEnd(ours)
