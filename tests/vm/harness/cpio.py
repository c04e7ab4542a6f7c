# SPDX-License-Identifier: BSD-3-Clause
"""Writes a cpio archive of the kind that a kernel unpacks as its initramfs ("newc")."""

import stat
from pathlib import PurePosixPath


class Archive:
    """Collects files in memory; parent folders are made as needed, and everything belongs to root."""

    def __init__(self):
        self._parts = []
        self._names = set()

    def add_file(self, name, data, executable=False):
        """Adds a plain file; `name` has no leading slash."""
        self._add(name, stat.S_IFREG | (0o755 if executable else 0o644), data)

    def add_link(self, name, target):
        """Adds a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def add_folder(self, name):
        """Adds a folder, if it is not there yet."""
        if name not in self._names:
            self._add(name, stat.S_IFDIR | 0o755, b"")

    def add_console(self):
        """Adds /dev/console, which the kernel opens for the first process before anything is mounted."""
        self._add("dev/console", stat.S_IFCHR | 0o600, b"", device=(5, 1))

    def holds(self, name):
        """Whether the name is taken."""
        return name in self._names

    def to_bytes(self):
        """The finished archive. More archives may follow it in the same initramfs file."""
        return b"".join([*self._parts, self._entry("TRAILER!!!", 0, b"", 0, (0, 0))]) + b"\0" * 512

    def _add(self, name, mode, data, device=(0, 0)):
        parent = str(PurePosixPath(name).parent)
        if parent != ".":
            self.add_folder(parent)
        self._names.add(name)
        self._parts.append(self._entry(name, mode, data, len(self._names), device))

    @staticmethod
    def _entry(name, mode, data, inode, device):
        encoded = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, device[0], device[1], len(encoded), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        return _padded(header + encoded) + _padded(data)


def _padded(data):
    return data + b"\0" * (-len(data) % 4)
