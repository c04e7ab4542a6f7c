# SPDX-License-Identifier: BSD-3-Clause
"""What stands behind the guest's disk: sidecard, or QEMU's own virtio-blk-pci or nvme as a reference.

Both take the same `Disk` and give QEMU the words for the device. The reference tells a fault of the tests from a fault
of sidecard: a test that fails with both is wrong, or asks for something that no disk does.
"""

import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pylib.keeper import Keeper  # noqa: E402
from harness.errors import Failure, Lost, Skip, expect
from harness.machine import scaled, tail

# Lines of the server's stderr that no case provokes by what it does.
TROUBLE = re.compile(r"Sanitizer|runtime error:|assert|\bbug\b|\berror\b|core dumped", re.IGNORECASE)

NO_PROCESS = "the reference device has no process of its own"


@dataclass
class Disk:
    """A disk as the guest shall see it."""

    image: object
    device: str = "virtio-blk"
    queues: int = 1
    block_size: int = 512
    serial: str = "SIDECARD-VM-0001"
    read_only: bool = False
    write_cache: bool = True
    direct: bool = False
    threads: int = 1
    queue_size: int = 256
    packed: bool = True
    transport: str = "vfio-user"
    connect: bool = False    # over vhost-user: QEMU listens
    iommu: bool = False      # over vhost-user: the machine has one, and the disk is behind it
    reconnect_ms: int = 0    # over vhost-user: QEMU tries so often to find a back end again that has gone
    options: tuple = ()      # of the server alone
    namespaces: tuple = ()   # of NVMe, in place of the image: objects as in a configuration file, which can be changed later

    def node(self):
        """The Linux guest's name for it."""
        return "nvme0n1" if self.device == "nvme" else "vda"

    def size(self):
        """Bytes."""
        return os.stat(self.image).st_size


class Sidecard:
    """A `sidecard serve` process. Whoever starts one must end it with `stop` or `kill`."""

    is_reference = False

    def __init__(self, binary, folder, log):
        self._binary = binary
        self.socket = f"{folder}/disk.sock"
        self._config = Path(folder) / "config.json"
        self._log = log
        self.process = None
        self.disk = None

    def start(self, disk):
        """Starts it and waits until it listens; raises Lost."""
        self.disk = disk
        ready, ready_end = os.pipe()
        if disk.namespaces:
            self._configure(disk.namespaces)
            what = [f"--config={self._config}"]
        else:
            what = [f"{disk.transport}:{self.socket}", disk.device, str(disk.image), *self._options(disk)]
        command = [self._binary, "serve", *what, f"--ready-fd={ready_end}"]
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            pass_fds=[ready_end])
        os.close(ready_end)
        try:
            self._wait_until_ready(ready)
        finally:
            os.close(ready)

    def _configure(self, namespaces):
        disk = self.disk
        card = {"socket": self.socket, "device": disk.device, "queues": disk.queues, "serial": disk.serial, "namespaces": list(namespaces)}
        self._config.write_text(json.dumps({"threads": disk.threads, "cards": [card]}), encoding="utf-8")

    def reconfigure(self, *namespaces):
        """Other namespaces: the configuration file is written anew, and read again."""
        self._configure(namespaces)
        self.process.send_signal(signal.SIGHUP)

    @staticmethod
    def _options(disk):
        options = [f"--queues={disk.queues}", f"--block-size={disk.block_size}", f"--serial={disk.serial}",
                   f"--threads={disk.threads}", *disk.options]
        if disk.device == "virtio-blk":
            options += [f"--queue-size={disk.queue_size}", f"--write-cache={'on' if disk.write_cache else 'off'}",
                        f"--packed={'on' if disk.packed else 'off'}"]
        options += ["--read-only"] if disk.read_only else []
        options += ["--direct"] if disk.direct else []
        options += ["--connect"] if disk.connect else []
        return options

    def device_arguments(self, boot=False):
        """QEMU's words for the disk."""
        if self.disk.transport == "vhost-user":
            return self._vhost_user_arguments(boot)
        device = {"driver": "vfio-user-pci", "socket": {"type": "unix", "path": self.socket}}
        if boot:
            device["bootindex"] = 0
        return ["-device", json.dumps(device)]

    def _vhost_user_arguments(self, boot):
        disk = self.disk
        how = ",server=on,wait=on" if disk.connect else ""
        how += f",reconnect-ms={disk.reconnect_ms}" if disk.reconnect_ms else ""
        device = {"driver": "vhost-user-blk-pci", "chardev": "disk", "num-queues": disk.queues, "queue-size": disk.queue_size,
                  "config-wce": True, "disable-legacy": "on", "packed": disk.packed}
        before = []
        if boot:
            device["bootindex"] = 0
        if disk.iommu:
            device |= {"iommu_platform": True, "ats": True}
            before = ["-device", "intel-iommu,intremap=on,device-iotlb=on"]
        return [*before, "-chardev", f"socket,id=disk,path={self.socket}{how}", "-device", json.dumps(device)]

    def resize(self, _machine, size, image=None):
        """Changes the size of the image, or of another of the server's, and tells the server."""
        os.truncate(image or self.disk.image, size)
        self.process.send_signal(signal.SIGHUP)

    def check_alive(self):
        """Raises Lost when the process has ended."""
        status = self.process.poll()
        if status is not None:
            raise Lost(f"sidecard {_how(status)}\n")

    def last_words(self):
        """What became of it and the end of its stderr, for a failure's text."""
        status = self.process.poll() if self.process else None
        state = "sidecard is running, " if status is None else f"sidecard {_how(status)}, "
        return state + tail(self._log)

    def open_files(self):
        """How many file descriptors the process holds."""
        self.check_alive()
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def settled_open_files(self, wanted):
        """The same, after waiting a little for it to fall to `wanted`: a client's end is noticed, not told."""
        until = time.monotonic() + scaled(60)
        while self.open_files() > wanted and time.monotonic() < until:
            time.sleep(0.05)
        return self.open_files()

    def stop(self):
        """Asks for an orderly end and checks that it was one; raises Failure."""
        self.check_alive()
        expect(self.disk.connect or stat.S_ISSOCK(os.stat(self.socket).st_mode), f"{self.socket} is not a socket")
        self.process.terminate()
        try:
            status = self.process.wait(scaled(20))
        except subprocess.TimeoutExpired:
            raise Failure(f"sidecard has not ended {scaled(20):.0f} s after SIGTERM\n{tail(self._log)}") from None
        expect(status == 0, f"after SIGTERM sidecard {_how(status)}, should be exit status 0\n{tail(self._log)}")
        expect(self.disk.connect or not os.path.exists(self.socket), f"sidecard left its socket {self.socket} behind")

    def check_messages(self, allowed=None):
        """Fails when its stderr holds trouble; `allowed` is a pattern of lines that the case provokes."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        bad = [line for line in text.splitlines()
               if TROUBLE.search(line) and not (allowed and re.search(allowed, line))]
        expect(not bad, "sidecard said on stderr:\n" + "".join(f"  | {line}\n" for line in bad[:30]))

    def kill(self):
        """Ends it at once. May be called at any time and again."""
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()

    def _wait_until_ready(self, ready):
        until = time.monotonic() + scaled(60)
        said = b""
        while not said.endswith(b"\n"):
            readable, _, _ = select.select([ready], [], [], 0.1)
            data = os.read(ready, 100) if readable else None
            said += data or b""
            if data == b"":
                break
            if time.monotonic() > until:
                raise Lost(f"sidecard did not say READY in {scaled(20):.0f} s\n")
        if said != b"READY\n":
            self.process.wait(scaled(5))
            self.check_alive()
            raise Lost(f"sidecard wrote {said!r} to its ready descriptor, should be READY\n")


class Kept(Sidecard):
    """Device processes one after the other, of a keeper that has what each needs to go on where the one before was."""

    def __init__(self, binary, folder, log):
        super().__init__(binary, folder, log)
        self._folder = Path(folder)
        self._keeper = None

    def start(self, disk):
        """The first process, or the next one; raises Lost."""
        self.disk = disk
        if self._keeper is None:
            self._keeper = Keeper(SimpleNamespace(path=self._folder), disk.image, *self._options(disk), device=disk.device,
                                  name="disk.sock", program=[self._binary])
        try:
            self._keeper.start()
        except AssertionError as error:
            raise Lost(f"{error}\n") from None
        self.process = self._keeper.process

    def leave(self):
        """Ends the process in order, so that the next one can go on; raises Lost."""
        try:
            self._keeper.stop()
        except AssertionError as error:
            raise Lost(f"{error}\n") from None
        self._gather()

    def stop(self):
        """Asks for an orderly end, as without a keeper."""
        self.check_alive()
        status = self._keeper.terminate()
        self._gather()
        expect(status == 0, f"after SIGTERM sidecard {_how(status)}, should be exit status 0\n{tail(self._log)}")

    def kill(self):
        """Ends it at once. May be called at any time and again."""
        if self.process and self.process.poll() is None:
            self._keeper.kill()
            self._gather()

    def close(self):
        """After the last process."""
        if self._keeper:
            self._keeper.close()

    def _gather(self):
        with open(self._log, "a", encoding="utf-8") as log:
            log.write(self._keeper.stderr())


def reference_arguments(disk, node="disk", boot=False):
    """QEMU's words for its own device with this disk."""
    on_off = {True: "on", False: "off"}
    cache = {"direct": disk.direct}
    file = {"driver": "file", "filename": str(disk.image), "node-name": f"{node}-file", "discard": "unmap",
            "read-only": disk.read_only, "cache": cache}
    raw = {"driver": "raw", "file": f"{node}-file", "node-name": node, "discard": "unmap", "read-only": disk.read_only, "cache": cache}
    blocks = {"drive": node, "serial": disk.serial, "logical_block_size": disk.block_size, "physical_block_size": disk.block_size}
    if disk.device == "nvme":
        device = {"driver": "nvme", **blocks, "max_ioqpairs": disk.queues, "mdts": 8, "discard_granularity": 4096}
    else:
        device = {"driver": "virtio-blk-pci", **blocks, "num-queues": disk.queues, "queue-size": disk.queue_size,
                  "write-cache": on_off[disk.write_cache], "disable-legacy": "on", "iommu_platform": True, "packed": disk.packed}
    if boot:
        device["bootindex"] = 0
    return ["-blockdev", json.dumps(file), "-blockdev", json.dumps(raw), "-device", json.dumps(device)]


class Reference:
    """QEMU's own virtio-blk-pci or nvme, in QEMU's process: there is nothing to start and nothing to end."""

    is_reference = True

    def __init__(self):
        self.disk = None

    def start(self, disk):
        """Notes the disk."""
        self.disk = disk

    def device_arguments(self, boot=False):
        """QEMU's words for the disk."""
        return reference_arguments(self.disk, boot=boot)

    def resize(self, machine, size):
        """Lets QEMU change the image's size."""
        machine.command("block_resize", node_name="disk", size=size)

    def check_alive(self):
        """Nothing to check."""

    def last_words(self):
        """Nothing to tell: QEMU's own log has it."""
        return ""

    def open_files(self):
        """Not to be counted."""
        raise Skip(NO_PROCESS)

    def settled_open_files(self, _wanted):
        """Not to be counted."""
        raise Skip(NO_PROCESS)

    def stop(self):
        """Nothing to stop."""
        raise Skip(NO_PROCESS)

    def check_messages(self, _allowed=None):
        """No messages."""
        raise Skip(NO_PROCESS)

    def kill(self):
        """Nothing to kill."""


def _how(status):
    return f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
