# SPDX-License-Identifier: BSD-3-Clause
"""Measures the sides of a case in turn, round after round, and notes how far apart the processors were before and after each run."""

import statistics
import sys
from contextlib import ExitStack

from . import cores, syscalls

FIGURES = ("iops", "p50", "p99", "p99.9", "mean", "cpu")


class Side:
    """A client at a server."""

    def __init__(self, name, server, client):
        self.name, self.server, self.client = name, server, client


class Case:
    """Sides that are asked for the same. what: {column: value}; the first side is what the others are compared with. before: called
    before each run, gives figures of how things stand then."""

    def __init__(self, what, work, sides, before=dict):
        self.what, self.work, self.sides, self.before = what, work, sides, before
        self.rounds = []  # of each, a run for each side
        self.calls = {}   # name of the side: (server's, client's) for each request

    def record(self):
        """For JSON."""
        return {"what": self.what, "rw": self.work.rw, "iodepth": self.work.depth, "seconds": self.work.seconds,
                "sides": [{"name": side.name, "client": side.client.name, "server": side.server.name,
                           "runs": [line[index] for line in self.rounds],
                           "calls": dict(zip(("server", "client"), self.calls[side.name])) if side.name in self.calls else None}
                          for index, side in enumerate(self.sides)]}


class Turns:
    """Goes through cases; count_calls takes a run of each more. Probes are shared by the run before and the one after."""

    def __init__(self, rounds, count_calls=True):
        self.rounds, self.count_calls = rounds, count_calls
        self.probe = None

    def measure(self, cases, name):
        """Starts all servers of the cases, measures, ends them."""
        servers = {id(side.server): side.server for case in cases for side in case.sides}.values()
        with ExitStack() as stack:
            for server in servers:
                stack.enter_context(server)
            self.probe = cores.round_trip()
            for number in range(self.rounds):
                for case in cases:
                    case.rounds.append(self._round(case, number))
                print(f"{name}: round {number + 1} of {self.rounds}", file=sys.stderr, flush=True)
            if self.count_calls:
                for case in cases:
                    for side in case.sides:
                        case.before()
                        case.calls[side.name] = self._calls(side, case.work)

    def _round(self, case, number):
        line = [None] * len(case.sides)
        for step in range(len(case.sides)):
            which = (step + number) % len(case.sides)
            line[which] = case.before() | self._run(case.sides[which], case.work)
        return line

    def _run(self, side, work):
        before, server = self.probe, side.server
        server.resume()
        cpu = server.cpu_seconds()
        figures = side.client.run(server, work)
        # One processor: a server that never sleeps has used no more of it for the requests than the time that they took.
        cpu = min(server.cpu_seconds() - cpu, figures["seconds"])
        server.pause()
        if "write" in work.rw:
            server.settle()
        self.probe = cores.round_trip()
        return figures | {"cpu": cpu / figures["ios"] * 1e6, "round_trip_ns": [before, self.probe],
                          "distance": cores.distance(before, self.probe)}

    def _calls(self, side, work):
        """Counted in a run of its own, since counting costs a little."""
        side.server.resume()
        ofserver = syscalls.of_process(side.server.pid) if side.server.pid else None
        ofclient = syscalls.of_children()
        ios = side.client.run(side.server, work)["ios"]
        found = ofserver.end() / ios if ofserver else None, ofclient.end() / ios
        side.server.pause()
        return found


# --- what came of it: of records, as JSON has them ---

def summaries(case):
    """{distance: [{figure: median, "iops_range", "ratios" and "cpu_ratios" (requests for a
    second of the server's CPU) to the first side, "rounds": how many} for each side]}. Runs count that
    were near or far all the time; ratios are of runs of one round that were alike."""
    found = {}
    for distance in ("near", "far"):
        line = []
        for side in case["sides"]:
            runs = [run for run in side["runs"] if run["distance"] == distance]
            pairs = [(run, first) for run, first in zip(side["runs"], case["sides"][0]["runs"])
                     if run["distance"] == first["distance"] == distance]
            line.append({"rounds": len(runs), "ratios": sorted(run["iops"] / first["iops"] for run, first in pairs),
                         "cpu_ratios": [first["cpu"] / run["cpu"] for run, first in pairs if run["cpu"] and first["cpu"]],
                         "iops_range": sorted(run["iops"] for run in runs),
                         "round_trip_ns": statistics.median(ns for run in runs for ns in run["round_trip_ns"]) if runs else None} |
                        {name: statistics.median(run[name] for run in runs) for name in FIGURES if runs and name in runs[0]})
        if any(side["rounds"] for side in line):
            found[distance] = line
    return found
