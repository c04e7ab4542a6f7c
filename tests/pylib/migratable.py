# SPDX-License-Identifier: BSD-3-Clause
"""A vfio-user server whose device can be migrated as the specification says, made to be wrong: `fault` names one thing that it does not do
so. The device has registers in configuration space, and ballast, so that its state comes in several messages."""

import struct

from . import wire
from .fake import FakeVfio, refusal, reply
from .wire import Cmd

EBUSY, EINVAL, EOPNOTSUPP = 16, 22, 95
ERROR, STOP, RUNNING, STOP_COPY, RESUMING = range(5)
GET, SET, PROBE, NUMBER = 1 << 16, 1 << 17, 1 << 18, 0xFFFF
MIGRATION, DEVICE_STATE = 1, 2
HEAD = struct.Struct("=II")  # argsz, flags; or argsz, size
COMMAND = 4  # in configuration space
MAGIC = b"a device's state"
BALLAST = 150_000
# From where one gets where. To any other state, and to one that there is not, nobody gets.
WAYS = {RUNNING: (RUNNING, STOP), STOP: (STOP, RUNNING, STOP_COPY, RESUMING), STOP_COPY: (STOP_COPY, STOP), RESUMING: (RESUMING, STOP)}


class Migratable(FakeVfio):
    def __init__(self, path, fault=None):
        self.fault = fault
        self.begin()
        super().__init__(path, bytes([0x34, 0x12, 0x78, 0x56]) + bytes(252))
        self.answers = {Cmd.DEVICE_FEATURE: self.feature, Cmd.MIG_DATA_READ: self.data_read, Cmd.MIG_DATA_WRITE: self.data_write,
                        Cmd.DMA_MAP: reply, Cmd.DMA_UNMAP: lambda message: reply(message, message.payload), Cmd.RESET: self.reset,
                        Cmd.VERSION: self.greet}

    def begin(self):
        self.state, self.out, self.into = RUNNING, b"", b""

    def greet(self, message):
        """Each client finds it running."""
        self.begin()
        return self.version(message)

    def reset(self, message):
        if self.fault == "is lost by a reset" and self.state == STOP:
            self.state = ERROR
        elif self.state != STOP:
            self.state = RUNNING
        self.regions[wire.CONFIG][COMMAND:COMMAND + 2] = bytes(2)
        return reply(message)

    # --- features ---

    def feature(self, message):
        if len(message.payload) < HEAD.size:
            return refusal(message, EINVAL)
        argsz, flags = HEAD.unpack_from(message.payload)
        ways = {MIGRATION: GET, DEVICE_STATE: GET | SET}.get(flags & NUMBER, 0)
        if not ways or flags & (GET | SET) & ~ways:
            return refusal(message, EOPNOTSUPP)
        if flags & PROBE:
            return reply(message, message.payload)
        if flags & (GET | SET) == SET and len(message.payload) == HEAD.size + 8:
            return self.set_state(message)
        if flags & (GET | SET) == GET and argsz >= HEAD.size + 8:
            return self.get(message, argsz, flags)
        return refusal(message, EINVAL)

    def get(self, message, argsz, flags):
        if flags & NUMBER == MIGRATION:
            return reply(message, HEAD.pack(argsz, flags) + struct.pack("=Q", 2 if self.fault == "cannot stop and copy" else 1))
        state = RUNNING if self.fault == "always says that it runs" else self.state
        return reply(message, HEAD.pack(argsz, flags) + struct.pack("=II", state, 0))

    def set_state(self, message):
        state, _ = struct.unpack_from("=II", message.payload, HEAD.size)
        if state not in WAYS.get(self.state, ()):
            if self.fault == "goes to any state":
                self.state = state
                return reply(message, message.payload)
            if self.fault == "breaks when it refuses":
                self.state = ERROR
            return refusal(message, EINVAL)
        if (self.state, state) == (RESUMING, STOP) and not self.resume():
            self.state = ERROR
            return refusal(message, EINVAL)
        if (state, self.fault) == (STOP_COPY, "does not stop and copy"):
            return refusal(message, EBUSY)
        if state == STOP_COPY:
            self.out = MAGIC + bytes(self.regions[wire.CONFIG]) + bytes(BALLAST)
        if state == RESUMING:
            self.into = b""
        self.state = state
        return reply(message, message.payload[:HEAD.size] if self.fault == "answers a transition shortly" else message.payload)

    # --- data ---

    def resume(self):
        """Nothing leaves it as it is."""
        if self.fault == "does not take its own state" and self.into:
            return False
        if self.into and (not self.into.startswith(MAGIC) or len(self.into) != len(MAGIC) + 256 + BALLAST):
            return False
        if self.into:
            self.regions[wire.CONFIG][:] = self.into[len(MAGIC):][:256]
        return True

    def data_read(self, message):
        argsz, size = HEAD.unpack_from(message.payload)
        if self.fault == "gives data while it runs" and self.state == RUNNING:
            return reply(message, HEAD.pack(argsz, 0))
        if self.state != STOP_COPY or argsz < HEAD.size + size:
            return refusal(message, EINVAL)
        piece, self.out = self.out[:size], self.out[size:]
        if self.fault == "has data without end":
            piece = bytes(size)
        if self.fault == "gives more than it was asked for":
            piece = piece + b"more"
        return reply(message, HEAD.pack(HEAD.size + len(piece), len(piece)) + piece)

    def data_write(self, message):
        _, size = HEAD.unpack_from(message.payload)
        if self.state != RESUMING or size != len(message.payload) - HEAD.size:
            return refusal(message, EINVAL)
        if self.fault == "takes no second piece" and self.into:
            return refusal(message, EINVAL)
        self.into += message.payload[HEAD.size:]
        return reply(message)
