# SPDX-License-Identifier: BSD-3-Clause
"""Behind an IOMMU over vhost-user: every address is translated by entries that the front end sends when it is asked, or on its own, takes
back when it likes, and may lie about."""

import os
import threading

import pytest

from pylib import blk, vhost, virtio
from pylib.events import wait_until
from pylib.iommu import ACCESS_FAIL, BOTH, INVALIDATE, IOVA, MISS, READ, SHOWN, UPDATE, WRITE, IommuGuest, message
from pylib.memory import PAGE
from pylib.ring import Segment
from pylib.vm import USUAL_FEATURES
from pylib.vhost import NEED_REPLY, U64, VERSION, P, Req, state
from pylib.wire import MAP_READ, MAP_WRITE

SIZE = 0x10000
TOP = (1 << 64) - 1


def boot(server, **options):
    guest = IommuGuest.boot(server.path, **options)
    server.handed_out.append(guest)
    return guest


@pytest.fixture
def iommu(vhost_server, packed):
    """A guest whose disk is behind an IOMMU."""
    return boot(vhost_server, packed=packed)


def pages(*, of, within):
    """Which of the misses fell into the size bytes at `within`."""
    return [miss.iova - within[0] for miss in of if within[0] <= miss.iova < within[0] + within[1]]


# --- translation --------------------------------------------------------------------------------------------

def test_conformance_everything_behind_an_iommu_is_asked_for_once(iommu):
    """Vrings, tables, buffers: a page each, and not again."""
    iommu.assert_works()
    asked = list(iommu.misses)
    assert asked and len(set(asked)) == len(asked)
    queue = iommu.queue
    assert queue.desc_addr in [miss.iova for miss in asked]
    for _ in range(20):
        iommu.assert_works()
    assert iommu.misses == asked


@pytest.mark.parametrize("page", [PAGE, 2 * PAGE, 1 << 21])
def test_conformance_pages_of_any_size(vhost_server, packed, page):
    guest = boot(vhost_server, packed=packed, queue_size=256)
    guest.page = page
    data = os.urandom(128 * 1024)
    guest.write(16, data)
    assert guest.read(16, 256) == data
    assert len(guest.misses) <= 4 * (1 << 20) // page + 8


def test_d03_a_buffer_of_pages_that_lie_anywhere(iommu):
    """What is contiguous for the driver is not for the front end: rings and buffers alike are put together."""
    count = 24
    backing = iommu.add_memory(IOVA + (1 << 30), count * PAGE)
    order = [count - 1 - n for n in range(count)]
    home, data = IOVA + (2 << 30), os.urandom(count * PAGE)
    user = iommu.users[id(backing)]
    place = {home + n * PAGE: user + order[n] * PAGE for n in range(count)}
    honest = iommu.answer

    def answer(miss):
        at = miss.iova & ~(PAGE - 1)
        return iommu.update(at, PAGE, user=place[at]) if at in place else honest(miss)

    iommu.answer = answer
    iommu.write(0, data)
    assert iommu.transfer(blk.T_IN, 0, Segment(home + 512, (count - 1) * PAGE, True)).status == blk.S_OK
    there = b"".join(backing.memory.read(order[n] * PAGE, PAGE) for n in range(count))
    assert there[512:512 + (count - 1) * PAGE] == data[:(count - 1) * PAGE]


def test_conformance_a_buffer_is_asked_for_page_by_page_with_the_access_that_it_needs(iommu):
    iommu.assert_works()
    window = iommu.add_memory(IOVA + (1 << 30), SIZE)
    del iommu.misses[:]
    assert iommu.transfer(blk.T_IN, 0, Segment(window.iova + 512, 3 * PAGE, True)).status == blk.S_OK
    ours = [miss for miss in iommu.misses if miss.iova >= window.iova]
    assert [miss.iova - window.iova for miss in ours] == [512, PAGE, 2 * PAGE, 3 * PAGE]
    assert {miss.access for miss in ours} == {WRITE}


def test_conformance_entries_that_nobody_asked_for_are_used(iommu):
    window = iommu.space.windows[0]
    assert iommu.next_miss(5) is not None  # the vring asks as soon as it is there
    assert iommu.update(window.iova, window.size) == 0
    iommu.acknowledge()
    del iommu.misses[:]
    for _ in range(3):
        iommu.assert_works()
    assert not iommu.misses


def test_conformance_without_acknowledgements_an_update_is_the_answer(vhost_server):
    guest = boot(vhost_server, protocol=~(P.REPLY_ACK | P.INBAND_NOTIFICATIONS))
    guest.assert_works()


def test_conformance_the_acknowledgement_may_overtake_its_update(iommu):
    """They come over two sockets: it counts what was sent first."""
    def answer(miss):
        page = miss.iova & ~(PAGE - 1)
        iommu.client.send(Req.IOTLB_MSG, message(UPDATE, page, PAGE, iommu.user_of(page), BOTH), flags=VERSION | NEED_REPLY)
        iommu.acknowledge()
        assert iommu.client.reply(Req.IOTLB_MSG).value == 0
    iommu.answer = answer
    for _ in range(10):
        iommu.assert_works()


def test_conformance_an_acknowledgement_waits_for_what_was_sent_before_it(serve, image, packed):
    """The back end does not read while an invalidation waits for I/O: the update behind that is no refusal."""
    owner, waiter = serve(image), serve(image, "--queues=2", transport="vhost-user")
    owner.guest().assert_works()
    guest = boot(waiter, packed=packed, queues=2)
    busy, wanted = guest.add_memory(IOVA + (1 << 30), SIZE), guest.add_memory(IOVA + (2 << 30), SIZE)
    first = guest.submit(guest.prepare(blk.T_IN, 0, length=4096, data_addr=busy.iova))
    while guest.serve(0.2):
        pass
    second = guest.submit(guest.prepare(blk.T_IN, 0, length=4096, data_addr=wanted.iova, queue=1))
    while (miss := guest.next_miss(5)).iova != wanted.iova:
        guest.acknowledge(guest.answer(miss))
    for payload in (message(INVALIDATE, busy.iova, PAGE), message(UPDATE, wanted.iova, PAGE, guest.user_of(wanted.iova), BOTH)):
        guest.client.send(Req.IOTLB_MSG, payload, flags=VERSION | NEED_REPLY)
    guest.acknowledge()
    assert guest.client.silent(0.3)
    assert owner.stop() == 0
    assert [guest.client.reply(Req.IOTLB_MSG).value for _ in range(2)] == [0, 0]
    assert [guest.finish(request).status for request in (first, second)] == [blk.S_OK] * 2


def test_conformance_several_vrings_ask_for_themselves(vhost_server, packed):
    guest = boot(vhost_server, packed=packed, queues=4)
    requests = [guest.submit(guest.prepare(blk.T_IN, queue, length=8192, queue=queue)) for queue in range(4)]
    assert [guest.finish(request).status for request in requests] == [blk.S_OK] * 4
    assert len(set(guest.misses)) == len(guest.misses)


def test_conformance_a_kick_in_the_meantime_asks_nothing_twice(iommu):
    request = iommu.submit(iommu.prepare(blk.T_IN, 0, length=512))
    miss = iommu.next_miss(5)
    for _ in range(50):
        iommu.kick()
    iommu.client.fence()
    assert iommu.next_miss(0.2) is None
    iommu.acknowledge(iommu.answer(miss))
    assert iommu.finish(request).status == blk.S_OK


# --- denied -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["refused", "silence", "no access", "access fail"])
def test_d03_a_buffer_that_is_denied_fails_its_request(iommu, how):
    """By an acknowledgement that says so, or that comes with no update; by an entry without access, or by its own message."""
    bad = 0x1234_5000
    honest = iommu.answer

    def answer(miss):
        if miss.iova != bad:
            return honest(miss)
        if how == "no access":
            assert iommu.update(bad, PAGE, user=SHOWN, access=0) == 0
        if how == "access fail":
            assert iommu.told(message(ACCESS_FAIL, bad, PAGE)) == 0
        return 5 if how == "refused" else 0

    iommu.answer = answer
    for kind, writable in ((blk.T_IN, True), (blk.T_OUT, False)):
        assert iommu.transfer(kind, 0, Segment(bad, 512, writable)).status == blk.S_IOERR
    assert [miss.iova for miss in iommu.misses].count(bad) == 2
    iommu.assert_works()


def test_d03_many_denied_buffers_cost_a_bounded_number_of_questions(iommu):
    iommu.assert_works()
    del iommu.misses[:]
    bad = [Segment(0x1000_0000 + n * PAGE, 512, True) for n in range(40)]
    assert iommu.transfer(blk.T_IN, 0, *bad).status in (blk.S_IOERR, blk.NOT_SET)
    assert len(iommu.misses) < 20
    iommu.assert_works()


@pytest.mark.parametrize("flags, kind, writable, status", [
    (MAP_READ, blk.T_OUT, False, blk.S_OK), (MAP_READ, blk.T_IN, True, blk.S_IOERR),
    (MAP_WRITE, blk.T_IN, True, blk.S_OK), (MAP_WRITE, blk.T_OUT, False, blk.S_IOERR),
])
def test_d05_what_a_translation_does_not_allow_is_not_done(iommu, flags, kind, writable, status):
    window = iommu.add_memory(IOVA + (1 << 30), SIZE, flags=flags)
    before = os.urandom(PAGE)
    window.memory.write(0, before)
    assert iommu.update(window.iova, PAGE, access=flags) == 0  # it is there, and is asked for again with the other access
    assert iommu.transfer(kind, 0, Segment(window.iova, 512, writable)).status == status
    if status != blk.S_OK:
        assert window.memory.read(0, PAGE) == before
    iommu.assert_works()


def test_d05_an_access_that_is_granted_later_counts(iommu):
    window = iommu.add_memory(IOVA + (1 << 30), SIZE)
    assert iommu.update(window.iova, PAGE, access=READ) == 0
    assert iommu.transfer(blk.T_IN, 0, Segment(window.iova, 512, True)).status == blk.S_OK


def test_d03_an_empty_buffer_is_asked_for_too(iommu):
    iommu.assert_works()
    assert iommu.transfer(blk.T_IN, 0, Segment(0x1234_5000, 0, True)).status == blk.S_IOERR


def test_d03_a_vring_that_is_denied_sleeps_until_a_kick_asks_again(vhost_server, packed):
    guest = boot(vhost_server, packed=packed)
    guest.answer = lambda miss: 1
    assert guest.serve(0.5) == 1
    honest = guest.translate
    request = guest.submit(guest.prepare(blk.T_IN, 0, length=512))
    assert guest.serve(0.5) == 1
    guest.answer = honest
    guest.kick()
    assert guest.finish(request).status == blk.S_OK


# --- what is taken back -------------------------------------------------------------------------------------

def test_d08_no_translation_is_kept_over_an_invalidation(iommu):
    first, second = iommu.add_memory(IOVA + (1 << 30), SIZE), iommu.add_memory(IOVA + (2 << 30), SIZE)
    home = IOVA + (3 << 30)
    honest = iommu.answer
    now = [first]
    iommu.answer = lambda miss: iommu.update(home, PAGE, user=iommu.users[id(now[0])]) if miss.iova >= home else honest(miss)
    data = os.urandom(512)
    iommu.write(0, data)
    for turn in range(6):
        now[0] = (first, second)[turn % 2]
        now[0].memory.write(0, bytes(512))
        assert iommu.invalidate(home, PAGE) == 0
        assert iommu.transfer(blk.T_IN, 0, Segment(home, 512, True)).status == blk.S_OK
        assert now[0].memory.read(0, 512) == data


def test_d08_an_update_replaces_what_it_overlaps(iommu):
    first, second = iommu.add_memory(IOVA + (1 << 30), SIZE), iommu.add_memory(IOVA + (2 << 30), SIZE)
    home = IOVA + (3 << 30)
    data = os.urandom(512)
    iommu.write(0, data)
    assert iommu.update(home, 4 * PAGE, user=iommu.users[id(first)]) == 0
    assert iommu.update(home + PAGE, PAGE, user=iommu.users[id(second)]) == 0
    assert iommu.transfer(blk.T_IN, 0, Segment(home + PAGE, 512, True)).status == blk.S_OK
    assert second.memory.read(0, 512) == data and first.memory.read(PAGE, 512) == bytes(512)


@pytest.mark.parametrize("iova, size", [(0, TOP), (0, 0), (IOVA, 1), (IOVA - PAGE, 1 << 40), (IOVA + 8, 8)])
def test_d08_vrings_outlast_the_invalidation_of_their_pages(iommu, iova, size):
    """In part, as a whole, or of everything, whose size no number holds."""
    for _ in range(3):
        iommu.assert_works()
        del iommu.misses[:]
        assert iommu.invalidate(iova, size) == 0
    iommu.assert_works()
    assert iommu.misses


@pytest.mark.parametrize("event_idx", [False, True])
def test_d08_an_idle_vring_asks_for_nothing_until_it_is_notified(vhost_server, packed, event_idx):
    """A guest that goes down switches its IOMMU off before it resets its disk: QEMU complains of every question from then on."""
    guest = boot(vhost_server, packed=packed, features=USUAL_FEATURES | (virtio.F_EVENT_IDX if event_idx else 0))
    for _ in range(3):
        guest.assert_works()
        assert guest.invalidate(0, TOP) == 0
        assert guest.invalidate(0, TOP) == 0
        assert guest.update(0x1000, PAGE, user=SHOWN) == 0
        assert guest.invalidate(0x1000, PAGE) == 0
        guest.client.fence()
        assert guest.next_miss(0.2) is None


def test_d06_an_invalidation_waits_for_what_uses_the_page(serve, image, packed):
    owner, waiter = serve(image), serve(image, transport="vhost-user")
    owner.guest().assert_works()
    guest = boot(waiter, packed=packed)
    window = guest.add_memory(IOVA + (1 << 30), SIZE)
    request = guest.submit(guest.prepare(blk.T_IN, 0, length=4096, data_addr=window.iova))
    while not any(miss.iova >= window.iova for miss in guest.misses):
        assert guest.serve(0.5)
    while guest.serve(0.2):
        pass
    guest.client.send(Req.IOTLB_MSG, message(INVALIDATE, window.iova, PAGE), flags=VERSION | NEED_REPLY)
    assert guest.client.silent(0.5), "the page is given up with I/O in flight"
    assert owner.stop() == 0
    assert guest.client.reply(Req.IOTLB_MSG).value == 0
    assert guest.finish(request).status == blk.S_OK


def test_d06_an_invalidation_waits_for_no_answer_of_the_front_ends(iommu):
    """It may be in the middle of one: what waits for a translation uses none."""
    iommu.assert_works()
    window = iommu.add_memory(IOVA + (1 << 30), SIZE)
    request = iommu.submit(iommu.prepare(blk.T_IN, 0, length=2 * PAGE, data_addr=window.iova))
    miss = iommu.next_miss(5)
    iommu.acknowledge(iommu.answer(miss))
    miss = iommu.next_miss(5)
    assert miss.iova == window.iova + PAGE
    assert iommu.invalidate(window.iova, PAGE) == 0
    assert iommu.invalidate(0, TOP) == 0
    iommu.acknowledge(iommu.answer(miss))
    assert iommu.finish(request).status == blk.S_OK


def test_d08_a_new_table_of_memory_voids_all_translations(iommu):
    iommu.assert_works()
    for _ in range(3):
        del iommu.misses[:]
        iommu.set_table()
        iommu.assert_works()
        assert iommu.queue.desc_addr in [miss.iova for miss in iommu.misses]


def test_d08_a_region_that_is_taken_away_takes_its_translations_along(iommu):
    window = iommu.add_memory(IOVA + (1 << 30), SIZE)
    assert iommu.transfer(blk.T_IN, 0, Segment(window.iova, 512, True)).status == blk.S_OK
    user = iommu.users[id(window)]
    iommu.remove_memory(window)
    assert iommu.transfer(blk.T_IN, 0, Segment(window.iova, 512, True)).status == blk.S_IOERR
    assert iommu.update(window.iova, PAGE, user=user) != 0
    iommu.assert_works()


@pytest.mark.parametrize("way", ["restart", "reset", "features"])
def test_d08_no_translation_outlasts_the_vrings(iommu, way):
    """A front end whose guest begins anew does not say what is void."""
    iommu.assert_works()
    del iommu.misses[:]
    if way == "reset":
        iommu.virtio.reset()
        iommu.bring_up()
    else:
        if way == "features":
            iommu.stop_vring(0)
            iommu.client.tell(Req.SET_FEATURES, U64.pack(virtio.F_VERSION_1 | vhost.F_PROTOCOL_FEATURES))
            assert iommu.update(IOVA, PAGE) != 0, "there is no IOMMU now"
        iommu.restart()
    iommu.assert_works()
    assert iommu.queue.desc_addr in [miss.iova for miss in iommu.misses]


# --- hostile ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("payload", [
    message(UPDATE, IOVA, 0, SHOWN, BOTH), message(UPDATE, IOVA, PAGE, SHOWN, 4), message(UPDATE, IOVA, PAGE, SHOWN, 0xFF),
    message(UPDATE, IOVA, PAGE, SHOWN - 1, BOTH), message(UPDATE, IOVA, PAGE, 0, BOTH), message(UPDATE, IOVA, PAGE, TOP, BOTH),
    message(UPDATE, IOVA, (4 << 20) + 1, SHOWN, BOTH), message(UPDATE, IOVA, TOP, SHOWN, BOTH), message(UPDATE, TOP, PAGE, SHOWN, BOTH),
    message(UPDATE, TOP - PAGE + 1, PAGE, SHOWN, BOTH), message(UPDATE, IOVA, TOP - SHOWN + 1, SHOWN, BOTH),
    message(INVALIDATE, IOVA, 0), message(INVALIDATE, TOP, 2), message(INVALIDATE, PAGE, TOP),
    message(MISS, IOVA, PAGE, SHOWN, BOTH), message(0, IOVA, PAGE, SHOWN, BOTH), message(5, IOVA, PAGE), message(255, IOVA, PAGE),
])
def test_d01_messages_that_make_no_sense_are_refused(iommu, payload):
    iommu.assert_works()
    assert iommu.told(payload) != 0
    iommu.assert_works()


def test_d01_a_page_at_the_very_end_of_what_was_shown(iommu):
    window = iommu.space.windows[0]
    assert iommu.update(0x1000, window.size, user=SHOWN) == 0
    assert iommu.update(0x1000, PAGE, user=SHOWN + window.size - PAGE) == 0
    assert iommu.update(0x1000, PAGE, user=SHOWN + window.size - PAGE + 1) != 0
    iommu.assert_works()


@pytest.mark.parametrize("size", [0, 8, 25, 33, 64])
def test_w04_a_message_of_another_size_is_refused(iommu, size):
    payload = (message(UPDATE, IOVA, PAGE, SHOWN, BOTH) + bytes(64))[:size]
    assert iommu.client.acknowledged(Req.IOTLB_MSG, payload) != 0
    assert iommu.told(message(UPDATE, IOVA, PAGE, SHOWN, BOTH)[:26]) == 0  # its padding need not be there
    iommu.assert_works()


def test_w19_without_the_feature_there_are_no_translations(vhost_guest):
    vhost_guest.client.send(Req.IOTLB_MSG, message(UPDATE, IOVA, PAGE, vhost.USER, BOTH))
    assert vhost_guest.client.reply(Req.IOTLB_MSG).value != 0
    vhost_guest.assert_works()


@pytest.mark.parametrize("way", ["reset", "base", "disable", "memory", "table", "invalidate", "close"])
@pytest.mark.parametrize("what", ["vring", "buffer"])
def test_w08_a_front_end_that_never_answers_keeps_nothing_waiting(vhost_server, packed, what, way):
    guest = boot(vhost_server, packed=packed)
    if what == "buffer":
        guest.assert_works()
        guest.submit(guest.prepare(blk.T_IN, 0, length=512, data_addr=0x1234_5000))
    assert guest.next_miss(5)
    client = guest.client
    if way == "reset":
        client.tell(Req.RESET_DEVICE)
    elif way == "base":
        guest.stop_vring(0)
    elif way == "disable":
        client.tell(Req.SET_VRING_ENABLE, state(0, 0))
    elif way == "memory":
        guest.remove_memory(guest.add_memory(IOVA + (1 << 30), SIZE))
    elif way == "table":
        guest.set_table()
    elif way == "invalidate":
        assert guest.invalidate(0, TOP) == 0
    if way == "close":
        guest.close()
        boot(vhost_server, packed=packed).assert_works()
        return
    client.fence()
    guest.acknowledge(1)  # late, of a question that nobody remembers, or does: then it is asked again by a kick
    if way in ("reset", "base"):
        if way == "reset":
            guest.set_features()
        guest.run()
        guest.assert_works()


def test_w08_the_channel_goes_and_another_comes(vhost_server, packed):
    """What was asked and not answered is asked again."""
    guest = boot(vhost_server, packed=packed)
    first = guest.next_miss(5)
    guest.asked.close()
    guest.asked = guest.channel()
    assert guest.next_miss(5) == first
    guest.acknowledge(guest.answer(first))
    guest.assert_works()


def test_w08_without_a_channel_it_waits_for_what_comes_on_its_own(vhost_server, packed):
    guest = boot(vhost_server, packed=packed, channel=False)
    request = guest.submit(guest.prepare(blk.T_IN, 0, length=512))
    guest.client.fence()
    assert not guest.queue.given_back()
    window = guest.space.windows[0]
    assert guest.update(window.iova, window.size) == 0
    assert wait_until(guest.queue.given_back)
    assert guest.queue.wait(1)[0][0] == request.head


def test_d07_more_entries_than_there_is_room_for(iommu):
    """All are forgotten, and asked for again; memory stays bounded."""
    client = iommu.client
    iommu.assert_works()
    window = iommu.space.windows[0]
    at = 1 << 40

    def fill(first, count):
        for n in range(first, first + count):
            client.send(Req.IOTLB_MSG, message(UPDATE, at + n * PAGE, 512, SHOWN + n * 512 % window.size, BOTH), flags=VERSION | NEED_REPLY)
            if n % 64 == 63:
                for _ in range(64):
                    assert client.reply(Req.IOTLB_MSG).value == 0

    fill(0, 65536 + 4096)
    del iommu.misses[:]
    iommu.assert_works()
    assert iommu.misses, "the vring's entries were forgotten too"


def test_d06_invalidations_race_with_requests(serve, packed):
    """Over two threads, with whatever lands between."""
    server = serve("ram:16M", "--queues=4", "--threads=2", transport="vhost-user")
    guest = boot(server, packed=packed, queues=4)
    guest.reuse = False
    data = [os.urandom(8192) for _ in range(4)]
    for queue in range(4):
        guest.write(queue * 64, data[queue], queue=queue)
    for turn in range(40):
        requests = [guest.submit(guest.prepare(blk.T_IN, queue * 64, length=8192, queue=queue)) for queue in range(4)]
        for n in range(4):
            assert guest.invalidate(IOVA + (turn * 4 + n) % 64 * PAGE, 3 * PAGE) == 0
            guest.serve(0)
        for queue, request in enumerate(requests):
            result = guest.finish(request)
            assert (result.status, result.data) == (blk.S_OK, data[queue])


def test_replays_what_was_in_flight_goes_on_behind_an_iommu(serve, image, packed):
    """The next back end asks for the vrings first, then for what the log says was in flight."""
    owner = serve(image)
    owner.guest().assert_works()
    first = serve(image, transport="vhost-user")
    guest = boot(first, packed=packed, run=False)
    size = guest._options["queue_size"]
    reply = guest.client.ask(Req.GET_INFLIGHT_FD, vhost.INFLIGHT.pack(0, 0, 1, size))
    guest.client.tell(Req.SET_INFLIGHT_FD, reply.payload, fds=reply.fds)
    guest.run()
    request = guest.submit(guest.prepare(blk.T_IN, 8, length=4096))
    while guest.serve(0.3):
        pass
    first.kill()
    first.may_die_by = (9,)
    assert owner.stop() == 0
    second = serve(image, transport="vhost-user")
    again = IommuGuest(vhost.FrontEnd.connect(second.path))
    second.handed_out.append(again)
    again.client.handshake()
    again.asked = again.channel()
    again.space, again.queues, again._options, again.config = guest.space, guest.queues, guest._options, guest.config
    again.kick_events, again.queue_events, again.error_events = guest.kick_events, guest.queue_events, guest.error_events
    again.set_features()
    for window in list(again.space.windows):
        again.space.remove(window)
        again.add_memory(window.iova, window.size, memory=window.memory)
    again.client.tell(Req.SET_INFLIGHT_FD, reply.payload, fds=reply.fds)
    again.start_vring(0, 0x80008000 if packed else 0)
    result = again.finish(request)
    assert result.status == blk.S_OK and result.data == b"".join(n.to_bytes(8, "little") * 64 for n in range(8, 16))
    for fd in reply.fds:
        os.close(fd)
    guest.close()
