# SPDX-License-Identifier: BSD-3-Clause
"""Tables that a tool keeps in docs/performance.md."""

from .served import TOP, CommandError

PATH = TOP / "docs" / "performance.md"


class Page:
    """What stands between a tool's two markers."""

    def __init__(self, tool):
        self.begin, self.end = f"<!-- tools/{tool}: begin -->", f"<!-- tools/{tool}: end -->"

    def write(self, text):
        page = PATH.read_text(encoding="utf-8")
        before, _, rest = page.partition(self.begin)
        _, found, after = rest.partition(self.end)
        if not found:
            raise CommandError(f"{PATH} has no lines {self.begin} and {self.end}")
        PATH.write_text(f"{before}{self.begin}\n\n{text}\n{self.end}{after}", encoding="utf-8")
