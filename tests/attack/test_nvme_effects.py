# SPDX-License-Identifier: BSD-3-Clause
"""What admin commands of an NVMe controller bring about: a write cache that is really off, counts that are real, a keep alive timer that
ends the controller, long log pages, aborts."""

import errno
import struct
import time

import pytest

from pylib import faults
from pylib import nvme_spec as spec

SMART = {"read_units": 32, "written_units": 48, "reads": 64, "writes": 80, "hours": 128, "media_errors": 160, "errors": 176}


@pytest.fixture
def nvme(serve):
    return serve("ram:16M", device="nvme").guest(queues=2)


def smart(guest):
    done, data = guest.log(spec.LOG_SMART, 512)
    assert done.status == spec.OK
    return {name: int.from_bytes(data[at:at + 16], "little") for name, at in SMART.items()}


# --- the write cache ------------------------------------------------------------------------------------------------------------

def test_turning_the_cache_off_flushes_and_makes_writes_durable(serve, faulty_disk, image):
    guest = serve(image, device="nvme").guest()
    faulty_disk.hold(faults.FLUSH)
    guest.write(0, b"x" * 512)
    request = guest.issue(0, spec.SET_FEATURES, cdw10=spec.F_WRITE_CACHE, cdw11=0)
    assert guest.nothing_comes(0, request), "it ended before the flush"
    guest.write(1, b"y" * 512)  # queues go on meanwhile
    faulty_disk.open_gate()
    assert guest.finish(0, request).status == spec.OK
    assert guest.get_feature(spec.F_WRITE_CACHE).result == 0
    assert guest.set_feature(spec.F_WRITE_CACHE, 1).status == spec.OK
    assert guest.get_feature(spec.F_WRITE_CACHE).result == 1


def test_flush_that_fails_fails_what_turned_the_cache_off(serve, faulty_disk, image):
    server = serve(image, device="nvme")
    server.check_service = False  # what was lost is not known: the image has to be opened afresh
    guest = server.guest()
    guest.write(0, b"x" * 512)
    faulty_disk.fail(faults.FLUSH, errno.EIO)
    assert guest.set_feature(spec.F_WRITE_CACHE, 0).status != spec.OK
    assert faulty_disk.hits(faults.FLUSH) == 1


def test_reset_while_the_cache_is_flushed(serve, faulty_disk, image):
    guest = serve(image, device="nvme").guest()
    faulty_disk.hold(faults.FLUSH)
    guest.write(0, b"x" * 512)
    request = guest.issue(0, spec.SET_FEATURES, cdw10=spec.F_WRITE_CACHE, cdw11=0)
    assert guest.nothing_comes(0, request)
    guest.set(spec.CC, guest.get(spec.CC) & ~spec.EN)
    faulty_disk.open_gate()
    guest.wait_csts(spec.RDY, 0)
    guest.bring_up()
    guest.assert_works()
    assert guest.get_feature(spec.F_WRITE_CACHE).result == 1, "a reset brings the default back"


def test_cache_without_queues_has_nothing_to_flush(serve, image):
    guest = serve(image, device="nvme").guest(queues=0)
    assert guest.set_feature(spec.F_WRITE_CACHE, 0).status == spec.OK


def test_card_can_begin_without_a_cache(serve):
    guest = serve("ram:16M", "--write-cache=off", device="nvme").guest()
    assert guest.get_feature(spec.F_WRITE_CACHE).result == 0
    assert guest.get_feature(spec.F_WRITE_CACHE, select=1).result == 0
    assert guest.controller().raw[525] & 1, "it is there all the same"


# --- SMART --------------------------------------------------------------------------------------------------------------------------

def test_smart_counts_what_all_queues_did(nvme):
    before = smart(nvme)
    address = nvme.buffer(length=128 * 512)
    for turn in range(24):
        assert nvme.io(spec.WRITE, 0, 128, address, sqid=1 + turn % 2).status == spec.OK
    for turn in range(17):
        assert nvme.io(spec.READ, 0, 128, address, sqid=1 + turn % 2).status == spec.OK
    assert nvme.compare(0, nvme.space.read(address, 512)).status == spec.OK
    assert nvme.io(spec.READ, 1 << 40, 1, address).status != spec.OK  # counts as an error only
    after = smart(nvme)
    grown = {name: after[name] - before[name] for name in SMART}
    assert (grown["writes"], grown["reads"], grown["errors"], grown["media_errors"]) == (24, 18, 1, 0)
    assert grown["written_units"] == -(-24 * 128 * 512 // 512000)
    assert grown["read_units"] == -(-(17 * 128 + 1) * 512 // 512000)


def test_media_errors_are_counted(serve, faulty_disk, image):
    guest = serve(image, device="nvme").guest()
    faulty_disk.fail(faults.READ, errno.EIO)
    assert guest.io(spec.READ, 0, 1, guest.buffer(length=512)).status >> 8 == 2
    assert smart(guest)["media_errors"] == 1
    done, data = guest.log(spec.LOG_ERROR, 64)
    assert done.status == spec.OK and data[31] == spec.READ
    assert struct.unpack_from("<H", data, 12)[0] >> 1 & 0x7FF == 0x281


# --- logs ---------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("offset", [0, 256])
@pytest.mark.parametrize("length", [512, 4096, 12288, 1 << 20])
def test_log_page_that_is_asked_for_longer_than_it_is(nvme, length, offset):
    """What is behind its end is cleared, wherever the pages of the buffer are."""
    whole = nvme.log(spec.LOG_SMART, 512)[1]
    done, data = nvme.log(spec.LOG_SMART, length, offset=offset)
    assert done.status == spec.OK
    rest = whole[offset:]
    known = max(200 - offset, 0)
    assert data[:known] == rest[:known]
    assert data[512 - offset:] == bytes(length - (512 - offset))


def test_next_client_finds_no_errors_of_the_one_before(serve):
    server = serve("ram:16M", device="nvme")
    guest = server.guest()
    for _ in range(3):
        assert guest.io(spec.READ, 1 << 40, 1, guest.buffer(length=512)).status != spec.OK
    guest.restart()
    assert smart(guest)["errors"] == 3, "a reset of the controller keeps them"
    guest.close()
    assert smart(server.guest())["errors"] == 0


# --- features with data, in memory that is shared and that is not ---

@pytest.mark.parametrize("remote", [False, True])
def test_timestamp_goes_there_and_back(serve, remote):
    guest = serve("ram:16M", device="nvme").guest(remote=remote)
    address = guest.buffer(struct.pack("<Q", 0x123456789ABC))
    assert guest.set_feature(spec.F_TIMESTAMP, prp1=address).status == spec.OK
    got = guest.buffer(length=8)
    assert guest.get_feature(spec.F_TIMESTAMP, prp1=got).status == spec.OK
    value, = struct.unpack("<Q", guest.space.read(got, 8))
    assert value >> 48 == 2, "who set it"
    assert 0 <= (value & (1 << 48) - 1) - 0x123456789ABC < 60000
    nowhere = guest.set_feature(spec.F_TIMESTAMP, prp1=1 << 45)
    assert nowhere.status != spec.OK
    assert guest.get_feature(spec.F_TIMESTAMP, prp1=got).status == spec.OK
    assert struct.unpack("<Q", guest.space.read(got, 8))[0] >= value


# --- keep alive -----------------------------------------------------------------------------------------------------------------

def test_driver_that_falls_silent_loses_its_controller(nvme):
    assert nvme.set_feature(spec.F_KEEP_ALIVE, 1000).status == spec.OK
    assert nvme.until(lambda: nvme.fatal)
    nvme.restart()
    nvme.assert_works()
    assert nvme.get_feature(spec.F_KEEP_ALIVE).result == 0
    done, data = nvme.log(spec.LOG_ERROR, 64)
    assert done.status == spec.OK
    assert struct.unpack_from("<HHH", data, 8) == (0xFFFF, 0xFFFF, 0x19 << 1)


def test_driver_that_keeps_saying_so_keeps_its_controller(nvme):
    assert nvme.set_feature(spec.F_KEEP_ALIVE, 60000).status == spec.OK
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        assert nvme.admin(spec.KEEP_ALIVE).status == spec.OK
    assert nvme.set_feature(spec.F_KEEP_ALIVE, 0).status == spec.OK
    assert nvme.admin(spec.KEEP_ALIVE).status == spec.OK
    assert not nvme.fatal


# --- options --------------------------------------------------------------------------------------------------------------------

def test_names_are_those_that_were_given(serve):
    server = serve("ram:16M", "--serial=DISK 1", "--model=fast disk", "--nqn=nqn.2026-11.org.example:one", device="nvme")
    raw = server.guest().controller().raw
    assert raw[4:24] == b"DISK 1".ljust(20)
    assert raw[24:64] == b"fast disk".ljust(40)
    assert raw[768:1024] == b"nqn.2026-11.org.example:one".ljust(256, b"\0")


def test_vectors_and_queues_are_those_that_were_given(serve):
    guest = serve("ram:16M", "--queues=6", "--vectors=3", "--queue-size=100", device="nvme").guest(queues=0)
    assert guest.set_feature(spec.F_QUEUES, 0x00FF00FF).result == 0x00050005
    assert guest.capabilities.entries == 100
    assert guest.get_feature(spec.F_VECTOR, cdw11=2).status == spec.OK
    assert guest.get_feature(spec.F_VECTOR, cdw11=3).status == spec.INVALID_FIELD
    assert guest.create_cq(1, 16, vector=3).status == spec.VECTOR_INVALID


@pytest.mark.parametrize("options, parts", [
    (["--queues=0"], ["--queues=0", "must be 1 to 256"]),
    (["--queues=257"], ["must be 1 to 256"]),
    (["--queue-size=1"], ["must be 2 to 32768"]),
    (["--queues=2", "--vectors=4"], ["--vectors=4", "--vectors=3"]),
    (["--vectors=0"], ["must be 1 to 257"]),
    (["--serial=123456789012345678901"], ["20"]),
    (["--model=" + "m" * 41], ["40"]),
    (["--nqn=" + "nqn." + "n" * 220], ["223"]),
    (["--nqn=disk1"], ["begin with nqn.", "--nqn=nqn."]),
    (["--serial=d\u00eesk"], ["--serial", "ASCII"]),
    (["--packed=on"], ["--packed"]),
])
def test_options_that_cannot_be_are_refused(workdir, cli, options, parts):
    status, stderr = cli("serve", workdir.path / "s", "nvme", "ram:16M", *options)
    assert status == 2
    for part in parts:
        assert part in stderr


def test_nvme_over_vhost_user_is_refused(workdir, cli):
    status, stderr = cli("serve", f"vhost-user:{workdir.path / 's'}", "nvme", "ram:16M")
    assert status == 2 and "not a virtio device" in stderr
