# SPDX-License-Identifier: BSD-3-Clause
"""VIRTIO_F_IN_ORDER (virtio 1.2, 2.7.9 and 2.8.8), for rings of both formats: what is done early waits for its turn, and for
nothing else. The disk under the program holds single reads back (pylib/faults.c); that a request behind one is done shows in its
status byte, which the device writes at once."""

import os
import random

import pytest

from pylib import blk, pci, virtio
from pylib.dma import DmaResponder
from pylib.events import wait_until
from pylib.faults import READ
from pylib.memory import GuestMemory
from pylib.ring import INDIRECT
from pylib.vm import USUAL_FEATURES, Guest
from pylib.wire import Cmd

ORDER = USUAL_FEATURES | virtio.F_IN_ORDER
RESET = ORDER | virtio.F_RING_RESET
FAR = 1 << 40  # an address, or a sector
M = 1 << 20


def content(sector):
    """What `image` holds there."""
    return sector.to_bytes(8, "little") * 64


@pytest.fixture
def boot(serve, faulty_disk, loop_kind, image, packed):
    """boot(...): a guest with a slow read in flight, `guest.slow`, which is done when the disk's gate is opened."""
    def begin(*options, features=ORDER, **kwargs):
        server = serve(image, f"--loop={loop_kind}", "--in-order=on", *options)
        guest = server.guest(features=features, packed=packed, **kwargs)
        assert (guest.virtio.features ^ features) & virtio.F_IN_ORDER == 0
        faulty_disk.hold(READ, times=1)
        guest.slow = guest.submit(guest.prepare(blk.T_IN, 7, length=512))
        assert wait_until(lambda: faulty_disk.hits(READ) == 1)
        return guest
    return begin


def is_done(guest, request):
    return guest.space.read(request.status_addr, 1)[0] != blk.NOT_SET


def send(guest, requests):
    """Requests that need not wait for the slow one: they are done when this returns."""
    for request in requests:
        guest.submit(request)
    assert wait_until(lambda: all(is_done(guest, request) for request in requests)), "they wait for the slow one"


def send_fast(guest):
    """Some of all kinds, good and bad; gives them with the status that each will have."""
    fast = [(guest.prepare(blk.T_IN, 9, length=512), blk.S_OK), (guest.prepare(blk.T_GET_ID, length=20), blk.S_OK),
            (guest.prepare(blk.T_IN, FAR, length=512), blk.S_IOERR), (guest.prepare(99), blk.S_UNSUPP),
            (guest.prepare(blk.T_OUT, 11, data=b"\x0B" * 512), blk.S_OK)]
    send(guest, [request for request, _ in fast])
    return fast


def assert_given_in_order(guest, fast):
    """The slow one, then the others, each with an element of its own."""
    done = guest.queue.wait(1 + len(fast))
    assert [head for head, _ in done] == [guest.slow.head, *(request.head for request, _ in fast)]
    assert guest.result(guest.slow, 0).data == content(7)
    for (request, status), (_, length) in zip(fast, done[1:]):
        writable = 1 + (request.length if request.kind in (blk.T_IN, blk.T_GET_ID) else 0)
        assert (guest.result(request, length).status, length) == (status, writable)


# --- what is offered ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, offered", [([], False), (["--in-order=off"], False), (["--in-order=on"], True)])
def test_feature_is_offered_if_that_was_asked_for(serve, options, offered):
    driver = virtio.VirtioPci(serve("ram:16M", *options).client()).discover()
    assert bool(driver.device_features() & virtio.F_IN_ORDER) is offered
    assert driver.negotiate(virtio.F_VERSION_1 | virtio.F_IN_ORDER, exact=True) is offered


def test_bench_wants_it_offered(serve, cli):
    status, stderr = cli("bench", serve("ram:16M").path, "--in-order=on", "--number_ios=1")
    assert status == 2 and "--in-order=on: the disk does not offer that (VIRTIO_F_IN_ORDER)" in stderr


# --- a slow one and fast ones behind it ---------------------------------------------------------------------------

def test_requests_come_back_in_the_order_in_which_they_were_made(boot, faulty_disk):
    guest = boot()
    fast = send_fast(guest)
    guest.client.fence()
    assert not guest.queue.given_back()
    assert not guest.queue_events[0].pending(), "an interrupt though there is nothing to see"
    faulty_disk.open_gate()
    assert_given_in_order(guest, fast)
    assert guest.queue_events[0].wait()
    guest.assert_works()


def test_without_the_feature_the_fast_ones_come_back_first(boot, faulty_disk):
    """The same server, for a driver that did not want it."""
    guest = boot(features=USUAL_FEATURES)
    fast = send_fast(guest)
    done = guest.queue.wait(len(fast))
    assert sorted(head for head, _ in done) == sorted(request.head for request, _ in fast)
    faulty_disk.open_gate()
    assert guest.finish(guest.slow).data == content(7)


def test_event_index_counts_what_can_be_seen(boot, faulty_disk):
    """The driver waits for the third one: it is interrupted when it gets that, not when that is done."""
    guest = boot(features=ORDER | virtio.F_EVENT_IDX)
    if guest.queue.packed:
        guest.queue.ask_at(guest.queue.next_used.ahead(6))
    else:
        guest.queue.set_used_event(2)
    guest.queue_events[0].clear()
    fast = send_fast(guest)
    guest.client.fence()
    assert not guest.queue_events[0].pending()
    faulty_disk.open_gate()
    assert_given_in_order(guest, fast)
    assert guest.queue_events[0].wait()


def test_full_queue_waits_for_the_slow_one(boot, faulty_disk):
    guest = boot(queue_size=32)
    fast = [guest.prepare(blk.T_GET_ID, length=20) for _ in range(29)]  # the slow one has three entries
    for request in fast:
        guest.submit(request, indirect=True)
    assert wait_until(lambda: all(is_done(guest, request) for request in fast))
    assert not guest.queue.given_back()
    faulty_disk.open_gate()
    assert_given_in_order(guest, [(request, blk.S_OK) for request in fast])
    for _ in range(20):
        guest.assert_works()


# --- what ends a queue meanwhile ----------------------------------------------------------------------------------

def test_reset_of_the_queue_waits_for_the_slow_one(boot, faulty_disk):
    guest = boot(features=RESET)
    send_fast(guest)
    guest.virtio.set("queue_select", 0)
    guest.virtio.set("queue_reset", 1)
    for _ in range(5):
        assert guest.virtio.get("queue_reset") == 1
    faulty_disk.open_gate()
    assert wait_until(lambda: guest.virtio.get("queue_reset") == 0)
    guest.enable_queue()
    guest.assert_works()
    again = [guest.prepare(blk.T_GET_ID, length=20) for _ in range(3)]
    send(guest, again)
    assert [head for head, _ in guest.queue.wait(3)] == [request.head for request in again]
    assert not guest.broken


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "broken"])
def test_reset_of_the_device_waits_for_the_slow_one(boot, faulty_disk, broken):
    guest = boot()
    send_fast(guest)
    if broken:
        guest.queue.put_chain((FAR, 48, INDIRECT))
        guest.kick()
        guest.assert_broken()
    guest.client.send(Cmd.RESET)
    faulty_disk.open_gate()
    assert not guest.client.recv().is_error
    guest.pci.set_command(pci.COMMAND_MEMORY | pci.COMMAND_MASTER)
    guest.pci.enable_msix()
    guest.restart()
    guest.assert_works()


def test_client_may_go_away_while_requests_wait(boot, faulty_disk):
    """The next one is served when the slow one has ended."""
    guest = boot()
    send_fast(guest)
    guest.close()
    faulty_disk.open_gate()


# --- long runs ----------------------------------------------------------------------------------------------------

def test_any_mix_of_requests_keeps_its_order(serve, image, packed):
    """Good ones and bad ones of all kinds on two threads."""
    rng = random.Random(35)
    guest = serve(image, "--in-order=on", "--queues=2", "--threads=2").guest(features=ORDER, packed=packed, queues=2, memory=8 * M)
    for turn in range(40):  # requests have memory of their own: TSan doesn't see how a guest orders what two queues do
        batch = []
        for _ in range(rng.randrange(1, 21)):
            kind = rng.choice([blk.T_IN, blk.T_IN, blk.T_OUT, blk.T_GET_ID, blk.T_FLUSH, 99])
            data = os.urandom(512 * rng.randrange(1, 9)) if kind == blk.T_OUT else b""
            length = {blk.T_IN: 512 * rng.randrange(1, 9), blk.T_GET_ID: 20}.get(kind, 0)
            batch.append(guest.prepare(kind, rng.choice([rng.randrange(16000), FAR]), data=data, length=length, queue=turn % 2))
            guest.submit(batch[-1], kick=rng.random() < 0.5)
        guest.kick(turn % 2)
        done = guest.queues[turn % 2].wait(len(batch))
        assert [head for head, _ in done] == [request.head for request in batch]
        for request in batch:
            bad = request.sector == FAR and request.kind in (blk.T_IN, blk.T_OUT)
            status = blk.S_UNSUPP if request.kind == 99 else blk.S_IOERR if bad else blk.S_OK
            assert guest.result(request, 0).status == status


@pytest.mark.parametrize("features", [ORDER, USUAL_FEATURES], ids=["in order", "not"])
def test_remote_memory_keeps_the_order(serve, packed, features):
    """Data that goes by messages takes longer than data that does not."""
    guest = serve("ram:16M", "--in-order=on").guest(features=features, packed=packed)
    memory = GuestMemory(M)
    guest.memories.append(memory)
    guest.client.dma_map(FAR, M)
    guest.space.add(FAR, M, memory)
    responder = DmaResponder(guest.client, guest.space)
    for turn in range(10):
        data = os.urandom(4096)
        batch = [guest.prepare(blk.T_OUT, turn * 8, data=data, data_addr=FAR + 8192), guest.prepare(blk.T_GET_ID, length=20),
                 guest.prepare(blk.T_IN, 1000, length=4096, data_addr=FAR), guest.prepare(blk.T_IN, FAR, length=512)]
        guest.space.write(FAR + 8192, data)
        for request in batch:
            guest.submit(request, kick=False)
        guest.kick(posted=True)
        heads = [head for head, _ in serve_until(guest, len(batch))]
        wanted = [request.head for request in batch]
        assert heads == wanted if features == ORDER else sorted(heads) == sorted(wanted) and heads[0] != wanted[0]
        assert [guest.result(request, 0).status for request in batch] == [blk.S_OK] * 3 + [blk.S_IOERR]
        guest.client.fence()
    assert responder.asked >= 20


def serve_until(guest, count):
    """Answers the server's messages until so many requests are back."""
    done = []

    def finished():
        done.extend(guest.queue.take())
        return len(done) >= count
    guest.client.serve_commands(finished)
    return done


def test_remote_rings_keep_the_order(serve, packed):
    """All of the guest's memory goes by messages."""
    server = serve("ram:16M", "--in-order=on")
    guest = Guest(server.client())  # set up by hand: it answers messages from the start
    server.handed_out.append(guest)
    DmaResponder(guest.client, guest.space)
    guest.start(remote=True, packed=packed, features=ORDER)
    batch = [guest.prepare(blk.T_IN, 0, length=512), guest.prepare(99), guest.prepare(blk.T_OUT, FAR, data=bytes(512)),
             guest.prepare(blk.T_FLUSH), guest.prepare(blk.T_IN, 1, length=512)]
    for request in batch:
        guest.submit(request, kick=False)
    guest.kick(posted=True)
    assert [head for head, _ in serve_until(guest, len(batch))] == [request.head for request in batch]
    assert [guest.result(request, 0).status for request in batch] == [blk.S_OK, blk.S_UNSUPP, blk.S_IOERR, blk.S_OK, blk.S_OK]
