# SPDX-License-Identifier: BSD-3-Clause
"""The example entropy device over each transport and with each format of rings: it is the same program every time."""

import pytest

from pylib import pci, virtio
from pylib.dma import DmaResponder
from pylib.ring import Segment
from pylib.vhost import P, VhostGuest
from pylib.vm import Guest

REQUEST_MAX = 4096  # bytes that the device gives at most for one request


class Entropy:
    """Mixed into a guest of a disk: what is the disk's is left out."""

    def read_config(self):
        return None

    def ask(self, *sizes, readable=0):
        """What the device puts into a buffer of so many pieces, behind `readable` bytes of ours, and how many bytes it says it was."""
        places = [self.space.alloc(size, 1) for size in sizes]
        segments = [Segment(place, size, True) for place, size in zip(places, sizes)]
        if readable:
            segments.insert(0, Segment(self.space.alloc(readable, 1), readable))
        for place, size in zip(places, sizes):
            self.space.write(place, bytes(size))
        head = self.queue.add(segments)
        self.kick()
        done = self.client.serve_commands(self.queue.take) if self.remote else self.queue.wait()
        assert done == [(head, done[0][1])], f"head {head} is due, the device gave back {done}"
        return b"".join(self.space.read(place, size) for place, size in zip(places, sizes)), done[0][1]


class PciEntropy(Entropy, Guest):
    def start(self, *, remote=False, **options):
        self.remote = remote
        if remote:
            DmaResponder(self.client, self.space)
        super().start(remote=remote, **options)


class VhostEntropy(Entropy, VhostGuest):
    remote = False


@pytest.fixture(params=["vfio-user", "vhost-user"])
def either(request, start):
    """boot(...) over one transport, then over the other."""
    program = start("entropy", f"{request.param}:")
    kind = PciEntropy if request.param == "vfio-user" else VhostEntropy
    guests = []

    def boot(**options):
        guests.append(kind.boot(program.socket, **options))
        return guests[-1]

    yield boot
    for guest in guests:
        guest.close()


@pytest.fixture(params=["split", "packed"])
def guest(request, either):
    return either(packed=request.param == "packed")


def is_random(data):
    """Not the zeroes that were there, and not one byte again and again."""
    return len(set(data)) > min(len(data), 256) // 4


def test_buffers_are_filled_and_no_two_alike(guest):
    first, used = guest.ask(512)
    assert used == 512 and is_random(first)
    second, used = guest.ask(512)
    assert used == 512 and is_random(second) and first != second


def test_a_buffer_may_lie_in_pieces(guest):
    data, used = guest.ask(1, 100, 7, 400)
    assert used == 508 and is_random(data)


def test_a_long_buffer_is_filled_as_far_as_the_device_goes(guest):
    data, used = guest.ask(3 * REQUEST_MAX)
    assert used == REQUEST_MAX and is_random(data[:used]) and not any(data[used:])


def test_what_the_driver_sends_is_not_looked_at(guest):
    data, used = guest.ask(64, readable=32)
    assert used == 64 and is_random(data)


def test_a_buffer_outside_of_the_memory_gets_nothing(guest):
    head = guest.queue.add([Segment(0x7000_0000_0000, 64, True)])
    guest.kick()
    assert guest.queue.wait() == [(head, 0)]
    assert guest.ask(64)[1] == 64


def test_many_requests_at_once(guest):
    places = [guest.space.alloc(64, 1) for _ in range(60)]
    for place in places:
        guest.space.write(place, bytes(64))
        guest.queue.add([Segment(place, 64, True)])
    guest.kick()
    assert sorted(used for _, used in guest.queue.wait(60)) == [64] * 60
    assert len({guest.space.read(place, 64) for place in places}) == 60


def test_a_reset_and_another_driver(guest):
    assert guest.ask(64)[1] == 64
    guest.restart()
    assert guest.ask(64)[1] == 64


def test_the_next_client_is_served(either):
    for _ in range(2):
        guest = either()
        assert guest.ask(64)[1] == 64
        guest.close()


def test_over_vfio_user_it_is_a_modern_virtio_entropy_device(start):
    program = start("entropy", "vfio-user:")
    with PciEntropy.boot(program.socket) as guest:
        assert (guest.pci.read(pci.VENDOR_ID, 2), guest.pci.read(pci.DEVICE_ID, 2)) == (0x1AF4, 0x1040 + 4)
        assert guest.virtio.get("num_queues") == 1
        assert not guest.virtio.device_features() & 0xFFFFFF, "it has features of its own"


def test_memory_that_is_not_shared_is_filled_by_messages(start):
    program = start("entropy", "vfio-user:")
    with PciEntropy.boot(program.socket, remote=True) as guest:
        data, used = guest.ask(300, 212)
        assert used == 512 and is_random(data)


def test_features_that_the_device_does_not_have_are_not_offered(start):
    program = start("entropy", "vhost-user:")
    with VhostEntropy.boot(program.socket) as guest:
        assert guest.virtio.features & virtio.F_VERSION_1
        assert not guest.client.fence() & 0xFFFFFF
        assert not guest.client.protocol & P.CONFIG, "it has no configuration space"


def test_a_configuration_space_that_is_not_there_reads_as_zeroes(start):
    program = start("entropy", "vfio-user:")
    with PciEntropy.boot(program.socket) as guest:
        where = guest.virtio.structures[virtio.CFG_DEVICE]
        guest.client.write_uint(where.bar, where.offset, 4, 0xFFFFFFFF)
        assert guest.client.read_uint(where.bar, where.offset, 4) == 0
        assert guest.ask(64)[1] == 64
