# SPDX-License-Identifier: BSD-3-Clause
"""D6: memory is given up while I/O on it does not end. The answer comes after 4 s, and it is EBUSY."""
import errno
import time

import pytest

from pylib import blk, wire
from pylib import nvme_spec as spec
from pylib.client import Refused
from pylib.events import timed, within
from pylib.memory import PAGE
from pylib.ring import SplitQueue
from pylib.vm import BASE

MEMORY = 4 << 20


@pytest.fixture
def stuck(serve, image):
    """A guest with a read in flight that waits for the image's lock, which another server holds; and that server."""
    owner, waiter = serve(image), serve(image)
    owner.guest().assert_works()
    return owner, waiter.guest()


@timed
def unmap_is_busy(guest, address, size):
    """QEMU gives up after 5 s."""
    began = time.monotonic()
    with within(5), pytest.raises(Refused) as refused:
        guest.client.dma_unmap(address, size)
    assert refused.value.reply.errno == errno.EBUSY
    assert time.monotonic() - began > 3.5


def test_d06_unmap_of_a_busy_buffer_is_answered_ebusy_and_works_once_it_is_free(stuck):
    owner, guest = stuck
    window = guest.add_memory(BASE + (1 << 30), 1 << 20)
    request = guest.submit(guest.prepare(blk.T_IN, 0, length=4096, data_addr=window.iova))
    unmap_is_busy(guest, window.iova, window.size)
    guest.client.fence()
    assert owner.stop() == 0
    assert guest.finish(request).status == blk.S_OK
    guest.remove_memory(window)
    guest.assert_works()


def test_d06_unmap_of_the_ring_itself_is_answered_ebusy_and_registers_go_on(stuck):
    owner, guest = stuck
    request = guest.submit(guest.prepare(blk.T_IN, 0, length=4096))
    unmap_is_busy(guest, BASE, MEMORY)
    assert guest.virtio.status & 0xf == 0xf, "registers are read while the card waits"
    assert owner.stop() == 0
    assert guest.finish(request).status == blk.S_OK
    guest.client.dma_unmap(BASE, MEMORY)
    guest.client.dma_map(BASE, MEMORY, fd=guest.memories[0].fd, flags=wire.MAP_RW)
    guest.assert_works()


def test_d06_unmap_of_all_is_answered_ebusy_and_puts_every_region_back(stuck):
    owner, guest = stuck
    guest.add_memory(BASE + (1 << 30), 1 << 20)
    request = guest.submit(guest.prepare(blk.T_IN, 0, length=4096))
    began = time.monotonic()
    with pytest.raises(Refused) as refused:
        guest.client.dma_unmap(0, 0, flags=wire.UNMAP_ALL)
    assert refused.value.reply.errno == errno.EBUSY and time.monotonic() - began > 3.5
    assert owner.stop() == 0
    assert guest.finish(request).status == blk.S_OK
    guest.assert_works()
    guest.client.dma_unmap(0, 0, flags=wire.UNMAP_ALL)
    guest.client.refused(wire.Cmd.DMA_UNMAP, wire.dma_unmap(BASE, MEMORY), errnos=[errno.ENOENT])
    guest.client.dma_map(BASE, MEMORY, fd=guest.memories[0].fd, flags=wire.MAP_RW)
    guest.assert_works()


# A refused unmap leaves everything as it was: also what queues of other loops had taken over by then. One queue, with its ring in the
# memory that was to go, has a flush in flight that does not end. The other has its data there, and no more.

ENDLESS = "delay,flush=600s:ram:1M"


def test_d06_refused_unmap_leaves_the_queues_of_all_loops_as_they_were(serve):
    guest = serve(ENDLESS, "--queues=2", "--threads=2").guest(interrupts=None)
    guest.virtio.reset()
    window = guest.add_memory(BASE + (1 << 30), 1 << 20)
    at = window.iova
    guest.queues = [SplitQueue(guest.space, 64, desc_addr=at, avail_addr=at + 0x1000, used_addr=at + 0x2000), SplitQueue(guest.space, 64)]
    guest.bring_up()
    guest.submit(guest.prepare(blk.T_FLUSH))
    guest.write(0, bytes(512))  # it was taken behind the flush
    unmap_is_busy(guest, window.iova, window.size)
    for queue in (1, 0):
        request = guest.submit(guest.prepare(blk.T_OUT, 0, length=512, queue=queue, data_addr=at + 0x4000))
        assert guest.finish(request).status == blk.S_OK


def test_d06_refused_unmap_leaves_the_nvme_queues_of_all_loops_as_they_were(serve):
    guest = serve(ENDLESS, "--threads=2", device="nvme").guest(queues=2)
    window = guest.add_memory(BASE + (1 << 30), 1 << 20)
    guest.delete_sq(1)
    guest.delete_cq(1)
    assert guest.create_cq(1, 64, address=window.iova).status == spec.OK
    assert guest.create_sq(1, 64, address=window.iova + PAGE).status == spec.OK
    data = window.iova + 2 * PAGE
    guest.issue(1, spec.FLUSH, nsid=1)
    assert guest.run(1, spec.WRITE, nsid=1, prp1=data).status == spec.OK  # it was taken behind the flush
    unmap_is_busy(guest, window.iova, window.size)
    for queue in (2, 1):
        assert guest.run(queue, spec.WRITE, nsid=1, prp1=data).status == spec.OK


def test_d06_client_that_goes_during_an_unmap_of_a_busy_ring_lets_the_next_one_in(serve):
    server = serve(ENDLESS)
    guest = server.guest(interrupts=None)
    guest.submit(guest.prepare(blk.T_FLUSH))
    guest.write(0, bytes(512))
    guest.client.send(wire.Cmd.DMA_UNMAP, wire.dma_unmap(BASE, MEMORY))
    guest.close()
    server.guest().assert_works()
