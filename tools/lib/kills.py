# SPDX-License-Identifier: BSD-3-Clause
"""A vhost-user back end that is killed again and again under a verified load, which must not notice."""

import json
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from .served import TOP, CommandError, scratch_file

MIB = 1 << 20

# (name, options of serve, options of bench)
LOADS = [
    ("split rings", [], ["--packed=off"]),
    ("packed rings, two queues on two threads", ["--queues=2", "--threads=2"], ["--numjobs=2"]),
    ("split rings without event indices, two queues, epoll", ["--queues=2", "--loop=epoll"],
     ["--numjobs=2", "--packed=off", "--event-idx=off"]),
    ("packed rings, larger requests, direct I/O", ["--direct"], ["--bs=32k"]),
    ("behind an IOMMU, two queues on two threads", ["--queues=2", "--threads=2"], ["--numjobs=2", "--iommu=flush"]),
]


class Killed:
    """A server that is started again whenever it was killed."""

    def __init__(self, folder, image, options):
        self.command = [str(TOP / "build/sidecard"), "serve", f"vhost-user:{folder}/disk.sock", "virtio-blk", str(image),
                        *options]
        self.log = open(folder / "serve.stderr", "ab")
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def kill(self):
        status = self.process.poll()
        if status is not None:
            raise CommandError(f"the server ended by itself with status {status}: {Path(self.log.name).read_text()}")
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


def start_bench(folder, options):
    command = [str(TOP / "build/sidecard"), "bench", f"vhost-user:{folder}/disk.sock", "--rw=randrw", "--verify", "--iodepth=16",
               "--size=48M", "--reconnect-ms=120000", "--number_ios=30000", "--json", "--eta=never", *options]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def verified_blocks(bench):
    """Of a run that has ended well; 0 of one that was killed before it had set its queues up. Raises CommandError."""
    out, said = bench.communicate(timeout=900)
    if bench.returncode == 0:
        return json.loads(out)["jobs"][0]["device"]["verified_blocks"]
    if out:
        raise CommandError(f"bench ended with status {bench.returncode}: {said}")
    return 0


def load(folder, rounds, serve_options, bench_options):
    """Kills the server so often, under one load after the other, each of which reads back what it wrote. How many
    blocks were verified; raises CommandError."""
    server = Killed(folder, scratch_file(folder, 64 * MIB), serve_options)
    server.start()
    bench, verified, left_alone = None, 0, 0
    try:
        while rounds > 0 or bench or (verified == 0 and left_alone < 5):
            if bench is None:
                bench = start_bench(folder, bench_options)
                left_alone += rounds == 0
            time.sleep(random.uniform(0.02, 0.12))
            if bench.poll() is not None:
                verified += verified_blocks(bench)
                bench = None
            elif rounds > 0:
                server.kill()
                server.start()
                rounds -= 1
    finally:
        if bench:
            bench.kill()
            bench.communicate()
        server.end()
    if verified == 0:
        raise CommandError("no load came to its end, not even when nobody was killed any more")
    return verified


def run_all(part, log, rounds):
    """Every load is a test; the kills are shared out among them."""
    for number, (name, serve_options, bench_options) in enumerate(LOADS):
        with tempfile.TemporaryDirectory(prefix=f"kills{number}-", dir=part.log.parent) as folder:
            try:
                verified = load(Path(folder), rounds // len(LOADS), serve_options, bench_options)
                log.write(f"{name}: {rounds // len(LOADS)} kills, {verified} blocks verified\n")
                part.results.good()
            except (CommandError, OSError, subprocess.TimeoutExpired) as error:
                log.write(f"{name}: {error}\n")
                part.results.bad(f"{part.name}: {name}: {str(error).splitlines()[0]}")
