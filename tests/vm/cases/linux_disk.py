# SPDX-License-Identifier: BSD-3-Clause
"""A Linux guest uses the disk in all the ways it knows, and the host finds what the guest left."""

from cases import workloads
from harness.case import Case, test
from harness.errors import Failure, expect, expect_equal
from harness.image import MIB, Ext4, checksum, create, fill
from harness.server import Disk

# Feature bits by their numbers in the virtio specification, 5.2.3 and 6.
FEATURES = {"SEG_MAX": 2, "RO": 5, "BLK_SIZE": 6, "FLUSH": 9, "TOPOLOGY": 10, "MQ": 12, "DISCARD": 13,
            "WRITE_ZEROES": 14, "INDIRECT_DESC": 28, "EVENT_IDX": 29, "VERSION_1": 32, "ACCESS_PLATFORM": 33,
            "RING_PACKED": 34, "ORDER_PLATFORM": 36, "NOTIFICATION_DATA": 38, "RING_RESET": 40}


class LinuxCase(Case):
    """What every Linux case begins with."""

    size = 256 * MIB
    queues = 1
    packed = True               # the kind of ring
    without = {"RO"}            # features of FEATURES that must not be there
    may = set()                 # features of FEATURES that may be there or not
    interrupt_name = "virtio0"

    def make_disk(self):
        """The disk of the case; subclasses change what is special about it."""
        return Disk(self.image, queues=self.queues, packed=self.packed)

    def prepare(self):
        """An image with known bytes at its beginning, a server, a guest."""
        self.image = self.work / "disk.img"
        self.sums = None
        create(self.image, self.size)
        fill(self.image, 0, 16 * MIB, self.name)
        self.server.start(self.make_disk())
        self.boot_linux()

    def queue_limit(self, name):
        """A line of the queue's limits in the guest."""
        return self.guest.run(f"cat $block/queue/{name}")

    def features(self):
        """Names of the features that were negotiated, of those in FEATURES."""
        bits = self.guest.run("cat $block/device/features")
        return {name for name, bit in FEATURES.items() if bits[bit] == "1"}

    def flushes(self):
        """How many flush requests the guest has finished (field 16 of the kernel's Documentation/block/stat.rst)."""
        return self.guest.number("awk '{ print $16 }' $block/stat")

    def interrupts(self):
        """How often each of the disk's interrupts came, by the driver's names for them."""
        lines = self.guest.run(f"grep {self.interrupt_name} /proc/interrupts").splitlines()
        return {line.split()[-1]: sum(int(word) for word in line.split()[1:1 + self.cpus]) for line in lines}

    @test
    def the_guest_sees_the_disk_and_its_size(self):
        """The block device."""
        expect_equal("the disk's size", self.guest.number("blockdev --getsize64 $disk"), self.size)

    @test
    def the_guest_reads_what_the_host_wrote(self):
        """Read path, direct and large."""
        got = self.guest.run("dd if=$disk bs=1M count=16 iflag=direct 2>/dev/null | sha256sum")
        expect_equal("the checksum of the first 16 MiB", got.split()[0], checksum(self.image, 0, 16 * MIB))

    @test
    def the_guest_uses_each_queue_that_is_offered(self):
        """Multi-queue; the guests have as many processors as queues, or more."""
        expect_equal("the number of queues", self.guest.number("ls $block/mq | wc -l"), self.queues)

    @test
    def the_features_are_negotiated(self):
        """All that the case does, and no more."""
        may = self.may | (set() if self.queues > 1 else {"MQ"})
        wanted = set(FEATURES) - self.without - may - (set() if self.packed else {"RING_PACKED"})
        expect_equal("the list of features", sorted(self.features() - may), sorted(wanted))


class WritableCase(LinuxCase):
    """A Linux case that writes: to the bare disk, then into a file system that the host looks into at the end."""

    fio_mib = 24
    fio_block_sizes = "512-128k"
    fio_jobs = 1

    @test
    def fio_verifies_on_the_bare_disk(self):
        """Reads and writes of all sizes, several at a time."""
        workloads.fio_raw(self.guest, self.fio_mib * self.fio_jobs, self.fio_block_sizes, self.fio_jobs)

    @test
    def ext4_is_made_and_mounted(self):
        """mkfs and mount."""
        workloads.make_ext4(self.guest)

    @test
    def files_are_written_and_read_again(self):
        """Through the guest's page cache, and again without it."""
        self.sums = workloads.make_files(self.guest, "/mnt/data")
        workloads.check_files(self.guest, "/mnt/data", self.sums)


def power_off_and_look(case):
    """The end of a writable case's guest: it powers off, the host checks the file system and compares the files."""
    case.guest.run("umount /mnt")
    case.guest.power_off()
    case.server.check_alive()
    file_system = Ext4(case.tree, case.image)
    file_system.check()
    if case.sums is None:
        raise Failure("the guest made no files to compare")
    file_system.compare("/data", case.sums, case.work / "extracted")


class LinuxOneQueue(WritableCase):
    """Everything, one after the other, on one queue, with split rings."""

    name = "linux-1-queue"
    packed = False

    @test
    def the_serial_number_is_read(self):
        """GET_ID."""
        expect_equal("the serial number", self.guest.run("cat $block/serial"), "SIDECARD-VM-0001")

    @test
    def the_limits_make_sense(self):
        """What the guest made of the configuration space."""
        expect_equal("the logical block size", self.queue_limit("logical_block_size"), "512")
        expect_equal("the write cache", self.queue_limit("write_cache"), "write back")
        for name, least in (("max_segments", 2), ("discard_max_bytes", MIB), ("write_zeroes_max_bytes", MIB)):
            value = int(self.queue_limit(name))
            expect(value >= least, f"{name} is {value}, should be at least {least}")

    @test
    def each_interrupt_has_its_own_vector(self):
        """MSI-X: one for configuration changes, one for the queue, and the queue's has come."""
        counts = self.interrupts()
        expect_equal("the list of interrupts", sorted(counts), ["virtio0-config", "virtio0-req.0"])
        expect(counts["virtio0-req.0"] > 0, f"interrupts: {counts}")

    @test
    def fio_verifies_in_a_file(self):
        """On ext4, with fsync."""
        workloads.fio_files(self.guest, "/mnt", 16)
        self.guest.run("rm /mnt/file.*")

    @test
    def fsync_reaches_the_disk_as_a_flush(self):
        """Counted by the guest, which gets an error if a flush fails."""
        before = self.flushes()
        self.guest.run("dd if=/dev/zero of=/mnt/flushed bs=4k count=1 conv=fsync 2>/dev/null")
        after = self.flushes()
        expect(after > before, f"{after} flushes after fsync, {before} before it")

    @test
    def trim_gives_space_back_to_the_host(self):
        """fstrim, discard, a sparse image."""
        workloads.check_trim(self.guest, self.image)

    @test
    def a_grown_image_is_seen_without_a_rescan(self):
        """The configuration interrupt; then the guest uses the new space."""
        before = self.interrupts()["virtio0-config"]
        new_size = self.size + 128 * MIB
        self.server.resize(self.machine, new_size)
        status, text = self.guest.try_run(f"""
            for i in $(seq 100); do
                [ "$(cat $block/size)" = {new_size // 512} ] && exit 0
                usleep 100000
            done
            cat $block/size
            exit 1
            """, seconds=40)
        expect(status == 0, f"10 s after the resize to {new_size // 512} sectors the guest sees {text.strip()}")
        after = self.interrupts()["virtio0-config"]
        expect(after > before, f"{after} configuration interrupts after the resize, {before} before it")
        free_before = self.guest.number("df -k /mnt | awk 'NR == 2 { print $4 }'")
        self.guest.run("/usr/sbin/resize2fs $disk")
        free_after = self.guest.number("df -k /mnt | awk 'NR == 2 { print $4 }'")
        expect(free_after - free_before > 100 * 1024,
               f"{free_after} KiB free after resize2fs, {free_before} KiB before it")

    @test
    def the_new_space_can_be_written(self):
        """Sectors past the old end."""
        self.guest.run(f"""
            dd if=/dev/urandom of=/tmp/piece bs=1M count=4 2>/dev/null
            fill=$(df -k /mnt | awk 'NR == 2 {{ print int($4 / 1024) - 24 }}')
            dd if=/dev/zero of=/mnt/fill bs=1M count=$fill 2>/dev/null
            cp /tmp/piece /mnt/piece
            sync
            echo 3 >/proc/sys/vm/drop_caches
            cmp /tmp/piece /mnt/piece
            rm /mnt/fill
            """, seconds=90)

    @test
    def the_host_finds_the_files_undamaged(self):
        """e2fsck and checksums."""
        power_off_and_look(self)


class LinuxDiscard(LinuxCase):
    """Discard and write zeroes on the bare disk."""

    name = "linux-discard"

    @test
    def discarding_all_empties_the_image(self):
        """blkdiscard."""
        workloads.check_discard_of_all(self.guest, self.image)

    @test
    def zeroes_are_written_where_asked(self):
        """Write zeroes, no unmap."""
        workloads.check_zeroes(self.guest, self.image, unmap=False)

    @test
    def zeroes_with_unmap_make_a_hole(self):
        """Write zeroes, unmap."""
        workloads.check_zeroes(self.guest, self.image, unmap=True)

    @test
    def the_guest_powers_off(self):
        """And QEMU ends well."""
        self.guest.power_off()


class LinuxFourQueues(WritableCase):
    """Four queues, four processors."""

    name = "linux-4-queues"
    queues = 4
    cpus = 4
    fio_jobs = 4

    @test
    def each_queue_has_worked(self):
        """By the count of its interrupts."""
        counts = self.interrupts()
        for queue in range(self.queues):
            expect(counts.get(f"virtio0-req.{queue}", 0) > 0, f"interrupts: {counts}")

    @test
    def the_host_finds_the_files_undamaged(self):
        """e2fsck and checksums."""
        power_off_and_look(self)


class LinuxFourQueuesSplit(LinuxFourQueues):
    """The same with split rings."""

    name = "linux-4-queues-split"
    short = False
    packed = False


class LinuxThreads(LinuxFourQueues):
    """Four queues on two threads of the server, the image opened without the host's page cache."""

    name = "linux-4-queues-2-threads"
    short = False
    fio_mib = 64

    def make_disk(self):
        return Disk(self.image, queues=4, threads=2, direct=True)


class LinuxReadOnly(LinuxCase):
    """A read-only disk."""

    name = "linux-read-only"
    without = set()
    may = {"DISCARD", "WRITE_ZEROES"}

    def make_disk(self):
        return Disk(self.image, read_only=True)

    @test
    def the_guest_knows_that_it_is_read_only(self):
        """VIRTIO_BLK_F_RO."""
        expect_equal("the kernel's word for it", self.guest.run("cat $block/ro"), "1")

    @test
    def writing_fails_and_changes_nothing(self):
        """The guest's kernel refuses."""
        before = checksum(self.image)
        status, text = self.guest.try_run("dd if=/dev/zero of=$disk bs=4k count=1 oflag=direct")
        expect(status != 0, f"writing succeeded: {text}")
        self.guest.power_off()
        expect_equal("the image's checksum", checksum(self.image), before)


class LinuxLargeBlocks(WritableCase):
    """Blocks of 4096 bytes."""

    name = "linux-4k-blocks"
    fio_block_sizes = "4k-128k"

    def make_disk(self):
        return Disk(self.image, block_size=4096)

    @test
    def the_block_size_is_seen(self):
        """VIRTIO_BLK_F_BLK_SIZE."""
        expect_equal("the logical block size", self.queue_limit("logical_block_size"), "4096")

    @test
    def the_host_finds_the_files_undamaged(self):
        """e2fsck and checksums."""
        power_off_and_look(self)


class LinuxWriteThrough(WritableCase):
    """No write cache: the guest need not flush, and does not."""

    name = "linux-write-through"
    short = False
    may = {"FLUSH"}

    def make_disk(self):
        return Disk(self.image, write_cache=False, direct=True)

    @test
    def the_guest_does_not_flush(self):
        """It sees a write-through disk."""
        expect_equal("the write cache", self.queue_limit("write_cache"), "write through")
        self.guest.run("sync")
        expect_equal("the number of flushes", self.flushes(), 0)

    @test
    def the_host_finds_the_files_undamaged(self):
        """e2fsck and checksums."""
        power_off_and_look(self)


class LinuxPinInterrupts(WritableCase):
    """A guest that is told not to use MSI-X: INTx, masked and unmasked by QEMU around each one."""

    name = "linux-intx"
    short = False
    queues = 2
    kernel_words = "pci=nomsi"

    @test
    def the_interrupts_are_pin_interrupts(self):
        """One line for everything."""
        counts = self.interrupts()
        expect_equal("the list of interrupts", sorted(counts), ["virtio0"])
        expect(counts["virtio0"] > 0, "no interrupt has come")

    @test
    def the_host_finds_the_files_undamaged(self):
        """e2fsck and checksums."""
        power_off_and_look(self)


class LinuxPrivateMemory(WritableCase):
    """The server does not see the guest's memory: rings and data move in messages. Then the machine reboots."""

    name = "linux-private-memory"
    shared = False
    fio_mib = 8

    @test
    def a_reboot_finds_the_files(self):
        """The firmware and the kernel come up again on the same session."""
        self.guest.run("umount /mnt")
        self.guest.reboot()
        self.guest.run("mkdir -p /mnt && mount $disk /mnt")
        workloads.check_files(self.guest, "/mnt/data", self.sums)

    @test
    def the_host_finds_the_files_undamaged(self):
        """e2fsck and checksums."""
        power_off_and_look(self)


class LinuxPrivateMemorySplit(LinuxPrivateMemory):
    """The same with split rings and two queues."""

    name = "linux-private-memory-split"
    short = False
    packed = False
    queues = 2
