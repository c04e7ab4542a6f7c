# SPDX-License-Identifier: BSD-3-Clause
"""Starts the real `sidecard serve`, and at the end insists that it left in good order.

SIDECARD is the binary under test, SIDECARD_SERVE_ARGS are arguments that every server gets: with --loop=epoll all
tests are run over the other kind of loop.

`Server.finish` is where every test's last checks are: all fds that a client lent are back, a fresh client can write and
read, SIGTERM ends the process with status 0, no sanitizer has spoken, the socket file is gone.
"""

import os
import re
import resource
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from . import blk
from .client import Client
from .events import PATIENCE, wait_until
from .nvme import NvmeGuest
from .vhost import FrontEnd, VhostGuest
from .vm import Guest

ROOT = Path(__file__).resolve().parents[2]
SANITIZER_WORDS = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|MemorySanitizer|runtime error:"
                             r"|UndefinedBehavior|DEADLYSIGNAL")


def binary():
    """The command under test, as a list (SIDECARD may hold a wrapper with arguments)."""
    command = shlex.split(os.environ.get("SIDECARD", str(ROOT / "build" / "sidecard")))
    assert shutil.which(command[0]), f"{command[0]} doesn't exist: build it, or set SIDECARD to the binary to test"
    return command


def environment(log_dir):
    """Sanitizers write to files of their own: stderr belongs to the program."""
    env = dict(os.environ)
    common = f"log_path={log_dir}/sanitizer:exitcode=99"
    for name, extra in (("ASAN_OPTIONS", "detect_leaks=1"), ("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1"),
                        ("TSAN_OPTIONS", "halt_on_error=0")):
        env[name] = ":".join(part for part in (env.get(name, ""), common, extra) if part)
    env["LC_ALL"] = "C"
    return env


def sanitizer_reports(log_dir, stderr=""):
    found = [f"{path.name}:\n{path.read_text(errors='replace')}" for path in Path(log_dir).glob("sanitizer*")]
    if SANITIZER_WORDS.search(stderr):
        found.append(f"stderr:\n{stderr}")
    return "\n".join(found)


class Workdir:
    """A short folder of its own: paths of sockets have 107 bytes."""

    def __init__(self, base=None):
        self.path = Path(tempfile.mkdtemp(prefix="sdc-", dir=base))

    def file(self, name, size=0, content=b""):
        path = self.path / name
        with open(path, "wb") as out:
            out.write(content)
            if size:
                out.truncate(size)
        return path

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


class Server:
    """One `sidecard serve` process."""

    count = 0

    def __init__(self, workdir, backend, *options, socket=None, argument=None, device=None, pass_fds=(),
                 user=None, stderr_to=None, transport=None):
        Server.count += 1
        self.workdir = workdir
        self.path = Path(socket) if socket is not None else workdir.path / f"s{Server.count}"
        self.transport = transport or os.environ.get("SIDECARD_TRANSPORT", "vfio-user")
        prefix = "" if self.transport == "vfio-user" else f"{self.transport}:"
        self.argument = argument if argument is not None else prefix + str(self.path)
        self.logs = workdir.path / f"log{Server.count}"
        self.logs.mkdir()
        self.logs.chmod(0o777)
        self.stderr_path = self.logs / "stderr"
        self.backend = str(backend)
        # Before the test's own options, which count where both say something.
        self.options = shlex.split(os.environ.get("SIDECARD_SERVE_ARGS", "")) + [str(option) for option in options]
        self.pass_fds = tuple(pass_fds)
        self.user = user
        self.device = device or os.environ.get("SIDECARD_DEVICE", "virtio-blk")
        self.stderr_to = stderr_to
        self.process = None
        self.baseline = 0
        self.handed_out = []  # clients and guests to close at the end
        self.may_die_by = ()
        self.check_service = True
        self.removes_socket = True
        self.exit_status = None  # once `stop` was called

    # --- life ------------------------------------------------------------------------------------------------

    def start(self):
        if self._hangs_in_valgrind():
            import pytest  # not there where guests only are run
            pytest.skip("this valgrind runs no other thread while one waits in io_uring_enter")
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        command = binary() + ["serve", *self.what(), *self.options, f"--ready-fd={ready_write}"]
        if self.user is not None:
            command = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "--", *command]
        self.command = command
        with open(self.stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                            stderr=self.stderr_to if self.stderr_to is not None else stderr,
                                            pass_fds=(ready_write, *self.pass_fds), env=environment(self.logs))
        os.close(ready_write)
        self.ready_text = self._read_ready(ready_read)
        assert self.ready_text == b"READY\n", \
            f"not ready: --ready-fd gave {self.ready_text!r}, exit status {self.process.poll()}\n{self.stderr()}"
        self.baseline = self.fd_count()
        return self

    def what(self):
        """What is served, as the command wants it."""
        return [self.argument, self.device, self.backend]

    def _hangs_in_valgrind(self):
        words = {name: value for name, _, value in (option.partition("=") for option in self.options)}
        return "valgrind" in binary()[0] and words.get("--threads", "1") != "1" and words.get("--loop") != "epoll"

    @staticmethod
    def _read_ready(fd):
        """Up to the end of file: the line is written and the fd closed when the server listens."""
        text, end = b"", time.monotonic() + PATIENCE
        try:
            while select.select([fd], [], [], max(end - time.monotonic(), 0))[0]:
                piece = os.read(fd, 64)
                if not piece:
                    break
                text += piece
        finally:
            os.close(fd)
        return text

    @property
    def pid(self):
        return self.process.pid

    @property
    def alive(self):
        """A process without any fd has begun to exit, though its listening socket may take a connection for a moment yet."""
        if self.process.poll() is None and not os.listdir(f"/proc/{self.pid}/fd"):
            self.process.wait(PATIENCE)
        return self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """SIGTERM and the exit status."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.exit_status = self.process.wait(PATIENCE)
            return self.exit_status
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"SIGTERM doesn't end the server within {PATIENCE} s\n{self.stderr()}") from None

    def kill(self):
        if self.process is not None and self.alive:
            self.process.kill()
            self.process.wait()

    # --- looking at it ---------------------------------------------------------------------------------------

    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    def fds(self):
        """{number: what it is} of the process."""
        out = {}
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                out[int(name)] = os.readlink(f"/proc/{self.pid}/fd/{name}")
            except FileNotFoundError:
                pass
        return out

    def fd_count(self):
        """Open fds, without a sanitizer's log: that is told at the end."""
        return sum(not what.startswith(f"{self.logs}/sanitizer") for what in self.fds().values())

    def fd_flags(self, fd):
        for line in Path(f"/proc/{self.pid}/fdinfo/{fd}").read_text().splitlines():
            if line.startswith("flags:"):
                return int(line.split()[1], 8)
        raise AssertionError(f"no flags of fd {fd}")

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def private_bytes(self):
        """Resident memory that no other process shares."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))

    def _threads(self):
        """{number: what its status says} of the process's threads, without io_uring's workers."""
        found = {}
        for path in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                lines = (path / "status").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if not status["Name"].startswith("iou-"):
                found[path.name] = status
        return found

    def threads(self):
        """{number: how often it went to sleep} of the process's threads."""
        return {number: int(status["voluntary_ctxt_switches"]) for number, status in self._threads().items()}

    def is_at_rest(self, seconds=0.2):
        """Whether no thread does anything for so long, nor waits for a processor to do it."""
        before, used = self.threads(), self.cpu_seconds()
        time.sleep(seconds)
        after = self._threads()
        if any(status["State"].startswith("R") for status in after.values()) or self.cpu_seconds() - used > 0.02:
            return False
        # A sanitizer's thread has a clock of its own.
        return self.sanitized() or {number: int(status["voluntary_ctxt_switches"]) for number, status in after.items()} == before

    def assert_comes_to_rest(self, seconds=0.2):
        assert wait_until(lambda: self.is_at_rest(seconds), step=0), \
            f"it spins, or is woken again and again: {self.threads()}, {self.cpu_seconds()} s"

    def sanitized(self):
        """AddressSanitizer and its kin reserve terabytes of addresses, and keep freed memory for a while."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE") > 1 << 40

    def assert_grew_less(self, before, limit):
        """Resident memory since `before` (of resident_bytes); a sanitizer's quarantine has room on top."""
        grown = self.resident_bytes() - before
        assert grown < limit + (1 << 30 if self.sanitized() else 0), \
            f"{grown >> 20} MiB more are resident, {limit >> 20} MiB are allowed"

    def diagnosis(self):
        """What a failed test's reader wants to know."""
        return f"server {self.path}: exit status {self.process.poll()}\n--- its stderr\n{self.stderr()[-4000:]}" \
               f"\n--- sanitizers\n{sanitizer_reports(self.logs)}"

    def limit_fds(self, soft):
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (min(soft, hard), hard))

    def fd_limit(self):
        return resource.prlimit(self.pid, resource.RLIMIT_NOFILE)[0]

    # --- clients ---------------------------------------------------------------------------------------------

    def connect(self, **kwargs):
        """A client before its VERSION."""
        client = (FrontEnd if self.transport == "vhost-user" else Client).connect(self.path, **kwargs)
        self.handed_out.append(client)
        return client

    def client(self, **kwargs):
        """A client after a good VERSION."""
        client = self.connect()
        client.handshake(**kwargs)
        return client

    @property
    def guest_kind(self):
        if self.device == "nvme":
            return NvmeGuest
        return VhostGuest if self.transport == "vhost-user" else Guest

    def guest(self, **options):
        guest = self.guest_kind.boot(self.path, **options)
        self.handed_out.append(guest)
        return guest

    # --- the checks ------------------------------------------------------------------------------------------

    def assert_alive(self):
        assert self.alive, f"the server died with status {self.process.poll()}\n{self.stderr()}" \
                           f"\n{sanitizer_reports(self.logs)}"

    def assert_fds_back(self, timeout=PATIENCE):
        if not wait_until(lambda: self.fd_count() <= self.baseline, timeout):
            shown = "\n".join(f"  {fd} -> {what}" for fd, what in sorted(self.fds().items()))
            raise AssertionError(f"{self.fd_count()} fds are open with no client, {self.baseline} were at the start"
                                 f":\n{shown}")

    def assert_serves(self):
        """A fresh client connects, sets the device up, and completes a verified write and read."""
        with self.guest_kind.boot(self.path, queue_size=self._queue_size()) as guest:
            if self.backend.startswith("null:"):
                guest.read(0, max(guest.config.blk_size // blk.SECTOR, 1))
            else:
                guest.assert_works()

    def _queue_size(self):
        for option in self.options:
            if option.startswith("--queue-size="):
                return min(int(option.split("=")[1]), 64)
        return 64

    def close_clients(self):
        for each in self.handed_out:
            each.close()
        self.handed_out = []

    def check(self):
        """After a test: alive, every fd is back, a fresh client is served."""
        self.close_clients()
        self.assert_alive()
        self.assert_fds_back()
        if self.check_service:
            self.assert_serves()
            self.assert_fds_back()

    def finish(self):
        """The end of a server: the checks of `check`, then SIGTERM, its status, sanitizers, and the socket file."""
        try:
            self.close_clients()
            if self.baseline == 0:
                return  # it never got ready, and that has been told
            if self.may_die_by and not self.alive:
                assert -self.process.returncode in self.may_die_by or self.process.returncode == 99, \
                    f"the server died with status {self.process.returncode}\n{self.stderr()}"
                return
            if self.exit_status is None:
                self.check()
            status = self.stop()
            reports = sanitizer_reports(self.logs, self.stderr())
            assert not reports, f"a sanitizer has found something:\n{reports}"
            assert status == 0, f"exit status {status} after SIGTERM\n{self.stderr()}"
            if self.removes_socket:
                assert not os.path.lexists(self.path), f"the socket file {self.path} is left behind"
        finally:
            self.kill()


def run_command(*arguments, log_dir, user=None, timeout=PATIENCE, pass_fds=()):
    """Runs a command to its end: (status, stdout, stderr)."""
    command = binary() + [str(argument) for argument in arguments]
    if user is not None:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--", *command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False,
                          env=environment(log_dir), pass_fds=pass_fds)
    stdout, stderr = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    reports = sanitizer_reports(log_dir, stderr)
    assert not reports, f"a sanitizer has found something:\n{reports}"
    return done.returncode, stdout, stderr


def run_cli(*arguments, **more):
    """The same: (status, stderr)."""
    status, _, stderr = run_command(*arguments, **more)
    return status, stderr
