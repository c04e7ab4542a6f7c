# SPDX-License-Identifier: BSD-3-Clause
"""The same socket over reboots and power cycles: the server's process stays, the disk is there again each time."""

from cases import workloads
from cases.linux_disk import WritableCase
from harness.case import test
from harness.errors import Lost, expect_equal
from harness.image import Ext4


class Restarts(WritableCase):
    """One server; a guest that reboots twice, is switched off and on, has its plug pulled, and comes back."""

    name = "restarts"
    queues = 2

    def prepare(self):
        """Notes the server's open files with its first guest, to find leaks."""
        super().prepare()
        self.files_with_client = None
        if not self.server.is_reference:
            self.files_with_client = self.server.open_files()

    def look_again(self):
        """After a restart of any kind: the disk is there, the files are as they were, and it can be written."""
        self.server.check_alive()
        self.guest.run("mount -t ext4 $disk /mnt")
        workloads.check_files(self.guest, "/mnt/data", self.sums)
        workloads.fio_files(self.guest, "/mnt", 4)
        self.guest.run("rm /mnt/file.*")

    def need_files(self):
        """A restart of a guest without files would show nothing."""
        if self.sums is None:
            raise Lost("the guest made no files")

    @test
    def the_first_reboot_finds_everything(self):
        """reboot -f after sync: nothing was unmounted, the drivers were not asked."""
        self.need_files()
        self.guest.run("sync")
        self.guest.reboot()
        self.look_again()

    @test
    def the_second_reboot_finds_everything(self):
        """And while the disk is at work."""
        self.guest.run("""
            sync
            (while :; do dd if=/dev/urandom of=/mnt/noise bs=64k count=64 conv=fsync; done) >/dev/null 2>&1 &
            sleep 1
            """)
        self.guest.reboot()
        self.look_again()

    @test
    def a_new_machine_on_the_same_socket_finds_everything(self):
        """Power off, and another QEMU."""
        self.guest.run("umount /mnt")
        self.guest.power_off()
        self.server.check_alive()
        Ext4(self.tree, self.image).check()
        self.boot_linux()
        self.look_again()

    @test
    def what_was_synced_survives_a_pulled_plug(self):
        """QEMU killed in the middle of writes; what fsync had promised is on the disk."""
        sums = self.guest.run("""
            dd if=/dev/urandom of=/mnt/promised bs=1M count=8 conv=fsync 2>/dev/null
            sync
            (while :; do dd if=/dev/urandom of=/mnt/noise bs=256k count=64 conv=fsync; done) >/dev/null 2>&1 &
            sleep 1
            sha256sum /mnt/promised
            """)
        self.machine.kill()
        self.server.check_alive()
        self.boot_linux()
        self.look_again()
        expect_equal("the checksum of what was synced", self.guest.run("sha256sum /mnt/promised"), sums)

    @test
    def a_machine_killed_while_it_starts_harms_nothing(self):
        """QEMU killed once in the firmware, once while the kernel looks at its devices."""
        self.guest.run("umount /mnt")
        self.guest.power_off()
        for seconds in (0.3, 1.5):
            self.boot_linux_for(seconds)
            self.server.check_alive()
        self.boot_linux()
        self.look_again()

    @test
    def no_file_descriptor_is_left_behind(self):
        """The server holds as many as with its first client."""
        now = self.server.settled_open_files(self.files_with_client)
        expect_equal("the number of the server's open files", now, self.files_with_client)

    @test
    def the_host_finds_the_files_undamaged(self):
        """e2fsck and checksums."""
        self.guest.run("umount /mnt")
        self.guest.power_off()
        file_system = Ext4(self.tree, self.image)
        file_system.check()
        file_system.compare("/data", self.sums, self.work / "extracted")
