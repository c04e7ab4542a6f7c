# SPDX-License-Identifier: BSD-3-Clause
"""Row W9: what a VERSION request's JSON may do to its parser; and the negotiation that must come out of good ones."""

import errno
import json

import pytest

from pylib import wire
from pylib.client import Closed, NoReply
from pylib.wire import Cmd

LIMIT = 4096  # bytes of JSON that the server reads


def refuse_version(server, text, *, major=0, minor=0):
    """REFUSE; the session may end after it, because there is nothing to go on with."""
    client = server.connect()
    reply = client.exchange(Cmd.VERSION, wire.version(text=text, major=major, minor=minor))
    number = client.check_refusal(reply)
    client.close()
    return number


def caps(text):
    return b'{"capabilities":{' + text + b"}}\0"


BAD_JSON = {
    "unterminated: no NUL at the end": b'{"capabilities":{}}',
    "unterminated: the NUL is in the middle": b'{"capabilities":{}}\0  ',
    "NUL alone": b"\0",
    "spaces alone": b"   \0",
    "unterminated object": b'{"capabilities":{\0',
    "unterminated string": b'{"capabilities":{"max_msg_fds\0',
    "half an escape": b'{"capabilities":{"a\\u00\0',
    "lone surrogate": b'{"capabilities":{"a":"\\ud800"}}\0',
    "bytes that are not UTF-8": b'{"capabilities":{"a":"\xff\xfe"}}\0',
    "two documents": b'{"capabilities":{}}{"capabilities":{}}\0',
    "an array": b"[]\0",
    "a number": b"1\0",
    "a string": b'"capabilities"\0',
    "null": b"null\0",
    "capabilities is a number": b'{"capabilities":1}\0',
    "capabilities is an array": b'{"capabilities":[]}\0',
    "capabilities is null": b'{"capabilities":null}\0',
    "deep arrays": caps(b'"a":' + b"[" * 1900 + b"]" * 1900),
    "deep objects": b'{"a":' * 700 + b"1" + b"}" * 700 + b"\0",
    "duplicate keys": caps(b'"max_msg_fds":1,"max_msg_fds":8'),
    "duplicate capabilities": b'{"capabilities":{},"capabilities":{"max_msg_fds":1}}\0',
    "max_msg_fds 0": caps(b'"max_msg_fds":0'),
    "max_msg_fds -1": caps(b'"max_msg_fds":-1'),
    "max_msg_fds -2^63": caps(b'"max_msg_fds":-9223372036854775808'),
    "max_msg_fds a string": caps(b'"max_msg_fds":"8"'),
    "max_msg_fds null": caps(b'"max_msg_fds":null'),
    "max_msg_fds a fraction": caps(b'"max_msg_fds":1.5'),
    "max_msg_fds beyond 64 bits": caps(b'"max_msg_fds":' + b"9" * 40),
    "max_msg_fds beyond a double": caps(b'"max_msg_fds":1e999'),
    "max_data_xfer_size 0": caps(b'"max_data_xfer_size":0'),
    "max_data_xfer_size -1": caps(b'"max_data_xfer_size":-1'),
    "max_data_xfer_size a boolean": caps(b'"max_data_xfer_size":true'),
    "max_dma_maps -1": caps(b'"max_dma_maps":-1'),
    "max_dma_maps a string": caps(b'"max_dma_maps":"many"'),
    "pgsizes 0": caps(b'"pgsizes":0'),
    "pgsizes -4096": caps(b'"pgsizes":-4096'),
    "write_multiple a number": caps(b'"write_multiple":1'),
    "twin_socket a string": caps(b'"twin_socket":"yes"'),
}


@pytest.mark.parametrize("name", sorted(BAD_JSON))
def test_w09_bad_version_json_is_refused(server, name):
    refuse_version(server, BAD_JSON[name])


@pytest.mark.parametrize("depth", [2000, 100_000])
def test_w09_json_nested_a_hundred_thousand_levels_deep_is_refused(server, depth):
    refuse_version(server, caps(b'"a":' + b"[" * depth + b"]" * depth))
    refuse_version(server, b"[" * depth + b"\0")
    refuse_version(server, b'{"a":' * depth + b"\0")


@pytest.mark.parametrize("size", [LIMIT + 4096, 1 << 16, 1 << 20])
def test_w09_json_larger_than_any_sensible_one_is_refused(server, size):
    before = server.resident_bytes()
    refuse_version(server, caps(b'"a":"' + b"x" * (size - 30) + b'"'))
    server.assert_grew_less(before, 16 << 20)


def test_w09_json_with_ten_thousand_keys_is_refused(server):
    refuse_version(server, caps(b",".join(b'"k%d":%d' % (i, i) for i in range(10_000))))


def test_w09_good_json_after_a_refused_one_is_a_fresh_clients_affair(server):
    for text in list(BAD_JSON.values())[:10]:
        refuse_version(server, text)
    client = server.client()
    client.fence()


@pytest.mark.parametrize("major", [1, 2, 0xFFFF])
def test_w09_other_major_version_ends_the_session(server, major):
    """The specification closes, libvfio-user sends an error first: both are right; carrying on isn't."""
    client = server.connect()
    client.send(Cmd.VERSION, wire.version(wire.OUR_CAPS, major=major))
    for message in client.dropped():
        client.check_refusal(message)


# --- the negotiation of good ones --------------------------------------------------------------------------------

def reply_json(raw):
    assert raw.endswith(b"\0"), "the reply's JSON has no NUL at its end"
    assert raw.count(b"\0") == 1, "a NUL inside the JSON"
    value = json.loads(raw[:-1])
    assert isinstance(value, dict) and isinstance(value.get("capabilities"), dict), \
        f"the reply has no object of capabilities: {raw!r}"
    return value["capabilities"]


@pytest.mark.parametrize("minor", [0, 1, 2, 3, 0xFFFF])
def test_version_reply_has_the_clients_minor_or_less(server, minor):
    client = server.connect()
    major, ours, _ = client.handshake(minor=minor)
    assert major == 0 and ours <= minor
    assert ours <= 2, "no version 0.3 is specified"


PROPOSALS = {
    "nothing": {},
    "fds": {"max_msg_fds": 8},
    "fds above ours": {"max_msg_fds": 1024},
    "transfer": {"max_data_xfer_size": 65536},
    "transfer above ours": {"max_data_xfer_size": 64 << 20},
    "maps": {"max_dma_maps": 100},
    "pages": {"pgsizes": 4096},
    "more page sizes": {"pgsizes": 4096 | 2 << 20},
    "write_multiple": {"write_multiple": True},
    "no write_multiple": {"write_multiple": False},
    "twin": {"twin_socket": {"supported": True}},
    "migration": {"migration": {"pgsize": 4096}},
    "unknown keys": {"x-mine": {"deep": [1, 2, {"a": None}]}, "another": "text"},
    "all": {**wire.TWIN_CAPS, "migration": {"pgsize": 4096}},
}


@pytest.mark.parametrize("name", sorted(PROPOSALS))
def test_version_reply_holds_capabilities_that_the_client_proposed_and_no_others(server, name):
    client = server.connect()
    _, _, raw = client.handshake(PROPOSALS[name])
    answer = reply_json(raw)
    assert set(answer) <= set(PROPOSALS[name]), f"keys nobody proposed: {set(answer) - set(PROPOSALS[name])}"
    assert len(raw) <= 194, f"{len(raw)} bytes of JSON: QEMU takes 194 at most"
    if "max_msg_fds" in PROPOSALS[name]:
        assert answer.get("max_msg_fds") == 16, "this server takes 16 fds with a message"
    assert answer.get("max_msg_fds", 16) <= 16
    assert 4096 <= answer.get("max_data_xfer_size", wire.MAX_DATA_XFER) <= 64 << 20
    assert answer.get("max_dma_maps", 65535) <= 65535
    assert answer.get("pgsizes", 4096) % 4096 == 0 and answer.get("pgsizes", 4096) >= 4096
    client.fence()


def test_version_json_may_hold_keys_beside_capabilities(server):
    client = server.connect()
    client.handshake(text=b'{"vendor":"x","capabilities":{"max_msg_fds":4},"z":[]}\0')
    client.fence()


@pytest.mark.parametrize("text", [b"{}\0", b' {"capabilities" : { } } \0', b'{"capabilities":{}}\n\0'])
def test_version_json_without_capabilities_or_with_blanks_is_good(server, text):
    client = server.connect()
    _, _, raw = client.handshake(text=text)
    assert reply_json(raw) == {}


def test_version_without_json_means_defaults(server):
    client = server.connect()
    _, _, raw = client.handshake(None)
    if raw:
        assert reply_json(raw) == {}
    client.fence()


def test_version_reply_repeats_the_id_and_the_command(server):
    client = server.connect()
    msg_id = client.send(Cmd.VERSION, wire.version(wire.OUR_CAPS), msg_id=0xBEEF)
    reply = client.reply_to(msg_id)
    assert (reply.cmd, reply.flags, reply.errno, reply.fds) == (Cmd.VERSION, wire.TYPE_REPLY, 0, [])


def test_version_with_no_reply_is_not_a_way_in(server):
    """Nobody can negotiate without an answer: silence and an unusable session, or its end, but no reply."""
    client = server.connect()
    client.send(Cmd.VERSION, wire.version(wire.OUR_CAPS), flags=wire.NO_REPLY)
    try:
        message = client.recv(timeout=0.2)
        pytest.fail(f"a reply to NO_REPLY: {message}")
    except (NoReply, Closed):
        pass


def test_version_refusal_names_a_sensible_errno(server):
    assert refuse_version(server, b"nonsense\0") in (errno.EINVAL, errno.EPROTO, errno.EBADMSG)
