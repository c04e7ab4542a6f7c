# SPDX-License-Identifier: BSD-3-Clause
"""The servers that are measured beside each other: sidecard, SPDK's target, QEMU's storage daemon, and none at all (a file).

Each is a context manager with: name; transport and device, what it serves; socket, where; pid. It has one processor. What would use that
while it is not asked for anything is paused meanwhile (resume, pause)."""

import json
import os
import shutil
import signal
import socket as sockets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import cores
from .served import TOP, CommandError, Served

sys.path.insert(0, str(TOP / "tests/vm"))
from harness.errors import SetupError  # noqa: E402 pylint: disable=wrong-import-position
from harness.tree import Tree  # noqa: E402 pylint: disable=wrong-import-position

MIB = 1 << 20
QUEUE_SIZE = 512  # of every server: what 128 requests of three parts need


class Server:
    """What all have. path: what a client is given."""

    def __init__(self, name, transport, device):
        self.name, self.transport, self.device = name, transport, device
        self.pid = None
        self.socket = None

    def resume(self):
        pass

    def pause(self):
        pass

    def cpu_seconds(self):
        """Of all its threads."""
        if not self.pid:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settle(self):
        """After writes: what they have left to do is not done during the next one's."""

    def address(self):
        """As `sidecard bench` takes it."""
        return f"{self.transport}:{self.socket}"


def write_back(path):
    if os.path.isfile(path):
        with open(path, "rb") as file:
            os.fsync(file.fileno())


class Sidecard(Server):
    """options: of `serve`."""

    def __init__(self, binary, transport, device, backend, *options, name="sidecard", wrapper=()):
        super().__init__(name, transport, device)
        self.binary, self.backend, self.options, self.wrapper = binary, backend, options, list(wrapper)
        self.served = None

    def __enter__(self):
        self.served = Served(self.binary, self.backend, "--queues=1", *self.options, transport=self.transport, device=self.device,
                             wrapper=[*cores.on(cores.SERVER), *self.wrapper], start_timeout=60)
        self.served.__enter__()
        self.pid, self.socket = self.served.process.pid, self.served.socket
        (self.served.folder / "cntrl").symlink_to(self.socket)  # SPDK's client wants the folder of an NVMe controller
        return self

    def __exit__(self, *why):
        self.served.__exit__(*why)

    def settle(self):
        write_back(self.backend)


class Nothing(Server):
    """A file without a server."""

    def __init__(self, path):
        super().__init__("file", "", "file")
        self.socket = path

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def settle(self):
        write_back(self.socket)


class Started(Server):
    """A program of somebody else's, in a folder of its own."""

    def __init__(self, name, transport, device):
        super().__init__(name, transport, device)
        self.folder = self.log = self.process = None

    def make_folder(self):
        self.folder = Path(tempfile.mkdtemp(prefix="peer-"))
        self.log = self.folder / "log"

    def start(self, command):
        with open(self.log, "wb") as log:
            # In its folder: should it end badly, what it leaves behind goes with that.
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.folder)
        self.pid = self.process.pid

    def wait_for(self, path, seconds=60):
        until = time.monotonic() + seconds
        while not path.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise CommandError(f"{self.name} does not listen:\n{self.said()}")
            time.sleep(0.02)

    def said(self):
        return self.log.read_text(errors="replace")[-2000:]

    def __exit__(self, *_):
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(90)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


# --- SPDK ---

TARGET_MIB, CLIENT_MIB = 640, 448
SPDK_PAGES = 1000  # of 2 MiB: it takes more than it is told, and a client that has ended leaves its own until the next one begins

def spdk_folder():
    """A tree of SPDK with its target and client built in it, or None; and why not."""
    named = os.environ.get("SPDK_DIR")
    if not named:
        return None, "SPDK_DIR names no tree of SPDK"
    missing = [path for path in ("build/bin/spdk_tgt", "build/examples/bdevperf") if not (Path(named) / path).exists()]
    if missing:
        return None, f"there is no {missing[0]} in {named}: it has to be built"
    if "hugetlbfs" not in Path("/proc/mounts").read_text(encoding="ascii", errors="replace"):
        return None, "SPDK needs huge pages, and no hugetlbfs is mounted: mkdir -p /dev/hugepages; mount -t hugetlbfs nodev /dev/hugepages"
    free = int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text(encoding="ascii"))
    if free < SPDK_PAGES:
        return None, (f"SPDK needs {SPDK_PAGES} free huge pages of 2 MiB, and there are {free}: "
                      f"echo {SPDK_PAGES + CLIENT_MIB // 2} > /proc/sys/vm/nr_hugepages")
    return Path(named), None


class Rpc:
    """A JSON-RPC client."""

    def __init__(self, path):
        self.socket = sockets.socket(sockets.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        self.count = 0

    def call(self, method, **parameters):
        self.count += 1
        request = {"jsonrpc": "2.0", "id": self.count, "method": method}
        if parameters:
            request["params"] = parameters
        self.socket.sendall(json.dumps(request).encode())
        text = b""
        while True:
            text += self.socket.recv(65536)
            try:
                answer = json.loads(text)
                break
            except ValueError:
                continue
        if "error" in answer:
            raise CommandError(f"SPDK's {method} {parameters}: {answer['error']}")
        return answer["result"]

    def close(self):
        self.socket.close()


class SpdkTarget(Started):
    """One disk, null or ram (which SPDK calls malloc), of so many MiB. It never sleeps: it is paused when it is not measured."""

    def __init__(self, folder, transport, device, disk, size_mib, packed=False, wrapper=()):
        super().__init__("SPDK", transport, device)
        self.tree, self.disk, self.size_mib, self.packed, self.wrapper = folder, disk, size_mib, packed, list(wrapper)

    def __enter__(self):
        self.make_folder()
        rpc_socket = self.folder / "rpc"
        self.start([*self.wrapper, self.tree / "build/bin/spdk_tgt", "-m", hex(1 << cores.SERVER), "-s", TARGET_MIB, "-r", rpc_socket,
                    "-S", self.folder])
        try:
            self.wait_for(rpc_socket, 300 if self.wrapper else 60)
            rpc = self._connected(rpc_socket)
            self._make(rpc)
            rpc.close()
        except BaseException:
            self.__exit__()
            raise
        self.pause()
        return self

    def _connected(self, path):
        until = time.monotonic() + 60
        while True:
            try:
                return Rpc(path)
            except OSError:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise CommandError(f"SPDK's target does not answer:\n{self.said()}") from None
                time.sleep(0.05)

    def _make(self, rpc):
        rpc.call("framework_wait_init")
        name = "Null0" if self.disk == "null" else "Malloc0"
        rpc.call("bdev_null_create" if self.disk == "null" else "bdev_malloc_create", name=name, block_size=512,
                 num_blocks=self.size_mib * MIB // 512)
        if self.transport == "vhost-user":
            rpc.call("vhost_create_blk_controller", ctrlr="disk", dev_name=name, packed_ring=self.packed)
            self.socket = self.folder / "disk"
        elif self.device == "virtio-blk":
            rpc.call("vfu_tgt_set_base_path", path=str(self.folder))
            rpc.call("vfu_virtio_create_blk_endpoint", name="disk", bdev_name=name, num_queues=1, qsize=QUEUE_SIZE,
                     packed_ring=self.packed)
            self.socket = self.folder / "disk"
        else:
            nqn = "nqn.2026-01.io.sidecard:bench"
            rpc.call("nvmf_create_transport", trtype="VFIOUSER")
            rpc.call("nvmf_create_subsystem", nqn=nqn, allow_any_host=True, serial_number="BENCH")
            rpc.call("nvmf_subsystem_add_ns", nqn=nqn, namespace={"bdev_name": name})
            rpc.call("nvmf_subsystem_add_listener", nqn=nqn,
                     listen_address={"trtype": "VFIOUSER", "traddr": str(self.folder), "trsvcid": "0"})
            self.socket = self.folder / "cntrl"

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)


# --- QEMU ---

def qemu_tree():
    """The Debian tree of the guest tests, or None; and why not."""
    tree = Tree()
    try:
        tree.command("usr/bin/qemu-storage-daemon")
        tree.command("usr/bin/qemu-img")
    except SetupError:
        return None, f"there is no qemu-storage-daemon in {tree.root}: tests/vm/setup makes that"
    os.environ["QEMU_MODULE_DIR"] = str(tree.root / "usr/lib/x86_64-linux-gnu/qemu")
    return tree, None


class StorageDaemon(Started):
    """qemu-storage-daemon with one vhost-user-blk export of null or a file."""

    def __init__(self, tree, image):
        super().__init__("qemu-storage-daemon", "vhost-user", "virtio-blk")
        self.tree, self.image = tree, image

    def __enter__(self):
        self.make_folder()
        self.socket = self.folder / "disk"
        node = (["driver=null-co,node-name=d,size=536870912,read-zeroes=off"] if self.image is None else
                [f"driver=file,filename={self.image},node-name=f,aio=io_uring", "driver=raw,file=f,node-name=d"])
        words = [word for text in node for word in ("--blockdev", text)]
        self.start([*cores.on(cores.SERVER), *self.tree.command("usr/bin/qemu-storage-daemon", *words, "--export",
                    f"type=vhost-user-blk,id=e,node-name=d,addr.type=unix,addr.path={self.socket},writable=on,num-queues=1")])
        try:
            self.wait_for(self.socket)
        except BaseException:
            self.__exit__()
            raise
        return self

    def settle(self):
        if self.image:
            write_back(self.image)
