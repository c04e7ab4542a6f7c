# SPDX-License-Identifier: BSD-3-Clause
"""An NVMe controller at the ends of what can be asked for on its command line."""

import os

import pytest

from pylib import nvme_spec as spec
from pylib.nvme import expect

M = 1 << 20


@pytest.mark.parametrize("threads", [1, 4])
def test_two_hundred_and_fifty_six_queues_all_work_at_once(serve, threads):
    nvme = serve("ram:16M", "--queues=256", f"--threads={threads}", device="nvme").guest(queues=0, vectors=257, memory=32 * M)
    assert expect(nvme.set_feature(spec.F_QUEUES, 255 | 255 << 16), spec.OK).result == 255 | 255 << 16
    addresses = {}
    for qid in range(1, 257):
        nvme.make_queue_pair(qid, 4, vector=qid)
        addresses[qid] = nvme.buffer(qid.to_bytes(2, "little") * 256)
        nvme.put_io(spec.WRITE, qid, 1, addresses[qid], sqid=qid)
    for event in nvme.vectors:
        event.clear()
    for qid in range(1, 257):
        nvme.kick(qid)
    assert nvme.until(lambda: all(nvme.cqs[qid].peek() for qid in addresses))
    for qid in addresses:
        assert nvme.vectors[qid].wait(), f"queue {qid} has not interrupted"
    assert all(done.status == spec.OK for done in nvme.finish_all())
    expect(nvme.create_cq(257, 4), spec.QID_INVALID)
    for qid in (1, 128, 256):
        assert nvme.read(qid, 1, sqid=257 - qid) == qid.to_bytes(2, "little") * 256


def test_deepest_queues_take_as_many_commands_as_they_have_entries(serve):
    nvme = serve("ram:16M", "--queues=1", "--queue-size=32768", device="nvme").guest(queues=0, vectors=2, memory=16 * M)
    assert nvme.capabilities.entries == 32768
    nvme.make_queue_pair(1, 32768, vector=1)
    for _ in range(2):
        for _ in range(32767):
            nvme.put(1, spec.FLUSH, nsid=1)
        nvme.kick(1)
        assert len(nvme.finish_all(60.0)) == 32767


def test_smallest_queues_are_all_that_is_offered(serve):
    server = serve("ram:16M", "--queues=1", "--queue-size=2", device="nvme")
    nvme = server.guest(queue_size=2)
    assert nvme.capabilities.entries == 2
    expect(nvme.create_cq(1, 3), spec.QID_INVALID, spec.QUEUE_SIZE_INVALID)
    for _ in range(20):
        nvme.assert_works()


@pytest.mark.parametrize("vectors", [1, 2, 5])
def test_queues_share_what_vectors_there_are(serve, vectors):
    """5.4, IV: several completion queues may have the same."""
    nvme = serve("ram:16M", "--queues=4", f"--vectors={vectors}", device="nvme").guest(queues=0, vectors=vectors)
    assert nvme.pci.msix()[0] == vectors
    expect(nvme.create_cq(1, 16, vector=vectors), spec.VECTOR_INVALID)
    for qid in range(1, 5):
        nvme.make_queue_pair(qid, 16, vector=qid % vectors)
    for qid in range(1, 5):
        for event in nvme.vectors:
            event.clear()
        cid = nvme.issue(qid, spec.FLUSH, nsid=1)
        assert nvme.until(nvme.cqs[qid].peek)
        assert nvme.vectors[qid % vectors].wait()
        nvme.finish(qid, cid)


def test_smallest_disk_has_one_block(serve, workdir):
    nvme = serve(workdir.file("disk.img", 512), device="nvme").guest()
    assert nvme.namespace().size == 1
    data = os.urandom(512)
    nvme.write(0, data)
    assert nvme.read(0, 1) == data
    expect(nvme.io(spec.READ, 1, 1, nvme.buffer(length=512)), spec.LBA_OUT_OF_RANGE)
