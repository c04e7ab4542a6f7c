# SPDX-License-Identifier: BSD-3-Clause
"""Hundreds and thousands of cards in one process: each is served, and those that are idle cost memory only."""

import os
import resource
import shlex

import pytest

from pylib.events import wait_until
from pylib.server import Workdir, binary

M = 1 << 20
CARDS = 1000
MOST_PRIVATE = 64 << 10  # bytes, for an idle card
MOST_RESIDENT = 8 * M    # for a process with one card


@pytest.fixture(autouse=True)
def enough_fds():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8 * CARDS:
        pytest.skip(f"needs {8 * CARDS} open files, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def workdir():
    """In memory: ext4 takes a hundred times as long to make a thousand files where a thousand were removed just before."""
    folder = Workdir("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    yield folder
    folder.remove()


@pytest.fixture
def cards(workdir):
    """cards(count): entries of a configuration file, over each transport and on each kind of backend in turn. cards(count, transport,
    backend): all of one kind."""
    def make(count, transport=None, backend=None):
        entries = []
        for i in range(count):
            name = backend or ("null", "file")[i // 2 % 2]
            entries.append({"socket": f"{transport or ('vfio-user', 'vhost-user')[i % 2]}:c{i}", "device": "virtio-blk",
                            "backend": "null:16M" if name == "null" else str(workdir.file(f"disk{i}.img", M))})
        return entries

    return make


def test_a_thousand_idle_cards_cost_memory_only(serve, serve_cards, cards, loop_kind):
    little = serve("null:16M", f"--loop={loop_kind}").private_bytes()
    server = serve_cards(cards(CARDS), f"--loop={loop_kind}")
    if not server.sanitized():
        each = (server.private_bytes() - little) / (CARDS - 1)
        assert each < MOST_PRIVATE, f"an idle card costs {each / 1024:.1f} KiB"
        server.assert_comes_to_rest(2)
    for number in range(CARDS):
        assert server.listens(number), f"nobody listens at card {number}"
    for number in range(0, CARDS, 111):
        server.guest_of(number).read(0, 8)


def test_one_card_is_small(serve, image, loop_kind):
    """All that is resident, shared libraries included, before and while it is used."""
    server = serve(image, f"--loop={loop_kind}")
    if server.sanitized():
        pytest.skip("a sanitizer takes more than the program")
    assert server.resident_bytes() < MOST_RESIDENT
    server.guest().assert_works()
    assert server.resident_bytes() < MOST_RESIDENT


def test_a_thousand_cards_are_greeted_all_at_once(serve_cards, cards):
    """Each has a client at the same time, and each client gets an answer."""
    server = serve_cards(cards(CARDS, "vfio-user", "null"), threads=2)
    clients = []
    for number in range(CARDS):
        server.path = server.path_of(server.cards[number])
        clients.append(server.client())
    for client in clients:
        client.fence()


def test_more_disks_run_on_files_than_a_loop_registers(serve_cards, cards, workdir, loop_kind):
    count = 300
    server = serve_cards(cards(count, "vfio-user", "file"), f"--loop={loop_kind}")
    guests = [server.guest_of(number, memory=M) for number in range(count)]
    for number, guest in enumerate(guests):
        guest.write(8, number.to_bytes(2, "big") * 256)
    for number, guest in enumerate(guests):
        assert guest.read(8, 1) == number.to_bytes(2, "big") * 256
        assert (workdir.path / f"disk{number}.img").read_bytes()[4096:4608] == number.to_bytes(2, "big") * 256


def test_guests_that_are_idle_cost_memory_only(serve_cards, cards, loop_kind):
    count = 200
    server = serve_cards(cards(count), f"--loop={loop_kind}")
    little = server.private_bytes()
    guests = [server.guest_of(number, memory=M) for number in range(count)]
    for guest in guests:
        guest.read(0, 8)
    if not server.sanitized():
        each = (server.private_bytes() - little) / count
        assert each < MOST_PRIVATE, f"an idle guest costs {each / 1024:.1f} KiB"
        server.assert_comes_to_rest(1)


def test_guests_that_have_gone_cost_nothing(serve_cards, cards, loop_kind):
    count = 100
    server = serve_cards(cards(count), f"--loop={loop_kind}")
    if server.sanitized():
        pytest.skip("a sanitizer keeps what is freed")
    before = server.private_bytes()
    guests = [server.guest_of(number, memory=M) for number in range(count)]
    for guest in guests:
        guest.read(0, 8)
    taken = server.private_bytes() - before
    for guest in guests:
        guest.close()
    assert wait_until(lambda: server.private_bytes() - before < taken / 4), \
        f"{(server.private_bytes() - before) >> 10} KiB of {taken >> 10} are still there"


# --- open files ---------------------------------------------------------------------------------------------------

def limited(monkeypatch, soft, hard):
    """For every `sidecard` that this test starts."""
    monkeypatch.setenv("SIDECARD", shlex.join(["prlimit", f"--nofile={soft}:{hard}", "--", *binary()]))


def test_limit_of_open_files_is_raised_as_far_as_it_goes(serve_cards, cards, monkeypatch):
    limited(monkeypatch, 64, 2000)
    server = serve_cards(cards(100, "vfio-user", "null"))
    assert server.fd_limit() == 2000
    for number in range(100):
        server.path = server.path_of(server.cards[number])
        server.client()
    assert "open files" not in server.stderr()


def test_limit_that_all_clients_would_exceed_is_told(serve_cards, cards, monkeypatch):
    limited(monkeypatch, 64, 300)
    server = serve_cards(cards(100, "vfio-user", "null"))
    assert "100 cards need up to" in server.stderr() and "may have 300" in server.stderr()
    server.guest_of(99).read(0, 8)


def test_limit_that_cannot_suffice_is_refused_with_numbers(cli, workdir, monkeypatch):
    limited(monkeypatch, 64, 100)
    path = workdir.path / "c.json"
    entries = [f'{{"socket": "{workdir.path}/s{i}", "device": "virtio-blk", "backend": "null:1M"}}' for i in range(100)]
    path.write_text(f'{{"cards": [{", ".join(entries)}]}}')
    code, stderr = cli("serve", f"--config={path}")
    assert code == 1 and len(stderr.splitlines()) == 1
    assert "100 cards need 220 open files" in stderr and "may have 100" in stderr
    assert not [name for name in os.listdir(workdir.path) if name.startswith("s")]
