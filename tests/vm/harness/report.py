# SPDX-License-Identifier: BSD-3-Clause
"""Counts and prints what became of each test."""

import time


class Report:
    """Prints a line for each test as it ends and the sums at the end of the run."""

    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []
        self._begun = time.monotonic()

    def note(self, text):
        """A line that is no result."""
        print(text, flush=True)

    def good(self, name, seconds):
        """A test passed."""
        self.passed += 1
        print(f"ok    {name} ({seconds:.1f} s)", flush=True)

    def bad(self, name, text):
        """A test failed; `text` says what was seen and may have many lines."""
        self.failed.append(name)
        print(f"FAIL  {name}", flush=True)
        for line in text.rstrip().splitlines():
            print(f"      {line}", flush=True)

    def skip(self, name, reason):
        """A test was left out."""
        self.skipped.append((name, reason))
        print(f"skip  {name}: {reason}", flush=True)

    def finish(self):
        """Prints the sums; returns the exit status."""
        print(f"\n{time.monotonic() - self._begun:.0f} s")
        for name in self.failed:
            print(f"failed: {name}")
        for reason in sorted({reason for _, reason in self.skipped}):
            count = sum(1 for _, why in self.skipped if why == reason)
            print(f"skipped {count}: {reason}")
        tail = f", {len(self.skipped)} skipped" if self.skipped else ""
        print(f"{self.passed} passed, {len(self.failed)} failed{tail}", flush=True)
        return 1 if self.failed or not self.passed else 0
