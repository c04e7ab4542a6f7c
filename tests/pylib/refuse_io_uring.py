# SPDX-License-Identifier: BSD-3-Clause
"""refuse_io_uring.py ERRNO CALL COMMAND... runs the command as a container that forbids io_uring would: a seccomp filter
makes one of io_uring's three system calls (setup, enter, register) fail with that error."""

import ctypes
import errno
import os
import signal
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2
CALLS = {"setup": 425, "enter": 426, "register": 427}  # on every architecture but alpha
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000


def refuse(number, call):
    """For this process and what it executes."""
    program = b"".join(struct.pack("=HBBI", *step) for step in (
        (LOAD_WORD, 0, 0, 0),  # seccomp_data.nr
        (JUMP_IF_EQUAL, 0, 1, CALLS[call]),
        (RETURN, 0, 0, RET_ERRNO | number),
        (RETURN, 0, 0, RET_ALLOW)))
    steps = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(steps)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                      (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(header), 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "no seccomp filter can be set")


if __name__ == "__main__":
    refuse(getattr(errno, sys.argv[1]), sys.argv[2])
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and that would be inherited
    os.execvp(sys.argv[3], sys.argv[3:])
