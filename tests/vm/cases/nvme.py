# SPDX-License-Identifier: BSD-3-Clause
"""A Linux guest uses an NVMe disk with the driver that comes with its kernel."""

import time

from cases import workloads
from cases.linux_disk import WritableCase, power_off_and_look
from cases.restart import Restarts
from harness.case import Case, test
from harness.errors import expect, expect_equal
from harness.image import MIB, checksum, create, fill
from harness.machine import scaled
from harness.server import Disk

CONTROLLER = "/sys/class/nvme/nvme0"
# What the kernel says when its disk is taken away under load.
TAKEN_AWAY = r"I/O error, dev nvme0n1|Buffer I/O error on dev nvme0n1"


class NvmeCase(WritableCase):
    """A disk by NVMe that is written: to the bare disk, then into a file system that the host looks into at the end."""

    the_features_are_negotiated = None  # there are none
    interrupt_name = "nvme0q"
    block_size = 512
    threads = 1
    options = ()
    queues = 2

    def make_disk(self):
        return Disk(self.image, device="nvme", queues=self.queues, block_size=self.block_size, threads=self.threads,
                    options=self.options)

    @test
    def the_controller_is_live_and_named(self):
        """By the words in /sys."""
        expect_equal("its state", self.guest.run(f"cat {CONTROLLER}/state"), "live")
        expect_equal("its serial number", self.guest.run(f"cat {CONTROLLER}/serial"), "SIDECARD-VM-0001")
        expect_equal("the logical block size", self.queue_limit("logical_block_size"), str(self.block_size))
        expect_equal("the largest transfer in KiB", self.queue_limit("max_hw_sectors_kb"), "1024")

    @test
    def each_queue_has_an_interrupt_of_its_own(self):
        """MSI-X: one for the admin queue, one for each I/O queue, and they have come: each processor has asked for something."""
        self.guest.run("for cpu in $(seq 0 $(($(nproc) - 1))); do"
                       " taskset -c $cpu dd if=$disk of=/dev/null bs=4k count=8 iflag=direct 2>/dev/null; done")
        counts = self.interrupts()
        expect_equal("the list of interrupts", sorted(counts), [f"nvme0q{number}" for number in range(self.queues + 1)])
        expect(all(counts.values()), f"interrupts: {counts}")

    @test
    def fio_verifies_at_every_depth_and_block_size(self):
        """Small and large blocks, one and many at a time; while the files are mounted, in a file beside them."""
        workloads.fio_depths(self.guest, "/mnt", self.block_size)

    @test
    def trim_gives_space_back_to_the_host(self):
        """fstrim, Dataset Management, a sparse image."""
        workloads.check_trim(self.guest, self.image)

    @test
    def fsync_reaches_the_disk_as_a_flush(self):
        """Counted by the guest, which gets an error if a flush fails."""
        before = self.flushes()
        self.guest.run("dd if=/dev/zero of=/mnt/flushed bs=4k count=1 conv=fsync 2>/dev/null")
        after = self.flushes()
        expect(after > before, f"{after} flushes after fsync, {before} before it")


class NvmeToTheEnd(NvmeCase):
    """The end of those whose guest does nothing else."""

    @test
    def the_host_finds_the_files_undamaged(self):
        """e2fsck and checksums."""
        power_off_and_look(self)


class NvmeLinux(NvmeCase):
    """Two queues; then the controller is reset, taken away and given back under load, and the machine reboots."""

    name = "nvme"
    allowed_complaints = TAKEN_AWAY

    @test
    def fio_verifies_over_resets_of_the_controller(self):
        """`nvme reset` disables and enables it with I/O in flight, which the driver does again; nobody notices."""
        text = self.guest.run("""
            fio --name=reset --filename=/mnt/reset --ioengine=libaio --direct=1 --thread --iodepth=32 --rw=randwrite --bsrange=4k-64k \\
                --size=24m --time_based --runtime=6 --verify=crc32c --verify_fatal=1 --do_verify=1 >/tmp/fio 2>&1 &
            fio=$!
            sleep 1
            for i in $(seq 10); do
                /usr/sbin/nvme reset /dev/nvme0
                usleep 200000
            done
            kill -0 $fio && echo busy to the end
            wait $fio || { cat /tmp/fio; exit 1; }
            rm /mnt/reset
            """, seconds=120)
        expect("busy to the end" in text, f"the load had ended before the last reset: {text}")
        expect_equal("its state", self.guest.run(f"cat {CONTROLLER}/state"), "live")

    @test
    def files_are_as_they_were_after_the_resets(self):
        """Read from the disk again."""
        workloads.check_files(self.guest, "/mnt/data", self.sums)

    @test
    def a_controller_taken_away_under_load_comes_back(self):
        """Unbind, which deletes queues and disables the controller with I/O in flight, and bind."""
        self.guest.run(f"""
            umount /mnt
            address=$(basename $(readlink -f {CONTROLLER}/device))
            driver=/sys/bus/pci/drivers/nvme
            for i in 1 2 3; do
                fio --name=gone --filename=$disk --ioengine=libaio --direct=1 --thread --iodepth=32 --rw=randread --bs=4k --size=64m \\
                    --time_based --runtime=20 >/dev/null 2>&1 &
                fio=$!
                sleep 1
                echo $address >$driver/unbind
                kill $fio
                wait $fio || true
                if [ -e $disk ]; then echo "$disk is still there"; exit 1; fi
                echo $address >$driver/bind
                tries=0
                until [ -b $disk ]; do
                    tries=$((tries + 1))
                    if [ $tries -ge 100 ]; then echo "$disk does not come back"; exit 1; fi
                    usleep 100000
                done
            done
            mount -t ext4 $disk /mnt
            """, seconds=120)
        workloads.check_files(self.guest, "/mnt/data", self.sums)

    @test
    def a_reboot_finds_the_files(self):
        """The firmware and the kernel come up again on the same session; nothing was shut down."""
        self.guest.run("umount /mnt")
        self.guest.reboot()
        self.guest.run("mkdir -p /mnt && mount $disk /mnt")
        workloads.check_files(self.guest, "/mnt/data", self.sums)

    @test
    def the_host_finds_the_files_undamaged(self):
        """e2fsck and checksums."""
        power_off_and_look(self)


class NvmeDiscard(NvmeCase):
    """Deallocation and zeroes on the bare disk."""

    name = "nvme-discard"
    short = False
    # Nothing is mounted.
    ext4_is_made_and_mounted = files_are_written_and_read_again = fio_verifies_at_every_depth_and_block_size = None
    trim_gives_space_back_to_the_host = fsync_reaches_the_disk_as_a_flush = None

    @test
    def discarding_all_empties_the_image(self):
        """blkdiscard."""
        workloads.check_discard_of_all(self.guest, self.image)

    @test
    def zeroes_are_written_where_asked(self):
        """Write Zeroes without deallocation."""
        workloads.check_zeroes(self.guest, self.image, unmap=False)

    @test
    def zeroes_with_unmap_make_a_hole(self):
        """Write Zeroes with DEAC."""
        workloads.check_zeroes(self.guest, self.image, unmap=True)

    @test
    def the_guest_powers_off(self):
        """And QEMU ends well."""
        self.guest.power_off()


class NvmeLargeBlocks(NvmeToTheEnd):
    """Blocks of 4096 bytes, one queue."""

    name = "nvme-4k-blocks"
    short = False
    block_size = 4096
    queues = 1
    fio_block_sizes = "4k-128k"


class NvmeEightQueues(NvmeToTheEnd):
    """Eight queues on two threads, eight processors."""

    name = "nvme-8-queues-2-threads"
    short = False
    queues = 8
    threads = 2
    cpus = 8
    fio_jobs = 8
    fio_mib = 8


class NvmeOneThread(NvmeEightQueues):
    """Eight queues on one thread."""

    name = "nvme-8-queues-1-thread"
    threads = 1


class NvmePinInterrupts(NvmeToTheEnd):
    """A guest that is told not to use MSI-X."""

    name = "nvme-intx"
    short = False
    queues = 1
    kernel_words = "pci=nomsi"
    each_queue_has_an_interrupt_of_its_own = None


class NvmePrivateMemory(NvmeCase):
    """The server does not see the guest's memory: queues, lists and data move in messages. Then the machine reboots."""

    name = "nvme-private-memory"
    short = False
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


class NvmeNeverPolling(NvmeToTheEnd):
    """Queues that sleep until a doorbell is written."""

    name = "nvme-poll-never"
    short = False
    options = ("--poll=never",)


class NvmeRegisters(NvmeToTheEnd):
    """A driver that is offered no doorbells in memory: each is a register write."""

    name = "nvme-registers"
    short = False
    options = ("--shadow-doorbells=off",)


class NvmeAlwaysPolling(NvmeToTheEnd):
    """Queues that never sleep, on a thread of the server; QEMU maps the doorbells, and nothing wakes anybody."""

    name = "nvme-poll-always"
    short = False
    queues = 1
    options = ("--poll=always",)


class NvmeRestarts(Restarts):
    """Reboots, power cycles, a pulled plug and machines that are killed while they start, on one server."""

    name = "nvme-restarts"
    short = False
    the_features_are_negotiated = None  # there are none

    def make_disk(self):
        return Disk(self.image, device="nvme", queues=self.queues)


class NvmeNamespaces(Case):
    """Three namespaces on three backends; others come, grow and go while the first is under load."""

    name = "nvme-namespaces"
    reference = False

    def prepare(self):
        """Three images of different sizes, two of them in use, and a disk in memory."""
        self.images = [self.work / f"{name}.img" for name in ("first", "second", "late")]
        for number, image in enumerate(self.images):
            create(image, (64 + number) * MIB)
            fill(image, 0, 4 * MIB, image.name)
        self.first, self.second, self.third, self.late = (
            {"backend": str(self.images[0])}, {"backend": str(self.images[1]), "block-size": 4096}, {"backend": "ram:32M"},
            {"backend": str(self.images[2]), "nsid": 9})
        self.server.start(Disk(self.images[0], device="nvme", queues=2, threads=2, namespaces=(self.first, self.second, self.third)))
        self.boot_linux()

    def disks(self):
        """What the guest has, by NSID: the kernel's name, MiB, bytes of a block. It numbers the names in whatever order it looks."""
        lines = self.guest.run("""
            cd /sys/block
            for name in nvme0n*; do echo $(cat $name/nsid $name/size $name/queue/logical_block_size) $name; done 2>/dev/null
            """).splitlines()
        # One that goes just now has not all of it any more.
        disks = [line.split() for line in lines if len(line.split()) == 4]
        return {int(nsid): (name, int(size) // 2048, int(block)) for nsid, size, block, name in disks}

    def comes_to(self, wanted):
        """Waits until the guest has these sizes by NSID, without being told to look."""
        until = time.monotonic() + scaled(60)
        while True:
            sizes = {nsid: size for nsid, (_, size, _) in self.disks().items()}
            if sizes == wanted:
                return
            expect(time.monotonic() < until, f"{scaled(60):.0f} s later the guest has {sizes} MiB, not {wanted}")
            time.sleep(0.2)

    @test
    def the_guest_sees_three_disks(self):
        """Each with its size, its block size and its content."""
        disks = self.disks()
        expect_equal("the list of disks", {nsid: disk[1:] for nsid, disk in disks.items()}, {1: (64, 512), 2: (65, 4096), 3: (32, 512)})
        self.names = {nsid: name for nsid, (name, _, _) in disks.items()}
        for nsid in (1, 2):
            self.check_content(nsid, self.names[nsid])

    def check_content(self, nsid, name):
        """The beginning of an image, as the host filled it."""
        got = self.guest.run(f"dd if=/dev/{name} bs=1M count=4 iflag=direct 2>/dev/null | sha256sum")
        expect_equal(f"the checksum of namespace {nsid}", got.split()[0], checksum(self.images[min(nsid, 3) - 1], 0, 4 * MIB))

    @test
    def fio_verifies_on_all_three_at_once(self):
        """And on both queues."""
        words = " ".join(f"--name=n{nsid} --filename=/dev/{name}" for nsid, name in self.names.items())
        self.guest.run(f"""
            fio --ioengine=libaio --direct=1 --thread --iodepth=16 --rw=randwrite --bsrange=4k-64k --size=12m --verify=crc32c \\
                --verify_fatal=1 {words}
            """, seconds=240)

    @test
    def a_load_on_the_first_disk_begins(self):
        """It goes on, verifying, while the others come and go."""
        self.guest.run(f"""
            fio --name=load --filename=/dev/{self.names[1]} --ioengine=libaio --direct=1 --thread --iodepth=8 --rw=randwrite \\
                --bsrange=4k-64k --size=16m --verify=crc32c --verify_fatal=1 --time_based --runtime=600 >/tmp/load 2>&1 &
            echo $! >/tmp/load.pid
            """)

    @test
    def a_disk_is_added(self):
        """The guest hears of it by an event; ns-rescan finds no more."""
        self.server.reconfigure(self.first, self.second, self.third, self.late)
        self.comes_to({1: 64, 2: 65, 3: 32, 9: 66})
        self.guest.run("/usr/sbin/nvme ns-rescan /dev/nvme0")
        expect("0x9" in self.guest.run("/usr/sbin/nvme list-ns /dev/nvme0"), "list-ns does not name it")
        self.names[9] = self.disks()[9][0]
        self.check_content(9, self.names[9])

    @test
    def a_disk_grows_and_shrinks(self):
        """By the same event; the new space can be written."""
        self.server.resize(self.machine, 96 * MIB, self.images[2])
        self.comes_to({1: 64, 2: 65, 3: 32, 9: 96})
        self.guest.run(f"dd if=/dev/urandom of=/dev/{self.names[9]} bs=1M seek=90 count=4 oflag=direct 2>/dev/null")
        self.server.resize(self.machine, 80 * MIB, self.images[2])
        self.comes_to({1: 64, 2: 65, 3: 32, 9: 80})

    @test
    def disks_are_removed(self):
        """One that was there from the beginning, and one that came later; the guest is told."""
        self.server.reconfigure(self.first, self.third | {"nsid": 3})
        self.comes_to({1: 64, 3: 32})
        self.guest.run("/usr/sbin/nvme ns-rescan /dev/nvme0")
        expect("no ns changed" in self.guest.run("/usr/sbin/nvme changed-ns-list-log /dev/nvme0"), "the log is not empty")

    @test
    def the_load_has_felt_nothing(self):
        """fio ends in order when it is asked to, with everything verified."""
        self.guest.run("""
            kill -INT $(cat /tmp/load.pid)
            for i in $(seq 100); do kill -0 $(cat /tmp/load.pid) 2>/dev/null || break; usleep 100000; done
            grep -q 'err= 0' /tmp/load || { cat /tmp/load; exit 1; }
            """)

    @test
    def the_guest_powers_off(self):
        """And QEMU ends well."""
        self.guest.power_off()
