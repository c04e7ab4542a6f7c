# SPDX-License-Identifier: BSD-3-Clause
"""What a register access over the socket costs the server: system calls and allocations, counted over many."""

import sys

from . import allocations, syscalls
from .served import TOP, CommandError, Served

sys.path.insert(0, str(TOP / "tests"))
from pylib import wire  # noqa: E402 pylint: disable=wrong-import-position
from pylib.client import Client  # noqa: E402 pylint: disable=wrong-import-position

LOOPS = ["io_uring", "epoll"]
# A register that may be read and written without anything being set off: device_feature_select (virtio 1.2, 4.1.4.3), and AQA (NVMe 2.0,
# 3.1.3.8).
REGISTERS = {"virtio-blk": (wire.BAR4, 0x00, 4), "nvme": (wire.BAR0, 0x24, 4)}


def accesses(client, device):
    """{name: what one access is}"""
    region, offset, size = REGISTERS[device]
    zeroes = bytes(size)
    return {"read of a register": lambda: client.read_region(region, offset, size),
            "write of a register": lambda: client.write_region(region, offset, zeroes),
            "read of configuration space": lambda: client.read_region(wire.CONFIG, 0, 4)}


def per_access(pid, access, count):
    """(system calls, allocations) of the server."""
    for _ in range(100):
        access()
    counters = [syscalls.of_process(pid), allocations.of_process(pid)]
    for _ in range(count):
        access()
    return [counter.end() / count for counter in counters]


def table(binary, count):
    rows = []
    for device in REGISTERS:
        for loop in LOOPS:
            with Served(binary, "null:64M", f"--loop={loop}", device=device) as served, Client.connect(served.socket) as client:
                client.handshake()
                for name, access in accesses(client, device).items():
                    calls, allocated = per_access(served.process.pid, access, count)
                    rows.append([device, loop, name, f"{calls:.3f}", f"{allocated:.3f}"])
    if not rows:
        raise CommandError("no register was accessed")
    return {"head": ["device", "loop", "access", "server's system calls", "server's allocations"], "rows": rows}
