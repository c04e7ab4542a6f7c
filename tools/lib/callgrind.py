# SPDX-License-Identifier: BSD-3-Clause
"""Instructions of a server for each request, by callgrind: they don't hang on what else the machine does."""

import os
import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from . import clients, servers
from .clients import BLOCK
from .served import CommandError


def tool(out, *options):
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *options]


def total(out):
    """Of a whole profile."""
    found = re.findall(r"^totals: (\d+)", Path(out).read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise CommandError(f"callgrind wrote no sum into {out}")
    return int(found[-1])


def calls_of(out, function):
    """How often it was called. Names are written out where they are met first: (number) name."""
    text = Path(out).read_text(encoding="utf-8")
    number = re.search(rf"^c?fn=\((\d+)\) {function}$", text, re.MULTILINE)
    if not number:
        raise CommandError(f"callgrind's profile has no {function}")
    return sum(int(count) for count in re.findall(rf"^cfn=\({number.group(1)}\).*\n(?:c\S+\n)*calls=(\d+)", text, re.MULTILINE))


def of_sidecard(binary, transport, device, backend, depth, options, counts=(10000, 30000)):
    """The difference between two runs, of which one has so many requests more: what both have once is in neither. The server never
    polls, since looking in vain would be counted too; the client does."""
    totals = []
    with tempfile.TemporaryDirectory(prefix="callgrind-") as folder:
        for count in counts:
            out = Path(folder) / str(count)
            with servers.Sidecard(binary, transport, device, backend, "--poll=never", f"--queue-size={servers.QUEUE_SIZE}",
                                  wrapper=tool(out)) as server:
                clients.output_of([binary, "bench", server.address(), "--rw=randread", f"--bs={BLOCK}", f"--iodepth={depth}", "--poll",
                                   f"--number_ios={count}", "--eta=never", *options], timeout=600)
            totals.append(total(out))
    return (totals[1] - totals[0]) / (counts[1] - counts[0])


def spdk_folder():
    """A tree of SPDK that valgrind can run (it knows no AVX-512), or None."""
    named = os.environ.get("SPDK_VALGRIND_DIR")
    return Path(named) if named and (Path(named) / "build/bin/spdk_tgt").exists() else None


class WatchedTarget(servers.SpdkTarget):
    """Under callgrind: valgrind cannot give it huge pages."""

    def start(self, command):
        command = list(command)
        command[command.index("-s") + 1] = 1200
        super().start([*command, "--no-huge"])


def of_spdk(tree, client_tree, transport, device, depth):
    """Two seconds in the middle of a run whose client always has more requests than the target, slow as it is under callgrind, can do; so
    it hardly ever looks in vain. They are counted by the calls of the null disk."""
    with tempfile.TemporaryDirectory(prefix="callgrind-") as folder:
        out = Path(folder) / "out"
        with WatchedTarget(tree, transport, device, "null", 64, wrapper=tool(out, "--instr-atstart=no")) as target:
            target.resume()
            failed = []
            client = threading.Thread(target=_drive, args=(client_tree, target, depth, failed))
            client.start()
            time.sleep(5)
            for switch, seconds in (("on", 2), ("off", 0)):
                subprocess.run(["callgrind_control", "-i", switch, str(target.pid)], capture_output=True, check=True, timeout=60)
                time.sleep(seconds)
            client.join()
            if failed:
                raise failed[0]
        return total(out) / calls_of(out, "bdev_null_submit_request")


def _drive(tree, target, depth, failed):
    try:
        clients.Bdevperf(tree).run(target, clients.Work(depth, 10))
    except CommandError as error:
        failed.append(error)
