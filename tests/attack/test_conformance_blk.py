# SPDX-License-Identifier: BSD-3-Clause
"""The virtio disk as an honest driver sees it: features, queues, requests, write cache, geometry, resize."""

import os
import signal

import pytest

from pylib import blk, virtio, wire
from pylib.events import wait_until
from pylib.ring import Segment
from pylib.vm import USUAL_FEATURES

M = 1 << 20


@pytest.fixture(params=["ram", "file", "direct"])
def disk(request, serve, image):
    """8 MiB behind each kind of backend that keeps what is written."""
    if request.param == "ram":
        return serve("ram:8M")
    return serve(image, *(["--direct"] if request.param == "direct" else []))


# --- features and queues ----------------------------------------------------------------------------------------

def test_features_that_are_offered(serve):
    driver = virtio.VirtioPci(serve("ram:16M", "--queues=2").client()).discover()
    offered = driver.device_features()
    for name, bit in (("VERSION_1", virtio.F_VERSION_1), ("INDIRECT_DESC", virtio.F_INDIRECT_DESC),
                      ("EVENT_IDX", virtio.F_EVENT_IDX), ("ACCESS_PLATFORM", virtio.F_ACCESS_PLATFORM),
                      ("SIZE_MAX or SEG_MAX", blk.F_SEG_MAX), ("BLK_SIZE", blk.F_BLK_SIZE), ("FLUSH", blk.F_FLUSH),
                      ("TOPOLOGY", blk.F_TOPOLOGY), ("CONFIG_WCE", blk.F_CONFIG_WCE), ("MQ", blk.F_MQ),
                      ("DISCARD", blk.F_DISCARD), ("WRITE_ZEROES", blk.F_WRITE_ZEROES)):
        assert offered & bit, f"{name} isn't offered"
    assert not offered & blk.F_RO


@pytest.mark.parametrize("extra", [0, virtio.F_ACCESS_PLATFORM, virtio.F_EVENT_IDX, virtio.F_INDIRECT_DESC,
                                   virtio.F_EVENT_IDX | virtio.F_ACCESS_PLATFORM | virtio.F_INDIRECT_DESC])
def test_every_combination_of_ring_features_works(server, extra):
    guest = server.guest(features=virtio.F_VERSION_1 | extra)
    guest.assert_works()


def test_status_is_read_back_as_it_was_written(client):
    driver = virtio.VirtioPci(client).discover()
    assert driver.status == 0
    for status in (1, 3):
        driver.status = status
        assert driver.status == status
    driver.set_driver_features(virtio.F_VERSION_1)
    driver.status = 11
    assert driver.status == 11
    driver.reset()
    assert driver.status == 0


def test_queue_registers_hold_what_the_driver_writes(client):
    driver = virtio.VirtioPci(client).discover()
    assert driver.negotiate(virtio.F_VERSION_1)
    driver.set("queue_select", 0)
    assert driver.get("queue_select") == 0
    largest = driver.get("queue_size")
    assert largest >= 64 and largest & (largest - 1) == 0
    assert driver.get("queue_notify_off") == 0
    for name, value in (("queue_size", 16), ("queue_desc", 0x1234_5678_9ABC_D000), ("queue_driver", 0xFFFF_FFFF_0000),
                        ("queue_device", 0x7_0000_1000), ("queue_msix_vector", 1)):
        driver.set(name, value)
        assert driver.get(name) == value, name
    driver.reset()
    driver.set("queue_select", 0)
    for name, value in (("queue_size", largest), ("queue_desc", 0), ("queue_driver", 0), ("queue_device", 0),
                        ("queue_msix_vector", virtio.NO_VECTOR), ("queue_enable", 0)):
        assert driver.get(name) == value, f"{name} after a reset"


@pytest.mark.parametrize("queues", [1, 4, 16, 64])
def test_every_queue_works(serve, queues):
    guest = serve("ram:16M", f"--queues={queues}").guest(queues=queues, queue_size=16)
    assert guest.virtio.get("num_queues") == queues
    if queues > 1:
        assert guest.config.num_queues == queues
    for index in range(queues):
        guest.write(index, bytes([index + 1]) * 512, queue=index)
    for index in range(queues):
        assert guest.read(index, 1, queue=queues - 1 - index) == bytes([index + 1]) * 512


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_queues_on_several_threads_work_at_the_same_time(serve, threads):
    guest = serve("ram:16M", "--queues=4", f"--threads={threads}").guest(queues=4, memory=16 * M)
    guest.reuse = False
    requests = []
    for turn in range(12):
        for index in range(4):
            request = guest.prepare(blk.T_OUT, 64 * index + turn, data=bytes([index * 16 + turn]) * 512, queue=index)
            requests.append(guest.submit(request, kick=False))
    for index in range(4):
        guest.kick(index, posted=True)
    for index in range(4):
        assert len(guest.queues[index].wait(12)) == 12
    assert all(guest.space.read(request.status_addr, 1) == b"\0" for request in requests)
    for turn in range(12):
        for index in range(4):
            assert guest.read(64 * index + turn, 1, queue=index) == bytes([index * 16 + turn]) * 512


@pytest.mark.parametrize("option, size", [(1, 1), (2, 2), (4, 4), (32768, 32768), (32768, 8)])
def test_queue_of_size(serve, option, size):
    """A queue of one entry takes indirect tables only; one of 32768 wraps its 16-bit indices twice in its length."""
    guest = serve("ram:16M", f"--queue-size={option}").guest(queue_size=size, memory=8 * M)
    for sector in range(10):
        guest.write(sector, bytes([sector + 1]) * 512)
    for sector in range(10):
        assert guest.read(sector, 1) == bytes([sector + 1]) * 512


def test_queue_of_32768_entries_can_be_filled_whole(serve):
    guest = serve("ram:16M", "--queue-size=32768").guest(queue_size=32768, memory=8 * M)
    header, status = guest.space.alloc(16), guest.space.alloc(1, 1)
    guest.space.write(header, blk.header(blk.T_FLUSH))
    queue = guest.queue
    for index in range(0, 32768, 2):
        queue.set_desc(index, header, 16, 1, index + 1)
        queue.set_desc(index + 1, status, 1, 2)
        queue.put_avail(index)
    queue.set_avail_idx()
    guest.kick(posted=True)
    assert wait_until(lambda: queue.used_idx() == 16384), f"{queue.used_idx()} of 16384 came back"
    heads = {queue.used_elem(index)[0] for index in range(16384)}
    assert heads == set(range(0, 32768, 2))


def test_ring_indices_wrap_many_times(serve):
    guest = serve("ram:16M").guest(queue_size=4)
    request = guest.prepare(blk.T_IN, 0, length=512)
    head = guest.queue.build(guest.segments(request, writable=True))
    guest.queue.chains = {}
    for _ in range(4000):
        guest.queue.offer(head)
        guest.kick(posted=True)
        assert guest.queue.wait(1)
    guest.client.fence()


def test_many_requests_in_flight_complete_each_once(disk):
    guest = disk.guest(queue_size=256, memory=16 * M)
    for _ in range(5):
        mark = guest.space.mark()
        requests = {}
        for i in range(80):
            request = guest.submit(guest.prepare(blk.T_OUT, 8 * i, data=bytes([i + 1]) * 4096), kick=False)
            requests[request.head] = request
        guest.kick(posted=True)
        done = guest.queue.wait(80)
        assert sorted(head for head, _ in done) == sorted(requests)
        assert all(length == 1 for _, length in done)
        assert all(guest.space.read(request.status_addr, 1) == b"\0" for request in requests.values())
        guest.space.release(mark)
    for i in range(80):
        assert guest.read(8 * i, 8) == bytes([i + 1]) * 4096


# --- requests ---------------------------------------------------------------------------------------------------

def test_read_shows_what_the_image_holds(serve, image):
    guest = serve(image).guest()
    assert guest.config.capacity == 16384
    for sector in (0, 1, 777, 16383):
        assert guest.read(sector, 1) == sector.to_bytes(8, "little") * 64


def test_write_reaches_the_image_and_nothing_else_in_it(serve, image):
    server = serve(image)
    guest = server.guest()
    before = image.read_bytes()
    guest.write(100, b"\x5A" * 2048)
    guest.flush()
    assert image.read_bytes() == before[:51200] + b"\x5A" * 2048 + before[53248:]


def test_flush_completes(disk):
    guest = disk.guest()
    guest.write(0, b"\x01" * 512)
    guest.flush()


def test_identity_is_the_serial_padded_with_nul(serve):
    guest = serve("ram:16M", "--serial=disk-0815").guest()
    result = guest.do(blk.T_GET_ID, length=20)
    assert result.status == blk.S_OK
    assert result.data == b"disk-0815".ljust(20, b"\0")


def test_identity_of_twenty_characters_has_no_nul(serve):
    guest = serve("ram:16M", "--serial=" + "s" * 20).guest()
    assert guest.do(blk.T_GET_ID, length=20).data == b"s" * 20


@pytest.mark.parametrize("unmap", [0, blk.WZ_UNMAP])
def test_write_zeroes_zeroes_exactly_its_range(disk, unmap):
    guest = disk.guest()
    guest.write(0, b"\x77" * 65536)
    assert guest.discard(5, 100, blk.T_WRITE_ZEROES, unmap) == blk.S_OK
    assert guest.read(0, 128) == b"\x77" * 2560 + b"\0" * 51200 + b"\x77" * (65536 - 53760)


def test_write_zeroes_over_several_segments(disk):
    guest = disk.guest()
    if guest.config.max_write_zeroes_seg < 3:
        pytest.skip("fewer than three segments are offered")
    guest.write(0, b"\x77" * 8192)
    data = blk.discard_segment(0, 1) + blk.discard_segment(4, 2) + blk.discard_segment(15, 1)
    assert guest.do(blk.T_WRITE_ZEROES, data=data).status == blk.S_OK
    content = guest.read(0, 16)
    zero = [i for i in range(16) if content[512 * i:512 * i + 512] == b"\0" * 512]
    assert zero == [0, 4, 5, 15]


def test_discard_leaves_the_rest_alone_and_frees_the_image(serve, workdir):
    image = workdir.file("disk", content=b"\x99" * (4 * M))
    guest = serve(image).guest()
    config = guest.config
    assert config.max_discard_sectors > 0 and config.max_discard_seg > 0
    before = image.stat().st_blocks
    assert guest.discard(2048, 4096) == blk.S_OK
    assert guest.read(0, 8) == b"\x99" * 4096 and guest.read(6144, 8) == b"\x99" * 4096
    if image.stat().st_blocks == before:
        pytest.skip("this file system punches no holes")
    assert guest.read(2048, 8) == b"\0" * 4096


def test_unmapping_write_zeroes_frees_the_image_if_the_device_says_it_may(serve, workdir):
    image = workdir.file("disk", content=b"\x99" * (4 * M))
    guest = serve(image).guest()
    before = image.stat().st_blocks
    assert guest.discard(0, 4096, blk.T_WRITE_ZEROES, blk.WZ_UNMAP) == blk.S_OK
    assert guest.read(0, 8) == b"\0" * 4096
    if guest.config.write_zeroes_may_unmap:
        assert image.stat().st_blocks <= before


def test_read_only_disk_refuses_writes_and_says_so(serve, image):
    before = image.read_bytes()
    server = serve(image, "--read-only")
    guest = server.guest()
    assert guest.virtio.features & blk.F_RO
    assert guest.read(3, 1) == (3).to_bytes(8, "little") * 64
    assert guest.do(blk.T_OUT, 0, data=b"\0" * 512).status == blk.S_IOERR
    assert guest.discard(0, 1) in (blk.S_IOERR, blk.S_UNSUPP)
    assert guest.discard(0, 1, blk.T_WRITE_ZEROES) in (blk.S_IOERR, blk.S_UNSUPP)
    assert image.read_bytes() == before


def test_read_only_disk_whose_driver_does_not_know_the_feature_is_not_written_either(serve, image):
    before = image.read_bytes()
    guest = serve(image, "--read-only").guest(features=virtio.F_VERSION_1)
    assert guest.do(blk.T_OUT, 0, data=b"\0" * 512).status == blk.S_IOERR
    assert image.read_bytes() == before


def test_image_that_may_only_be_read_is_served_read_only(serve, image):
    """By its permissions, also for a process that isn't root's."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    image.parent.chmod(0o777)
    image.chmod(0o444)
    guest = serve(image, "--read-only", user=65534).guest()
    assert guest.read(3, 1) == (3).to_bytes(8, "little") * 64


def test_null_disk_completes_everything_and_keeps_nothing(serve):
    guest = serve("null:1G").guest()
    assert guest.config.capacity == (1 << 30) // 512
    guest.write(1000, b"\x11" * 512)
    assert guest.read(1000, 1) != b"\x11" * 512
    assert guest.do(blk.T_IN, guest.config.capacity, length=512).status == blk.S_IOERR
    guest.flush()


# --- configuration ------------------------------------------------------------------------------------------------

def test_configuration_of_a_disk_with_blocks_of_512(serve):
    config = serve("ram:16M", "--queues=3", "--seg-max=77", "--size-max=65536").guest(queues=3).config
    assert config.capacity == 32768
    assert config.blk_size == 512
    assert (config.seg_max, config.size_max) == (77, 65536)
    assert config.num_queues == 3
    assert config.max_write_zeroes_sectors > 0 and config.max_write_zeroes_seg > 0


def test_configuration_of_a_disk_with_blocks_of_4096(serve, workdir):
    guest = serve(workdir.file("disk", 8 * M), "--block-size=4096").guest()
    assert guest.config.blk_size == 4096
    assert guest.config.capacity == 16384, "capacity stays in units of 512 bytes"
    guest.write(8, b"\x21" * 4096)
    assert guest.read(8, 8) == b"\x21" * 4096
    assert guest.config.discard_sector_alignment % 8 == 0


def test_configuration_reads_the_same_in_every_size(guest):
    whole = guest.virtio.config_read(0, blk.CONFIG_SIZE)
    assert b"".join(guest.virtio.config_read(at, 1) for at in range(blk.CONFIG_SIZE)) == whole
    assert b"".join(guest.virtio.config_read(at, 4) for at in range(0, blk.CONFIG_SIZE, 4)) == whole


@pytest.mark.parametrize("setting, features, expected", [
    ("on", USUAL_FEATURES, 1), ("off", USUAL_FEATURES, 0),
    ("on", USUAL_FEATURES & ~blk.F_FLUSH & ~blk.F_CONFIG_WCE, None)])
def test_write_cache_setting_shows_in_the_configuration(serve, setting, features, expected):
    guest = serve("ram:16M", f"--write-cache={setting}").guest(features=features)
    if expected is not None:
        assert guest.config.writeback == expected
    guest.assert_works()


def test_write_cache_can_be_toggled_by_the_driver(serve, image):
    guest = serve(image).guest()
    for value in (0, 1, 0):
        guest.virtio.config_write(blk.OFF_WRITEBACK, bytes([value]))
        assert guest.virtio.config_read(blk.OFF_WRITEBACK, 1) == bytes([value])
        guest.assert_works()
        guest.flush()


def test_write_cache_cannot_be_toggled_without_the_feature(server):
    guest = server.guest(features=USUAL_FEATURES & ~blk.F_CONFIG_WCE)
    before = guest.virtio.config_read(blk.OFF_WRITEBACK, 1)
    guest.virtio.config_write(blk.OFF_WRITEBACK, bytes([1 - before[0]]))
    assert guest.virtio.config_read(blk.OFF_WRITEBACK, 1) == before


@pytest.mark.parametrize("value", [2, 0x80, 0xFF])
def test_write_cache_takes_zero_and_one_only_or_normalises(guest, value):
    guest.virtio.config_write(blk.OFF_WRITEBACK, bytes([value]))
    assert guest.virtio.config_read(blk.OFF_WRITEBACK, 1)[0] in (0, 1)


# --- resize -------------------------------------------------------------------------------------------------------

def capacity_of(guest):
    return blk.parse_config(guest.virtio.config_read(0, blk.CONFIG_SIZE)).capacity


def test_capacity_grows_by_sighup_with_a_configuration_interrupt(serve, workdir):
    image = workdir.file("disk", 4 * M)
    server = serve(image)
    guest = server.guest()
    generation = guest.virtio.get("config_generation")
    assert guest.do(blk.T_IN, 8192, length=512).status == blk.S_IOERR
    os.truncate(image, 8 * M)
    server.signal(signal.SIGHUP)
    assert guest.config_event.wait(), "no configuration interrupt"
    assert capacity_of(guest) == 16384
    assert guest.virtio.get("config_generation") != generation
    guest.write(16383, b"\x88" * 512)
    assert guest.read(16383, 1) == b"\x88" * 512


def test_capacity_shrinks_by_sighup_and_what_is_gone_fails(serve, workdir):
    image = workdir.file("disk", 8 * M)
    server = serve(image)
    guest = server.guest()
    os.truncate(image, 4 * M)
    server.signal(signal.SIGHUP)
    assert guest.config_event.wait()
    assert capacity_of(guest) == 8192
    assert guest.do(blk.T_IN, 8192, length=512).status == blk.S_IOERR
    assert guest.do(blk.T_OUT, 8191, data=b"\1" * 1024).status == blk.S_IOERR
    assert image.stat().st_size == 4 * M, "a write past the end has grown the image"
    guest.assert_works()


def test_sighup_without_a_change_interrupts_nobody(serve, image):
    server = serve(image)
    guest = server.guest()
    for _ in range(3):
        server.signal(signal.SIGHUP)
    assert not guest.config_event.wait(0.1)
    guest.assert_works()


def test_sighup_without_a_client_is_remembered_by_the_size(serve, workdir):
    image = workdir.file("disk", 4 * M)
    server = serve(image)
    os.truncate(image, 6 * M)
    server.signal(signal.SIGHUP)
    guest = server.guest()
    assert wait_until(lambda: capacity_of(guest) == 12288)


def test_resize_to_a_size_that_is_no_multiple_of_the_block_uses_whole_blocks_or_keeps_the_old(serve, workdir):
    image = workdir.file("disk", 4 * M)
    server = serve(image)
    guest = server.guest()
    os.truncate(image, 4 * M + 700)
    server.signal(signal.SIGHUP)
    for _ in range(20):  # before and after the server has looked
        capacity = capacity_of(guest)
        assert capacity in (8192, 8193)
        assert guest.do(blk.T_IN, 8193, length=512).status == blk.S_IOERR
    assert wait_until(lambda: guest.do(blk.T_IN, capacity_of(guest), length=512).status == blk.S_IOERR)


def test_sighup_on_backends_without_a_file_is_harmless(serve):
    for backend in ("ram:16M", "null:16M"):
        server = serve(backend)
        guest = server.guest()
        server.signal(signal.SIGHUP)
        assert not guest.config_event.wait(0.05)


def test_unaligned_spans_of_every_kind_work_with_direct_io(serve, image):
    guest = serve(image, "--direct").guest(memory=8 * M)
    data = os.urandom(32 * 512)
    for offset in (0, 1, 511, 512, 513, 4095):
        place = guest.space.alloc(len(data) + 8192, 4096) + offset
        guest.space.write(place, data)
        request = guest.prepare(blk.T_OUT, 40)
        guest.submit(request, [Segment(request.header, 16), Segment(place, 700), Segment(place + 700, len(data) - 700),
                               Segment(request.status_addr, 1, True)])
        assert guest.finish(request).status == blk.S_OK
        assert guest.read(40, 32) == data
    assert guest.config.capacity * 512 == wire.MAX_DATA_XFER * 8


def test_a_thread_serves_more_queues_than_it_can_register_files(serve, image):
    guest = serve(image, "--queues=400").guest(queues=400, queue_size=2, memory=16 << 20)
    for index in (0, 255, 256, 399):
        guest.write(index, bytes([index & 0xff]) * 512, queue=index)
        assert guest.read(index, 1, queue=index) == bytes([index & 0xff]) * 512
