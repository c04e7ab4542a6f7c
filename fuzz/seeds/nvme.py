# SPDX-License-Identifier: BSD-3-Clause
"""NVMe: lists of memory, commands, registers."""

from .numbers import u8, u16, u32, u64

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


# --- nvme_driver: the controller's manners, how to open the disk, then what its user does ---

def ask_disk(op, offset=0, blocks=1, data=0, last=True):
    """A request; the last of a batch ends it."""
    return u8(op | (8 if last else 0)) + u16(offset) + u8(blocks - 1) + u16(data)


def nvme_driver():
    read, write, flush, discard, zeroes, unmap, compare, get_id = range(8)
    submit, take, check, reset = u8(0), u8(0xf8 | 4), u8(6), u8(7)
    every = b"".join(submit + ask_disk(op, op * 7, 9, 512) for op in (read, write, flush, discard, zeroes, unmap, compare, get_id))
    batch = submit + b"".join(ask_disk(read, i, 1 + i * 8, i * 68, last=i == 31) for i in range(32))
    odd_places = b"".join(submit + ask_disk(write, 0, 256, place) for place in (0, 4, 512, 4092))
    courses = {"every": every + take, "batch": (batch + take) * 9, "places": odd_places + take, "check": check + every + take,
               "reset": batch + take + batch + reset + batch + take}
    seeds = {}
    for name, course in courses.items():
        for how in (0, 2, 5):  # the first namespace, SGLs, namespace 1 with two queues
            for size in (0, 2, 33):
                seeds[f"{name}-{how}-{size}"] = u8(0) + u8(4) + u8(how) + u8(size) + u8(size - 1 if size else 0) + course
    return seeds
