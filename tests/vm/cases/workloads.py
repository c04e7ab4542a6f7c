# SPDX-License-Identifier: BSD-3-Clause
"""What guests do with a disk: the loads that several cases share.

Programs that busybox has too are called by their full path, or the shell takes busybox's.
"""

from harness.errors import expect, expect_equal
from harness.image import MIB, allocated


def fio_raw(guest, size_mib, block_sizes="512-128k", jobs=1):
    """Random writes of all sizes straight to the disk, each job in a part of its own; everything is read back and
    verified. With as many jobs as processors each processor, and so each queue, has one."""
    share = size_mib // jobs
    guest.run(f"""
        fio --name=raw --filename=$disk --ioengine=libaio --direct=1 --thread --iodepth=16 --rw=randwrite \\
            --bsrange={block_sizes} --numjobs={jobs} --size={share}m --offset_increment={share}m \\
            --cpus_allowed=0-{jobs - 1} --cpus_allowed_policy=split --verify=crc32c --verify_fatal=1 --group_reporting
        """, seconds=240)


def fio_files(guest, folder, size_mib):
    """Random reads and writes in a file, with fsync now and then; what was written is verified."""
    guest.run(f"""
        fio --name=file --directory={folder} --ioengine=libaio --direct=1 --thread --iodepth=8 --rw=randwrite \\
            --bsrange=4k-64k --size={size_mib}m --fsync=64 --verify=sha256 --verify_fatal=1
        """, seconds=240)


def fio_depths(guest, folder, smallest):
    """Several depths and block sizes, each written and verified in a file of its own."""
    jobs = [(1, smallest), (4, 4096), (64, smallest), (32, 65536), (8, 1 << 20)]
    words = " ".join(f"--name=depth{depth}-{size} --iodepth={depth} --bs={size} --size={max(size * 16, 1 << 20)} --stonewall"
                     for depth, size in jobs)
    guest.run(f"""
        fio --directory={folder} --ioengine=libaio --direct=1 --thread --rw=randwrite --verify=crc32c --verify_fatal=1 \
            --group_reporting {words}
        rm {folder}/depth*
        """, seconds=240)


def make_ext4(guest, words=""):
    """An ext4 file system on the whole disk, mounted at /mnt."""
    guest.run(f"""
        /usr/sbin/mkfs.ext4 -q -F {words} $disk
        mount -t ext4 $disk /mnt
        """)


def make_files(guest, folder, big_mib=24):
    """Files of many sizes, large and small; returns their checksums as sha256sum prints them."""
    return guest.run(f"""
        mkdir -p {folder}/small {folder}/programs
        dd if=/dev/urandom of={folder}/big bs=1M count={big_mib} 2>/dev/null
        for i in $(seq 100); do
            head -c $((i * i * 3)) {folder}/big >{folder}/small/$i
        done
        cp /usr/sbin/* /bb/busybox {folder}/programs
        sync
        cd {folder}
        find . -type f | sort | sed 's,^[.]/,,' | xargs sha256sum
        """, seconds=120)


def check_files(guest, folder, sums):
    """Fails unless the guest reads the files of `make_files` from the disk, not from its cache, as they were made."""
    got = guest.run(f"""
        echo 3 >/proc/sys/vm/drop_caches
        cd {folder}
        find . -type f | sort | sed 's,^[.]/,,' | xargs sha256sum
        """, seconds=120)
    expect_equal("the list of checksums", got, sums)


def check_discard_of_all(guest, image):
    """The whole disk discarded: the image takes (nearly) nothing on the host any more."""
    before = allocated(image)
    expect(before >= 16 * MIB, f"the image takes {before} bytes before the discard: the test would show nothing")
    guest.run("/usr/sbin/blkdiscard -f $disk")
    after = allocated(image)
    expect(after <= MIB, f"the image takes {after} bytes on the host after the discard, {before} before")


def check_trim(guest, image):
    """A file written, deleted and trimmed: the host gets the file's space back."""
    guest.run("dd if=/dev/urandom of=/mnt/rubbish bs=1M count=32 conv=fsync 2>/dev/null")
    before = allocated(image)
    guest.run("""
        rm /mnt/rubbish
        sync
        /usr/sbin/fstrim -v /mnt
        """)
    after = allocated(image)
    expect(before - after >= 31 * MIB,
           f"the image takes {after} bytes on the host after the trim, {before} before: that is not 32 MiB less")


def check_zeroes(guest, image, unmap):
    """A range in the middle of data zeroed by one request: zeroes there, the data around it as before."""
    guest.run("dd if=/dev/urandom of=$disk bs=1M count=24 oflag=direct 2>/dev/null")
    before = allocated(image)
    around = "(dd if=$disk bs=1M count=8; dd if=$disk bs=1M skip=16 count=8) 2>/dev/null | sha256sum"
    sums = guest.run(around)
    zero = "/usr/bin/fallocate -p" if unmap else "/usr/sbin/blkdiscard -f -z"
    guest.run(f"""
        {zero} -o $((8 << 20)) -l $((8 << 20)) $disk
        echo 3 >/proc/sys/vm/drop_caches
        dd if=$disk bs=1M skip=8 count=8 iflag=direct 2>/dev/null | cmp -n $((8 << 20)) - /dev/zero
        """)
    expect_equal("the checksum of the data around the zeroes", guest.run(around), sums)
    if unmap:
        after = allocated(image)
        expect(before - after >= 7 * MIB, f"the image takes {after} bytes on the host, {before} before: the zeroes "
               "should have given back 8 MiB")
