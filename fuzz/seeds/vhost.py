# SPDX-License-Identifier: BSD-3-Clause
"""vhost-user."""

from .numbers import u8, u16, u32, u64

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
