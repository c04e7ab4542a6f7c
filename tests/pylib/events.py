# SPDX-License-Identifier: BSD-3-Clause
"""Eventfds and small waiting helpers."""

import functools
import os
import select
import time
from contextlib import contextmanager

PATIENCE = 60.0  # seconds for what has to come: only what hangs takes them, on however slow a machine


def readable(fd, timeout):
    """Whether there is something to read from fd (or what has one) within that many seconds. select would take fds below 1024 only."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(max(timeout, 0) * 1000))


class EventFd:
    """An eventfd that is closed once; `wait` consumes what has been signalled."""

    def __init__(self, value=0, *, blocking=False, semaphore=False, fd=None):
        """fd: one that a peer sent."""
        if fd is not None:
            self.fd = fd
            return
        flags = os.EFD_CLOEXEC
        if not blocking:
            flags |= os.EFD_NONBLOCK
        if semaphore:
            flags |= os.EFD_SEMAPHORE
        self.fd = os.eventfd(0, flags)
        if value:
            # The constructor takes 32 bits only; a counter near its end needs a write.
            os.eventfd_write(self.fd, value)

    def fileno(self):
        return self.fd

    def wait(self, timeout=PATIENCE):
        """The counter (1 or more), or 0 if nothing came within `timeout` seconds."""
        return os.eventfd_read(self.fd) if readable(self.fd, timeout) else 0

    def pending(self):
        return readable(self.fd, 0)

    def clear(self):
        return self.wait(0)

    def signal(self, value=1):
        os.eventfd_write(self.fd, value)

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def wait_until(condition, timeout=PATIENCE, step=0.002):
    """Calls condition() until it is true; returns its last value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value or time.monotonic() >= end:
            return value
        time.sleep(step)


class TooSlow(AssertionError):
    """Of `within`."""


@contextmanager
def within(seconds):
    """What is done in here takes less than that; for tests that are `timed`."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    if took >= seconds:
        raise TooSlow(f"it took {took:.2f} s, and has {seconds} s")


def timed(test):
    """Decorates a test that uses `within`: a machine that has other things to do is late now and then, what is wrong is late each time."""
    @functools.wraps(test)
    def several(*args, **kwargs):
        for _ in range(4):
            try:
                return test(*args, **kwargs)
            except TooSlow:
                pass
        return test(*args, **kwargs)
    return several


def patiently(attempt):
    """attempt(seconds), for somebody who has to wait until the seconds that he is given are over: few of them first. With more of
    them he is not misled by others who are late; whoever is wrong is wrong with each."""
    for seconds in (1, 5):
        try:
            return attempt(seconds)
        except AssertionError:
            pass
    return attempt(30)


class Canary:
    """A pipe whose write end is lent to a peer: `returned` tells whether every copy of it has been closed."""

    def __init__(self):
        self.read_fd, self.lent = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def hand_over(self):
        """Closes our own copy; from then on only the peer can hold the write end."""
        if self.lent >= 0:
            os.close(self.lent)
            self.lent = -1

    def returned(self, timeout=PATIENCE):
        self.hand_over()
        poller = select.poll()
        poller.register(self.read_fd, select.POLLIN)
        for _, events in poller.poll(timeout * 1000):
            if events & select.POLLHUP:
                return True
        return False

    def close(self):
        self.hand_over()
        if self.read_fd >= 0:
            os.close(self.read_fd)
            self.read_fd = -1
