# SPDX-License-Identifier: BSD-3-Clause
"""docs/writing-a-card.md says what the examples do."""

import re

from pylib.server import ROOT

GUIDE = (ROOT / "docs" / "writing-a-card.md").read_text(encoding="utf-8")
EXCERPTS = re.findall(r"^```c\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.[ch]*")}


def test_the_guides_code_is_the_examples_own():
    assert len(EXCERPTS) >= 6
    for excerpt in EXCERPTS:
        assert any(excerpt in source for source in SOURCES.values()), f"this is in no example:\n{excerpt}"


def test_the_guide_leaves_nothing_of_the_card_out():
    for name in ("card.c", "card.h"):
        left = SOURCES[name]
        for excerpt in EXCERPTS:
            left = left.replace(excerpt, "")
        code = [line for line in left.splitlines() if line and not line.startswith("//") and line != "#pragma once"]
        assert not code, f"{name} has lines that the guide does not show: {code}"


def test_the_card_has_about_as_many_lines_as_the_guide_says():
    lines = int(re.search(r"in full: (\d+) lines", GUIDE)[1])
    assert abs(SOURCES["card.c"].count("\n") - lines) < 10


def test_the_client_prints_what_the_guide_shows(start, examples, tmp_path):
    card = start("card")
    status, stdout, _ = examples.run_client(tmp_path, card.socket, "Hello, card")
    assert status == 0
    shown = "".join(f"    {line}\n" for line in stdout.splitlines())
    assert './client card.sock "Hello, card"\n' in GUIDE and f"\n{shown}\n" in GUIDE
