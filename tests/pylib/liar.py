# SPDX-License-Identifier: BSD-3-Clause
"""A proxy between a vfio-user client and a real server, which changes one thing: for tests of who has to find that.

Commands and replies go through a lie's two methods; both may change the message, swallow it, or send something of their own. A lie
sees one client after the other, and keeps what it likes in between. What is no message (its size is impossible) goes through as it is.
"""

import array
import mmap
import os
import select
import socket
import struct
import threading
from contextlib import suppress

from . import wire
from .events import PATIENCE
from .wire import Cmd

MAX = 1 << 22


class Lie:
    """Tells the truth. `proxy` is the Liar that it is told by."""

    proxy = None
    begins = False  # waits for whole commands

    def connected(self):
        """A client has come."""

    def gone(self):
        """It has gone."""

    def command(self, message):
        """What goes on to the server: the message, changed or not, or None."""
        return message

    def reply(self, command, message):
        """What goes to the client, likewise. command: what it answers, or None if that is not known."""
        return message


def frame(message):
    return wire.pack(message.cmd, message.payload, msg_id=message.msg_id, flags=message.flags, errno=message.errno)


def answer(command, payload=b"", errno=None):
    """A reply of one's own."""
    flags = wire.TYPE_REPLY | (0 if errno is None else wire.ERROR)
    return wire.Message(command.msg_id, command.cmd, 16 + len(payload), flags, errno or 0, payload)


class Half:
    """One direction: bytes and fds that came and were not passed on."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.data, self.fds = b"", []

    def receive(self):
        data, control, _, _ = self.source.recvmsg(1 << 16, socket.CMSG_SPACE(64 * 4))
        for level, kind, raw in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self.fds.extend(array.array("i", raw[:len(raw) // 4 * 4]))
        self.data += data
        return bool(data)

    def take(self):
        """The next whole message; False: what is there is none."""
        if len(self.data) < wire.HEADER_SIZE:
            return None
        message = wire.unpack_header(self.data[:wire.HEADER_SIZE])
        if not wire.HEADER_SIZE <= message.size <= MAX:
            return False
        if len(self.data) < message.size:
            return None
        message.payload, self.data = self.data[wire.HEADER_SIZE:message.size], self.data[message.size:]
        message.fds, self.fds = self.fds, []
        return message


def send(sock, data, fds=()):
    while data:
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        data = data[sock.sendmsg([data], control):]
        fds = ()


class Liar:
    """Listens at `path` for clients of the server at `behind`."""

    def __init__(self, path, behind, lie):
        self.path, self.behind, self.lie = path, str(behind), lie
        lie.proxy = self
        self.commands = []
        self.stopped = False
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.wake = socket.socketpair()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stopped = True
        self.wake[0].close()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the proxy's thread does not end"
        self.listener.close()
        self.wake[1].close()

    def _run(self):
        while True:
            ready = select.select([self.listener, self.wake[1]], [], [])[0]
            if self.wake[1] in ready:
                return
            client, _ = self.listener.accept()
            with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
                server.connect(self.behind)
                self.client, self.server, self.commands = client, server, []
                self.lie.connected()
                with suppress(OSError):
                    self._serve(Half(client, server), Half(server, client))
            self.lie.gone()

    def _serve(self, down, up):
        """Until either end is closed."""
        while True:
            ready = select.select([down.source, up.source, self.wake[1]], [], [])[0]
            if self.wake[1] in ready:
                return
            for half in (down, up):
                if half.source not in ready:
                    continue
                if not half.receive():
                    return
                self._pass_on(half, half is down)

    def _pass_on(self, half, is_down):
        while (message := half.take()) is not None:
            if message is False:
                send(half.sink, half.data, half.fds)
                self._close(half.fds)
                half.data, half.fds = b"", []
                return
            fds = list(message.fds)
            out = self._command(message) if is_down else self._reply(message)
            for each in out if isinstance(out, list) else [out]:
                if isinstance(each, bytes):
                    send(half.sink, each)
                elif each is not None:
                    send(half.sink, frame(each), each.fds)
            self._close(fds)

    def _command(self, message):
        if not message.is_reply and not message.flags & wire.NO_REPLY:
            self.commands.append(message)
        return self.lie.command(message)

    def _reply(self, message):
        if not message.is_reply:
            return message
        command = next((each for each in self.commands if each.msg_id == message.msg_id), None)
        if command is not None:
            self.commands.remove(command)
        return self.lie.reply(command, message)

    @staticmethod
    def _close(fds):
        for fd in fds:
            with suppress(OSError):
                os.close(fd)

    # --- for lies ---

    def tell(self, message):
        """Sends a message of the lie's own to the client."""
        send(self.client, frame(message), message.fds)

    def tell_instead(self, command, payload=b"", errno=None):
        """Answers a command that does not go on. Returns None, which is what goes on."""
        if command in self.commands:
            self.commands.remove(command)
        if not command.flags & wire.NO_REPLY:
            self.tell(answer(command, payload, errno))


class Memory:
    """The memory that a client maps, for lies that meddle with it."""

    def __init__(self):
        self.regions = []

    def see(self, command):
        """Called with every command; fds are the proxy's only meanwhile."""
        if command.cmd == Cmd.DMA_MAP and command.fds:
            _, _, offset, address, size = struct.unpack_from("=IIQQQ", command.payload)
            if size < 1 << 32 and offset % mmap.PAGESIZE == 0:
                with suppress(OSError, ValueError):
                    self.regions.append((address, mmap.mmap(command.fds[0], size, offset=offset)))

    def at(self, address, size):
        """(map, offset) of bytes, or None."""
        for start, pages in self.regions:
            if start <= address and address + size <= start + len(pages):
                return pages, address - start
        return None

    def forget(self):
        for _, pages in self.regions:
            pages.close()
        self.regions = []
