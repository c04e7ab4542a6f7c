# SPDX-License-Identifier: BSD-3-Clause
"""The same disks over vhost-user: QEMU brings the PCI device, sidecard the virtqueues."""

from cases.linux_disk import LinuxDiscard, LinuxFourQueues, LinuxOneQueue
from harness.server import Disk


class OverVhostUser:
    """Mixed into a case for vfio-user. Features that end at QEMU's own PCI device are not there."""

    may = {"ACCESS_PLATFORM", "ORDER_PLATFORM", "NOTIFICATION_DATA", "RING_RESET"}

    def make_disk(self):
        return Disk(self.image, queues=self.queues, packed=self.packed, transport="vhost-user")


class VhostUserOneQueue(OverVhostUser, LinuxOneQueue):
    """Everything, one after the other, on one queue, with split rings."""

    name = "vhost-user-1-queue"


class VhostUserFourQueues(OverVhostUser, LinuxFourQueues):
    """Four queues, packed rings."""

    name = "vhost-user-4-queues"


class VhostUserFourQueuesSplit(OverVhostUser, LinuxFourQueues):
    """Four queues, split rings."""

    name = "vhost-user-4-queues-split"
    short = False
    packed = False


class VhostUserDiscard(OverVhostUser, LinuxDiscard):
    """Discard and write zeroes."""

    name = "vhost-user-discard"
    short = False
