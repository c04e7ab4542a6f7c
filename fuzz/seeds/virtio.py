# SPDX-License-Identifier: BSD-3-Clause
"""Virtio: registers, configuration space, rings and their chains, a disk's requests, the log of what is in flight."""

from .numbers import u8, u16, u32, u64

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
