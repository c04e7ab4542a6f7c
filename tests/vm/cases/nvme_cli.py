# SPDX-License-Identifier: BSD-3-Clause
"""nvme-cli on our controller and on QEMU's own in the same guest: each command's expected result, and the same status from both."""

import json
import re

from harness.case import Case, test
from harness.errors import expect, expect_equal
from harness.image import MIB, create, fill
from harness.server import Disk, reference_arguments

SIZE = 64 * MIB
PATTERN = "tr '\\0' '\\132' </dev/zero | dd of=/tmp/pattern bs=4096 count=1 iflag=fullblock 2>/dev/null"


class Controller:
    """One of the two, by the guest's names for it."""

    def __init__(self, guest, serial):
        self.guest = guest
        self.name = guest.run(f"grep -l '^{serial} *$' /sys/class/nvme/nvme*/serial").split("/")[4]
        self.serial = serial

    def try_nvme(self, command, *words):
        """nvme-cli with this controller's, or its first namespace's, node; (NVMe status, output). {ctrl} and {disk} in words too."""
        nodes = {"ctrl": f"/dev/{self.name}", "disk": f"/dev/{self.name}n1"}
        status, text = self.guest.try_run(f"/usr/sbin/nvme {command.format(**nodes)} {' '.join(words).format(**nodes)}")
        found = re.search(r"\(?0x([0-9a-f]+)\)", text) if status else None
        expect(not status or found, f"nvme {command}: exit status {status} without a status of the controller: {text}")
        return (int(found[1], 16) & 0x7FF if found else 0), text

    def nvme(self, command, *words):
        """The same for a command that has to succeed; its output."""
        status, text = self.try_nvme(command, *words)
        expect(status == 0, f"nvme {command}: status {status:#x}: {text}")
        return text

    def json(self, command, *words):
        """The same for a command with output in JSON."""
        return json.loads(self.nvme(command, *words, "-o json"))


class NvmeCli(Case):
    """Every command that administrators type."""

    name = "nvme-cli"
    kernel_words = "nvme_core.multipath=0"  # or QEMU's controller, which may be one of several, hides behind another name
    allowed_complaints = r"critical (medium|target|nospace) error|I/O error, dev nvme"

    def prepare(self):
        """Two images alike, each behind a controller of its own."""
        self.image, self.other = self.work / "disk.img", self.work / "other.img"
        for image in (self.image, self.other):
            create(image, SIZE)
            fill(image, 0, 16 * MIB, self.name)
        self.server.start(Disk(self.image, device="nvme", queues=2, serial="OURS"))
        theirs = reference_arguments(Disk(self.other, device="nvme", queues=2, serial="THEIRS"), "other")
        self.boot_linux(*theirs)
        self.ours, self.theirs = Controller(self.guest, "OURS"), Controller(self.guest, "THEIRS")

    def both(self, command, *words):
        """The status, which has to be the same from both."""
        ours, text = self.ours.try_nvme(command, *words)
        theirs, _ = self.theirs.try_nvme(command, *words)
        expect(ours == theirs, f"nvme {command}: status {ours:#x}, QEMU's own has {theirs:#x}: {text}")
        return ours

    def expect_value(self, feature, value):
        """get-feature prints it."""
        text = self.ours.nvme(f"get-feature {{ctrl}} -f {feature}")
        found = re.search(r"value: *(\w+)", text)
        expect(found and int(found[1], 16) == value, f"feature {feature:#x} is not {value:#x}: {text}")

    @test
    def id_ctrl_says_what_the_controller_is(self):
        """Identify Controller."""
        ours, theirs = self.ours.json("id-ctrl {ctrl}"), self.theirs.json("id-ctrl {ctrl}")
        expect_equal("the serial number", ours["sn"].strip(), "OURS")
        for field in ("sqes", "cqes", "mdts", "cntrltype", "fuses"):
            expect_equal(field, ours[field], theirs[field])
        expect(ours["ver"] >= theirs["ver"], f"version {ours['ver']:#x}")
        expect(ours["mn"].strip() and ours["fr"].strip() and ours["subnqn"].startswith("nqn."), f"names: {ours}")
        expect(ours["oacs"] >> 8 & 1, "no Doorbell Buffer Config, so that Linux writes each doorbell")
        for bit, what in ((0, "Compare"), (2, "Dataset Management"), (3, "Write Zeroes"), (6, "Timestamp")):
            expect(ours["oncs"] >> bit & 1, f"oncs {ours['oncs']:#x}: no {what}")

    @test
    def id_ns_says_what_the_disk_is(self):
        """Identify Namespace."""
        ours, theirs = self.ours.json("id-ns {disk}"), self.theirs.json("id-ns {disk}")
        for field in ("nsze", "ncap", "flbas"):
            expect_equal(field, ours[field], theirs[field])
        expect_equal("nsze", ours["nsze"], SIZE // 512)
        expect_equal("the block's size", ours["lbafs"][ours["flbas"] & 15]["ds"], 9)

    @test
    def id_ns_of_what_is_not_there_is_refused(self):
        """Invalid Namespace or Format from both beyond the last number."""
        expect_equal("the status of namespace 0xfffffff0", self.both("id-ns {ctrl} -n 0xfffffff0"), 0x00B)

    @test
    def list_shows_the_disk(self):
        """nvme list, list-ns, list-subsys."""
        text = self.guest.run("/usr/sbin/nvme list")
        for each in (self.ours, self.theirs):
            expect(re.search(rf"/dev/{each.name}n1 .*{each.serial} .*67.11", text), f"nvme list: {text}")
        expect_equal("list-ns", re.findall(r"]: *(0x\w+)", self.ours.nvme("list-ns {ctrl}")), ["0x1"])

    @test
    def smart_log_counts(self):
        """Log page 2."""
        before = self.ours.json("smart-log {ctrl}")
        self.guest.run(f"dd if=/dev/{self.ours.name}n1 of=/dev/null bs=1M count=8 iflag=direct 2>/dev/null")
        after, theirs = self.ours.json("smart-log {ctrl}"), self.theirs.json("smart-log {ctrl}")
        expect_equal("the critical warning", after["critical_warning"], theirs["critical_warning"])
        read = int(after["data_units_read"]) - int(before["data_units_read"])
        expect(16 <= read <= 18, f"8 MiB are {read} units of 512000 bytes")
        expect(int(after["host_read_commands"]) - int(before["host_read_commands"]) >= 8, "commands are not counted")
        expect(273 < after["temperature"] < 373, f"temperature {after['temperature']} K")

    @test
    def logs_can_be_read(self):
        """Error, firmware slot, changed namespaces, commands supported; and those that QEMU's own has not."""
        for command in ("error-log {ctrl}", "fw-log {ctrl}", "changed-ns-list-log {ctrl}", "get-log {ctrl} --log-id=5 --log-len=4096"):
            expect_equal(f"the status of {command}", self.both(command), 0)
        if not self.server.is_reference:
            self.ours.nvme("supported-log-pages {ctrl}")
            self.ours.nvme("get-log {ctrl} --log-id=0x12 --log-len=1024")
            text, revision = self.ours.nvme("fw-log {ctrl}"), self.ours.json("id-ctrl {ctrl}")["fr"].strip()
            expect(f"({revision}" in text, f"the revision is {revision}, fw-log: {text}")

    @test
    def logs_that_are_not_there_are_refused(self):
        """Invalid Log Page; QEMU's own has Invalid Field in Command."""
        status, _ = self.ours.try_nvme("get-log {ctrl} --log-id=0x3f --log-len=512")
        expect_equal("the status", status, 0x002 if self.server.is_reference else 0x109)

    @test
    def features_are_read_and_set(self):
        """Each has the same status from both; what is set is read back. QEMU's own coalesces no interrupts."""
        for feature in (1, 2, 4, 7, 8, 9, 0xA, 0xB):
            expect_equal(f"the status of feature {feature}", self.both("get-feature {ctrl} -f", str(feature)), 0)
        expect_equal("the status of set-feature", self.both("set-feature {ctrl} -f 4 --value=0x150"), 0)
        self.expect_value(4, 0x150)
        if not self.server.is_reference:
            self.ours.nvme("set-feature {ctrl} -f 8 --value=0x0102")
            self.expect_value(8, 0x0102)
            self.ours.nvme("set-feature {ctrl} -f 8 --value=0")
        expect_equal("the status of a feature that is not there", self.both("get-feature {ctrl} -f 0x7f"), 0x002)

    @test
    def write_cache_is_switched_off_and_on(self):
        """Feature 6, and what the block layer makes of it after a rescan is its own affair."""
        for value in (0, 1):
            self.ours.nvme("set-feature {ctrl} -f 6 --value=" + str(value))
            self.expect_value(6, value)

    @test
    def compare_tells_equal_from_unequal(self):
        """Compare Failure, 285h, from both."""
        self.guest.run(PATTERN)
        words = ("-s 100 -c 7 -z 4096 -d /tmp/pattern",)
        expect_equal("the status of write", self.both("write {disk}", *words), 0)
        expect_equal("the status of compare", self.both("compare {disk}", *words), 0)
        self.guest.run("printf x | dd of=/tmp/pattern bs=1 seek=4095 conv=notrunc 2>/dev/null")
        expect_equal("the status of a bad compare", self.both("compare {disk}", *words), 0x285)

    @test
    def read_gives_what_was_written(self):
        """And a write-zeroes in its middle."""
        self.guest.run(PATTERN)
        self.both("write {disk} -s 200 -c 7 -z 4096 -d /tmp/pattern")
        expect_equal("the status of write-zeroes", self.both("write-zeroes {disk} -s 202 -c 3"), 0)
        for each in (self.ours, self.theirs):
            each.nvme("read {disk} -s 200 -c 7 -z 4096 -d /tmp/got")
            self.guest.run("""
                cmp -n 1024 /tmp/got /tmp/pattern
                dd if=/tmp/got bs=512 skip=2 count=4 2>/dev/null | cmp -n 2048 - /dev/zero
                dd if=/tmp/got bs=512 skip=6 count=2 2>/dev/null | cmp -n 1024 - /tmp/pattern
                """)

    @test
    def dsm_and_flush_work(self):
        """Dataset Management with several ranges, Flush of one namespace."""
        expect_equal("the status of dsm", self.both("dsm {disk} --ad -s 1000,2000,3000 -b 8,16,8"), 0)
        expect_equal("the status of flush", self.both("flush {disk} -n 1"), 0)

    @test
    def commands_past_the_end_are_refused(self):
        """LBA Out of Range, 080h, by both."""
        self.guest.run(PATTERN)
        last = SIZE // 512
        for command in ("read {disk}", "write {disk}", "compare {disk}"):
            expect_equal(f"the status of {command}", self.both(command, f"-s {last - 4} -c 7 -z 4096 -d /tmp/pattern"), 0x080)
        expect_equal("the status of write-zeroes", self.both("write-zeroes {disk}", f"-s {last} -c 0"), 0x080)

    @test
    def opcodes_that_are_not_there_are_invalid(self):
        """By both, for admin and for I/O."""
        expect_equal("the admin status", self.both("admin-passthru {ctrl} --opcode=0xc5 --namespace-id=1"), 0x001)
        expect_equal("the I/O status", self.both("io-passthru {disk} --opcode=0x7e --namespace-id=1"), 0x001)

    @test
    def a_reset_and_a_rescan_change_nothing(self):
        """nvme reset, nvme ns-rescan, then the disk is read."""
        self.ours.nvme("reset {ctrl}")
        self.ours.nvme("ns-rescan {ctrl}")
        self.guest.run(f"dd if=/dev/{self.ours.name}n1 of=/dev/null bs=1M count=8 iflag=direct 2>/dev/null")

    @test
    def the_guest_powers_off(self):
        """And QEMU ends well."""
        self.guest.power_off()
