# SPDX-License-Identifier: BSD-3-Clause
"""The guest's kernel and initramfs, made from the tree once and kept in its `guest` folder.

vmlinux         the kernel taken out of the bzImage: QEMU starts it by its PVH entry, and no unpacking takes seconds
vmlinuz         the bzImage, which a boot loader wants
small.cpio      busybox, the block driver, the agent (tests/vm/guest/init): enough for a guest that a boot loader starts
initramfs.cpio  the same, and fio, e2fsprogs, util-linux, nvme-cli and pciutils with their libraries, and more modules
"""

import hashlib
import lzma
import os
import struct
import subprocess
import zlib

from harness.cpio import Archive
from harness.errors import SetupError
from harness.tree import SOURCE_DIR

# In load order; a name that is built into the kernel is left out.
MODULES = ["virtio_pci", "virtio_blk"]
# Those are in the larger initramfs, and loaded by the cases that want them: /modules/NAME.ko.
MORE_MODULES = ["virtio-rng", "irqbypass", "vfio", "vfio_iommu_type1", "vfio-pci-core", "vfio-pci"]

# From several packages; what a case needs in the guest and busybox lacks or does too simply.
PROGRAMS = ["usr/bin/fio", "usr/sbin/mke2fs", "usr/sbin/e2fsck", "usr/sbin/resize2fs", "usr/sbin/blkdiscard",
            "usr/sbin/fstrim", "usr/bin/fallocate", "usr/sbin/nvme", "usr/bin/lspci"]


class GuestFiles:
    """The paths of the guest's kernel and initramfs. `make` must have been called."""

    def __init__(self, tree):
        self._tree = tree
        self.vmlinux = tree.guest / "vmlinux"
        self.vmlinuz = tree.guest / "vmlinuz"
        self.small = tree.guest / "small.cpio"
        self.initramfs = tree.guest / "initramfs.cpio"

    def stamp(self):
        """Changes with the tree, the agent and everything here that decides the files' content."""
        digest = hashlib.sha256(self._tree.stamp().encode())
        for path in (__file__, SOURCE_DIR / "guest/init", SOURCE_DIR / "harness/cpio.py"):
            with open(path, "rb") as source:
                digest.update(source.read())
        return digest.hexdigest()

    def make(self):
        """Makes the files unless they are there and current."""
        stamp = self._tree.guest / "kernel.stamp"
        if stamp.exists() and stamp.read_text(encoding="ascii") == self.stamp():
            return
        stamp.unlink(missing_ok=True)
        image = self._kernel_image()
        self.vmlinuz.write_bytes(image)
        self.vmlinux.write_bytes(self._unpacked(image))
        small = self._small_archive()
        self.small.write_bytes(small)
        self.initramfs.write_bytes(small + self._tools_archive())
        stamp.write_text(self.stamp(), encoding="ascii")

    def _kernel_image(self):
        images = sorted((self._tree.root / "guest-kernel/boot").glob("vmlinuz-*"))
        if not images:
            raise SetupError(f"no kernel in {self._tree.root}/guest-kernel/boot: run tests/vm/setup --force")
        return images[-1].read_bytes()

    def _unpacked(self, image):
        """The ELF kernel inside a bzImage; the offsets are those of the kernel's Documentation/arch/x86/boot.rst."""
        if image[0x202:0x206] != b"HdrS":
            raise SetupError("the guest's kernel is not a bzImage")
        setup_sectors = image[0x1f1] or 4
        offset, length = struct.unpack_from("<II", image, 0x248)
        start = (setup_sectors + 1) * 512 + offset
        packed = image[start:start + length]
        if packed.startswith(b"\x28\xb5\x2f\xfd"):
            # The kernel's build appends the unpacked size (4 bytes) to the compressed stream.
            plain = self._filter(packed[:-4], "usr/bin/zstd", "-dc")
        elif packed.startswith(b"\xfd7zXZ\0"):
            plain = lzma.LZMADecompressor().decompress(packed)
        elif packed.startswith(b"\x1f\x8b"):
            plain = zlib.decompressobj(wbits=31).decompress(packed)
        else:
            raise SetupError(f"the guest's kernel is packed in an unknown way (begins with {packed[:6].hex()})")
        if not plain.startswith(b"\x7fELF"):
            raise SetupError("the guest's kernel unpacks to something that is not ELF")
        return plain

    def _filter(self, data, program, *args):
        done = subprocess.run(self._tree.command(program, *args), input=data, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False, timeout=120)
        if done.returncode != 0:
            raise SetupError(f"{program}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def _small_archive(self):
        archive = Archive()
        archive.add_console()
        for folder in ("dev", "proc", "sys", "tmp", "run", "mnt", "etc", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"):
            archive.add_folder(folder)
        for name in ("bin", "sbin", "lib", "lib64"):
            archive.add_link(name, f"usr/{name}")
        archive.add_link("etc/mtab", "/proc/mounts")
        archive.add_file("bb/busybox", (self._tree.root / "usr/bin/busybox").read_bytes(), executable=True)
        archive.add_file("init", (SOURCE_DIR / "guest/init").read_bytes(), executable=True)
        order = []
        for name in MODULES:
            data = self._module(name)
            if data is not None:
                archive.add_file(f"modules/{name}.ko", data)
                order.append(name)
        archive.add_file("modules/order", "".join(f"{name}\n" for name in order).encode())
        return archive.to_bytes()

    def _module(self, name):
        """A module's content, None if it is built in; its own dependencies must stand before it in MODULES."""
        (folder,) = (self._tree.root / "guest-kernel/usr/lib/modules").iterdir()
        built_in = (folder / "modules.builtin").read_text(encoding="ascii").split()
        if any(os.path.basename(line) == f"{name}.ko" for line in built_in):
            return None
        found = [*folder.rglob(f"{name}.ko.xz"), *folder.rglob(f"{name}.ko")]
        if not found:
            raise SetupError(f"the guest's kernel has no module {name}")
        data = found[0].read_bytes()
        return lzma.decompress(data) if found[0].suffix == ".xz" else data

    def _tools_archive(self):
        archive = Archive()
        for program in PROGRAMS:
            for path in [program, *self._tree.libraries(program)]:
                if not archive.holds(path):
                    archive.add_file(path, (self._tree.root / path).read_bytes(), executable=True)
        loader = "usr/lib64/ld-linux-x86-64.so.2"
        archive.add_file(loader, (self._tree.root / loader).read_bytes(), executable=True)
        archive.add_link("usr/sbin/mkfs.ext4", "mke2fs")
        for name in MORE_MODULES:
            data = self._module(name)
            if data is not None:
                archive.add_file(f"modules/{name}.ko", data)
        return archive.to_bytes()
