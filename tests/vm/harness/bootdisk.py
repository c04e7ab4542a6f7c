# SPDX-License-Identifier: BSD-3-Clause
"""A 128 MiB disk that firmware of both kinds boots from.

GRUB for BIOS stands in the gap behind the MBR, GRUB for UEFI on the disk's only partition, an EFI system partition.
Either checks a file of 4 MiB on the disk, writes a variable back to it, says so on the serial port, and starts a
Linux guest whose kernel and initramfs are read from the disk too.
"""

import hashlib
import random
import shutil
import struct

from harness.errors import SetupError
from harness.image import MIB
from harness.kernel import GuestFiles
from harness.guest import KERNEL_WORDS

DISK_SIZE = 128 * MIB
PARTITION_START = MIB
DATA_SIZE = 4 * MIB
SERIAL_WORDS = "SIDECARD-BOOT"

COMMON_MODULES = ["part_msdos", "fat", "normal", "configfile", "echo", "serial", "terminal", "test", "hashsum",
                  "gcry_sha256", "loadenv", "linux", "boot"]
PLATFORM_MODULES = {"i386-pc": ["biosdisk"], "x86_64-efi": []}

GRUB_CONFIG = f"""
serial --unit=0 --speed=115200
terminal_output serial
terminal_input serial
echo "{SERIAL_WORDS} started $grub_cpu-$grub_platform"
if hashsum --hash sha256 --check /sums; then
    echo "{SERIAL_WORDS} data good"
else
    echo "{SERIAL_WORDS} data bad"
fi
set visitor="$grub_cpu-$grub_platform"
if save_env visitor; then
    echo "{SERIAL_WORDS} wrote"
fi
linux /vmlinuz {KERNEL_WORDS}
initrd /small.cpio
echo "{SERIAL_WORDS} loaded"
boot
"""


def environment_block(**variables):
    """A GRUB environment file: 1024 bytes, which GRUB overwrites in place."""
    text = "# GRUB Environment Block\n" + "".join(f"{key}={value}\n" for key, value in variables.items())
    return text.encode().ljust(1024, b"#")


class BootDisk:
    """Makes the disk once and hands out copies."""

    def __init__(self, tree):
        self._tree = tree
        self._files = GuestFiles(tree)
        self._template = tree.guest / "boot.img"
        self._stamp = tree.guest / "boot.stamp"

    def make(self):
        """Makes the template unless it is there and current; GuestFiles must have been made."""
        stamp = self._files.stamp() + "-" + hashlib.sha256(open(__file__, "rb").read()).hexdigest()
        if self._stamp.exists() and self._stamp.read_text(encoding="ascii") == stamp:
            return
        self._stamp.unlink(missing_ok=True)
        work = self._tree.guest / "boot.work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        with open(self._template, "wb") as image:
            image.truncate(DISK_SIZE)
            image.write(self._bios_start(work))
        self._make_partition(work)
        shutil.rmtree(work)
        self._stamp.write_text(stamp, encoding="ascii")

    def copy_to(self, path):
        """Gives a case its own disk."""
        shutil.copyfile(self._template, path)

    def read_file(self, path, name, work):
        """The content of a file on the partition of a disk made from the template."""
        target = work / "read-back"
        target.unlink(missing_ok=True)
        self._tree.run("usr/bin/mcopy", "-i", f"{path}@@{PARTITION_START}", f"::{name}", target)
        return target.read_bytes()

    def _grub(self, work, platform, prefix):
        """A GRUB core image for the platform."""
        core = work / f"core-{platform}"
        self._tree.run("usr/bin/grub-mkimage", "-d", self._tree.root / f"usr/lib/grub/{platform}", "-O", platform,
                       "-p", prefix, "-o", core, *COMMON_MODULES, *PLATFORM_MODULES[platform])
        return core.read_bytes()

    def _bios_start(self, work):
        """The first MiB: boot code with a partition table, and the core image right behind it.

        That is where boot.img looks for it as it comes (sector 1), and a core image as grub-mkimage writes it goes on
        reading at sector 2: nothing has to be patched.
        """
        boot = bytearray((self._tree.root / "usr/lib/grub/i386-pc/boot.img").read_bytes())
        core = self._grub(work, "i386-pc", "(,msdos1)/grub")
        if len(boot) != 512 or 512 + len(core) > PARTITION_START:
            raise SetupError(f"GRUB for BIOS does not fit: {len(boot)} bytes of boot code, {len(core)} of core image")
        first, count = PARTITION_START // 512, (DISK_SIZE - PARTITION_START) // 512
        entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0xef, b"\xfe\xff\xff", first, count)
        boot[0x1b8:0x200] = b"SDVM\0\0" + entry + bytes(48) + b"\x55\xaa"
        return bytes(boot) + core

    def _make_partition(self, work):
        data = random.Random("boot disk").randbytes(DATA_SIZE)
        sums = f"{hashlib.sha256(data).hexdigest()}  /data.bin\n".encode()
        partition = f"{self._template}@@{PARTITION_START}"
        sectors = (DISK_SIZE - PARTITION_START) // 512
        self._tree.run("usr/bin/mformat", "-i", partition, "-F", "-T", sectors, "-h", 255, "-s", 63,
                       "-v", "SIDECARD", "::")
        self._tree.run("usr/bin/mmd", "-i", partition, "::/EFI", "::/EFI/BOOT", "::/grub")
        contents = {"/data.bin": data, "/sums": sums, "/grub/grub.cfg": GRUB_CONFIG.encode(),
                    "/grub/grubenv": environment_block(visitor="nobody"),
                    "/vmlinuz": self._files.vmlinuz.read_bytes(), "/small.cpio": self._files.small.read_bytes(),
                    "/EFI/BOOT/BOOTX64.EFI": self._grub(work, "x86_64-efi", "/grub")}
        for name, content in contents.items():
            source = work / "content"
            source.write_bytes(content)
            self._tree.run("usr/bin/mcopy", "-i", partition, source, f"::{name}")
