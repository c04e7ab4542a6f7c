# SPDX-License-Identifier: BSD-3-Clause
"""Which processors measurements run on, and how far apart these are at the time."""

import subprocess

from .served import TOP, CommandError

SERVER, CLIENT = 0, 1
PROBE = TOP / "build/tests/perf/perf-cores"
# Nanoseconds of a round trip. Between two processors that share a cache it takes 50 to 100, between others 250 and more.
FAR = 160


def on(processor):
    """The words that make a command run on that processor alone."""
    return ["taskset", "-c", str(processor)]


def round_trip():
    """Nanoseconds now."""
    done = subprocess.run([PROBE, str(SERVER), str(CLIENT)], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise CommandError(f"processors {SERVER} and {CLIENT} are needed: {done.stderr.strip()}")
    return float(done.stdout)


def distance(before, after):
    """Of a measurement between two probes: near, far, or changing while it ran."""
    far = [before >= FAR, after >= FAR]
    return "changing" if far[0] != far[1] else "far" if far[0] else "near"
