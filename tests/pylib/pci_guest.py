# SPDX-License-Identifier: BSD-3-Clause
"""What guests of every PCI device begin with: a session over vfio-user, guest memory, eventfds for interrupts."""

import socket

from . import pci, wire
from .client import Client
from .events import EventFd
from .memory import AddressSpace, GuestMemory

BASE = 0x1000_0000


class PciGuest:
    """A guest of a device that `start`, a subclass's, brings up."""

    def __init__(self, client):
        self.client = client
        self.space = AddressSpace()
        self.memories = []
        self.pci = pci.PciFunction(client)
        self.intx_event = None
        self._events = []

    @classmethod
    def boot(cls, path, **options):
        """See `start` for the options; handshake: the keyword arguments of Client.handshake."""
        handshake = options.pop("handshake", {})
        if isinstance(path, socket.socket):
            guest = cls(Client(path))
        else:
            guest = cls(Client.connect(path))
        try:
            guest.client.handshake(**handshake)
            guest.start(**options)
        except BaseException:
            guest.close()
            raise
        return guest

    def add_memory(self, iova, size, *, seal="shrink", flags=wire.MAP_RW, offset=0, memory=None, remote=False):
        """Maps `size` bytes at iova; of a new memfd, or of `memory` from `offset`. remote: without an fd."""
        if memory is None:
            memory = GuestMemory(offset + size, seal=seal)
            self.memories.append(memory)
        self.client.dma_map(iova, size, fd=None if remote else memory.fd, offset=offset, flags=flags)
        return self.space.add(iova, size, memory, offset, flags)

    def remove_memory(self, window, *, timeout=None):
        self.client.dma_unmap(window.iova, window.size, timeout=timeout)
        self.space.remove(window)

    def event(self, **kwargs):
        event = EventFd(**kwargs)
        self._events.append(event)
        return event

    def connect_msix(self, count):
        """MSI-X on, with an eventfd for each of so many vectors."""
        self.pci.enable_msix()
        vectors = [self.event() for _ in range(count)]
        for start in range(0, len(vectors), 16):
            self.client.set_irq_eventfds(wire.IRQ_MSIX, vectors[start:start + 16], start=start)
        return vectors

    def connect_intx(self):
        self.intx_event = self.event()
        self.client.set_irq_eventfds(wire.IRQ_INTX, [self.intx_event])

    def close(self):
        self.client.close()
        for event in self._events:
            event.close()
        self._events = []
        for memory in self.memories:
            memory.close()
        self.memories = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
