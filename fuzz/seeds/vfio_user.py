# SPDX-License-Identifier: BSD-3-Clause
"""vfio-user: a server's session, a client's, and going on with a session from its record."""

from .numbers import u8, u16, u32, u64

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
