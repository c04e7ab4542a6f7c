# SPDX-License-Identifier: BSD-3-Clause
"""A disk that fails under the real program, whichever loop does its I/O: faults.c is loaded before the program's libraries and
follows rules that a test sets and changes while the program runs."""

import mmap
import os
import shlex
import shutil
import struct
import subprocess
from pathlib import Path

from .server import binary

SOURCE = Path(__file__).with_name("faults.c")
READ, WRITE, FLUSH, ALLOCATE = range(4)
PASS, ERROR, SHORT, HOLD = range(4)
FOREVER = 0xFFFFFFFF

# As in faults.c.
HEAD = struct.Struct("@IIIiIII")
RULE = struct.Struct("@IiIII")


def place(op, then=False):
    """Where a rule is: each operation has two, and the second counts when the first has had its times."""
    return HEAD.size + (2 * op + then) * RULE.size


def compiler():
    return shutil.which(os.environ.get("CC", "cc").split()[0])


def build(folder):
    """Compiles the library; gives its path."""
    library = Path(folder) / "faults.so"
    subprocess.run([compiler(), "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True,
                   capture_output=True)
    return library


def sanitizer_runtime(program):
    """A sanitizer's own library has to come before ours."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return [line.split()[2] for line in said.splitlines() if line.split()[0].startswith(("libasan", "libtsan"))]


class Faults:
    """The rules of the servers that are started while this is set up."""

    def __init__(self, folder, library, monkeypatch):
        rules, gate = folder / "rules", folder / "gate"
        rules.write_bytes(bytes(mmap.PAGESIZE))
        os.mkfifo(gate)
        with open(rules, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.gate = os.open(gate, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        command = binary()
        runtime = sanitizer_runtime(command[-1])  # the program comes last, behind wrappers
        self.instrumented = bool(runtime)  # and slower by far than the kernel
        preload = ":".join([*runtime, str(library)])
        monkeypatch.setenv("SIDECARD", shlex.join(["env", f"LD_PRELOAD={preload}", f"FAULTS_RULES={rules}",
                                                   f"FAULTS_GATE={gate}", *command]))

    def _head(self):
        return HEAD.unpack_from(self.memory)

    @property
    def loaded(self):
        return self._head()[0]

    @property
    def overflows(self):
        return self._head()[2]

    @property
    def refused_submissions(self):
        return self._head()[5]

    @property
    def fixed(self):
        """I/Os by memory that is registered with io_uring."""
        return self._head()[6]

    def hits(self, op):
        """How often the operation's rule was met."""
        return sum(RULE.unpack_from(self.memory, place(op, then))[4] for then in (False, True))

    def _set(self, op, kind, value, skip, times, then=False):
        # The kind comes last: until then the rule is none.
        RULE.pack_into(self.memory, place(op, then), PASS, value, skip, times, 0)
        struct.pack_into("@I", self.memory, place(op, then), kind)

    def fail(self, op, errno, times=1, skip=0, then=False):
        """The operation ends with this errno, so often, after `skip` that are let through. then: as its second rule."""
        self._set(op, ERROR, -errno, skip, times, then)

    def shorten(self, op, most, times=1, skip=0):
        """The operation moves so many bytes at most."""
        self._set(op, SHORT, most, skip, times)

    def hold(self, op, times=FOREVER, skip=0):
        """The operation ends only when the gate is opened."""
        self._set(op, HOLD, 0, skip, times)

    def clear(self, op):
        self._set(op, PASS, 0, 0, 0)

    def open_gate(self):
        """What is held is done now, and what comes is not held any more."""
        for op in range(4):
            if RULE.unpack_from(self.memory, place(op))[0] == HOLD:
                self.clear(op)
        os.write(self.gate, b"!")

    def close_gate(self):
        os.read(self.gate, 4096)

    def refuse_submissions(self, errno, times):
        """io_uring takes nothing, so often."""
        struct.pack_into("@iII", self.memory, 12, -errno, times, 0)

    def close(self):
        os.close(self.gate)
        self.memory.close()
