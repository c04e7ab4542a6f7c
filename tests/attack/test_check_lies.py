# SPDX-License-Identifier: BSD-3-Clause
"""Each thing that a vfio-user server may do wrong is found by the test of `sidecard check` that is about it. What does wrong is a proxy
before a server that does not (pylib/liar.py)."""

import os
import socket
import struct
import threading

import pytest

from pylib import wire
from pylib.checks import Over, assert_all_passed, assert_found
from pylib.events import patiently
from pylib.liar import Lie, Liar, Memory, answer
from pylib.server import Server, Workdir
from pylib.wire import Cmd

CONFIG = wire.CONFIG


@pytest.fixture(scope="module")
def behind():
    """A server that tells the truth."""
    folder = Workdir()
    server = Server(folder, "ram:16M", "--queues=4", device="virtio-blk", transport="vfio-user").start()
    yield server
    server.finish()
    folder.remove()


def test_a_server_behind_an_honest_proxy_passes(behind, workdir):
    """What the tests below find is then the lie, and not the proxy."""
    with Liar(workdir.path / "p", behind.path, Lie()):
        # What a proxy with one client at a time cannot do is left out.
        for only in ("version/*", "message/*", "d*", "reg*", "set-irqs/*", "pci/*", "virtio-pci/*", "reset/*", "feature/*", "load/*"):
            assert_all_passed(workdir.path / "p", only=only)


# --- lies -------------------------------------------------------------------------------------------------------

class Replies(Lie):
    """Changes replies to a command: edit(command, reply) returns what is sent."""

    def __init__(self, cmd, edit, errors=False):
        self.cmd, self.edit, self.errors = cmd, edit, errors

    def reply(self, command, message):
        if command is None or (self.cmd is not None and message.cmd != self.cmd) or (message.is_error and not self.errors):
            return message
        return self.edit(command, message)


class Instead(Lie):
    """Answers commands that `when` picks with make(command), or with a success of `payload`; they don't go on."""

    def __init__(self, cmd, when=lambda command: True, payload=b"", errno=None):
        self.cmd, self.when, self.payload, self.errno = cmd, when, payload, errno

    def command(self, message):
        if message.cmd != self.cmd or not self.when(message):
            return message
        payload = self.payload(message) if callable(self.payload) else self.payload
        return self.proxy.tell_instead(message, payload, self.errno)


class Errors(Lie):
    """Makes successes of refusals."""

    def __init__(self, cmd=None, payload=b""):
        self.cmd, self.payload = cmd, payload

    def reply(self, command, message):
        if command is None or not message.is_error or self.cmd not in (None, message.cmd):
            return message
        return answer(command, self.payload(command) if callable(self.payload) else self.payload)


def with_field(offset, value, form="=I"):
    """An edit that puts a number into the payload; value may be a function of the old one."""
    def edit(_, message):
        payload = bytearray(message.payload)
        if len(payload) >= offset + struct.calcsize(form):
            old = struct.unpack_from(form, payload, offset)[0]
            struct.pack_into(form, payload, offset, value(old) if callable(value) else value)
        message.payload = bytes(payload)
        return message
    return edit


def with_header(**fields):
    def edit(_, message):
        for name, value in fields.items():
            setattr(message, name, value(getattr(message, name)) if callable(value) else value)
        return message
    return edit


def with_size(delta):
    def edit(_, message):
        return wire.pack(message.cmd, message.payload, msg_id=message.msg_id, flags=message.flags, size=16 + len(message.payload) + delta)
    return edit


def with_json(text):
    def edit(_, message):
        message.payload = message.payload[:4] + text
        return message
    return edit


class Quiet(Lie):
    """Answers what wanted no answer."""

    def __init__(self, errors):
        self.errors = errors

    def command(self, message):
        known = message.cmd in Cmd._value2member_map_ and len(message.payload) >= 16
        if message.flags & wire.NO_REPLY and known != self.errors:
            self.proxy.tell(answer(message, errno=22 if self.errors else None))
        return message


class Dropped(Lie):
    """NO_REPLY commands get lost."""

    def command(self, message):
        return None if message.flags & wire.NO_REPLY else message


class Swapped(Lie):
    """The answer to the second of two commands comes before that to the first."""

    def __init__(self):
        self.held = None

    def reply(self, command, message):
        if message.cmd != Cmd.GET_INFO or not self.proxy.commands:
            held, self.held = self.held, None
            return [message, held] if held else message
        if self.held is None:
            self.held = message
            return None
        held, self.held = self.held, None
        return [message, held]


class Deaf(Lie):
    """Lets no client in once one has left within a message."""

    def __init__(self):
        self.count = 0

    def connected(self):
        self.count += 1
        if self.count > 12:
            self.proxy.client.shutdown(socket.SHUT_RDWR)


class Config(Lie):
    """Configuration space with something wrong: read(offset, size, value) makes what is read; write(offset, data) says what goes on."""

    def __init__(self, read=None, write=None):
        self.on_read, self.on_write = read, write

    def command(self, message):
        if message.cmd == Cmd.REGION_WRITE and self.on_write and len(message.payload) >= 16:
            offset, region, count = struct.unpack_from("=QII", message.payload)
            if region == CONFIG:
                data = self.on_write(offset, message.payload[16:])
                if data is None:
                    return self.proxy.tell_instead(message, message.payload[:16])
                message.payload = message.payload[:16] + data
        return message

    def reply(self, command, message):
        if command is None or message.cmd != Cmd.REGION_READ or message.is_error or not self.on_read:
            return message
        offset, region, count = struct.unpack_from("=QII", message.payload)
        if region == CONFIG and count <= 4:
            value = self.on_read(offset, count, int.from_bytes(message.payload[16:], "little"))
            message.payload = message.payload[:16] + (value & (1 << 8 * count) - 1).to_bytes(count, "little")
        return message


class Kept(Config):
    """Bytes of configuration space can be written that are read-only."""

    def __init__(self, *offsets):
        self.bytes, self.offsets = {}, offsets
        super().__init__(self.get, self.put)

    def put(self, offset, data):
        for i, byte in enumerate(data):
            if offset + i in self.offsets:
                self.bytes[offset + i] = byte
        return data

    def get(self, offset, size, value):
        raw = bytearray(value.to_bytes(size, "little"))
        for i in range(size):
            raw[i] = self.bytes.get(offset + i, raw[i])
        return int.from_bytes(raw, "little")


class Register(Lie):
    """A register of a BAR reads as something else; `when`: region, offset, size and the true value say which."""

    def __init__(self, when, value):
        self.when, self.value = when, value

    def reply(self, command, message):
        if command is None or message.cmd != Cmd.REGION_READ or message.is_error:
            return message
        offset, region, count = struct.unpack_from("=QII", message.payload)
        true = int.from_bytes(message.payload[16:], "little")
        if count in (1, 2, 4) and self.when(region, offset, count):
            message.payload = message.payload[:16] + (self.value(true) & (1 << 8 * count) - 1).to_bytes(count, "little")
        return message


class NoWrite(Lie):
    """Writes to a BAR's register are answered, and not done."""

    def __init__(self, when):
        self.when = when

    def command(self, message):
        if message.cmd == Cmd.REGION_WRITE and len(message.payload) >= 16:
            offset, region, count = struct.unpack_from("=QII", message.payload)
            if self.when(region, offset, message.payload[16:]):
                return self.proxy.tell_instead(message, message.payload[:16])
        return message


class HoldsOn(Lie):
    """Keeps the memory mapped that a client has shown."""

    def __init__(self, unmaps=True):
        self.memory = Memory()

    def command(self, message):
        self.memory.see(message)
        return message


class OldEventfds(Lie):
    """Signals the eventfds of clients that have gone, too."""

    def __init__(self):
        self.old, self.now = [], []

    def gone(self):
        self.old, self.now = self.old + self.now, []

    def command(self, message):
        if message.cmd == Cmd.SET_IRQS:
            self.now += [os.dup(fd) for fd in message.fds]
            if struct.unpack_from("=I", message.payload, 4)[0] == wire.DATA_NONE | wire.ACTION_TRIGGER:
                for fd in self.old:
                    os.eventfd_write(fd, 1)
        return message


class Spurious(Lie):
    """Signals each eventfd as it comes."""

    def command(self, message):
        if message.cmd == Cmd.SET_IRQS:
            for fd in message.fds:
                os.eventfd_write(fd, 1)
        return message


class Reaches(Lie):
    """Writes to a client's memory after a command was answered, or after the client has gone."""

    def __init__(self, cmd):
        self.cmd, self.memory, self.done = cmd, Memory(), threading.Event()

    def command(self, message):
        self.memory.see(message)
        return message

    def reply(self, command, message):
        if message.cmd == self.cmd and not message.is_error:
            self.write()
        return message

    def gone(self):
        if self.cmd is None:
            self.write()
        else:
            self.memory.forget()

    def write(self):
        pages = [region for address, region in self.memory.regions if address >= 1 << 32]
        self.memory.regions = []

        def work():
            while not self.done.wait(0.0005):
                for each in pages:
                    each[100] = 0
        if pages:
            threading.Thread(target=work, daemon=True).start()


def set_irqs_of(flags, **more):
    def when(command):
        _, has, index, start, count = struct.unpack_from("=IIIII", command.payload)
        return has == flags and all({"count": count, "index": index, "start": start, "fds": len(command.fds)}[name] == value
                                    for name, value in more.items())
    return when


TRIGGER = wire.DATA_NONE | wire.ACTION_TRIGGER
ASSIGN = wire.DATA_EVENTFD | wire.ACTION_TRIGGER
BOOLS = wire.DATA_BOOL | wire.ACTION_TRIGGER
BAR4 = wire.BAR4
COMMON = 0  # where virtio_pci has its common configuration in BAR 4


def common(offset):
    return lambda region, at, size: region == BAR4 and at == COMMON + offset


def read_back(command):
    """Data for a read, as many bytes as were asked for."""
    return command.payload[:16] + bytes(min(struct.unpack_from("=I", command.payload, 12)[0], 1 << 20))


def region_of(command):
    return struct.unpack_from("=I", command.payload, 8)[0]


def no_fds(_, message):
    message.fds = []
    return message


def without_payload(_, message):
    message.payload = b""
    return message


# Lie, the test that has to find it, and a word of what it says.
LIES = {
    "id": (lambda: Replies(Cmd.GET_INFO, with_header(msg_id=lambda old: old ^ 1)), "message/id-echoed", "message ID"),
    "command": (lambda: Replies(Cmd.GET_INFO, with_header(cmd=5)), "message/id-echoed", "number of its command"),
    "type": (lambda: Replies(Cmd.GET_INFO, with_header(flags=2)), "message/id-echoed", "type 1"),
    "size-short": (lambda: Replies(Cmd.GET_INFO, with_size(-20)), "message/id-echoed", "message size"),
    "payload-with-error": (lambda: Replies(None, lambda command, message: answer(command, b"more", 22) if message.is_error else message,
                                           True),
                           "message/unknown-commands", "only include the header"),
    "id-of-the-first": (lambda: Replies(Cmd.GET_INFO, with_header(msg_id=1)), "message/pipelined", "message ID"),
    "order": (Swapped, "message/pipelined", "message ID"),
    "quiet-answered": (lambda: Quiet(False), "message/no-reply", "message ID"),
    "quiet-errors-answered": (lambda: Quiet(True), "message/no-reply-to-errors", "message ID"),
    "quiet-lost": (Dropped, "message/no-reply-in-order", "has been processed"),
    "unknown-done": (Errors, "message/unknown-commands", "no such command"),
    "dma-read-done": (lambda: Errors(Cmd.DMA_READ), "message/commands-of-servers", "the server's to send"),
    "short-done": (lambda: Errors(Cmd.SET_IRQS), "message/too-short", "shorter than its structure"),
    "errors-lost": (lambda: Replies(None, lambda command, message: None if message.is_error else message, True),
                    "message/pipelined-errors", "message ID"),

    "minor": (lambda: Replies(Cmd.VERSION, with_field(2, 7, "=H")), "version/accepted", "minor version"),
    "major": (lambda: Replies(Cmd.VERSION, with_field(0, 3, "=H")), "version/without-data", "major version"),
    "later-minor": (lambda: Instead(Cmd.VERSION, lambda command: command.payload[2] > 0, errno=22), "version/later-minor", "compatible"),
    "no-nul": (lambda: Replies(Cmd.VERSION, with_json(b'{"capabilities":{}}')), "version/data-form", "NUL"),
    "no-object": (lambda: Replies(Cmd.VERSION, with_json(b'[1]\0')), "version/data-form", "JSON object"),
    "no-json": (lambda: Replies(Cmd.VERSION, with_json(b'{"capabilities\0')), "version/data-form", "JSON object"),
    "not-proposed": (lambda: Replies(Cmd.VERSION, with_json(b'{"capabilities":{"max_msg_fds":8}}\0')), "version/capabilities-subset",
                     "subset"),
    "text-for-number": (lambda: Replies(Cmd.VERSION, with_json(b'{"capabilities":{"max_msg_fds":"8"}}\0')), "version/capability-types",
                        "number"),
    "no-data-refused": (lambda: Instead(Cmd.VERSION, lambda command: len(command.payload) == 4, errno=22), "version/without-data",
                        "compatible"),
    "unknown-keys-refused": (lambda: Instead(Cmd.VERSION, lambda command: b"vendor" in command.payload, errno=22),
                             "version/unknown-keys", "compatible"),
    "twin-without-fd": (lambda: Replies(Cmd.VERSION, no_fds), "version/twin-socket", "fd_index"),
    "twin-unasked": (lambda: Replies(Cmd.VERSION, with_json(b'{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}\0')),
                     "version/no-twin-unasked", "if and only if"),
    "other-major-taken": (lambda: Errors(Cmd.VERSION, wire.version(major=0)), "version/other-major", "major version"),
    "cut-short-taken": (lambda: Errors(Cmd.VERSION, wire.version()), "version/cut-short", "refused"),

    "info-argsz": (lambda: Replies(Cmd.GET_INFO, with_field(0, 32)), "device-info/form", "argsz"),
    "info-flags": (lambda: Replies(Cmd.GET_INFO, with_field(4, 1)), "device-info/form", "PCI"),
    "info-regions": (lambda: Replies(Cmd.GET_INFO, with_field(8, 7)), "device-info/form", "num_regions"),
    "info-short": (lambda: Replies(Cmd.GET_INFO, without_payload), "device-info/form", "payload"),
    "region-index": (lambda: Replies(Cmd.GET_REGION_INFO, with_field(8, 3)), "region-info/form", "index"),
    "region-flags": (lambda: Replies(Cmd.GET_REGION_INFO, with_field(4, 0x103)), "region-info/form", "four flags"),
    "region-mmap-without-fd": (lambda: Replies(Cmd.GET_REGION_INFO, with_field(4, 7)), "region-info/form", "file descriptor"),
    "region-config-size": (lambda: Replies(Cmd.GET_REGION_INFO, with_field(16, 300, "=Q")), "region-info/config-region", "256 or 4096"),
    "region-unknown": (lambda: Errors(Cmd.GET_REGION_INFO, lambda command: command.payload), "region-info/no-such-region", "num_regions"),
    "region-argsz": (lambda: Replies(Cmd.GET_REGION_INFO, with_field(0, 16)), "region-info/argsz", "argsz"),
    "irq-index": (lambda: Replies(Cmd.GET_IRQ_INFO, with_field(8, 9)), "irq-info/form", "index"),
    "irq-count": (lambda: Replies(Cmd.GET_IRQ_INFO, with_field(12, 5000)), "irq-info/form", "at most"),
    "irq-flags": (lambda: Replies(Cmd.GET_IRQ_INFO, with_field(4, 0x10)), "irq-info/form", "four flags"),
    "irq-unknown": (lambda: Errors(Cmd.GET_IRQ_INFO, lambda command: command.payload), "irq-info/no-such-irq", "num_irqs"),
    "io-fds-index": (lambda: Replies(Cmd.GET_REGION_IO_FDS, with_field(16 + 16, 99)), "region-io-fds/form", "fd_index"),
    "io-fds-place": (lambda: Replies(Cmd.GET_REGION_IO_FDS, with_field(16, 1 << 60, "=Q")), "region-io-fds/form", "lies in its region"),
    "io-fds-unknown": (lambda: Errors(Cmd.GET_REGION_IO_FDS, lambda command: command.payload), "region-io-fds/refused", "num_regions"),

    "read-two": (lambda: Config(lambda offset, size, value: value ^ 1 if size == 2 else value), "region-read/widths", "two bytes"),
    "read-four": (lambda: Config(lambda offset, size, value: value ^ 1 if size == 4 else value), "region-read/config-at-once",
                  "one message"),
    "read-odd": (lambda: Config(lambda offset, size, value: value ^ 1 if offset % 2 and size == 2 else value), "region-read/unaligned",
                 "one by one"),
    "read-head": (lambda: Replies(Cmd.REGION_READ, with_field(0, 64, "=Q")), "region-read/widths", "offset, region and count"),
    "read-without-data": (lambda: Replies(Cmd.REGION_READ, lambda _, message: with_header(payload=message.payload[:16])(_, message)),
                          "region-read/widths", "so many bytes"),
    "read-beyond": (lambda: Errors(Cmd.REGION_READ, read_back), "region-read/beyond", "outside"),
    "read-unknown": (lambda: Errors(Cmd.REGION_READ, read_back), "region-read/no-such-region", "no such region"),
    "read-too-much": (lambda: Errors(Cmd.REGION_READ, read_back), "region-read/too-much", "max_data_xfer_size"),
    "read-nothing": (lambda: Replies(Cmd.REGION_READ, without_payload), "region-read/zero-bytes", "offset, region and count"),
    "write-lost": (lambda: Config(write=lambda offset, data: b"\xff\xff" if offset == 4 else data), "region-write/form", "is there"),
    "write-head": (lambda: Replies(Cmd.REGION_WRITE, without_payload), "region-write/form", "offset, region and count"),
    "write-beyond": (lambda: Errors(Cmd.REGION_WRITE, lambda command: command.payload[:16]), "region-write/beyond", "outside"),
    "write-mismatch": (lambda: Errors(Cmd.REGION_WRITE, lambda command: command.payload[:16]), "region-write/count-mismatch", "4 bytes"),
    "multi-count": (lambda: Replies(Cmd.REGION_WRITE_MULTI, with_field(0, 1, "=Q")), "region-write-multi/form", "completed"),
    "multi-bad": (lambda: Errors(Cmd.REGION_WRITE_MULTI, struct.pack("=Q", 4)), "region-write-multi/refused", "wr_cnt"),

    "map-refused": (lambda: Instead(Cmd.DMA_MAP, lambda command: command.fds, errno=22), "dma-map/with-fd", "has to be done"),
    "map-without-fd-refused": (lambda: Instead(Cmd.DMA_MAP, lambda command: not command.fds, errno=22), "dma-map/without-fd",
                               "has to be done"),
    "map-answered-with-more": (lambda: Replies(Cmd.DMA_MAP, with_header(payload=b"1234")), "dma-map/with-fd", "0 bytes of payload"),
    "map-over": (lambda: Errors(Cmd.DMA_MAP), "dma-map/overlap", "over an existing region"),
    "map-over-errno": (lambda: Replies(Cmd.DMA_MAP, with_header(errno=lambda old: 22 if old else 0), True), "dma-map/overlap", "EEXIST"),
    "map-wraps": (lambda: Errors(Cmd.DMA_MAP), "dma-map/odd-ranges", "note: the server accepted"),
    "map-few": (lambda: Instead(Cmd.DMA_MAP, lambda command: struct.unpack_from("=Q", command.payload, 16)[0] > 0x200000, errno=28),
                "dma-map/many", "has to be done"),
    "map-adjacent": (lambda: Instead(Cmd.DMA_MAP, lambda command: struct.unpack_from("=Q", command.payload, 16)[0] == 0x102000, errno=17),
                     "dma-map/adjacent", "has to be done"),
    "unmap-unknown": (lambda: Errors(Cmd.DMA_UNMAP, lambda command: command.payload), "dma-unmap/unknown", "match exactly"),
    "unmap-echo": (lambda: Replies(Cmd.DMA_UNMAP, without_payload), "dma-unmap/map-again", "payload"),
    "unmap-other": (lambda: Replies(Cmd.DMA_UNMAP, with_field(8, 1, "=Q")), "dma-unmap/map-again", "original DMA entry"),
    "unmap-not-done": (lambda: Instead(Cmd.DMA_UNMAP, payload=lambda command: command.payload), "dma-unmap/map-again", "has to be done"),
    "unmap-holds-on": (HoldsOn, "dma-unmap/lets-go", "release all references"),
    "leave-holds-on": (HoldsOn, "dma-unmap/disconnect-lets-go", "unmapped"),

    "irq-not-triggered": (lambda: Instead(Cmd.SET_IRQS, set_irqs_of(TRIGGER, count=1)), "set-irqs/assigned", "signals its eventfd"),
    "irq-spurious": (Spurious, "set-irqs/assigned", "does nothing"),
    "irq-all-for-some": (lambda: Booleans(), "set-irqs/some", "boolean"),
    "irq-not-replaced": (lambda: Instead(Cmd.SET_IRQS, set_irqs_of(ASSIGN, count=1, fds=1)), "set-irqs/replaced", "set last"),
    "irq-not-taken-away": (lambda: Instead(Cmd.SET_IRQS, set_irqs_of(ASSIGN, fds=0)), "set-irqs/taken-away", "de-assigned"),
    "irq-not-disabled": (lambda: Instead(Cmd.SET_IRQS, set_irqs_of(TRIGGER, count=0)), "set-irqs/disabled", "disable all"),
    "irq-no-mask": (lambda: Instead(Cmd.SET_IRQS, set_irqs_of(wire.DATA_NONE | wire.ACTION_MASK), errno=22), "set-irqs/mask-and-unmask",
                    "MASKABLE"),
    "irq-no-such": (lambda: Errors(Cmd.SET_IRQS), "set-irqs/no-such", "no such type"),
    "irq-no-bools": (lambda: Errors(Cmd.SET_IRQS), "set-irqs/odd-data", "DATA_BOOL"),
    "irq-remembered": (OldEventfds, "set-irqs/forgotten", "disconnects"),

    "reset-refused": (lambda: Instead(Cmd.RESET, errno=22), "reset/form", "has to be done"),
    "reset-not-done": (lambda: Instead(Cmd.RESET), "reset/clears-command", "note: leaves the Command register"),
    "reset-of-virtio-not-done": (lambda: Instead(Cmd.RESET), "virtio-pci/reset-by-message", "upon reset"),
    "feature-any": (lambda: Errors(Cmd.DEVICE_FEATURE, lambda command: command.payload), "feature/refused", "no such feature"),
    "feature-probe": (lambda: Instead(Cmd.DEVICE_FEATURE, payload=b""), "feature/probes", "same as the request"),
    "feature-half": (lambda: Instead(Cmd.DEVICE_FEATURE, lambda command: command.payload[6] & 1, payload=lambda command: command.payload),
                     "feature/probes", "indicated methods"),

    "deaf": (Deaf, "session/leave-anywhere", "replied to"),

    "pci-vendor": (lambda: Config(lambda offset, size, value: 0 if offset == 0 else value), "pci/header", "vendor ID"),
    "pci-writable": (lambda: Kept(0, 1), "pci/read-only", "Vendor ID"),
    "pci-class-writable": (lambda: Kept(9, 10, 11), "pci/read-only", "Class Code"),
    "pci-command": (lambda: Config(lambda offset, size, value: value | 2 if offset == 4 else value), "pci/command", "cleared"),
    "pci-status": (lambda: Kept(6, 7), "pci/status", "Status register"),
    "pci-line": (lambda: Config(lambda offset, size, value: 0 if offset == 0x3C else value), "pci/interrupt-line", "read/write"),
    "pci-bar-size": (lambda: Config(lambda offset, size,
                                    value: 0xFFFF5000 if 0x10 <= offset < 0x28 and value & 0xFFFF0000 == 0xFFFF0000 else value),
                     "pci/bars", "power of two"),
    "pci-bar-fixed": (lambda: Config(write=lambda offset, data: None if 0x10 <= offset < 0x28 and data != b"\xff" * 4 else data),
                      "pci/bars", "keeps"),
    "pci-loop": (lambda: Config(lambda offset, size, value: 0x40 if offset == 0x41 and size == 1 else value), "pci/capabilities",
                 "has an end"),
    "pci-low": (lambda: Config(lambda offset, size, value: 0x10 if offset == 0x34 else value), "pci/capabilities", "behind the header"),
    "pci-msix-table": (lambda: Config(lambda offset, size, value: value | 0x7FFF0000 if offset == 0x44 and size == 4 else value),
                       "pci/msix-places", "lies in its BAR"),
    "pci-msix-control": (lambda: Config(write=lambda offset, data: None if offset == 0x42 else data), "pci/msix-control", "read/write"),

    "virtio-status": (lambda: Register(common(0x14), lambda true: true | 2), "virtio-pci/status", "reads 0"),
    "virtio-features-ok": (lambda: Register(common(0x14), lambda true: true | 8 if true & 2 else true), "virtio-pci/features-not-offered",
                           "did not offer"),
    "virtio-version": (lambda: Register(common(0x04), lambda true: true & ~1), "virtio-pci/features-offered", "VERSION_1"),
    "virtio-features-accepted": (lambda: Register(common(0x14), lambda true: true & ~8), "virtio-pci/features-accepted", "accepts"),
    "virtio-queue-size": (lambda: Register(common(0x18), lambda true: true or 256), "virtio-pci/no-such-queue", "must be 0"),
    "virtio-queue-odd": (lambda: Register(common(0x18), lambda true: true - 1), "virtio-pci/queue-registers", "power of 2"),
    "virtio-queue-enable": (lambda: Register(common(0x1C), lambda true: 0), "virtio-pci/queue-enabled", "queue_enable"),
    "virtio-queue-address": (lambda: NoWrite(lambda region, offset, data: region == BAR4 and offset == 0x20), "virtio-pci/queue-enabled",
                             "addresses"),
    "virtio-vector": (lambda: Register(common(0x10), lambda true: 7), "virtio-pci/vectors", "vector"),
    "virtio-read-only": (lambda: Changing(), "virtio-pci/read-only", "read-only"),
    "virtio-window": (lambda: Config(write=lambda offset, data: bytes(len(data)) if offset >= 0x50 else data), "virtio-pci/window",
                      "pci_cfg_data"),

    "load-reset": (lambda: Reaches(Cmd.RESET), "load/reset-with-reads", "no memory"),
    "load-unmap": (lambda: Reaches(Cmd.DMA_UNMAP), "load/unmap-with-reads", "release all references"),
    "load-leave": (lambda: Reaches(None), "load/leave-with-reads", "no more"),
}


class Booleans(Lie):
    """Triggers all of them, whatever the booleans say."""

    def command(self, message):
        if message.cmd == Cmd.SET_IRQS and struct.unpack_from("=I", message.payload, 4)[0] == BOOLS:
            message.payload = message.payload[:20] + b"\1" * (len(message.payload) - 20)
        return message


class Changing(Register):
    """num_queues is what was written to it."""

    def __init__(self):
        super().__init__(common(0x12), lambda true: self.written or true)
        self.written = 0

    def command(self, message):
        if message.cmd == Cmd.REGION_WRITE and struct.unpack_from("=QI", message.payload) == (0x12, BAR4):
            self.written = int.from_bytes(message.payload[16:], "little")
        return message


# Answers that do not come have to be waited for.
SLOW = {"deaf", "irq-not-triggered", "irq-not-replaced", "errors-lost", "virtio-status"}


# Beside make check all are told.
FEW = ["id", "payload-with-error", "quiet-answered", "not-proposed", "region-unknown", "read-beyond", "map-over-errno", "unmap-holds-on",
       "irq-remembered", "reset-not-done", "pci-writable", "virtio-features-ok", "load-leave"]


@pytest.mark.parametrize("lie", LIES if os.environ.get("SIDECARD_MORE") == "1" else FEW)
def test_a_lie_is_found(behind, workdir, lie):
    make, test, word = LIES[lie]

    def attempt(seconds):
        with Liar(workdir.path / f"p{seconds}", behind.path, make()) as liar:
            assert_found(Over("vfio-user", liar.path), test, word, timeout=seconds)
    patiently(attempt) if lie in SLOW else attempt(60)
