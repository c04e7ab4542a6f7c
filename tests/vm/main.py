# SPDX-License-Identifier: BSD-3-Clause
"""The guest tests' command line."""

import argparse
import fcntl
import fnmatch
import os
import shutil
import signal
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from cases import ALL_CASES  # noqa: E402
from harness.bootdisk import BootDisk  # noqa: E402
from harness.case import methods_of, run_case  # noqa: E402
from harness.errors import SetupError  # noqa: E402
from harness.example import Examples  # noqa: E402
from harness.kernel import GuestFiles  # noqa: E402
from harness.report import Report  # noqa: E402
from harness.tree import PROJECT_DIR, Tree  # noqa: E402


class World:
    """What every case shares."""

    def __init__(self, tree, binary, reference):
        self.tree = tree
        self.binary = binary
        self.reference = reference
        self.boot_disk = BootDisk(tree)
        self.examples = Examples(tree, binary)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="tests/vm/run",
        description="Runs virtual machines under QEMU (TCG: no KVM needed) with disks served by sidecard.",
        epilog="Environment: SIDECARD, the program under test (default build/sidecard); SIDECARD_VM_DIR, where the "
               "Debian tree and the logs are kept (default build/vm); SIDECARD_VM_SLOW=N, multiplies all time limits.")
    parser.add_argument("--short", action="store_true", help="only the cases for every change, some 90 seconds")
    parser.add_argument("--reference", action="store_true",
                        help="QEMU's own virtio-blk-pci or nvme instead of sidecard: what fails then is a fault of the tests")
    parser.add_argument("--only", metavar="PATTERN", help="only the cases whose name matches, as in 'linux-*'")
    parser.add_argument("--list", action="store_true", help="print the cases and their tests, run nothing")
    parser.add_argument("--keep", action="store_true", help="keep the disk images of cases that passed too")
    return parser.parse_args()


def choose_cases(arguments):
    """The classes of the cases to run."""
    chosen = [case for case in ALL_CASES if fnmatch.fnmatch(case.name, arguments.only or "*")]
    if not chosen:
        names = ", ".join(case.name for case in ALL_CASES)
        raise SetupError(f"no case is named {arguments.only!r}: there are {names}")
    chosen = [case for case in chosen if case.short or not arguments.short]
    chosen = [case for case in chosen if case.reference or not arguments.reference]
    if not chosen:
        raise SetupError(f"{arguments.only!r} names no case of this kind of run")
    return chosen


def find_binary():
    """The program under test."""
    path = Path(os.environ.get("SIDECARD") or PROJECT_DIR / "build" / "sidecard")
    if not os.access(path, os.X_OK) or not path.is_file():
        raise SetupError(f"{path} is not there: run make first, or set SIDECARD to the program to test "
                         "(or try the tests alone with --reference)")
    return str(path.resolve())


def make_world(arguments):
    """Makes all that the tests need; raises SetupError."""
    binary = None if arguments.reference else find_binary()
    tree = Tree()
    tree.set_up()
    tree.check_vfio_user()
    world = World(tree, binary, arguments.reference)
    GuestFiles(tree).make()
    world.boot_disk.make()
    return world


def run_cases(world, chosen, keep):
    """Runs the cases one after the other; returns the exit status."""
    report = Report()
    report.note(world.tree.qemu_version())
    report.note("disk: " + ("QEMU's own (reference)" if world.reference else world.binary))
    report.note(f"logs: {world.tree.logs}")
    for case_class in chosen:
        case = case_class(world)
        shutil.rmtree(case.work, ignore_errors=True)
        case.work.mkdir(parents=True)
        for log in world.tree.logs.glob(f"{case.name}.*"):
            log.unlink()
        before = len(report.failed)
        run_case(case, report)
        if not keep and len(report.failed) == before:
            shutil.rmtree(case.work)
    return report.finish()


def main():
    """Returns the exit status: 0 if all passed, 1 if a test failed, 2 if none could run."""
    # A killed run must still end its QEMUs: an exception unwinds through clean_up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments = parse_arguments()
    try:
        chosen = choose_cases(arguments)
        if arguments.list:
            for case_class in chosen:
                instance = case_class.__new__(case_class)
                for method in [*methods_of(instance, "test"), *methods_of(instance, "at_end")]:
                    print(f"{case_class.name}: {method.__name__.replace('_', ' ')}")
            return 0
        world = make_world(arguments)
        with open(world.tree.dir / "run.lock", "w", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("another run of the guest tests is going on: waiting for its end", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            return run_cases(world, chosen, arguments.keep)
    except SetupError as error:
        print(f"tests/vm/run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


sys.exit(main())
