# SPDX-License-Identifier: BSD-3-Clause
"""A Linux guest that runs scripts for the host: the other end of tests/vm/guest/init."""

import re
import time

from harness.errors import Failure, expect_equal
from harness.machine import scaled

# Few messages, or the emulated serial port takes longer than the boot; every warning and error.
KERNEL_WORDS = "console=ttyS0 loglevel=5 nokaslr mitigations=off tsc=reliable no_timer_check panic=0"
DONE = re.compile(rb"\n@@done (\d+)\n")


class Guest:
    """Talks to the agent in a machine's guest. The machine belongs to the caller."""

    def __init__(self, machine, transcript, disk):
        """disk: the kernel's name for the case's disk; scripts have its node as $disk, its folder in /sys as $block."""
        self.machine = machine
        self._names = f"disk=/dev/{disk} block=/sys/block/{disk}\n"
        self._transcript = transcript
        self._input = b""

    def wait_for_boot(self, seconds=90):
        """Waits until the agent says hello; raises Lost."""
        self._read_until(re.compile(rb"@@hello\n"), seconds)
        self._log("== the guest is up\n")

    def try_run(self, script, seconds=60):
        """Runs a script by the guest's busybox sh -eu; returns (exit status, output); raises Lost."""
        self._log("".join(f"$ {line}\n" for line in script.strip().splitlines()))
        self.machine.write_control((self._names + script.strip()).encode() + b"\n@@end\n")
        begun = time.monotonic()
        output, match = self._read_until(DONE, seconds)
        text = output.decode(errors="replace")
        status = int(match.group(1))
        self._log(f"{text}\n== exit status {status} after {time.monotonic() - begun:.1f} s\n")
        return status, text

    def run(self, script, seconds=60):
        """Runs a script that must succeed; returns its output without blanks around it; raises Failure or Lost."""
        status, text = self.try_run(script, seconds)
        if status != 0:
            lines = text.splitlines()
            lines = lines if len(lines) <= 30 else [*lines[:15], "...", *lines[-15:]]
            shown = "".join(f"  | {line}\n" for line in lines)
            words = "".join(f"  $ {line.strip()}\n" for line in script.strip().splitlines())
            raise Failure(f"in the guest, exit status {status} from:\n{words}{shown}")
        return text.strip()

    def number(self, script):
        """Runs a script that prints one number."""
        text = self.run(script)
        try:
            return int(text)
        except ValueError:
            raise Failure(f"in the guest, {script!r} printed {text!r}, should be a number") from None

    def reboot(self):
        """Reboots without a word to anything in the guest, and waits until it is up again."""
        self._log("== reboot\n")
        self.machine.write_control(b"reboot -f\n@@end\n")
        self.wait_for_boot()

    def power_off(self):
        """Powers off without a word to anything in the guest; QEMU must end well."""
        self._log("== power off\n")
        self.machine.write_control(b"poweroff -f\n@@end\n")
        expect_equal("QEMU's exit status", self.machine.wait_for_exit(40), 0)

    def _read_until(self, pattern, seconds):
        until = time.monotonic() + scaled(seconds)
        while True:
            match = pattern.search(self._input)
            if match:
                before, self._input = self._input[:match.start()], self._input[match.end():]
                return before, match
            try:
                self._input += self.machine.read_control(until)
            except Failure:
                self._log(f"{self._input.decode(errors='replace')}\n== the guest is lost\n")
                raise

    def _log(self, text):
        with open(self._transcript, "a", encoding="utf-8") as log:
            log.write(text)
