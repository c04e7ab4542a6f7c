# SPDX-License-Identifier: BSD-3-Clause
"""Rows W4 to W8, W10, W11: payloads that are too short, sums that wrap, indices that only fit after truncation,
unknown commands, replies nobody asked for, commands out of order, transfers beyond what was negotiated."""

import errno
import os
import struct

import pytest

from pylib import blk, wire
from pylib.client import Closed
from pylib.memory import GuestMemory
from pylib.wire import Cmd

M = 1 << 20


# --- W4 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", sorted(wire.well_formed()))
def test_w04_payload_shorter_than_the_struct_is_refused(client, name):
    cmd, payload = wire.well_formed()[name]
    for length in range(len(payload)):
        client.refused(cmd, payload[:length])
    client.fence()


def test_w04_version_shorter_than_its_two_numbers_is_refused(server):
    for length in range(4):
        client = server.connect()
        client.refused(Cmd.VERSION, b"\0" * length)
        client.close()


@pytest.mark.parametrize("length", [1, 4, 7])
def test_w04_region_write_with_less_data_than_its_count_is_refused(client, length):
    client.refused(Cmd.REGION_WRITE, wire.region_write(wire.CONFIG, wire.ROM, b"\0" * length, count=8))
    client.fence()


def test_w04_region_write_with_more_data_than_its_count_is_refused(client):
    client.refused(Cmd.REGION_WRITE, wire.region_write(wire.CONFIG, 0x3C, b"\1\2\3\4", count=1))
    client.fence()


def test_w04_payload_after_the_struct_is_refused_or_ignored_but_answered_once(client):
    for name, (cmd, payload) in wire.well_formed().items():
        if name.startswith(("region_write", "mig", "device_feature")):
            continue
        client.exchange(cmd, payload + b"\xFF" * 24)
        client.fence()


@pytest.mark.parametrize("name, payload", [
    ("GET_INFO", wire.device_info(argsz=15)), ("GET_INFO", wire.device_info(argsz=0)),
    ("GET_REGION_INFO", wire.region_info(4, argsz=31)), ("GET_REGION_INFO", wire.region_info(4, argsz=0)),
    ("GET_IRQ_INFO", wire.irq_info(2, argsz=15)), ("GET_IRQ_INFO", wire.irq_info(2, argsz=0)),
    ("DMA_MAP", wire.dma_map(0x1000_0000, 0x10000, argsz=31)), ("DMA_MAP", wire.dma_map(0x1000_0000, 0x10000, argsz=0)),
    ("DMA_UNMAP", wire.dma_unmap(0x1000_0000, 0x10000, argsz=23)),
    ("SET_IRQS", wire.set_irqs(2, wire.DATA_NONE | wire.ACTION_TRIGGER, 0, 0, argsz=19)),
    ("GET_REGION_IO_FDS", wire.region_io_fds(4, argsz=15)),
    ("DEVICE_FEATURE", wire.device_feature(1, argsz=7)),
])
def test_w04_argsz_smaller_than_the_struct_is_refused(client, name, payload):
    client.refused(Cmd[name], payload)
    client.fence()


def test_w04_set_irqs_with_less_bool_data_than_its_count_is_refused(client):
    flags = wire.DATA_BOOL | wire.ACTION_TRIGGER
    client.refused(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, flags, 0, 2, b"\1"), errnos=(errno.EINVAL,))
    client.refused(Cmd.SET_IRQS, wire.set_irqs(wire.IRQ_MSIX, flags, 0, 1), errnos=(errno.EINVAL,))
    client.fence()


def test_w04_device_feature_set_with_half_its_data_is_refused(client):
    """The 8-byte forms of REPORT, SET state and LOGGING_START made another server read past its buffer."""
    for feature in range(0, 12):
        for flags in (1 << 16, 1 << 17, 1 << 18, 7 << 16, 0):
            client.exchange(Cmd.DEVICE_FEATURE, wire.device_feature(feature, flags))
    client.fence()


# --- W5 -----------------------------------------------------------------------------------------------------

WRAPS = {
    "DMA_MAP addr + size": (Cmd.DMA_MAP, wire.dma_map(wire.U64_MAX - 0xFFF, 0x2000)),
    "DMA_MAP addr + size is 2^64": (Cmd.DMA_MAP, wire.dma_map(1 << 63, 1 << 63)),
    "DMA_MAP size of all ones": (Cmd.DMA_MAP, wire.dma_map(0x1000, wire.U64_MAX)),
    "DMA_UNMAP addr + size": (Cmd.DMA_UNMAP, wire.dma_unmap(wire.U64_MAX - 0xFFF, 0x2000)),
    "REGION_READ offset + count": (Cmd.REGION_READ, wire.region_read(wire.CONFIG, wire.U64_MAX, 2)),
    "REGION_READ offset + count is 0": (Cmd.REGION_READ, wire.region_read(wire.CONFIG, wire.U64_MAX - 3, 4)),
    "REGION_READ offset beyond 32 bits": (Cmd.REGION_READ, wire.region_read(wire.CONFIG, 1 << 32, 4)),
    "REGION_READ count of all ones": (Cmd.REGION_READ, wire.region_read(wire.BAR4, 0, wire.U32_MAX)),
    "REGION_READ count of 2^31": (Cmd.REGION_READ, wire.region_read(wire.BAR4, 0, 1 << 31)),
    "REGION_WRITE offset + count": (Cmd.REGION_WRITE, wire.region_write(wire.CONFIG, wire.U64_MAX, b"ab")),
    "REGION_WRITE offset beyond 32 bits": (Cmd.REGION_WRITE, wire.region_write(wire.BAR4, 1 << 32, b"abcd")),
    "REGION_WRITE 16 + count is 0": (Cmd.REGION_WRITE, wire.region_write(wire.CONFIG, 0, b"", count=wire.U32_MAX - 15)),
    "REGION_WRITE_MULTI count of 2^61": (Cmd.REGION_WRITE_MULTI,
                                         wire.region_write_multi([(4, 0, b"\0" * 4)], wr_cnt=1 << 61)),
    "REGION_WRITE_MULTI count * 24 wraps": (Cmd.REGION_WRITE_MULTI,
                                            wire.region_write_multi([(4, 0, b"\0" * 4)], wr_cnt=(1 << 64) // 24 + 2)),
    "REGION_WRITE_MULTI entry count of 9": (Cmd.REGION_WRITE_MULTI,
                                            struct.pack("=QQII8s", 1, 0, 4, 9, b"\0" * 8)),
    "SET_IRQS start + count": (Cmd.SET_IRQS, wire.set_irqs(
        wire.IRQ_MSIX, wire.DATA_NONE | wire.ACTION_TRIGGER, wire.U32_MAX, 2)),
    "SET_IRQS count of all ones": (Cmd.SET_IRQS, wire.set_irqs(
        wire.IRQ_MSIX, wire.DATA_NONE | wire.ACTION_MASK, 0, wire.U32_MAX)),
    "SET_IRQS count of all ones, bool": (Cmd.SET_IRQS, wire.set_irqs(
        wire.IRQ_MSIX, wire.DATA_BOOL | wire.ACTION_TRIGGER, 0, wire.U32_MAX, b"\1")),
    "SET_IRQS start beyond the end": (Cmd.SET_IRQS, wire.set_irqs(
        wire.IRQ_MSIX, wire.DATA_NONE | wire.ACTION_TRIGGER, 100000, 1)),
    "GET_REGION_IO_FDS argsz of all ones": (Cmd.GET_REGION_IO_FDS, wire.region_io_fds(wire.BAR4, argsz=wire.U32_MAX)),
    "GET_REGION_IO_FDS count": (Cmd.GET_REGION_IO_FDS, wire.region_io_fds(wire.BAR4, count=1 << 28)),
    "MIG_DATA_READ size of all ones": (Cmd.MIG_DATA_READ, struct.pack("=II", 8, wire.U32_MAX)),
    "MIG_DATA_WRITE size of all ones": (Cmd.MIG_DATA_WRITE, struct.pack("=II", 8, wire.U32_MAX) + b"\0" * 8),
    "DEVICE_FEATURE argsz of all ones": (Cmd.DEVICE_FEATURE, wire.device_feature(8, argsz=wire.U32_MAX)),
}


@pytest.mark.parametrize("name", sorted(WRAPS))
def test_w05_sizes_and_counts_whose_sum_wraps_are_refused(server, client, name):
    before = server.resident_bytes()
    client.refused(*WRAPS[name])
    client.fence()
    server.assert_grew_less(before, 8 << 20)


@pytest.mark.parametrize("argsz", [wire.U32_MAX, 1 << 31, 64 << 20, 4064])
def test_w05_huge_argsz_in_info_requests_allocates_nothing_and_is_answered_by_the_struct(server, client, argsz):
    """argsz says how much the client could take; it's no reason to send or allocate more."""
    before = server.resident_bytes()
    for cmd, payload, size in ((Cmd.GET_INFO, wire.device_info(argsz=argsz), 16),
                               (Cmd.GET_REGION_INFO, wire.region_info(4, argsz=argsz), 32),
                               (Cmd.GET_IRQ_INFO, wire.irq_info(2, argsz=argsz), 16)):
        reply = client.exchange(cmd, payload)
        assert reply.is_error or len(reply.payload) >= size
        assert reply.size < 4096
    server.assert_grew_less(before, 8 << 20)
    client.fence()


# --- W6 -----------------------------------------------------------------------------------------------------

BEYOND = [0x100, 0x10000, 0x8000_0000]


@pytest.mark.parametrize("high", BEYOND)
def test_w06_index_that_is_valid_only_after_truncation_is_refused(client, high):
    client.refused(Cmd.GET_REGION_INFO, wire.region_info(high + 4), errnos=(errno.EINVAL,))
    client.refused(Cmd.GET_REGION_IO_FDS, wire.region_io_fds(high + 4))
    client.refused(Cmd.GET_IRQ_INFO, wire.irq_info(high + 2), errnos=(errno.EINVAL,))
    client.refused(Cmd.REGION_READ, wire.region_read(high + wire.CONFIG, 0, 4), errnos=(errno.EINVAL,))
    client.refused(Cmd.REGION_WRITE, wire.region_write(high + wire.CONFIG, 0x3C, b"\0"), errnos=(errno.EINVAL,))
    client.refused(Cmd.SET_IRQS, wire.set_irqs(high + 2, wire.DATA_NONE | wire.ACTION_TRIGGER, 0, 0),
                   errnos=(errno.EINVAL,))
    client.refused(Cmd.SET_IRQS, wire.set_irqs(2, wire.DATA_NONE | wire.ACTION_TRIGGER, high, 1),
                   errnos=(errno.EINVAL,))
    client.refused(Cmd.DEVICE_FEATURE, wire.device_feature(0xFF01))
    client.fence()


@pytest.mark.parametrize("index", [9, 10, 255, wire.U32_MAX])
def test_w06_region_index_past_the_last_is_refused(client, index):
    client.refused(Cmd.GET_REGION_INFO, wire.region_info(index), errnos=(errno.EINVAL,))
    client.refused(Cmd.REGION_READ, wire.region_read(index, 0, 4), errnos=(errno.EINVAL,))


@pytest.mark.parametrize("index", [5, 6, 255, wire.U32_MAX])
def test_w06_interrupt_index_past_the_last_is_refused(client, index):
    client.refused(Cmd.GET_IRQ_INFO, wire.irq_info(index), errnos=(errno.EINVAL,))
    client.refused(Cmd.SET_IRQS, wire.set_irqs(index, wire.DATA_NONE | wire.ACTION_TRIGGER, 0, 0),
                   errnos=(errno.EINVAL,))


@pytest.mark.parametrize("cmd", [0x100 + Cmd.GET_INFO, 0x8000 + Cmd.GET_INFO, 0xFF00 + Cmd.RESET])
def test_w06_command_that_is_valid_only_after_truncation_is_refused(client, cmd):
    client.refused(cmd, wire.device_info())
    client.fence()


@pytest.mark.parametrize("size", [(1 << 32) + 0x10000, (1 << 48) + 0x10000])
def test_w06_dma_size_that_fits_its_file_only_after_truncation_is_refused(client, size):
    with GuestMemory(0x10000) as memory:
        client.refused(Cmd.DMA_MAP, wire.dma_map(0x1000_0000, size), fds=[memory.fd])
        client.refused(Cmd.DMA_MAP, wire.dma_map(0x1000_0000, 0x10000, offset=1 << 32), fds=[memory.fd])
        client.dma_map(0x1000_0000, 0x10000, fd=memory.fd)  # nothing of the above has stayed


# --- W7 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("cmd", [0, Cmd.DIRTY_PAGES, 19, 20, 64, 127, 128, 255, 256, 4096, 32767, 32768, 65535])
@pytest.mark.parametrize("length", [0, 16, 4096])
def test_w07_unknown_command_is_refused_once(client, cmd, length):
    client.refused(cmd, b"\xFF" * length)
    client.fence()


@pytest.mark.parametrize("cmd", [Cmd.DMA_READ, Cmd.DMA_WRITE])
def test_w07_command_that_belongs_to_servers_is_refused(client, cmd):
    client.refused(cmd, wire.dma_rw_reply(0x1000, 16, b"\0" * 16 if cmd == Cmd.DMA_WRITE else b""))
    client.fence()


@pytest.mark.parametrize("bit", range(6, 32))
def test_w07_reserved_flag_bit_is_refused(client, bit):
    client.refused(Cmd.GET_INFO, wire.device_info(), flags=1 << bit)
    client.fence()


@pytest.mark.parametrize("kind", range(2, 16))
def test_w07_reserved_message_type_is_refused(client, kind):
    client.refused(Cmd.GET_INFO, wire.device_info(), flags=kind)
    client.fence()


def test_w07_error_flag_in_a_request_gets_exactly_one_reply(client):
    reply = client.exchange(Cmd.GET_INFO, wire.device_info(), flags=wire.ERROR)
    assert reply.is_reply
    client.fence()


def test_w07_every_request_of_a_mixed_pipeline_gets_one_reply_in_order(client):
    raw, expected = b"", []
    for i in range(300):
        if i % 3 == 0:
            raw += wire.pack(Cmd.GET_INFO, wire.device_info(), msg_id=i)
        elif i % 3 == 1:
            raw += wire.pack(77, b"???", msg_id=i)
        else:
            raw += wire.pack(Cmd.REGION_READ, wire.region_read(7, 0, 5000), msg_id=i)
        expected.append((i, i % 3 != 0))
    client.send_bytes(raw)
    assert [(reply.msg_id, reply.is_error) for reply in (client.recv() for _ in range(300))] == expected
    client.fence()


def test_w07_equal_ids_are_the_clients_affair(client):
    """SPDK's client numbers everything 0."""
    client.send_bytes(b"".join(wire.pack(Cmd.GET_INFO, wire.device_info(), msg_id=0) for _ in range(5)))
    for _ in range(5):
        assert client.recv().msg_id == 0
    client.fence()


@pytest.mark.parametrize("name", ["good", "bad command", "bad payload", "bad region", "bad flags"])
def test_w07_no_reply_is_honoured_also_where_a_refusal_would_be_due(client, name):
    """A reply to a message with NO_REPLY kills QEMU's connection."""
    cmd, payload, flags = {
        "good": (Cmd.REGION_WRITE, wire.region_write(wire.CONFIG, 0x3C, b"\x0B"), 0),
        "bad command": (99, b"", 0),
        "bad payload": (Cmd.REGION_WRITE, b"\0" * 5, 0),
        "bad region": (Cmd.REGION_WRITE, wire.region_write(77, 0, b"\0"), 0),
        "bad flags": (Cmd.REGION_WRITE, wire.region_write(wire.CONFIG, 0x3C, b"\0"), 1 << 20),
    }[name]
    client.send(cmd, payload, flags=wire.NO_REPLY | flags)
    client.fence()
    if name == "good":
        assert client.read_uint(wire.CONFIG, 0x3C, 1) == 0x0B


def test_w07_no_reply_on_a_question_gets_no_answer(client):
    client.send(Cmd.GET_INFO, wire.device_info(), flags=wire.NO_REPLY)
    client.fence()


# --- W8, the part without a DMA request of ours; the rest is in test_w_message_dma.py ---------------------------

@pytest.mark.parametrize("error", [0, 1, 0xFFFFFFFF])
@pytest.mark.parametrize("cmd", [Cmd.GET_INFO, Cmd.DMA_READ, Cmd.DMA_WRITE, Cmd.VERSION, 99])
def test_w08_reply_that_nobody_waits_for_drops_the_session(server, cmd, error):
    client = server.client()
    flags = wire.TYPE_REPLY | (wire.ERROR if error else 0)
    client.send(cmd, wire.dma_rw_reply(0, 0), flags=flags, errno=error, msg_id=0x4242)
    client.dropped()


def test_w08_reply_before_version_ends_the_session(server):
    client = server.connect()
    client.send(Cmd.VERSION, wire.version({}), flags=wire.TYPE_REPLY)
    client.dropped()


# --- W10 ----------------------------------------------------------------------------------------------------

def test_w10_second_version_is_refused_and_the_session_goes_on(client):
    client.refused(Cmd.VERSION, wire.version(wire.OUR_CAPS))
    client.fence()
    client.refused(Cmd.VERSION, wire.version(None))
    client.fence()


@pytest.mark.parametrize("name", [*sorted(wire.well_formed()), "reset", "unknown"])
def test_w10_command_before_version_is_refused(server, name):
    cmd, payload = {**wire.well_formed(), "reset": (Cmd.RESET, b""), "unknown": (99, b"")}[name]
    client = server.connect()
    client.refused(cmd, payload)
    try:  # the smallest radius: the session is there, and VERSION still starts it
        client.handshake()
    except Closed:
        pytest.fail("the session was dropped, where only the message has to be refused")
    client.fence()


def test_w10_commands_pipelined_behind_version_are_in_order(server):
    client = server.connect()
    client.send_bytes(wire.pack(Cmd.VERSION, wire.version(wire.OUR_CAPS), msg_id=1)
                      + wire.pack(Cmd.GET_INFO, wire.device_info(), msg_id=2))
    assert [client.recv().msg_id, client.recv().msg_id] == [1, 2]


# --- W11: what was negotiated bounds a transfer ----------------------------------------------------------------

@pytest.mark.parametrize("limit", [4096, 5000, 65536])
def test_w11_region_access_larger_than_the_negotiated_transfer_is_refused(server, limit):
    """Region 4 has 16 KiB; a client that said 5000 takes no more than that in one reply."""
    client = server.connect()
    client.handshake({"max_data_xfer_size": limit, "max_msg_fds": 8})
    for count in (1, 4095, 4096, 4999, 5000, 5001, 8192, 16384):
        reply = client.exchange(Cmd.REGION_READ, wire.region_read(wire.BAR4, 0, count))
        if count > limit:
            client.check_refusal(reply)
        elif not reply.is_error:
            assert len(reply.payload) == 16 + count
    client.fence()


def test_w11_one_byte_more_than_a_mebibyte_is_refused_before_the_region_is_asked(client):
    client.refused(Cmd.REGION_READ, wire.region_read(wire.BAR4, 0, wire.MAX_DATA_XFER + 1), errnos=(errno.EINVAL,
                                                                                                   errno.E2BIG))
    client.fence()


@pytest.mark.parametrize("sectors", [1, 3, 255, 2048, 2049, 4095])
def test_w11_block_transfers_of_any_length_move_the_exact_bytes(serve, sectors):
    guest = serve("ram:16M").guest(memory=8 * M)
    data = os.urandom(sectors * blk.SECTOR)
    guest.write(5, data)
    assert guest.read(5, sectors) == data
    assert guest.read(4, 1) == b"\0" * 512 and guest.read(5 + sectors, 1) == b"\0" * 512
