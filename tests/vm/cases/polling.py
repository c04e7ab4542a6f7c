# SPDX-License-Identifier: BSD-3-Clause
"""The ways in which queues wait: what the other cases do with queues that poll for a while, with queues that never do or always."""

from dataclasses import replace

from cases.linux_disk import LinuxOneQueue, LinuxPrivateMemory
from cases.vhost_user import OverVhostUser


class Waits:
    """Mixed into a case."""

    poll = "adaptive"

    def make_disk(self):
        disk = super().make_disk()
        return replace(disk, options=(*disk.options, f"--poll={self.poll}"))


class PollAlways(Waits, LinuxOneQueue):
    """A queue that never sleeps, with packed rings. QEMU maps the registers for notifications into the guest."""

    name = "linux-poll-always"
    poll = "always"
    packed = True


class PollNever(Waits, LinuxOneQueue):
    """A queue that sleeps whenever it has nothing to do."""

    name = "linux-poll-never"
    short = False
    poll = "never"


class PollAlwaysPrivateMemory(Waits, LinuxPrivateMemory):
    """The ring is not looked at, and a notification is a write to memory."""

    name = "linux-poll-always-private-memory"
    short = False
    poll = "always"


class VhostUserPollAlways(Waits, OverVhostUser, LinuxOneQueue):
    """The same over vhost-user."""

    name = "vhost-user-poll-always"
    short = False
    poll = "always"
    packed = True


class VhostUserPollNever(Waits, OverVhostUser, LinuxOneQueue):
    """The same over vhost-user."""

    name = "vhost-user-poll-never"
    short = False
    poll = "never"
