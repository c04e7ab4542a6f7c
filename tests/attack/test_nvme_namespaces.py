# SPDX-License-Identifier: BSD-3-Clause
"""Namespaces of an NVMe controller: several backends behind it, and their coming, going and growing while the guest runs."""

import fcntl
import json
import os
import signal
import struct

import pytest

from pylib import faults
from pylib import nvme_spec as spec
from pylib.events import wait_until

M = 1 << 20
# DW0 of the event.
CHANGED = spec.LOG_CHANGED_NS << 16 | spec.EVENT_NS_CHANGED << 8 | spec.EVENT_NOTICE


def card(*namespaces, **more):
    return {"socket": "s0", "device": "nvme", "namespaces": list(namespaces), "queues": 4, **more}


def changed(guest):
    """What the log of changed namespaces says; reading it clears it."""
    done, data = guest.log(spec.LOG_CHANGED_NS, 4096)
    assert done.status == spec.OK
    return [nsid for nsid in struct.unpack("<1024I", data) if nsid]


def wants_events(guest):
    """A request for an event, of namespaces too."""
    assert guest.set_feature(spec.F_ASYNC, spec.NS_CHANGED_NOTICES).status == spec.OK
    return guest.issue(0, spec.ASYNC_EVENT)


def hang_up(server, *namespaces):
    """Writes another configuration, and has it read."""
    server.cards[0]["namespaces"] = list(namespaces)
    server.write(server.cards)
    server.signal(signal.SIGHUP)


def told(guest, request):
    done = guest.finish(0, request)
    assert (done.status, done.result) == (spec.OK, CHANGED)


def test_each_namespace_has_its_own_backend_and_block_size(serve_cards, workdir):
    image = workdir.file("disk.img", 8 * M)
    server = serve_cards([card({"backend": "ram:16M"}, {"backend": str(image), "block-size": 4096, "nsid": 7},
                               {"backend": "ram:4M", "read-only": True, "nsid": 256})], threads=2)
    guest = server.guest_of(0, queues=4)
    assert guest.active_namespaces() == [1, 7, 256]
    sizes = [(guest.namespace(nsid).size, guest.namespace(nsid).block_size) for nsid in (1, 7, 256)]
    assert sizes == [(32768, 512), (2048, 4096), (8192, 512)]
    assert [guest.namespace(nsid).attributes & 1 for nsid in (1, 7, 256)] == [0, 0, 1]
    names = {guest.namespace(nsid).nguid for nsid in (1, 7, 256)}
    assert len(names) == 3
    for sqid in range(1, 5):
        for nsid, block in ((1, 512), (7, 4096)):
            data = bytes([sqid * 16 + nsid]) * block
            address = guest.buffer(data)
            assert guest.io(spec.WRITE, sqid, 1, address, sqid=sqid, nsid=nsid).status == spec.OK
    for sqid in range(1, 5):
        for nsid, block in ((1, 512), (7, 4096)):
            address = guest.buffer(length=block)
            assert guest.io(spec.READ, sqid, 1, address, sqid=5 - sqid, nsid=nsid).status == spec.OK
            assert guest.space.read(address, block) == bytes([sqid * 16 + nsid]) * block
    assert guest.io(spec.WRITE, 0, 1, guest.buffer(length=512), nsid=256).status != spec.OK
    assert guest.io(spec.READ, 0, 1, guest.buffer(length=512), nsid=2).status == spec.INVALID_FIELD


def test_namespace_comes_and_the_guest_is_told(serve_cards):
    server = serve_cards([card({"backend": "ram:16M"})], threads=2)
    guest = server.guest_of(0, queues=4)
    request = wants_events(guest)
    hang_up(server, {"backend": "ram:16M"}, {"backend": "ram:4M", "nsid": 9})
    told(guest, request)
    assert changed(guest) == [9]
    assert guest.active_namespaces() == [1, 9]
    for sqid in range(1, 5):  # every queue can use it as soon as the guest knows of it
        assert guest.io(spec.WRITE, 0, 1, guest.buffer(length=512), sqid=sqid, nsid=9).status == spec.OK
    assert changed(guest) == []


def test_namespace_goes_and_the_guest_is_told(serve_cards, workdir):
    image = workdir.file("disk.img", 8 * M)
    server = serve_cards([card({"backend": "ram:16M"}, {"backend": str(image)})], threads=2)
    guest = server.guest_of(0, queues=4)
    for sqid in range(1, 5):
        assert guest.io(spec.READ, 0, 1, guest.buffer(length=512), sqid=sqid, nsid=2).status == spec.OK
    before = server.fd_count()
    request = wants_events(guest)
    hang_up(server, {"backend": "ram:16M"})
    told(guest, request)
    assert changed(guest) == [2]
    assert guest.active_namespaces() == [1]
    assert guest.namespace(2).size == 0
    for sqid in range(1, 5):
        assert guest.until(lambda: guest.io(spec.READ, 0, 1, guest.buffer(length=512), sqid=sqid, nsid=2).status == spec.INVALID_FIELD)
    assert wait_until(lambda: server.fd_count() < before), "the image stays open"
    guest.assert_works()


def locked(image):
    """Whether a process has the image locked for writing."""
    with open(image, "r+b") as file:
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except BlockingIOError:
            return True
    return False


def test_commands_in_flight_end_before_their_namespace_does(serve_cards, faulty_disk, workdir):
    """The image stays open and locked until the last of them has its data; the guest knows meanwhile, and other commands go on."""
    image = workdir.file("disk.img", 8 * M, b"z" * 4096)
    server = serve_cards([card({"backend": "ram:16M"}, {"backend": str(image)})], threads=2)
    guest = server.guest_of(0, queues=4)
    request = wants_events(guest)
    faulty_disk.hold(faults.READ)
    buffers = [guest.buffer(length=512) for _ in range(4)]
    held = [guest.put_io(spec.READ, 0, 1, buffers[sqid - 1], sqid=sqid, nsid=2) for sqid in range(1, 5)]
    for sqid in range(1, 5):
        guest.kick(sqid)
    assert wait_until(lambda: faulty_disk.hits(faults.READ) == 4)
    hang_up(server, {"backend": "ram:16M"})
    told(guest, request)
    for sqid in range(1, 5):
        assert guest.io(spec.READ, 0, 1, guest.buffer(length=512), sqid=sqid, nsid=1).status == spec.OK
        assert guest.until(lambda: guest.io(spec.READ, 0, 1, guest.buffer(length=512), sqid=sqid, nsid=2).status == spec.INVALID_FIELD)
    assert guest.nothing_comes(1, held[0])
    assert locked(image)
    faulty_disk.open_gate()
    for sqid, cid in enumerate(held, 1):
        assert guest.finish(sqid, cid).status == spec.OK
        assert guest.space.read(buffers[sqid - 1], 512) == b"z" * 512
    assert wait_until(lambda: not locked(image))


def test_controller_reset_while_a_namespace_goes(serve_cards, faulty_disk, workdir):
    image = workdir.file("disk.img", 8 * M)
    server = serve_cards([card({"backend": "ram:16M"}, {"backend": str(image)})], threads=2)
    guest = server.guest_of(0, queues=2)
    faulty_disk.hold(faults.READ)
    guest.put_io(spec.READ, 0, 1, guest.buffer(length=512), sqid=2, nsid=2)
    guest.kick(2)
    assert wait_until(lambda: faulty_disk.hits(faults.READ) == 1)
    hang_up(server, {"backend": "ram:16M"})
    assert guest.until(lambda: guest.active_namespaces() == [1])
    guest.set(spec.CC, guest.get(spec.CC) & ~spec.EN)
    hang_up(server, {"backend": "ram:16M"}, {"backend": str(image)})
    faulty_disk.open_gate()
    guest.wait_csts(spec.RDY, 0)
    guest.bring_up()
    assert guest.until(lambda: guest.active_namespaces() == [1, 2])
    assert guest.io(spec.READ, 0, 1, guest.buffer(length=512), sqid=2, nsid=2).status == spec.OK


def test_namespace_grows_and_shrinks_and_the_guest_is_told(serve_cards, workdir):
    image = workdir.file("disk.img", 8 * M)
    server = serve_cards([card({"backend": "ram:16M"}, {"backend": str(image)})])
    guest = server.guest_of(0)
    for size in (16 * M, 4 * M):
        request = wants_events(guest)
        os.truncate(image, size)
        server.signal(signal.SIGHUP)
        told(guest, request)
        assert changed(guest) == [2]
        assert guest.namespace(2).size == size // 512
        last = guest.io(spec.READ, size // 512 - 1, 1, guest.buffer(length=512), nsid=2)
        behind = guest.io(spec.READ, size // 512, 1, guest.buffer(length=512), nsid=2)
        assert (last.status, behind.status) == (spec.OK, spec.LBA_OUT_OF_RANGE)


def test_other_backend_under_the_same_number_is_another_namespace(serve_cards, workdir):
    server = serve_cards([card({"backend": str(workdir.file("a.img", content=b"a" * 4096))})])
    guest = server.guest_of(0)
    nguid = guest.namespace(1).nguid
    request = wants_events(guest)
    hang_up(server, {"backend": str(workdir.file("b.img", content=b"b" * 8192))})
    told(guest, request)
    assert guest.until(lambda: guest.active_namespaces() == [1])
    assert guest.namespace(1).size == 16
    assert guest.namespace(1).nguid != nguid
    assert 1 in changed(guest)
    address = guest.buffer(length=512)
    assert guest.io(spec.READ, 0, 1, address).status == spec.OK
    assert guest.space.read(address, 512) == b"b" * 512


def test_namespaces_come_and_go_under_load(serve_cards, workdir):
    """What is in flight ends, with its data or because the namespace has gone; nothing hangs, and the other namespace goes on."""
    image = workdir.file("disk.img", 8 * M)
    server = serve_cards([card({"backend": "ram:16M"})], threads=2)
    guest = server.guest_of(0, queues=4)
    buffers = {(sqid, slot): guest.buffer(length=4096) for sqid in range(1, 5) for slot in range(4)}
    for turn in range(20):
        hang_up(server, {"backend": "ram:16M"}, *([{"backend": str(image)}] if turn % 2 == 0 else []))
        for _ in range(8):
            cids = [(sqid, nsid, guest.put_io(spec.READ, 0, 8, buffers[sqid, slot], sqid=sqid, nsid=nsid))
                    for sqid in range(1, 5) for slot, nsid in enumerate((1, 2, 1, 2))]
            for sqid in range(1, 5):
                guest.kick(sqid)
            for sqid, nsid, cid in cids:
                done = guest.finish(sqid, cid)
                assert done.status == spec.OK or nsid == 2 and done.status in (spec.INVALID_FIELD, spec.ABORT_REQUESTED)
    server.assert_alive()


def test_events_wait_until_the_log_was_read(serve_cards):
    """Base 5.2: once told, the kind is masked until its log page is read; what RAE retains stays masked."""
    server = serve_cards([card({"backend": "ram:16M"})])
    guest = server.guest_of(0)
    request = wants_events(guest)
    one, two = {"backend": "ram:16M"}, {"backend": "ram:4M", "nsid": 2}
    hang_up(server, one, two)
    told(guest, request)
    request = guest.issue(0, spec.ASYNC_EVENT)
    hang_up(server, one, two, {"backend": "ram:4M", "nsid": 3})
    assert guest.until(lambda: guest.active_namespaces() == [1, 2, 3])
    assert guest.log(spec.LOG_CHANGED_NS, 4096, rae=1)[1][:12] == struct.pack("<3I", 2, 3, 0)
    assert guest.nothing_comes(0, request)
    assert changed(guest) == [2, 3]
    hang_up(server, one, two)
    told(guest, request)
    assert changed(guest) == [3]


def test_guest_that_wants_no_events_gets_none_but_finds_the_log(serve_cards):
    server = serve_cards([card({"backend": "ram:16M"})])
    guest = server.guest_of(0)
    request = guest.issue(0, spec.ASYNC_EVENT)
    hang_up(server, {"backend": "ram:16M"}, {"backend": "ram:4M"})
    assert guest.until(lambda: guest.active_namespaces() == [1, 2])
    assert guest.nothing_comes(0, request)
    assert changed(guest) == [2]


@pytest.mark.parametrize("text, said", [
    ("{", "all cards stay as they are"),
    ('{"cards": [{"socket": "elsewhere", "device": "nvme", "backend": "ram:1M"}]}', "has no nvme there any more"),
])
def test_file_that_is_wrong_changes_nothing(serve_cards, text, said):
    server = serve_cards([card({"backend": "ram:16M"}, {"backend": "ram:4M"})])
    guest = server.guest_of(0)
    server.config.write_text(text)
    server.signal(signal.SIGHUP)
    assert wait_until(lambda: said in server.stderr())
    assert guest.active_namespaces() == [1, 2]
    guest.assert_works()
    server.write(server.cards)


def test_backend_that_cannot_be_opened_is_told_and_the_others_come(serve_cards, workdir):
    server = serve_cards([card({"backend": "ram:16M"})])
    guest = server.guest_of(0)
    hang_up(server, {"backend": "ram:16M"}, {"backend": str(workdir.path / "missing.img")}, {"backend": "ram:4M"})
    assert guest.until(lambda: guest.active_namespaces() == [1, 3])
    assert wait_until(lambda: "missing.img" in server.stderr())


def test_namespaces_change_without_a_guest(serve_cards):
    server = serve_cards([card({"backend": "ram:16M"})], threads=3)
    for _ in range(10):
        hang_up(server, {"backend": "ram:16M"}, {"backend": "ram:4M"})
        hang_up(server, {"backend": "ram:16M"})
    hang_up(server, {"backend": "ram:16M"}, {"backend": "ram:4M", "nsid": 5})
    guest = server.guest_of(0)
    assert guest.until(lambda: guest.active_namespaces() == [1, 5])


def test_as_many_namespaces_as_there_can_be(serve_cards):
    server = serve_cards([card(*({"backend": f"ram:{i + 1}M"} for i in range(256)))], threads=2)
    guest = server.guest_of(0, queues=2)
    assert guest.active_namespaces() == list(range(1, 257))
    for nsid in (1, 100, 256):
        assert guest.namespace(nsid).size == nsid * M // 512
        assert guest.io(spec.WRITE, 0, 1, guest.buffer(length=512), nsid=nsid, sqid=2).status == spec.OK
    assert guest.flush(nsid=spec.ALL).status == spec.OK


@pytest.mark.parametrize("namespaces, said", [
    ([{"backend": "ram:1M", "nsid": 2}, {"backend": "ram:2M"}], ["namespace 2 is given twice", "nsid"]),
    ([{"backend": "ram:1M", "nsid": 0}], ["nsid", "must be 1 to 256"]),
    ([{"backend": "ram:1M", "nsid": 257}], ["nsid", "must be 1 to 256"]),
    ([{"backend": "ram:1M", "queues": 4}], ["queues"]),
    ([{"nsid": 1}], ["backend"]),
])
def test_namespaces_that_cannot_be_are_refused(workdir, cli, namespaces, said):
    config = workdir.file("c.json", content=json.dumps({"cards": [{**card(*namespaces), "socket": str(workdir.path / "s0")}]}).encode())
    status, stderr = cli("serve", f"--config={config}")
    assert status == 2
    for part in said:
        assert part in stderr
