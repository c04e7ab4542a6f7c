# SPDX-License-Identifier: BSD-3-Clause
"""sidecard serve --config: many cards from one file, and mistakes in it: one line that names the file, the place in it, the value, and what
to write."""

import json
import os
import signal

import pytest

from pylib import blk, virtio
from pylib.events import wait_until

M = 1 << 20
BLK = {"device": "virtio-blk", "backend": "ram:16M"}


def card(socket, **more):
    return {"socket": socket, **BLK, **more}


@pytest.fixture
def refused(cli, workdir):
    """refused(document, *parts): the server refuses the file, with one line that has every part in it, and leaves no socket behind. Text
    is taken as it is; the rest is written as JSON."""
    path = workdir.path / "c.json"

    def check(document, *parts, status=2, options=()):
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        code, stderr = cli("serve", f"--config={path}", *options)
        assert len(stderr.splitlines()) == 1 and stderr.startswith("sidecard: "), stderr
        assert code == status, stderr
        for part in parts:
            assert part.lower() in stderr.lower(), f"{part!r} is not in: {stderr}"
        left = {name for name in os.listdir(workdir.path) if name not in ("c.json", "log")}
        assert not any(name.startswith("s") for name in left), f"left behind: {left}"

    return check


# --- good files -------------------------------------------------------------------------------------------------

def test_every_card_of_a_file_is_served_over_its_transport(serve_cards, workdir):
    image = workdir.file("disk.img", 8 * M)
    server = serve_cards([card("s0"), card("vhost-user:s1", backend=str(image)), card("vfio-user:s2", backend="null:16M")])
    for number in (0, 1):
        server.guest_of(number).assert_works()
    server.guest_of(2).read(0, 8)


def test_options_of_a_file_reach_their_card_alone(serve_cards):
    server = serve_cards([card("s0", queues=3, serial="FIRST", **{"read-only": True, "block-size": 4096, "queue-size": 64}),
                          card("s1", serial="SECOND", packed=False), card("s2", **{"block-size": "4k", "size-max": "64k"})])
    first = server.guest_of(0, queues=3, queue_size=64)
    assert first.config.num_queues == 3 and first.config.blk_size == 4096 and serial(first) == b"FIRST"
    second = server.guest_of(1)
    assert second.config.blk_size == 512 and serial(second) == b"SECOND"
    assert not second.virtio.device_features() & virtio.F_RING_PACKED
    assert server.guest_of(2).config.size_max == 64 << 10


def serial(guest):
    return guest.do(blk.T_GET_ID, length=20).data.rstrip(b"\0")


def test_command_line_goes_before_the_file(serve_cards):
    server = serve_cards([card("s0"), card("s1")], "--threads=3", threads=1)
    assert wait_until(lambda: len(server.threads()) >= 3), "the threads of the command line are not there"
    server.guest_of(1).assert_works()


def test_cards_are_spread_over_threads(serve_cards):
    """Each has one queue, and each thread gets some: none does all the work."""
    server = serve_cards([card(f"s{i}") for i in range(4)], threads=2)
    before = server.threads()
    for number in range(4):
        server.guest_of(number).assert_works()
    assert wait_until(lambda: sum(naps > before.get(thread, 0) for thread, naps in server.threads().items()) >= 2), \
        f"{before} {server.threads()}"


@pytest.mark.parametrize("mode", ["always", "adaptive"])
def test_two_cards_that_poll_share_a_thread(serve_cards, mode):
    """Each answers while the other is busy and while it is idle; neither takes the thread from the other."""
    server = serve_cards([card("s0", poll=mode), card("vhost-user:s1", poll=mode)])
    guests = [server.guest_of(0), server.guest_of(1)]
    for turn in range(50):
        for guest in guests:
            guest.write(turn, bytes([turn]) * 512)
        for guest in guests:
            assert guest.read(turn, 1) == bytes([turn]) * 512
    for index in range(16):  # one has its ring full, and the other is asked
        guests[0].submit(guests[0].prepare(blk.T_IN, 8 * index, length=4096), kick=False)
    guests[0].kick()
    guests[1].assert_works()
    assert len(guests[0].queue.wait(16)) == 16


def test_sessions_of_one_card_that_fail_do_not_touch_another(serve_cards):
    server = serve_cards([card("s0"), card("s1"), card("vhost-user:s2")])
    neighbours = [server.guest_of(1), server.guest_of(2)]
    for _ in range(3):
        client = server.connect()  # to the first card
        client.send_bytes(b"\xff" * 64)
        client.dropped()
        for neighbour in neighbours:
            neighbour.assert_works()


def test_hangup_looks_at_every_backend_again(serve_cards, workdir):
    images = [workdir.file(f"disk{i}.img", 8 * M) for i in range(3)]
    server = serve_cards([card(f"s{i}", backend=str(image)) for i, image in enumerate(images)], threads=2)
    guests = [server.guest_of(i) for i in range(3)]
    for image in images:
        os.truncate(image, 16 * M)
    server.signal(signal.SIGHUP)
    for guest in guests:
        assert guest.config_event.wait(), "no configuration interrupt"
        assert blk.parse_config(guest.virtio.config_read(0, blk.CONFIG_SIZE)).capacity == 16 * M // 512


def test_file_of_one_card_and_relative_paths(serve_cards, workdir, monkeypatch):
    workdir.file("disk.img", 8 * M)
    monkeypatch.chdir(workdir.path)
    serve_cards([card("s0", backend="disk.img")]).guest_of(0).assert_works()


# --- mistakes ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, parts", [
    ("", ["c.json:", "end of file"]),
    ("{", ["c.json:1:1", "end of file"]),
    ('{"cards": [\n  {"socket": "s0",\n   "device" "virtio-blk"}]}', ["c.json:3:", "':' expected"]),
    ('{"cards": [{"socket": "s0", "socket": "s1"}]}', ["duplicate", "socket"]),
    ("[]", ["must be an object"]),
    ("{}", ['"cards" is missing']),
    ('{"cards": {}}', ["cards: {}", "must be a list"]),
    ('{"cards": []}', ["cards: []", "must be a list"]),
    ('{"cards": [7]}', ["cards[0]: 7", "must be an object"]),
    ('{"cards": ' + "[" * 5000, ["c.json:1:", "depth"]),
])
def test_text_that_is_no_list_of_cards(refused, text, parts):
    refused(text, *parts)


@pytest.mark.parametrize("change, parts", [
    ({"queues": 0}, ["cards[1].queues: 0: must be 1 to 1024", 'write for example "queues": 4']),
    ({"queues": 1025}, ["cards[1].queues: 1025: must be 1 to 1024"]),
    ({"queues": -1}, ["cards[1].queues: -1:"]),
    ({"queues": 1.5}, ["cards[1].queues: 1.5: must be a number"]),
    ({"queues": "4"}, ['cards[1].queues: "4": must be a number']),
    ({"queues": None}, ["cards[1].queues: null: must be a number"]),
    ({"queues": [4]}, ["cards[1].queues: [4]: must be a number"]),
    ({"queue-size": 100}, ["cards[1].queue-size: 100: must be a power of two"]),
    ({"queue_size": 64}, ["cards[1].queue_size", 'did you mean "queue-size"?']),
    ({"quees": 4}, ["cards[1].quees", 'did you mean "queues"?']),
    ({"namspaces": []}, ["cards[1].namspaces", 'did you mean "namespaces"?']),
    ({"que\nes": 4}, ["cards[1].que?es"]),
    ({"zzzzzzzz": 4}, ["cards[1].zzzzzzzz", "no such key"]),
    ({"--queues": 4}, ["cards[1].--queues", 'did you mean "queues"?']),
    ({"read-only": "yes please"}, ['cards[1].read-only: "yes please": must be true or false', '"read-only": true']),
    ({"write-cache": 1}, ["cards[1].write-cache: 1: must be true or false", '"write-cache": false']),
    ({"serial": 7}, ["cards[1].serial: 7: must be text", '"serial": "DISK1"']),
    ({"serial": "x" * 21}, ["cards[1].serial", "21 characters", "20"]),
    ({"serial": "x" * 4000}, ["cards[1].serial", "4000 characters", "..."]),
    ({"block-size": 1024}, ["cards[1].block-size: 1024: must be 512 or 4096"]),
    ({"size-max": "many"}, ['cards[1].size-max: "many"', "size in bytes"]),
    ({"size-max": True}, ["cards[1].size-max: true: must be a size"]),
    ({"socket-mode": "rw"}, ['cards[1].socket-mode: "rw"', "octal"]),
    ({"socket-owner": "no-such-user-here"}, ["cards[1].socket-owner", "no-such-user-here"]),
    ({"threads": 2}, ["cards[1].threads", 'beside "cards"']),
    ({"device": "virtio-bkl"}, ['cards[1].device: "virtio-bkl"', 'did you mean "virtio-blk"?']),
    ({"device": "zzz"}, ["cards[1].device", "there is no such device"]),
    ({"device": 7}, ["cards[1].device: 7: must be text"]),
    ({"socket": 7}, ["cards[1].socket: 7: must be text"]),
    ({"namespaces": [{"backend": "ram:1M"}]}, ["cards[1].namespaces", "virtio-blk has one backend"]),
    ({"socket": "s0"}, ['cards[1].socket: "s0" is that of cards[0] too']),
    ({"socket": "vhost-user:s0"}, ['cards[1].socket: "s0" is that of cards[0] too']),
    ({"socket": "vhost-usr:s1"}, ["cards[1]", "vhost-usr"]),
])
def test_card_with_a_mistake_names_the_place(refused, workdir, monkeypatch, change, parts):
    monkeypatch.chdir(workdir.path)
    refused({"cards": [card("s0"), {**card("s1"), **change}, card("s2")]}, "c.json: ", *parts)


@pytest.mark.parametrize("missing", ["socket", "device", "backend"])
def test_card_without_what_it_needs(refused, missing):
    refused({"cards": [{name: value for name, value in card("s0").items() if name != missing}]}, f'cards[0]: "{missing}" is missing')


@pytest.mark.parametrize("change, parts", [
    ({"threads": 0}, ["threads: 0: must be 1 to 64"]),
    ({"loop": "select"}, ['loop: "select": must be auto, io_uring or epoll']),
    ({"loop": 1}, ["loop: 1"]),
    ({"log-level": "loud"}, ['log-level: "loud"']),
    ({"queues": 4}, ["queues", 'inside "cards"']),
    ({"backend": "x"}, ["backend", 'inside "cards"']),
    ({"socket": "x"}, ["socket", 'inside "cards"']),
    ({"thread": 4}, ['did you mean "threads"?']),
    ({"card": []}, ['did you mean "cards"?']),
    ({"ready-fd": 4}, ["ready-fd"]),
])
def test_mistake_beside_the_cards(refused, change, parts):
    refused({"cards": [card("s0")], **change}, *parts)


@pytest.mark.parametrize("bad, parts", [
    ({"backend": "missing.img"}, ["cards[2]: ", "no such file", "missing.img"]),
    ({"backend": "ram:1000"}, ["cards[2]: ", "ram:1000"]),
    ({"socket": "no/folder/s2"}, ["cards[2]: ", "no/folder/s2"]),
    ({"socket": "s0.lock"}, ["cards[2]: ", "s0.lock"]),
])
def test_card_that_cannot_be_made_ends_the_process_and_leaves_no_socket(refused, workdir, monkeypatch, bad, parts):
    monkeypatch.chdir(workdir.path)
    document = {"cards": [card("s0"), card("vhost-user:s1"), {**card("s2"), **bad}, card("s3")]}
    workdir.path.joinpath("c.json").write_text(json.dumps(document))
    refused(document, "c.json: ", *parts, status=2 if bad["backend" if "backend" in bad else "socket"] == "ram:1000" else 1)


def test_socket_that_another_server_has_ends_the_process(serve, cli, workdir):
    server = serve("ram:16M")
    path = workdir.path / "c.json"
    path.write_text(json.dumps({"cards": [card(str(workdir.path / "x0")), card(str(server.path))]}))
    code, stderr = cli("serve", f"--config={path}")
    assert code == 1 and "cards[1]: " in stderr and "in use" in stderr
    assert not os.path.lexists(workdir.path / "x0")
    server.guest().assert_works()


@pytest.mark.parametrize("arguments, part", [
    (["--queues=4"], "--queues: with --config"), (["--read-only"], "--read-only: with --config"), (["s"], "'s': with --config"),
    (["--connect"], "--connect: with --config"), (["s", "virtio-blk", "ram:1M"], "with --config"), (["--thread=3"], "--threads"),
    (["--threads=0"], "--threads=0")])
def test_command_line_with_a_file_says_nothing_of_cards(cli, workdir, arguments, part):
    path = workdir.path / "c.json"
    path.write_text(json.dumps({"cards": [card(str(workdir.path / "x0"))]}))
    code, stderr = cli("serve", f"--config={path}", *arguments)
    assert code == 2 and part in stderr and len(stderr.splitlines()) == 1, stderr


def test_file_that_is_not_there_or_a_folder(cli, workdir):
    missing = workdir.path / "missing.json"
    code, stderr = cli("serve", f"--config={missing}")
    assert code == 1 and str(missing) in stderr and "no such file" in stderr
    code, stderr = cli("serve", f"--config={workdir.path}")
    assert code == 1 and str(workdir.path) in stderr and "is a directory" in stderr.lower()
