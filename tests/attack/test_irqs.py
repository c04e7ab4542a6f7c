# SPDX-License-Identifier: BSD-3-Clause
"""SET_IRQS: masks by message and by eventfd, for every kind of interrupt, and the request to let the device go."""

import errno
import fcntl
import os
import signal
import threading

import pytest

from pylib import pci, wire
from pylib.events import PATIENCE, EventFd, wait_until
from pylib.wire import Cmd

MASK = wire.DATA_EVENTFD | wire.ACTION_MASK
UNMASK = wire.DATA_EVENTFD | wire.ACTION_UNMASK
SILENCE = 0.05


def set_switch(guest, flags, index, vector=0, **kwargs):
    """A new eventfd that masks or unmasks the vector; closed with the guest."""
    event = guest.event(**kwargs)
    guest.client.call(Cmd.SET_IRQS, wire.set_irqs(index, flags, vector, 1), fds=[event.fd])
    return event


class Vector:
    """An interrupt of queue 0: INTx, or MSI-X vector 1."""

    def __init__(self, server, kind):
        self.guest = server.guest(interrupts=kind)
        self.index, self.vector = (wire.IRQ_INTX, 0) if kind == "intx" else (wire.IRQ_MSIX, 1)
        self.event = self.guest.intx_event if kind == "intx" else self.guest.queue_events[0]

    def switch(self, flags, **kwargs):
        return set_switch(self.guest, flags, self.index, self.vector, **kwargs)

    def set(self, flags, count=1, data=b"", fds=()):
        self.guest.client.call(Cmd.SET_IRQS, wire.set_irqs(self.index, flags, self.vector, count, data), fds=fds)

    def fires(self, timeout=PATIENCE):
        """Whether an interrupt comes of what was asked for; the driver then quits it."""
        came = bool(self.event.wait(timeout))
        if came and self.index == wire.IRQ_INTX:
            self.guest.virtio.isr()
        return came

    def cause(self):
        self.guest.read(0, 1)


@pytest.fixture(params=["intx", "msix"])
def vector(server, request):
    return Vector(server, request.param)


def taken(event):
    """The server has acted on what was signalled."""
    return wait_until(lambda: not event.pending())


# --- by eventfd ---------------------------------------------------------------------------------------------------

def test_signal_masks_and_another_unmasks(vector):
    mask, unmask = vector.switch(MASK), vector.switch(UNMASK)
    if vector.index == wire.IRQ_INTX:
        unmask.signal()
        assert taken(unmask)
    for _ in range(5):
        mask.signal()
        assert taken(mask)
        vector.cause()
        assert not vector.fires(SILENCE), "a masked vector fires"
        unmask.signal()
        assert vector.fires(), "what was held back did not come with the unmask"
        if vector.index == wire.IRQ_INTX:  # masked by itself when it fired
            unmask.signal()
            assert taken(unmask)
        vector.cause()
        assert vector.fires()
        if vector.index == wire.IRQ_INTX:
            unmask.signal()
            assert taken(unmask)


def test_kvm_ends_each_intx_by_the_unmask_eventfd(server):
    """A resamplefd: signalled when the guest has ended the interrupt."""
    vector = Vector(server, "intx")
    unmask = vector.switch(UNMASK)
    for _ in range(20):
        vector.cause()
        assert vector.event.wait()
        unmask.signal()  # the level is still high: it comes again
        assert vector.event.wait(), "a level that stands was lost"
        vector.guest.virtio.isr()
        unmask.signal()
        assert not vector.event.wait(0.002) and taken(unmask)


def test_masked_msix_vector_is_pending_until_its_eventfd_unmasks_it(server):
    vector = Vector(server, "msix")
    mask, unmask = vector.switch(MASK), vector.switch(UNMASK)
    _, _, _, pba, offset, _ = vector.guest.pci.msix()
    mask.signal()
    assert taken(mask)
    vector.cause()
    assert wait_until(lambda: vector.guest.client.read_uint(pba, offset, 8) == 2)
    unmask.signal()
    assert vector.fires()
    assert vector.guest.client.read_uint(pba, offset, 8) == 0


@pytest.mark.parametrize("count", [1, 2, 1 << 40, (1 << 64) - 2])
def test_any_count_is_one_signal(vector, count):
    mask, unmask = vector.switch(MASK), vector.switch(UNMASK)
    mask.signal(count)
    assert taken(mask)
    vector.cause()
    assert not vector.fires(SILENCE)
    unmask.signal(count)
    assert vector.fires()
    assert not vector.event.wait(SILENCE)


def test_eventfd_that_was_signalled_before_it_was_given_counts(vector):
    vector.switch(MASK, value=1)
    assert wait_until(lambda: (vector.cause(), not vector.fires(SILENCE))[1])


def test_replaced_eventfd_does_nothing_any_more(vector):
    old, new = vector.switch(MASK), vector.switch(MASK)
    old.signal()
    vector.guest.client.fence()
    assert old.pending(), "the server still reads an eventfd that was replaced"
    vector.cause()
    assert vector.fires()
    new.signal()
    assert taken(new)
    vector.set(wire.DATA_NONE | wire.ACTION_MASK)
    vector.cause()
    assert not vector.fires(SILENCE)


def test_request_without_fds_takes_the_eventfd_away_and_leaves_the_mask(vector):
    mask, unmask = vector.switch(MASK), vector.switch(UNMASK)
    mask.signal()
    assert taken(mask)
    vector.set(MASK)
    vector.set(UNMASK)
    for event in (mask, unmask):
        event.signal()
    vector.cause()
    assert not vector.fires(SILENCE)
    assert mask.pending() and unmask.pending()
    vector.set(wire.DATA_NONE | wire.ACTION_UNMASK)
    assert vector.fires()


def test_switching_the_kind_off_takes_its_eventfds_away(vector):
    mask, unmask = vector.switch(MASK), vector.switch(UNMASK)
    vector.guest.client.disable_irqs(vector.index)
    for event in (mask, unmask):
        event.signal()
    vector.guest.client.fence()
    assert mask.pending() and unmask.pending()
    vector.guest.client.set_irq_eventfds(vector.index, [vector.event], start=vector.vector)
    vector.cause()
    assert vector.fires(), "masked by an eventfd that is gone"


def test_new_trigger_keeps_the_mask_eventfds(vector):
    """QEMU gives INTx another trigger when it goes over to KVM."""
    unmask = vector.switch(UNMASK)
    fresh = vector.guest.event()
    vector.guest.client.set_irq_eventfds(vector.index, [fresh], start=vector.vector)
    vector.event = fresh
    vector.set(wire.DATA_NONE | wire.ACTION_MASK)
    vector.cause()
    assert not vector.fires(SILENCE)
    unmask.signal()
    assert vector.fires()


def test_reset_keeps_the_mask_eventfds(server):
    vector = Vector(server, "msix")
    guest = vector.guest
    mask, unmask = vector.switch(MASK), vector.switch(UNMASK)
    guest.client.reset()
    guest.pci.set_command(pci.COMMAND_MEMORY | pci.COMMAND_MASTER)
    guest.pci.enable_msix()
    guest.bring_up()
    mask.signal()
    assert taken(mask)
    vector.cause()
    assert not vector.fires(SILENCE)
    unmask.signal()
    assert vector.fires()


def test_each_vector_has_its_own(serve):
    guest = serve("ram:16M", "--queues=8", "--threads=2").guest(queues=8)
    guest.reuse = False
    switches = [guest.event() for _ in range(8)]
    guest.client.call(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, MASK, 1, 8), fds=[each.fd for each in switches])
    for number in (1, 4, 6):
        switches[number].signal()
        assert taken(switches[number])
    for number in range(8):
        guest.read(0, 1, queue=number)
        assert bool(guest.queue_events[number].wait(SILENCE if number in (1, 4, 6) else PATIENCE)) is (number not in (1, 4, 6))


def test_masks_go_round_while_queues_of_two_threads_interrupt(serve):
    guest = serve("ram:16M", "--queues=4", "--threads=2").guest(queues=4)
    guest.reuse = False
    masks, unmasks = [guest.event() for _ in range(4)], [guest.event() for _ in range(4)]
    guest.client.call(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, MASK, 1, 4), fds=[each.fd for each in masks])
    guest.client.call(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, UNMASK, 1, 4), fds=[each.fd for each in unmasks])
    for _ in range(20):
        for number in range(4):
            guest.queue_events[number].clear()
            masks[number].signal()
            guest.read(0, 1, queue=number)
            unmasks[number].signal()
        for number in range(4):
            # which of the two the server saw first is open
            assert taken(masks[number]) and taken(unmasks[number])
            unmasks[number].signal()
            assert guest.queue_events[number].wait(), "an interrupt was lost between a mask and an unmask"
            assert taken(unmasks[number])


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [MASK, UNMASK], ids=["mask", "unmask"])
@pytest.mark.parametrize("index, start, count, fds", [
    pytest.param(wire.IRQ_MSIX, 0, 0, 0, id="count 0"),
    pytest.param(wire.IRQ_MSIX, 0, 0, 1, id="count 0 with an fd"),
    pytest.param(wire.IRQ_MSIX, 0, 2, 1, id="fewer fds than vectors"),
    pytest.param(wire.IRQ_MSIX, 0, 1, 2, id="more fds than vectors"),
    pytest.param(wire.IRQ_MSIX, 1, 2, 2, id="past the last vector"),
    pytest.param(wire.IRQ_MSIX, wire.U32_MAX, 2, 2, id="a sum that wraps"),
    pytest.param(wire.IRQ_MSI, 0, 1, 1, id="MSI, of which there is none"),
    pytest.param(wire.IRQ_ERR, 0, 1, 1, id="ERR"),
    pytest.param(wire.IRQ_REQ, 0, 1, 1, id="REQ"),
    pytest.param(wire.IRQ_ERR, 0, 1, 0, id="ERR without an fd"),
    pytest.param(5, 0, 1, 1, id="kind 5"),
])
def test_bad_mask_by_eventfd_is_refused(client, action, index, start, count, fds):
    events = [EventFd() for _ in range(fds)]
    client.refused(Cmd.SET_IRQS, wire.set_irqs(index, action, start, count), fds=[event.fd for event in events],
                   errnos=(errno.EINVAL,))
    for event in events:
        event.signal()
        client.fence()
        assert event.pending()
        event.close()


@pytest.mark.parametrize("index", [wire.IRQ_ERR, wire.IRQ_REQ])
@pytest.mark.parametrize("flags", [wire.DATA_NONE | wire.ACTION_MASK, wire.DATA_NONE | wire.ACTION_UNMASK])
def test_kind_that_is_not_maskable_is_not_masked(client, index, flags):
    assert not client.irq_info(index).flags & wire.IRQ_INFO_MASKABLE
    client.refused(Cmd.SET_IRQS, wire.set_irqs(index, flags, 0, 1), errnos=(errno.EINVAL,))


@pytest.mark.parametrize("action", [MASK, UNMASK], ids=["mask", "unmask"])
def test_mask_fd_that_is_no_eventfd_is_refused_and_closed(client, action):
    reader, writer = os.pipe()
    with EventFd() as good:
        client.refused(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, action, 0, 2), fds=[good.fd, reader],
                       errnos=(errno.EINVAL,))
        good.signal()
        client.fence()
        assert good.pending()
    os.close(reader)
    os.close(writer)


# --- what a client may do with its copy ---------------------------------------------------------------------------

@pytest.mark.parametrize("flags", [MASK, UNMASK], ids=["mask", "unmask"])
def test_eventfd_that_counts_down_does_not_keep_the_server_awake(server, flags):
    """EFD_SEMAPHORE with the highest count: a read takes 1 of it."""
    vector = Vector(server, "msix")
    vector.switch(flags, value=(1 << 64) - 2, semaphore=True)
    vector.guest.client.fence()
    before = server.cpu_seconds()
    vector.guest.client.silent(0.3)
    assert server.cpu_seconds() - before < 0.2, "the server spins on an eventfd that never empties"
    again = vector.switch(flags, semaphore=True)  # a reasonable count is taken
    again.signal(40)
    assert taken(again)


def test_f09_one_eventfd_that_is_told_of_intx_and_unmasks_it_stops_nothing(server):
    """Each interrupt unmasks itself: it comes again and again until the driver takes it back, beside everything else."""
    vector = Vector(server, "intx")
    vector.set(UNMASK, fds=[vector.event.fd])
    vector.cause()
    for _ in range(20):
        vector.guest.client.fence()
        vector.guest.assert_works()
    vector.guest.virtio.isr()
    vector.guest.client.fence()
    vector.event.clear()
    before = server.cpu_seconds()
    vector.guest.client.silent(0.3)
    assert server.cpu_seconds() - before < 0.2, "the server spins without an interrupt"


def test_eventfd_that_the_client_makes_block_blocks_nobody(vector):
    switch = vector.switch(UNMASK)
    fcntl.fcntl(switch.fd, fcntl.F_SETFL, 0)
    stop = threading.Event()

    def steal():
        while not stop.is_set():
            try:
                os.preadv(switch.fd, [bytearray(8)], -1, os.RWF_NOWAIT)
            except OSError:
                pass
            switch.signal()
    thief = threading.Thread(target=steal)
    thief.start()
    try:
        for _ in range(100):
            vector.guest.client.fence()
    finally:
        stop.set()
        thief.join()
    vector.guest.assert_works()


def test_eventfds_of_an_earlier_session_reach_nobody(server):
    first = Vector(server, "msix")
    old = [EventFd(), EventFd()]
    first.set(MASK, fds=[old[0].fd])
    first.set(UNMASK, fds=[old[1].fd])
    first.guest.close()
    second = Vector(server, "msix")
    for event in old:
        event.signal()
    second.cause()
    assert second.fires()
    assert all(event.pending() for event in old)
    for event in old:
        event.close()


def test_thousand_replacements_keep_one_eventfd(server):
    vector = Vector(server, "msix")
    before = server.fd_count()
    for _ in range(1000):
        with EventFd() as event:
            vector.set(MASK, fds=[event.fd])
    assert server.fd_count() <= before + 1


# --- by message ---------------------------------------------------------------------------------------------------

def test_bool_data_masks_those_that_it_names(serve):
    guest = serve("ram:16M", "--queues=4").guest(queues=4)
    guest.reuse = False
    guest.client.call(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, wire.DATA_BOOL | wire.ACTION_MASK, 1, 4, b"\1\0\xff\0"))
    for number in range(4):
        guest.read(0, 1, queue=number)
        masked = number in (0, 2)
        assert bool(guest.queue_events[number].wait(SILENCE if masked else PATIENCE)) is not masked
    guest.client.call(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, wire.DATA_BOOL | wire.ACTION_UNMASK, 1, 4, b"\0\0\1\1"))
    assert guest.queue_events[2].wait()
    assert not guest.queue_events[0].wait(SILENCE)


@pytest.mark.parametrize("index", [wire.IRQ_ERR, wire.IRQ_REQ])
def test_err_and_req_can_be_triggered_by_the_client_itself(client, index):
    assert client.irq_info(index) == wire.IrqInfo(16, wire.IRQ_INFO_EVENTFD, index, 1)
    with EventFd() as event:
        client.set_irq_eventfds(index, [event])
        client.call(Cmd.SET_IRQS, wire.set_irqs(index, wire.DATA_NONE | wire.ACTION_TRIGGER, 0, 1))
        assert event.wait()
        client.call(Cmd.SET_IRQS, wire.set_irqs(index, wire.DATA_BOOL | wire.ACTION_TRIGGER, 0, 1, b"\1"))
        assert event.wait()
        client.disable_irqs(index)
        client.call(Cmd.SET_IRQS, wire.set_irqs(index, wire.DATA_NONE | wire.ACTION_TRIGGER, 0, 1))
        assert not event.pending()


# --- the request to let the device go -----------------------------------------------------------------------------

def test_client_that_asked_is_told_before_the_server_ends_and_is_served_until_it_goes(serve):
    server = serve()
    guest = server.guest()
    event = guest.event()
    guest.client.set_irq_eventfds(wire.IRQ_REQ, [event])
    server.signal(signal.SIGTERM)
    assert event.wait(), "the client was not told"
    guest.assert_works()
    guest.client.fence()
    guest.close()
    assert server.stop() == 0


def test_client_that_was_told_and_stays_is_sent_away(serve):
    server = serve()
    guest = server.guest()
    event = guest.event()
    guest.client.set_irq_eventfds(wire.IRQ_REQ, [event])
    server.signal(signal.SIGTERM)
    assert event.wait()
    guest.client.dropped()
    assert server.stop() == 0


def test_client_that_did_not_ask_is_sent_away_at_once(serve):
    server = serve()
    client = server.client()
    server.signal(signal.SIGTERM)
    client.dropped()
    assert server.stop() == 0
