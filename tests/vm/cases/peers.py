# SPDX-License-Identifier: BSD-3-Clause
"""Programs of others on this host, without a machine: QEMU's tools drive our vhost-user disk through libblkio, and bench drives
qemu-storage-daemon's."""

import os
import subprocess
import time

from harness.case import Case, test
from harness.errors import Failure, expect
from harness.image import MIB, create
from harness.machine import scaled
from harness.server import Disk


class HostPeers(Case):
    """QEMU's libblkio driver on our server, and our front end on qemu-storage-daemon."""

    name = "host-peers"
    the_guest_kernel_complains_of_nothing = None  # there is none
    qemu_has_nothing_bad_to_say = None

    def prepare(self):
        """An image and its server."""
        self.image = self.work / "disk.img"
        create(self.image, 64 * MIB)
        self.server.start(Disk(self.image, queues=2, transport="vhost-user"))

    def blkio(self):
        """QEMU's words for our disk."""
        return ["-t", "none", "--image-opts", f"driver=virtio-blk-vhost-user,path={self.server.socket},cache.direct=on"]

    def qemu_io(self, *commands):
        """Runs qemu-io; what it printed. Raises Failure."""
        words = [word for command in commands for word in ("-c", command)]
        done = self.tree.run_any("usr/bin/qemu-io", *self.blkio(), *words, timeout=scaled(60))
        expect(done.returncode == 0 and "failed" not in done.stdout, f"qemu-io {commands}:\n{done.stdout}")
        return done.stdout

    @test
    def qemu_img_bench_reads_and_writes(self):
        """libblkio, 32 requests at a time."""
        for words in (["-c", "20000"], ["-c", "20000", "-w"], ["-c", "5000", "-w", "--flush-interval", "100"]):
            done = self.tree.run_any("usr/bin/qemu-img", "bench", "-d", "32", "-s", "4096", *words, *self.blkio(), timeout=scaled(60))
            expect(done.returncode == 0 and "completed" in done.stdout, f"qemu-img bench {words}:\n{done.stdout}")

    @test
    def qemu_io_finds_the_patterns_it_wrote(self):
        """Several sizes, zeroes, discard, flush; and by another client afterwards."""
        self.qemu_io("write -P 0x5a 0 1M", "write -P 0xa5 512k 64k", "read -P 0x5a 0 512k", "read -P 0xa5 512k 64k",
                     "read -P 0x5a 576k 448k", "write -z 4M 1M", "read -P 0 4M 1M", "write -zu 5M 64k", "discard 6M 1M", "flush")
        self.qemu_io("read -P 0x5a 0 512k", "read -P 0xa5 512k 64k")

    @test
    def the_host_finds_what_qemu_io_wrote(self):
        """In the image."""
        with open(self.image, "rb") as image:
            data = image.read(MIB)
        expect(data == b"\x5a" * 524288 + b"\xa5" * 65536 + b"\x5a" * (MIB - 524288 - 65536), "the image holds something else")

    @test
    def bench_verifies_on_qemu_storage_daemon(self):
        """Our front end, their server."""
        if self.server.is_reference:
            raise Failure("the reference has no bench")
        socket = f"{self.server.socket}.qsd"
        other = self.work / "other.img"
        create(other, 64 * MIB)
        daemon = subprocess.Popen(self.tree.command(
            "usr/bin/qemu-storage-daemon", "--blockdev", f"driver=file,filename={other},node-name=f", "--blockdev",
            "driver=raw,file=f,node-name=d", "--export",
            f"type=vhost-user-blk,id=e,node-name=d,addr.type=unix,addr.path={socket},writable=on,num-queues=2"),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + scaled(60)
            while not os.path.exists(socket):
                expect(daemon.poll() is None and time.monotonic() < until, "qemu-storage-daemon does not listen")
                time.sleep(0.02)
            for words in (["--numjobs=2"], ["--bs=64k", "--iodepth=4"], ["--event-idx=off", "--poll"]):
                done = subprocess.run([self.world.binary, "bench", f"vhost-user:{socket}", "--rw=randrw", "--verify", "--iodepth=16",
                                       "--size=32M", *words], capture_output=True, text=True, timeout=scaled(120), check=False)
                expect(done.returncode == 0, f"bench {words}: {done.stderr}\n{done.stdout}")
        finally:
            daemon.kill()
            daemon.wait()
