# SPDX-License-Identifier: BSD-3-Clause
"""One QEMU process: its console in a file, its monitor and the guest's second serial port over socket pairs."""

import json
import os
import re
import socket
import subprocess
import time

from harness.errors import Failure, Lost

# What a guest's kernel prints when something went wrong under it.
COMPLAINTS = re.compile(r"I/O error|Kernel panic|BUG: |Oops|Call Trace|blocked for more than|rcu: INFO|soft lockup"
                        r"|EXT4-fs error|EXT4-fs warning|virtio_blk .*(fail|error)|nobody cared"
                        r"|nvme.*(timeout|[Ff]ail|[Ee]rror|controller is down|Removing|invalid)|Unable to handle")
PANIC = "Kernel panic"


def scaled(seconds):
    """Time limits are for an idle two-core machine; SIDECARD_VM_SLOW=N multiplies them all."""
    return seconds * float(os.environ.get("SIDECARD_VM_SLOW", "1"))


def tail(path, lines=30):
    """The end of a log, for a failure's text."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return f"{path}: nothing there\n"
    kept = [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
    return f"the end of {path}:\n" + "".join(f"  | {line}\n" for line in kept)


class Machine:
    """A running QEMU. Whoever starts one must end it with `kill`, whatever happened."""

    def __init__(self, tree, name, arguments, memory="512M", cpus=2, shared=True, board="q35"):
        self.name = name
        self.console = tree.logs / f"{name}.console"
        self.messages = tree.logs / f"{name}.qemu"
        self._control, control_end = socket.socketpair()
        self._monitor, monitor_end = socket.socketpair()
        self._monitor_input = b""
        self.console.unlink(missing_ok=True)
        # Guest memory is a memfd that QEMU passes to the device's server; not shared, it is reached by messages only.
        backend = (f"memory-backend-memfd,id=memory,size={memory},share=on" if shared
                   else f"memory-backend-ram,id=memory,size={memory}")
        fixed = ["-nodefaults", "-no-user-config", "-display", "none", "-L", str(tree.root / "usr/share/qemu"),
                 "-L", str(tree.root / "usr/share/seabios"), "-L", str(tree.root / "usr/lib/ipxe/qemu"),
                 "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(cpus), "-m", memory,
                 "-object", backend,
                 "-machine", f"{board},memory-backend=memory",
                 "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
                 "-chardev", f"socket,id=control,fd={control_end.fileno()}", "-serial", "chardev:control",
                 "-chardev", f"socket,id=monitor,fd={monitor_end.fileno()}", "-qmp", "chardev:monitor"]
        command = tree.command("usr/bin/qemu-system-x86_64", *fixed, *arguments)
        (tree.logs / f"{name}.command").write_text(" ".join(f"'{word}'" for word in command) + "\n", encoding="utf-8")
        environment = dict(os.environ, QEMU_MODULE_DIR=str(tree.root / "usr/lib/x86_64-linux-gnu/qemu"))
        with open(self.messages, "wb") as messages:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=messages,
                                            stderr=messages, pass_fds=[control_end.fileno(), monitor_end.fileno()])
        control_end.close()
        monitor_end.close()

    def read_control(self, until):
        """Bytes from the guest's second serial port, waiting at most to the time `until`; raises Lost."""
        while True:
            left = until - time.monotonic()
            self._control.settimeout(max(0.01, min(left, 0.5)))
            try:
                data = self._control.recv(65536)
            except TimeoutError:
                self.check_alive()
                if left <= 0:
                    raise self.lost("no answer in time") from None
                continue
            except OSError:
                data = b""
            if data:
                return data
            self._wait_for_exit_after_eof()

    def write_control(self, data):
        """Sends bytes to the guest's second serial port; raises Lost."""
        self._control.settimeout(scaled(60))
        try:
            self._control.sendall(data)
        except OSError as error:
            self.check_alive()
            raise self.lost(f"cannot send to the guest's serial port: {error}") from error

    def wait_for_console(self, text, seconds, times=1):
        """Waits until the console shows `text` so many times; returns all of the console so far; raises Lost."""
        until = time.monotonic() + scaled(seconds)
        while True:
            shown = self.console_text()
            if shown.count(text) >= times:
                return shown
            self.check_alive()
            if time.monotonic() > until:
                raise self.lost(f"the console did not show {text!r} in {scaled(seconds):.0f} s")
            time.sleep(0.05)

    def console_text(self):
        """All that the console has shown."""
        if not self.console.exists():
            return ""
        return self.console.read_text(encoding="utf-8", errors="replace").replace("\r", "")

    def complaints(self):
        """Lines of the console by which the guest's kernel says that something is wrong."""
        return [line for line in self.console_text().splitlines() if COMPLAINTS.search(line)]

    def said(self):
        """Lines of QEMU's stderr."""
        return self.messages.read_text(encoding="utf-8", errors="replace").splitlines()

    def check_alive(self):
        """Raises Lost when QEMU has ended or the guest's kernel has panicked."""
        status = self.process.poll()
        if status is not None:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
            raise self.lost(f"QEMU {how}")
        if PANIC in self.console_text():
            raise self.lost("the guest's kernel panicked")

    def wait_for_exit(self, seconds):
        """Waits until QEMU ends by itself; returns its exit status; raises Lost if it does not."""
        try:
            return self.process.wait(scaled(seconds))
        except subprocess.TimeoutExpired:
            raise self.lost(f"QEMU has not ended in {scaled(seconds):.0f} s") from None

    def command(self, name, **arguments):
        """One QMP command; returns what it returns; raises Failure on an error reply, Lost without a reply."""
        if not self._monitor_input:
            self._monitor_input = b" "
            self._receive_reply()
            self._send_command("qmp_capabilities", {})
        return self._send_command(name, arguments)

    def kill(self):
        """Ends QEMU at once. May be called at any time and again."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._control.close()
        self._monitor.close()

    def lost(self, text):
        """A Lost with the ends of this machine's logs."""
        return Lost(f"{text}\n{tail(self.console)}{tail(self.messages, 10)}")

    def _wait_for_exit_after_eof(self):
        try:
            self.process.wait(scaled(5))
        except subprocess.TimeoutExpired:
            raise self.lost("QEMU closed the guest's second serial port") from None
        self.check_alive()

    def _send_command(self, name, arguments):
        request = {"execute": name, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        self._monitor.sendall(json.dumps(request).encode() + b"\n")
        while True:
            reply = self._receive_reply()
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise Failure(f"QEMU refused {name}: {reply['error'].get('desc')}")

    def _receive_reply(self):
        """The next line of the monitor, whatever it is: greeting, event or reply."""
        self._monitor.settimeout(scaled(60))
        while b"\n" not in self._monitor_input:
            try:
                data = self._monitor.recv(65536)
            except TimeoutError:
                raise self.lost("QEMU's monitor does not answer") from None
            if not data:
                self.check_alive()
                raise self.lost("QEMU closed its monitor")
            self._monitor_input += data
        line, _, rest = self._monitor_input.partition(b"\n")
        self._monitor_input = rest or b" "
        return json.loads(line)
