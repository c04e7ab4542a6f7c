# SPDX-License-Identifier: BSD-3-Clause
"""A Linux guest uses the devices of examples/, which are built against the installed library."""

import re

from harness.case import Case, test
from harness.errors import expect, expect_equal
from harness.example import Example, ExampleDevice
from harness.tree import PROJECT_DIR

CARD = "1234:ca4d"
TEXT = "hello from the guest"


class ExampleCase(Case):
    """Starts an example and a guest."""

    reference = False  # of others there are no such devices
    program = "card"
    transport = "vfio-user"

    def device(self):
        """How QEMU is told of it."""
        return ExampleDevice(self.program, self.transport)

    def prepare(self):
        """Builds the example where nobody has, and boots a guest with it."""
        self.server = Example(self.world.examples, self._socket_folder.name, self.tree.logs / f"{self.name}.sidecard")
        self.server.start(self.device())
        self.add_to_initramfs(self.world.examples.guest_archive())
        self.boot_linux()

    def load_modules(self, *names):
        """Modules that only few guests want."""
        self.guest.run("".join(f"insmod /modules/{name}.ko\n" for name in names))


class CardBySysfs(ExampleCase):
    """The card, by what the kernel shows of every PCI device in /sys; its memory is mapped into the guest."""

    name = "example-card"

    @property
    def at(self):
        """Its address on the bus."""
        return self.guest.run(f"lspci -D -n -d {CARD} | cut -d ' ' -f 1")

    @test
    def lspci_shows_the_card(self):
        """Class, BARs, capabilities."""
        text = self.guest.run(f"lspci -n -vv -d {CARD}")
        for pattern in (r" 1200: 1234:ca4d\b", r"Region 0: Memory at \w+ .*\[size=8K\]", r"Region 1: Memory at \w+ ",
                        r"MSI-X: Enable- Count=1 Masked-", r"Vector table: BAR=1", r"Express .*Endpoint", r"Power Management version"):
            expect(re.search(pattern, text), f"lspci does not show {pattern!r}:\n{text}")

    @test
    def the_guides_commands_print_what_it_shows(self):
        """What docs/writing-a-card.md does with devmem: registers and memory, at their address in /sys."""
        guide = (PROJECT_DIR / "docs/writing-a-card.md").read_text(encoding="utf-8")
        (lines,) = re.findall(r"^    # cd /sys/bus.*?\n\n", guide, re.MULTILINE | re.DOTALL)
        lines = [line[4:] for line in lines.replace("0000:00:03.0", self.at).splitlines() if line]
        script = "\n".join(line[2:] for line in lines if line.startswith("# "))
        expect_equal("what is printed", self.guest.run(script).splitlines(), [line for line in lines if not line.startswith("# ")])

    @test
    def it_reads_and_writes_the_guests_memory(self):
        """Through resource0, and a page whose physical address is known."""
        expect_equal("what the driver saw", self.guest.run(f"card sysfs {self.at} '{TEXT}'").splitlines(),
                     [f"loaded: {TEXT}", f"stored: {TEXT.upper()}"])

    @test
    def a_function_level_reset_makes_it_new(self):
        """By the kernel's reset, for which the card has a capability."""
        expect("flr" in self.guest.run(f"cat /sys/bus/pci/devices/{self.at}/reset_method"), "the kernel knows no function-level reset")
        self.guest.run(f"echo 1 >/sys/bus/pci/devices/{self.at}/reset")
        self.it_reads_and_writes_the_guests_memory()


class CardPrivateMemory(CardBySysfs):
    """The same in a guest whose memory is not shared: DMA is messages."""

    name = "example-card-private-memory"
    short = False
    shared = False


class CardByVfio(ExampleCase):
    """The card behind an IOMMU, used by a driver in the guest's user space over vfio-pci, which has its MSI-X interrupts."""

    name = "example-card-vfio"
    short = False
    kernel_words = "intel_iommu=on"
    # When the driver's address space begins and ends, QEMU unmaps all that could be there, in blocks that are no mappings.
    allowed_of_qemu = r"vfio_container_dma_unmap\(.*No such file or directory"

    def device(self):
        return ExampleDevice(self.program, self.transport, before=("-device", "intel-iommu,intremap=on,caching-mode=on"))

    @test
    def a_driver_in_user_space_has_memory_and_interrupts(self):
        """Registers are mapped, DMA is translated, and each of three commands raises the interrupt."""
        self.load_modules("irqbypass", "vfio", "vfio_iommu_type1", "vfio-pci-core", "vfio-pci")
        at = self.guest.run(f"lspci -D -n -d {CARD} | cut -d ' ' -f 1")
        self.guest.run(f"echo vfio-pci >/sys/bus/pci/devices/{at}/driver_override; echo {at} >/sys/bus/pci/drivers_probe")
        expect_equal("what the driver saw", self.guest.run(f"card vfio {at} '{TEXT}'").splitlines(),
                     [f"loaded: {TEXT}", f"stored: {TEXT.upper()}", "interrupts: 3"])


class EntropyVfioUser(ExampleCase):
    """The entropy device as a PCI device, with the kernel's virtio driver."""

    name = "example-entropy"
    program = "entropy"

    @test
    def the_kernel_takes_its_random_bytes_from_it(self):
        """hw_random names it, reads, and never gets the same twice."""
        self.load_modules("virtio-rng")
        expect_equal("the current source", self.guest.run("cat /sys/class/misc/hw_random/rng_current"), "virtio_rng.0")
        read = "dd if=/dev/hwrng bs=512 count=8 iflag=fullblock 2>/dev/null | tee /tmp/bytes | sha256sum; wc -c </tmp/bytes"
        sums = [self.guest.run(read) for _ in range(3)]
        expect(len(set(sums)) == 3 and all(text.endswith("\n4096") for text in sums), f"checksums and sizes: {sums}")

    @test
    def they_look_random(self):
        """gzip makes nothing of them: neither zeroes, nor a pattern."""
        self.guest.run("dd if=/dev/hwrng of=/tmp/bytes bs=4k count=16 iflag=fullblock 2>/dev/null")
        packed = self.guest.number("gzip -c /tmp/bytes | wc -c")
        expect(packed >= 65536, f"65536 bytes are packed into {packed}")

    @test
    def interrupts_bring_them(self):
        """By the driver's name for them."""
        before = self.interrupts()
        self.guest.run("dd if=/dev/hwrng of=/dev/null bs=512 count=8 iflag=fullblock 2>/dev/null")
        expect(self.interrupts() > before, f"{before} interrupts before reading, {self.interrupts()} after")

    def interrupts(self):
        """How often the queue's have come."""
        lines = self.guest.run("grep virtio0 /proc/interrupts").splitlines()
        return sum(int(word) for line in lines for word in line.split()[1:1 + self.cpus])


class EntropyVhostUser(EntropyVfioUser):
    """The same program over vhost-user: QEMU brings the PCI device."""

    name = "example-entropy-vhost-user"
    short = False
    transport = "vhost-user"

    def device(self):
        return ExampleDevice(self.program, self.transport, driver="vhost-user-rng-pci")
