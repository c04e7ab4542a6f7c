# SPDX-License-Identifier: BSD-3-Clause
"""How figures are written, and what they were measured on."""

import os
import platform
import re
import statistics
import subprocess
from pathlib import Path


def thousands(value):
    return f"{value / 1000:.0f} k" if value >= 100000 else f"{value / 1000:.1f} k"


def rounded(value):
    """Three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values, form="{:.2f}"):
    """Median, and lowest to highest."""
    return f"{form.format(statistics.median(values))} ({form.format(min(values))} to {form.format(max(values))})"


def table(head, rows):
    """Lines of a Markdown table."""
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(map(str, row))} |" for row in rows)]


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def machine(binary, folder):
    """In words that say enough to judge the figures, and no more; folder: where the files lie that are measured."""
    information = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*: (.*)$", information, re.MULTILINE)
    kind = "shared vCPUs of a cloud VM" if " hypervisor " in information else "processors"
    filesystem = output_of("findmnt", "-n", "-o", "FSTYPE", "-T", str(folder))
    release = re.match(r"\d+\.\d+", platform.release()).group()
    return (f"{os.cpu_count()} {kind} ({model.group(1) if model else platform.machine()}), Linux {release}, the file on {filesystem}; "
            f"{output_of(str(binary), '--version')}, gcc {output_of('cc', '-dumpfullversion')}, optimised as it is installed.")
