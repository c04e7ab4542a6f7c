# SPDX-License-Identifier: BSD-3-Clause
"""The clients that ask servers for something, each on a processor of its own, and what they found: a dictionary with iops, ios (how many
there were), seconds, and, where the client tells, p50, p99, p99.9 and all percentiles, or the mean: latencies in microseconds."""

import json
import re
import subprocess
import tempfile
from pathlib import Path

from . import cores
from .served import TOP, CommandError
from .servers import CLIENT_MIB, QUEUE_SIZE

BLOCK = 4096


class Work:
    """What is asked for: fio's words."""

    def __init__(self, depth, seconds, rw="randread"):
        self.depth, self.seconds, self.rw = depth, seconds, rw


def output_of(command, timeout=120):
    command = [*cores.on(cores.CLIENT), *map(str, command)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise CommandError(f"{' '.join(command)} did not end within {timeout} s") from None
    if done.returncode != 0:
        raise CommandError(f"{' '.join(command)} ended with status {done.returncode}:\n{(done.stdout + done.stderr)[-2000:].strip()}")
    return done.stdout


def of_fio(text, seconds):
    """What is alike in fio's and our JSON."""
    job = json.loads(text)["jobs"][0]
    found = max(job["read"], job["write"], key=lambda direction: direction["total_ios"])
    percentile = found["clat_ns"]["percentile"]
    figures = {"iops": found["iops"], "ios": found["total_ios"], "seconds": seconds}
    figures["percentiles"] = {name: ns / 1000 for name, ns in percentile.items()}
    return figures | {f"p{name}": percentile[f"{float(name):.6f}"] / 1000 for name in ("50", "99", "99.9")}


class SidecardBench:
    """wait: poll or interrupt. options: of `bench`."""

    name = "sidecard bench"

    def __init__(self, binary, wait, *options):
        self.binary, self.wait, self.options = binary, wait, options

    def run(self, server, work):
        return of_fio(output_of([self.binary, "bench", server.address(), f"--rw={work.rw}", f"--bs={BLOCK}", f"--iodepth={work.depth}",
                                 f"--{self.wait}", f"--runtime={work.seconds}", "--json", "--eta=never", *self.options],
                                timeout=work.seconds * 5 + 60), work.seconds)


class Bdevperf:
    """SPDK's client."""

    name = "bdevperf"

    def __init__(self, folder):
        self.program = folder / "build/examples/bdevperf"

    def run(self, server, work):
        if server.device == "nvme":
            method = {"method": "bdev_nvme_attach_controller",
                      "params": {"name": "disk", "trtype": "VFIOUSER", "traddr": str(Path(server.socket).parent)}}
        else:
            method = {"method": "bdev_virtio_attach_controller",
                      "params": {"name": "disk", "trtype": "user" if server.transport == "vhost-user" else "vfio-user",
                                 "traddr": str(server.socket), "dev_type": "blk"}}
            if server.transport == "vhost-user":
                method["params"] |= {"vq_count": 1, "vq_size": QUEUE_SIZE}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as config:
            # Nobody looks for partitions first, and has the queue while the measurement wants it.
            options = {"method": "bdev_set_options", "params": {"bdev_auto_examine": False}}
            json.dump({"subsystems": [{"subsystem": "bdev", "config": [options, method]}]}, config)
            config.flush()
            command = [self.program, "-g", "-m", hex(1 << cores.CLIENT), "-s", CLIENT_MIB, "-q", work.depth, "-o", BLOCK, "-w", work.rw,
                       "-t", work.seconds, "--json", config.name, "-r", f"{config.name}.rpc"]
            said = output_of(command, timeout=work.seconds * 5 + 60)
        total = re.search(r"Total\s*:\s+([\d.]+)\s+[\d.]+\s+([\d.]+)\s+[\d.]+\s+([\d.]+)", said)
        if not total or float(total.group(2)) > 0:
            raise CommandError(f"bdevperf says:\n{said[-2000:]}")
        iops = float(total.group(1))
        return {"iops": iops, "ios": iops * work.seconds, "seconds": work.seconds, "mean": float(total.group(3))}


class QemuImg:
    """`qemu-img bench` by libblkio. It has no random reads: they are sequential, a number that takes about so long."""

    name = "qemu-img bench"
    COUNTS = {1: 20000, 32: 300000}  # for each second

    def __init__(self, tree):
        self.tree = tree

    def run(self, server, work):
        count = self.COUNTS[work.depth] * work.seconds
        said = output_of(self.tree.command("usr/bin/qemu-img", "bench", "-d", work.depth, "-c", count, "-s", BLOCK, "-t", "none",
                                           "--image-opts", f"driver=virtio-blk-vhost-user,path={server.socket},cache.direct=on"))
        took = re.search(r"completed in ([\d.]+) seconds", said)
        if not took:
            raise CommandError(said)
        return {"iops": count / float(took.group(1)), "ios": count, "seconds": float(took.group(1))}


class Fio:
    """fio with io_uring on a file. What the page cache has of it stays there: the sides in turn share it."""

    name = "fio"

    def __init__(self, direct):
        self.direct = direct

    def run(self, server, work):
        command = ["fio", "--name=ceiling", f"--filename={server.socket}", "--ioengine=io_uring", f"--direct={int(self.direct)}",
                   f"--rw={work.rw}", f"--bs={BLOCK}", f"--iodepth={work.depth}", "--time_based", "--norandommap", "--invalidate=0",
                   f"--runtime={work.seconds}", "--output-format=json"]
        return of_fio(output_of(command, timeout=work.seconds * 5 + 60), work.seconds)


class Loops:
    """tests/perf/loops.c: devices and clients in one process. It sees to its processors itself."""

    name = "in process"

    def __init__(self, count, disk, ring):
        self.count, self.disk, self.ring = count, disk, ring

    def run(self, server, work):
        words = output_of([TOP / "build/tests/perf/perf-loops", self.count, work.seconds, self.disk, self.ring]).split()
        return {"iops": float(words[0]), "ios": int(words[1]), "seconds": work.seconds}
