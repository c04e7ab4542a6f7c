# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard check --restarts`: a server that ends with its client, and is started anew. Each client waits for another server."""

import os
import socket
import time
from contextlib import suppress

from pylib.checks import Over, check
from pylib.fake import FakeVfio
from pylib.server import run_command


class Restarted(FakeVfio):
    """One client for each socket at the path. `lost`: who came to one that was about to end."""

    lost = 0
    over = False

    def close(self):
        self.over = True
        super().close()

    def _run(self):
        while True:
            try:
                self.client, _ = self.listener.accept()
            except OSError:
                return
            self.clients += 1
            with self.client, suppress(OSError):
                while self._serve():
                    pass
            time.sleep(0.02)  # as long as a process takes to end: its socket is still there
            self.begin_anew()
            if self.over:
                return

    def begin_anew(self):
        old = self.listener
        with suppress(OSError):
            old.setblocking(False)
            while True:
                old.accept()[0].close()
                self.lost += 1
        os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen(8)
        old.close()


def test_each_client_waits_for_a_server_of_its_own(workdir):
    with Restarted(workdir.path / "s") as server:
        status, tests, sums = check(Over("vfio-user", workdir.path / "s"), "*-info/form", "--restarts")
        assert status == 0 and sums["passed"] == len(tests) > 1, tests
        assert server.clients > 2 * len(tests) and server.lost == 0, "none comes to a server that is about to end"


def test_a_server_that_stays_is_not_taken_for_another(serve, workdir):
    server = serve("ram:16M", transport="vfio-user")
    status, _, stderr = run_command("check", f"vfio-user:{server.path}", "--restarts", "--timeout=1", log_dir=workdir.path)
    assert status == 1 and "started anew" in stderr, stderr


def test_asking_which_protocol_it_speaks_would_end_the_server(workdir):
    status, _, stderr = run_command("check", workdir.path / "s", "--restarts", log_dir=workdir.path)
    assert status == 2 and "type vfio-user:" in stderr
