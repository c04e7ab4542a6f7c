# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard serve` for as long as a `with` block lasts, and `sidecard bench` against it."""

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


class CommandError(Exception):
    """A command did not do what it should; the text says which and what it printed."""


class Served:
    """One server of a card in a folder of its own; `wrapper` is put before the command (setarch)."""

    def __init__(self, binary, backend, *options, transport="vfio-user", device="virtio-blk", wrapper=(), env=None,
                 start_timeout=120, base=None):
        self.binary = str(binary)
        self.wrapper = list(wrapper)
        self.env = dict(os.environ, **(env or {}))
        self.folder = Path(tempfile.mkdtemp(prefix="sdc-", dir=base))
        self.socket = self.folder / "disk.sock"
        self.stderr = self.folder / "serve.stderr"
        self.command = [*self.wrapper, self.binary, "serve", f"{transport}:{self.socket}", device, str(backend),
                        *options]
        self.start_timeout = start_timeout
        self.process = None

    def __enter__(self):
        ready, writer = os.pipe()
        with open(self.stderr, "wb") as stderr:
            self.process = subprocess.Popen([*self.command, f"--ready-fd={writer}"], env=self.env,
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                                            pass_fds=[writer])
        os.close(writer)
        try:
            answered = select.select([ready], [], [], self.start_timeout)[0] and os.read(ready, 6) == b"READY\n"
        finally:
            os.close(ready)
        if not answered:
            text = self.said()
            self.process.kill()
            self.process.wait()
            shutil.rmtree(self.folder)
            raise CommandError(f"{' '.join(self.command)} did not get ready:\n{text}")
        return self

    def said(self):
        return self.stderr.read_text(errors="replace").strip()

    def __exit__(self, kind, value, trace):
        try:
            self.end(check=kind is None)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def end(self, check=True):
        """An orderly end; anything else is an error."""
        if self.process.returncode is not None:
            return
        self._terminate()
        try:
            status = self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise CommandError(f"{' '.join(self.command)} did not end on SIGTERM:\n{self.said()}") from None
        if check and (status != 0 or self.socket.exists()):
            left = " and left its socket behind" if self.socket.exists() else ""
            raise CommandError(f"{' '.join(self.command)} ended with status {status}{left}:\n{self.said()}")

    def _terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def bench(self, *options, socket=None, timeout=1800):
        """Runs bench to its end and returns its JSON. socket: what it is to connect to, if not our path over vfio-user."""
        command = [*self.wrapper, self.binary, "bench", str(socket or self.socket), "--json", *options]
        try:
            done = subprocess.run(command, env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise CommandError(f"{' '.join(command)} did not end within {timeout} s") from None
        if done.returncode != 0:
            raise CommandError(f"{' '.join(command)} ended with status {done.returncode}:"
                               f"\n{done.stderr.strip()}")
        return json.loads(done.stdout)

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scratch_file(folder, size, name="disk.img"):
    """A file of zeroes whose blocks are allocated."""
    path = Path(folder) / name
    with open(path, "wb") as out:
        os.posix_fallocate(out.fileno(), 0, size)
    return path
