# SPDX-License-Identifier: BSD-3-Clause
"""Whole connections of the clients in the field, byte for byte: QEMU 11.1, Cloud Hypervisor (rust-vmm's vfio-user 0.1.5), SPDK and
libvfio-user's sample client. Each sends what the real one sends, with its ids, sizes, argsz, flags, fds and order, and takes replies
the way that one reads them; what the specification or the card fixes of a reply is compared whole.

The reverse, servers in the field with our client, is in the unit tests of src/client."""

import itertools
import json
import os
import socket
import struct

import pytest

from pylib.events import EventFd, wait_until
from pylib.memory import GuestMemory
from pylib.replay import ERROR, HEADER, NO_REPLY, REPLY, Peer, reply

VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, REGION_INFO, IRQ_INFO, SET_IRQS, READ, WRITE, RESET = 1, 2, 3, 4, 5, 7, 8, 9, 10, 13
BAR4, ROM, CONFIG = 4, 6, 7
INTX, MSI, MSIX, ERR, REQ = range(5)

# The card that they all look at: a virtio disk with one queue.
REGION_SIZES = [0, 4096, 4096, 0, 16384, 0, 0, 4096, 0]
CONFIG_SPACE = bytes.fromhex(
    "f41a4210 00001000 01000001 00000000" "00000000 00000000 00000000 00000000"
    "04000000 00000000 00000000 f41a4210" "00000000 40000000 00000000 00010000"
    "114c0100 01000000 02000000 01540300" "08000000 10900200 00800010 00000000"
    "11000000 00001100 00000000 00000000" "00000000 00000000 00000000 00000000"
    "00000000 00000000 00000000 00000000" "09a01001 04000000 00000000 00100000"
    "09b01003 04000000 00100000 00100000" "09c01004 04000000 00200000 00100000"
    "09d41402 04000000 00300000 00100000" "04000000 09001405 00000000 00000000"
    "00000000 00000000 00000000 00000000" "00000000 00000000 00000000 00000000").ljust(4096, b"\0")
BAR_MASKS = [0, 0xFFFFF000, 0xFFFFF000, 0, 0xFFFFC004, 0xFFFFFFFF]


def region_info_of(msg_id, index):
    """argsz, flags (readable, writable), index, no capabilities, size, offset: 48 bytes with the header."""
    size = REGION_SIZES[index]
    return reply(msg_id, REGION_INFO, "IIIIQQ", 32, 3 if size else 0, index, 0, size, 0)


class Eventfds:
    """Eventfds that are closed at the end."""

    def __init__(self):
        self.made = []

    def __call__(self):
        self.made.append(EventFd())
        return self.made[-1]


@pytest.fixture
def eventfd():
    events = Eventfds()
    yield events
    for event in events.made:
        event.close()


@pytest.fixture
def ram():
    with GuestMemory(16 << 20) as memory:
        yield memory


class Disk:
    """The guest's driver, as register accesses of whichever client carries them: `write(offset, size, value)` and `read(offset,
    size)` are accesses to BAR 4. One queue of 8 entries at the start of `page`, which the card sees at `iova`."""

    SIZE = 8

    def __init__(self, memory, page, iova, read, write, vector=0xFFFF):
        self.memory, self.page, self.iova, self.read, self.write = memory, page, iova, read, write
        self.used = self.avail = 0
        memory.write(page, bytes(4096))
        write(20, 1, 0)
        assert wait_until(lambda: read(20, 1) == 0), "the reset does not end"
        for value in (1, 3):  # acknowledge, driver
            write(20, 1, value)
            assert read(20, 1) == value
        for half, bits in ((0, 0), (1, 1)):  # VERSION_1 and nothing else
            write(8, 4, half)
            write(12, 4, bits)
        write(20, 1, 0xB)
        assert read(20, 1) == 0xB, "the features are not accepted"
        write(22, 2, 0)
        assert read(24, 2) >= self.SIZE
        write(24, 2, self.SIZE)
        write(26, 2, vector)
        assert read(26, 2) == vector
        for offset, at in ((32, 0), (40, 0x200), (48, 0x300)):  # descriptors, available, used: a half at a time
            write(offset, 4, (iova + at) & 0xFFFFFFFF)
            write(offset + 4, 4, (iova + at) >> 32)
        write(28, 2, 1)
        write(20, 1, 0xF)
        assert read(20, 1) == 0xF

    def transfer(self, kind, sector, data=bytes(512)):
        """One request of a sector; its data, once the used index has moved."""
        put, at = self.memory.write, self.page
        put(at + 0x800, struct.pack("<IIQ", kind, 0, sector))
        put(at + 0xA00, data)
        put(at + 0xF00, b"\xEE")
        table = ((0x800, 16, 1, 1), (0xA00, 512, 1 if kind else 3, 2), (0xF00, 1, 2, 0))
        put(at, b"".join(struct.pack("<QIHH", self.iova + offset, size, flags, following)
                         for offset, size, flags, following in table))
        put(at + 0x200 + 4 + 2 * (self.avail % self.SIZE), struct.pack("<H", 0))
        self.avail += 1
        put(at + 0x200, struct.pack("<HH", 0, self.avail))
        self.write(0x3000, 2, 0)
        for _ in range(2000):
            if struct.unpack("<H", self.memory.read(at + 0x302, 2))[0] == self.avail:
                break
            assert self.read(20, 1) == 0xF
        flags, index = struct.unpack("<HH", self.memory.read(at + 0x300, 4))
        assert index == self.avail, "the request did not come back"
        assert flags in (0, 1)  # 1: the queue polls and need not be notified
        assert self.memory.read(at + 0xF00, 1) == b"\0"
        return self.memory.read(at + 0xA00, 512)

    def works(self):
        data = os.urandom(512)
        self.transfer(1, 77, data)
        assert self.transfer(0, 77) == data


# --- QEMU 11.1 ----------------------------------------------------------------------------------------------

QEMU_VERSION = bytes.fromhex("0000 0100 d6000000 00000000 00000000 0000 0000") + \
    b'{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, "max_data_xfer_size": 1048576, ' \
    b'"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "write_multiple": true}}\0'


class Qemu(Peer):
    """Ids count up from 0. Replies are read by header, then the rest."""

    def __init__(self, server):
        super().__init__(server.path, itertools.count())

    def version(self):
        assert len(QEMU_VERSION) == 214
        next(self.number)
        self.say(QEMU_VERSION)
        head = HEADER.unpack(self.read_once(16))
        assert head[:2] == (0, VERSION) and head[3:] == (REPLY, 0)
        assert head[2] <= 214, "QEMU: reply larger than recv buffer"
        body = self.read_once(head[2] - 16)
        assert len(body) == head[2] - 16 and body[:4] == bytes(4), "QEMU: incompatible server version"
        assert body[-1:] == b"\0" and b"\0" not in body[4:-1]
        said = json.loads(body[4:-1])["capabilities"]
        assert said["max_msg_fds"] <= 16 and 4096 < said["max_data_xfer_size"] <= 64 << 20 and said["max_dma_maps"] <= 65535
        assert said["pgsizes"] == 4096
        assert set(said) <= {"pgsizes", "max_msg_fds", "max_dma_maps", "max_data_xfer_size", "write_multiple"}

    def call(self, command, layout, *values, answer=None, **kwargs):
        """A request whose reply is the header, or `answer`: a layout and its values."""
        msg_id = self.ask(command, layout, *values, **kwargs)
        self.hear(reply(msg_id, command, *(answer or ("",))))

    def read(self, region, offset, count, data=None):
        """What it reads, or the check that it is `data`."""
        msg_id = self.ask(READ, "QII", offset, region, count)
        if data is not None:
            self.hear(reply(msg_id, READ, "QII", offset, region, count, tail=data))
            return data
        got = self.read_once(32 + count)
        assert got[:32] == reply(msg_id, READ, "QII", offset, region, count, tail=bytes(count))[:32]
        return got[32:]

    def write(self, region, offset, data, posted=False):
        """Configuration space waits for its reply, BARs are posted."""
        msg_id = self.ask(WRITE, "QII", offset, region, len(data), tail=data, flags=NO_REPLY if posted else 0)
        if not posted:
            self.hear(reply(msg_id, WRITE, "QII", offset, region, len(data)))

    def set_irqs(self, flags, index, start, count, fds=()):
        self.call(SET_IRQS, "IIIII", 20, flags, index, start, count, fds=fds)

    def remap(self, unmaps, maps):
        """A transaction of its memory API: all requests go out, then the replies are taken."""
        due = []
        for addr, size in unmaps:
            msg_id = self.ask(DMA_UNMAP, "IIQQ", 24, 0, addr, size)
            due.append(reply(msg_id, DMA_UNMAP, "IIQQ", 24, 0, addr, size))
        for addr, size, offset, flags, fd in maps:
            msg_id = self.ask(DMA_MAP, "IIQQQ", 32, flags, offset, addr, size, fds=[fd] if fd is not None else [])
            due.append(reply(msg_id, DMA_MAP))
        for each in due:
            self.hear(each)
        self.quiet()

    def realize(self, ram):
        """From VERSION to the end of the device's realize: steps 1 to 8."""
        self.version()
        fd = ram.fd
        self.remap([], [(0, 0xC0000, 0, 3, fd), (0xC0000, 0x20000, 0xC0000, 1, fd), (0xE0000, 0x20000, 0, 1, None),
                        (0x100000, (16 << 20) - 0x100000, 0x100000, 3, fd), (0xFFFC0000, 0x40000, 0, 1, None)])
        self.call(GET_INFO, "IIII", 16, 0, 0, 0, answer=("IIII", 16, 3, 9, 5))
        for index in (0, 1, 2, 3, 4, 5, 7):
            msg_id = self.ask(REGION_INFO, "IIIIQQ", 32, 0, index, 0, 0, 0)
            self.hear(region_info_of(msg_id, index))
        self.call(IRQ_INFO, "IIII", 16, 0, ERR, 0, answer=("IIII", 16, 1, ERR, 1))
        self.read(CONFIG, 0, 4096, CONFIG_SPACE)
        self.read(CONFIG, 0x30, 4, bytes(4))
        self.write(CONFIG, 0x30, bytes.fromhex("00f8ffff"))
        self.read(CONFIG, 0x30, 4, bytes(4))
        self.write(CONFIG, 0x30, bytes(4))
        for bar in range(6):
            at = 0x10 + 4 * bar
            self.read(CONFIG, at, 4, CONFIG_SPACE[at:at + 4])
        for at, size in ((0x42, 2), (0x44, 4), (0x48, 4)):
            self.read(CONFIG, at, size, CONFIG_SPACE[at:at + size])
        self.call(IRQ_INFO, "IIII", 16, 0, MSIX, 0, answer=("IIII", 16, 3, MSIX, 2))

    def arm_intx(self, event):
        self.read(CONFIG, 0x3D, 1, b"\1")
        self.set_irqs(0x24, INTX, 0, 1, [event.fd])

    def machine_reset(self, intx):
        """Step 9."""
        self.set_irqs(0x21, INTX, 0, 0)
        self.write(CONFIG, 4, bytes(2))
        self.call(RESET, "")
        self.arm_intx(intx)
        for bar in range(6):
            self.write(CONFIG, 0x10 + 4 * bar, bytes(4))

    def registers(self, msix=True):
        """How the guest's accesses to BAR 4 travel. On INTx each is followed by an unmask."""
        def unmask():
            if not msix:
                self.set_irqs(0x11, INTX, 0, 1)

        def read(offset, size):
            data = self.read(BAR4, offset, size)
            unmask()
            return int.from_bytes(data, "little")

        def write(offset, size, value):
            self.write(BAR4, offset, value.to_bytes(size, "little"), posted=True)
            unmask()
        return {"read": read, "write": write}


@pytest.fixture
def qemu(server):
    client = Qemu(server)
    yield client
    client.close()


def test_qemu_from_realize_over_firmware_to_the_guests_driver_and_its_end(qemu, ram, eventfd):
    qemu.realize(ram)
    intx = eventfd()
    qemu.arm_intx(intx)
    qemu.set_irqs(0x24, ERR, 0, 1, [eventfd().fd])
    qemu.machine_reset(intx)
    # 10: the firmware moves the ROM area about by the PAM registers, while its own driver's queue is live. It sizes BARs.
    for bar in range(6):
        at = 0x10 + 4 * bar
        qemu.write(CONFIG, at, b"\xFF" * 4)
        qemu.read(CONFIG, at, 4, struct.pack("<I", BAR_MASKS[bar]))
        qemu.write(CONFIG, at, struct.pack("<I", 0xFE000000 + 0x10000 * bar if BAR_MASKS[bar] and bar < 5 else 0))
    qemu.write(CONFIG, 4, bytes.fromhex("0600"))
    fd, top = ram.fd, (16 << 20) - 0x100000
    firmware = Disk(ram, 0x10000, 0x10000, **qemu.registers(msix=False))
    firmware.works()
    qemu.remap([(0, 0xC0000), (0xC0000, 0x20000), (0xE0000, 0x20000), (0x100000, top)],
               [(0, 0xC0000, 0, 3, fd), (0xC0000, 0x40000, 0xC0000, 3, fd), (0x100000, top, 0x100000, 3, fd)])
    firmware.works()
    qemu.remap([(0, 0xC0000), (0xC0000, 0x40000), (0x100000, top)],
               [(0, 0xD0000, 0, 3, fd), (0xD0000, 0x30000, 0xD0000, 1, fd), (0x100000, top, 0x100000, 3, fd)])
    firmware.works()
    assert intx.clear(), "the firmware's requests interrupt by INTx"
    # 11: the guest's driver takes MSI-X, a vector at a time and some of them more than once.
    qemu.write(CONFIG, 0x42, bytes.fromhex("0080"))
    qemu.set_irqs(0x21, INTX, 0, 0)
    vectors = [eventfd(), eventfd()]
    for _ in range(3):
        qemu.set_irqs(0x24, MSIX, 0, 1, [vectors[0].fd])
    qemu.set_irqs(0x24, MSIX, 1, 1, [vectors[1].fd])
    driver = Disk(ram, 0x200000, 0x200000, vector=1, **qemu.registers())
    assert vectors[1].clear() == 0
    driver.works()
    assert vectors[1].wait() and not vectors[0].pending() and not intx.pending()
    # QEMU has the table, and asks for the pending bits.
    qemu.read(2, 0, 8, bytes(8))
    # The driver goes: MSI-X off, INTx back. Then the machine is reset, and it all begins again.
    qemu.write(CONFIG, 0x42, bytes(2))
    qemu.set_irqs(0x21, MSIX, 0, 0)
    qemu.set_irqs(0x24, INTX, 0, 1, [intx.fd])
    qemu.machine_reset(intx)
    qemu.read(CONFIG, 0, 4096, CONFIG_SPACE)
    Disk(ram, 0x10000, 0x10000, **qemu.registers(msix=False)).works()
    qemu.quiet(0.05)


def test_qemu_posted_writes_are_never_answered_whatever_they_are(qemu, ram):
    """A reply to one of them ends QEMU's connection: also a refusal would."""
    qemu.realize(ram)
    for region, offset, size in ((BAR4, 20, 1), (BAR4, 0x3000, 2), (BAR4, 0x3FFF, 4), (BAR4, 1 << 40, 8), (0, 0, 4), (99, 0, 4)):
        qemu.write(region, offset, bytes(size), posted=True)
    qemu.ask(WRITE, "QII", 0, BAR4, 4096, tail=b"1234", flags=NO_REPLY)  # count and data disagree
    qemu.ask(77, "", flags=NO_REPLY)
    qemu.quiet(0.1)
    qemu.call(GET_INFO, "IIII", 16, 0, 0, 0, answer=("IIII", 16, 3, 9, 5))


def test_qemu_refusals_are_a_header_and_nothing_else(qemu, ram):
    qemu.realize(ram)
    for command, layout, values in ((DMA_UNMAP, "IIQQ", (24, 0, 5 << 30, 4096)), (READ, "QII", (4096, CONFIG, 4)),
                                    (REGION_INFO, "IIIIQQ", (32, 0, 99, 0, 0, 0)), (IRQ_INFO, "IIII", (16, 0, 9, 0)),
                                    (DMA_MAP, "IIQQQ", (32, 3, 0, 0, 4096))):
        msg_id = qemu.ask(command, layout, *values)
        head = HEADER.unpack(qemu.read_once(4096))
        assert head[:4] == (msg_id, command, 16, REPLY | ERROR) and head[4] > 0
    qemu.quiet(0.05)


def test_qemu_with_memory_that_is_not_shared_maps_all_of_it_without_fds(qemu):
    qemu.version()
    qemu.remap([], [(0, 0xC0000, 0, 3, None), (0xC0000, 0x40000, 0xC0000, 1, None), (0x100000, 1 << 30, 0x100000, 3, None),
                    (0xFFFC0000, 0x40000, 0, 1, None), (1 << 32, 1 << 34, 3 << 30, 3, None)])
    qemu.read(CONFIG, 0, 4096, CONFIG_SPACE)


# --- Cloud Hypervisor ---------------------------------------------------------------------------------------

CH_VERSION = bytes.fromhex("0000 0100 70000000 00000000 00000000 0000 0100") + \
    b'{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}\0'


class CloudHypervisor(Peer):
    """Ids count up from 0; one request at a time; reads the size of the good reply, whatever the header says."""

    def __init__(self, server):
        super().__init__(server.path, itertools.count())

    def version(self):
        assert len(CH_VERSION) == 0x70
        next(self.number)
        self.say(CH_VERSION)
        head = self.read_once(20)
        msg_id, command, size, flags, errno, major, _ = struct.unpack("<HHIIIHH", head)
        assert (msg_id, command, flags, errno, major) == (0, VERSION, REPLY, 0, 0)
        text = self.read_once(size - 20)
        assert len(text) == size - 20 and text[-1:] == b"\0"
        said = json.loads(text[:-1])["capabilities"]
        assert set(said) <= {"max_msg_fds", "max_data_xfer_size"} and all(0 < value < 1 << 32 for value in said.values())

    def call(self, command, layout, *values, answer=None, **kwargs):
        msg_id = self.ask(command, layout, *values, **kwargs)
        self.hear(reply(msg_id, command, *(answer or ("",))))

    def read(self, region, offset, size):
        """The reply's head and its data, each by a read of its own."""
        msg_id = self.ask(READ, "QII", offset, region, size)
        got = self.read_once(32)
        assert got == reply(msg_id, READ, "QII", offset, region, size, tail=bytes(size))[:32]
        return int.from_bytes(self.read_once(size), "little")

    def write(self, region, offset, size, value):
        msg_id = self.ask(WRITE, "QII", offset, region, size, tail=value.to_bytes(size, "little"))
        self.hear(reply(msg_id, WRITE, "QII", offset, region, size))

    def config(self, offset, size):
        return self.read(CONFIG, offset, size)

    def irq_info(self, index):
        msg_id = self.ask(IRQ_INFO, "IIII", 16, 0, index, 0)
        got = self.read_once(32)
        assert got[:16] == reply(msg_id, IRQ_INFO, tail=bytes(16))[:16]
        argsz, _, same, count = struct.unpack("<IIII", got[16:])
        assert (argsz, same) == (16, index)
        return count

    def add_device(self, ram):
        """Its steps 1 to 8; gives the number of MSI-X vectors."""
        self.version()
        # 2, with the header counted in by mistake.
        self.call(GET_INFO, "IIII", 32, 0, 0, 0, answer=("IIII", 16, 3, 9, 5))
        # 3: none of the regions asks to be asked again with a larger argsz, so each is asked once.
        for index in range(9):
            msg_id = self.ask(REGION_INFO, "IIIIQQ", 32, 0, index, 0, 0, 0)
            self.hear(region_info_of(msg_id, index))
        # 4: its test of the flag is inverted, so a device that can be reset is not.
        # 5: a word of status, then the list.
        assert self.config(6, 2) & 0x10
        at, first = self.config(0x34, 1), None
        vectors = 0
        while at:
            kind = self.config(at, 1)
            first = kind if first is None else first
            if kind == 0x11:
                vectors = self.irq_info(MSIX)
                assert vectors == (self.config(at + 2, 2) & 0x7FF) + 1
                table, pba = self.config(at + 4, 4), self.config(at + 8, 4)
                assert table & 0xFF8 == 0 and pba & 0xFF8 == 0, "CH makes a BAR twice as large for a table inside a page"
            at = self.config(at + 1, 1)
        assert first == 0x11, "CH walks the list up to MSI-X for each dword of configuration that the guest reads"
        assert self.config(0x100, 4) == 0, "CH would walk all ones for ever"
        # 6: no INTx, or each BAR access would cost an unmask too.
        assert self.irq_info(INTX) == 0
        # 7
        self.call(DMA_MAP, "IIQQQ", 32, 3, 0, 0, 16 << 20, fds=[ram.fd])
        # 8: BARs and the ROM, sized through configuration space.
        for bar in range(6):
            self.config(0x10 + 4 * bar, 4)
            self.write(CONFIG, 0x10 + 4 * bar, 4, 0xFFFFFFFF)
            assert self.config(0x10 + 4 * bar, 4) == BAR_MASKS[bar]
        self.config(0x30, 4)
        self.write(CONFIG, 0x30, 4, 0xFFFFFFFF)
        assert self.config(0x30, 4) == 0
        return vectors

    def guest_reads_config(self, at):
        """MSI-X is looked for first, each time."""
        assert self.config(0x34, 1) == 0x40 and self.config(0x40, 1) == 0x11
        return self.config(at, 4)

    def enable_msix(self, events):
        """All vectors, in batches of 16 whatever was agreed on, and the register after them."""
        for start in range(0, len(events), 16):
            batch = [event.fd for event in events[start:start + 16]]
            self.call(SET_IRQS, "IIIII", 20, 0x24, MSIX, start, len(batch), fds=batch)
        self.write(CONFIG, 0x42, 2, 0x8000)

    def remove_device(self):
        self.call(DMA_UNMAP, "IIQQ", 24, 0, 0, 16 << 20, answer=("IIQQ", 24, 0, 0, 16 << 20))
        self.call(SET_IRQS, "IIIII", 20, 0x21, MSIX, 0, 0)
        self.quiet(0.02)
        self.sock.shutdown(socket.SHUT_RDWR)
        self.close()

    def registers(self):
        return {"read": lambda offset, size: self.read(BAR4, offset, size),
                "write": lambda offset, size, value: self.write(BAR4, offset, size, value)}


def test_ch_adds_the_device_runs_a_guest_removes_it_and_comes_again(server, ram, eventfd):
    """A reboot of the guest is a new connection to the same path."""
    for _ in range(3):
        client = CloudHypervisor(server)
        vectors = client.add_device(ram)
        assert client.guest_reads_config(0) == 0x10421AF4
        events = [eventfd() for _ in range(vectors)]
        client.write(CONFIG, 4, 2, 6)
        client.enable_msix(events)
        driver = Disk(ram, 0x200000, 0x200000, vector=1, **client.registers())
        driver.works()
        assert events[1].wait()
        client.remove_device()


@pytest.mark.parametrize("queues", [15, 16, 19, 31, 40])
def test_ch_enables_all_vectors_in_batches_of_sixteen(serve, ram, eventfd, queues):
    """It has said max_msg_fds 1."""
    client = CloudHypervisor(serve("ram:16M", f"--queues={queues}"))
    client.version()
    count = client.irq_info(MSIX)
    assert count == queues + 1
    events = [eventfd() for _ in range(count)]
    client.call(DMA_MAP, "IIQQQ", 32, 3, 0, 0, 16 << 20, fds=[ram.fd])
    client.write(CONFIG, 4, 2, 6)
    client.enable_msix(events)
    Disk(ram, 0x200000, 0x200000, vector=count - 1, **client.registers()).works()
    assert events[-1].wait() and not any(event.pending() for event in events[:-1])
    client.remove_device()


def test_ch_hot_plugs_memory_and_unplugs_it(server, ram):
    """virtio-mem: parts of a file, each at its offset; an unmap's reply has 40 bytes."""
    client = CloudHypervisor(server)
    client.add_device(ram)
    with GuestMemory(8 << 20) as more:
        for part in range(4):
            client.call(DMA_MAP, "IIQQQ", 32, 3, part << 21, (1 << 32) + (part << 21), 2 << 20, fds=[more.fd])
        driver = Disk(more, 3 << 21, (1 << 32) + (3 << 21), **client.registers())
        driver.works()
        client.write(BAR4, 20, 1, 0)
        for part in range(4):
            addr = (1 << 32) + (part << 21)
            client.call(DMA_UNMAP, "IIQQ", 24, 0, addr, 2 << 20, answer=("IIQQ", 24, 0, addr, 2 << 20))
    client.remove_device()


# Requests that are refused, and how much CH reads of the reply.
CH_REFUSED = [
    (READ, "QII", (4096, CONFIG, 4), 36), (READ, "QII", (0, 3, 8), 40), (READ, "QII", (1 << 63, BAR4, 2), 34),
    (WRITE, "QIII", (16384, BAR4, 4, 7), 32), (WRITE, "QIIB", (0, 99, 1, 7), 32), (DMA_UNMAP, "IIQQ", (24, 0, 4096, 4096), 40),
    (GET_INFO, "IIII", (8, 0, 0, 0), 32), (IRQ_INFO, "IIII", (16, 0, 5, 0), 32), (DMA_MAP, "IIQQQ", (32, 3, 0, 0, 0), 16),
    (SET_IRQS, "IIIII", (20, 0x24, MSIX, 500, 1), 16), (REGION_INFO, "IIIIQQ", (32, 0, 9, 0, 0, 0), 48),
]


def test_ch_refusals_are_as_long_as_the_good_reply_and_hold_nothing(server, ram):
    """It never looks at the error, and waits for all of the bytes with its lock held. What fills them up tells it nothing."""
    client = CloudHypervisor(server)
    client.add_device(ram)
    for command, layout, values, size in CH_REFUSED:
        msg_id = client.ask(command, layout, *values)
        got = client.read_once(4096)
        assert len(got) == size, f"command {command}: {size} bytes are waited for, {len(got)} came"
        head = HEADER.unpack(got[:16])
        assert head[:4] == (msg_id, command, size, REPLY | ERROR) and head[4] > 0
        assert got[16:] == bytes(size - 16)
    client.remove_device()


# --- SPDK ---------------------------------------------------------------------------------------------------

class Spdk(Peer):
    """Every id is 0. A header by one recvmsg, and if that has no error the rest by one read(), which must be all of it."""

    def __init__(self, server):
        super().__init__(server.path, itertools.repeat(0))

    def request(self, command, layout, *values, tail=b"", fds=()):
        """The reply's payload, or None for an error, which SPDK gives back as EFAULT."""
        self.ask(command, layout, *values, tail=tail, fds=fds)
        msg_id, same, size, flags, errno = HEADER.unpack(self.read_once(16))
        assert (msg_id, same) == (0, command)
        if flags & ERROR:
            assert size == 16 and errno > 0, "what is behind the header would be taken for the next reply"
            return None
        assert flags == REPLY and 16 <= size <= 16 + 4096
        if size == 16:
            return b""
        payload = self.read_once(4096)
        assert len(payload) == size - 16, "the reply came in pieces"
        return payload

    def read(self, region, offset, size):
        payload = self.request(READ, "QII", offset, region, size)
        assert payload[:16] == struct.pack("<QII", offset, region, size)
        return int.from_bytes(payload[16:], "little")

    def write(self, region, offset, size, value):
        payload = self.request(WRITE, "QII", offset, region, size, tail=value.to_bytes(size, "little"))
        assert payload == struct.pack("<QII", offset, region, size)

    def set_up(self):
        assert self.request(VERSION, "HH", 0, 1)[:2] == bytes(2)
        assert self.request(GET_INFO, "IIII", 16, 0, 0, 0) == struct.pack("<IIII", 16, 3, 9, 5)
        for index in range(9):
            # Its buffer has 4,096 bytes; argsz is that without the structure, and so much is sent.
            payload = self.request(REGION_INFO, "IIIIQQ", 4064, 0, index, 0, 0, 0, tail=bytes(4064 - 32))
            size = REGION_SIZES[index]
            assert payload == struct.pack("<IIIIQQ", 32, 3 if size else 0, index, 0, size, 0)


@pytest.fixture
def spdk(server):
    client = Spdk(server)
    yield client
    client.close()


def test_spdk_polls_a_disk_without_any_interrupt(spdk, ram):
    """It says no JSON at all. Guest memory lies at its own addresses."""
    spdk.set_up()
    iova = 0x2000_0000_0000
    for size, offset in ((8 << 20, 0), (8 << 20, 8 << 20)):
        assert spdk.request(DMA_MAP, "IIQQQ", 32, 3, offset, iova + offset, size, fds=[ram.fd]) == b""
    # virtio-pci: the capabilities one field at a time.
    at, found = spdk.read(CONFIG, 0x34, 1), []
    while at:
        found.append(spdk.read(CONFIG, at, 1))
        at = spdk.read(CONFIG, at + 1, 1)
    assert found.count(9) == 5
    spdk.write(CONFIG, 4, 2, 0x406)
    disk = Disk(ram, 9 << 20, iova + (9 << 20), lambda offset, size: spdk.read(BAR4, offset, size),
                lambda offset, size, value: spdk.write(BAR4, offset, size, value))
    for _ in range(20):
        disk.works()
    spdk.write(BAR4, 20, 1, 0)
    for size, offset in ((8 << 20, 0), (8 << 20, 8 << 20)):
        payload = spdk.request(DMA_UNMAP, "IIQQ", 24, 0, iova + offset, size, fds=[ram.fd])
        assert payload == struct.pack("<IIQQ", 24, 0, iova + offset, size)
    spdk.quiet(0.02)


def test_spdk_refusals_keep_its_stream_together(spdk, ram):
    spdk.set_up()
    assert spdk.request(DMA_UNMAP, "IIQQ", 24, 0, 0, 4096, fds=[ram.fd]) is None
    assert spdk.request(READ, "QII", 5000, CONFIG, 4) is None
    assert spdk.request(REGION_INFO, "IIIIQQ", 4064, 0, 200, 0, 0, 0, tail=bytes(4064 - 32)) is None
    assert spdk.request(DMA_MAP, "IIQQQ", 32, 3, 0, 0, 16 << 20, fds=[ram.fd]) == b""
    assert spdk.request(DMA_MAP, "IIQQQ", 32, 3, 0, 0, 16 << 20, fds=[ram.fd]) is None
    assert spdk.read(CONFIG, 0, 4) == 0x10421AF4


def test_spdk_reads_four_kilobytes_of_configuration_in_one_read(spdk):
    """Its payload has room for 4,096 bytes, of which the access's head takes 16."""
    spdk.set_up()
    for _ in range(200):
        payload = spdk.request(READ, "QII", 0, CONFIG, 4080)
        assert payload[16:] == CONFIG_SPACE[:4080]


# --- libvfio-user's sample ----------------------------------------------------------------------------------

def test_libvfio_users_sample_client_looks_around_and_takes_its_interrupt(server, ram, eventfd):
    """Its ids are constants, several requests in a row have the same one; access ids count down."""
    client = Peer(server.path, itertools.count())
    text = b'{"capabilities":{"max_msg_fds":32,"max_data_xfer_size":1024,"migration":{"pgsize":4096}}}\0'
    client.number = iter([0xDA55])
    client.ask(VERSION, "HH", 0, 2, tail=text)
    head = HEADER.unpack(client.read_once(16))
    assert head[:2] == (0xDA55, VERSION) and head[3:] == (REPLY, 0)
    body = client.read_once(4096)
    assert body[:4] in (bytes.fromhex("00000000"), bytes.fromhex("00000100"), bytes.fromhex("00000200")) and body[-1] == 0

    def ask(msg_id, command, layout, *values, answer=None, **kwargs):
        client.number = iter([msg_id])
        client.ask(command, layout, *values, **kwargs)
        client.hear(reply(msg_id, command, *(answer or ("",))))
    ask(1, RESET, "")
    ask(0xB10C, GET_INFO, "IIII", 16, 0, 0, 0, answer=("IIII", 16, 3, 9, 5))
    for index in range(9):
        client.number = iter([0xABCD])
        client.ask(REGION_INFO, "IIIIQQ", 32, 0, index, 0, 0, 0)
        client.hear(region_info_of(0xABCD, index))
    for index, flags, count in ((INTX, 7, 1), (MSI, 0, 0), (MSIX, 3, 2), (ERR, 1, 1), (REQ, 1, 1)):
        ask(0x1BAD, IRQ_INFO, "IIII", 16, 0, index, 0, answer=("IIII", 16, flags, index, count))
    event = eventfd()
    ask(0x1BAE, SET_IRQS, "IIIII", 20, 0x24, INTX, 0, 1, fds=[event.fd])
    for number in range(32):
        ask(0x1234 + number, DMA_MAP, "IIQQQ", 32, 3, 0x10000 * number, 0x10000 * number, 0x10000, fds=[ram.fd])
    ids = itertools.count(0xF00F, -1)

    def write(offset, size, value):
        ask(next(ids), WRITE, "QII", offset, BAR4, size, tail=value.to_bytes(size, "little"),
            answer=("QII", offset, BAR4, size))

    def read(offset, size):
        msg_id = next(ids)
        client.number = iter([msg_id])
        client.ask(READ, "QII", offset, BAR4, size)
        got = client.read_once(32 + size)
        assert got[:32] == reply(msg_id, READ, "QII", offset, BAR4, size, tail=bytes(size))[:32]
        return int.from_bytes(got[32:], "little")
    disk = Disk(ram, 0x20000, 0x20000, read, write)
    disk.works()
    assert event.wait(), "INTx, as it was asked for"
    assert read(0x1000, 1) == 1, "the interrupt status, which this read clears"
    # Unmapping: each region by itself, then what is left has gone.
    write(20, 1, 0)
    for number in range(32):
        ask(0x1234, DMA_UNMAP, "IIQQ", 24, 0, 0x10000 * number, 0x10000, answer=("IIQQ", 24, 0, 0x10000 * number, 0x10000))
    client.quiet(0.02)
    client.close()
