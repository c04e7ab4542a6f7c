# SPDX-License-Identifier: BSD-3-Clause
"""The library as it is installed, and programs that are built against it by pkg-config alone.

SIDECARD_BUILD is the build folder whose library is installed (build).
"""

import os
import shutil
import signal
import subprocess

from pathlib import Path

from .events import PATIENCE, wait_until
from .server import ROOT, environment, sanitizer_reports

PACKAGE = "sidecard"


class Installed:
    """An installation in a folder of its own, as a distribution's package would be made."""

    def __init__(self, folder, build=None):
        self.root = Path(folder)
        self.build = Path(build or os.environ.get("SIDECARD_BUILD", ROOT / "build")).resolve()
        done = subprocess.run(["meson", "install", "--no-rebuild", "-C", str(self.build), "--destdir", str(self.root)], check=False,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"the library cannot be installed from {self.build}:\n{done.stdout}{done.stderr}"
        (found,) = self.root.rglob(f"{PACKAGE}.pc")
        self.environment = dict(os.environ, PKG_CONFIG_PATH=str(found.parent), PKG_CONFIG_SYSROOT_DIR=str(self.root), LC_ALL="C")
        (library,) = self.root.rglob(f"lib{PACKAGE}.so.0")
        self.libraries = {"LD_LIBRARY_PATH": str(library.parent)}  # for the environment of what is linked with it

    def pkg_config(self, *words):
        done = subprocess.run(["pkg-config", *words, PACKAGE], env=self.environment, check=False, capture_output=True, text=True,
                              timeout=60)
        assert done.returncode == 0, f"pkg-config {' '.join(words)}: {done.stderr}"
        return done.stdout.split()

    def make(self, folder, *variables):
        """Runs make in a folder, with warnings as errors."""
        environment = dict(self.environment, CFLAGS="-O2 -g -Werror", CXXFLAGS="-O2 -g -Werror")
        done = subprocess.run(["make", "-C", str(folder), *variables], env=environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, f"make {' '.join(variables)} in {folder}:\n{done.stdout}{done.stderr}"


def listens(path):
    """Whether somebody listens at a socket: the file alone is there a moment sooner."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(f" {path}") and line.split()[3] == "00010000" for line in lines)


class Program:
    """One that serves a socket, and whose end is looked at."""

    count = 0

    def __init__(self, path, folder, socket, libraries=None):
        Program.count += 1
        self.socket = Path(folder) / "s.sock"
        self.logs = Path(folder) / f"log{Program.count}"
        self.logs.mkdir()
        self.stderr_path = self.logs / "stderr"
        self.command = [str(path), f"{socket}{self.socket}"]
        with open(self.stderr_path, "wb") as stderr:
            env = dict(environment(self.logs), **(libraries or {}))
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env=env)
        assert wait_until(lambda: listens(self.socket) or self.process.poll() is not None), "nobody listens"
        assert self.process.poll() is None, f"{self.command} ended with status {self.process.poll()}\n{self.stderr()}"

    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    def held(self):
        """Guest memory that it has open or mapped, and sockets beside the one that it listens at."""
        open_files = []
        for name in os.listdir(f"/proc/{self.process.pid}/fd"):
            try:
                open_files.append(os.readlink(f"/proc/{self.process.pid}/fd/{name}"))
            except FileNotFoundError:
                pass
        maps = Path(f"/proc/{self.process.pid}/maps").read_text().splitlines()
        sockets = [name for name in open_files if name.startswith("socket:")]
        return [line for line in open_files + maps if "memfd:guest-memory" in line] + sockets[1:]

    def finish(self):
        """SIGTERM ends it in order, and it leaves nothing behind."""
        try:
            assert self.process.poll() is None, f"it ended with status {self.process.poll()}\n{self.stderr()}"
            assert wait_until(lambda: not self.held()), f"clients have gone, and it still has {self.held()}"
            self.process.send_signal(signal.SIGTERM)
            status = self.process.wait(PATIENCE)
            reports = sanitizer_reports(self.logs, self.stderr())
            assert not reports, f"a sanitizer has found something:\n{reports}"
            assert status == 0, f"exit status {status} after SIGTERM\n{self.stderr()}"
            assert not os.path.lexists(self.socket), "the socket is left behind"
        finally:
            self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def copy_examples(folder):
    """The examples in a folder outside the tree."""
    target = Path(folder) / "examples"
    shutil.copytree(ROOT / "examples", target)
    return target
