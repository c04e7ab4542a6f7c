# SPDX-License-Identifier: BSD-3-Clause
"""For replays of what other programs send: whole messages as bytes, made by struct alone, and a socket that compares what comes
back byte by byte. Nothing here knows what a message means."""

import array
import select
import socket
import struct

from .events import PATIENCE

HEADER = struct.Struct("<HHIII")  # message id, command, size, flags, errno
COMMAND, REPLY, NO_REPLY, ERROR = 0, 1, 0x10, 0x20


def message(msg_id, command, layout="", *values, tail=b"", flags=COMMAND, errno=0):
    """Header and payload; `layout` is struct's, little-endian."""
    body = struct.pack("<" + layout, *values) + tail
    return HEADER.pack(msg_id, command, HEADER.size + len(body), flags, errno) + body


def reply(msg_id, command, layout="", *values, tail=b""):
    return message(msg_id, command, layout, *values, tail=tail, flags=REPLY)


class Peer:
    """One client. `number` gives its message ids, as its kind counts them."""

    def __init__(self, path, number):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.connect(str(path))
        self.sock.settimeout(PATIENCE)
        self.number = number

    def say(self, data, fds=()):
        """In one system call."""
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        assert self.sock.sendmsg([data], control) == len(data)

    def read_once(self, most):
        """What one read() gives: a client that doesn't loop has no more than that."""
        assert select.select([self.sock], [], [], PATIENCE)[0], f"nothing came; up to {most} bytes are due"
        data, control, _, _ = self.sock.recvmsg(most, socket.CMSG_SPACE(64))
        assert not control, "a reply carries fds that nobody has asked for"
        return data

    def hear(self, expected):
        """These bytes and no others, readable in one piece."""
        got = self.read_once(len(expected))
        assert got == expected, f"due:  {expected.hex(' ', 4)}\ncame: {got.hex(' ', 4)}"

    def quiet(self, seconds=0.0):
        """Nothing was answered twice, or without having been asked."""
        assert not select.select([self.sock], [], [], seconds)[0], f"unasked: {self.sock.recv(256).hex(' ', 4)}"

    def ask(self, command, layout="", *values, tail=b"", fds=(), flags=COMMAND):
        """Sends a request; gives its id."""
        msg_id = next(self.number)
        self.say(message(msg_id, command, layout, *values, tail=tail, flags=flags), fds)
        return msg_id

    def close(self):
        self.sock.close()
