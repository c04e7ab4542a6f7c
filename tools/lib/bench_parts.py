# SPDX-License-Identifier: BSD-3-Clause
"""What tools/bench measures, part by part. A part gives {"cases": records} (lib/turns.py) or {"table": ...}; and "note", what there is to
say about it. It raises Missing where this machine has not got what it needs."""

import os
import shutil
from pathlib import Path

from . import allocations, callgrind, clients, page_cache, registers, servers, syscalls
from .clients import Work
from .turns import Case, Side, Turns

MIB = 1 << 20
KINDS = [("vfio-user", "virtio-blk"), ("vhost-user", "virtio-blk"), ("vfio-user", "nvme")]
DISK = "null:512M"


class Missing(Exception):
    """What a part needs and there is not."""


class Context:
    """What all parts are given. folder: for images, on the file system that is measured."""

    def __init__(self, binary, folder, rounds, seconds, quick, count_calls):
        self.binary, self.folder, self.rounds, self.seconds, self.quick = binary, Path(folder), rounds, seconds, quick
        self.count_calls = count_calls and not quick and not syscalls.unavailable()

    def image(self, name="disk.img"):
        """A file that is really written: blocks that were only allocated are read without going to the disk."""
        path = self.folder / name
        if not path.exists():
            with open(path, "wb") as out:
                for _ in range(16 if self.quick else 512):
                    out.write(os.urandom(MIB))
                os.fsync(out.fileno())
        return path

    def sidecard(self, transport, device, backend, *options):
        return servers.Sidecard(self.binary, transport, device, backend, *options)

    def bench(self, wait, *options):
        return clients.SidecardBench(self.binary, wait, *options)

    def measured(self, groups, name):
        """Groups are lists of cases that share servers."""
        for cases in groups:
            shown = ", ".join(str(value) for value in cases[0].what.values())
            Turns(self.rounds, self.count_calls).measure(cases, f"{name}: {shown}")
        return {"cases": [case.record() for cases in groups for case in cases]}


# --- beside SPDK: nobody sleeps ---

class Filled(servers.Sidecard):
    """Every block of its disk was written once: memory that was never written to is one page of zeroes."""

    def __enter__(self):
        super().__enter__()
        clients.output_of([self.binary, "bench", self.address(), "--rw=write", "--bs=64k", "--eta=never"])
        return self


def spdk_sides(context, folder, transport, device, disk):
    size, backend = (512, DISK) if disk == "null" else (64, "ram:64M")
    options = ["--poll=always", f"--queue-size={servers.QUEUE_SIZE}"]
    kind = servers.Sidecard if disk == "null" else Filled
    theirs = servers.SpdkTarget(folder, transport, device, disk, size)
    ours = kind(context.binary, transport, device, backend, *options)
    bdevperf = clients.Bdevperf(folder)
    sides = [Side("SPDK, SPDK's client", theirs, bdevperf)]
    if device == "nvme":
        sides.append(Side("sidecard, sidecard bench", ours, context.bench("poll")))
    else:
        sides += [Side(f"sidecard, sidecard bench, {ring}", ours, context.bench("poll", f"--packed={packed}"))
                  for ring, packed in (("split", "off"), ("packed", "on"))]
    sides.append(Side("sidecard, SPDK's client", ours, bdevperf))
    if disk == "null":
        # SPDK's vhost target takes memory in huge pages alone.
        memory = ["--memory=huge"] if transport == "vhost-user" else []
        sides.append(Side("SPDK, sidecard bench", theirs, context.bench("poll", *memory)))
    return sides


def spdk(context):
    folder, why_not = servers.spdk_folder()
    if not folder:
        raise Missing(why_not)
    groups = []
    for disk, depths in (("null", [128, 1]), ("ram", [128])):
        for transport, device in KINDS:
            sides = spdk_sides(context, folder, transport, device, disk)
            what = {"device": f"{device} over {transport}", "disk": disk}
            groups.append([Case(what | {"in flight": depth}, Work(depth, context.seconds), sides) for depth in depths])
    return context.measured(groups, "spdk")


# --- the same state of the page cache for all ---

def filled(*paths):
    """For Case.before: all of the files is there."""
    def fill():
        for path in paths:
            page_cache.fill(path)
        return {"cached": min(map(page_cache.share, paths))}
    return fill


def emptied(path):
    """And nothing of the file."""
    def empty():
        page_cache.empty(path)
        return {"cached": page_cache.share(path)}
    return empty


# --- beside qemu-storage-daemon: interrupts ---

def daemon(context):
    tree, why_not = servers.qemu_tree()
    if not tree:
        raise Missing(why_not)
    groups = []
    for disk in ("null", "file"):
        # Each has an image of its own: both lock what they serve.
        image = context.image("other.img") if disk == "file" else None
        ours = context.sidecard("vhost-user", "virtio-blk", context.image() if disk == "file" else DISK)
        before = filled(image, context.image()) if image else dict
        theirs = servers.StorageDaemon(tree, image)
        for client in (context.bench("interrupt"), clients.QemuImg(tree)):
            rw = "randread" if client.name == "sidecard bench" else "read"
            groups.append([Case({"disk": disk, "client": client.name, "in flight": depth}, Work(depth, context.seconds, rw),
                                [Side("qemu-storage-daemon", theirs, client), Side("sidecard", ours, client)], before)
                           for depth in (1, 32)])
    version = tree.run("usr/bin/qemu-storage-daemon", "--version").splitlines()[0]
    return context.measured(groups, "daemon") | {"note": f"{version}."}


# --- beside the file without a device ---

def file(context):
    if not shutil.which("fio"):
        raise Missing("there is no fio: tools/install-deps perf")
    image = context.image()  # one for all: who serves it has its lock for as long as there is a client
    groups = []
    for direct in (True, False):
        options = ["--direct"] if direct else []
        poll = context.bench("poll")
        sides = [Side("fio, no device", servers.Nothing(image), clients.Fio(direct))]
        for number, (transport, device) in enumerate(KINDS):
            server = context.sidecard(transport, device, image, *options)
            sides.append(Side(f"{device} over {transport}", server, poll))
            if number == 0:
                sides.append(Side(f"{device} over {transport}, by interrupt", server, context.bench("interrupt")))
        what = {"file": "direct" if direct else "buffered"}
        groups.append([Case(what | {"requests": rw, "in flight": depth}, Work(depth, context.seconds, rw), sides,
                            emptied(image) if direct else filled(image))
                       for rw in ("randread", "randwrite") for depth in (32, 1)])
    return context.measured(groups, "file")


# --- kinds of devices and rings beside each other ---

DEVICES = [("virtio-blk over vfio-user, packed", KINDS[0], ["--packed=on"]),
           ("virtio-blk over vfio-user, split", KINDS[0], ["--packed=off"]),
           ("virtio-blk over vhost-user, packed", KINDS[1], ["--packed=on"]),
           ("virtio-blk over vhost-user, split", KINDS[1], ["--packed=off"]),
           ("NVMe", KINDS[2], []),
           ("NVMe by registers", KINDS[2], ["--shadow-doorbells=off"])]


def devices(context):
    by_kind = {kind: context.sidecard(*kind, DISK) for kind in KINDS}
    groups = [[]]
    for wait in ("interrupt", "poll") if not context.quick else ("poll",):
        for depth in (1, 32) if not context.quick else (32,):
            # As the virtual machine monitors of today notify.
            sides = [Side(name, by_kind[kind], context.bench(wait, *(["--notify=message"] if kind[0] == "vfio-user" else []), *options))
                     for name, kind, options in (DEVICES if not context.quick else DEVICES[::2])]
            groups[0].append(Case({"client waits by": wait, "in flight": depth}, Work(depth, context.seconds), sides))
    return context.measured(groups, "devices") | {
        "note": f"Random reads of 4 KiB from `{DISK}`, over vfio-user doorbells by message; servers adaptive."}


# --- over the number of requests in flight ---

DEPTHS = [1, 2, 4, 8, 16, 32, 64, 128, 256]


def depth(context):
    size = f"--queue-size={2 * servers.QUEUE_SIZE}"
    named = {f"{device} over {transport}": context.sidecard(transport, device, DISK, size) for transport, device in KINDS}
    tree, _ = servers.qemu_tree()
    if tree and not context.quick:
        named["qemu-storage-daemon"] = servers.StorageDaemon(tree, None)
    client = context.bench("interrupt")
    sides = [Side(name, server, client) for name, server in named.items()]
    cases = [Case({"in flight": depth}, Work(depth, context.seconds), sides) for depth in (DEPTHS if not context.quick else [1, 32])]
    return context.measured([cases], "depth") | {
        "note": f"Random reads of 4 KiB from `{DISK}`, or null-co; clients wait by interrupt; servers (the daemon over vhost-user) "
                "are as they are by default."}


# --- loops beside each other ---

def loops(context):
    nobody = servers.Nothing(None)
    cases = []
    for disk in ("null:64M", "ram:64M") if not context.quick else ("ram:1M",):
        for ring in ("split", "packed") if not context.quick else ("packed",):
            sides = [Side(name, nobody, clients.Loops(count, disk, ring)) for name, count in (("one loop", 1), ("two loops", 2))]
            cases.append(Case({"disk": disk.partition(":")[0], "ring": ring}, Work(32, context.seconds), sides))
    return context.measured([cases], "loops") | {
        "note": "A virtio-blk device in one process; each loop has a processor, a queue, and a client on its thread, 32 reads in flight."}


# --- what is counted ---

def instructions(context):
    if not shutil.which("valgrind"):
        raise Missing("there is no valgrind: tools/install-deps perf")
    count = (2000, 6000) if context.quick else (10000, 30000)
    rows = []
    for name, kind, options in DEVICES[:1] if context.quick else DEVICES:
        each = [callgrind.of_sidecard(context.binary, *kind, DISK, depth, options, count) for depth in (32, 128)]
        rows.append(["sidecard", name, *(f"{value:,.0f}" for value in each)])
    tree, (client, _) = callgrind.spdk_folder(), servers.spdk_folder()
    for transport, device in KINDS if tree and client else ():
        rows.append(["SPDK", f"{device} over {transport}", "", f"{callgrind.of_spdk(tree, client, transport, device, 128):,.0f}"])
    return {"table": {"head": ["server", "device", "32 in flight", "128 in flight"], "rows": rows},
            "note": f"Instructions of the server for each random read of 4 KiB from `{DISK}`, by callgrind."}


def register_accesses(context):
    why_not = syscalls.unavailable() or allocations.unavailable()
    if why_not:
        raise Missing(why_not)
    return {"table": registers.table(context.binary, 200 if context.quick else 5000),
            "note": "System calls and allocations of the server for each access of a client that waits for the reply."}


PARTS = {
    "spdk": ("beside SPDK's target and client, where nobody sleeps", spdk),
    "daemon": ("beside qemu-storage-daemon, with interrupts", daemon),
    "file": ("a served file beside the file itself under fio", file),
    "devices": ("kinds of devices and rings beside each other", devices),
    "depth": ("over the number of requests in flight; the plots are of this", depth),
    "loops": ("two loops against one, each with a processor", loops),
    "registers": ("what an access to a register costs the server", register_accesses),
    "instructions": ("instructions for each request", instructions),
}
