# SPDX-License-Identifier: BSD-3-Clause
"""A keeper for `sidecard serve --keeper-fd`: it has the listening socket, and copies of the fds that a device process hands over, in
numbered slots. It starts one device process after the other, each with what the one before has left.

The channel (sidecard-keeper(7)): a SOCK_SEQPACKET socket, messages of two 32-bit numbers, what and slot, with an fd for PUT."""

import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path

from .events import PATIENCE
from .server import binary, environment, sanitizer_reports

PUT, DROP, START, READY, STOP, STOPPED = range(1, 7)


class Keeper:
    """Holds a card's fds; `start` makes a device process, `stop` and `kill` end it."""

    def __init__(self, workdir, backend, *options, device="virtio-blk", name="k0", program=None, card=None):
        """card: what a configuration file says of it beside its socket; then device, backend and its options are there."""
        self.config = workdir.path / f"{name}.json" if card else None
        self.card = card
        self.program = program or binary()
        self.path = workdir.path / name
        self.logs = workdir.path / f"{name}-log"
        self.logs.mkdir()
        self.backend, self.device = str(backend), device
        self.options = shlex.split(os.environ.get("SIDECARD_SERVE_ARGS", "")) + [str(option) for option in options]
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen(8)
        self.slots = {}
        self.process = self.channel = self.reader = None
        self.ready = self.stopped = self.began = None
        self.processes = 0
        self.complaints = []

    # --- the channel ---

    def _read(self, channel):
        """Until the device process and all that it said are gone."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(channel, 16, 8)
            except OSError:
                break
            if not data:
                break
            what, slot = struct.unpack("<II", data)
            if what == PUT:
                if slot in self.slots or len(fds) != 1:
                    self.complaints.append(f"PUT {slot} with {len(fds)} fds, taken: {slot in self.slots}")
                    continue
                self.slots[slot] = fds[0]
            elif what == DROP:
                if slot not in self.slots:
                    self.complaints.append(f"DROP {slot}, which is empty")
                    continue
                os.close(self.slots.pop(slot))
            elif what == READY:
                self.serves = True
                self.ready.set()
            elif what == STOPPED:
                self.stopped.set()
            else:
                self.complaints.append(f"message {what}")
        self.ready.set()

    # --- processes ---

    def _card(self):
        socket_name = f"fd:{self.listening.fileno()}"
        if not self.config:
            return [socket_name, self.device, self.backend]
        self.config.write_text(json.dumps({"cards": [{"socket": socket_name, **self.card}]}))
        return [f"--config={self.config}"]

    def spawn(self, options=None):
        """Starts a device process and hands it everything; does not wait."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel, self.ready, self.stopped = ours, threading.Event(), threading.Event()
        self.processes += 1
        self.serves = False
        command = self.program + ["serve", *self._card(), *self.options, *(options or []), f"--keeper-fd={theirs.fileno()}"]
        self.stderr_path = self.logs / f"stderr{self.processes}"
        with open(self.stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                                            pass_fds=(self.listening.fileno(), theirs.fileno()), env=environment(self.logs))
        theirs.close()
        try:
            for slot, fd in sorted(self.slots.items()):
                socket.send_fds(ours, [struct.pack("<II", PUT, slot)], [fd])
            ours.send(struct.pack("<II", START, 0))
        except OSError:
            pass  # it has ended already; who waits for it will see
        self.reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self.reader.start()
        return self

    def start(self, options=None):
        self.spawn(options)
        if not self.ready.wait(PATIENCE) or not self.serves:
            raise AssertionError(f"the device process is not ready, status {self.process.poll()}\n{self.stderr()}")
        return self

    def wait(self):
        """The exit status, when everything that the process said has been heard."""
        status = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        assert not self.reader.is_alive(), "the channel stays open"
        self.channel.close()
        assert not self.complaints, self.complaints
        return status

    def stop(self):
        """In order, so that another one can go on."""
        self.channel.send(struct.pack("<II", STOP, 0))
        status = self.wait()
        assert status == 0 and self.stopped.is_set(), f"status {status}, said stopped: {self.stopped.is_set()}\n{self.stderr()}"

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        status = self.wait()
        assert status == -signal.SIGKILL, f"status {status}\n{self.stderr()}"

    def terminate(self):
        """As without a keeper: the client is sent away."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    # --- looking ---

    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    def record(self):
        """The bytes of the state record's start."""
        return os.pread(self.slots[0], 1 << 20, 0)

    def check(self):
        reports = sanitizer_reports(self.logs, "".join(path.read_text(errors="replace") for path in Path(self.logs).glob("stderr*")))
        assert not reports, reports

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self.reader.join(PATIENCE)
        for fd in self.slots.values():
            os.close(fd)
        self.slots = {}
        self.listening.close()
