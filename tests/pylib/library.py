# SPDX-License-Identifier: BSD-3-Clause
"""A card that was made with the public library (tests/unit/library_card.c), served by a program of its own."""

import os
import shlex
import signal
import subprocess
from pathlib import Path

from .client import Client
from .events import PATIENCE, wait_until
from .server import binary, environment, sanitizer_reports

REGISTERS, MEMORY, MSIX = 0, 2, 4  # BARs
MEMORY_SIZE = 0x10000
AREAS = [(0x2000, 0x1000), (0x8000, 0x1000)]  # of MEMORY, that may be mapped
DO, IOVA, SIZE, AT, DONE, RESULT, HELD, SUM, RESETS, LEVEL, BELLS, CANCELLED = range(0, 0x60, 8)
READ, WRITE, MAP_READ, MAP_WRITE, UNMAP, CANCEL, RAISE, READ_MANY = range(1, 9)
MANY, UNDER_WAY_MAX = 1100, 1024


def program():
    """Beside the binary under test, in the build folder that it comes from."""
    return Path(binary()[-1]).resolve().parent / "tests/unit/served-card"


class ServedCard:
    def __init__(self, workdir, *words):
        self.path = workdir.path / "card"
        self.logs = workdir.path / "card-logs"
        self.logs.mkdir()
        if "--loop=epoll" in shlex.split(os.environ.get("SIDECARD_SERVE_ARGS", "")):
            words = (*words, "epoll")
        self.process = subprocess.Popen([program(), self.path, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, env=environment(self.logs))
        assert self.process.stdout.readline() == "READY\n", self.process.communicate()
        self.clients = []

    def connect(self):
        """A client whose VERSION is done."""
        client = Client.connect(self.path)
        self.clients.append(client)
        client.handshake()
        return client

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def finish(self):
        """Ends it, and looks how it ended."""
        for client in self.clients:
            client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            _, said = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise AssertionError("SIGTERM does not end it") from None
        reports = sanitizer_reports(self.logs, said)
        assert not reports, reports
        assert self.process.returncode == 0 and said == "", (self.process.returncode, said)
        assert not self.path.exists()


def get(client, register):
    return client.read_uint(REGISTERS, register, 8)


def put(client, register, value):
    client.write_uint(REGISTERS, register, 8, value)


def order(client, what, iova=0, size=0, at=0):
    """Has the card do it; it has begun when this returns."""
    for register, value in ((IOVA, iova), (SIZE, size), (AT, at), (DO, what)):
        put(client, register, value)


def ended(client, count, timeout=PATIENCE):
    """Waits until so many have ended; how many were cancelled, and the errno of the last."""
    wait_until(lambda: get(client, DONE) >= count, timeout)
    assert get(client, DONE) == count
    return get(client, CANCELLED), get(client, RESULT)
