# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures: the library installed once, the examples built against it outside the tree, and each as a running program.

With SIDECARD_EXAMPLES, a folder where they are built already (build-asan/tests/examples), those are driven, and what is about
building is left out.
"""

import os
import subprocess
from pathlib import Path

import pytest

from pylib.program import Installed, Program, copy_examples
from pylib.server import Workdir, environment, sanitizer_reports

BUILT = os.environ.get("SIDECARD_EXAMPLES")


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    if BUILT:
        pytest.skip("nothing is installed of this build")
    return Installed(tmp_path_factory.mktemp("installed"))


class Examples:
    """The folder of the programs, and how they are started."""

    def __init__(self, folder, libraries):
        self.folder = folder
        self.libraries = libraries

    def start(self, name, folder, prefix):
        path = self.folder / name
        if not path.exists():
            pytest.skip(f"{name} is not built here")
        return Program(path, folder, prefix, self.libraries)

    def run_client(self, folder, *words):
        """Runs the client to its end: (status, stdout, stderr)."""
        done = subprocess.run([self.folder / "client", *words], capture_output=True, text=True, check=False, timeout=60,
                              env=dict(environment(folder), **self.libraries))
        reports = sanitizer_reports(folder, done.stderr)
        assert not reports, f"a sanitizer has found something:\n{reports}"
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="session")
def examples(request, tmp_path_factory):
    """Built by the usual compiler."""
    if BUILT:
        return Examples(Path(BUILT).resolve(), {})
    installed = request.getfixturevalue("installed")
    folder = copy_examples(tmp_path_factory.mktemp("built"))
    installed.make(folder)
    return Examples(folder, installed.libraries)


@pytest.fixture
def start(examples):
    """start(name, prefix of the socket) starts an example; its end is checked after the test."""
    programs, folders = [], []

    def begin(name, prefix=""):
        folders.append(Workdir())
        programs.append(examples.start(name, folders[-1].path, prefix))
        return programs[-1]

    yield begin
    try:
        for program in programs:
            program.finish()
    finally:
        for program in programs:
            program.kill()
        for folder in folders:
            folder.remove()
