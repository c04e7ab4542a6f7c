# SPDX-License-Identifier: BSD-3-Clause
"""The examples are built outside the tree, against the installed library, by nothing but pkg-config and a compiler."""

import os
import re
import shutil
import subprocess

import pytest

from pylib.program import copy_examples
from pylib.server import ROOT

PROGRAMS = ["card", "client", "entropy", "own-loop"]
# As a compiler of C++, g++ says of every member that is left out that it is, though their names are given.
BY = {
    "gcc": ["CC=gcc", "CXX=g++"],
    "clang": ["CC=clang", "CXX=clang++"],
    "c++": ["CC=g++ -x c++ -std=c++20 -Wno-missing-field-initializers", "CXX=g++"],
}


@pytest.mark.parametrize("compiler", BY)
def test_examples_build_without_a_warning(installed, tmp_path, compiler):
    folder = copy_examples(tmp_path)
    installed.make(folder, *BY[compiler])
    for name in PROGRAMS:
        assert os.access(folder / name, os.X_OK), f"make has not made {name}"


def test_the_library_alone_is_linked(installed, examples):
    """What the library itself needs is none of its users' affair."""
    for name in PROGRAMS:
        done = subprocess.run(["readelf", "-d", examples.folder / name], capture_output=True, text=True, check=True)
        needed = set(re.findall(r"NEEDED.*\[(.+?)\]", done.stdout))
        assert "libsidecard.so.0" in needed, f"{name} needs {needed}"
        assert not [each for each in needed if "uring" in each or "jansson" in each], f"{name} needs {needed}"


def test_man_finds_each_function(installed):
    if not shutil.which("man"):
        pytest.skip("there is no man to find them")
    pages = [path.name for path in installed.root.rglob("sdc_*.3*")]
    (folder,) = {path.parent.parent for path in installed.root.rglob("sdc_*.3*")}
    exported = subprocess.run([ROOT / "tools/exports", *installed.root.rglob("sidecard/*.h")], capture_output=True, text=True, check=True)
    assert sorted(pages) == [f"{name}.3" for name in exported.stdout.split()]
    for page in pages:
        target = re.fullmatch(r"\.so (man3/sidecard-[\w-]+\.3)\n", next(folder.rglob(page)).read_text())
        assert target and (folder / target[1]).exists(), f"{page} leads nowhere"
    done = subprocess.run(["man", "-M", str(folder), "sdc_vfio_client_post"], capture_output=True, text=True, check=False,
                          env=dict(os.environ, MANPAGER="cat", LC_ALL="C"))
    assert "sdc_vfio_client_post(struct sdc_vfio_client *client" in done.stdout, done.stderr
