# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures: a folder with a short name, `serve` to start servers whose good end is checked, and ready-made ones.

`server` is one process for all tests of a module that ask for it: what one hostile client did must not reach the
next. After every test it has to be alive, to have every fd back, and to serve a fresh client; its orderly end, leaks
included, is checked after the module's last test. A test that failed, or ended the server, leaves a new one to the
next.
"""

import os

import pytest

from pylib import faults
from pylib.keeper import Keeper
from pylib.cards import Cards
from pylib.server import Server, Workdir, binary, run_cli


@pytest.fixture
def workdir():
    folder = Workdir()
    yield folder
    folder.remove()


@pytest.fixture
def started():
    """Servers that a test starts; each one's last checks are made after it."""
    servers = []
    yield servers
    failures = []
    for server in servers:
        server.close_clients()  # before any check: two servers may share an image
    for server in servers:
        try:
            server.finish()
        except Exception as error:  # every server gets its checks, whatever the others did
            failures.append(error)
    for failure in failures:
        raise failure


def has_direct_io(path):
    """Whether the file system that the file is on can do I/O past the page cache; tmpfs on older kernels cannot."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.fixture
def serve(workdir, started):
    """serve(backend, *options, ...) starts a server."""
    def start(backend="ram:16M", *options, **kwargs):
        if "--direct" in options and not has_direct_io(backend):
            pytest.skip("the file system of the test's folder has no direct I/O")
        started.append(Server(workdir, backend, *options, **kwargs))
        return started[-1].start()

    return start


@pytest.fixture
def serve_cards(workdir, started):
    """serve_cards(cards, *options, ...) starts a server with a configuration file; see pylib.cards. A card's socket is in the test's
    folder."""
    def start(cards, *options, **process):
        for card in cards:
            transport, colon, name = card["socket"].rpartition(":")
            card["socket"] = f"{transport}{colon}{workdir.path / name}"
        started.append(Cards(workdir, cards, *options, **process))
        return started[-1].start()

    return start


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.call_failed = outcome.get_result().failed


class Shared:
    """A module's server, replaced when it is no longer worth sharing."""

    def __init__(self, *options, **kwargs):
        self.workdir = Workdir()
        self.options = options
        self.kwargs = kwargs
        self.server = None

    def get(self):
        if self.server is None:
            self.server = Server(self.workdir, "ram:16M", *self.options, **self.kwargs).start()
        return self.server

    def give_back(self, failed):
        server = self.server
        if failed or server.exit_status is not None or server.may_die_by:
            self.server = None
            if failed:
                print(server.diagnosis())
                server.kill()
            else:
                server.finish()
            return
        try:
            server.check()
        except BaseException:
            self.server = None
            server.kill()
            raise

    def end(self):
        try:
            if self.server is not None:
                self.server.finish()
        finally:
            self.workdir.remove()


@pytest.fixture(scope="module")
def shared(request):
    """A module may have options for it, SERVE_OPTIONS."""
    pool = Shared(*getattr(request.module, "SERVE_OPTIONS", ()))
    yield pool
    pool.end()


@pytest.fixture
def server(shared, request):
    yield shared.get()
    shared.give_back(getattr(request.node, "call_failed", True))


@pytest.fixture
def client(server):
    """A client after a good VERSION."""
    return server.client()


@pytest.fixture
def guest(server):
    """A guest with one queue of 64 entries, MSI-X, no event index."""
    return server.guest()


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def packed(request):
    """The format of the rings: a test that asks for it is run for both."""
    return request.param


@pytest.fixture
def either(server, packed):
    """As `guest`, with rings of each format."""
    return server.guest(packed=packed)


@pytest.fixture
def image(workdir):
    """A raw image of 8 MiB whose sectors are all different."""
    content = b"".join(number.to_bytes(8, "little") * 64 for number in range(16384))
    return workdir.file("disk.img", content=content)


@pytest.fixture
def stuck_guest(serve, image):
    """stuck_guest(...) boots a guest whose requests to the image wait: for a lock that another server holds until its
    `stop`. Gives both."""
    def boot(*options, **kwargs):
        owner, waiter = serve(image), serve(image, *options)
        owner.guest().assert_works()
        return owner, waiter.guest(**kwargs)
    return boot


@pytest.fixture(scope="session")
def faults_library(tmp_path_factory):
    if faults.compiler() is None:
        pytest.skip("there is no C compiler to build the library with")
    if "valgrind" in binary()[0]:
        pytest.skip("valgrind has libraries of its own loaded first")
    return faults.build(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def faulty_disk(workdir, faults_library, monkeypatch):
    """What does the I/O of the servers that are started from now on: see pylib.faults."""
    made = faults.Faults(workdir.path, faults_library, monkeypatch)
    yield made
    made.open_gate()
    made.close()


@pytest.fixture
def cli(workdir):
    """cli(*arguments) runs the command to its end: (status, stderr)."""
    def run(*arguments, **kwargs):
        return run_cli(*arguments, log_dir=workdir.path, **kwargs)
    return run


@pytest.fixture(params=["io_uring", "epoll"])
def loop_kind(request, cli, workdir):
    """What the loops of a test's own servers wait by: a test that asks for it is run for both."""
    if request.param == "io_uring":
        _, stderr = cli("serve", workdir.path / "try", "virtio-blk", "null:no size", "--loop=io_uring")
        if "io_uring is not permitted" in stderr:
            pytest.skip("this host forbids io_uring, which is then not there to test")
    return request.param


@pytest.fixture(scope="module")
def vhost_shared():
    pool = Shared("--queues=4", transport="vhost-user")
    yield pool
    pool.end()


@pytest.fixture
def vhost_server(vhost_shared, request):
    """As `server`, over vhost-user, with four queues."""
    yield vhost_shared.get()
    vhost_shared.give_back(getattr(request.node, "call_failed", True))


@pytest.fixture
def front(vhost_server):
    """A front end that has set all protocol features and said that it is the owner."""
    end = vhost_server.connect()
    end.handshake()
    return end


@pytest.fixture
def vhost_guest(vhost_server, packed):
    """A guest behind vhost-user with one queue of 64 entries, for rings of each format."""
    return vhost_server.guest(packed=packed)


@pytest.fixture(scope="module")
def nvme_shared():
    pool = Shared("--queues=8", device="nvme")
    yield pool
    pool.end()


@pytest.fixture
def nvme_server(nvme_shared, request):
    """As `server`, with an NVMe controller of eight I/O queues."""
    yield nvme_shared.get()
    nvme_shared.give_back(getattr(request.node, "call_failed", True))


@pytest.fixture
def nvme(nvme_server):
    """A guest with one pair of I/O queues of 64 entries, MSI-X."""
    return nvme_server.guest()


# --- keepers ---

@pytest.fixture
def keep():
    """keep(*options) is a keeper whose card is served; at the end its process is ended in order, and only the record is in a slot. device:
    which, if not a virtio disk."""
    workdir = Workdir()
    keepers = []

    def make(*options, backend=None, name=None, device="virtio-blk", card=None):
        keeper = Keeper(workdir, backend or workdir.file(f"disk{len(keepers)}", size=64 << 20), *options, device=device,
                        name=name or f"k{len(keepers)}", card=card)
        keepers.append(keeper)
        return keeper.start()

    yield make
    try:
        for keeper in keepers:
            if keeper.process.poll() is None and keeper.serves:
                assert keeper.terminate() == 0, keeper.stderr()
                assert set(keeper.slots) == {0}, f"slots are left behind: {sorted(keeper.slots)}"
            keeper.check()
    finally:
        for keeper in keepers:
            keeper.close()
        workdir.remove()
