# SPDX-License-Identifier: BSD-3-Clause
"""A case: one disk, one server, and tests that run in the order in which they are written.

A test is a method marked with @test. When one fails, the next still runs; when the guest, QEMU or the server is
lost, the rest count as failed without being run. Methods marked with @at_end run in any event, after everything else.
"""

import re
import tempfile
import time

from harness.errors import Failure, Lost, SetupError, Skip, expect
from harness.guest import KERNEL_WORDS, Guest
from harness.kernel import GuestFiles
from harness.machine import Machine
from harness.server import Reference, Sidecard


def test(method):
    """Marks a method as a test; its name, underscores read as blanks, says what is claimed."""
    method.kind = "test"
    return method


def at_end(method):
    """Marks a test that runs even if the case was lost."""
    method.kind = "at_end"
    return method


class Case:
    """Base of all cases. A subclass sets `name`, defines `prepare` and tests."""

    name = ""
    short = True          # part of the short run
    reference = True      # QEMU's own devices can stand in
    cpus = 2
    shared = True         # the server sees the guest's memory
    board = "q35"         # QEMU's word for it
    kernel_words = ""     # appended to the guest kernel's command line
    allowed_messages = None      # a pattern of lines of the server's stderr that this case provokes
    allowed_of_qemu = None       # a pattern of lines of QEMU's stderr that this case provokes
    allowed_complaints = None    # a pattern of the guest kernel's complaints that this case provokes

    def __init__(self, world):
        self.world = world
        self.tree = world.tree
        self.files = GuestFiles(world.tree)
        self.initramfs = self.files.initramfs
        self.work = world.tree.dir / "work" / self.name
        self.machines = []
        self.machine = None
        self.guest = None
        self._socket_folder = tempfile.TemporaryDirectory(prefix="sidecard-vm-")
        if world.reference:
            self.server = Reference()
        else:
            self.server = Sidecard(world.binary, self._socket_folder.name, world.tree.logs / f"{self.name}.sidecard")

    def prepare(self):
        """Makes the image and starts what the tests need."""
        raise NotImplementedError

    def start_machine(self, arguments, boot=False):
        """Starts another QEMU with the case's disk."""
        number = f"-{len(self.machines) + 1}" if self.machines else ""
        arguments = [*self.server.device_arguments(boot), *arguments]
        self.machine = Machine(self.tree, f"{self.name}{number}", arguments, cpus=self.cpus,
                               shared=self.shared, board=self.board)
        self.machines.append(self.machine)

    def boot_linux(self, *more):
        """Starts a QEMU that runs the guest kernel at once, and waits until the guest is up. more: further words for QEMU."""
        self.start_machine([*self._linux_arguments(), *more])
        self.attach_guest()

    def boot_linux_for(self, seconds):
        """Starts such a QEMU and kills it after so many seconds."""
        self.start_machine(self._linux_arguments())
        time.sleep(seconds)
        self.machine.check_alive()
        self.machine.kill()

    def attach_guest(self):
        """Waits for a Linux guest in the running machine."""
        self.guest = Guest(self.machine, self.tree.logs / f"{self.name}.steps", self.server.disk.node())
        self.guest.wait_for_boot()

    def add_to_initramfs(self, archive):
        """For the machines that are started from now on."""
        larger = self.work / "initramfs.cpio"
        larger.write_bytes(self.initramfs.read_bytes() + archive)
        self.initramfs = larger

    def _linux_arguments(self):
        return ["-kernel", str(self.files.vmlinux), "-initrd", str(self.initramfs),
                "-append", f"{KERNEL_WORDS} {self.kernel_words}".strip()]

    def clean_up(self):
        """Ends every process of the case."""
        for machine in self.machines:
            machine.kill()
        self.server.kill()
        self._socket_folder.cleanup()

    @at_end
    def the_guest_kernel_complains_of_nothing(self):
        """Looks through all consoles."""
        if not any(machine.console_text() for machine in self.machines):
            raise Skip("no guest has said anything")
        lines = [line for machine in self.machines for line in machine.complaints()
                 if not (self.allowed_complaints and re.search(self.allowed_complaints, line))]
        expect(not lines, "the guest's kernel said:\n" + "\n".join(f"  | {line}" for line in lines[:20]))

    @at_end
    def qemu_has_nothing_bad_to_say(self):
        """Its stderr: there it says what it dislikes about a device's server."""
        lines = [line for machine in self.machines for line in machine.said()
                 if not (self.allowed_of_qemu and re.search(self.allowed_of_qemu, line))]
        expect(not lines, "QEMU said:\n" + "\n".join(f"  | {line}" for line in lines[:20]))

    @at_end
    def the_server_ends_in_order_when_asked(self):
        """SIGTERM, exit status 0, no socket left."""
        for machine in self.machines:
            machine.kill()
        self.server.stop()

    @at_end
    def the_server_has_nothing_bad_to_say(self):
        """Its stderr."""
        self.server.check_messages(self.allowed_messages)


def methods_of(case, kind):
    """The case's marked methods: base classes first, then in the order of writing. A subclass that sets one to None is without it."""
    names = {}
    for cls in reversed(type(case).__mro__):
        for name, value in vars(cls).items():
            if getattr(value, "kind", None) == kind:
                names[name] = True
    return [getattr(case, name) for name in names if getattr(case, name)]


def run_case(case, report):
    """Runs all of a case's tests into the report."""
    lost = None
    try:
        lost = _run_one(case, report, "starts", case.prepare)
        for method in methods_of(case, "test"):
            if lost:
                report.bad(_title(case, method.__name__), f"not run: lost in \"{lost}\"")
            else:
                lost = _run_one(case, report, method.__name__, method)
        for method in methods_of(case, "at_end"):
            _run_one(case, report, method.__name__, method)
    finally:
        case.clean_up()


def _run_one(case, report, name, method):
    """Runs one test; returns its name if the case is lost by it."""
    title = _title(case, name)
    begun = time.monotonic()
    try:
        method()
    except Skip as reason:
        report.skip(title, str(reason))
    except Lost as error:
        report.bad(title, f"{error}{case.server.last_words()}")
        return name.replace("_", " ")
    except (Failure, SetupError, OSError) as error:
        report.bad(title, str(error))
        return name if name == "starts" else None
    else:
        report.good(title, time.monotonic() - begun)
    return None


def _title(case, name):
    return f"{case.name}: {name.replace('_', ' ')}"
