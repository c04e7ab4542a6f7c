# SPDX-License-Identifier: BSD-3-Clause
"""Firmware boots from the disk, with drivers of its own, and hands the disk over to a boot loader and then to Linux.

A further firmware needs its arguments for QEMU (see `firmware_arguments`) and GRUB's name for the platform.
"""

import shutil

from harness.bootdisk import DATA_SIZE, DISK_SIZE, SERIAL_WORDS
from harness.case import Case, test
from harness.errors import expect, expect_equal
from harness.image import checksum
from harness.server import Disk


class BootLoaderCase(Case):
    """Firmware and GRUB from the same disk. The machine is given neither a kernel nor an initramfs."""

    platform = ""
    device = "virtio-blk"
    queues = 1

    def firmware_arguments(self):
        """QEMU's words for the firmware."""
        raise NotImplementedError

    def prepare(self):
        """A copy of the boot disk, and the machine switched on."""
        self.image = self.work / "disk.img"
        self.world.boot_disk.copy_to(self.image)
        self.server.start(Disk(self.image, device=self.device, queues=self.queues))
        self.start_machine(self.firmware_arguments(), boot=True)

    @test
    def the_firmware_starts_the_boot_loader_from_the_disk(self):
        """GRUB speaks."""
        self.machine.wait_for_console(f"{SERIAL_WORDS} started {self.platform}", 60)

    @test
    def the_boot_loader_reads_good_data(self):
        """A checksum over a large file, read by the firmware's driver."""
        shown = self.machine.wait_for_console(f"{SERIAL_WORDS} data ", 60)
        expect(f"{SERIAL_WORDS} data good" in shown, f"GRUB found bad data in /data.bin ({DATA_SIZE} bytes)")

    @test
    def the_boot_loader_writes_to_the_disk(self):
        """GRUB's environment, written by the firmware's driver; the host finds it in the image."""
        self.machine.wait_for_console(f"{SERIAL_WORDS} wrote", 30)
        block = self.world.boot_disk.read_file(self.image, "/grub/grubenv", self.work)
        expect(f"visitor={self.platform}\n".encode() in block, f"GRUB's environment on the host is {block[:80]!r}")

    @test
    def the_boot_loader_loads_linux(self):
        """Kernel and initramfs, read by the firmware's driver."""
        self.machine.wait_for_console(f"{SERIAL_WORDS} loaded", 90)


class FirmwareCase(BootLoaderCase):
    """The same, and Linux goes on with the disk."""

    @test
    def linux_loaded_from_the_disk_starts(self):
        """It is not merely loaded."""
        self.attach_guest()

    @test
    def linux_takes_the_disk_over_from_the_firmware(self):
        """Its own driver resets the device and reads all of it."""
        expect_equal("the disk's size", self.guest.number("blockdev --getsize64 $disk"), DISK_SIZE)
        got = self.guest.run("dd if=$disk bs=1M iflag=direct 2>/dev/null | sha256sum", seconds=90)
        expect_equal("the disk's checksum", got.split()[0], checksum(self.image))

    @test
    def a_reboot_goes_the_same_way(self):
        """The firmware finds the disk again after Linux has used it."""
        before = self.machine.console_text().count(f"{SERIAL_WORDS} loaded")
        self.guest.reboot()
        after = self.machine.console_text().count(f"{SERIAL_WORDS} loaded")
        expect_equal("the number of times that GRUB loaded Linux", after, before + 1)
        expect(f"{SERIAL_WORDS} data bad" not in self.machine.console_text(), "GRUB found bad data after the reboot")

    @test
    def the_guest_powers_off(self):
        """And QEMU ends well."""
        self.guest.power_off()


class SeaBios(FirmwareCase):
    """BIOS: SeaBIOS unmaps and maps memory again while its own queue is enabled."""

    name = "seabios"
    platform = "i386-pc"

    def firmware_arguments(self):
        return []       # QEMU's default


class Ovmf(FirmwareCase):
    """UEFI: OVMF, with variables that nobody has set."""

    name = "ovmf"
    platform = "x86_64-efi"

    def firmware_arguments(self):
        folder = self.tree.root / "usr/share/OVMF"
        variables = self.work / "variables.fd"
        shutil.copyfile(folder / "OVMF_VARS_4M.fd", variables)
        return ["-drive", f"if=pflash,format=raw,readonly=on,file={folder}/OVMF_CODE_4M.fd",
                "-drive", f"if=pflash,format=raw,file={variables}"]


class SeaBiosPrivateMemory(SeaBios):
    """The same when the server sees nothing of the guest's memory."""

    name = "seabios-private-memory"
    short = False
    shared = False


class OvmfPrivateMemory(Ovmf):
    """The same when the server sees nothing of the guest's memory."""

    name = "ovmf-private-memory"
    short = False
    shared = False


class UBoot(BootLoaderCase):
    """U-Boot, whose own driver finds the disk by itself and starts GRUB from the EFI system partition. Linux does not get far on what it
    is told of this machine's memory, whatever the disk; so the machine is reset instead."""

    name = "u-boot"
    platform = "x86_64-efi"
    board = "pc"            # U-Boot knows its host bridge

    def firmware_arguments(self):
        return ["-bios", str(self.tree.root / "usr/lib/u-boot/qemu-x86_64/u-boot.rom")]

    @test
    def a_reset_goes_the_same_way(self):
        """U-Boot finds the disk again as GRUB has left it."""
        self.machine.command("system_reset")
        self.machine.wait_for_console(f"{SERIAL_WORDS} loaded", 90, times=2)
        expect(f"{SERIAL_WORDS} data bad" not in self.machine.console_text(), "GRUB found bad data after the reset")


class SeaBiosNvme(SeaBios):
    """The same from an NVMe disk, whose queues are in the memory that SeaBIOS has unmapped and mapped."""

    name = "seabios-nvme"
    device = "nvme"
    queues = 8


class OvmfNvme(Ovmf):
    """The same from an NVMe disk."""

    name = "ovmf-nvme"
    device = "nvme"
    queues = 8  # OVMF makes two of them, or finds no disk


class SeaBiosNvmePrivateMemory(SeaBiosNvme):
    """The same when the server sees nothing of the guest's memory."""

    name = "seabios-nvme-private-memory"
    short = False
    shared = False


class OvmfNvmePrivateMemory(OvmfNvme):
    """The same when the server sees nothing of the guest's memory."""

    name = "ovmf-nvme-private-memory"
    short = False
    shared = False


class UBootPrivateMemory(UBoot):
    """The same when the server sees nothing of the guest's memory."""

    name = "u-boot-private-memory"
    short = False
    shared = False


class UBootNvme(UBoot):
    """The same from an NVMe disk."""

    name = "u-boot-nvme"
    device = "nvme"
    queues = 8


class UBootNvmePrivateMemory(UBootNvme):
    """The same when the server sees nothing of the guest's memory."""

    name = "u-boot-nvme-private-memory"
    short = False
    shared = False
