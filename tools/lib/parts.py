# SPDX-License-Identifier: BSD-3-Clause
"""The parts of `make check`: what each needs built, and how it is run. A part that could not run has failed."""

import json
import os
import random
import subprocess
import threading
from functools import partial

from . import bench_record, kills, loads, results
from .served import TOP

OUT = TOP / "build" / "check"
PYTEST = ["/usr/bin/python3", "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"]


class Part:
    """`build` is what tools/build is asked for; `run(part, log)` fills part.results."""

    def __init__(self, name, what, build, run, long=False, more=False):
        self.name = name
        self.what = what
        self.build = build
        self.run = run
        self.long = long
        self.more = more  # beside those of `make check`, for every change
        self.results = results.Results()
        self.seconds = 0.0
        self.cpu_seconds = 0.0  # of what it has run, and waited for
        self.log = OUT / f"{name}.log"

    def command(self, log, *command, env=None, timeout=1800):
        """Runs it with its output in the log; returns the exit status."""
        log.write(f"$ {' '.join(map(str, command))}\n")
        log.flush()
        try:
            process = subprocess.Popen([str(word) for word in command], cwd=TOP, env=dict(os.environ, **(env or {})),
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        except OSError as error:
            self.results.bad(f"{self.name}: {command[0]}: {error.strerror}")
            return None
        limit = threading.Timer(timeout, process.kill)
        limit.daemon = True
        limit.start()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_seconds += used.ru_utime + used.ru_stime
        if not limit.is_alive():
            self.results.bad(f"{self.name}: {command[0]} did not end within {timeout} s")
            return None
        limit.cancel()
        return process.returncode

    def account(self, found, status):
        """Adds what was found; a status that the counts do not explain is a failure of its own."""
        self.results.add(found)
        if status not in (0, None) and not found.failed:
            self.results.bad(f"{self.name}: ended with status {status}, though no test says that it failed")


def meson_tests(part, log, folder, wrapper=(), slower=4, only=(), leave_out=(), env=None, options=()):
    """The unit tests of a build folder; options are meson's."""
    # A wrapper of meson's own is named in the log's name.
    logs = TOP / folder / "meson-logs"
    for old in logs.glob("testlog*.json"):
        old.unlink()
    names = list(only)
    if leave_out:
        listed = subprocess.run(["meson", "introspect", folder, "--tests"], cwd=TOP, capture_output=True,
                                check=True)
        names = [test["name"] for test in json.loads(listed.stdout) if test["name"] not in leave_out]
    status = part.command(log, *wrapper, "meson", "test", "-C", folder, "--no-rebuild", "--num-processes", "2",
                          "-t", slower, "--print-errorlogs", *options, *names, env=env)
    written = list(logs.glob("testlog*.json"))
    if written:
        part.account(results.from_meson(written[0], "tests/unit/"), status)
    elif status is not None:
        part.results.bad(f"{part.name}: meson test ended with status {status} and ran nothing")


def python_tests(part, log, binary, *paths, env=None, timeout=1800):
    """Files of the Python suite against a binary."""
    report = OUT / f"{part.name}.xml"
    report.unlink(missing_ok=True)
    environment = {"SIDECARD": str(binary), **(env or {})}
    # Where everything hangs, each test takes its whole patience: so many failures say enough.
    status = part.command(log, *PYTEST, f"--junitxml={report}", "--maxfail=20", "--durations=10", *paths, env=environment,
                          timeout=timeout)
    if report.exists():
        part.account(results.from_junit(report), status)
    elif status is not None:
        part.results.bad(f"{part.name}: pytest ended with status {status} and ran nothing")


def script(part, log, *command, timeout=1800):
    """A test program of its own: its last line has the sums."""
    before = log.tell()
    status = part.command(log, *command, timeout=timeout)
    if status is None:
        return
    with open(log.name, encoding="utf-8", errors="replace") as text:
        text.seek(before)
        part.account(results.from_sum_line(text.read(), part.name), status)


def run_unit(part, log):
    meson_tests(part, log, "build")


# Those of the attack suite that are about the NVMe card run beside the others.
NVME_FILES = "tests/attack/test_nvme_*.py"


# So do those of inspect, which wait for servers that say nothing.
INSPECT_FILES = "tests/attack/test_inspect*.py"


# And those that wait for stalled front ends, and for disks and processes that end.
VHOST_FILES = "tests/attack/test_vhost_*.py"
KEPT_FILES = "tests/attack/test_[bp]_*.py"


def files_of(*patterns):
    return sorted(str(path.relative_to(TOP)) for pattern in patterns for path in TOP.glob(pattern))


def all_but(*patterns):
    """The attack suite without the files that other parts have."""
    return [*(f"--ignore-glob={pattern}" for pattern in patterns), "tests/attack"]


def perturbed(log):
    """Fresh memory is not zero by chance: what relies on it shows."""
    perturb = {"MALLOC_PERTURB_": str(random.randint(1, 255))}
    log.write(f"MALLOC_PERTURB_={perturb['MALLOC_PERTURB_']}\n")
    return perturb


def run_attack(part, log):
    python_tests(part, log, TOP / "build/sidecard", "tests/pylib", *all_but(NVME_FILES, INSPECT_FILES, VHOST_FILES, KEPT_FILES),
                 env=perturbed(log))


def run_nvme(part, log):
    python_tests(part, log, TOP / "build/sidecard", *files_of(NVME_FILES), env=perturbed(log))


def run_vhost(part, log):
    python_tests(part, log, TOP / "build/sidecard", *files_of(VHOST_FILES), env=perturbed(log))


def run_kept(part, log):
    python_tests(part, log, TOP / "build/sidecard", *files_of(KEPT_FILES), env=perturbed(log))


def run_inspect(part, log):
    python_tests(part, log, TOP / "build/sidecard", *files_of(INSPECT_FILES), env=perturbed(log))


EPOLL = {"SIDECARD_SERVE_ARGS": "--loop=epoll"}
# What a loop waits by is nothing to these, or they try both kinds themselves.
LOOPS_ARE_NOTHING_TO = ["--ignore=tests/attack/test_cli_mistakes.py", "--ignore=tests/attack/test_loop_kinds.py",
                        "--ignore=tests/attack/test_b_backend.py", f"--ignore-glob={INSPECT_FILES}"]


def run_attack_epoll(part, log):
    python_tests(part, log, TOP / "build/sidecard", *LOOPS_ARE_NOTHING_TO, "tests/attack", env=EPOLL)


def run_asan_epoll(part, log):
    python_tests(part, log, TOP / "build-asan/sidecard", *LOOPS_ARE_NOTHING_TO, "tests/attack", env=EPOLL)


# Rings and requests are the same code under each transport: the same rows hold. Tests that ask for registers are skipped.
OVER_VHOST_TOO = ["tests/attack/test_r_*.py", "tests/attack/test_p_chains.py", "tests/attack/test_conformance_blk.py",
                  "tests/attack/test_conformance_packed.py"]
# About notifications by register; and about the command line, or more queues than Python's select has room for.
NOT_OVER_VHOST = "test_r_notifications.py"
NOT_OF_VHOST = ["-k", "not bench and not can_register_files"]


def run_attack_vhost(part, log):
    files = [name for name in files_of(*OVER_VHOST_TOO) if not name.endswith(NOT_OVER_VHOST)]
    python_tests(part, log, TOP / "build/sidecard", *NOT_OF_VHOST, *files, env={"SIDECARD_TRANSPORT": "vhost-user"})


# What is between the client and any device: messages, fds, memory. Tests that ask for what virtio has are skipped.
WITH_NVME_TOO = ["framing", "payloads", "version", "specification"]
NOT_OF_NVME = ["-k", "not clients_own_limits and not block_transfers"]


def run_attack_nvme(part, log):
    files = [f"tests/attack/test_w_{name}.py" for name in WITH_NVME_TOO]
    python_tests(part, log, TOP / "build/sidecard", *NOT_OF_NVME, *files, "tests/attack/test_f_descriptors.py",
                 "tests/attack/test_d_memory.py", env={"SIDECARD_DEVICE": "nvme"})


# What these want to see is a queue that sleeps.
NOT_WITHOUT_SLEEP = ["-k", "not kicks_only_when_the_device_asks and not r09_more_chains_than_the_ring"]


def run_attack_always(part, log):
    files = files_of(*OVER_VHOST_TOO)
    for transport in ("vfio-user", "vhost-user"):
        chosen = [name for name in files if transport == "vfio-user" or not name.endswith(NOT_OVER_VHOST)]
        python_tests(part, log, TOP / "build/sidecard", NOT_WITHOUT_SLEEP[0], f"{NOT_WITHOUT_SLEEP[1]} and {NOT_OF_VHOST[1]}", *chosen,
                     env={"SIDECARD_SERVE_ARGS": "--poll=always", "SIDECARD_TRANSPORT": transport})


def run_examples(part, log):
    """Against the library as `meson install` puts it into a folder, by pkg-config."""
    python_tests(part, log, TOP / "build/sidecard", "tests/examples", env={"SIDECARD_BUILD": str(TOP / "build")})


def run_examples_asan(part, log):
    built = TOP / "build-asan/tests/examples"
    python_tests(part, log, TOP / "build-asan/sidecard", "tests/examples", env={"SIDECARD_EXAMPLES": str(built)})


def run_check(part, log):
    """The tester: our own servers in every mode, and servers with every fault."""
    python_tests(part, log, TOP / "build/sidecard", *files_of("tests/attack/test_check_*.py"), env={"SIDECARD_MORE": "1"})


def run_rows(part, log):
    script(part, log, "tests/rows")


def run_walk(part, log):
    for device in ("virtio-blk", "nvme"):
        script(part, log, TOP / "build/tests/sim/walk", f"--device={device}", "--seeds=300", "--twice=20")


ASAN_STRICT = {"ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}
UNIT_LATER = ["inflight", "block_conformance"]


def run_asan_unit(part, log):
    meson_tests(part, log, "build-asan", slower=4, leave_out=UNIT_LATER, env=ASAN_STRICT)
    for device in ("virtio-blk", "nvme"):
        script(part, log, TOP / "build-asan/tests/sim/walk", f"--device={device}", "--seeds=100")


# Under a sanitizer all of them would take longer than one wants to wait for `make check`.
ASAN_LATER = [NVME_FILES, VHOST_FILES, KEPT_FILES, INSPECT_FILES, "tests/attack/test_polling.py", "tests/attack/test_many_cards.py",
              "tests/attack/test_config_files.py", "tests/attack/test_filters.py", "tests/attack/test_check_*.py",
              "tests/attack/test_loop_kinds.py", "tests/attack/test_conformance_bench.py", "tests/attack/test_d_unmap_busy.py"]


# Of a file whose others are quick.
ASAN_LATER_TEST = "65535_windows"


def run_asan(part, log):
    python_tests(part, log, TOP / "build-asan/sidecard", "-k", f"not {ASAN_LATER_TEST}", *all_but(*ASAN_LATER))


def run_asan_rest(part, log):
    python_tests(part, log, TOP / "build-asan/sidecard", *files_of(*ASAN_LATER))
    python_tests(part, log, TOP / "build-asan/sidecard", "-k", ASAN_LATER_TEST, "tests/attack/test_d_memory.py")
    meson_tests(part, log, "build-asan", slower=4, only=UNIT_LATER, env=ASAN_STRICT)


def run_tsan(part, log):
    loads.under_tsan(part, log, partial(loads.counted, 3000))
    # These have one thread, and take minutes.
    meson_tests(part, log, "build-tsan", wrapper=loads.without_randomisation(), slower=4,
                leave_out=["block_conformance", "inflight", "perf_regions"],
                env={"TSAN_OPTIONS": "halt_on_error=1:exitcode=66"})


def run_spin(part, log):
    program = TOP / "build/tests/unit/test-driver_queue_threads"
    if part.command(log, program, "--spin=2000000", timeout=3600) == 0:
        part.results.good()
    elif not part.results.failed:
        part.results.bad("spin: the two halves of a ring don't agree; see the log")


def run_stress(part, log):
    program = TOP / "build/tests/unit/test-poll_stress"
    if part.command(log, program, "--requests=200000", timeout=3600) == 0:
        part.results.good()
    elif not part.results.failed:
        part.results.bad("stress: a notification or an interrupt is lost; see the log")


def run_model(part, log):
    script(part, log, "tests/model/run", timeout=3600)


def run_fuzz(part, log):
    script(part, log, "fuzz/run", "--replay")


def run_tidy(part, log):
    script(part, log, "tests/tidy")
    script(part, log, "tests/sim/mutants", "--places")


def run_library(part, log):
    script(part, log, "tests/library/run")


def run_clang(part, log):
    if part.command(log, TOP / "build-clang/sidecard", "--version") == 0:
        part.results.good()
    elif not part.results.failed:
        part.results.bad("clang: build-clang/sidecard does not start")


def run_docs(part, log):
    script(part, log, "tests/docs/run")


def run_bench(part, log):
    """Measures a little, and looks at what comes out, not at the figures."""
    out, plots = OUT / "bench.json", OUT / "plots"
    out.unlink(missing_ok=True)
    for path in plots.glob("*.svg"):
        path.unlink()
    status = part.command(log, "tools/bench", "--quick", "--only=devices,depth,loops", f"--json={out}", f"--plots={plots}")
    wrong = bench_record.faults(out, plots) if status == 0 else [f"ended with status {status}"]
    for fault in wrong:
        log.write(f"bench: {fault}\n")
        part.results.bad(f"bench: {fault}")
    if not wrong:
        part.results.good()


def run_attack_repeated(part, log):
    """Five times, under load and with other garbage in fresh memory each time."""
    for _ in range(5):
        run_attack(part, log)
        run_nvme(part, log)
        run_vhost(part, log)
        run_kept(part, log)


def run_state(part, log):
    """Cards that are stopped and killed under load, 1,000 times in all over each kind of loop."""
    for env in ({}, EPOLL):
        python_tests(part, log, TOP / "build/sidecard", "-k", "loaded_card", "tests/attack/test_p_state.py",
                     env=dict(env, SIDECARD_STATE_CYCLES="125"), timeout=3600)


def run_attack_tsan(part, log):
    """Each server has its loops' threads, and with epoll those for file I/O: so over both."""
    binary = " ".join([*loads.without_randomisation(), str(TOP / "build-tsan/sidecard")])
    python_tests(part, log, binary, "tests/attack")
    python_tests(part, log, binary, *LOOPS_ARE_NOTHING_TO, "tests/attack", env=EPOLL)


# Unit tests that valgrind cannot run: several loops (it runs no other thread while one waits in io_uring_enter), limits of
# address space and fds that are not those of the host, or far too much to do.
NOT_UNDER_VALGRIND = ["block_conformance", "block_file", "driver_live", "inflight", "loop", "loop_io", "loop_watch",
                      "poll_stress", "poller_turns", "socket", "library_card", "library_server", "loop_outside"]


def run_valgrind(part, log):
    """Unit tests, requests and rings under memcheck, which sees uninitialised bytes; deadlines of the rest would pass."""
    memcheck = "valgrind -q --error-exitcode=99 --child-silent-after-fork=yes --leak-check=full --errors-for-leak-kinds=definite"
    meson_tests(part, log, "build", slower=20, leave_out=NOT_UNDER_VALGRIND, options=[f"--wrapper={memcheck}"])
    files = files_of("tests/attack/test_r_*.py", "tests/attack/test_conformance_blk.py", "tests/attack/test_w_registers.py")
    binary = f"valgrind -q --error-exitcode=99 --leak-check=no --track-origins=no {TOP}/build/sidecard"
    for loop in ({}, EPOLL):
        python_tests(part, log, binary, "-k", "not quick_resets", *files, env=loop, timeout=3600)


def run_walk_long(part, log):
    for device in ("virtio-blk", "nvme"):
        script(part, log, TOP / "build/tests/sim/walk", f"--device={device}", "--seeds=10000", timeout=3600)


def run_fuzz_long(part, log):
    script(part, log, "fuzz/run", "--seconds=120", timeout=3600)


def run_soak(part, log):
    loads.soak(part, log, partial(loads.lasting, 60))


def run_tsan_long(part, log):
    loads.under_tsan(part, log, partial(loads.lasting, 60))
    meson_tests(part, log, "build-tsan", wrapper=loads.without_randomisation(), slower=10,
                env={"TSAN_OPTIONS": "halt_on_error=1:exitcode=66"})


def run_matrix(part, log):
    script(part, log, "tests/matrix/run")


def run_kills(part, log):
    kills.run_all(part, log, 20)


def run_kills_long(part, log):
    kills.run_all(part, log, 1000)


def all_parts():
    return [
        Part("unit", "unit tests", "tests", run_unit),
        Part("walk", "driver, device, backend and clock in one thread, 300 seeds", "tests", run_walk),
        Part("attack", "hostile and honest clients, mistakes on the command line", "product", run_attack),
        Part("nvme", "the same against an NVMe card", "product", run_nvme),
        Part("vhost", "the same against a vhost-user back end", "product", run_vhost),
        Part("kept", "faulty disks, and cards that go on in other processes", "product", run_kept),
        Part("inspect", "what inspect says of our servers, of hostile ones, and what lspci says", "product", run_inspect),
        Part("attack-epoll", "the same over the other kind of loop", "product", run_attack_epoll, more=True),
        Part("attack-vhost", "rings and requests over vhost-user", "product", run_attack_vhost, more=True),
        Part("attack-nvme", "messages, fds and guest memory of an NVMe card", "product", run_attack_nvme, more=True),
        Part("library", "the installed library: exports, headers in C and C++, pkg-config", "tests", run_library),
        Part("examples", "devices of others, built outside the tree against the installed library", "tests", run_examples),
        Part("examples-asan", "the same under ASan and UBSan", "asan", run_examples_asan, more=True),
        Part("check", "our own servers under sidecard check, and what it finds in a faulty one", "product", run_check, more=True),
        Part("rows", "a test for each row of the attack suite", None, run_rows),
        Part("asan", "attacks under ASan and UBSan, watching for double fetches", "asan", run_asan),
        Part("asan-rest", "the same of NVMe, vhost-user, and what is kept and polled", "asan", run_asan_rest, more=True),
        Part("asan-unit", "unit tests and the walk under ASan and UBSan", "asan", run_asan_unit),
        Part("tsan", "two threads under verified load, and unit tests, under TSan", "tsan", run_tsan),
        Part("matrix", "the same of every transport, device, ring, backend, number of queues and loop", "tests", run_matrix),
        Part("kills", "a vhost-user back end killed 20 times under verified load", "product", run_kills),
        Part("fuzz", "the fuzz corpus again", None, run_fuzz),
        Part("clang", "no warning from clang either", "clang", run_clang),
        Part("tidy", "the rules of the source", None, run_tidy),
        Part("bench", "the benchmark works and says what it should", "tests", run_bench),
        Part("docs", "manual pages and links against the program", "product", run_docs),
        Part("attack-repeated", "the attack suite five times", "product", run_attack_repeated, long=True),
        Part("asan-epoll", "the attack suite over epoll under ASan and UBSan", "asan", run_asan_epoll, long=True),
        Part("attack-always", "rings and requests of queues that always poll, over each transport", "product", run_attack_always, long=True),
        Part("state", "cards stopped and killed under load go on in fresh processes", "product", run_state, long=True),
        Part("kills-long", "the same killed 1,000 times", "product", run_kills_long, long=True),
        Part("attack-tsan", "the attack suite over both kinds of loop under TSan", "tsan", run_attack_tsan, long=True),
        Part("valgrind", "unit tests, requests and rings under valgrind", "tests", run_valgrind, long=True),
        Part("walk-long", "the same, 10,000 seeds", "tests", run_walk_long, long=True),
        Part("fuzz-long", "live fuzzing, two minutes a harness", None, run_fuzz_long, long=True),
        Part("soak", "verified load, a minute each", "product", run_soak, long=True),
        Part("spin", "millions of requests between two threads that never sleep", "tests", run_spin, long=True),
        Part("stress", "millions of requests between two threads that sleep whenever they can", "tests", run_stress, long=True),
        Part("model", "who notifies whom, in every order of steps; and bugs that have to be found", None, run_model, long=True),
        Part("tsan-long", "a minute of each load under TSan", "tsan", run_tsan_long, long=True),
    ]
