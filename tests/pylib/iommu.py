# SPDX-License-Identifier: BSD-3-Clause
"""A guest behind vhost-user whose devices are behind an IOMMU: all its addresses, those of its vrings too, are translated, page by
page, and the back end has to ask for each. `space` is what the driver sees: its windows lie at IOVAs. Guest addresses mean nothing, and
are all 0.

The front end is one thread, as QEMU's: it answers misses while it waits for a request to come back (`finish`, `serve`), with an update on
the main socket, whose acknowledgement it waits for, and then on the channel. It does as it is told, also when that is wrong: `answer` is
asked what to do with each miss.
"""

import select
import struct
from dataclasses import dataclass

from . import virtio
from .events import PATIENCE
from .memory import PAGE, GuestMemory
from .vhost import NEED_REPLY, REPLY, U64, VERSION, P, Req, VhostGuest, pack, region, slot, state, table
from .vhost import addresses as vring_addresses
from .wire import MAP_RW

IOTLB = struct.Struct("<QQQBBxxxxxx")
MISS, UPDATE, INVALIDATE, ACCESS_FAIL = 1, 2, 3, 4
READ, WRITE, BOTH = 1, 2, 3
BACKEND_IOTLB_MSG = 1
IOVA = 0xFFFF_0000_0000  # a driver's usual first window
SHOWN = 0x7E00_0000_0000  # where the front end has what it shows first


def message(kind, iova, size=0, user=0, access=0):
    return IOTLB.pack(iova & (2**64 - 1), size & (2**64 - 1), user & (2**64 - 1), access, kind)


@dataclass(frozen=True)
class Miss:
    iova: int
    access: int


class IommuGuest(VhostGuest):
    def __init__(self, client):
        super().__init__(client)
        self.users = {}      # id of a window -> the front end's address of its first byte
        self.shown = []      # (window, address), as the back end knows them
        self.misses = []     # that came
        self.page = PAGE     # bytes that an answer translates
        self.answer = self.translate
        self.asked = None    # our end of the channel
        self._next_user = SHOWN

    @classmethod
    def boot(cls, path, **options):
        options.setdefault("base", IOVA)
        return super().boot(path, **options)

    def start(self, *, channel=True, **options):
        if channel:
            self.asked = self.channel()
        super().start(**options)

    def close(self):
        if self.asked:
            self.asked.close()
        super().close()

    def wanted_features(self):
        return self._options["features"] | virtio.F_ACCESS_PLATFORM

    # --- memory ----------------------------------------------------------------------------------------------

    def add_memory(self, iova, size, *, seal="shrink", offset=0, memory=None, flags=MAP_RW, **_):
        if memory is None:
            memory = GuestMemory(offset + size, seal=seal)
            self.memories.append(memory)
        window = self.space.add(iova, size, memory, offset, flags)
        user, self._next_user = self._next_user, self._next_user + size + 16 * PAGE
        self.users[id(window)] = user
        if self.client.protocol & P.CONFIGURE_MEM_SLOTS:
            self.client.tell(Req.ADD_MEM_REG, slot(0, size, user=user, offset=offset), fds=[memory.fd])
        else:
            self.set_table()
        return window

    def remove_memory(self, window, *, timeout=None):
        self.client.tell(Req.REM_MEM_REG, slot(0, window.size, user=self.users[id(window)], offset=window.offset), timeout=timeout)
        self.space.remove(window)

    def set_table(self):
        windows = self.space.windows
        self.client.tell(Req.SET_MEM_TABLE, table(*(region(0, w.size, user=self.users[id(w)], offset=w.offset) for w in windows)),
                         fds=[w.memory.fd for w in windows])

    def vring_addresses(self, index):
        return vring_addresses(index, self.queues[index], user=0)

    def user_of(self, iova):
        window = self.space.find(iova)
        return self.users[id(window)] + (iova - window.iova)

    # --- translations ----------------------------------------------------------------------------------------

    def update(self, iova, size, *, user=None, access=BOTH):
        """The back end's answer."""
        return self.told(message(UPDATE, iova, size, self.user_of(iova) if user is None else user, access))

    def invalidate(self, iova, size, timeout=None):
        return self.told(message(INVALIDATE, iova, size), timeout)

    def told(self, payload, timeout=None):
        self.client.send(Req.IOTLB_MSG, payload, flags=VERSION | NEED_REPLY)
        return self.client.reply(Req.IOTLB_MSG, timeout).value

    def translate(self, miss):
        """An honest answer: the page, if the driver has mapped it for that. What the acknowledgement says."""
        page = miss.iova & ~(self.page - 1)
        for window in self.space.windows:
            if window.holds(miss.iova, 1) and window.flags & miss.access == miss.access:
                begin = max(page, window.iova)
                size = min(page + self.page, window.iova + window.size) - begin
                return self.update(begin, size, access=window.flags & BOTH)
        return 1

    def next_miss(self, timeout=0):
        """The next one that the back end asks about; None: it asks nothing."""
        if not select.select([self.asked.sock], [], [], timeout)[0]:
            return None
        asked = self.asked.recv_any()
        wants_reply = NEED_REPLY if self.client.protocol & P.REPLY_ACK else 0
        assert asked.request == BACKEND_IOTLB_MSG and asked.flags == VERSION | wants_reply, asked
        iova, size, user, access, kind = IOTLB.unpack(asked.payload)
        assert (kind, size, user) == (MISS, 0, 0) and access in (READ, WRITE), asked
        self.misses.append(Miss(iova, access))
        return self.misses[-1]

    def acknowledge(self, result=0):
        if self.client.protocol & P.REPLY_ACK:
            self.asked.send_bytes(pack(BACKEND_IOTLB_MSG, U64.pack(result), flags=VERSION | REPLY))

    def serve(self, timeout=0):
        """Answers what is asked within that time. How much it was."""
        served = 0
        while (miss := self.next_miss(timeout)) is not None:
            result = self.answer(miss)
            if result is not None:
                self.acknowledge(result)
            served += 1
        return served

    def finish(self, request, timeout=PATIENCE):
        queue = self.queues[request.queue]
        for _ in range(int(timeout / 0.005)):
            if queue.given_back():
                break
            self.serve(0.005)
        return super().finish(request, 0.001)
