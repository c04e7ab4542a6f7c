# SPDX-License-Identifier: BSD-3-Clause
"""The three ways in which an NVMe queue waits (serve --poll), with doorbells by message, as mapped memory, and in the driver's own."""

import os
import random

import pytest

from pylib import nvme_spec as spec
from pylib import wire
from pylib.nvme import expect

from .test_polling import assert_spins

MODES = ["never", "adaptive", "always"]


def load(nvme, queues, rounds=6, depth=20):
    """Verified writes and reads on all queues at once."""
    nvme.reuse = False
    size = nvme.block_size
    for turn in range(rounds):
        written = {}
        for qid in range(1, queues + 1):
            for number in range(depth):
                address = nvme.buffer(os.urandom(16) * (size // 16), align=512)
                nvme.put_io(spec.WRITE, qid * 100 + number, 1, address, sqid=qid)
                written[qid * 100 + number] = address
            nvme.kick(qid)
        assert all(done.status == spec.OK for done in nvme.finish_all())
        targets = {slba: nvme.buffer(length=size, align=512) for slba in written}
        for slba, target in targets.items():
            nvme.put_io(spec.READ, slba, 1, target, sqid=slba // 100)
            nvme.kick(slba // 100)
        assert all(done.status == spec.OK for done in nvme.finish_all())
        for slba, target in targets.items():
            assert nvme.space.read(target, size) == nvme.space.read(written[slba], size), f"block {slba} in turn {turn}"


@pytest.mark.parametrize("doorbells", ["message", "posted", "mapped", "shadow"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("threads", [1, 2])
def test_load_of_every_way_to_wait_and_to_ring(serve, mode, doorbells, threads):
    server = serve("ram:16M", "--queues=4", f"--threads={threads}", f"--poll={mode}", device="nvme")
    nvme = server.guest(queues=4)
    nvme.reuse = False
    if doorbells == "mapped":
        assert nvme.map_doorbells() == (mode == "always"), "only who always looks lets doorbells be mapped"
        if mode != "always":
            return
    elif doorbells == "shadow":
        nvme.use_shadow_doorbells()
    else:
        nvme.doorbells = doorbells
    load(nvme, 4)


@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("mode", ["never", "adaptive"])
def test_idle_controller_sleeps_and_is_woken(serve, mode, shadow):
    server = serve("ram:16M", f"--poll={mode}", device="nvme")
    nvme = server.guest(queues=2)
    if shadow:
        nvme.use_shadow_doorbells()
    for _ in range(5):
        load(nvme, 2, rounds=1)
        nvme.until(lambda: False, 0.05)
        server.assert_comes_to_rest()
    nvme.assert_works(sqid=2)


def test_controller_that_always_looks_does_so_only_while_it_has_queues(serve):
    server = serve("ram:16M", "--poll=always", device="nvme")
    nvme = server.guest()
    assert_spins(server)
    nvme.disable()
    server.assert_comes_to_rest()
    nvme.bring_up()
    nvme.assert_works()


def test_adaptive_controller_needs_few_doorbells_under_load(serve):
    """Shadow doorbells and the event index: it says while it looks that it need not be told."""
    nvme = serve("ram:16M", "--poll-max-us=10000", device="nvme").guest()
    nvme.use_shadow_doorbells()
    before, count = nvme.rung, 0
    for _ in range(300):
        nvme.assert_works()
        count += 2
    assert nvme.rung - before < 2 * count, "each command and each completion was rung for"


# --- mapped doorbells ------------------------------------------------------------------------------------------------

@pytest.fixture
def mapped(serve):
    nvme = serve("ram:16M", "--queues=4", "--poll=always", device="nvme").guest(queues=2)
    assert nvme.map_doorbells()
    return nvme


def test_n04_anything_at_all_in_the_mapped_page_is_survived(mapped):
    dice = random.Random(4)
    for _ in range(50):
        mapped.page[:] = dice.randbytes(len(mapped.page))
        mapped.client.fence()
    mapped.page[:] = bytes(len(mapped.page))
    mapped.client.fence()
    mapped.recover()


def test_n04_values_out_of_range_in_the_mapped_page_are_ignored(mapped):
    mapped.assert_works()
    for qid in range(1, 3):
        for completion in (False, True):
            queue = mapped.cqs[qid] if completion else mapped.sqs[qid]
            good = queue.head if completion else queue.tail
            for value in (queue.size, 0xFFFF, 0xFFFFFFFF, 1 << 31):
                mapped.ring(qid, value, completion=completion)
                mapped.until(lambda: False, 0.01)
                mapped.ring(qid, good, completion=completion)
            mapped.assert_works(sqid=qid)
    assert not mapped.fatal


def test_what_is_left_in_the_mapped_page_after_a_reset_is_no_command(mapped):
    """3.7.2: doorbells are zero then."""
    for _ in range(7):
        mapped.assert_works()
    for _ in range(5):
        mapped.restart()
        load(mapped, 2, rounds=2)
        expect(mapped.delete_sq(2), spec.OK)
        expect(mapped.delete_cq(2), spec.OK)
        mapped.make_queue_pair(2, vector=2)
        mapped.assert_works(sqid=2)


def test_mapped_doorbells_and_messages_are_the_same_registers(mapped):
    for turn in range(200):
        mapped.doorbells = "message" if turn % 2 else "mapped"
        mapped.assert_works()


def test_admin_queue_is_rung_in_the_mapped_page_too(mapped):
    for _ in range(100):
        mapped.controller()


def test_next_client_gets_a_page_of_its_own(serve):
    server = serve("ram:16M", "--poll=always", device="nvme")
    first = server.guest()
    assert first.map_doorbells()
    first.page[8:12] = b"mine"
    page, first.page = first.page, None
    first.close()
    second = server.guest()
    assert second.map_doorbells()
    assert b"mine" not in second.page[:]
    page[8:12] = b"more"
    assert b"more" not in second.page[:]
    second.assert_works()
    page.close()


def test_nothing_else_of_the_controller_may_be_mapped(mapped):
    for index in range(1, 9):
        assert mapped.client.region_info(index).flags & wire.REGION_MMAP == 0


def test_n05_full_completion_queue_with_mapped_doorbells(mapped):
    expect(mapped.create_cq(3, 2), spec.OK)
    expect(mapped.create_sq(3, 64), spec.OK)
    for _ in range(5):
        for _ in range(30):
            mapped.put(3, spec.FLUSH, nsid=1)
        mapped.kick(3)
        assert len(mapped.finish_all()) == 30


def test_d06_queues_that_are_looked_at_survive_an_unmap_and_a_map(mapped):
    window = mapped.space.windows[0]
    for _ in range(10):
        mapped.client.dma_unmap(window.iova, window.size)
        mapped.client.dma_map(window.iova, window.size, fd=window.memory.fd)
        mapped.assert_works()
