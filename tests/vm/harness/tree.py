# SPDX-License-Identifier: BSD-3-Clause
"""The Debian tree made by tests/vm/setup, and the way its programs are run.

Programs run in place through the tree's own dynamic loader. So nothing is mounted, no root is needed, and QEMU sees
sockets and images under the names they have on this machine.
"""

import os
import subprocess
from pathlib import Path

from harness.errors import SetupError

SOURCE_DIR = Path(__file__).resolve().parents[1]
PROJECT_DIR = SOURCE_DIR.parents[1]


class Tree:
    """Owns the folder of the guest tests: `root` (Debian), `guest` (kernel, initramfs, boot disk), `logs`."""

    def __init__(self):
        default = PROJECT_DIR / "build" / "vm"
        self.dir = Path(os.environ.get("SIDECARD_VM_DIR") or default).resolve()
        self.root = self.dir / "root"
        self.guest = self.dir / "guest"
        self.logs = self.dir / "logs"

    def set_up(self):
        """Makes the tree where it is missing or stale; raises SetupError."""
        environment = dict(os.environ, SIDECARD_VM_DIR=str(self.dir))
        if subprocess.run([SOURCE_DIR / "setup"], env=environment, check=False).returncode != 0:
            raise SetupError("tests/vm/setup failed")
        self.guest.mkdir(exist_ok=True)
        self.logs.mkdir(exist_ok=True)

    def stamp(self):
        """Names this tree's content: what is made from it is made again when the stamp changes."""
        return (self.root / ".sidecard-tree").read_text(encoding="ascii").strip()

    def loader(self):
        """The words that go before a program's path."""
        libraries = self.root / "usr/lib/x86_64-linux-gnu"
        path = f"{libraries}:{libraries}/ceph:{self.root}/usr/lib"
        return [str(self.root / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", path]

    def command(self, program, *args):
        """A command line for `program`, a path in the tree without a leading slash."""
        path = self.root / program
        if not path.exists():
            raise SetupError(f"{path} is missing: run tests/vm/setup --force")
        return [*self.loader(), str(path), *map(str, args)]

    def run(self, program, *args, timeout=60):
        """Runs a program and returns its output; raises SetupError when it fails."""
        done = self.run_any(program, *args, timeout=timeout)
        if done.returncode != 0:
            words = " ".join(map(str, args))
            raise SetupError(f"{program} {words}: exit status {done.returncode}\n{done.stdout}")
        return done.stdout

    def run_any(self, program, *args, timeout=60):
        """Runs a program; whatever exit status it has is the caller's business. Output and errors come as one text."""
        environment = dict(os.environ, LC_ALL="C", MTOOLS_SKIP_CHECK="1",
                           QEMU_MODULE_DIR=str(self.root / "usr/lib/x86_64-linux-gnu/qemu"))
        return subprocess.run(self.command(program, *args), env=environment, check=False, timeout=timeout,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              encoding="utf-8", errors="replace")

    def libraries(self, program):
        """Paths in the tree, without a leading slash, of the shared libraries that `program` needs."""
        done = subprocess.run([*self.loader(), "--list", str(self.root / program)], check=False, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
        if "statically linked" in done.stdout:
            return []
        if done.returncode != 0:
            raise SetupError(f"cannot list the libraries of {program}: {done.stdout}")
        found = []
        for line in done.stdout.splitlines():
            path = line.partition("=> ")[2].partition(" (0x")[0]
            if path.startswith(str(self.root)):
                found.append(os.path.relpath(path, self.root))
        return found

    def qemu_version(self):
        """The first line of QEMU's --version."""
        return self.run("usr/bin/qemu-system-x86_64", "--version").splitlines()[0]

    def check_vfio_user(self):
        """Raises SetupError when this QEMU cannot be a vfio-user client."""
        devices = self.run("usr/bin/qemu-system-x86_64", "-device", "help")
        if '"vfio-user-pci"' not in devices:
            raise SetupError(f"{self.qemu_version()} has no vfio-user-pci device: it came with QEMU 10.1")
