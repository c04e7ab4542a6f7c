# SPDX-License-Identifier: BSD-3-Clause
"""A vfio-user client that does as it is told, also when that is wrong.

Bytes can be sent one at a time, with any fds, many messages before the first reply is read, with NO_REPLY; replies
are matched by id. Commands that the server sends (DMA_READ, DMA_WRITE) go to `on_command`.
"""

import array
import fcntl
import mmap
import os
import socket
import struct
import time
from collections import deque

from . import wire
from .events import PATIENCE, EventFd, readable
from .wire import Cmd


class Closed(Exception):
    """The server ended the session. `clean`: by end of file (and not by ECONNRESET, which means unread input)."""

    def __init__(self, clean, partial=b""):
        super().__init__("end of file" if clean else "connection reset (the server closed with unread input)")
        self.clean = clean
        self.partial = partial


class Refused(Exception):
    """An error reply came where a good one was asked for."""

    def __init__(self, reply):
        super().__init__(f"refused with errno {reply.errno} ({os.strerror(reply.errno)}): {reply}")
        self.reply = reply
        self.errno = reply.errno


class NoReply(Exception):
    """Nothing came in time."""


class Client:
    def __init__(self, sock, *, timeout=PATIENCE):
        self.sock = sock
        self.timeout = timeout
        self.next_id = 1
        self.inbox = deque()  # messages read while another was waited for
        self.on_command = None
        self.handshake_reply = None
        self.twin = None  # a client of its own, for the server's commands, where VERSION made one
        self._fds = []  # fds that came with bytes not yet part of a message
        self._buffer = bytearray()

    @classmethod
    def connect(cls, path, *, timeout=PATIENCE):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        # A blocking connect with a limit: Python's own timeouts make it non-blocking, and a full backlog then EAGAIN.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(timeout), 0))
        try:
            sock.connect(str(path))
            sock.settimeout(timeout)
        except BaseException:
            sock.close()
            raise
        return cls(sock, timeout=timeout)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        for message in self.inbox:
            for fd in message.fds:
                os.close(fd)
        self.inbox.clear()
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        if self.twin is not None:
            self.twin.close()
        self.sock.close()

    # --- sending ---------------------------------------------------------------------------------------------

    def send_bytes(self, data, fds=(), blocks=None):
        """Raw bytes; fds go with the first of them. blocks: lists of fds, an SCM_RIGHTS block each."""
        if blocks is None:
            blocks = [fds] if fds else []
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", list(block))) for block in blocks]
        view = memoryview(data)
        if control:
            sent = self.sock.sendmsg([view], control)
            view = view[sent:]
        if len(view):
            self.sock.sendall(view)

    def send(self, cmd, payload=b"", *, fds=(), flags=0, errno=0, size=None, msg_id=None):
        """One message in one write; returns its id."""
        if msg_id is None:
            msg_id = self.fresh_id()
        self.send_bytes(wire.pack(cmd, payload, msg_id=msg_id, flags=flags, errno=errno, size=size), fds)
        return msg_id

    def fresh_id(self):
        msg_id = self.next_id
        self.next_id = (self.next_id + 1) & 0xFFFF
        return msg_id

    # --- receiving -------------------------------------------------------------------------------------------

    def _fill(self, need, deadline):
        """Reads until the buffer holds `need` bytes."""
        while len(self._buffer) < need:
            left = deadline - time.monotonic()
            if left <= 0 or not readable(self.sock, left):
                raise NoReply(f"no message within the time: {len(self._buffer)} of {need} bytes are here")
            try:
                data, ancillary, _, _ = self.sock.recvmsg(max(need - len(self._buffer), 1),
                                                          socket.CMSG_SPACE(64 * 4), socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError:
                raise Closed(False, bytes(self._buffer)) from None
            for level, kind, block in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    got = array.array("i")
                    got.frombytes(block[:len(block) - len(block) % got.itemsize])
                    self._fds.extend(got)
            if not data:
                raise Closed(True, bytes(self._buffer))
            self._buffer += data

    def recv_any(self, timeout=None):
        """The next message off the wire, whatever it is."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        self._fill(wire.HEADER_SIZE, deadline)
        message = wire.unpack_header(bytes(self._buffer[:wire.HEADER_SIZE]))
        assert wire.HEADER_SIZE <= message.size <= wire.MAX_MESSAGE, f"the server sent a bad msg_size: {message}"
        self._fill(message.size, deadline)
        message.payload = bytes(self._buffer[wire.HEADER_SIZE:message.size])
        del self._buffer[:message.size]
        message.fds, self._fds = self._fds, []
        return message

    def recv(self, timeout=None):
        """The next reply in order; commands of the server are handled on the way."""
        if self.inbox:
            return self.inbox.popleft()
        while True:
            message = self.recv_any(timeout)
            if message.is_reply:
                return message
            self._command(message)

    def _command(self, message):
        assert message.flags & wire.TYPE_MASK == wire.TYPE_COMMAND, f"neither command nor reply: {message}"
        assert self.on_command is not None, f"the server sent a command that nobody expects: {message}"
        self.on_command(message)

    def reply_to(self, msg_id, timeout=None):
        """The reply with this id; others that come before it are kept."""
        for message in self.inbox:
            if message.msg_id == msg_id:
                self.inbox.remove(message)
                return message
        while True:
            message = self.recv_any(timeout)
            if not message.is_reply:
                self._command(message)
            elif message.msg_id == msg_id:
                return message
            else:
                self.inbox.append(message)

    def serve_commands(self, until, timeout=PATIENCE):
        """Handles the server's commands (DMA_READ, DMA_WRITE) until until() is true; its last value."""
        end = time.monotonic() + timeout
        while True:
            value = until()
            if value or time.monotonic() >= end:
                return value
            if self._buffer or readable(self.sock, 0.002):
                message = self.recv_any()
                if message.is_reply:
                    self.inbox.append(message)
                else:
                    self._command(message)

    # --- exchanges -------------------------------------------------------------------------------------------

    def exchange(self, cmd, payload=b"", *, fds=(), flags=0, timeout=None, **kwargs):
        """Sends and gives the reply, good or not, after the checks that every reply must pass."""
        msg_id = self.send(cmd, payload, fds=fds, flags=flags, **kwargs)
        reply = self.reply_to(msg_id, timeout)
        assert reply.cmd == cmd & 0xFFFF, f"the reply names another command than {cmd}: {reply}"
        assert reply.flags & ~(wire.TYPE_MASK | wire.ERROR) == 0, f"unknown flags in a reply: {reply}"
        if not reply.is_error:
            assert reply.errno == 0, f"errno without the error flag: {reply}"
        return reply

    def call(self, cmd, payload=b"", **kwargs):
        """A request that has to succeed; gives the reply's payload, and closes fds that came with it."""
        reply = self.exchange(cmd, payload, **kwargs)
        for fd in reply.fds:
            os.close(fd)
        if reply.is_error:
            raise Refused(reply)
        return reply.payload

    def refused(self, cmd, payload=b"", *, errnos=None, padded=False, **kwargs):
        """REFUSE: a request that has to be refused by an error reply of a header only; gives the errno."""
        reply = self.exchange(cmd, payload, **kwargs)
        return self.check_refusal(reply, errnos=errnos, padded=padded)

    @staticmethod
    def check_refusal(reply, *, errnos=None, padded=False):
        assert reply.is_reply, f"not a reply: {reply}"
        assert reply.is_error, f"accepted, but it has to be refused: {reply}"
        assert 0 < reply.errno < 4096, f"an error reply without a sensible errno: {reply}"
        if not padded:
            assert reply.size == wire.HEADER_SIZE, f"an error reply is a header only: {reply}"
        assert not reply.fds, f"an error reply carries fds: {reply}"
        if errnos is not None:
            names = ", ".join(f"{number} ({os.strerror(number)})" for number in errnos)
            assert reply.errno in errnos, f"refused with errno {reply.errno}, expected one of {names}: {reply}"
        return reply.errno

    def dropped(self, timeout=None, *, clean=True):
        """DROP: the server has to end the session, by end of file; gives the messages that came before it."""
        before = []
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            try:
                message = self.recv_any(max(deadline - time.monotonic(), 0.001))
            except Closed as closed:
                assert not closed.partial, f"the server closed in the middle of a message: {closed.partial.hex()}"
                if clean:
                    assert closed.clean, "the server closed with unread input (ECONNRESET): QEMU aborts on that"
                return before
            except NoReply:
                shown = ", ".join(str(m) for m in before)
                raise AssertionError(f"the session is still open; it has to be dropped [{shown}]") from None
            for fd in message.fds:
                os.close(fd)
            before.append(message)

    def silent(self, seconds=0.1):
        """True if nothing comes (and the session isn't ended) for that long."""
        if self.inbox or self._buffer:
            return False
        return not readable(self.sock, seconds)

    def fence(self):
        """A harmless request; its reply must be the next message: nothing was answered twice, nothing is owed."""
        assert not self.inbox, f"replies nobody asked for: {[str(m) for m in self.inbox]}"
        msg_id = self.send(Cmd.GET_INFO, wire.device_info())
        message = self.recv_any()
        assert message.is_reply and message.msg_id == msg_id and message.cmd == Cmd.GET_INFO, \
            f"another message than the one reply that is due (GET_INFO id {msg_id}): {message}"
        assert not message.is_error, f"the session is no longer usable: {message}"

    # --- the usual requests ----------------------------------------------------------------------------------

    def handshake(self, capabilities=wire.OUR_CAPS, *, major=0, minor=0, text=None):
        reply = self.exchange(Cmd.VERSION, wire.version(capabilities, major=major, minor=minor, text=text))
        if reply.is_error:
            raise Refused(reply)
        self.handshake_reply = reply.payload
        self._take_twin(reply)
        return wire.parse_version(reply.payload)

    def _take_twin(self, reply):
        index = wire.twin_index(reply.payload)
        assert len(reply.fds) == (index is not None), f"{len(reply.fds)} fds with {reply.payload}"
        if index is not None:
            self.twin = Client(socket.socket(fileno=reply.fds[index]), timeout=self.timeout)

    def dma_map(self, addr, size, *, fd=None, offset=0, flags=wire.MAP_RW):
        self.call(Cmd.DMA_MAP, wire.dma_map(addr, size, offset=offset, flags=flags), fds=[] if fd is None else [fd])

    def dma_unmap(self, addr, size, *, flags=0, timeout=None):
        return self.call(Cmd.DMA_UNMAP, wire.dma_unmap(addr, size, flags=flags), timeout=timeout)

    def device_info(self):
        return wire.parse_device_info(self.call(Cmd.GET_INFO, wire.device_info()))

    def region_info(self, index):
        return wire.parse_region_info(self.call(Cmd.GET_REGION_INFO, wire.region_info(index)))

    def map_region(self, index):
        """What of a region may be mapped, by its one sparse area: (offset, size, memory), or None."""
        reply = self.exchange(Cmd.GET_REGION_INFO, wire.region_info(index, argsz=200))
        info = wire.parse_region_info(reply.payload)
        access = wire.REGION_READABLE | wire.REGION_WRITABLE
        if not info.flags & wire.REGION_MMAP:
            assert info.flags == access and not reply.fds
            return None
        assert info.flags == access | wire.REGION_MMAP | wire.REGION_CAPS and len(reply.fds) == 1
        cap, _, following, areas, _, offset, size = struct.unpack_from("=HHIIIQQ", reply.payload, 32)
        assert (cap, following, areas) == (1, 0, 1)
        memory = mmap.mmap(reply.fds[0], size, offset=info.offset + offset)
        assert fcntl.fcntl(reply.fds[0], fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        os.close(reply.fds[0])
        return offset, size, memory

    def irq_info(self, index):
        return wire.parse_irq_info(self.call(Cmd.GET_IRQ_INFO, wire.irq_info(index)))

    def region_io_fds(self, region, *, argsz=1 << 16):
        """The reply, and the fds that came with it, which are the caller's."""
        reply = self.exchange(Cmd.GET_REGION_IO_FDS, wire.region_io_fds(region, argsz=argsz))
        if reply.is_error:
            raise Refused(reply)
        return wire.parse_region_io_fds(reply.payload), [EventFd(fd=fd) for fd in reply.fds]

    def reset(self):
        self.call(Cmd.RESET)

    def read_region(self, region, offset, count):
        payload = self.call(Cmd.REGION_READ, wire.region_read(region, offset, count))
        assert len(payload) == 16 + count, f"REGION_READ of {count} bytes gave a payload of {len(payload)}"
        assert payload[:16] == wire.region_read(region, offset, count), "REGION_READ's reply repeats another request"
        return payload[16:]

    def write_region(self, region, offset, data, *, posted=False):
        body = wire.region_write(region, offset, data)
        if posted:
            self.send(Cmd.REGION_WRITE, body, flags=wire.NO_REPLY)
            return
        payload = self.call(Cmd.REGION_WRITE, body)
        assert len(payload) == 16, f"REGION_WRITE's reply has a payload of {len(payload)} bytes, 16 are right"
        assert payload == body[:16], "REGION_WRITE's reply repeats another request"

    def read_uint(self, region, offset, size):
        return int.from_bytes(self.read_region(region, offset, size), "little")

    def write_uint(self, region, offset, size, value, *, posted=False):
        self.write_region(region, offset, (value & ((1 << (8 * size)) - 1)).to_bytes(size, "little"), posted=posted)

    def set_irq_eventfds(self, index, events, *, start=0):
        """One SET_IRQS with DATA_EVENTFD|ACTION_TRIGGER; at most 16 fds go in one message."""
        fds = [event.fileno() for event in events]
        self.call(Cmd.SET_IRQS, wire.set_irqs(index, wire.DATA_EVENTFD | wire.ACTION_TRIGGER, start, len(fds)),
                  fds=fds)

    def disable_irqs(self, index):
        self.call(Cmd.SET_IRQS, wire.set_irqs(index, wire.DATA_NONE | wire.ACTION_TRIGGER, 0, 0))

    def unmask_irq(self, index, start=0, count=1):
        self.call(Cmd.SET_IRQS, wire.set_irqs(index, wire.DATA_NONE | wire.ACTION_UNMASK, start, count))

    def mask_irq(self, index, start=0, count=1):
        self.call(Cmd.SET_IRQS, wire.set_irqs(index, wire.DATA_NONE | wire.ACTION_MASK, start, count))


def peer_credentials(sock):
    """(pid, uid, gid) of the process at the other end."""
    return struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
