# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures: a folder with a short name, `serve` to start servers whose good end is checked, and ready-made ones."""

import pytest

from pylib.server import Server, Workdir, run_cli


@pytest.fixture
def workdir():
    folder = Workdir()
    yield folder
    folder.remove()


@pytest.fixture
def serve(workdir):
    """serve(backend, *options, ...) starts a server; each one's last checks are made after the test."""
    servers = []

    def start(backend="ram:16M", *options, **kwargs):
        server = Server(workdir, backend, *options, **kwargs)
        servers.append(server)
        return server.start()

    yield start
    failures = []
    for server in servers:
        try:
            server.finish()
        except Exception as error:  # every server gets its checks, whatever the others did
            failures.append(error)
    for failure in failures:
        raise failure


@pytest.fixture
def server(serve):
    return serve("ram:16M")


@pytest.fixture
def client(server):
    """A client after a good VERSION."""
    return server.client()


@pytest.fixture
def guest(server):
    """A guest with one queue of 64 entries, MSI-X, no event index."""
    return server.guest()


@pytest.fixture
def image(workdir):
    """A raw image of 8 MiB whose sectors are all different."""
    content = b"".join(number.to_bytes(8, "little") * 64 for number in range(16384))
    return workdir.file("disk.img", content=content)


@pytest.fixture
def cli(workdir):
    """cli(*arguments) runs the command to its end: (status, stderr)."""
    def run(*arguments, **kwargs):
        return run_cli(*arguments, log_dir=workdir.path, **kwargs)
    return run
