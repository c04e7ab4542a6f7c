#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes the seeds that the harnesses start from to fuzz/corpus/HARNESS/: for each one what an honest peer does, in the form in
which the harness takes its input apart, and the mistakes that are worth knowing. Inputs that once found a bug are kept beside
them, and some of those that fuzzing came upon because they reach what no seed does; their names begin with "found-" and "learned-",
and they are not made here."""

import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def u8(value):
    return struct.pack("<B", value & 0xff)


def u16(value):
    return struct.pack("<H", value & 0xffff)


def u32(value):
    return struct.pack("<I", value & 0xffffffff)


def u64(value):
    return struct.pack("<Q", value & (1 << 64) - 1)


# --- version: JSON with its NUL ---

def version():
    capabilities = {
        "empty": "{}",
        "qemu": '{"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 1048576, "pgsizes": 4096, '
                '"max_dma_maps": 65535, "migration": {"pgsize": 4096}, "write_multiple": true}}',
        "cloud-hypervisor": '{"capabilities":{"max_msg_fds":1,"migration":{"pgsize":4096}}}',
        "twin-socket": '{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}',
        "zero-fds": '{"capabilities":{"max_msg_fds":0}}',
        "negative": '{"capabilities":{"max_data_xfer_size":-1}}',
        "twice": '{"capabilities":{"max_msg_fds":1,"max_msg_fds":2}}',
        "deep": '{"capabilities":' + "[" * 20 + "]" * 20 + "}",
        "brackets-in-a-string": '{"a":"[[[[[[[[[[[[[[[[[[[[\\"{{"}',
        "real": '{"capabilities":{"pgsizes":4096.5}}',
        "huge": '{"capabilities":{"pgsizes":99999999999999999999}}',
        "array": "[1,2,3]",
        "not-utf8": '{"\udcff":1}',
        "cut": '{"capabilities":{',
    }
    seeds = {name: text.encode("utf-8", "surrogateescape") + b"\0" for name, text in capabilities.items()}
    seeds["nothing"] = b""
    seeds["no-nul"] = b"{}"
    seeds["two-nuls"] = b"{}\0\0"
    return seeds


# --- options: one argument a line behind a byte that chooses the command ---

def options():
    lines = {
        "serve": ["t", "vm0.sock", "virtio-blk", "disk.img", "--queues=4", "--size-max=64k", "--read-only", "--write-cache=off",
                  "--serial", "DISK1", "--call=good"],
        "dashes": ["t", "--queues", "8", "--", "--queues=x", "-"],
        "unknown": ["t", "--queues=4"],
        "short": ["t", "-q", "4"],
        "no-value": ["t", "--serial"],
        "too-many": ["t", "a", "b", "c", "d"],
        "numbers": ["t", "0", "7", "70", "71", "18446744073709551616", "--queues=18446744073709551615"],
        "sizes": ["t", "1k", "1KiB", "8191P", "8192P", "1kB", "16E", "--size-max=4G", "--size-max=512"],
        "words": ["t", "on", "off", "yes", "virtio-bkl", "nmve", "--write-cache=maybe"],
        "bench": ["b", "vm0.sock", "--rw=randrw", "--rwmixread=70", "--bs=4k", "--iodepth=32", "--numjobs=2", "--runtime=10s",
                  "--ramp_time=1", "--json"],
        "bench-verify": ["b", "vfio-user:vm0.sock", "--rw=randwrite", "--verify", "--size=1M", "--offset=4k", "--number_ios=9"],
        "bench-mistakes": ["b", "vm0.sock", "--rw=randraed", "--poll", "--interrupt", "--bs=100", "--eta=never"],
        "bench-help": ["b", "--help"],
        "bench-memory": ["b", "vm0.sock", "--memory=private", "--twin-socket=on", "--notify=ioeventfd"],
        "bench-vhost": ["b", "vhost-user:vm0.sock", "--memory=private"],
    }
    return {name: "\n".join(text).encode() for name, text in lines.items()}


# --- config: a configuration file ---

def config():
    card = {"socket": "a", "device": "virtio-blk", "backend": "ram:1M"}

    def changed(**change):
        return {"cards": [card, {**card, "socket": "b", **{name.replace("_", "-"): value for name, value in change.items()}}]}

    files = {
        "one": {"cards": [card]},
        "all": {"threads": 2, "loop": "epoll", "log-level": "info", "cards": [{
            **card, "queues": 4, "queue-size": 64, "read-only": True, "block-size": 4096, "write-cache": False, "packed": True,
            "in-order": True, "serial": "S", "seg-max": 9, "size-max": "64k", "direct": False, "raw": True, "allow-file-memory": True,
            "connect": True, "socket-mode": "0660", "socket-owner": "0:0"}]},
        "vhost": changed(socket="vhost-user:c", backend="null:1G", block_size="4k"),
        "same-socket": changed(socket="vfio-user:a"),
        "namespaces": changed(namespaces=[{"backend": "x", "read-only": True}]),
        "kinds": changed(queues="4"), "range": changed(queues=0), "power": changed(queue_size=3),
        "long": changed(serial="x" * 99), "word": changed(quees=4), "process": changed(threads=4), "device": changed(device="nvm"),
        "owner": changed(socket_owner="nobody-here"),
        "not-a-list": {"cards": card}, "not-an-object": {"cards": [1, [2], None]}, "no-cards": {"threads": 65}, "array": [],
    }
    texts = {name: json.dumps(file).encode() for name, file in files.items()}
    return {**texts, "cut": b'{"cards": [', "twice": b'{"cards": [], "cards": []}'}


# --- registers: how (bar, size, look, write), offset, value ---

BAR4, BAR1, BAR2 = 0, 3, 4
COMMON, ISR, DEVICE, NOTIFY = 0, 0x1000, 0x2000, 0x3000


def register(bar, offset, size, value=None, look=False):
    how = bar | (size.bit_length() - 1) << 4 | (0x40 if look else 0) | (0 if value is None else 0x80)
    return u8(how) + u16(offset) + (b"" if value is None else u64(value)[:size])


def write(offset, size, value, look=False):
    return register(BAR4, offset, size, value, look)


def bring_up(features, enable=True):
    out = write(0x14, 1, 0) + write(0x14, 1, 1) + write(0x14, 1, 3)
    for half in (0, 1):
        out += write(0x00, 4, half) + register(BAR4, 0x04, 4) + write(0x08, 4, half) + write(0x0c, 4, features >> 32 * half)
    out += write(0x14, 1, 11, look=True)
    for queue in range(2):
        out += write(0x16, 2, queue) + write(0x18, 2, 32) + write(0x1a, 2, queue + 1)
        for offset, area in ((0x20, 0), (0x28, 0x400), (0x30, 0x800)):
            out += write(offset, 4, area + 0x1000 * queue) + write(offset + 4, 4, 0)
        if enable:
            out += write(0x1c, 2, 1)
    return out + write(0x14, 1, 15, look=True)


def registers():
    version_1 = 1 << 32
    return {
        "queue-reset": bring_up(version_1 | 1 << 40) + write(0x16, 2, 0) + write(0x3a, 2, 1, look=True) + register(BAR4, 0x3a, 2) +
                       write(0x1c, 2, 1, look=True),
        "packed": bring_up(version_1 | 1 << 34) + write(0x14, 1, 0, look=True) + write(0x18, 2, 3, look=True),
        "read-back": b"".join(register(BAR4, offset, 4) for offset in range(0, 0x40, 4)),
        "bring-up": bring_up(version_1 | 3 << 28),
        "bring-up-and-reset": bring_up(version_1) + write(NOTIFY, 2, 0) + write(0x14, 1, 0, look=True),
        "enable-late": bring_up(version_1, enable=False) + write(0x16, 2, 0) + write(0x1c, 2, 1, look=True),
        "no-version-1": bring_up(3 << 28),
        "features-not-offered": bring_up(version_1 | 1 << 34),
        "wide-addresses": write(0x20, 8, 0x1234567890abcdef) + register(BAR4, 0x20, 8) + register(BAR4, 0x22, 2, look=True),
        "selects": write(0x16, 2, 0xffff, True) + write(0x18, 2, 16) + write(0x00, 4, 2) + register(BAR4, 0x04, 4) +
                   write(0x08, 4, 7) + write(0x0c, 4, 1) + write(0x10, 2, 3, True) + write(0x10, 2, 4, True),
        "sizes": write(0x18, 2, 3, True) + write(0x18, 2, 64, True) + write(0x18, 2, 128, True) + write(0x18, 2, 0, True),
        "isr": register(BAR4, ISR, 1) + write(ISR, 1, 1) + register(BAR4, ISR, 4),
        "device": register(BAR4, DEVICE, 8) + register(BAR4, DEVICE + 56, 8) + write(DEVICE + 32, 1, 0) +
                  register(BAR4, DEVICE + 60, 4) + register(BAR4, DEVICE + 0xff8, 8),
        "msix": register(BAR1, 0, 8, 0xfee00000) + register(BAR1, 12, 4, 0) + register(BAR1, 0x38, 8) + register(BAR1, 0xff8, 8) +
                register(BAR2, 0, 8) + register(BAR2, 1, 1, 0xff) + register(BAR2, 0xff8, 8),
        "notification-data": bring_up(version_1 | 1 << 36 | 1 << 38) + write(NOTIFY, 4, 0x8001 << 16) + write(NOTIFY + 4, 4, 1) +
                             write(NOTIFY, 4, 1, look=True) + write(NOTIFY, 2, 0) + write(NOTIFY, 8, 0) + write(NOTIFY + 2, 2, 0),
        "in-order": bring_up(version_1 | 1 << 35) + write(NOTIFY, 2, 0, look=True) + write(0x14, 1, 0, look=True),
        "notify": write(NOTIFY, 2, 0) + write(NOTIFY + 4, 4, 1) + write(NOTIFY + 0xffc, 4, 9),
    }


# --- pci_config: how, offset, bytes ---

def config_read(offset, size):
    return u8(size if size < 0x40 else 0x3f) + u16(offset | (0x8000 if offset >= 256 else 0))


def config_write(offset, data):
    return u8(0x80 | len(data)) + u16(offset | (0x8000 if offset >= 256 else 0)) + data


def pci_config():
    msix, pm, express, window = 0x40, 0x4c, 0x54, 0xd4
    return {
        "sizing": b"".join(config_write(0x10 + 4 * bar, u32(0xffffffff)) + config_read(0x10 + 4 * bar, 4) for bar in range(6)),
        "command": config_write(4, u16(0x0507)) + config_read(4, 4) + config_write(0x3c, u8(11)),
        "walk": b"".join(config_read(offset, 2) for offset in range(0x34, 0x100, 4)),
        "msix": config_write(msix + 2, u16(0xc000)) + config_read(msix, 12) + config_write(msix + 2, u16(0)),
        "power": config_write(pm + 4, u16(3)) + config_read(pm, 8) + config_write(pm + 4, u16(0)),
        "flr": config_write(express + 8, u16(0x8000)) + config_read(express, 60),
        "flr-high-byte": config_write(express + 9, u8(0x80)),
        "window-read": config_write(window + 4, u8(4) + bytes(3) + u32(0x14) + u32(1)) + config_read(window + 16, 4),
        "window-write": config_write(window + 4, u8(4) + bytes(3) + u32(0x14) + u32(1)) + config_write(window + 16, u32(1)) +
                        config_read(window + 16, 1),
        "window-all-at-once": config_write(window + 4, u8(4) + bytes(3) + u32(0) + u32(4) + u32(1)),
        "window-odd": config_write(window + 4, u8(4) + bytes(3) + u32(0x15) + u32(2)) + config_read(window + 16, 4) +
                      config_write(window + 4, u8(9) + bytes(3) + u32(0) + u32(4)) + config_read(window + 16, 4),
        "nothing": config_read(0, 0) + config_write(window + 17, b""),
        "end": config_read(4095, 1) + config_read(4064, 32) + config_write(4095, b"x"),
        "everything": b"".join(config_write(offset, b"\xff" * 32) for offset in range(0, 256, 32)),
    }


# --- chain: regions, ring, operations ---

READ, WRITE = 1, 2


def region(iova_page, host_page, pages, access=READ | WRITE, remote=False):
    return u8(iova_page) + u8(host_page) + u8(pages | (0x30 if remote else 0) | access << 6)


def ring(regions, size_bits, features=3, desc=0, driver=0x1000, device=0x2000, position=0, packed=False, odd=False):
    head = u8(len(regions) - 1) + b"".join(regions)
    how = size_bits | features << 6 | (0x20 if packed else 0) | (0x10 if odd else 0)
    return head + u8(how) + u32(desc) + u32(driver) + u32(device) + u16(position)


def offer(buffers, writable, indirect=False):
    out = u8(0) + u8(len(buffers) - 1 | (0x80 if indirect else 0)) + u8(writable)
    return out + b"".join(u32(address) + u16(length) for address, length in buffers)


TAKE, PUBLISH, SUPPRESS, REARM = u8(5), u8(8), u8(9) + u8(1), u8(9) + u8(0)


def give(which, written):
    return u8(7) + u8(which) + u16(written)


def desc_at(table, index, address, length, flags):
    return u8(2) + u8(index) + u32(table) + u16(flags) + u32(address) + u16(length)


def use(how, offset, size):
    return u8(10) + u8(how) + u16(offset) + u8(size)


def chain():
    whole = [region(0, 0, 15)]
    pages = [region(page, 15 - page, 1) for page in range(8)]
    request = offer([(0x3000, 16), (0x4000, 512), (0x5000, 1)], 0b110)
    course = request + TAKE + give(0, 513) + PUBLISH
    far = [region(0, 0, 15, remote=True)]
    far_data = [region(0, 0, 4), region(4, 8, 4, remote=True), region(8, 4, 4)]
    far_tables = [region(page, 15 - page, 1, remote=True) for page in range(8)]
    stream = use(0, 0, 16) + use(0x80, 3, 7) + use(0xc0, 100, 200) + use(0x40, 512, 1)
    return {
        "request": ring(whole, 5) + course,
        "remote": ring(far, 5) + SUPPRESS + course * 3 + REARM,
        "remote-packed": ring(far, 3, packed=True) + SUPPRESS + course * 5 + REARM,
        "remote-data": ring(far_data, 5) + request + TAKE + stream + give(0, 513) + PUBLISH,
        "remote-data-and-foreign": ring(far_data, 5) + offer([(0x4000, 16), (0x7ff0, 0x3000), (0xf0000, 1)], 0b110) + TAKE + stream +
                                   give(0, 1),
        "remote-pages": ring(far_tables, 5, features=1, desc=0x0ff0) + course * 4 + REARM,
        "remote-indirect": ring(far_tables, 3) + desc_at(0x5ff8, 0, 0x3000, 16, 1) + desc_at(0x5ff8, 1, 0x4000, 512, 2) +
                           offer([(0x5ff8, 32)], 0, indirect=True) + TAKE + stream + give(0, 512) + PUBLISH,
        "remote-cycle": ring(far, 2) + desc_at(0, 0, 0x3000, 1, 1) + desc_at(0, 1, 0x3000, 1, 1) + desc_at(0, 2, 0x3000, 1, 1) +
                        desc_at(0, 3, 0x3000, 1, 1) + u8(4) + u8(0) + u8(0) + TAKE,
        "remote-readable-after-writable": ring(far, 3) + offer([(0x3000, 1), (0x4000, 1)], 0b01) + TAKE + give(0, 0) + PUBLISH,
        "remote-comes-and-goes": ring(far_data, 3) + request + TAKE + u8(11) + u8(2) + stream + give(0, 1) + u8(11) + u8(1) + request +
                                 TAKE + u8(11) + u8(0) + TAKE + PUBLISH,
        "no-features": ring(whole, 5, features=0) + SUPPRESS + course + REARM,
        "jumbled-pages": ring(pages, 5) + offer([(0x3ff0, 32), (0x4ff0, 0x1800)], 0b10) + TAKE + stream + give(0, 9) + PUBLISH,
        "streams": ring(whole, 5) + request + TAKE + stream + give(0, 513) + PUBLISH,
        "many": ring(whole, 3, position=65533) + course * 9,
        "batch": ring(whole, 5) + request * 4 + TAKE * 5 + give(2, 1) + give(0, 1) + PUBLISH + give(0, 1) + give(0, 1) + PUBLISH,
        "size-1": ring(whole, 0) + offer([(0x3000, 16)], 1) + TAKE + give(0, 16) + PUBLISH,
        "next-outside": ring(whole, 2) + desc_at(0, 3, 0x3000, 1, 1) + u8(3) + u32(14) + u8(2) + u16(9) + desc_at(0, 0, 0x3000, 1, 1) +
                        u8(3) + u32(14) + u8(2) + u16(9) + u8(4) + u8(0) + u8(0) + TAKE,
        "not-negotiated": ring(whole, 3, features=0) + offer([(0x6000, 16)], 0, True) + TAKE,
        "indirect-with-next": ring(whole, 3) + desc_at(0, 0, 0x6000, 16, 5) + u8(4) + u8(0) + u8(0) + TAKE,
        "indirect-huge": ring(whole, 3) + desc_at(0, 0, 0x6000, 16, 4) + u8(3) + u32(8) + u8(4) + u32(0xfffffff0) + u8(4) + u8(0) +
                         u8(0) + TAKE,
        "four-gib": ring(whole, 3) + desc_at(0, 0, 0x3000, 1, 1) + desc_at(0, 1, 0x3000, 1, 0) + u8(3) + u32(8) + u8(4) +
                    u32(0xffffffff) + u8(4) + u8(0) + u8(0) + TAKE,
        "across-seventeen-regions": ring(pages, 3) + offer([(0x0ff0, 0x7fff)], 1) + TAKE + stream + give(0, 1),
        "cycle": ring(whole, 2) + offer([(0x3000, 1)], 0) + desc_at(0, 0, 0x3000, 1, 1) + desc_at(0, 1, 0x3000, 1, 1) +
                 desc_at(0, 2, 0x3000, 1, 1) + desc_at(0, 3, 0x3000, 1, 1) + TAKE,
        "indirect": ring(whole, 3) + desc_at(0x6000, 0, 0x3000, 16, 1) + desc_at(0x6000, 1, 0x4000, 512, 2) +
                    offer([(0x6000, 32)], 0, indirect=True) + TAKE + give(0, 512) + PUBLISH,
        "indirect-in-indirect": ring(whole, 3) + desc_at(0x6000, 0, 0x6000, 16, 4) + offer([(0x6000, 16)], 0, True) + TAKE,
        "indirect-odd": ring(whole, 3) + offer([(0x6000, 17)], 0, True) + TAKE,
        "readable-after-writable": ring(whole, 3) + offer([(0x3000, 1), (0x4000, 1)], 0b01) + TAKE + give(0, 0) + PUBLISH,
        "foreign-address": ring(whole, 3) + offer([(0xfffffff0, 16), (0x4000, 1)], 0b10) + TAKE + stream + give(0, 0),
        "read-only-memory": ring(whole + [region(32, 15, 1, READ)], 3) + offer([(0x20000, 16)], 1) + TAKE + give(0, 0),
        "read-only-used-ring": ring([region(0, 0, 2), region(2, 2, 1, READ), region(3, 3, 8)], 3) + course,
        "remap": ring(pages, 3) + request + TAKE + u8(11) + u8(0x80) + give(0, 1) + PUBLISH + u8(11) + u8(2) + TAKE + u8(11) +
                 u8(0) + course,
        "far-index": ring(whole, 3) + u8(4) + u8(100) + u8(0) + TAKE,
        "head-outside": ring(whole, 3) + u8(4) + u8(0) + u8(200) + TAKE,
        "same-head-twice": ring(whole, 3) + u8(4) + u8(0) + u8(1) + u8(4) + u8(0) + u8(1) + TAKE * 3,
        "misaligned": ring(whole, 3, desc=8),
        "nowhere": ring(whole, 3, device=0xffff0000),
        "packed": ring(whole, 5, packed=True) + course + REARM,
        "packed-no-features": ring(whole, 5, features=0, packed=True) + SUPPRESS + course + REARM,
        "packed-odd-size": ring(whole, 3, packed=True, odd=True) + course * 9,
        "packed-size-1": ring(whole, 0, packed=True) + (offer([(0x3000, 16)], 1) + TAKE + give(0, 16) + PUBLISH) * 3,
        "packed-whole-ring": ring(whole, 2, packed=True) + (offer([(0x3000, 16)] * 4, 0b1000) + TAKE + give(0, 1) + PUBLISH) * 3,
        "packed-too-long": ring(whole, 2, packed=True) + offer([(0x3000, 16)] * 5, 0) + TAKE,
        "packed-batch": ring(pages, 5, packed=True) + request * 4 + TAKE * 5 + give(2, 1) + give(0, 1) + PUBLISH + give(0, 1) +
                        give(0, 1) + PUBLISH + REARM + request + TAKE + stream + give(0, 513) + PUBLISH,
        "packed-indirect": ring(whole, 3, packed=True) + desc_at(0x6000, 0, 0x3000, 16, 0) + desc_at(0x6000, 1, 0x4000, 512, 2) +
                           offer([(0x6000, 32)], 0, indirect=True) + TAKE + give(0, 512) + PUBLISH,
        "packed-same-id": ring(whole, 3, packed=True) + offer([(0x3000, 16)], 0) + desc_at(0, 1, 0x3000, 16, 0x80) + TAKE * 2,
        "packed-remap": ring(pages, 3, packed=True) + request + TAKE + give(0, 1) + u8(11) + u8(1) + PUBLISH + u8(11) + u8(0) + PUBLISH,
    }


# --- virtio_blk: memory, start, operations ---

def request(kind, sector, size, data=0, step=0, indirect=False, wide=False, ranges=b""):
    how = {"read": 0, "write": 1, "flush": 2, "id": 3, "discard": 4, "zeroes": 5}[kind]
    how |= step << 4 | (0x40 if indirect else 0) | (0x80 if wide else 0)
    out = u8(0) + u8(how) + (u64(sector) if wide else u8(sector))
    return out + (u8(len(ranges) // 4) + ranges if ranges else u8(size // 128) + u16(data))


def blk_range(sector, sectors, flags=0):
    return u64(sector) + u32(sectors) + u32(flags)


KICK = u8(4)


def virtio_blk():
    every = (request("write", 0, 4096) + request("read", 0, 4096, 0x2000) + request("flush", 0, 0) + request("id", 0, 128) +
             request("discard", 0, 0, ranges=blk_range(8, 8)) + request("zeroes", 0, 0, ranges=blk_range(0, 8, 1)) + KICK)
    start = u8(1 | 2 | 4 | 8 | 16)
    seeds = {}
    for jumbled in (0, 1):
        for features in (0, 31, 32, 63):
            seeds[f"every-{jumbled}-{features}"] = u8(jumbled) + u8(features) + every
    seeds.update({
        "indirect": u8(0) + start + request("write", 8, 4096, step=0, indirect=True) + request("read", 8, 4096, indirect=True) + KICK,
        "one-byte-pieces": u8(1) + start + request("write", 1, 512, step=2) + KICK + request("read", 1, 512, step=2) + KICK,
        "sixteen-byte-pieces": u8(1) + start + request("write", 1, 1024, step=1, indirect=True) + KICK,
        "past-the-end": u8(0) + start + request("read", 511, 4096) + request("write", 512, 512, wide=True) + KICK,
        "wraps": u8(0) + start + request("write", (1 << 64) - 1, 512, wide=True) + request("read", 1 << 55, 512, wide=True) + KICK,
        "ranges": u8(0) + start + request("discard", 0, 0, ranges=blk_range(1 << 63, 0xffffffff) + blk_range(0, 1, 2)) +
                  request("zeroes", 0, 0, ranges=blk_range(0, 64) + blk_range(448, 64, 1) + blk_range(3, 9)) + KICK,
        "half-a-range": u8(0) + start + request("discard", 0, 0, ranges=bytes(20)) + KICK,
        "half-a-block": u8(0) + start + request("write", 0, 640) + request("read", 0, 128) + KICK,
        "in-order": u8(0) + u8(1 | 4 | 64) + (request("read", 511, 4096) + request("write", 0, 512) + request("id", 0, 20)) * 4 + KICK +
                    request("read", 0, 512) * 8 + KICK,
        "packed-in-order": u8(1) + u8(1 | 4 | 32 | 64 | 128) + (request("write", 0, 512) + request("flush", 0, 0)) * 6 + KICK +
                           request("read", 0, 512, indirect=True) * 8 + KICK,
        "many": u8(0) + start + request("write", 0, 512) * 12 + KICK + request("read", 0, 512) * 12 + KICK,
        "restart": u8(0) + start + request("write", 0, 512) + u8(9) + u8(3) + request("read", 0, 512) + KICK,
        "remap": u8(1) + start + request("write", 0, 512) + u8(7) + u8(0) + u8(4) + KICK + u8(7) + u8(1) + request("read", 0, 512) + KICK,
        "packed-many": u8(0) + u8(33) + (request("write", 0, 512) * 5 + KICK + request("read", 8, 512, indirect=True) * 9 + KICK) * 3,
        "packed-remap": u8(1) + u8(32) + request("write", 0, 512) + u8(7) + u8(1) + KICK + request("read", 0, 512) + KICK,
        "poke": u8(0) + start + request("write", 0, 512) + u8(6) + u16(0) + u8(16) + u64(0x1000) + u32(16) + u16(1) + u16(0) + KICK,
        "cache": u8(0) + start + u8(10) + u8(0) + request("write", 0, 512) + u8(10) + u8(1) + request("write", 0, 512) + KICK,
        "reset-under-way": u8(0) + start + request("write", 0, 4096) + u8(8) + u8(0) + u16(0x14) + u64(0) + KICK,
    })
    return seeds


# --- nvme_walk: regions, then lists and commands ---

def place(page, offset=None, near_end=False):
    """An address: in a page, or 16 bytes before its end."""
    return u8(page | (32 if offset is not None else 0) | (64 if near_end else 0)) + (b"" if offset is None else u16(offset))


def entries(at, *pages):
    return u8(0) + at + u8(len(pages) - 1) + b"".join(pages)


def descriptor(kind, at, length):
    """Data, a bit bucket, a segment, or a last segment; of segments the length is in descriptors."""
    return u8(kind) + at + (u8(length) if kind & 2 else u16(length))


def descriptors(at, *them):
    return u8(1) + at + u8(len(them) - 1) + b"".join(them)


def walk_prp(size, first, second, writes=False):
    wide = size > 65536
    return u8(2) + u8((2 if writes else 0) | (4 if wide else 0)) + (u32 if wide else u16)(size - 1) + first + second


def walk_sgl(size, first, writes=False):
    return u8(2) + u8(1 | (2 if writes else 0)) + u16(size - 1) + first


def nvme_walk():
    data, bucket, segment, last = 0, 1, 2, 3
    whole, pieces, remote, mixed = u8(0), u8(1), u8(3) + u8(0xff), u8(7) + u8(0x55)
    listed = entries(place(12), *[place(page) for page in (3, 5, 4, 9)])
    chained = entries(place(12, near_end=True), place(3), place(13)) + entries(place(13), place(5), place(7), place(8))
    block = descriptor(data, place(5, 3), 512)
    two = descriptors(place(12), descriptor(data, place(5), 500), descriptor(data, place(3, 1), 12))
    buckets = descriptors(place(12), descriptor(data, place(5), 100), descriptor(bucket, place(0), 300), descriptor(data, place(3), 112))
    three = (descriptors(place(12), descriptor(data, place(5), 500), descriptor(segment, place(13), 1)) +
             descriptors(place(13), descriptor(last, place(14), 1)) + descriptors(place(14), descriptor(data, place(1), 12)))
    good = [walk_prp(512, place(2), place(0)), walk_prp(8192, place(2), place(3), True), listed, walk_prp(5 * 4096, place(2), place(12)),
            chained, walk_prp(5 * 4096, place(2, 512), place(12, near_end=True), True), walk_sgl(512, block), two,
            walk_sgl(512, descriptor(last, place(12), 2), True), three, walk_sgl(512, descriptor(segment, place(12), 2)),
            buckets, walk_sgl(512, descriptor(last, place(12), 3), True), walk_sgl(212, descriptor(last, place(12), 3))]
    far, itself = u8(0xff) + u64(1 << 40), entries(place(12), *[place(12)] * 32)
    bad = [walk_prp(512, place(2, 1), place(0)), walk_prp(8192, place(2), place(3, 4)), walk_prp(16384, place(2), place(12, 4)),
           walk_prp(16384, place(2), far), itself, walk_prp(1 << 20, place(12), place(12)), walk_prp(512, far, far),
           walk_sgl(511, block), walk_sgl(513, block), walk_sgl(512, descriptor(last, place(12), 0)),
           walk_sgl(512, descriptor(last, far, 2)), descriptors(place(12), descriptor(segment, place(12), 1)),
           walk_sgl(512, descriptor(segment, place(12), 1)),
           walk_sgl(512, u8(4) + place(5) + u16(512) + u8(0x01)), walk_sgl(512, u8(10) + place(12) + u32(0xfffffff0))]
    return {f"{kind}-{name}": regions + b"".join(what)
            for name, regions in (("whole", whole), ("pieces", pieces), ("remote", remote), ("mixed", mixed))
            for kind, what in (("good", good), ("bad", bad))}


# --- nvme_io: regions, then commands ---

def io_page(page, offset=None):
    """An address of data: page 4 and up; an offset in words."""
    return u8(page if offset is None else page | 0x80) + (b"" if offset is None else u8(offset))


def nvme_command(kind, first=None, second=None, slba=0, blocks=1, opcode=None, sgl=None, nsid=None, wide=None, dw12=None):
    """kind: 0 read, 1 write, 2 flush, 3 compare, 4 write zeroes, 5 dataset management. sgl: the type, then its length of 16 bytes."""
    how = kind | (8 if opcode is not None else 0) | (16 if sgl else 0) | (32 if nsid is not None else 0)
    how |= (64 if wide is not None else 0) | (128 if dw12 is not None else 0)
    return (u8(0) + u8(how) + (b"" if opcode is None else u8(opcode)) + (u8(sgl[0]) if sgl else b"") + (b"" if nsid is None else u8(nsid)) +
            (first or io_page(0)) + (u8(sgl[1]) if sgl else second or io_page(1)) + (u8(slba) if wide is None else u64(wide)) +
            (u8(blocks - 1) if dw12 is None else u32(dw12)))


def io_list(at, *entries):
    return u8(4) + at + u8(len(entries) - 1) + b"".join(entries)


def io_entry(page, kind=0):
    return u8(kind) + io_page(page) + u8(4)


def io_range(slba, blocks):
    return u8(0xc0 | blocks) + u16(slba)


def nvme_io():
    kick, reset = u8(6), u8(10) + u8(1)
    pages = io_list(io_page(8), *[io_entry(page) for page in (2, 5, 3)])
    blocks = io_list(io_page(9), io_entry(2, 0x80), io_entry(3, 0x81), io_entry(4, 0x80))
    ranges = io_list(io_page(10), io_range(0, 3), io_range(3, 1), io_range(100, 2), io_range(519, 1))
    good = [nvme_command(1, blocks=8), nvme_command(1, blocks=16, slba=3), nvme_command(2), kick, nvme_command(0, blocks=8), kick, pages,
            nvme_command(1, io_page(0), io_page(8), blocks=32), nvme_command(0, io_page(0, 128), io_page(8), blocks=30), kick,
            nvme_command(3, blocks=16), nvme_command(3, slba=9), nvme_command(4, blocks=20), nvme_command(2, nsid=0xff), kick, blocks,
            nvme_command(0, io_page(9), sgl=(3, 3), blocks=3), nvme_command(1, io_page(9), sgl=(3, 3), blocks=2),
            nvme_command(1, sgl=(0, 32)), kick, ranges, nvme_command(5, io_page(10), slba=2), nvme_command(5, io_page(10), slba=3),
            nvme_command(3), kick, nvme_command(0, dw12=1 << 30), nvme_command(4, dw12=3 << 25), nvme_command(1, dw12=1 << 30), kick]
    bad = [nvme_command(0, opcode=0x0c), nvme_command(0, nsid=0), nvme_command(0, nsid=3), nvme_command(1, nsid=0xff),
           nvme_command(0, wide=(1 << 64) - 1), nvme_command(0, wide=511, dw12=7), nvme_command(0, dw12=0xffff), kick,
           nvme_command(0, u8(0xff) + u16(0)), nvme_command(1, io_page(0, 1), blocks=32), nvme_command(0, sgl=(2, 0)),
           nvme_command(1, sgl=(1, 32)), nvme_command(5, u8(0xff) + u16(0)), kick, u8(11) + u8(5), nvme_command(0), kick, reset,
           nvme_command(0), kick, u8(9) + u8(3) + u8(2), nvme_command(0), kick, u8(9) + u8(1), reset, nvme_command(2), kick,
           u8(10) + u8(0) + u8(2) + u16(99), kick]
    moved = [nvme_command(1, blocks=16), u8(9) + u8(1), kick, nvme_command(0), nvme_command(3), u8(9) + u8(3) + u8(0xf0), kick,
             u8(9) + u8(1), reset, nvme_command(3), nvme_command(5, io_page(10)), reset, nvme_command(2), kick]
    # Identify over a page's edge, of a namespace; the error log; features with data and without.
    admin = [u8(12) + u8(kind) + u8(nsid) + io_page(0, at) + io_page(2) + u8(dword & 0xff) + u8(dword >> 16)
             for kind, nsid, at, dword in (
                 (0, 0, None, 1), (0, 1, 64, 0), (0, 0, 1, 2), (0, 0, 255, 1), (1, 0, 16, 15 << 16 | 1), (1, 0, None, 127 << 16 | 2),
                 (2, 0, None, 14), (2, 0, 2, 6), (3, 0, None, 14), (3, 0, None, 7))]
    refusals = [u8(11) + u8(1 << i) + command + kick + u8(11) + u8(0) + reset
                for i in range(8) for command in (nvme_command(1, blocks=8), nvme_command(0, blocks=8), admin[0])]
    good += admin
    bad += [nvme_command(4, dw12=0xffff), nvme_command(4, wide=1 << 60), nvme_command(3, nsid=0), kick]
    moved += refusals
    return {f"{kind}-{name}": regions + b"".join(what)
            for name, regions in (("whole", u8(0)), ("pieces", u8(1)), ("remote", u8(3) + u8(0xff)), ("data-remote", u8(3) + u8(0xfc)),
                                  ("queues-remote", u8(3) + u8(0x03)))
            for kind, what in (("good", good), ("bad", bad), ("moved", moved))}


# --- nvme_admin: operations ---

IDENTIFY, LOG, SET, GET, EVENT_REQUEST, ABORT, KEEP_ALIVE, CREATE_CQ, CREATE_SQ, DELETE_SQ, DELETE_CQ, SHADOW = range(12)
ADMIN_KICK = u8(5)


def admin(which, selector=0, more=0, value=0, at=0, *, nsid=None, flags=None, opcode=None, words=None, prp1=u8(0), prp2=u8(1)):
    """A command: what it is about, with 16 bits above that; its value; where in a log."""
    how = which | (0x80 if opcode is not None else 0) | (0x40 if flags is not None else 0) | (0x20 if nsid is not None else 0)
    out = u8(0) + u8(how | (0x10 if words else 0))
    if opcode is not None:
        out += u8(opcode)
    if flags is not None:
        out += u8(flags)
    if nsid is not None:
        out += u8(nsid)
    if words:
        return out + b"".join(u32(word) for word in words) + prp1 + prp2
    out += u8(selector) + u16(more)
    if which != LOG:
        out += u16(value)
    else:
        out += u8(at)
    return out + prp1 + prp2


def queue_of(which, qid):
    return u8(0) + u8(which) + u8(qid)


def namespaces(bits):
    return u8(7) + u8(bits)


def nvme_admin():
    pages = (0x00, 0x02, 0x03, 0x05, 0x08, 0x10, 0x11, 0x12)
    identify = [admin(IDENTIFY, cns, nsid=nsid) for cns in pages for nsid in (0, 1, 3, -1)]
    identify += [admin(IDENTIFY, cns) for cns in (1, 2, 6, 7, 0x10, 0x13, 0x1c, 4, 0xff)]
    features = (1, 2, 4, 6, 7, 8, 9, 10, 11, 14, 15, 22)
    get = [admin(GET, feature, select, nsid=1) for feature in features + (5, 3, 0x19) for select in range(5)]
    put = [admin(SET, feature, 0, value) for feature in features for value in (0, 1, 0x100, 0xffff)]
    put += [admin(SET, 5, nsid=nsid) for nsid in (0, 1, 9, -1)] + [admin(SET, 6, nsid=1), admin(SET, 3)]
    put += [admin(SET, words=[6 | 1 << 31, 0, 0, 0, 0, 0]), admin(SET, words=[4, 0xf << 16 | 1, 0, 0, 0, 0]),
            admin(SET, words=[9, 1 << 16 | 1, 0, 0, 0, 0]), admin(SET, words=[9, 0xffff, 0, 0, 0, 0]),
            admin(SET, words=[5, 1 << 16, 0, 0, 0, 0], nsid=1)]
    logs = [admin(LOG, page, 0xff00, at=at) for page in (0, 1, 2, 3, 4, 5, 0x12, 0x13, 6) for at in (0, 64)]
    logs += [admin(LOG, 2, 0x0080, nsid=1), admin(LOG, 4, 0x0f80), admin(LOG, words=[2 | 0xffff << 16, 0, 0, 0, 0, 0]),
             admin(LOG, words=[2, 1 << 16, 2, 0, 1 << 23, 0]), admin(LOG, words=[5, 0, 0, 0, 1 << 24, 0]),
             admin(LOG, 2, prp1=u8(0xff) + u16(0))]
    queues = [queue_of(CREATE_CQ, 1), queue_of(CREATE_SQ, 1), queue_of(CREATE_CQ, 2), queue_of(CREATE_SQ, 2), ADMIN_KICK]
    events = [admin(EVENT_REQUEST)] * 3 + [admin(SET, 11, 0, 0x1ff), admin(SET, 4, 0, 100), ADMIN_KICK, namespaces(3), ADMIN_KICK,
                                           u8(8) + u8(40) + u16(1), u8(8) + u8(0) + u16(99), ADMIN_KICK]
    events += [admin(ABORT, words=[cid << 16, 0, 0, 0, 0, 0]) for cid in range(4)] + [admin(EVENT_REQUEST)] * 6
    events += [ADMIN_KICK, admin(LOG, 4), ADMIN_KICK]
    coming = [namespaces(bits) for bits in (1, 3, 0x83, 0x3f, 0x7f, 0xbf, 0x20, 2, 0, 1)]
    cache = queues + [admin(SET, 6), ADMIN_KICK, namespaces(2), admin(SET, 6, 0, 1), admin(SET, 6), namespaces(0), ADMIN_KICK]
    rest = [admin(KEEP_ALIVE), admin(SET, 15, 0, 9), admin(KEEP_ALIVE), admin(SHADOW), admin(ABORT, 9), admin(KEEP_ALIVE, nsid=1),
            admin(IDENTIFY, flags=1), admin(IDENTIFY, 1, flags=0x40), admin(IDENTIFY, opcode=0x80), admin(DELETE_SQ, 1),
            admin(DELETE_CQ, 1), ADMIN_KICK]
    starts = [u8(9) + u8(how) for how in range(4)]

    def some(what, every=12):
        return b"".join(part + (ADMIN_KICK if number % every == every - 1 else b"") for number, part in enumerate(what)) + ADMIN_KICK
    return {"identify": some(identify), "identify-of-many": namespaces(0x3f) + some(identify), "get": some(get[:60]),
            "get-more": some(get[60:]),
            "set": some(put), "logs": some(logs), "logs-of-queues": b"".join(queues) + some(rest) + some(logs), "events": b"".join(events),
            "namespaces": b"".join(coming), "namespaces-of-queues": b"".join(queues + coming), "cache": b"".join(cache), "rest": some(rest),
            "starts": b"".join(part + b"".join(events) for part in starts), "starts-under-way": b"".join(queues + [admin(SET, 6)] + starts)}


# --- nvme_registers: operations ---

def nvme_registers():
    turns, recover, enable = u8(11) + u8(8), u8(13), u8(12)
    msix, acknowledge = u8(9) + u8(0x80), [u8(7) + u8(queue | 1 << 2) for queue in range(4)]
    pair = [u8(4) + u8(queue) for queue in range(3)]
    io = [u8(5) + u8(kind | 4 << 2 | queue) for kind in (0, 0x40, 0x80) for queue in range(3)]

    def admin(which, queue, pages=5, dword=None):
        return u8(2) + u8(which) + u8(queue) + u8(pages) + (b"" if dword is None else u32(dword))

    def access(offset, value, size=2):
        return u8(0) + u8(size | 32) + u16(offset) + u64(value)

    shadow = admin(4, 0, 0xe | 0xd0, 0) + u32(0)
    events = admin(5, 0) + access(0x1004, 99) + access(0x1f00, 1) + turns + acknowledge[0]
    coalescing = admin(7, 8, 0xc0, 8) + u32(0x0103)
    deletions = [admin(2, queue) + admin(3, queue) for queue in (1, 2, 3)]
    life = [u8(1) + u8(how) for how in (1, 3, 0, 5, 0, 0x11, 7, 0, 9)]
    away, back = u8(10) + u8(0) + u8(0xff), u8(10) + u8(1)
    courses = {
        "queues": [msix, *pair, *io, turns, *acknowledge, *deletions, turns],
        "intx": [*pair, *io, turns, access(0xc, 1), access(0x10, 1), *acknowledge],
        "life": [*pair, *io, *[step + turns for step in life], enable, turns],
        "nssr": [*pair, *io, u8(0) + u8(16) + u16(0), turns, enable, turns],
        "away": [msix, *pair, *io, away, *io, turns, back, turns, *acknowledge, away, u8(1) + u8(0), turns, recover],
        "shadow": [msix, *pair, *io, shadow, turns, *io, turns, away, turns, back, turns, *pair, *deletions, recover],
        "events": [msix, events, coalescing, turns, *pair, *io, turns, u8(11) + u8(15)],
        "registers": [access(offset, 0x5a5a5a5a5a5a5a5a, size) for offset in range(0, 0x40, 8) for size in (0, 1, 2, 3)],
        "doorbells": [*pair, *[access(0x1000 + 4 * number, value) for number in range(10) for value in (1, 15, 16, 0xffffffff)], turns],
    }
    return {name: b"".join(what) for name, what in courses.items()}


# --- session: operations ---

VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, REGION_INFO, IRQ_INFO, SET_IRQS, REGION_READ, REGION_WRITE, RESET = 1, 2, 3, 4, 5, 7, 8, 9, 10, 13
IO_FDS, WRITE_MULTI, FEATURE, MIG_READ, MIG_WRITE = 6, 15, 16, 17, 18
MEMORY, EVENT, FILE, SOCKET = range(4)
TURNS = u8(6) + u8(8)
ANSWER_ALL, CLOSE_TWIN = u8(8) + u8(0), u8(11)
# mistakes in an answer
WRONG_ID, WRONG_SIZE, WRONG_ADDRESS, REFUSES, NARROW, TWICE, OTHER_SOCKET, LAST_FIRST = (1 << bit for bit in range(8))
EVENT_SIGNAL, KICK_SIGNAL = 0, 1


def message(command, payload=b"", fds=None, cut=None, flags=None, size=None, late=False, heels=False):
    long = len(payload) > 255
    how = (1 if long else 0) | (2 if fds else 0) | (4 if cut is not None else 0) | (8 if flags is not None else 0)
    how |= (16 if size is not None else 0) | (32 if late else 0) | (64 if heels else 0)
    out = u8(0) + u8(how) + u8(command) + (u16(len(payload)) if long else u8(len(payload)))
    if fds:
        out += u8(len(fds)) + u8(fds[0])
    if cut is not None:
        out += u8(cut)
    if flags is not None:
        out += u8(flags)
    if size is not None:
        out += u32(size)
    return out + payload


def hello(json='{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,"pgsizes":4096}}', minor=2, **more):
    return message(VERSION, u16(0) + u16(minor) + json.encode() + b"\0", **more)


def twin():
    return hello('{"capabilities":{"max_msg_fds":8,"pgsizes":4096,"twin_socket":{"supported":true}}}')


def dma_map(address, size, offset=0, flags=3, **more):
    return message(DMA_MAP, u32(32) + u32(flags) + u64(offset) + u64(address) + u64(size), **more)


def dma_unmap(address, size, **more):
    return message(DMA_UNMAP, u32(24) + u32(0) + u64(address) + u64(size), **more)


def set_irqs(index, flags, start, count, data=b"", **more):
    return message(SET_IRQS, u32(20 + len(data)) + u32(flags) + u32(index) + u32(start) + u32(count) + data, **more)


def region_write(region_index, offset, data, **more):
    return message(REGION_WRITE, u64(offset) + u32(region_index) + u32(len(data)) + data, **more)


def region_read(region_index, offset, count, **more):
    return message(REGION_READ, u64(offset) + u32(region_index) + u32(count), **more)


def write_multi(*writes):
    """Each of them region, offset, data of at most 8 bytes."""
    out = u64(len(writes))
    for index, offset, data in writes:
        out += u64(offset) + u32(index) + u32(len(data)) + data.ljust(8, b"\0")
    return message(WRITE_MULTI, out)


def io_fds(index, argsz=4096, flags=0, count=0, **more):
    return message(IO_FDS, u32(argsz) + u32(flags) + u32(index) + u32(count), **more)


def feature(number, flags, data=b"", argsz=64):
    return message(FEATURE, u32(argsz) + u32(number | flags << 16) + data)


def answer(how):
    return u8(8) + u8(how)


def signal(which):
    return u8(9) + u8(which)


def over_twin(data):
    return u8(10) + u8(len(data)) + data


def driver(notify=True):
    """Brings a disk up in few messages and has it read its first sector."""
    def common(offset, data):
        return region_write(4, offset, data)
    out = common(0x14, u8(3)) + common(0x08, u32(1) + u32(1)) + common(0x14, u8(11)) + common(0x16, u16(0) + u16(32))
    out += common(0x20, u64(0) + u64(0x400) + u64(0x800)) + common(0x1a, u16(1)) + common(0x1c, u16(1)) + common(0x14, u8(15))
    descs = b"".join(u64(address) + u32(length) + u16(flags) + u16(following) for address, length, flags, following in
                     ((0x1000, 16, 1, 1), (0x2000, 512, 3, 2), (0x1100, 1, 2, 0)))
    out += u8(5) + u16(0) + u8(len(descs)) + descs
    out += u8(5) + u16(0x400) + u8(6) + u16(0) + u16(1) + u16(0)
    return out + (region_write(4, 0x3000, u16(0)) + TURNS if notify else b"")


def session():
    infos = message(GET_INFO, u32(16) + bytes(12)) + message(GET_INFO, u32(16) + bytes(400))
    for index in range(10):
        infos += message(REGION_INFO, u32(32) + u32(0) + u32(index) + bytes(20))
    for index in range(6):
        infos += message(IRQ_INFO, u32(16) + u32(0) + u32(index) + u32(0))
    event_irqs = set_irqs(2, 0x24, 0, 3, fds=[EVENT] * 3)
    memory = dma_map(0, 0x10000, fds=[MEMORY])
    courses = {
        "hello": hello(),
        "hello-cloud-hypervisor": hello('{"capabilities":{"max_msg_fds":1}}', minor=1) + message(99) + region_read(0, 0, 4),
        "hello-nothing": message(VERSION, u16(0) + u16(0)) + message(GET_INFO, u32(16) + bytes(12)),
        "hello-twice": hello() + hello(),
        "hello-of-the-future": message(VERSION, u16(1) + u16(0)),
        "too-early": message(GET_INFO, u32(16) + bytes(12)) + hello(),
        "infos": hello() + infos,
        "config": hello() + region_read(7, 0, 256) + region_write(7, 0x10, u32(0xffffffff)) + region_read(7, 0x10, 4) +
                  region_read(7, 4095, 1) + region_read(7, 4096, 0) + region_read(7, 0, 0) + region_write(7, 4095, b"ab"),
        "nothing-first": hello() + region_read(7, 0, 0) + region_read(4, 0, 0) + region_write(7, 0xe5, b""),
        "odd-accesses": hello() + region_read(4, 1, 4095) + region_read(4, 0x1003, 5) + region_write(4, 0x15, bytes(11)) +
                        region_read(4, 0xffffffffffffffff, 2) + region_read(6, 0, 1) + region_read(99, 0, 1),
        "disk": hello() + memory + event_irqs + driver() + dma_unmap(0, 0x10000) + TURNS,
        "disk-and-reset": hello() + memory + driver() + message(RESET) + TURNS + dma_unmap(0, 0x10000),
        "disk-and-gone": hello() + memory + event_irqs + driver(notify=False) + region_write(4, 0x3000, u16(0)),
        "disk-flr": hello() + memory + driver() + region_write(7, 0x54 + 8, u16(0x8000)) + region_read(4, 0x14, 1),
        "multi": hello() + write_multi((4, 0x14, u8(1)), (4, 0x14, u8(3)), (7, 4, u16(6))) + write_multi() +
                 write_multi((4, 0x14, bytes(9))) + write_multi((9, 0, u8(1))),
        "heels": hello() + memory + driver() + region_write(4, 0x14, u8(0), heels=True) + region_write(4, 0x14, u8(1), heels=True) +
                 region_read(4, 0x14, 1, heels=True) + dma_map(0x20000, 4096, fds=[MEMORY], heels=True) +
                 dma_map(0x30000, 4096, fds=[MEMORY], heels=True) + message(RESET, heels=True) + region_read(4, 0x14, 1),
        "unmap-all": hello() + memory + driver() + message(DMA_UNMAP, u32(24) + u32(2) + u64(0) + u64(0)) + TURNS + memory,
        "unmap-mistakes": hello() + memory + dma_unmap(0, 4096) + message(DMA_UNMAP, u32(8) + u32(0) + u64(0) + u64(0x10000)) +
                          message(DMA_UNMAP, u32(24) + u32(1) + u64(0) + u64(0x10000)) +
                          message(DMA_UNMAP, u32(24) + u32(4) + u64(0) + u64(0x10000)) + dma_unmap(0, 0x10000, fds=[MEMORY]),
        "bad-json": hello("{") + hello('{"capabilities":{"max_msg_fds":0}}') + hello(),
        "map-many": hello() + b"".join(dma_map(page << 12, 4096, page << 12, fds=[MEMORY]) for page in range(8)) + driver() +
                    dma_unmap(0x7000, 4096) + dma_unmap(0x7000, 4096),
        "map-mistakes": hello() + dma_map(0, 0, fds=[MEMORY]) + dma_map(1, 4096, fds=[MEMORY]) + dma_map(0, 0x20000, fds=[MEMORY]) +
                        dma_map((1 << 64) - 4096, 4096, fds=[MEMORY]) + dma_map(0, 4096, (1 << 64) - 4096, fds=[MEMORY]) +
                        dma_map(0, 4096, fds=[EVENT]) + dma_map(0, 4096, fds=[FILE]) + dma_map(0, 4096, fds=[SOCKET]) +
                        dma_map(0, 4096, flags=0, fds=[MEMORY]) + dma_map(0, 4096, fds=[MEMORY, MEMORY]) + dma_map(0, 4096),
        "map-overlap": hello() + memory + dma_map(0x1000, 4096, fds=[MEMORY]) + memory + dma_unmap(0, 4096),
        "irqs": hello() + event_irqs + u8(7) + u8(2) + u8(1) + set_irqs(2, 0x21, 0, 2) + set_irqs(2, 0x22, 0, 3, b"\1\0\1") +
                set_irqs(0, 0x24, 0, 1, fds=[EVENT]) + u8(7) + u8(0) + u8(0) + set_irqs(0, 0x11, 0, 1) + set_irqs(2, 0x21, 0, 0),
        "irqs-mistakes": hello() + set_irqs(2, 0x24, 2, 2, fds=[EVENT] * 2) + set_irqs(2, 0x24, 0, 1, fds=[MEMORY]) +
                         set_irqs(2, 0x3f, 0, 1) + set_irqs(9, 0x21, 0, 1) + set_irqs(2, 0x22, 0, 3, b"\1") +
                         set_irqs(2, 0x24, 0xffffffff, 2) + set_irqs(2, 0x24, 0, 16, fds=[EVENT] * 17),
        "pieces": hello(cut=1) + dma_map(0, 0x10000, fds=[MEMORY], cut=1) + region_read(7, 0, 64, cut=15) +
                  region_read(7, 0, 64, cut=16) + region_read(7, 0, 64, cut=17) + set_irqs(2, 0x24, 0, 1, fds=[EVENT], cut=20, late=True),
        "no-reply": hello() + region_write(4, 0x14, u8(1), flags=0x10) + region_read(4, 0x14, 1, flags=0x10),
        "flags": hello() + region_read(7, 0, 4, flags=0x20) + region_read(7, 0, 4, flags=0x80),
        "reply": hello() + message(9, bytes(16), flags=1),
        "sizes": hello() + message(RESET, size=0),
        "sizes-huge": hello() + message(REGION_WRITE, bytes(16), size=0xffffffff),
        "sizes-late": hello() + message(REGION_WRITE, bytes(300), size=0x1000) + u8(4) + u8(255) + bytes(255),
        "payload-short": hello() + b"".join(message(command, bytes(3)) for command in range(19)),
        "io-fds": hello() + b"".join(io_fds(index) for index in range(10)) + memory + driver(notify=False) + signal(KICK_SIGNAL) +
                  TURNS + signal(0xe1) + message(RESET) + TURNS + signal(KICK_SIGNAL) + driver() + io_fds(4),
        "io-fds-late": hello() + memory + event_irqs + driver() + io_fds(4, argsz=16) + io_fds(4) + signal(KICK_SIGNAL) + TURNS +
                       dma_unmap(0, 0x10000) + signal(KICK_SIGNAL) + memory + signal(KICK_SIGNAL) + TURNS,
        "io-fds-mistakes": hello() + io_fds(9) + io_fds(4, flags=1) + io_fds(4, count=1) + io_fds(4, argsz=15) +
                           io_fds(4, argsz=1 << 21) + io_fds(4, fds=[EVENT]) + io_fds(4, flags=0, cut=3) + io_fds(4) * 3,
        "io-fds-unread": hello('{"capabilities":{"max_msg_fds":64}}') +
                         message(IO_FDS, u32(4096) + u32(0) + u32(4) + u32(0), heels=True) * 100,
        "irq-switches": hello() + memory + event_irqs + driver(notify=False) + set_irqs(2, 0x0c, 0, 2, fds=[EVENT] * 2) +
                        signal(0xe0) + TURNS + u8(7) + u8(2) + u8(1) + set_irqs(2, 0x14, 1, 1, fds=[EVENT]) + signal(EVENT_SIGNAL) +
                        TURNS + set_irqs(2, 0x0c, 0, 2) + set_irqs(2, 0x14, 1, 1, fds=[EVENT]) + set_irqs(2, 0x21, 0, 0) +
                        set_irqs(0, 0x24, 0, 1, fds=[EVENT]) + set_irqs(0, 0x14, 0, 1, fds=[EVENT]) + u8(7) + u8(0) + u8(0) + TURNS,
        "irq-switches-mistakes": hello() + set_irqs(2, 0x0c, 0, 0) + set_irqs(2, 0x0c, 0, 2, fds=[EVENT]) +
                                 set_irqs(3, 0x0c, 0, 1, fds=[EVENT]) + set_irqs(2, 0x14, 0, 1, fds=[MEMORY]) +
                                 set_irqs(4, 0x09, 0, 1) + set_irqs(4, 0x24, 0, 1, fds=[EVENT]) + set_irqs(4, 0x21, 0, 1),
        "features": hello() + b"".join(feature(number, flags) for number in (0, 1, 2, 6, 7, 8, 9) for flags in range(8)) +
                    feature(1, 1, argsz=7) + feature(1, 8) + message(FEATURE, bytes(7)) + message(MIG_READ, u32(64) + u32(8)) +
                    message(MIG_WRITE, u32(16) + u32(8) + bytes(8)),
        "map-flags": hello() + dma_map(0, 4096, flags=7, fds=[MEMORY]) + dma_map(4096, 4096, flags=15, fds=[MEMORY]) +
                     dma_map(8192, 4096, flags=11, fds=[MEMORY]) + dma_map(8192, 4096, flags=7) + dma_map(8192, 4096, flags=19),
        "remote": hello() + dma_map(0, 0x10000) + event_irqs + driver() + ANSWER_ALL * 3 + dma_unmap(0, 0x10000) + TURNS,
        "remote-narrow": hello() + dma_map(0, 0x10000) + driver() + answer(NARROW) + ANSWER_ALL + TURNS,
        "remote-small": hello('{"capabilities":{"max_data_xfer_size":16,"pgsizes":4096}}') + dma_map(0, 0x10000) + driver() +
                        answer(LAST_FIRST) + answer(LAST_FIRST) + ANSWER_ALL,
        "remote-refused": hello() + dma_map(0, 0x10000) + driver() + answer(REFUSES) + ANSWER_ALL + region_write(4, 0x3000, u16(0)) +
                          answer(REFUSES) + ANSWER_ALL,
        "remote-reset": hello() + dma_map(0, 0x10000) + driver() + message(RESET) + ANSWER_ALL + driver(notify=False) + ANSWER_ALL,
        "remote-gone": hello() + dma_map(0, 0x10000) + driver() + answer(LAST_FIRST | NARROW),
        "remote-crossing": hello() + dma_map(0, 0x10000) + driver() + region_read(7, 0, 64, heels=True) + answer(LAST_FIRST) +
                           message(GET_INFO, u32(16) + bytes(12), heels=True) + ANSWER_ALL,
        "twin": twin() + dma_map(0, 0x10000) + event_irqs + io_fds(4) + driver(notify=False) + ANSWER_ALL + signal(KICK_SIGNAL) +
                ANSWER_ALL * 2 + message(RESET) + ANSWER_ALL,
        "twin-closed": twin() + dma_map(0, 0x10000) + driver() + CLOSE_TWIN + TURNS + region_write(4, 0x3000, u16(0)) + TURNS,
        "twin-closed-late": twin() + dma_map(0, 0x10000) + driver() + ANSWER_ALL + CLOSE_TWIN + region_write(4, 0x3000, u16(0)) + TURNS,
        "twin-half": twin() + dma_map(0, 0x10000) + driver() + over_twin(u16(0) + u16(12) + u32(32) + u32(1) + u32(0)) + TURNS,
        "twin-garbage": twin() + over_twin(bytes(40)) + TURNS,
        "twin-command": twin() + over_twin(u16(0) + u16(4) + u32(16) + u32(0) + u32(0)) + TURNS,
        "raw": u8(4) + u8(20) + u16(7) + u16(1) + u32(20) + u32(0) + u32(0) + u16(0) + u16(2),
    }
    for name, how in (("id", WRONG_ID), ("size", WRONG_SIZE), ("address", WRONG_ADDRESS), ("twice", TWICE), ("socket", OTHER_SOCKET)):
        courses["remote-wrong-" + name] = hello() + dma_map(0, 0x10000) + driver() + answer(LAST_FIRST) + answer(how) + TURNS
        courses["twin-wrong-" + name] = twin() + dma_map(0, 0x10000) + driver() + answer(LAST_FIRST) + answer(how) + TURNS
    seeds = {name: u8(index & 1) + course for index, (name, course) in enumerate(courses.items())}
    regions = hello() + b"".join(message(REGION_INFO, u32(argsz) + u32(0) + u32(index) + bytes(20))
                                 for index in (0, 1, 4) for argsz in (31, 32, 63, 64, 4064))
    seeds["mappable-part"], seeds["mappable-whole"] = u8(4) + regions + region_read(0, 4096, 64), u8(2) + regions
    return seeds


# --- inflight: how (packed, a region that is found), then what happens: offer, take, give, publish, poke, kill ---

def inflight():
    offer, take, give, publish, kill, rearm = (lambda how: u8(0) + u8(how)), u8(1), u8(2), u8(3), u8(6), u8(7)

    def poke(offset, value):
        return u8(4) + u16(offset) + u16(value)

    work = b"".join(offer(4 * i) for i in range(3)) + take * 3 + give + publish + give
    seeds = {}
    for name, how in (("split", 3), ("packed", 0x80 | 15)):
        batch = 12 if name == "split" else 14
        seeds[name] = u8(how) + work + publish + offer(16) + take + kill + take * 4 + give * 4 + publish + rearm
        seeds[name + "-hidden"] = u8(how) + work + kill + take * 4 + give * 4 + publish
        seeds[name + "-twice"] = u8(how) + work + kill + take + kill + take * 4 + give + publish + kill + take * 4
        for what, offset, value in (("version", 8, 2), ("size", 10, 0xffff), ("head", batch, 0xffff), ("used", 16, 0xffff),
                                    ("next", 64 + 2, 0xffff), ("flag", 32, 0x0101), ("num", 32 + 6, 0)):
            seeds[f"{name}-{what}"] = u8(how) + work + poke(offset, value) + kill + take * 4
    seeds["split-found"] = u8(0x43) + u64(0) + u16(1) + u16(8) + u16(2) + u16(0xfffe) + (u8(1) + bytes(5) + u16(1) + u64(5)) * 8 + take * 9
    seeds["packed-found"] = (u8(0xc7) + u64(0) + u16(1) + u16(8) + u16(8) * 2 + u16(0) * 2 + u8(1) * 2 + bytes(10) +
                             b"".join(u8(1) + u8(0) + u16(8) + u16(i) + u16(1) + u64(i) + u16(i) + u16(0x80) + u32(8) + u64(0x3000)
                                      for i in range(8)) + bytes(544 - 32 - 256) + take * 8 + give * 8 + publish)
    return seeds


# --- client: what the program does, and what the server says to each message ---

GET_IO_FDS, DMA_READ, DMA_WRITE, FEATURE = 6, 11, 12, 16
FDS = {"file": u8(1), "event": u8(41), "socket": u8(61 + 20), "twin": u8(0x8d) + u8(4), "null": u8(101), "two-events": u8(42)}
SILENCE, HANG_UP = u8(0x86), u8(0xff)


def says(payload=None, fds=None, number=None, command=None, error=None, size=None, cut=None):
    """A reply; payload None: the request's own."""
    how = (payload is not None) | (fds is not None) << 1 | (number is not None) << 2 | (command is not None) << 3
    how |= (error is not None) << 4 | (size is not None) << 5 | (cut is not None) << 6
    out = u8(0) + u8(how) + (u16(len(payload)) if payload is not None else b"") + (FDS[fds] if fds else b"")
    out += (u8(number) if number is not None else b"") + (u8(command) if command is not None else b"")
    out += (u16(error) if error is not None else b"") + (u32(size) if size is not None else b"")
    return out + (payload or b"") + (u8(cut) if cut is not None else b"")


def asks(piece, offset, count, data=None, twin=False, silent=False, number=1):
    how = (data is not None) | twin << 1 | silent << 2 | piece << 6
    return u8(4) + u8(how) + u16(count) + u16(offset + 16) + u8(number) + (data or b"")


def agrees(more=b'"max_msg_fds":8,"max_data_xfer_size":4096', **how):
    return says(u16(0) + u16(0) + b'{"capabilities":{' + more + b"}}\0", **how)


def course(ops, *script, how=0):
    return u8(how) + u8(len(ops)) + b"".join(u8(op) + u8(a) + u16(b) for op, a, b in ops) + b"".join(script)


def region_reply(areas, size=0x4000, flags=15, offset=0, next_cap=0):
    caps = u16(1) + u16(1) + u32(next_cap) + u32(len(areas)) + u32(0) + b"".join(u64(at) + u64(length) for at, length in areas)
    return u32(32 + len(caps)) + u32(flags) + u32(4) + u32(32) + u64(size) + u64(offset) + caps


def io_fds_reply(entries, stride=40, argsz=None):
    body = b""
    for offset, size, number, kind, flags, match in entries:
        body += u64(offset) + u64(size) + u32(number) + u32(kind) + u32(flags) + u32(0)
        body += u64(match) if stride == 40 else u64(0) + u64(match)
    return u32(argsz if argsz is not None else 16 + len(body)) + u32(0) + u32(4) + u32(len(entries)) + body


def client():
    twin = b'"twin_socket":{"supported":true,"fd_index":0},"write_multiple":true,"max_data_xfer_size":4096'
    multi = b'"write_multiple":true'
    info = says(u32(16) + u32(3) + u32(9) + u32(5))
    whole = says(u32(32) + u32(7) + u32(4) + u32(0) + u64(0x4000) + u64(0), fds="file")
    beyond = says(region_reply([(0x1000, 0x1000), (0x3000, 0x1000)], offset=0x3000), fds="file")
    region = region_reply([(0x1000, 0x1000), (0x3000, 0x1000)])
    bare = says(region_reply([])[:32], fds=None)
    short = says(u32(80) + region[4:32])
    maps = [(8, 0, 1), (8, 1, 7), (8, 2, 7)]
    mapped = says(b"") * 3
    everything = (asks(0, 0, 100) + asks(0, 96, 8) + asks(1, 0, 4, b"data") + asks(1, 0x0ff0, 17) + asks(2, 0, 1, b"x") +
                  asks(0, 0, 4, b"evil") + asks(1, 0, 8, b"noreply!", silent=True) + asks(3, 0, 1))
    entries = [(0x3000, 2, 0, 0, 0, 0), (0x3004, 0, 1, 0, 1, 7), (0, 0, 9, 1, 0, 0)]
    return {
        "nothing": b"",
        "hello": course([], agrees()),
        "hello-no-json": course([], says(u16(0) + u16(0))),
        "hello-silence": course([], SILENCE),
        "hello-gone": course([], HANG_UP),
        "hello-error": course([], says(b"", error=22)),
        "hello-newer": course([], says(u16(0) + u16(1))),
        "hello-bad-json": course([], agrees(b'"max_msg_fds":0')),
        "hello-other-id": course([], agrees(number=1)),
        "hello-other-command": course([], agrees(command=2)),
        "hello-huge": course([], agrees(size=0x7fffffff)),
        "hello-cut": course([(0, 0, 0)], agrees(cut=7), info),
        "twin": course(maps + [(12, 0, 0)], agrees(twin, fds="twin"), mapped,
                       asks(0, 0, 100, twin=True) + asks(1, 0, 4, b"data", twin=True) + says(b""), how=1),
        "twin-uninvited": course([], agrees(twin, fds="twin")),
        "twin-null": course([], agrees(twin, fds="null"), how=1),
        "twin-file": course([], agrees(twin, fds="file"), how=1),
        "twin-none": course([], agrees(twin), how=1),
        "device": course([(0, 0, 0)], agrees(), info),
        "device-short": course([(0, 0, 0)], agrees(), says(b"12345678")),
        "region": course([(1, 4, 0)], agrees(), short, says(region, fds="file")),
        "region-whole": course([(1, 4, 0)], agrees(), whole),
        "region-bare": course([(1, 4, 0)], agrees(), bare),
        "region-beyond-file": course([(1, 4, 0)], agrees(), short, beyond),
        "region-no-file": course([(1, 4, 0)], agrees(), short, says(region, fds="null")),
        "region-loop": course([(1, 4, 0)], agrees(), short, says(region_reply([(0, 1), (2, 3)], next_cap=32))),
        "region-outside": course([(1, 4, 0)], agrees(), short, says(region_reply([(0x3fff, 2), ((1 << 64) - 1, 2)]))),
        "eventfds": course([(2, 4, 0)], agrees(), short, says(region), says(io_fds_reply(entries), fds="two-events")),
        "eventfds-48": course([(2, 4, 0)], agrees(), short, says(region), says(io_fds_reply(entries, 48), fds="two-events")),
        "eventfds-more": course([(2, 4, 0)], agrees(), short, says(region), says(io_fds_reply([], argsz=16 + 80 * 40), fds="event"),
                                says(io_fds_reply(entries[:1] * 80), fds="event")),
        "eventfds-no-fd": course([(2, 4, 0)], agrees(), short, says(region), says(io_fds_reply(entries), fds="event")),
        "eventfds-outside": course([(2, 4, 0)], agrees(), short, says(region),
                                   says(io_fds_reply([(0x4000, 1, 0, 0, 0, 0)]), fds="event")),
        "eventfds-count": course([(2, 4, 0)], agrees(), short, says(region), says(io_fds_reply(entries)[:-1], fds="two-events")),
        "irqs": course([(3, 2, 0), (3, 2, 0x0304), (3, 3, 0x1103)], agrees(), says(u32(16) + u32(1) + u32(2) + u32(5)), says(b"") * 2),
        "registers": course([(4, 7, 64), (5, 7, 64), (6, 4, 2), (4, 7, 2000)], agrees(), says(u64(64) + u32(7) + u32(64) + bytes(64)),
                            says(), says(), how=2),
        "write-multi": course([(7, 0, 250), (7, 1, 250)], agrees(multi), says(u64(200)), says(u64(50))),
        "write-single": course([(7, 0, 3)], agrees(), says(), says(), says()),
        "memory": course(maps + [(12, 0, 0), (9, 1, 2), (9, 0, 4)], agrees(), mapped, everything + says(b""),
                         asks(1, 0, 4) + says(), says()),
        "memory-thread": course(maps + [(12, 1, 0), (0, 0, 0), (11, 0, 0)], agrees(), mapped, everything + info),
        "memory-refused": course(maps, agrees(), says(b"", error=28), says(b"", error=17), says(b"")),
        "memory-gone": course(maps + [(0, 0, 0)], agrees(), mapped, everything + HANG_UP),
        "questions-only": course([(0, 0, 0)], agrees(), (asks(0, 0, 8) + asks(0, 0, 4, b"data")) * 6),
        "feature": course([(10, 1, 3), (10, 8, 24), (10, 2, 6)], agrees(), says(), says(u32(32) + u32(0x10008) + bytes(24)), says()),
        "feature-short": course([(10, 8, 24)], agrees(), says(bytes(7))),
        "raw": course([(0, 0, 0)], agrees(), u8(0x0e) + bytes(14), u8(0x16) + b"\xff" * 22, info),
        "reset": course([(12, 0, 0), (12, 0, 0)], agrees(), says(b""), SILENCE),
    }


# --- vhost: requests of any shape (0), a good beginning (2), a vring's start (3) and end (4), memory (5), the log (7), a kick (8),
# translations (11) and answers to misses (12) ---

def vhost_request(number, payload=b"", fds=(), how=0):
    wide = len(payload) >= 64
    out = u8(0) + u8(how | (2 if fds else 0) | (4 if wide else 0)) + u8(number) + (u8(len(fds)) if fds else b"")
    return out + (u16(len(payload)) if wide else u8(len(payload))) + payload + b"".join(map(u8, fds))


def vhost():
    memory, event, file, socket, channel = range(5)
    begin, log = u8(2) + u8(0), u8(2) + u8(2)
    packed, packed_log = u8(2) + u8(1), u8(2) + u8(3)
    kick, refresh = u8(8) + u8(15), u8(9)

    def start(index=0, base=0):
        return u8(3) + u8(index) + u32(base)

    def stop(index=0):
        return u8(4) + u8(index)

    def poke(offset, data, into=5):
        return u8(into) + u16(offset) + u8(len(data)) + data

    def split_read(sector=0, head=0):
        """Descriptors at page 0, available ring at page 1; header, data and status at page 8."""
        table = (u64(0x8000) + u32(16) + u16(1) + u16(1) + u64(0x9000) + u32(512) + u16(3) + u16(2) + u64(0x8100) + u32(1) + u16(2) +
                 u16(0))
        return poke(0x8000, u32(0) + u32(0) + u64(sector)) + poke(0, table) + poke(0x1000, u16(0) + u16(1) + u16(head))

    def packed_read():
        table = (u64(0x8000) + u32(16) + u16(0) + u16(1) + u64(0x9000) + u32(512) + u16(0) + u16(0x83) + u64(0x8100) + u32(1) + u16(0) +
                 u16(0x82))
        return poke(0x8000, u32(0) + u32(0) + u64(0)) + poke(0, table) + poke(14, u16(0x81))
    region = u64(0) + u64(0x10000) + u64(1 << 40) + u64(0)

    def translate(how, pages, more=b""):
        return u8(11) + u8(how) + u8(pages) + more
    behind, behind_packed = u8(2) + u8(4), u8(2) + u8(5)
    everything, asking, answers = translate(0, 0xf0) + translate(1, 0xf0), vhost_request(21, fds=[channel]), u8(12) + u8(15)
    return {
        "nothing": b"",
        "features": b"".join(vhost_request(number) for number in (1, 15, 17, 36, 40)) + begin + vhost_request(17) + vhost_request(36) +
                    vhost_request(40) + vhost_request(39, u64(15)) + vhost_request(40) + vhost_request(39, u64(0)),
        "features-refused": begin + vhost_request(2, u64(1)) + vhost_request(16, u64(2)),
        "config": begin + vhost_request(24, u32(0) + u32(48) + u32(0) + bytes(48)) + vhost_request(25, u32(32) + u32(1) + u32(0) + b"\0") +
                  vhost_request(24, u32(250) + u32(9) + u32(0) + bytes(9)) + vhost_request(39, u64(0)) + begin,
        "channel": begin + vhost_request(21, fds=[channel]) + refresh + vhost_request(21, fds=[socket]) + vhost_request(1),
        "channel-answers": begin + vhost_request(21, fds=[channel]) + refresh + u8(10) + u8(0) + refresh + u8(10) + u8(2) + u8(5) + u8(10) +
                           u8(1) + bytes(20),
        "in-band": begin + vhost_request(21, fds=[channel]) + split_read() + start() + vhost_request(13, u64(0x100)) +
                   vhost_request(35, u32(0) + u32(0)) + u8(10) + u8(0) + kick,
        "table": begin + vhost_request(5, u32(1) + u32(0) + region, [memory]) + vhost_request(5, u32(0) + u32(0)) +
                 vhost_request(5, u32(2) + u32(0) + region * 2, [memory] * 2),
        "slots": begin + vhost_request(38, u64(0) + region) + vhost_request(37, u64(0) + region, [memory]) +
                 vhost_request(37, u64(0) + region, [file]) + vhost_request(38, u64(0) + region, [memory]),
        "fds": begin + b"".join(vhost_request(number, u64(0), [fd]) for number in (12, 13, 14) for fd in range(5)) +
               vhost_request(13, u64(0x100)) + vhost_request(13, u64(0), [event] * 11),
        "read": begin + split_read() + start() + kick + stop() + start(0, 1) + stop(),
        "read-two": begin + start(1) + split_read() + start() + kick + vhost_request(18, u32(0) + u32(0)) + kick +
                    vhost_request(18, u32(0) + u32(1)),
        "read-and-reset": begin + split_read() + start() + kick + vhost_request(34) + begin + start() + kick,
        "read-and-gone": begin + split_read() + start() + u8(8) + u8(0),
        "read-packed": packed + packed_read() + start(0, 0x80008000) + kick + stop(),
        "bad-head": begin + split_read(head=99) + start() + kick + stop() + split_read() + start(),
        "iommu-all": behind + everything + split_read() + start() + kick + stop(),
        "iommu": behind + asking + split_read() + start() + answers + kick + answers + stop(),
        "iommu-packed": behind_packed + asking + packed_read() + start(0, 0x80008000) + answers + kick + answers + stop(),
        "iommu-log": u8(2) + u8(6) + asking + split_read() + start() + answers + kick + answers + stop() + start(0, 1) + answers,
        "iommu-two": behind + asking + split_read() + start() + start(1) + answers + kick + answers + translate(2, 0xf0) + kick + answers,
        "iommu-denied": behind + asking + split_read() + start() + answers + kick + u8(12) + u8(16) + kick + u8(12) + u8(32) + kick +
                        answers,
        "iommu-flushed": behind + everything + split_read() + start() + kick + translate(2, 0xf0) + translate(3, 0xf0) + asking + kick +
                         answers + translate(2 | 16 | 32, 0, u64(0) + u64(0)) + kick + answers,
        "iommu-refused": behind + translate(4, 0, u8(4)) + translate(8, 0, u8(0)) + translate(16, 0, u64(0)) +
                         translate(16, 0, u64(1 << 63)) + translate(32, 0, u64((1 << 64) - 1)) + translate(64, 0, u32(0)) +
                         translate(2 | 16 | 32, 0, u64(0) + u64(5)) +
                         translate(8, 0, u8(1)) + translate(8, 0, u8(4)),
        "iommu-replaced": behind + everything + translate(0, 0x21) + translate(4, 0x32, u8(1)) + split_read() + start() + kick +
                          translate(4, 8, u8(0)) + kick + u8(12) + u8(3),
        "iommu-on-and-off": behind + everything + begin + split_read() + start() + kick + stop() + behind + start(0, 1) + stop() + begin,
        "iommu-reset": behind + asking + split_read() + start() + vhost_request(34) + behind + asking + start() + answers + kick + answers,
        "iommu-slots": behind + everything + split_read() + start() + vhost_request(38, u64(0) + region) + kick +
                       vhost_request(37, u64(0) + region, [memory]) + asking + kick + answers,
        "unmapped": begin + split_read() + start() + vhost_request(38, u64(0) + region) + kick +
                    vhost_request(37, u64(0) + region, [memory]) + kick,
        "log": log + split_read() + start() + kick + stop() + start(0, 1),
        "log-found": log + poke(8, u16(1) + u16(16) + u16(0) + u16(0) + b"\1" * 16, into=7) + split_read() + start() + kick + stop(),
        "log-packed": packed_log + packed_read() + start(0, 0x80008000) + kick + stop(),
        "log-packed-found": packed_log + poke(8, u16(1) + u16(16) + bytes(12) + b"\1" * 64, into=7) + packed_read() +
                            start(0, 0x80008000) + kick,
        "cut": begin + vhost_request(1, how=32) + vhost_request(2, u64(0), how=64) + vhost_request(8, u32(0) + u32(16), how=32 | 64),
        "sizes": u8(0) + u8(8) + u8(5) + u8(8) + u32(0xffffffff) + bytes(8),
        "flags": begin + vhost_request(1, how=16) + vhost_request(3, how=1),
    }


# --- state: how (packed, a queue, half a message, mixed slots, how much damage), damage, slots, what the client sends then ---

def state():
    nothing = u8(0x40 | 0) + u32(0) + u32(0) + u16(0) + u8(0) + u8(0) + u16(9)  # a region of no bytes
    read = u16(1) + u16(REGION_READ) + u32(32) + u64(0) + u64(0) + u32(7) + u32(4)

    def pair(section, offset, value):
        return u8(0x80 | (section - 1)) + u16(offset) + u8(value)

    def live(where, offset, value, size):
        return u8(where | size.bit_length() - 1 << 3 | 0x20) + u16(offset) + u64(value)

    seeds = {}
    for name, how in (("split", 2), ("packed", 3), ("no-queue", 0), ("half-a-message", 6)):
        seeds[name] = u8(how) + nothing + read
    seeds["region"] = u8(2) + u8(0x40) + u32(0x1000) + u32(0x10) + u16(0) + u8(3) + u8(0x83) + u16(5) + read
    seeds["region-of-no-file"] = u8(2) + u8(0x40) + u32(0x1000) + u32(0x10) + u16(0) + u8(255) + u8(3) + u16(5) + read
    seeds["region-without-a-file"] = u8(2) + u8(0x40) + u32(0x1000) + u32(0x10) + u16(0) + u8(9) + u8(0x83) + u16(5)
    seeds["region-too-long"] = u8(2) + u8(0x40) + u32(0x1000) + u32(0xffff0) + u16(0) + u8(3) + u8(0x83) + u16(5)
    for offset, value in ((0, 9), (4, 3), (24, 0xff), (32, 0xff), (40, 9), (44, 2)):
        seeds[f"session-{offset}"] = u8(2) + pair(1, offset, value) + read
    for offset, value in ((4, 6), (4112, 0xff), (4124, 0x4f), (4124, 0xff), (4192, 9), (4194, 7), (4196, 1), (4200, 3)):
        seeds[f"registers-{offset}-{value}"] = u8(2) + pair(2, offset, value) + read
    for offset, value in ((4, 1), (8, 2), (264, 3), (268, 0x7f), (271, 0x80)):
        seeds[f"interrupts-{offset}"] = u8(2) + pair(3, offset, value) + read
    for offset in (0, 64, 72, 80, 128 + 56, 2048, 2056, 2064):
        seeds[f"received-{offset}"] = u8(6) + live(2, offset, 1, 8)
        seeds[f"owed-{offset}"] = u8(2) + live(3, offset, 1, 8)
    for offset in (0, 8, 16 + 8, 16 + 10, 16 + 12, 16 + 14, 16 + 16, 16 + 32):
        seeds[f"queue-{offset}"] = u8(2) + live(4, offset, 1, 8)
        seeds[f"packed-queue-{offset}"] = u8(3) + live(4, offset, 1, 8)
    for offset in (0, 8, 16, 24, 32, 88):
        seeds[f"header-{offset}"] = u8(2) + live(7, offset, 77, 4)
    for mixed in (145, 151, 157, 163, 170, 176, 216, 217, 218, 219):
        seeds[f"slots-{mixed}"] = u8(10) + nothing + u8(mixed) + read
    return seeds


def main():
    total = 0
    for make in (version, options, config, registers, pci_config, chain, virtio_blk, nvme_walk, nvme_io, nvme_admin, nvme_registers,
                 session, inflight, client, vhost, state):
        folder = CORPUS / make.__name__
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith(("found-", "learned-")):
                old.unlink()
        for name, data in make().items():
            (folder / name).write_bytes(data)
            total += len(data)
        print(f"{make.__name__}: {len(list(folder.iterdir()))} inputs")
    print(f"{total} bytes")


if __name__ == "__main__":
    main()
