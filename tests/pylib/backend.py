# SPDX-License-Identifier: BSD-3-Clause
"""A vhost-user back end with a small device (backend_devices.py) on split rings, made to be wrong: `fault` names one thing that it does
not do as the specification says. It shares no code with the product, so that with no fault it also says whether a front end is right.

One thread serves one client after the other: messages and kicks in turn."""

import errno
import mmap
import os
import select
import socket
import struct
import threading

from .backend_devices import QUEUES, Disk, Impossible
from .vhost import ADDRESSES, CONFIG, F_PROTOCOL_FEATURES, HEADER, INFLIGHT, NEED_REPLY, NO_FD, REGION, REPLY, STATE, U64, VERSION, P, Req

F_INDIRECT, F_EVENT_IDX, F_VERSION_1 = 1 << 28, 1 << 29, 1 << 32
F_LOG_ALL = 1 << 26
FEATURES = F_VERSION_1 | F_LOG_ALL | F_INDIRECT | F_EVENT_IDX | F_PROTOCOL_FEATURES # beside the device's own
PROTOCOL = (P.MQ | P.REPLY_ACK | P.CONFIG | P.RESET_DEVICE | P.CONFIGURE_MEM_SLOTS | P.STATUS | P.INFLIGHT_SHMFD | P.LOG_SHMFD |
            P.BACKEND_REQ | P.INBAND_NOTIFICATIONS | P.DEVICE_STATE)
BACKEND_VRING_CALL, VRING_F_LOG = 4, 1
SLOTS, SIZE_MAX = 64, 1024
NEXT, WRITE, INDIRECT = 1, 2, 4
DESC = struct.Struct("<QIHH")
SIZES = {Req.SET_FEATURES: 8, Req.SET_PROTOCOL_FEATURES: 8, Req.SET_VRING_NUM: 8, Req.SET_VRING_BASE: 8, Req.GET_VRING_BASE: 8,
         Req.SET_VRING_ADDR: 40, Req.SET_VRING_ENABLE: 8, Req.SET_VRING_KICK: 8, Req.SET_VRING_CALL: 8, Req.SET_VRING_ERR: 8,
         Req.VRING_KICK: 8, Req.SET_LOG_BASE: 16, Req.ADD_MEM_REG: 40, Req.REM_MEM_REG: 40, Req.SET_STATUS: 8,
         Req.GET_INFLIGHT_FD: 24, Req.SET_INFLIGHT_FD: 24, Req.SET_DEVICE_STATE_FD: 8}


class Refused(Exception):
    """A message that cannot be."""


class Broken(Exception):
    """A ring that cannot be."""


class Region:
    def __init__(self, payload, fd):
        self.guest, self.size, self.user, self.offset = REGION.unpack(payload)
        if fd is None:
            raise Refused
        try:
            if not self.size or max(self.guest, self.user, self.offset) + self.size >= 2**64:
                raise Refused
            if self.offset + self.size > os.fstat(fd).st_size:
                raise Refused
            self.map = mmap.mmap(fd, self.offset + self.size)
        except (OSError, ValueError, OverflowError):
            raise Refused from None
        finally:
            os.close(fd)
        self.bytes = memoryview(self.map)

    def same(self, payload):
        return (self.guest, self.size, self.user) == REGION.unpack(payload)[:3]


class Vring:
    def __init__(self):
        self.size = self.avail = self.used = 0
        self.addresses = None
        self.kick = self.call = self.err = None
        self.enabled = self.running = False
        self.log = None  # the guest's address of the used ring, for the log


class Session:
    """One client."""

    def __init__(self, backend, sock):
        self.backend, self.fault, self.sock = backend, backend.fault, sock
        self.device, self.offered = backend.device, FEATURES | backend.device.features
        self.regions, self.fds = [], []
        self.features = self.protocol = self.status = 0
        self.vrings = [Vring() for _ in range(QUEUES)]
        self.buffer = b""
        self.channel = self.log = self.state = None

    # --- memory ---

    def find(self, address, size, field):
        """Views of [address, address + size), which may lie in several regions."""
        views = []
        while size:
            region = next((r for r in self.regions if 0 <= address - getattr(r, field) < r.size), None)
            if region is None:
                raise Broken
            at = address - getattr(region, field)
            step = min(size, region.size - at)
            views.append(region.bytes[region.offset + at:region.offset + at + step])
            address, size = address + step, size - step
        return views

    def area(self, address, size):
        """A ring's part, which lies in one piece."""
        views = self.find(address, size, "user")
        if len(views) != 1:
            raise Broken
        return views[0]

    # --- messages ---

    def send(self, request, payload, fds=()):
        flags = VERSION | (0 if self.fault == "no reply flag" else REPLY)
        socket.send_fds(self.sock, [HEADER.pack(request, flags, len(payload)) + payload], fds)

    def read(self):
        """Takes what has come; False at the end."""
        data, fds, _, _ = socket.recv_fds(self.sock, 4096, 64)
        self.fds += fds
        self.buffer += data
        while len(self.buffer) >= HEADER.size:
            request, flags, size = HEADER.unpack_from(self.buffer)
            if size > 2048:
                return False
            if len(self.buffer) < HEADER.size + size:
                break
            payload, self.buffer = self.buffer[HEADER.size:HEADER.size + size], self.buffer[HEADER.size + size:]
            if not self.handle(request, flags, payload):
                return False
        return bool(data)

    def handle(self, request, flags, payload):
        fds, self.fds = self.fds, []
        wanted = flags & NEED_REPLY and self.protocol & P.REPLY_ACK
        try:
            handler = getattr(self, f"do_{Req(request).name.lower()}", None) if request in list(Req) else None
            if handler is None or flags & 3 != VERSION or SIZES.get(request, len(payload)) != len(payload):
                raise Refused
            result = handler(payload, fds)
        except (Refused, Broken, struct.error, IndexError):
            if not wanted:
                return False
            result = 22
        finally:
            for fd in fds:
                os.close(fd)
        if isinstance(result, bytes):
            self.send(request, result)
        elif (wanted and self.fault != "no acknowledgement") or self.fault == "acknowledges unasked":
            if result is not Ellipsis:
                self.send(request, U64.pack(result or 0))
        return True

    def do_get_features(self, _payload, _fds):
        return U64.pack(self.offered)

    def do_set_features(self, payload, _fds):
        self.features, = U64.unpack(payload)
        if self.features & ~self.offered:
            raise Refused
        for vring in self.vrings if not self.features & F_PROTOCOL_FEATURES else ():
            vring.enabled = True

    def do_get_protocol_features(self, _payload, _fds):
        return U64.pack(PROTOCOL)

    def do_set_protocol_features(self, payload, _fds):
        asked, = U64.unpack(payload)
        if asked & ~PROTOCOL or (asked & P.INBAND_NOTIFICATIONS and (P.BACKEND_REQ | P.REPLY_ACK) & ~asked):
            raise Refused
        self.protocol = asked

    def do_set_backend_req_fd(self, _payload, fds):
        if len(fds) != 1:
            raise Refused
        try:
            channel = socket.socket(fileno=os.dup(fds[0]))
        except OSError:
            raise Refused from None
        if self.channel:
            self.channel.close()
        self.channel = channel

    def do_set_log_base(self, payload, fds):
        size, offset = struct.unpack("<QQ", payload)
        if len(fds) != 1 or offset + size > os.fstat(fds[0]).st_size:
            raise Refused
        self.log = memoryview(mmap.mmap(fds[0], offset + size))[offset:]
        return U64.pack(0)

    def mark(self, guest, size):
        if self.log is not None and self.features & F_LOG_ALL and self.fault != "logs nothing":
            for page in range(guest >> 12, (guest + size - 1 >> 12) + 1):
                self.log[page >> 3] |= 1 << (page & 7)

    def do_set_owner(self, _payload, fds):
        if fds:
            raise Refused

    def do_get_queue_num(self, _payload, _fds):
        return U64.pack(0 if self.fault == "no queues" else QUEUES)

    def do_get_max_mem_slots(self, _payload, _fds):
        return U64.pack(SLOTS)

    def do_get_status(self, _payload, _fds):
        return U64.pack(self.status & (0xFD if self.fault == "forgets DRIVER" else 0xFF))

    def do_set_status(self, payload, _fds):
        self.status, = U64.unpack(payload)

    def do_reset_device(self, _payload, _fds):
        for index in range(QUEUES):
            self.stop(index)
            self.vrings[index].enabled = False
        self.status = 0

    # --- configuration ---

    def do_get_config(self, payload, _fds):
        offset, size, flags = CONFIG.unpack_from(payload)
        if offset + size > 256 or len(payload) != CONFIG.size + size:
            return b""
        if self.fault == "ignores the offset":
            return CONFIG.pack(offset, size, flags) + self.device.config()[:size]
        return CONFIG.pack(offset, size, flags) + self.device.config()[offset:offset + size]

    def do_set_config(self, payload, _fds):
        offset, size, flags = CONFIG.unpack_from(payload)
        if flags or offset + size > 256 or len(payload) != CONFIG.size + size or not self.device.set_config(offset, payload[CONFIG.size:]):
            raise Refused

    # --- memory's messages ---

    @staticmethod
    def one(fds):
        return fds.pop() if len(fds) == 1 else None

    def do_add_mem_reg(self, payload, fds):
        region = Region(payload[8:], self.one(fds))
        if any(r.guest < region.guest + region.size and region.guest < r.guest + r.size for r in self.regions):
            raise Refused
        self.regions.append(region)

    def do_rem_mem_reg(self, payload, fds):
        if self.fault == "keeps the fd of REM_MEM_REG":
            self.backend.kept += fds
            fds.clear()
        region = next((r for r in self.regions if r.same(payload[8:])), None)
        if region is None:
            raise Refused
        self.regions.remove(region)

    def do_set_mem_table(self, payload, fds):
        count, _ = struct.unpack_from("<II", payload)
        if count != len(fds) or len(payload) != 8 + count * REGION.size:
            raise Refused
        given = list(fds)
        fds.clear()
        self.regions = [Region(payload[8 + i * REGION.size:][:REGION.size], fd) for i, fd in enumerate(given)]

    def do_get_inflight_fd(self, payload, _fds):
        _, _, queues, size = INFLIGHT.unpack(payload)
        total = queues * (16 + 16 * size) + 4096
        fd = os.memfd_create("inflight")
        os.ftruncate(fd, total)
        self.send(Req.GET_INFLIGHT_FD, INFLIGHT.pack(total, 0, queues, size), [] if self.fault == "no inflight fd" else [fd])
        os.close(fd)
        return ...

    def do_set_inflight_fd(self, payload, fds):
        size, offset, queues, entries = INFLIGHT.unpack(payload)
        if len(fds) != 1 or not queues or size < queues * 16 * entries or offset + size > os.fstat(fds[0]).st_size:
            raise Refused

    # --- the device's state ---

    def do_set_device_state_fd(self, payload, fds):
        direction, phase = STATE.unpack(payload)
        if direction > 1 or phase or len(fds) != 1:
            return U64.pack(NO_FD | errno.EINVAL)
        self.drop_state()
        if direction == 1:
            self.state = fds.pop()
            if self.fault == "brings a channel of its own":
                os.close(self.state)
                self.state, theirs = os.pipe()
                self.send(Req.SET_DEVICE_STATE_FD, U64.pack(0), [theirs])
                os.close(theirs)
                return ...
        else:
            os.write(fds[0], self.device.save())
            if self.fault == "does not close the state":
                self.backend.kept.append(os.dup(fds[0]))
        return U64.pack(0 if self.fault == "says that an fd comes with it" else NO_FD)

    def do_check_device_state(self, _payload, _fds):
        state = b""
        while self.state is not None and (piece := os.read(self.state, 65536)):
            state += piece
        loads, good = self.state is not None, True
        self.drop_state()
        if loads:
            good = self.device.load(state)
        return U64.pack(0 if good and self.fault != "never checks its state" else 1)

    def drop_state(self):
        if self.state is not None:
            os.close(self.state)
        self.state = None

    # --- vrings ---

    def do_set_vring_num(self, payload, _fds):
        index, size = STATE.unpack(payload)
        if size == 0 or size > SIZE_MAX or size & (size - 1):
            raise Refused
        self.vrings[index].size = size

    def do_set_vring_base(self, payload, _fds):
        index, base = STATE.unpack(payload)
        self.vrings[index].avail = base & 0xFFFF

    def do_set_vring_addr(self, payload, _fds):
        index, flags, desc, used, avail, log = ADDRESSES.unpack(payload)
        vring = self.vrings[index]
        self.area(desc, 16 * vring.size), self.area(avail, 6 + 2 * vring.size), self.area(used, 6 + 8 * vring.size)
        vring.addresses = desc, avail, used
        vring.log = log if flags & VRING_F_LOG else None

    def used_index(self, vring):
        vring.used = int.from_bytes(self.area(vring.addresses[2], 4)[2:4], "little")
        if self.fault == "takes the used index for 0":
            vring.used = 0

    def do_vring_kick(self, payload, _fds):
        index, _ = STATE.unpack(payload)
        if not self.protocol & P.INBAND_NOTIFICATIONS:
            raise Refused
        if not self.vrings[index].running:
            self.used_index(self.vrings[index])
        self.vrings[index].running = True
        self.work(index)

    def vring_fd(self, payload, fds):
        value, = U64.unpack(payload)
        if value & ~0x1FF or (len(fds) != 1) != bool(value & NO_FD):
            raise Refused
        return self.vrings[value & 0xFF], None if value & NO_FD else fds.pop()

    def do_set_vring_kick(self, payload, fds):
        vring, fd = self.vring_fd(payload, fds)
        if fd is None or not vring.addresses:
            if fd is not None:
                os.close(fd)
            raise Refused
        vring.kick = self.replace(vring.kick, fd)
        os.set_blocking(fd, False)
        self.used_index(vring)

    def do_set_vring_call(self, payload, fds):
        vring, fd = self.vring_fd(payload, fds)
        vring.call = self.replace(vring.call, fd)

    def do_set_vring_err(self, payload, fds):
        vring, fd = self.vring_fd(payload, fds)
        vring.err = self.replace(vring.err, fd)

    @staticmethod
    def replace(old, new):
        if old is not None:
            os.close(old)
        return new

    def do_set_vring_enable(self, payload, _fds):
        index, on = STATE.unpack(payload)
        self.vrings[index].enabled = bool(on)
        if on and self.vrings[index].running:
            self.work(index)

    def stop(self, index):
        vring = self.vrings[index]
        if self.fault == "goes on when it is stopped":
            return
        vring.running = False
        vring.kick = self.replace(vring.kick, None)

    def do_get_vring_base(self, payload, _fds):
        index, _ = STATE.unpack(payload)
        vring = self.vrings[index]
        self.stop(index)
        return STATE.pack(index, vring.avail + (self.fault == "one too far in GET_VRING_BASE"))

    # --- a ring ---

    def kicked(self, index):
        vring = self.vrings[index]
        try:
            os.read(vring.kick, 8)
        except BlockingIOError:
            return
        if self.fault == "forgets every 50th notification":
            self.backend.kicks += 1
            if self.backend.kicks % 50 == 0:
                return
        vring.running = True
        if vring.enabled:
            self.work(index)

    def work(self, index):
        vring = self.vrings[index]
        try:
            desc, avail, used = vring.addresses
            self.run(vring, self.area(desc, 16 * vring.size), self.area(avail, 6 + 2 * vring.size), self.area(used, 6 + 8 * vring.size))
        except (Broken, Refused):
            vring.running = False
            if vring.err is not None:
                os.write(vring.err, U64.pack(1))

    def run(self, vring, desc, avail, used):
        events = self.features & F_EVENT_IDX
        avail16, used16 = avail.cast("H"), used.cast("H")
        while True:
            before, batch = vring.used, []
            ahead = (avail16[1] - vring.avail) & 0xFFFF
            if ahead > vring.size:
                raise Broken
            for _ in range(ahead):
                head = avail16[2 + vring.avail % vring.size]
                vring.avail = (vring.avail + 1) & 0xFFFF
                batch.append((head, self.request(vring, desc, head)))
            if self.fault == "loses the last of a batch" and len(batch) > 1:
                batch.pop()
            if self.fault == "loses the first of a batch" and len(batch) > 1:
                batch.pop(0)
            if self.fault == "uses one twice" and len(batch) > 1:
                batch.append(batch[0])
            for head, written in batch:
                struct.pack_into("<II", used, 4 + 8 * (vring.used % vring.size), head ^ (self.fault == "names another chain"), written)
                vring.used = (vring.used + 1) & 0xFFFF
            used16[1] = vring.used
            if vring.log is not None:
                self.mark(vring.log, 6 + 8 * vring.size)
            if self.fault == "sets flags with the event index" and events:
                used16[0] = 1
            if events:
                used16[2 + 4 * vring.size] = vring.avail
            os.getppid()  # a system call is barrier enough
            self.notify(vring, avail16, before, events)
            if avail16[1] == vring.avail:
                return

    def notify(self, vring, avail16, before, events):
        in_band = self.protocol & P.INBAND_NOTIFICATIONS and vring.call is None
        if vring.used == before or (vring.call is None and not in_band) or self.fault == "never interrupts":
            return
        event = avail16[2 + vring.size]
        if events and self.fault == "interrupts only at the event index":
            wanted = (event + 1) & 0xFFFF == vring.used
        elif events and self.fault != "knows no event index":
            wanted = ((vring.used - event - 1) & 0xFFFF) < ((vring.used - before) & 0xFFFF)
        else:
            wanted = not avail16[0] & 1
        if wanted or self.fault == "interrupts always":
            self.call(vring, in_band)

    def call(self, vring, in_band):
        if not in_band:
            os.write(vring.call, U64.pack(1))
        elif self.fault != "never calls in band":
            index = self.vrings.index(vring)
            self.channel.send(HEADER.pack(BACKEND_VRING_CALL, VERSION | NEED_REPLY, STATE.size) + STATE.pack(index, 0))

    def chain(self, vring, desc, head):
        """(readable, writable) pieces as addresses and sizes."""
        pieces, table, count, at, inside = [], desc, vring.size, head, False
        while True:
            if at >= count or len(pieces) > vring.size:
                raise Broken
            address, size, flags, following = DESC.unpack_from(table, at * 16)
            if flags & INDIRECT:
                first = self.fault != "takes tables only at the head" or not pieces
                if inside or flags & NEXT or not size or size % 16 or not self.features & F_INDIRECT or not first:
                    raise Broken
                table = b"".join(bytes(view) for view in self.find(address, size, "guest"))
                count, at, inside = size // 16, 0, True
                continue
            if pieces and pieces[-1][2] & WRITE and not flags & WRITE:
                raise Broken
            pieces.append((address, size, flags))
            if not flags & NEXT:
                return [p[:2] for p in pieces if not p[2] & WRITE], [p[:2] for p in pieces if p[2] & WRITE]
            at = following

    def request(self, vring, desc, head):
        """Does it; bytes written."""
        readable, writable = self.chain(vring, desc, head)
        if self.fault == "wants the header in one descriptor" and readable and readable[0][1] != 16:
            raise Broken
        out = b"".join(bytes(view) for address, size in readable for view in self.find(address, size, "guest"))
        room = [view for address, size in writable for view in self.find(address, size, "guest")]
        try:
            data, last, total = self.device.serve(out, sum(len(view) for view in room))
        except Impossible:
            raise Broken from None
        if self.fault == "puts the status behind the first piece" and len(room) > 2 and data:
            data = data[:len(room[0])] + bytes([last]) + data[len(room[0]):]
        for view in room:
            part, data = (data or b"")[:len(view)], (data or b"")[len(view):]
            view[:len(part)] = part
        if last is not None:
            room[-1][-1] = last
        for address, size in writable:
            self.mark(address, size)
        if self.fault == "writes past the end of a buffer":
            for region in self.regions:
                last = writable[-1][0] + writable[-1][1]
                if region.guest <= last < region.guest + region.size:
                    region.bytes[region.offset + last - region.guest] = 0
        return total + (1000 if self.fault == "says it wrote more" else 0)

    def close(self):
        self.drop_state()
        for vring in self.vrings:
            for fd in (vring.kick, vring.call, vring.err):
                self.replace(fd, None)
        for fd in self.fds:
            os.close(fd)
        if self.channel:
            self.channel.close()
        self.sock.close()


class Backend:
    """At a path, in a thread of this process, until it is closed."""

    def __init__(self, path, fault=None, device=Disk):
        self.path, self.fault, self.device = path, fault, device(fault)
        self.kicks, self.kept = 0, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(16)
        self.wake = os.eventfd(0)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while True:
            ready, _, _ = select.select([self.listener, self.wake], [], [])
            if self.wake in ready:
                return
            session = Session(self, self.listener.accept()[0])
            try:
                while self.turn(session):
                    pass
            except OSError:
                pass  # the client has gone
            finally:
                session.close()

    def turn(self, session):
        kicks = {vring.kick: index for index, vring in enumerate(session.vrings) if vring.kick is not None}
        ready, _, _ = select.select([session.sock, self.wake, *kicks], [], [])
        if self.wake in ready:
            return False
        for fd in ready:
            if fd in kicks and session.vrings[kicks[fd]].kick == fd:
                session.kicked(kicks[fd])
        return session.read() if session.sock in ready else True

    def close(self):
        os.eventfd_write(self.wake, 1)
        self.thread.join()
        self.listener.close()
        os.unlink(self.path)
        for fd in [self.wake, *self.kept]:
            os.close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
