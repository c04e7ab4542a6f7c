# SPDX-License-Identifier: BSD-3-Clause
"""Disk images on the host: making them, and finding out what a guest left in them."""

import hashlib
import os
import random
import re
import shutil

from harness.errors import Failure

MIB = 1 << 20


def create(path, size):
    """Makes a sparse image."""
    with open(path, "wb") as image:
        image.truncate(size)


def fill(path, offset, length, seed):
    """Writes `length` bytes that follow from the seed."""
    with open(path, "r+b") as image:
        image.seek(offset)
        image.write(random.Random(seed).randbytes(length))


def checksum(path, offset=0, length=None):
    """SHA-256 of a part of a file in hexadecimal; of everything from `offset` without a length."""
    digest = hashlib.sha256()
    with open(path, "rb") as image:
        image.seek(offset)
        left = os.stat(path).st_size - offset if length is None else length
        while left > 0:
            data = image.read(min(left, MIB))
            if not data:
                raise Failure(f"{path} ends {left} bytes before {offset + length}")
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


def allocated(path):
    """Bytes that the file takes on the host's disk, after what is still on its way there has been placed."""
    with open(path, "rb") as image:
        os.fsync(image.fileno())
    return os.stat(path).st_blocks * 512


class Ext4:
    """An ext4 file system in an image without partitions, read by the tree's e2fsprogs: no loop device, no root."""

    def __init__(self, tree, path):
        self._tree = tree
        self._path = path

    def check(self):
        """Fails unless e2fsck finds it clean without changing anything. Returns e2fsck's words."""
        done = self._tree.run_any("usr/sbin/e2fsck", "-fn", self._path)
        if done.returncode != 0:
            raise Failure(f"e2fsck -fn says of {self._path} (exit status {done.returncode}):\n{done.stdout}")
        return done.stdout

    def replay(self):
        """Replays the journal, as the next mount would."""
        done = self._tree.run_any("usr/sbin/e2fsck", "-p", self._path)
        if done.returncode not in (0, 1):
            raise Failure(f"e2fsck -p says of {self._path} (exit status {done.returncode}):\n{done.stdout}")

    def extract(self, folder, target):
        """Copies a folder of the file system into `target`, a folder of the host that is emptied first."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        done = self._tree.run_any("usr/sbin/debugfs", "-R", f"rdump {folder} {target}", self._path)
        # Its exit status is 0 whatever happens; changing the owner fails for all but root, and does not matter.
        trouble = [line for line in done.stdout.splitlines()
                   if not re.match(r"debugfs 1\.|dump_file: .*changing ownership|rdump: .*changing ownership", line)]
        if done.returncode != 0 or trouble:
            raise Failure(f"debugfs cannot extract {folder} from {self._path}:\n{done.stdout}")

    def compare(self, folder, sums, target):
        """Extracts `folder` and compares it with `sums`, the output of sha256sum in that folder in the guest."""
        self.extract(folder, target)
        lines = sums.splitlines()
        bad = []
        for line in lines:
            wanted, _, name = line.partition("  ")
            path = target / folder.strip("/") / name
            got = checksum(path) if path.is_file() else "missing"
            if got != wanted:
                bad.append(f"{name}: {got} on the host, {wanted} in the guest")
        found = sum(1 for path in (target / folder.strip("/")).rglob("*") if path.is_file() and not path.is_symlink())
        if found != len(lines):
            bad.append(f"{found} files on the host, {len(lines)} in the guest")
        if bad or not lines:
            raise Failure("\n".join(bad[:20]) or "the guest made no files")
