# SPDX-License-Identifier: BSD-3-Clause
"""What stands behind the guest's device when it is one of examples/: the program, built against the library as it is installed."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from harness.cpio import Archive
from harness.errors import Lost, SetupError
from harness.machine import scaled
from harness.server import Sidecard
from harness.tree import PROJECT_DIR, SOURCE_DIR

sys.path.insert(0, str(SOURCE_DIR.parent))

from pylib.program import Installed, copy_examples, listens  # noqa: E402


class Examples:
    """The examples and the guest's driver for the card, built once for a run, when they are first asked for."""

    def __init__(self, tree, binary):
        self._folder = tree.dir / "examples"
        self._build = Path(binary).parent if binary else None
        self._programs = None
        self.libraries = None

    def program(self, name):
        """The path of an example; raises SetupError."""
        if self._programs is None:
            self._make()
        return self._programs / name

    def _make(self):
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        try:
            # Whoever only builds the command has no library yet.
            subprocess.run(["ninja", "-C", self._build], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            if not (self._build / "src/library").exists():
                # With sanitizers there is no library to install: the examples are built beside the tests.
                self._programs, self.libraries = self._build / "tests/examples", {}
                return
            installed = Installed(self._folder / "installed", build=self._build)
            programs = copy_examples(self._folder)
            installed.make(programs)
        except (AssertionError, OSError, ValueError, subprocess.CalledProcessError) as error:
            raise SetupError(f"the examples cannot be built: {error}") from None
        self._programs = programs
        self.libraries = installed.libraries

    def guest_archive(self):
        """An archive for the guest with its driver for the card, which needs no library there; after `program`. Raises SetupError."""
        output = self._folder / "card-driver"
        done = subprocess.run(["gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-I", PROJECT_DIR / "examples", "-o", output,
                               SOURCE_DIR / "guest/card.c"], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise SetupError(f"the guest's driver for the card cannot be built: {done.stderr}")
        archive = Archive()
        archive.add_file("bb/card", output.read_bytes(), executable=True)
        return archive.to_bytes()


class ExampleDevice:
    """In a Disk's place: how an example is plugged into a machine."""

    connect = False

    def __init__(self, program, transport, *, driver="vfio-user-pci", before=()):
        self.program = program
        self.transport = transport
        self.driver = driver
        self.before = before  # words for QEMU that come before the device

    def node(self):
        """There is no disk."""
        return "none"


class Example(Sidecard):
    """A running example, with the life of a `sidecard serve`."""

    def __init__(self, examples, folder, log):
        super().__init__(None, folder, log)
        self._examples = examples

    def start(self, device):
        """Starts it and waits until it listens; raises Lost."""
        self.disk = device
        program = self._examples.program(device.program)
        with open(self._log, "wb") as log:
            environment = dict(os.environ, **self._examples.libraries)
            self.process = subprocess.Popen([program, f"{device.transport}:{self.socket}"], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=environment)
        until = time.monotonic() + scaled(60)
        while not listens(self.socket):
            self.check_alive()
            if time.monotonic() > until:
                raise Lost(f"{device.program} does not listen after {scaled(20):.0f} s\n")
            time.sleep(0.01)

    def device_arguments(self, boot=False):
        """QEMU's words for the device."""
        device = self.disk
        if device.transport == "vhost-user":
            return [*device.before, "-chardev", f"socket,id=example,path={self.socket}",
                    "-device", json.dumps({"driver": device.driver, "chardev": "example"})]
        return [*device.before, "-device", json.dumps({"driver": device.driver, "socket": {"type": "unix", "path": self.socket}})]
