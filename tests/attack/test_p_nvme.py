# SPDX-License-Identifier: BSD-3-Clause
"""An NVMe controller that is stopped, or killed at any moment, goes on in a fresh process: queues, doorbells, what the driver set, commands
that wait."""

import os
import random
import signal

import pytest
from pylib import nvme_spec as spec
from pylib.nvme import NvmeGuest, expect
from pylib.pci_guest import BASE

from .test_p_state import carry_over, memfd_copy

pytestmark = pytest.mark.parametrize("how", ["stop", "kill"])


@pytest.fixture
def nvme(keep, how):
    """A controller with two pairs of queues; carry() ends its process and starts another."""
    keeper = keep("--queues=4", "--threads=2", device="nvme")
    guest = NvmeGuest.boot(keeper.path, queues=2)
    guest.keeper = keeper
    guest.carry = lambda: carry_over(keeper, how)
    yield guest
    guest.close()


def test_p01_queues_go_on_where_they_stood(nvme):
    for round_number in range(5):
        for qid in (1, 2):
            for i in range(7):
                nvme.write(8 * i, bytes([round_number + i]) * 4096, sqid=qid)
        nvme.carry()
        for qid in (1, 2):
            assert nvme.read(8, 8, sqid=qid) == bytes([round_number + 1]) * 4096


def test_p01_queues_are_made_and_deleted_across_processes(nvme):
    nvme.carry()
    expect(nvme.create_cq(3, 16, vector=1), spec.OK)
    nvme.carry()
    expect(nvme.create_cq(3, 16), spec.QID_INVALID)
    expect(nvme.create_sq(3, 16), spec.OK)
    nvme.carry()
    expect(nvme.delete_cq(3), spec.INVALID_QUEUE_DELETION)
    nvme.flush(sqid=3)
    expect(nvme.delete_sq(3), spec.OK)
    nvme.carry()
    expect(nvme.delete_sq(3), spec.QID_INVALID)
    expect(nvme.delete_cq(3), spec.OK)
    nvme.carry()
    nvme.make_queue_pair(3, 8)
    nvme.carry()
    nvme.flush(sqid=3)


def test_p01_commands_that_nobody_saw_are_taken(nvme):
    """Doorbells that were rung just before the end, and completions that were not taken."""
    for _ in range(10):
        cids = [(qid, nvme.put(qid, spec.FLUSH, nsid=1)) for qid in (1, 2) for _ in range(9)]
        nvme.kick(1)
        nvme.kick(2)
        nvme.carry()
        for qid, cid in cids:
            expect(nvme.finish(qid, cid), spec.OK)


def test_p01_what_the_driver_set_stays(nvme):
    for feature, value in ((spec.F_COALESCING, 0x0203), (spec.F_WRITE_CACHE, 0), (spec.F_ASYNC, 0x100)):
        expect(nvme.set_feature(feature, value), spec.OK)
    nvme.carry()
    for feature, value in ((spec.F_COALESCING, 0x0203), (spec.F_WRITE_CACHE, 0), (spec.F_ASYNC, 0x100)):
        assert expect(nvme.get_feature(feature), spec.OK).result == value
    nvme.restart()
    nvme.carry()
    assert expect(nvme.get_feature(spec.F_COALESCING), spec.OK).result == 0


def test_p01_a_request_for_events_waits_on(nvme):
    cid = nvme.issue(0, spec.ASYNC_EVENT)
    nvme.nothing_comes(0, cid)
    nvme.carry()
    nvme.nothing_comes(0, cid)
    nvme.ring(1, 0xFFFF)  # a doorbell that makes no sense
    expect(nvme.finish(0, cid), spec.OK)


def test_p01_shadow_doorbells_stay_where_they_are(nvme):
    nvme.use_shadow_doorbells()
    for _ in range(4):
        for qid in (1, 2):
            for _ in range(11):
                nvme.flush(sqid=qid)
        nvme.carry()


def test_p01_a_controller_is_what_it_was(nvme):
    """Disabled, shut down, failed, or subject to a reset."""
    nvme.disable()
    nvme.carry()
    assert nvme.csts & (spec.RDY | spec.CFS) == 0
    nvme.bring_up()
    nvme.shut_down()
    nvme.carry()
    assert nvme.csts & (spec.RDY | spec.SHST_MASK) == spec.RDY | spec.SHST_DONE
    nvme.restart()
    nvme.carry()
    nvme.assert_works()
    nvme.disable()
    nvme.set_admin_queues(32)
    nvme.set8(spec.ASQ, 1 << 50)
    nvme.set(spec.CC, spec.cc())
    nvme.assert_fatal()
    nvme.carry()
    nvme.assert_fatal()
    nvme.recover()
    nvme.carry()
    nvme.assert_works()


def test_p01_every_namespace_is_gone_on_with(keep, how, workdir):
    disks = [workdir.file(f"ns{number}", size=4 << 20) for number in range(3)]
    card = {"device": "nvme", "namespaces": [{"backend": str(disk)} for disk in disks]}
    keeper = keep("--threads=2", card=card)
    with NvmeGuest.boot(keeper.path, queues=2) as guest:
        for round_number in range(4):
            for nsid in (1, 2, 3):
                guest.write(8, bytes([16 * round_number + nsid]) * 4096, nsid=nsid, sqid=1 + nsid % 2)
            carry_over(keeper, how)
            for nsid in (1, 2, 3):
                assert guest.read(8, 8, nsid=nsid) == bytes([16 * round_number + nsid]) * 4096


def test_p01_queues_without_their_memory_sleep_on(nvme):
    cid = nvme.put(1, spec.FLUSH, nsid=1)
    memory = nvme.memories[0]
    nvme.client.dma_unmap(BASE, 8 << 20)
    nvme.kick(1)
    nvme.carry()
    nvme.client.dma_map(BASE, 8 << 20, fd=memory.fd)
    expect(nvme.finish(1, cid), spec.OK)
    nvme.assert_works()


def test_p10_any_damage_is_refused_or_survived(nvme, how):
    """Random bytes anywhere in the record: the process says no, or serves; it never dies."""
    keeper = nvme.keeper
    nvme.use_shadow_doorbells()
    for qid in (1, 2):
        for _ in range(11):
            nvme.put(qid, spec.FLUSH, nsid=1)
        nvme.kick(qid)
    keeper.stop() if how == "stop" else keeper.kill()
    good = keeper.slots[0]
    size = os.fstat(good).st_size
    dice = random.Random(20)
    # The queues' part is at the end.
    places = [range(0, 8192), range(8192, min(size, 60000)), range(0, size), range(size - (5 * 81920 + 335872 + 8192), size)]

    def spoil(data):
        for _ in range(dice.randrange(1, 6)):
            at = dice.choice(places)
            at = dice.randrange(at.start, min(at.stop, len(data)))
            data[at] = dice.randrange(256)

    for _ in range(40):
        keeper.slots[0] = memfd_copy(good, change=spoil, most=size)
        slots = dict(keeper.slots)
        keeper.slots = {slot: os.dup(fd) for slot, fd in slots.items()}
        keeper.spawn()
        keeper.ready.wait(60)
        keeper.kill() if keeper.serves else keeper.wait()
        assert keeper.process.returncode in (1, 2, -signal.SIGKILL), f"{keeper.process.returncode} {keeper.stderr()}"
        for fd in keeper.slots.values():
            os.close(fd)
        os.close(slots[0])
        keeper.slots = slots
    keeper.slots[0] = good
    keeper.start()
