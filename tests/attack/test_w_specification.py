# SPDX-License-Identifier: BSD-3-Clause
"""Where the specification of vfio-user and libvfio-user, its first implementation, part: what the specification says is
done, and what either's clients send is accepted where that has one meaning. One test a difference."""

import errno
import json
import os
import struct

import pytest

from pylib import wire
from pylib.events import Canary
from pylib.memory import GuestMemory
from pylib.wire import Cmd

ADDR = 0x2000_0000
SIZE = 0x10000
GET, SET, PROBE = 1 << 16, 1 << 17, 1 << 18
MIGRATION, MIG_STATE, LOGGING_START, LOGGING_STOP, LOGGING_REPORT = 1, 2, 6, 7, 8


@pytest.fixture
def memory():
    with GuestMemory(SIZE) as memory:
        yield memory


# --- DMA_MAP, DMA_UNMAP -------------------------------------------------------------------------------------------

def test_w04_same_map_twice_is_refused_though_another_server_calls_it_a_success(client, memory):
    client.dma_map(ADDR, SIZE, fd=memory.fd)
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE), fds=[memory.fd], errnos=(errno.EEXIST,))
    client.dma_unmap(ADDR, SIZE)


def test_w05_map_above_eight_tebibytes_says_that_there_is_no_space(client, memory):
    client.refused(Cmd.DMA_MAP, wire.dma_map(0, (8 << 40) + 4096), errnos=(errno.ENOSPC,))
    client.refused(Cmd.DMA_MAP, wire.dma_map(0, (8 << 40) + 4096), fds=[memory.fd], errnos=(errno.ENOSPC,))


@pytest.mark.parametrize("flags", [wire.MAP_MMAP, wire.MAP_MMAP | wire.MAP_FILE_IO])
def test_w07_mmap_flag_is_accepted_with_an_fd_and_means_what_the_fd_means(client, memory, flags):
    """Not in the specification; sent by clients of the newer libvfio-user."""
    client.dma_map(ADDR, SIZE, fd=memory.fd, flags=wire.MAP_RW | flags)
    client.dma_unmap(ADDR, SIZE)


@pytest.mark.parametrize("flags", [wire.MAP_MMAP, wire.MAP_MMAP | wire.MAP_FILE_IO])
def test_f04_mmap_flag_without_an_fd_is_refused(client, flags):
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE, flags=wire.MAP_RW | flags), errnos=(errno.EINVAL,))
    client.dma_map(ADDR, SIZE)  # it left nothing behind
    client.dma_unmap(ADDR, SIZE)


@pytest.mark.parametrize("with_fd", [True, False])
def test_w07_file_io_without_mmap_is_not_supported(client, memory, with_fd):
    """Memory that may be read and written but not mapped."""
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE, flags=wire.MAP_RW | wire.MAP_FILE_IO),
                   fds=[memory.fd] if with_fd else [], errnos=(errno.ENOTSUP,))
    client.dma_map(ADDR, SIZE, fd=memory.fd)


@pytest.mark.parametrize("bit", range(4, 32))
def test_w07_every_other_map_flag_is_refused(client, memory, bit):
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, SIZE, flags=wire.MAP_RW | 1 << bit), fds=[memory.fd],
                   errnos=(errno.EINVAL,))


@pytest.mark.parametrize("flags", [0, wire.MAP_MMAP, wire.MAP_MMAP | wire.MAP_FILE_IO])
@pytest.mark.parametrize("offset, size", [(0, SIZE + 4096), (4096, SIZE), (SIZE, 4096), (SIZE - 4096, 8192)])
def test_f06_file_shorter_than_the_map_is_refused_whatever_the_flags(client, memory, flags, offset, size):
    """Another server takes it and gets SIGBUS later."""
    client.refused(Cmd.DMA_MAP, wire.dma_map(ADDR, size, offset=offset, flags=wire.MAP_RW | flags), fds=[memory.fd],
                   errnos=(errno.EINVAL,))


def test_w07_unmap_with_a_dirty_bitmap_is_not_supported_and_unmaps_nothing(client, memory):
    """Gone from the specification, still in libvfio-user."""
    client.dma_map(ADDR, SIZE, fd=memory.fd)
    body = wire.dma_unmap(ADDR, SIZE, flags=wire.UNMAP_DIRTY_BITMAP, argsz=24 + 16 + 8) + struct.pack("=QQ", 4096, 8)
    client.refused(Cmd.DMA_UNMAP, body, errnos=(errno.ENOTSUP,))
    client.dma_unmap(ADDR, SIZE)


def test_w07_unmap_all_gives_every_region_back(client, memory):
    for number in range(5):
        client.dma_map(ADDR + 2 * number * SIZE, SIZE, fd=memory.fd)
    client.dma_map(1 << 40, SIZE)
    assert client.dma_unmap(0, 0, flags=wire.UNMAP_ALL)[4:] == wire.dma_unmap(0, 0, flags=wire.UNMAP_ALL)[4:]
    client.refused(Cmd.DMA_UNMAP, wire.dma_unmap(ADDR, SIZE), errnos=(errno.ENOENT,))
    client.dma_map(ADDR, 20 * SIZE)
    client.dma_unmap(ADDR, 20 * SIZE)


def test_w07_unmap_flags_of_rust_vmm_are_refused_and_unmap_nothing(client, memory):
    """Its constants are one bit off: GET_DIRTY is the others' ALL, and ALL is a bit that nobody else has. No client of it
    sends them; whoever did would be refused, since a dirty bitmap comes with a range and ALL comes with none."""
    client.dma_map(ADDR, SIZE, fd=memory.fd)
    client.refused(Cmd.DMA_UNMAP, wire.dma_unmap(ADDR, SIZE, flags=1 << 1), errnos=(errno.EINVAL,))
    client.refused(Cmd.DMA_UNMAP, wire.dma_unmap(0, 0, flags=1 << 2), errnos=(errno.EINVAL,))
    client.dma_unmap(ADDR, SIZE)


# --- regions and reset --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("region", [wire.CONFIG, wire.BAR4])
def test_w15_access_of_zero_bytes_is_answered_with_the_structure(client, region):
    """Another server answers with a bare header."""
    for cmd, body in ((Cmd.REGION_READ, wire.region_read(region, 0, 0)), (Cmd.REGION_WRITE, wire.region_write(region, 0, b""))):
        assert client.call(cmd, body) == body[:16]


def test_w04_refused_access_is_answered_by_a_header_only(client):
    """Another server sends the payload along with the error."""
    client.refused(Cmd.REGION_READ, wire.region_read(wire.CONFIG, 4096, 16), errnos=(errno.EINVAL,))
    client.refused(Cmd.REGION_WRITE, wire.region_write(wire.CONFIG, 4090, bytes(16)), errnos=(errno.EINVAL,))


@pytest.mark.parametrize("length", [4, 16, 4096])
def test_w04_payload_of_a_reset_is_passed_over(client, length):
    client.call(Cmd.RESET, bytes(length))
    client.fence()


def test_w07_dirty_pages_is_no_command_any_more(client):
    client.refused(Cmd.DIRTY_PAGES, struct.pack("=II", 8, 1), errnos=(errno.ENOSYS,))


# --- DEVICE_FEATURE -----------------------------------------------------------------------------------------------

DATA = {MIG_STATE: struct.pack("=II", 1, 0), LOGGING_START: struct.pack("=QII", 4096, 0, 0),
        LOGGING_REPORT: struct.pack("=QQQ", ADDR, SIZE, 4096)}


@pytest.mark.parametrize("flags", [GET, SET, PROBE, PROBE | GET, PROBE | SET, PROBE | GET | SET])
@pytest.mark.parametrize("feature", [0, *range(1, 12), 255, 256, 257, 0xFFFF])
def test_w07_feature_that_is_not_there_is_said_to_be_so(client, feature, flags):
    """ENOTTY, as the kernel's VFIO says. A probe that succeeded would promise what is not there."""
    for data in (b"", DATA.get(feature, bytes(64))):
        client.refused(Cmd.DEVICE_FEATURE, wire.device_feature(feature, flags, data, argsz=4096), errnos=(errno.ENOTTY,))
    client.fence()


@pytest.mark.parametrize("flags", [0, GET | SET, 1 << 19, GET | 1 << 19, PROBE | 1 << 31, 0xFFFF_0000])
@pytest.mark.parametrize("feature", [MIGRATION, 0x1234])
def test_w07_feature_flags_that_say_nothing_sensible_are_refused(client, feature, flags):
    client.refused(Cmd.DEVICE_FEATURE, wire.device_feature(feature, flags), errnos=(errno.EINVAL,))


@pytest.mark.parametrize("argsz", [0, 1, 7])
def test_w04_feature_argsz_below_the_structure_is_refused_before_the_feature_is_looked_at(client, argsz):
    client.refused(Cmd.DEVICE_FEATURE, wire.device_feature(MIGRATION, GET, argsz=argsz), errnos=(errno.EINVAL,))


@pytest.mark.parametrize("length", range(8))
def test_w04_half_a_feature_request_is_refused(client, length):
    client.refused(Cmd.DEVICE_FEATURE, wire.device_feature(MIGRATION, GET)[:length], errnos=(errno.EINVAL,))
    client.fence()


def test_w05_logging_without_any_memory_is_refused(client):
    """Another server aborts."""
    body = wire.device_feature(LOGGING_START, SET, struct.pack("=QII", 4096, 0xFFFFFFFF, 0))
    client.refused(Cmd.DEVICE_FEATURE, body)
    client.fence()


@pytest.mark.parametrize("state", [0, 3, 4, 7, 8, 9, wire.U32_MAX])
def test_w06_migration_state_out_of_range_is_refused(client, state):
    """Another server looks into its table at 8."""
    client.refused(Cmd.DEVICE_FEATURE, wire.device_feature(MIG_STATE, SET, struct.pack("=II", state, 0)))
    client.fence()


@pytest.mark.parametrize("cmd, body", [
    (Cmd.MIG_DATA_READ, struct.pack("=II", 4096, 4088)), (Cmd.MIG_DATA_READ, struct.pack("=II", 8, 0)),
    (Cmd.MIG_DATA_READ, struct.pack("=II", wire.U32_MAX, wire.U32_MAX)),
    (Cmd.MIG_DATA_WRITE, struct.pack("=II", 8, 0)), (Cmd.MIG_DATA_WRITE, struct.pack("=II", 4104, 4096) + bytes(4096)),
    (Cmd.MIG_DATA_WRITE, struct.pack("=II", 8 + (1 << 20), 1 << 20) + bytes(1 << 20)),
])
def test_w07_migration_data_are_refused_outside_migration(server, client, cmd, body):
    before = server.resident_bytes()
    client.refused(cmd, body, errnos=(errno.EINVAL,))
    client.fence()
    server.assert_grew_less(before, 8 << 20)


@pytest.mark.parametrize("cmd", [Cmd.GET_REGION_IO_FDS, Cmd.DEVICE_FEATURE, Cmd.MIG_DATA_READ, Cmd.MIG_DATA_WRITE])
def test_f01_fds_with_a_message_that_takes_none_are_closed(client, cmd):
    canary = Canary()
    body = wire.well_formed()[Cmd(cmd).name.lower()][1]
    client.refused(cmd, body, fds=[canary.lent] * 3, errnos=(errno.EINVAL,))
    assert canary.returned()
    canary.close()


# --- VERSION ------------------------------------------------------------------------------------------------------

def test_w09_migration_key_of_an_older_specification_is_passed_over(server):
    """QEMU and Cloud Hypervisor still send it; libvfio-user wants its pgsize to be the host's."""
    client = server.client(text=b'{"capabilities":{"max_msg_fds":8,"migration":{"pgsize":65536,"max_bitmap_size":1}}}\0')
    assert "migration" not in json.loads(client.handshake_reply[4:-1])["capabilities"]
    client.fence()


def test_w11_clients_own_limits_are_kept(serve):
    """max_msg_fds on what is sent to it, max_data_xfer_size on what it reads: another server heeds neither."""
    client = serve("ram:16M", "--queues=8").client(capabilities={"max_msg_fds": 2, "max_data_xfer_size": 4096})
    _, events = client.region_io_fds(wire.BAR4)
    assert len(events) == 2
    for event in events:
        os.close(event.fd)
    assert len(client.read_region(wire.BAR4, 0, 4096)) == 4096
    client.refused(Cmd.REGION_READ, wire.region_read(wire.BAR4, 0, 4097), errnos=(errno.EINVAL,))
