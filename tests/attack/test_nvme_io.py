# SPDX-License-Identifier: BSD-3-Clause
"""NVMe's I/O commands: what they do, and rows N8, N13 and N14: ranges that overflow, reserved values, what is left over. Sections are
those of the NVM command set specification 1.0, or with "base" of the base specification 2.0."""

import os
import random
import struct

import pytest

from pylib import nvme_spec as spec
from pylib import wire
from pylib.nvme import expect

BLOCKS = 32768  # of 16 MiB
SHARED_OPTIONS = {512: (), 4096: ("--block-size=4096",)}


@pytest.fixture(params=[512, 4096])
def disk(serve, request):
    """A guest with blocks of each size."""
    nvme = serve("ram:16M", *SHARED_OPTIONS[request.param], device="nvme").guest()
    assert nvme.block_size == request.param
    nvme.blocks = nvme.namespace().size
    assert nvme.blocks * request.param == 16 << 20
    return nvme


def fill(nvme, slba, count):
    data = os.urandom(count * nvme.block_size)
    nvme.write(slba, data)
    return data


# --- what they do -------------------------------------------------------------------------------------------------

def test_read_and_write_reach_the_first_and_the_last_block(disk):
    for slba in (0, 1, disk.blocks - 1):
        data = fill(disk, slba, 1)
        assert disk.read(slba, 1) == data
    data = fill(disk, disk.blocks - 8, 8)
    assert disk.read(disk.blocks - 8, 8) == data


def test_largest_transfer_that_identify_names_works_and_one_block_more_is_refused(disk):
    """Base 3.3.3.1, figure 275 MDTS: in units of the smallest page, as a power of two. Then Invalid Field in Command."""
    mdts = disk.controller().mdts
    assert mdts == 8, "1 MiB"
    most = (4096 << mdts) // disk.block_size
    data = fill(disk, 5, most)
    assert disk.read(5, most) == data
    address = disk.buffer(length=4096)
    for opcode in (spec.READ, spec.WRITE, spec.COMPARE):
        for blocks in (most + 1, 0x10000):
            expect(disk.run(1, opcode, nsid=1, prp1=address, prp2=address, **spec.rw_words(0, blocks)), spec.INVALID_FIELD)
    assert disk.read(5, most) == data


def test_compare_tells_equal_from_unequal(disk):
    """3.2.1: Compare Failure; every byte counts."""
    data = fill(disk, 9, 4)
    expect(disk.compare(9, data), spec.OK)
    for at in (0, disk.block_size, len(data) - 1):
        other = bytearray(data)
        other[at] ^= 1
        expect(disk.compare(9, bytes(other)), spec.COMPARE_FAILURE)
    assert disk.read(9, 4) == data


def test_write_zeroes_makes_zeroes_with_and_without_deallocation(disk):
    """3.2.8; DEAC is bit 25 of dword 12."""
    for deallocate in (0, 1 << 9):
        data = fill(disk, 0, 32)
        expect(disk.run(1, spec.WRITE_ZEROES, nsid=1, **spec.rw_words(8, 16, flags=deallocate)), spec.OK)
        assert disk.read(0, 32) == data[:8 * disk.block_size] + bytes(16 * disk.block_size) + data[24 * disk.block_size:]


def test_write_zeroes_has_a_limit_of_its_own(disk):
    """MDTS is about transfers of data (base figure 275), WZSL about this (NVM figure 118): zero, none; then Invalid Field in Command."""
    limit = disk.identify(spec.CNS_CSI_CONTROLLER)[1]
    most = min(disk.blocks, 65536, (4096 << limit) // disk.block_size if limit else 65536)
    fill(disk, 0, 1)
    fill(disk, most - 1, 1)
    expect(disk.run(1, spec.WRITE_ZEROES, nsid=1, **spec.rw_words(0, most)), spec.OK)
    assert disk.read(0, 1) == disk.read(most - 1, 1) == bytes(disk.block_size)
    if most < min(disk.blocks, 65536):
        expect(disk.run(1, spec.WRITE_ZEROES, nsid=1, **spec.rw_words(0, most + 1)), spec.INVALID_FIELD)


def test_deallocated_blocks_read_as_identify_says(disk):
    """3.2.3; DLFEAT, byte 33 bits 2:0: 001b is zeroes."""
    data = fill(disk, 0, 64)
    expect(disk.dataset_management([spec.dsm_range(8, 8), spec.dsm_range(32, 1)]), spec.OK)
    if disk.namespace().raw[33] & 7 == 1:
        size = disk.block_size
        assert disk.read(0, 64) == data[:8 * size] + bytes(8 * size) + data[16 * size:32 * size] + bytes(size) + data[33 * size:]


def test_a_disk_whose_deallocated_blocks_keep_what_was_in_them_does_not_promise_zeroes(serve):
    """DLFEAT, byte 33 bits 2:0: 000b is nothing said; bit 3 is Write Zeroes with deallocation, which always reads as zeroes."""
    assert serve("null:16M", device="nvme").guest().namespace().raw[33] == 8


def test_dataset_management_takes_two_hundred_and_fifty_six_ranges(disk):
    fill(disk, 0, 256)
    fill(disk, 256, 256)
    expect(disk.dataset_management([spec.dsm_range(2 * number, 1) for number in range(256)]), spec.OK)
    got = disk.read(0, 256) + disk.read(256, 256)
    size = disk.block_size
    assert all(got[2 * number * size:(2 * number + 1) * size] == bytes(size) for number in range(256))
    assert all(got[(2 * number + 1) * size:(2 * number + 2) * size] != bytes(size) for number in range(256))


def test_dataset_management_without_deallocate_is_advice_that_changes_nothing(disk):
    """3.2.3: IDR and IDW."""
    data = fill(disk, 0, 8)
    for attributes in (0, 1, 2, 3):
        expect(disk.dataset_management([spec.dsm_range(0, 8)], attributes=attributes), spec.OK)
    assert disk.read(0, 8) == data


def test_flush_works_for_one_namespace_and_for_all_where_identify_says_so(disk):
    """Base 7.1; VWC bits 2:1 (base figure 275): 11b takes FFFFFFFFh, 10b does not."""
    expect(disk.flush(), spec.OK)
    said = disk.controller().vwc >> 1 & 3
    assert said in (2, 3), "a controller of 1.4 and later says which"
    expect(disk.flush(nsid=spec.ALL), spec.OK if said == 3 else spec.INVALID_NAMESPACE)


# --- N8 -----------------------------------------------------------------------------------------------------------

OVERFLOWS = [(0, 1), (1, 1), (-1, 2), (-8, 16), (0, 65536)]  # from the namespace's end
WILD = [(wire.U64_MAX, 1), (wire.U64_MAX, 65536), (wire.U64_MAX - 7, 8), (1 << 63, 1), ((1 << 64) // 512, 8), ((1 << 55), 8),
        ((1 << 52) - 1, 2), (1 << 32, 1)]


@pytest.mark.parametrize("start, blocks", OVERFLOWS + WILD)
def test_n08_blocks_past_the_end_or_a_sum_that_wraps_are_out_of_range(disk, start, blocks):
    """3.2: LBA Out of Range, whatever the command; and nothing is done."""
    slba = disk.blocks + start if (start, blocks) in OVERFLOWS else start
    last = fill(disk, disk.blocks - 8, 8)
    most_zeroes = 4096 << disk.identify(spec.CNS_CSI_CONTROLLER)[1]  # WZSL (NVM figure 118)
    mark = disk.space.mark()
    address = disk.buffer(length=1 << 20)
    prp1, prp2 = disk.prps(address, 1 << 20)
    for opcode in (spec.READ, spec.WRITE, spec.COMPARE, spec.WRITE_ZEROES):
        done = disk.run(1, opcode, nsid=1, prp1=prp1, prp2=prp2, **spec.rw_words(slba, blocks))
        too_long = blocks * disk.block_size > (most_zeroes if opcode == spec.WRITE_ZEROES else 1 << 20)
        expect(done, spec.LBA_OUT_OF_RANGE, *([spec.INVALID_FIELD] if too_long else []))
    assert disk.space.read(address, 8192) == b"\xA5" * 8192
    disk.space.release(mark)
    assert disk.read(disk.blocks - 8, 8) == last


@pytest.mark.parametrize("start, blocks", [(0, 1), (-1, 2), (-8, 0xFFFFFFFF)] + [(slba, count) for slba, count in WILD])
def test_n08_range_of_dataset_management_past_the_end_is_out_of_range_and_the_rest_is_kept_in_bounds(disk, start, blocks):
    """3.2.3."""
    slba = disk.blocks + start if start <= 0 else start
    last = fill(disk, disk.blocks - 8, 8)
    expect(disk.dataset_management([spec.dsm_range(0, 1), spec.dsm_range(slba, blocks)]), spec.LBA_OUT_OF_RANGE)
    assert disk.read(disk.blocks - 8, 8) == last


def test_n08_empty_range_of_dataset_management_is_nothing(disk):
    data = fill(disk, 0, 8)
    expect(disk.dataset_management([spec.dsm_range(0, 0), spec.dsm_range(0, 0)]), spec.OK)
    assert disk.read(0, 8) == data


@pytest.mark.parametrize("address", [0, 0x7000_0000, wire.U64_MAX - 0xFFF])
def test_n08_ranges_that_lie_in_no_memory_fail(disk, address):
    expect(disk.dataset_management([spec.dsm_range(0, 1)], prp1=address), spec.DATA_TRANSFER_ERROR, spec.INVALID_FIELD)
    disk.assert_works()


def test_n08_ranges_over_a_pages_edge_are_read_whole(disk):
    data = fill(disk, 0, 256) + fill(disk, 256, 44)
    ranges = b"".join(spec.dsm_range(number, 1) for number in range(256))
    address = disk.buffer(ranges, offset=2048)
    prp1, prp2 = disk.prps(address, len(ranges))
    expect(disk.run(1, spec.DSM, nsid=1, prp1=prp1, prp2=prp2, cdw10=255, cdw11=spec.DSM_DEALLOCATE), spec.OK)
    assert disk.read(0, 256) == bytes(256 * disk.block_size)
    assert disk.read(256, 44) == data[256 * disk.block_size:]


def test_n08_writing_to_a_read_only_disk_fails_and_changes_nothing(serve, image):
    """Base figure 97: Namespace is Write Protected; NSATTR bit 0 says so beforehand (figure 97 of NVM)."""
    before = image.read_bytes()
    server = serve(image, "--read-only", device="nvme")
    server.check_service = False
    nvme = server.guest()
    assert nvme.namespace().attributes & 1
    address = nvme.buffer(length=512)
    for opcode in (spec.WRITE, spec.WRITE_ZEROES):
        done = nvme.run(1, opcode, nsid=1, prp1=address, **spec.rw_words(0, 1))
        expect(done, spec.WRITE_PROTECTED, spec.WRITE_TO_READ_ONLY)
    expect(nvme.dataset_management([spec.dsm_range(0, 1)]), spec.WRITE_PROTECTED, spec.WRITE_TO_READ_ONLY)
    assert nvme.read(0, 2) == before[:1024]
    expect(nvme.compare(0, before[:512]), spec.OK)
    expect(nvme.flush(), spec.OK)
    nvme.close()
    assert image.read_bytes() == before


def absent(nvme, nsid):
    """The status of a command for a namespace that there is not."""
    return spec.INVALID_FIELD if 1 <= nsid <= nvme.controller().nn else spec.INVALID_NAMESPACE


# --- N13 ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("nsid", [0, 2, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF])
@pytest.mark.parametrize("opcode", [spec.READ, spec.WRITE, spec.COMPARE, spec.WRITE_ZEROES, spec.DSM])
def test_n13_namespace_that_is_not_there_is_refused(nvme, nsid, opcode):
    """Base 3.2.1.2: Invalid Namespace or Format; Invalid Field in Command for a number that may be used, and is not."""
    data = nvme.buffer(length=512)
    expect(nvme.run(1, opcode, nsid=nsid, prp1=data, **spec.rw_words(0, 1)), absent(nvme, nsid))
    assert nvme.space.read(data, 512) == b"\xA5" * 512
    nvme.assert_works()


@pytest.mark.parametrize("nsid", [0, 2, 0xFFFFFFFE])
def test_n13_flush_of_a_namespace_that_is_not_there_is_refused(nvme, nsid):
    expect(nvme.flush(nsid=nsid), absent(nvme, nsid))


@pytest.mark.parametrize("opcode", [spec.READ, spec.WRITE, spec.COMPARE])
def test_n13_reserved_kind_of_pointer_is_refused(nvme, opcode):
    """Base figure 87, PSDT 11b."""
    address = nvme.buffer(length=512)
    expect(nvme.run(1, opcode, nsid=1, psdt=spec.PSDT_RESERVED, prp1=address, **spec.rw_words(0, 1)), spec.INVALID_FIELD)
    nvme.assert_works()


@pytest.mark.parametrize("fuse", [1, 2, 3])
@pytest.mark.parametrize("opcode", [spec.READ, spec.WRITE, spec.COMPARE, spec.FLUSH])
def test_n13_half_a_fused_pair_is_refused(nvme, fuse, opcode):
    """Base figure 87: fused operations are not offered (FUSES is zero)."""
    assert nvme.controller().fuses == 0
    address = nvme.buffer(b"\x01" * 512)
    nvme.write(0, bytes(512))
    done = nvme.run(1, opcode, nsid=1, fuse=fuse, prp1=address, **spec.rw_words(0, 1))
    expect(done, spec.INVALID_FIELD, spec.FUSED_MISSING)
    assert nvme.read(0, 1) == bytes(512)


def test_n13_whole_fused_pair_is_refused_too(nvme):
    nvme.write(0, bytes(512))
    address = nvme.buffer(bytes(512)), nvme.buffer(b"\x01" * 512)
    cids = [nvme.put(1, opcode, nsid=1, fuse=half + 1, prp1=address[half], **spec.rw_words(0, 1))
            for half, opcode in enumerate((spec.COMPARE, spec.WRITE))]
    nvme.kick(1)
    for cid in cids:
        expect(nvme.finish(1, cid), spec.INVALID_FIELD, spec.FUSED_MISSING, spec.FUSED_FAILED)
    assert nvme.read(0, 1) == bytes(512)


def test_n13_every_other_opcode_is_invalid_and_the_effects_log_tells_the_same(nvme):
    """Base figure 96: Invalid Command Opcode; base 5.16.1.6: CSUPP, bit 0 of an opcode's word. I/O commands stand behind 1024 bytes."""
    done, effects = nvme.log(spec.LOG_EFFECTS, 4096)
    expect(done, spec.OK)
    address = nvme.buffer(length=4096)
    for opcode in range(256):
        supported = struct.unpack_from("<I", effects, 1024 + 4 * opcode)[0] & 1
        if supported:
            assert opcode in (spec.FLUSH, spec.WRITE, spec.READ, spec.COMPARE, spec.WRITE_ZEROES, spec.DSM)
            continue
        done = nvme.run(1, opcode, nsid=1, prp1=address)
        expect(done, spec.INVALID_OPCODE)
        assert done.dnr, "the same again gives the same"
    for opcode in (spec.FLUSH, spec.WRITE, spec.READ, spec.COMPARE, spec.WRITE_ZEROES, spec.DSM):
        assert struct.unpack_from("<I", effects, 1024 + 4 * opcode)[0] & 1
    nvme.assert_works()


@pytest.mark.parametrize("psdt", [0, 1])
def test_n13_metadata_pointer_means_nothing_without_metadata(nvme, psdt):
    data = os.urandom(512)
    nvme.write(0, data, mptr=0x7000_0001, sgl=bool(psdt))
    assert nvme.read(0, 1, mptr=wire.U64_MAX) == data


@pytest.mark.parametrize("prinfo", [1, 2, 4, 8, 15])
def test_n13_protection_information_without_metadata_is_ignored_or_refused(nvme, prinfo):
    """5.2.2: checks mean nothing where the format has no protection; PRACT neither."""
    data = nvme.read(0, 1)
    address = nvme.buffer(length=512)
    done = nvme.io(spec.READ, 0, 1, address, flags=prinfo << 10)
    expect(done, spec.OK, spec.INVALID_FIELD)
    if done.status == spec.OK:
        assert nvme.space.read(address, 512) == data


@pytest.mark.parametrize("bit", range(0, 10))
def test_n13_other_bits_of_dword_12_are_ignored_or_refused(nvme, bit):
    """Reserved or not offered: bits 25:16 of dword 12, DTYPE and STC among them."""
    done = nvme.io(spec.READ, 0, 1, nvme.buffer(length=512), flags=1 << bit)
    expect(done, spec.OK, spec.INVALID_FIELD)


def test_n13_force_unit_access_and_limited_retry_work(nvme):
    data = os.urandom(512)
    for flags in (1 << 14, 1 << 15, 3 << 14):
        nvme.write(0, data, flags=flags)
        assert nvme.read(0, 1, flags=flags) == data


def test_n13_same_identifier_in_flight_twice_ends_each_once(nvme):
    """Base figure 96: Command ID Conflict, or both are done; never one of them three times (`take` counts)."""
    for _ in range(16):
        nvme.put(1, spec.FLUSH, nsid=1, cid=0x77)
    nvme.kick(1)
    entries = nvme.finish_all()
    assert len(entries) == 16
    for done in entries:
        expect(done, spec.OK, spec.CID_CONFLICT)


# --- N14 ----------------------------------------------------------------------------------------------------------

def test_n14_nothing_of_a_command_is_left_in_the_next_one_of_its_place(nvme):
    """Each good command follows a bad one with every flag set, over the whole queue several times."""
    dice = random.Random(14)
    address = nvme.buffer(length=4096)
    for turn in range(300):
        data = dice.randbytes(512)
        bad = dice.choice([{"psdt": 3}, {"fuse": 1}, {"nsid": 9}, {"opcode": 0x7F}, {"cdw12": 0xFFFFFFFF}, {"prp1": 3},
                           {"psdt": 1, "dptr": spec.sgl(15, address, 4)}, {"cdw11": 0xFFFFFFFF}])
        fields = {"opcode": spec.READ, "nsid": 1, "prp1": address, **bad}
        assert nvme.run(1, fields.pop("opcode"), **fields).status != spec.OK
        nvme.write(turn % 7, data)
        assert nvme.read(turn % 7, 1, sgl=turn % 3 == 0) == data


def test_n14_force_unit_access_is_not_left_in_what_follows(serve, workdir):
    """A mixed load of every kind of command, verified against a model."""
    dice = random.Random(15)
    nvme = serve("ram:1M", device="nvme").guest(queue_size=128)
    model = bytearray(1 << 20)
    for _ in range(400):
        kind = dice.choice(["write", "read", "zero", "trim", "compare", "flush"])
        slba, blocks = dice.randrange(2000), dice.randrange(1, 48)
        at, end = slba * 512, (slba + blocks) * 512
        if kind == "write":
            model[at:end] = dice.randbytes(blocks * 512)
            nvme.write(slba, bytes(model[at:end]), flags=dice.choice([0, 1 << 14]), sgl=dice.random() < 0.5)
        elif kind == "read":
            assert nvme.read(slba, blocks, sgl=dice.random() < 0.5, offset=4 * dice.randrange(1024)) == model[at:end]
        elif kind == "zero":
            expect(nvme.run(1, spec.WRITE_ZEROES, nsid=1, **spec.rw_words(slba, blocks)), spec.OK)
            model[at:end] = bytes(blocks * 512)
        elif kind == "trim":
            expect(nvme.dataset_management([spec.dsm_range(slba, blocks)]), spec.OK)
            model[at:end] = bytes(blocks * 512)
        elif kind == "compare":
            expect(nvme.compare(slba, bytes(model[at:end])), spec.OK)
        else:
            expect(nvme.flush(), spec.OK)
    for slba in range(0, 2048, 64):
        assert nvme.read(slba, 64) == model[slba * 512:(slba + 64) * 512]


def test_many_commands_at_once_over_eight_queues_each_move_their_own_bytes(nvme_server):
    nvme = nvme_server.guest(queues=8, memory=16 << 20)
    size = nvme.block_size
    addresses = {}
    for qid in range(1, 9):
        for number in range(60):
            slba = qid * 1000 + number * 8
            address = nvme.buffer(struct.pack("<QQ", qid, number) * (8 * size // 16))
            nvme.put_io(spec.WRITE, slba, 8, address, sqid=qid)
            addresses[slba] = (qid, address)
        nvme.kick(qid)
    assert all(done.status == spec.OK for done in nvme.finish_all())
    targets = {}
    for slba, (qid, address) in addresses.items():
        targets[slba] = nvme.buffer(length=8 * size)
        nvme.put_io(spec.READ, slba, 8, targets[slba], sqid=9 - qid)
    for qid in range(1, 9):
        nvme.kick(qid)
    assert all(done.status == spec.OK for done in nvme.finish_all())
    for slba, (_, address) in addresses.items():
        assert nvme.space.read(targets[slba], 8 * size) == nvme.space.read(address, 8 * size)
