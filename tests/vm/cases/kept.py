# SPDX-License-Identifier: BSD-3-Clause
"""A guest's disk goes on, over vfio-user, while the process that serves it is killed or replaced under load."""

from cases import workloads
from cases.linux_disk import WritableCase, power_off_and_look
from cases.vhost_user import Killer
from harness.case import test
from harness.errors import Skip, expect
from harness.server import NO_PROCESS, Disk, Kept


class LinuxKept(WritableCase):
    """QEMU's vfio-user client never loses its connection: a keeper has it."""

    name = "linux-kept"
    queues = 2
    times = 20

    def __init__(self, world):
        super().__init__(world)
        if not world.reference:
            self.server = Kept(world.binary, self._socket_folder.name, world.tree.logs / f"{self.name}.sidecard")

    def make_disk(self):
        return Disk(self.image, queues=self.queues, threads=self.queues, packed=self.packed)

    def clean_up(self):
        super().clean_up()
        if not self.server.is_reference:
            self.server.close()

    def _carry_over(self, end):
        killer = Killer(self.server, self.times, end)
        killer.start()
        try:
            while killer.is_alive():
                workloads.fio_files(self.guest, "/mnt", 24)
        finally:
            killer.join()
        expect(killer.error is None, f"after {killer.done} times: {killer.error}")
        self.guest.run("rm /mnt/file.*")

    @test
    def fio_verifies_while_the_process_is_killed(self):
        """No I/O error, no write that was acknowledged lost or done again."""
        if self.server.is_reference:
            raise Skip(NO_PROCESS)
        self._carry_over(self.server.kill)

    @test
    def fio_verifies_while_the_process_is_replaced(self):
        """The same with orderly ends."""
        if self.server.is_reference:
            raise Skip(NO_PROCESS)
        self._carry_over(self.server.leave)

    @test
    def the_host_finds_the_files_undamaged(self):
        """e2fsck and checksums."""
        power_off_and_look(self)


class LinuxKeptSplit(LinuxKept):
    """The same with split rings."""

    name = "linux-kept-split"
    short = False
    packed = False


class NvmeKept(LinuxKept):
    """The same by NVMe: queues go on at the commands that were in flight, and the driver sees no controller disappear."""

    name = "nvme-kept"
    short = False
    the_features_are_negotiated = None  # there are none

    def make_disk(self):
        return Disk(self.image, device="nvme", queues=self.queues, threads=self.queues)
