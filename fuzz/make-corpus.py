#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes the seeds that the harnesses start from to fuzz/corpus/HARNESS/: for each one what an honest peer does, in the form in
which the harness takes its input apart, and the mistakes that are worth knowing (fuzz/seeds). Inputs that once found a bug are kept
beside them, and some of those that fuzzing came upon because they reach what no seed does; their names begin with "found-" and
"learned-", and they are not made here."""

import pathlib

from seeds import inspect, nvme, text, vfio_user, vhost, virtio

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
MAKERS = (text.version, text.options, text.config, text.stack, virtio.registers, virtio.pci_config, virtio.chain, virtio.virtio_blk,
          virtio.inflight, nvme.nvme_walk, nvme.nvme_io, nvme.nvme_admin, nvme.nvme_registers, nvme.nvme_driver, vfio_user.session,
          vfio_user.client, vfio_user.state, vhost.vhost, inspect.inspect)


def main():
    total = 0
    for make in MAKERS:
        folder = CORPUS / make.__name__
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith(("found-", "learned-")):
                old.unlink()
        for name, data in make().items():
            (folder / name).write_bytes(data)
            total += len(data)
        print(f"{make.__name__}: {len(list(folder.iterdir()))} inputs")
    print(f"{total} bytes")


if __name__ == "__main__":
    main()
