# SPDX-License-Identifier: BSD-3-Clause
"""Servers that say what they are told to say, also when that is wrong: for what sidecard is as a client.

A server runs in a thread, takes one client after the other, and answers each message by a function in `answers`: it gets the message
and returns the bytes of the whole reply, or a list of bytes and fds, or None for no reply, or CLOSE.
"""

import array
import os
import socket
import struct
import threading
from contextlib import suppress

from . import vhost, wire
from .events import PATIENCE
from .wire import Cmd

CLOSE = object()


def refusal(message, errno):
    return wire.pack(message.cmd, msg_id=message.msg_id, flags=wire.TYPE_REPLY | wire.ERROR, errno=errno)


def reply(message, payload=b"", **more):
    return wire.pack(message.cmd, payload, msg_id=message.msg_id, flags=wire.TYPE_REPLY, **more)


class Fake:
    """A socket and a thread. `seen`: the messages that came, of all clients; `clients`: how many came."""

    def __init__(self, path):
        self.path = path
        self.answers = {}
        self.seen = []
        self.clients = 0
        self.greeting = b""  # sent to each client before it has said anything
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.client = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        for sock in (self.listener, self.client):
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the fake server's thread does not end"
        self.listener.close()

    def _run(self):
        while True:
            try:
                self.client, _ = self.listener.accept()
            except OSError:
                return
            self.clients += 1
            with self.client, suppress(OSError):
                self.client.sendall(self.greeting)
                while self._serve():
                    pass

    def _receive(self, count):
        data = b""
        while len(data) < count:
            piece, control, _, _ = self.client.recvmsg(count - len(data), socket.CMSG_SPACE(16 * 4))
            for level, kind, content in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    for fd in array.array("i", content[:len(content) // 4 * 4]):
                        os.close(fd)
            if not piece:
                raise OSError("end of file")
            data += piece
        return data

    def _send(self, answer):
        data, fds = answer if isinstance(answer, (list, tuple)) else (answer, [])
        if fds:
            sent = self.client.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
            data = data[sent:]
        self.client.sendall(data)

    def _serve(self):
        message = self.take()
        self.seen.append(message)
        answer = self.answer(message)
        if answer is CLOSE:
            return False
        if answer is not None:
            self._send(answer)
        return True


class FakeVfio(Fake):
    """A PCI device: registers are bytes, which writes change."""

    def __init__(self, path, config=bytes(256), *, bars=None, irqs=(1, 0, 0, 0, 0), capabilities=None):
        self.regions = {wire.CONFIG: bytearray(config), **{index: bytearray(bar) for index, bar in (bars or {}).items()}}
        self.regions_count = wire.NUM_REGIONS
        self.irqs = irqs
        self.capabilities = {"max_msg_fds": 8} if capabilities is None else capabilities
        self.flags = wire.INFO_RESET | wire.INFO_PCI
        self.writes = []  # (region, offset, bytes)
        super().__init__(path)

    def take(self):
        head = wire.unpack_header(self._receive(wire.HEADER_SIZE))
        head.payload = self._receive(head.size - wire.HEADER_SIZE) if head.size > wire.HEADER_SIZE else b""
        return head

    def answer(self, message):
        own = {Cmd.VERSION: self.version, Cmd.GET_INFO: self.info, Cmd.GET_REGION_INFO: self.region_info, Cmd.GET_IRQ_INFO: self.irq_info,
               Cmd.REGION_READ: self.read, Cmd.REGION_WRITE: self.write, Cmd.RESET: reply}
        handler = self.answers.get(message.cmd) or own.get(message.cmd) or (lambda message: refusal(message, 95))
        return handler(message)

    def version(self, message):
        return reply(message, wire.version(self.capabilities))

    def info(self, message):
        return reply(message, struct.pack("=IIII", 16, self.flags, self.regions_count, len(self.irqs)))

    def region_info(self, message):
        index = wire.parse_region_info(message.payload).index
        size = len(self.regions.get(index, b""))
        return reply(message, struct.pack("=IIIIQQ", 32, 3 if size else 0, index, 0, size, 0))

    def irq_info(self, message):
        index = wire.parse_irq_info(message.payload).index
        return reply(message, struct.pack("=IIII", 16, wire.IRQ_INFO_EVENTFD, index, self.irqs[index]))

    def read(self, message):
        offset, region, count = struct.unpack_from("=QII", message.payload)
        data = self.regions.get(region, b"")[offset:offset + count]
        return refusal(message, 22) if len(data) != count else reply(message, message.payload[:16] + bytes(data))

    def write(self, message):
        offset, region, count = struct.unpack_from("=QII", message.payload)
        data = message.payload[16:]
        self.writes.append((region, offset, data))
        if region not in self.regions or offset + count > len(self.regions[region]):
            return refusal(message, 22)
        self.regions[region][offset:offset + count] = data
        return reply(message, message.payload[:16])


class FakeVhost(Fake):
    """A vhost-user back end. `numbers`: the answers to requests that ask for one; `config`: the device's."""

    def __init__(self, path, *, features=0, protocol=0, config=b"", queues=1, slots=32):
        self.config = config
        self.numbers = {vhost.Req.GET_FEATURES: features | (vhost.F_PROTOCOL_FEATURES if protocol else 0),
                        vhost.Req.GET_PROTOCOL_FEATURES: protocol, vhost.Req.GET_QUEUE_NUM: queues,
                        vhost.Req.GET_MAX_MEM_SLOTS: slots, vhost.Req.GET_STATUS: 0}
        super().__init__(path)

    def take(self):
        request, flags, size = vhost.HEADER.unpack(self._receive(vhost.HEADER.size))
        return vhost.Message(request, flags, self._receive(size) if size and size < 65536 else b"")

    def answer(self, message):
        if message.request in self.answers:
            return self.answers[message.request](message)
        if message.flags & vhost.VERSION_MASK != vhost.VERSION or not 0 < message.request < 50:
            return CLOSE
        if message.request in self.numbers:
            return self.reply(message, vhost.U64.pack(self.numbers[message.request]))
        if message.request == vhost.Req.GET_CONFIG:
            offset, size, _ = vhost.CONFIG.unpack_from(message.payload)
            fits = offset + size <= len(self.config)
            return self.reply(message, message.payload[:12] + self.config[offset:offset + size] if fits else b"")
        return self.reply(message, vhost.U64.pack(0)) if message.flags & vhost.NEED_REPLY else None

    @staticmethod
    def reply(message, payload):
        return vhost.pack(message.request, payload, flags=vhost.VERSION | vhost.REPLY)
