# SPDX-License-Identifier: BSD-3-Clause
"""Row D12: the driver names the device's own registers as a buffer. A VMM that is asked to write there by DMA_WRITE does what the
guest's own access would do: it sends a register write, while it still owes the reply."""

import os

import pytest

from pylib import blk, virtio, wire
from pylib.dma import Mirror
from pylib.ring import Segment
from pylib.wire import Cmd

from .test_w_message_dma import RemoteGuest, need_message_dma

OWN = 0x9000_0000  # where the guest has the BAR
OWN_SIZE = 0x10000


@pytest.fixture
def mirror(server):
    remote = RemoteGuest(server)
    need_message_dma(remote)
    remote.mirror = Mirror(remote.guest, remote.dma, wire.BAR4, OWN, OWN_SIZE)
    return remote


def settle(remote):
    """Whatever the device made of it, its session answers and a reset heals it."""
    client = remote.guest.client
    client.serve_commands(lambda: False, 0.05)
    client.call(Cmd.GET_INFO, wire.device_info())
    client.on_command = remote.dma
    remote.guest.virtio.reset()
    client.inbox.clear()
    remote.guest.restart()
    remote.guest.assert_works()


def where(remote, name):
    """The address of one of the adaptor's register blocks, as the guest sees it."""
    kind = {"common": virtio.CFG_COMMON, "notify": virtio.CFG_NOTIFY, "isr": virtio.CFG_ISR, "device": virtio.CFG_DEVICE}[name]
    return OWN + remote.guest.virtio.structures[kind].offset


@pytest.mark.parametrize("content", ["zeroes", "ones", "random"])
@pytest.mark.parametrize("block", ["common", "notify", "isr", "device"])
def test_d12_disk_read_into_the_devices_own_registers_is_safe(mirror, block, content):
    """Zeroes into the common configuration reset the device in the middle of its own request."""
    guest = mirror.guest
    data = {"zeroes": bytes(512), "ones": b"\xFF" * 512, "random": os.urandom(512)}[content]
    guest.write(9, data)
    request = guest.prepare(blk.T_IN, 9)
    guest.submit(request, [Segment(request.header, 16), Segment(where(mirror, block), 512, True),
                           Segment(request.status_addr, 1, True)], kick=False)
    guest.kick(posted=True)
    guest.client.serve_commands(lambda: mirror.mirror.accesses)
    assert mirror.mirror.accesses, "the device has not written to its own registers: this test has tested nothing"
    settle(mirror)


@pytest.mark.parametrize("block", ["common", "notify", "isr", "device"])
def test_d12_disk_write_from_the_devices_own_registers_is_safe(mirror, block):
    guest = mirror.guest
    request = guest.prepare(blk.T_OUT, 9)
    guest.submit(request, [Segment(request.header, 16), Segment(where(mirror, block), 512),
                           Segment(request.status_addr, 1, True)], kick=False)
    guest.kick(posted=True)
    done = guest.client.serve_commands(lambda: guest.queue.take())
    assert done and mirror.mirror.accesses
    settle(mirror)


@pytest.mark.parametrize("field", ["device_status", "queue_enable", "queue_size", "queue_select"])
def test_d12_status_byte_that_is_a_register_of_the_device_is_safe(mirror, field):
    guest = mirror.guest
    offset = virtio.COMMON[field][0]
    request = guest.prepare(blk.T_IN, 9, length=512)
    guest.submit(request, [Segment(request.header, 16), Segment(request.data, 512, True),
                           Segment(where(mirror, "common") + offset, 1, True)], kick=False)
    guest.kick(posted=True)
    guest.client.serve_commands(lambda: mirror.mirror.accesses)
    assert mirror.mirror.accesses
    settle(mirror)


@pytest.mark.parametrize("area", ["desc_addr", "avail_addr", "used_addr"])
def test_d12_ring_that_lies_in_the_devices_own_registers_is_safe(mirror, area):
    guest = mirror.guest
    guest.virtio.reset()
    assert guest.virtio.negotiate(guest._options["features"])
    guest.queue.clear()
    kept = getattr(guest.queue, area)
    setattr(guest.queue, area, where(mirror, "common"))
    guest.virtio.setup_queue(0, guest.queue, vector=virtio.NO_VECTOR)
    setattr(guest.queue, area, kept)
    guest.virtio.driver_ok()
    guest.submit(guest.prepare(blk.T_IN, 9, length=512), kick=False)
    guest.kick(posted=True)
    guest.client.serve_commands(lambda: mirror.mirror.accesses > 100, 0.3)
    settle(mirror)
