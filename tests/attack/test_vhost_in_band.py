# SPDX-License-Identifier: BSD-3-Clause
"""Notifications in band over vhost-user: kicks are requests, calls and errors are requests of the back end's, each of which is
acknowledged before the next."""

import os
import select
import struct

import pytest

from pylib import blk
from pylib.client import Closed
from pylib.events import PATIENCE
from pylib.ring import INDIRECT
from pylib.vhost import NEED_REPLY, REPLY, U64, VERSION, FrontEnd, P, Req, VhostGuest, addresses, pack, state
from pylib.vm import BASE

CONFIG_CHANGE, CALL, ERROR = 2, 4, 5
ALL = 0xFFFFFFFF


class InBandGuest(VhostGuest):
    """Has no eventfds: `channel` is where calls come."""

    def start_vring(self, index, base):
        client, queue = self.client, self.queues[index]
        client.tell(Req.SET_VRING_NUM, state(index, queue.size))
        client.tell(Req.SET_VRING_BASE, state(index, base))
        client.tell(Req.SET_VRING_ADDR, addresses(index, queue))
        client.tell(Req.SET_VRING_ENABLE, state(index, 1))

    def kick(self, queue=0, **_):
        self.client.tell(Req.VRING_KICK, state(queue, 0))


@pytest.fixture
def in_band(vhost_server, packed):
    guest = InBandGuest.boot(vhost_server.path, protocol=ALL, packed=packed, queues=2)
    guest.asked = guest.channel()
    yield guest
    guest.asked.close()
    guest.close()


def answer(channel, message, result=0):
    channel.send_bytes(pack(message.request, U64.pack(result), flags=VERSION | REPLY))


def quiet(channel, seconds=0.2):
    return not select.select([channel.sock], [], [], seconds)[0]


def closed(channel):
    """The back end has closed it."""
    assert select.select([channel.sock], [], [], PATIENCE)[0]
    try:
        return channel.sock.recv(1) == b""
    except ConnectionResetError:
        return True


def push(guest, queue=0):
    """One request, made available and told."""
    return guest.submit(guest.prepare(blk.T_IN, 0, length=512, queue=queue))


def finished(guest, request):
    assert guest.finish(request).status == blk.S_OK


def test_conformance_in_band_needs_a_channel_and_acknowledgements(vhost_server):
    for without in (P.BACKEND_REQ, P.REPLY_ACK):
        client = FrontEnd.connect(vhost_server.path)
        client.fence()
        offered = client.ask(Req.GET_PROTOCOL_FEATURES).value
        assert offered & P.INBAND_NOTIFICATIONS
        client.send(Req.SET_PROTOCOL_FEATURES, U64.pack(offered & ~without))
        with pytest.raises((Closed, OSError)):
            client.fence()
        client.close()


def test_w10_a_kick_in_band_without_the_feature_is_refused(vhost_server):
    guest = VhostGuest.boot(vhost_server.path)
    guest.client.refused(Req.VRING_KICK, state(0, 0))
    guest.close()


@pytest.mark.parametrize("payload", [state(4, 0), state(0xFFFFFFFF, 0), state(0, 1), state(0x10000, 0)])
def test_w06_a_bad_kick_in_band_is_refused(in_band, payload):
    in_band.client.refused(Req.VRING_KICK, payload)


def test_conformance_a_vring_is_started_by_a_kick_and_calls_come_one_by_one(in_band):
    first = push(in_band)
    message = in_band.asked.recv_any()
    assert (message.request, message.flags, message.payload) == (CALL, VERSION | NEED_REPLY, struct.pack("<II", 0, 0))
    finished(in_band, first)
    for request in [push(in_band), push(in_band, 1)]:
        finished(in_band, request)
    assert quiet(in_band.asked), "a request of the back end's before the one before was answered"
    answer(in_band.asked, message)
    heard = set()
    for _ in range(2):
        message = in_band.asked.recv_any()
        assert message.request == CALL
        heard.add(struct.unpack("<II", message.payload)[0])
        answer(in_band.asked, message)
    assert heard == {0, 1}


def test_r01_a_broken_vring_is_told_in_band(in_band):
    in_band.queues[0].put_chain((BASE, 17, INDIRECT))  # no table is 17 bytes long
    in_band.kick(0)
    seen = []
    while ERROR not in seen:
        message = in_band.asked.recv_any()
        seen.append(message.request)
        answer(in_band.asked, message)
    in_band.client.fence()


@pytest.mark.parametrize("wrong", ["request", "no reply flag", "size", "nothing is due", "fd"])
def test_w08_a_wrong_answer_ends_the_channel_alone(in_band, wrong):
    channel = in_band.asked
    if wrong != "nothing is due":
        finished(in_band, push(in_band))
        message = channel.recv_any()
        good = {"request": message.request, "payload": U64.pack(0), "flags": VERSION | REPLY}
        if wrong == "request":
            good["request"] = CONFIG_CHANGE
        elif wrong == "no reply flag":
            good["flags"] = VERSION
        elif wrong == "size":
            good["payload"] = bytes(16)
        request = good.pop("request")
        read, write = os.pipe()
        channel.send_bytes(pack(request, good["payload"], flags=good["flags"]), [read] if wrong == "fd" else [])
        os.close(read)
        os.close(write)
    else:
        channel.send_bytes(pack(CALL, U64.pack(0), flags=VERSION | REPLY))
    assert closed(channel)
    in_band.client.fence()
    finished(in_band, push(in_band))


def test_p02_the_front_end_goes_while_a_call_is_unanswered(vhost_server, in_band):
    push(in_band)
    in_band.asked.recv_any()
    in_band.close()
    again = VhostGuest.boot(vhost_server.path)
    again.close()


def test_r18_a_kick_that_cannot_start_a_vring_is_refused_and_a_later_one_starts_it(in_band):
    in_band.stop_vring(0)
    in_band.client.tell(Req.SET_VRING_ADDR, addresses(0, in_band.queue, user=0))  # no memory was shown there
    for _ in range(2):
        in_band.client.refused(Req.VRING_KICK, state(0, 0))
    in_band.client.tell(Req.SET_VRING_ADDR, addresses(0, in_band.queue))
    finished(in_band, push(in_band))
