# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard inspect` of servers that lie, loop, stop half-way or say nothing: it ends, says what is wrong in words, and shows the rest."""

import json
import os
import re
import struct

import pytest

from pylib import vhost, wire
from pylib.events import patiently, timed, within
from pylib.fake import CLOSE, FakeVfio, FakeVhost, refusal, reply
from pylib.server import run_command
from pylib.vhost import P, Req
from pylib.wire import Cmd

OK, FAILED = 0, 1
COMMON, NOTIFY, ISR, DEVICE = 1, 2, 3, 4
PROBLEM_TIME = 7.0  # seconds beside one answer's time: far less than one for each message


def vendor_cap(next_at, kind, offset, size, *, bar=4):
    body = struct.pack("<BBBBBBBBII", 9, next_at, 20 if kind == NOTIFY else 16, kind, bar, 0, 0, 0, offset, size)
    return body + (struct.pack("<I", 4) if kind == NOTIFY else b"")


def virtio_config(*, device=0x1042, common=0x38, device_size=64):
    config = bytearray(256)
    config[0:16] = struct.pack("<HHHHIHBB", 0x1AF4, device, 0, 0x10, 0x01000001, 0, 0, 0)
    config[0x34] = 0x40
    for at, cap in ((0x40, vendor_cap(0x50, COMMON, 0, common)), (0x50, vendor_cap(0x60, DEVICE, 0x400, device_size)),
                    (0x60, vendor_cap(0, NOTIFY, 0x800, 0x800))):
        config[at:at + len(cap)] = cap
    return config


def nvme_config():
    config = bytearray(256)
    config[0:16] = struct.pack("<HHHHIHBB", 0x1B36, 0x10, 0, 0, 0x01080202, 0, 0, 0)
    return config


@pytest.fixture
def fake(workdir):
    made = []

    def make(kind, *args, **kwargs):
        made.append(kind(workdir.path / f"fake{len(made)}", *args, **kwargs))
        return made[-1]
    yield make
    for each in made:
        each.close()


@pytest.fixture
def inspect(workdir):
    """inspect(socket, *options): (status, JSON or None, stderr); it is never killed by a signal, and what it prints drives no terminal."""
    def run(socket, *options, timeout=60):
        status, out, err = run_command("inspect", socket, "--json", *options, log_dir=workdir.path, timeout=timeout)
        assert status in (OK, FAILED), err
        assert not re.search(r"[^\x20-\x7e\n]", out + err), "something that is not printable ASCII"
        assert out or len(err.splitlines()) == 1
        return status, json.loads(out) if out else None, err
    return run


def problems(found):
    return " | ".join(found["problems"])


# --- the first words ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("answer", [b"", b"\0", b"hello", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 4096, bytes(4096)],
                         ids=["nothing", "NUL", "text", "HTTP", "ones", "zeros"])
def test_garbage_for_version_is_no_server(fake, inspect, answer):
    server = fake(FakeVfio)
    server.answers[Cmd.VERSION] = lambda message: CLOSE if not answer else answer
    status, found, err = inspect(server.path, "--timeout=1")
    assert (status, found) == (FAILED, None) and str(server.path) in err


@pytest.mark.parametrize("greeting", [b"220 mail.example ESMTP\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x1b[2J\x1b]0;mine\x07"],
                         ids=["SMTP", "SSH", "escapes"])
def test_somebody_else_s_greeting_is_no_server(fake, inspect, greeting):
    server = fake(FakeVfio)
    server.greeting = greeting
    status, found, _ = inspect(server.path, "--timeout=1")
    assert (status, found) == (FAILED, None)


@timed
def test_a_server_that_says_nothing_is_waited_for_once(fake, inspect):
    server = fake(FakeVfio)
    server.answers[Cmd.VERSION] = lambda message: None
    with within(1 + PROBLEM_TIME):
        status, _, err = inspect(server.path, "--timeout=1")
    assert status == FAILED and "1000 ms" in err
    assert server.clients == 1


def test_a_path_that_is_no_text_drives_no_terminal(fake, inspect, workdir):
    made = fake(FakeVfio)
    path = os.fsencode(workdir.path) + b"/s\xff\x1b[2J"
    os.rename(made.path, path)
    status, found, _ = inspect(os.fsdecode(path))
    assert status == OK and found["socket"].endswith("/s??[2J")
    status, out, err = run_command("inspect", os.fsdecode(path), log_dir=workdir.path)
    assert status == OK and "/s??[2J" in out and "\x1b" not in out + err


# --- vfio-user ------------------------------------------------------------------------------------------------

def test_what_a_good_server_says_is_shown(fake, inspect):
    """Else none of the tests below means anything."""
    config = virtio_config()
    server = fake(FakeVfio, config, bars={4: bytes(0x1000)})
    server.regions[4][0x12:0x14] = struct.pack("<H", 2)  # queues
    server.regions[4][0x400:0x408] = struct.pack("<Q", 100)
    status, found, _ = inspect(server.path)
    assert (status, found["problems"]) == (OK, [])
    assert found["virtio"]["config"]["capacity_size"] == 51200 and len(found["virtio"]["queues"]) == 2


@pytest.mark.parametrize("passive", [False, True])
def test_what_is_written_is_put_back(fake, inspect, passive):
    server = fake(FakeVfio, virtio_config(), bars={4: bytes(0x1000)})
    server.regions[4][0x12:0x14] = struct.pack("<H", 3)
    server.regions[4][0x00] = 7     # which features are selected
    server.regions[4][0x16] = 9     # which queue
    before = {index: bytes(region) for index, region in server.regions.items()}
    inspect(server.path, *["--passive"] * passive)
    assert {index: bytes(region) for index, region in server.regions.items()} == before
    touched = {(region, offset) for region, offset, _ in server.writes}
    assert touched == (set() if passive else {(wire.CONFIG, 4), (4, 0x00), (4, 0x16)})


def test_counts_without_end_are_bounded(fake, inspect):
    server = fake(FakeVfio)
    server.answers[Cmd.GET_INFO] = lambda message: reply(message, struct.pack("=IIII", 16, 3, 0xFFFFFFFF, 0xFFFFFFFF))
    server.answers[Cmd.GET_IRQ_INFO] = lambda message: reply(message, struct.pack("=IIII", 16, 0xFFFFFFFF, 0, 0xFFFFFFFF))
    status, found, _ = inspect(server.path)
    assert status == FAILED and "4294967295 regions; only the first 64" in problems(found) and len(found["irqs"]) == 64


@pytest.mark.parametrize("size", [0, 1, 63, 64, 255, 257, 1 << 20, (1 << 64) - 1])
def test_configuration_spaces_of_any_size(fake, inspect, size):
    server = fake(FakeVfio, virtio_config())
    server.answers[Cmd.GET_REGION_INFO] = lambda message: reply(message, struct.pack(
        "=IIIIQQ", 32, 3, wire.parse_region_info(message.payload).index, 0, size, 0))
    status, found, _ = inspect(server.path, "--hex")
    assert status == FAILED
    assert len(found.get("config_space", "")) // 2 == min(size, 256) // 4 * 4  # it has 256, whatever it says


def region_reply(message, tail, *, argsz=None, cap_offset=32, size=0x1000):
    payload = struct.pack("=IIIIQQ", 32 + len(tail) if argsz is None else argsz, 15, wire.parse_region_info(message.payload).index,
                          cap_offset, size, 0)
    return reply(message, payload + tail)


@pytest.mark.parametrize("tail, more", [
    (struct.pack("=HHIII", 1, 1, 32, 0, 0), {}),                                       # leads to itself
    (struct.pack("=HHI", 9, 1, 40) + struct.pack("=HHI", 9, 1, 32), {}),                # a loop of two
    (struct.pack("=HHIII", 1, 1, 0, 0xFFFFFFFF, 0), {}),                                # areas that did not come
    (struct.pack("=HHIIIQQ", 1, 1, 0, 1, 0, (1 << 64) - 4096, 8192), {}),               # an area whose end wraps
    (b"", {"argsz": 0xFFFFFFFF}),
    (b"", {"cap_offset": 0xFFFFFFFC}),
    (b"\1", {}),
], ids=["itself", "a loop of two", "areas that did not come", "an area that wraps", "argsz", "cap_offset", "cut off"])
def test_broken_capabilities_of_a_region(fake, inspect, tail, more):
    server = fake(FakeVfio)
    server.answers[Cmd.GET_REGION_INFO] = lambda message: region_reply(message, tail, **more)
    status, found, _ = inspect(server.path)
    assert status == FAILED and "region info" in problems(found) and len(found["irqs"]) == 5


def test_very_many_areas_are_bounded(fake, inspect):
    areas = b"".join(struct.pack("=QQ", 4096 * i, 4096) for i in range(1000))
    server = fake(FakeVfio)
    server.answers[Cmd.GET_REGION_INFO] = lambda message: region_reply(
        message, struct.pack("=HHIII", 1, 1, 0, 1000, 0) + areas, size=4096 * 1000)
    _, found, _ = inspect(server.path)
    assert all(len(region["areas"]) == 64 and region["areas_left_out"] == 936 for region in found["regions"])


def test_lists_that_loop_are_said_to(fake, inspect):
    config = virtio_config()
    config[0x61] = 0x40
    status, found, _ = inspect(fake(FakeVfio, config, bars={4: bytes(0x1000)}).path)
    assert status == FAILED and "0x40, where it has been" in problems(found)
    assert len(found["pci"]["capabilities"]) == 3 and found["virtio"]["device"] == "blk"


def test_a_virtio_device_with_every_bit_set(fake, inspect):
    config = virtio_config(device=0x1041, device_size=0xC00)
    server = fake(FakeVfio, config, bars={4: b"\xff" * 0x1000})
    status, found, _ = inspect(server.path)
    assert status == OK
    assert len(found["virtio"]["features"]) == 64 and found["virtio"]["queues_count"] == 65535
    assert len(found["virtio"]["queues"]) == 1024 and found["virtio"]["queues_left_out"] == 64511


@pytest.mark.parametrize("change", ["common too small", "outside", "bar 6", "none"])
def test_virtio_structures_that_are_nowhere(fake, inspect, change):
    config = virtio_config()
    if change == "common too small":
        config = virtio_config(common=0x20)
    elif change == "outside":
        config[0x48:0x4C] = struct.pack("<I", 0xFFFFFFF0)
    elif change == "bar 6":
        config[0x44] = 6
    else:
        config[6] = 0
    status, found, _ = inspect(fake(FakeVfio, config, bars={4: bytes(0x1000)}).path)
    assert status == FAILED and "no virtio 1 device" in problems(found)


def test_a_configuration_that_ends_before_its_length_is_shown_as_far_as_it_goes(fake, inspect):
    server = fake(FakeVfio, virtio_config(device_size=0x400), bars={4: bytes(0x1000)})
    good = server.read
    server.answers[Cmd.REGION_READ] = lambda message: \
        refusal(message, 11) if 0x408 <= struct.unpack_from("=QI", message.payload)[0] < 0x800 else good(message)
    status, found, _ = inspect(server.path, "--hex")
    assert status == OK and found["virtio"]["config_bytes"] == " ".join(["00"] * 8)


def nvme_bar(cap, cc, csts):
    bar = bytearray(0x2000)
    bar[0:12] = struct.pack("<QI", cap, 0x10400)
    bar[0x14:0x18] = struct.pack("<I", cc)
    bar[0x1C:0x20] = struct.pack("<I", csts)
    return bar


@pytest.mark.parametrize("cc, csts", [(1, 1), (1, 0), (0, 1)])
def test_a_controller_in_use_is_left_alone(fake, inspect, cc, csts):
    server = fake(FakeVfio, nvme_config(), bars={0: nvme_bar(1 << 37 | 255, cc, csts)})
    status, found, _ = inspect(server.path)
    assert status == OK and "is enabled" in found["nvme"]["identify"]
    assert {region for region, _, _ in server.writes} == {wire.CONFIG}


@pytest.mark.parametrize("cap", [1 << 37 | 255, 0, (1 << 64) - 1, 1 << 37, 15 << 48 | 1 << 37 | 255, 15 << 32 | 1 << 37 | 255])
@timed
def test_a_controller_that_never_becomes_ready(fake, inspect, cap):
    server = fake(FakeVfio, nvme_config(), bars={0: nvme_bar(cap, 0, 0)})
    with within(1 + PROBLEM_TIME):
        status, found, _ = inspect(server.path)
    assert status == FAILED and "identify: " in problems(found)
    assert found["nvme"]["version"] == "1.4.0"
    assert bytes(server.regions[0][0x14:0x18]) == bytes(4), "it is left enabled"
    assert bytes(server.regions[wire.CONFIG][4:6]) == bytes(2)


@pytest.mark.parametrize("kind", ["virtio", "nvme"])
@pytest.mark.parametrize("how", ["close", "hang", "cut", "refuse", "long"])
def test_any_message_may_be_answered_badly(fake, inspect, kind, how):
    """The first, the second, ... of all messages: what was found before is shown, and it never takes much longer than one answer."""
    def make():
        return fake(FakeVfio, virtio_config() if kind == "virtio" else nvme_config(),
                    bars={4: bytes(0x1000)} if kind == "virtio" else {0: nvme_bar(1 << 37 | 255, 1, 1)})

    plain = make()
    assert inspect(plain.path)[0] == OK
    count = len(plain.seen)
    assert count > 30
    # One that hangs takes a second each.
    for bad in range(1, count) if how != "hang" else (1, 18):
        def attempt(seconds, bad=bad):
            server = make()
            good = server.answer

            def answer(message):
                if len(server.seen) != bad + 1:
                    return good(message)
                data = good(message)
                return {"close": CLOSE, "hang": None, "refuse": refusal(message, 5), "cut": reply(message, data[16:20]),
                        "long": reply(message, data[16:] + bytes(70000))}[how]
            server.answer = answer
            with within(seconds + PROBLEM_TIME):
                status, found, _ = inspect(f"vfio-user:{server.path}", f"--timeout={seconds}")
            assert found is not None, f"message {bad}: nothing was printed"
            assert status == FAILED or how in ("refuse", "long", "cut"), f"message {bad}"
            server.close()
        patiently(attempt)


# --- vhost-user -----------------------------------------------------------------------------------------------

ALL = P.MQ | P.REPLY_ACK | P.CONFIG | P.STATUS | P.CONFIGURE_MEM_SLOTS
FS_CONFIG = b"tag\x1b[31m\x07".ljust(36, b"\0") + struct.pack("<I", 1)


def test_what_a_good_back_end_says_is_shown(fake, inspect):
    server = fake(FakeVhost, features=1 << 32, protocol=ALL, config=b"myfs".ljust(36, b"\0") + struct.pack("<I", 1), queues=2)
    status, found, _ = inspect(f"vhost-user:{server.path}")
    assert (status, found["problems"]) == (OK, [])
    assert (found["virtio"]["device"], found["virtio"]["config"]["tag"], found["virtio"]["queues_count"]) == ("fs", "myfs", 2)
    assert inspect(server.path)[1]["protocol"] == "vhost-user"


@pytest.mark.parametrize("size", [0, 1, 7, 8, 36, 60, 96, 200, 255, 256, 300])
def test_how_long_a_configuration_is_is_found_out(fake, inspect, size):
    server = fake(FakeVhost, features=1 << 6, protocol=ALL, config=bytes(range(1, 256)) * 2, queues=2)
    server.config = server.config[:size]
    status, found, _ = inspect(f"vhost-user:{server.path}", "--hex")
    assert status == OK
    assert bytes.fromhex(found["virtio"].get("config_bytes", "")) == server.config[:256]


def test_a_back_end_s_text_drives_no_terminal(fake, inspect):
    server = fake(FakeVhost, features=1 << 32, protocol=ALL, config=FS_CONFIG)
    _, found, _ = inspect(f"vhost-user:{server.path}", "--device=fs")
    assert found["virtio"]["config"]["tag"] == "tag?[31m?" and not found["virtio"]["guessed"]


def test_back_ends_with_every_bit_set(fake, inspect):
    server = fake(FakeVhost, features=(1 << 64) - 1, protocol=ALL, config=b"\xff" * 256, queues=(1 << 64) - 1, slots=(1 << 64) - 1)
    status, found, _ = inspect(f"vhost-user:{server.path}")
    assert status == OK
    assert found["virtio"]["queues_count"] == 65535 and found["connection"]["memory_slots"] == (1 << 63) - 1
    assert len(found["virtio"]["features"]) == 64


@pytest.mark.parametrize("payload", [b"", bytes(7), bytes(9), bytes(300), bytes(12 + 256), b"\xff" * 12 + bytes(256), bytes(12 + 257)],
                         ids=["0", "7", "9", "300", "268", "ones", "269"])
def test_answers_of_the_wrong_size(fake, inspect, payload):
    for request in (Req.GET_FEATURES, Req.GET_PROTOCOL_FEATURES, Req.GET_QUEUE_NUM, Req.GET_CONFIG, Req.GET_STATUS):
        server = fake(FakeVhost, features=1 << 32, protocol=ALL, config=bytes(60))
        server.answers[request] = lambda message, server=server: server.reply(message, payload)
        inspect(f"vhost-user:{server.path}", "--timeout=1")


@pytest.mark.parametrize("how", ["close", "hang", "garbage"])
def test_any_request_may_be_answered_badly(fake, inspect, how):
    plain = fake(FakeVhost, features=1 << 32, protocol=ALL, config=bytes(60))
    assert inspect(f"vhost-user:{plain.path}")[0] == OK
    asked = [message.request for message in plain.seen if message.request in plain.numbers or message.request == Req.GET_CONFIG]
    for request in dict.fromkeys(asked) if how != "hang" else (Req.GET_FEATURES, Req.GET_CONFIG):
        def attempt(seconds, request=request):
            server = fake(FakeVhost, features=1 << 32, protocol=ALL, config=bytes(60))
            server.answers[request] = lambda message: {"close": CLOSE, "hang": None, "garbage": b"\xa5" * 400}[how]
            with within(seconds + PROBLEM_TIME):
                status, _, _ = inspect(f"vhost-user:{server.path}", f"--timeout={seconds}")
            assert status == FAILED
        patiently(attempt)


def test_files_that_nobody_asked_for_are_closed(fake, inspect, workdir):
    server = fake(FakeVhost, features=1 << 32, protocol=ALL, config=bytes(60))
    with open(workdir.file("x", 1), "rb") as held:
        server.answers[Req.GET_FEATURES] = lambda message: [server.reply(message, vhost.U64.pack(1 << 32)), [held.fileno()] * 8]
        status, _, _ = inspect(f"vhost-user:{server.path}")
        assert status == OK
