# SPDX-License-Identifier: BSD-3-Clause
"""A whole guest in a few lines: client, memory, PCI and virtio-blk driver, for tests that attack one spot of it.

`Guest.boot(path)` does what a VMM and a driver do from VERSION to DRIVER_OK. Everything it made is reachable
(client, space, virtio, queues), so that a test can go on from there with something dishonest.
"""

import os
from dataclasses import dataclass

from . import blk, pci, virtio
from .events import PATIENCE, wait_until
from .packed import PackedQueue
from .pci_guest import BASE, PciGuest
from .ring import Segment, SplitQueue

USUAL_FEATURES = (virtio.F_VERSION_1 | virtio.F_INDIRECT_DESC | blk.F_SIZE_MAX | blk.F_SEG_MAX | blk.F_RO
                  | blk.F_BLK_SIZE | blk.F_FLUSH | blk.F_TOPOLOGY | blk.F_CONFIG_WCE | blk.F_MQ | blk.F_DISCARD
                  | blk.F_WRITE_ZEROES)


@dataclass
class Request:
    """One virtio-blk request in guest memory."""

    kind: int
    sector: int
    header: int
    data: int
    length: int
    status_addr: int
    queue: int
    head: int = -1


@dataclass
class Result:
    status: int
    data: bytes
    used: int  # the used element's length


class Guest(PciGuest):
    def __init__(self, client):
        super().__init__(client)
        self.virtio = virtio.VirtioPci(client)
        self.pci = self.virtio.pci
        self.queues = []
        self.config_event = None
        self.queue_events = []
        self._options = {}
        # False: every request has memory of its own. TSan doesn't see how a guest orders what two queues do, and takes
        # the same bytes used for both, by two threads, for a race.
        self.reuse = True

    # --- coming up -------------------------------------------------------------------------------------------

    def start(self, *, memory=4 << 20, base=BASE, seal="shrink", features=USUAL_FEATURES, queues=1, queue_size=64,
              interrupts="msix", driver_ok=True, remote=False, packed=False):
        """packed: the ring's format. The device has to offer it then."""
        if packed:
            features |= virtio.F_RING_PACKED
        self._options = {"features": features, "queues": queues, "queue_size": queue_size, "interrupts": interrupts,
                         "packed": packed}
        self.add_memory(base, memory, seal=seal, remote=remote)
        self.virtio.discover()
        self.pci.set_command(pci.COMMAND_MEMORY | pci.COMMAND_MASTER)
        self.connect_interrupts(interrupts, queues)
        self.bring_up(driver_ok=driver_ok)

    def connect_interrupts(self, kind, queues):
        if kind == "msix":
            self.config_event, *self.queue_events = self.connect_msix(queues + 1)
        elif kind == "intx":
            self.connect_intx()

    def bring_up(self, *, driver_ok=True):
        """Driver initialisation as in virtio 1.2, 3.1.1; may be done again after a reset."""
        features, interrupts = self._options["features"], self._options["interrupts"]
        assert self.virtio.negotiate(features), "the device refuses the features that it offers"
        if interrupts == "msix":
            self.virtio.set("config_msix_vector", 0)
        self.config = self.read_config()
        event_idx = bool(self.virtio.features & virtio.F_EVENT_IDX)
        packed = bool(self.virtio.features & virtio.F_RING_PACKED)
        assert packed == self._options.get("packed", False), "RING_PACKED isn't offered"
        if not self.queues:
            kind = PackedQueue if packed else SplitQueue
            self.queues = [kind(self.space, self._options["queue_size"], event_idx=event_idx)
                           for _ in range(self._options["queues"])]
        for index, queue in enumerate(self.queues):
            queue.clear()
            queue.event_idx = event_idx
            queue.in_order = bool(self.virtio.features & virtio.F_IN_ORDER)
            self.virtio.setup_queue(index, queue, vector=index + 1 if interrupts == "msix" else virtio.NO_VECTOR)
        if driver_ok:
            self.virtio.driver_ok()
        for event in self._events:
            event.clear()

    def read_config(self):
        """What the device's configuration says. Of another device than a disk: a subclass's."""
        return blk.parse_config(self.virtio.config_read(0, blk.CONFIG_SIZE))

    def reset_queue(self, index=0, timeout=PATIENCE):
        """VIRTIO_F_RING_RESET (virtio 1.2, 4.1.4.3.1), up to its end."""
        self.virtio.set("queue_select", index)
        self.virtio.set("queue_reset", 1)
        assert wait_until(lambda: self.virtio.get("queue_reset") == 0, timeout), f"queue {index} stays in its reset"

    def enable_queue(self, index=0):
        """Starts a queue anew after its reset."""
        self.queues[index].clear()
        self.virtio.setup_queue(index, self.queues[index], vector=index + 1)

    def restart(self):
        """Device reset and the whole initialisation again."""
        self.virtio.reset()
        self.bring_up()

    @property
    def queue(self):
        return self.queues[0]

    # --- requests --------------------------------------------------------------------------------------------

    def prepare(self, kind, sector=0, *, data=b"", length=0, queue=0, data_addr=None):
        """Lays header, data and status byte out in guest memory; `length`: bytes that the device shall write."""
        size = len(data) or length
        header = self.space.alloc(16)
        self.space.write(header, blk.header(kind, sector))
        if data_addr is None:
            data_addr = self.space.alloc(size, 512) if size else 0
            if size:
                self.space.write(data_addr, data or b"\xA5" * size)
        status_addr = self.space.alloc(1, 1)
        self.space.write(status_addr, bytes([blk.NOT_SET]))
        return Request(kind, sector, header, data_addr, size, status_addr, queue)

    @staticmethod
    def segments(request, *, writable):
        parts = [Segment(request.header, 16)]
        if request.length:
            parts.append(Segment(request.data, request.length, writable))
        parts.append(Segment(request.status_addr, 1, True))
        return parts

    def submit(self, request, segments=None, *, indirect=None, kick=True):
        """Offers the request; a queue shorter than the chain takes an indirect table."""
        queue = self.queues[request.queue]
        if segments is None:
            segments = self.segments(request, writable=request.kind in (blk.T_IN, blk.T_GET_ID))
        if indirect is None:
            indirect = len(segments) > queue.size
        request.head = queue.add(segments, indirect=indirect)
        if kick:
            self.kick(request.queue)
        return request

    def kick(self, queue=0, *, posted=False):
        self.virtio.notify(queue, position=self.queues[queue].position(), posted=posted)

    def result(self, request, used):
        status = self.space.read(request.status_addr, 1)[0]
        data = self.space.read(request.data, request.length) if request.length else b""
        return Result(status, data, used)

    def finish(self, request, timeout=PATIENCE):
        """Waits for this one request; anything else that comes back is an error."""
        done = self.queues[request.queue].wait(1, timeout)
        assert done, "the request was not completed in time" + self._why()
        assert done == [(request.head, done[0][1])], f"head {request.head} is due, the device gave back {done}"
        return self.result(request, done[0][1])

    def _why(self):
        status = self.virtio.status
        return f" (device status {status:#x}{', NEEDS_RESET' if status & virtio.NEEDS_RESET else ''})"

    def do(self, kind, sector=0, *, data=b"", length=0, queue=0, segments=None, indirect=None, timeout=PATIENCE):
        mark = self.space.mark()
        request = self.prepare(kind, sector, data=data, length=length, queue=queue)
        self.submit(request, segments(request) if segments else None, indirect=indirect)
        result = self.finish(request, timeout)
        if self.reuse:
            self.space.release(mark)
        return result

    def transfer(self, kind, sector, *segments):
        """A request whose data lies in the given segments."""
        request = self.prepare(kind, sector)
        self.submit(request, [Segment(request.header, 16), *segments, Segment(request.status_addr, 1, True)])
        return self.finish(request)

    def read(self, sector, count, **kwargs):
        """The bytes of `count` sectors."""
        result = self.do(blk.T_IN, sector, length=count * blk.SECTOR, **kwargs)
        assert result.status == blk.S_OK, f"reading {count} sectors at {sector}: status {result.status}"
        assert result.used == count * blk.SECTOR + 1, f"used length {result.used} for {count} sectors and a status"
        return result.data

    def write(self, sector, data, **kwargs):
        result = self.do(blk.T_OUT, sector, data=data, **kwargs)
        assert result.status == blk.S_OK, f"writing {len(data)} bytes at sector {sector}: status {result.status}"
        assert result.used == 1, f"used length {result.used} for a status byte"

    def flush(self, **kwargs):
        result = self.do(blk.T_FLUSH, **kwargs)
        assert result.status == blk.S_OK, f"flush: status {result.status}"

    def discard(self, sector, count, kind=blk.T_DISCARD, flags=0):
        return self.do(kind, 0, data=blk.discard_segment(sector, count, flags)).status

    # --- what must be so -------------------------------------------------------------------------------------

    @property
    def broken(self):
        return bool(self.virtio.status & virtio.NEEDS_RESET)

    def assert_broken(self, timeout=PATIENCE):
        """BREAK: NEEDS_RESET in the status and, where the driver is up, a configuration interrupt."""
        assert wait_until(lambda: self.broken, timeout), \
            f"the device has to say NEEDS_RESET; its status is {self.virtio.status:#x}"
        if self.config_event is not None:
            assert self.config_event.wait(timeout), "NEEDS_RESET came without a configuration interrupt"
        elif self.intx_event is not None:
            assert self.intx_event.wait(timeout), "NEEDS_RESET came without an interrupt"

    def assert_works(self, sector=0):
        """A verified write and read (or what the backend is capable of)."""
        unit = max(self.config.blk_size, blk.SECTOR)
        if self.virtio.features & blk.F_RO:
            self.read(sector, unit // blk.SECTOR)
            return
        data = os.urandom(unit)
        self.write(sector, data)
        assert self.read(sector, unit // blk.SECTOR) == data, "what was written isn't what is read"

    def recover(self):
        """After a BREAK: a reset heals the device."""
        self.restart()
        assert not self.broken, "NEEDS_RESET survives a reset"
        self.assert_works()
