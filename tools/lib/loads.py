# SPDX-License-Identifier: BSD-3-Clause
"""Verified loads by `sidecard bench`: under ThreadSanitizer for a short time, and without it for a long one."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from .served import TOP, CommandError, Served, scratch_file

MIB = 1 << 20

# (name, device, backend, options of serve, options of bench); FILE becomes a file of 64 MiB.
LOADS = [
    ("ram, two queues on two threads, by interrupt", "virtio-blk", "ram:64M", ["--threads=2", "--queues=2"], ["--numjobs=2"]),
    ("ram, two queues on two threads, polling", "virtio-blk", "ram:64M", ["--threads=2", "--queues=2"],
     ["--numjobs=2", "--poll"]),
    ("ram, four queues on two threads, no event index", "virtio-blk", "ram:64M", ["--threads=2", "--queues=4"],
     ["--numjobs=4", "--event-idx=off"]),
    ("ram, four queues on two threads that never sleep", "virtio-blk", "ram:64M", ["--threads=2", "--queues=4", "--poll=always"],
     ["--numjobs=4"]),
    ("ram, two queues whose registers are memory, and their rings not shared", "virtio-blk", "ram:64M",
     ["--threads=2", "--queues=2", "--poll=always"], ["--numjobs=2", "--memory=private", "--size=4M"]),
    ("file, two queues on two threads", "virtio-blk", "FILE", ["--threads=2", "--queues=2"], ["--numjobs=2"]),
    ("file without the page cache, two queues on two threads", "virtio-blk", "FILE",
     ["--threads=2", "--queues=2", "--direct"], ["--numjobs=2"]),
    ("file over epoll, two queues on two threads", "virtio-blk", "FILE", ["--threads=2", "--queues=2", "--loop=epoll"], ["--numjobs=2"]),
    ("file without the page cache over epoll, packed ring", "virtio-blk", "FILE", ["--direct", "--loop=epoll"], ["--packed=on"]),
    ("file without a write cache, one queue", "virtio-blk", "FILE", ["--write-cache=off"], ["--bs=64k", "--iodepth=4"]),
    ("every kind of ring, two queues on two threads", "virtio-blk", "FILE", ["--threads=2", "--queues=2", "--in-order=on"],
     ["--numjobs=2", "--size=4M"]),
    ("nvme, two queues on two threads, by interrupt", "nvme", "ram:64M", ["--threads=2", "--queues=2"], ["--numjobs=2"]),
    ("nvme, four queues on two threads, polling, SGLs", "nvme", "ram:64M", ["--threads=2", "--queues=4"],
     ["--numjobs=4", "--poll", "--sgl"]),
    ("nvme, two queues on two threads, no shadow doorbells", "nvme", "FILE", ["--threads=2", "--queues=2"],
     ["--numjobs=2", "--shadow-doorbells=off"]),
    ("nvme, two queues on two threads, memory that is not shared", "nvme", "ram:64M", ["--threads=2", "--queues=2"],
     ["--numjobs=2", "--memory=private", "--size=4M"]),
]
# Every kind of ring: its format, the order of requests, and how one side says what it wants to be told of.
RINGS = [(packed, in_order, event_idx) for packed in ("off", "on") for in_order in ("off", "on")
         for event_idx in ("off", "on")]


def without_randomisation():
    """gcc 12's ThreadSanitizer cannot start where addresses are randomised over more than 28 bits."""
    works = subprocess.run(["setarch", "-R", "true"], capture_output=True).returncode == 0
    return ["setarch", "-R"] if works else []


def lasting(seconds, parts=1):
    """What bench is to do in this time; a part of it."""
    return ["--size=48M", f"--runtime={max(1, seconds // parts)}"]


def counted(requests, parts=1):
    """So many requests, on a disk so small that they read what they wrote on however slow a machine; a part of them."""
    return ["--size=4M", f"--number_ios={requests // parts}"]


def verified_bench(served, *options):
    """A verified load; gives what bench says of the device, or raises CommandError."""
    job = served.bench("--rw=randrw", "--bs=4k", "--iodepth=32", "--verify", *options)["jobs"][0]
    if job["error"] != 0 or job["write"]["total_ios"] == 0 or job["device"]["verified_blocks"] == 0:
        raise CommandError(f"bench wrote {job['write']['total_ios']} requests and verified "
                           f"{job['device']['verified_blocks']} blocks, error {job['error']}")
    return job["device"]


def verified_load(binary, device, backend, serve_options, bench_options, work, wrapper=(), env=None):
    """One load twice, by two clients one after the other; raises CommandError."""
    with Served(binary, backend, *serve_options, device=device, wrapper=wrapper, env=env) as served:
        for _ in range(2):
            verified_bench(served, *work(), *bench_options)


def ring_matrix(binary, device, backend, serve_options, bench_options, work, wrapper=(), env=None):
    """A shorter load over each kind of ring, by one client after the other."""
    with Served(binary, backend, *serve_options, device=device, wrapper=wrapper, env=env) as served:
        for packed, in_order, event_idx in RINGS:
            device = verified_bench(served, f"--packed={packed}", f"--in-order={in_order}", f"--event-idx={event_idx}",
                                    *work(len(RINGS)), *bench_options)
            if device["in_order"] != (in_order == "on") or device["ring"] != ("packed" if packed == "on" else "split"):
                raise CommandError(f"bench had {device['ring']} rings, in order: {device['in_order']}; asked for were "
                                   f"packed={packed}, in-order={in_order}")


def run_all(part, log, binary, work, wrapper=(), sanitizer_env=None):
    """Every load is a test; `sanitizer_env(prefix)` says where reports go, and there must be none. work: lasting or counted."""
    # /tmp may be a tmpfs, which knows no O_DIRECT.
    folder = Path(tempfile.mkdtemp(prefix="loads-", dir=part.log.parent))
    try:
        for number, (name, device, backend, serve_options, bench_options) in enumerate(LOADS):
            reports = folder / f"report{number}"
            env = sanitizer_env(reports) if sanitizer_env else None
            if backend == "FILE":
                backend = scratch_file(folder, 64 * MIB)
            log.write(f"--- {name}\n")
            log.flush()
            try:
                load = ring_matrix if "--in-order=on" in serve_options else verified_load
                load(binary, device, backend, serve_options, bench_options, work, wrapper, env)
                texts = [path.read_text(errors="replace") for path in folder.glob(reports.name + "*")]
                if any(texts):
                    raise CommandError("the sanitizer has something to report:\n" + "\n".join(texts))
                part.results.good()
            except (CommandError, OSError) as error:
                log.write(f"{error}\n")
                part.results.bad(f"{part.name}: {name}: {str(error).splitlines()[0]}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def under_tsan(part, log, work):
    def environment(prefix):
        return {"TSAN_OPTIONS": f"log_path={prefix}:exitcode=66:halt_on_error=0"}

    run_all(part, log, TOP / "build-tsan/sidecard", work, without_randomisation(), environment)


def soak(part, log, work):
    run_all(part, log, TOP / "build/sidecard", work)
