# SPDX-License-Identifier: BSD-3-Clause
"""The same disks over vhost-user: QEMU brings the PCI device, sidecard the virtqueues."""

import random
import threading
import time

from cases import workloads
from cases.linux_disk import LinuxDiscard, LinuxFourQueues, LinuxOneQueue, WritableCase, power_off_and_look
from harness.case import at_end, test
from harness.errors import Lost, expect, expect_equal
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


class VhostUserConnects(OverVhostUser, WritableCase):
    """QEMU listens, and sidecard connects; again after QEMU has ended and a new one listens."""

    name = "vhost-user-connects"
    # Nobody listens at first.
    allowed_messages = "cannot connect|no such socket|nobody listens"
    allowed_of_qemu = "QEMU waiting for connection"

    def make_disk(self):
        return Disk(self.image, packed=self.packed, transport="vhost-user", connect=True)

    @test
    def the_next_qemu_finds_the_files(self):
        """The plug is pulled, and another machine comes up on the same disk."""
        self.guest.run("umount /mnt")
        self.machine.kill()
        self.boot_linux()
        self.guest.run("mkdir -p /mnt && mount $disk /mnt")
        workloads.check_files(self.guest, "/mnt/data", self.sums)

    @test
    def the_host_finds_the_files_undamaged(self):
        """e2fsck and checksums."""
        power_off_and_look(self)


class VhostUserDiscard(OverVhostUser, LinuxDiscard):
    """Discard and write zeroes."""

    name = "vhost-user-discard"
    short = False


class Killer(threading.Thread):
    """Kills a server so many times, or ends it as `end` does, and starts it again at once."""

    def __init__(self, server, kills, end=None):
        super().__init__(daemon=True)
        self.server = server
        self.end = end or server.kill
        self.kills = kills
        self.done = 0
        self.error = None

    def run(self):
        try:
            while self.done < self.kills:
                time.sleep(random.uniform(0.3, 1.2))
                self.server.check_alive()
                self.end()
                self.server.start(self.server.disk)
                self.done += 1
        except Lost as error:
            self.error = error


class VhostUserKilled(OverVhostUser, WritableCase):
    """The server is killed under a verified load, twenty times, and started again; QEMU finds it, and the guest notices nothing."""

    name = "vhost-user-killed"
    queues = 2
    packed = False
    kills = 20
    # What QEMU says when a back end goes away, and when it cannot ask that one where its vrings stood.
    allowed_of_qemu = "Unexpected end-of-file|Failed to (set msg fds|read|write)|ring restore failed|Broken pipe|Connection reset"

    def make_disk(self):
        return Disk(self.image, queues=self.queues, packed=self.packed, transport="vhost-user", reconnect_ms=100)

    @test
    def fio_verifies_while_the_server_is_killed(self):
        """No I/O error, no write that was acknowledged lost or done again."""
        killer = Killer(self.server, self.kills)
        killer.start()
        try:
            while killer.is_alive():
                workloads.fio_files(self.guest, "/mnt", 24)
        finally:
            killer.join()
        expect(killer.error is None, f"after {killer.done} kills: {killer.error}")
        self.guest.run("rm /mnt/file.*")

    @test
    def the_host_finds_the_files_undamaged(self):
        """e2fsck and checksums."""
        power_off_and_look(self)


class VhostUserKilledPacked(VhostUserKilled):
    """The same with packed rings."""

    name = "vhost-user-killed-packed"
    short = False
    packed = True


class BehindIommu(OverVhostUser):
    """Mixed into a case: the machine has an IOMMU, and each access of the disk's is translated. The kernel voids translations in
    batches."""

    may = OverVhostUser.may - {"ACCESS_PLATFORM"}
    domain = "DMA-FQ"
    kernel_words = "intel_iommu=on"
    # The kernel switches the IOMMU on while the firmware's ring is still there, and QEMU itself looks into that.
    allowed_of_qemu = "vtd_iova_to_sspte|vtd_iommu_translate"
    faults = 0

    def make_disk(self):
        disk = super().make_disk()
        disk.iommu = True
        return disk

    def faults_told(self):
        """How many accesses the IOMMU has refused, by the kernel's log."""
        return sum("DMAR" in line and "fault addr" in line for line in self.machine.console_text().splitlines())

    @test
    def the_features_are_negotiated(self):
        """And the disk is in a domain of the kind that was asked for."""
        super().the_features_are_negotiated()
        expect_equal("the kind of domain", self.guest.run("cat $(readlink -f $block/device/../iommu_group)/type"), self.domain)
        self.faults = self.faults_told()

    @at_end
    def the_iommu_has_refused_nothing(self):
        """Since the guest's own driver had the disk."""
        expect_equal("the number of faults", self.faults_told(), self.faults)


class VhostUserIommu(BehindIommu, LinuxFourQueues):
    """Behind an IOMMU, four queues, packed rings."""

    name = "vhost-user-iommu"


class VhostUserIommuSplit(BehindIommu, LinuxOneQueue):
    """Behind an IOMMU whose every translation is void as soon as its request has ended, split rings."""

    name = "vhost-user-iommu-split"
    short = False
    domain = "DMA"
    kernel_words = "intel_iommu=on iommu.strict=1"


class VhostUserIommuKilled(BehindIommu, VhostUserKilled):
    """Behind an IOMMU, and killed: each server that follows has to ask for everything."""

    name = "vhost-user-iommu-killed"
    allowed_of_qemu = f"{BehindIommu.allowed_of_qemu}|{VhostUserKilled.allowed_of_qemu}|Fail to (invalidate|update) device iotlb"
    short = False
    packed = True
    kills = 10
