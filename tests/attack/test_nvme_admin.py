# SPDX-License-Identifier: BSD-3-Clause
"""NVMe's admin commands: what they say, and rows N9, N10 and N13 with each one's exact status. Sections are those of the base
specification 2.0."""

import random
import struct

import pytest

from pylib import nvme_spec as spec
from pylib import wire
from pylib.memory import PAGE
from pylib.nvme import expect

MANDATORY = (spec.DELETE_SQ, spec.CREATE_SQ, spec.GET_LOG, spec.DELETE_CQ, spec.CREATE_CQ, spec.IDENTIFY, spec.ABORT,
             spec.SET_FEATURES, spec.GET_FEATURES, spec.ASYNC_EVENT)


# --- Identify (5.17) ----------------------------------------------------------------------------------------------

def test_identify_controller_says_what_registers_and_options_say(serve):
    nvme = serve("ram:16M", "--serial=ABC123", "--queues=3", device="nvme").guest(queues=3)
    said = nvme.controller()
    assert said.serial == "ABC123" and said.model and said.firmware
    assert all(0x20 <= byte < 0x7F for byte in said.raw[4:72]), "ASCII, padded with blanks (1.4.2)"
    assert said.version == nvme.get(spec.VS)
    assert said.raw[:2] == nvme.pci.config(0, 2) and said.raw[2:4] == nvme.pci.config(0x2C, 2)
    assert said.sqes == 0x66 and said.cqes == 0x44
    assert said.raw[111] == 1, "CNTRLTYPE: an I/O controller"
    assert said.nn >= 1 and said.mnan <= said.nn
    assert said.subnqn.startswith("nqn.") and len(said.subnqn) <= 223
    assert said.oncs & (spec.ONCS_COMPARE | spec.ONCS_DSM | spec.ONCS_WRITE_ZEROES) == 0x0D
    assert said.fuses == 0 and said.vwc & 1
    assert said.raw[512 + 2048:3072] == bytes(512), "reserved"


def test_identify_namespace_says_what_the_disk_is(nvme):
    """NVM 1.0 figure 97."""
    said = nvme.namespace()
    assert said.size == said.capacity == 32768
    assert said.utilised <= said.capacity
    assert said.block_size == 512
    assert nvme.active_namespaces() == [1]
    assert nvme.active_namespaces(after=1) == []


def test_identify_descriptors_have_an_identifier_and_the_command_set(nvme):
    """5.17.2.4: types 1 to 4; each has the length of its kind; a length of zero ends the list."""
    data, at, kinds = nvme.identify(spec.CNS_DESCRIPTORS, nsid=1), 0, {}
    while at < 4092 and data[at + 1]:
        kinds[data[at]] = data[at + 4:at + 4 + data[at + 1]]
        at += 4 + data[at + 1]
    lengths = {1: 8, 2: 16, 3: 16, 4: 1}
    assert kinds and all(len(value) == lengths[kind] for kind, value in kinds.items())
    assert set(kinds) & {1, 2, 3}, "one that is the namespace's own"
    assert kinds.get(4, b"\0") == b"\0", "the NVM command set"
    said = nvme.namespace()
    assert kinds.get(1, said.eui64) == said.eui64 and kinds.get(2, said.nguid) == said.nguid


def test_identity_is_the_same_after_a_restart_and_differs_between_disks(serve, image, workdir):
    other = workdir.file("other.img", size=8 << 20)
    seen = []
    for path in (image, image, other):
        server = serve(path, device="nvme")
        nvme = server.guest()
        seen.append((nvme.controller().subnqn, nvme.identify(spec.CNS_DESCRIPTORS, nsid=1)))
        nvme.close()
        assert server.stop() == 0
    assert seen[0] == seen[1]


@pytest.mark.parametrize("cns", [0x04, 0x09, 0x0A, 0x0B, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B, 0x1D, 0x40,
                                 0x80, 0xFF])
def test_n13_identify_of_something_that_is_not_there_is_invalid_or_says_nothing(nvme, cns):
    """5.17.1: Invalid Field in Command for a CNS that is not supported."""
    done, data = nvme.into(spec.IDENTIFY, 4096, nsid=1, cdw10=cns)
    expect(done, spec.INVALID_FIELD, spec.OK)
    if done.status != spec.OK:
        assert data == b"\xA5" * 4096
    elif cns >= 0x1D or cns in (0x0B, 0x1A, 0x1B):
        pytest.fail("reserved values have no meaning")


@pytest.mark.parametrize("nsid", [0, 0xFFFFFFFF, 0xFFFFFFFE, 0x10000])
def test_n13_identify_of_a_namespace_beyond_what_may_be_is_refused(nvme, nsid):
    """5.17.2.1: Invalid Namespace or Format; also for all where namespaces are not managed."""
    assert nvme.controller().nn < 0x10000
    for cns in (spec.CNS_NAMESPACE, spec.CNS_DESCRIPTORS, spec.CNS_CSI_NAMESPACE):
        expect(nvme.into(spec.IDENTIFY, 4096, nsid=nsid, cdw10=cns)[0], spec.INVALID_NAMESPACE)


def test_identify_of_a_namespace_that_may_be_and_is_not_gives_zeroes(nvme):
    """5.17.2.1: an inactive namespace."""
    if nvme.controller().nn < 2:
        pytest.skip("there may be one namespace only")
    assert nvme.identify(spec.CNS_NAMESPACE, nsid=2) == bytes(4096)


@pytest.mark.parametrize("nsid", [0xFFFFFFFE, 0xFFFFFFFF])
def test_n13_list_of_namespaces_behind_the_last_number_is_refused(nvme, nsid):
    """5.17.2.3."""
    expect(nvme.into(spec.IDENTIFY, 4096, nsid=nsid, cdw10=spec.CNS_ACTIVE)[0], spec.INVALID_NAMESPACE)


@pytest.mark.parametrize("cns", [spec.CNS_CSI_NAMESPACE, spec.CNS_CSI_CONTROLLER, spec.CNS_CSI_ACTIVE])
@pytest.mark.parametrize("csi", [1, 2, 3, 0x7F, 0xFF])
def test_n13_identify_of_a_command_set_that_is_not_there_is_refused(nvme, cns, csi):
    """5.17.1: Invalid Field in Command."""
    done, _ = nvme.into(spec.IDENTIFY, 4096, nsid=1 if cns == spec.CNS_CSI_NAMESPACE else 0, cdw10=cns, cdw11=csi << 24)
    expect(done, spec.INVALID_FIELD)


def test_n09_identify_goes_over_a_pages_edge_and_fails_where_no_memory_is(nvme):
    for offset in (4, 2048, 4092):
        address = nvme.buffer(length=PAGE, offset=offset)
        prp1, prp2 = nvme.prps(address, PAGE)
        expect(nvme.admin(spec.IDENTIFY, prp1=prp1, prp2=prp2, cdw10=spec.CNS_CONTROLLER), spec.OK)
        assert nvme.space.read(address, PAGE) == nvme.controller().raw
        expect(nvme.admin(spec.IDENTIFY, prp1=prp1, prp2=0x7000_0000, cdw10=spec.CNS_CONTROLLER), spec.DATA_TRANSFER_ERROR,
               spec.INVALID_FIELD)
        expect(nvme.admin(spec.IDENTIFY, prp1=prp1, prp2=prp2 + 8, cdw10=spec.CNS_CONTROLLER), spec.PRP_OFFSET_INVALID,
               spec.INVALID_FIELD)
    for address in (0, 0x7000_0000, wire.U64_MAX - 0xFFF):
        expect(nvme.admin(spec.IDENTIFY, prp1=address, cdw10=spec.CNS_CONTROLLER), spec.DATA_TRANSFER_ERROR, spec.INVALID_FIELD)


# --- Get Log Page (5.16) ------------------------------------------------------------------------------------------

LOGS = {spec.LOG_ERROR: 64, spec.LOG_SMART: 512, spec.LOG_FIRMWARE: 512, spec.LOG_CHANGED_NS: 4096, spec.LOG_EFFECTS: 4096}


@pytest.mark.parametrize("page", sorted(LOGS))
def test_log_pages_that_are_mandatory_are_there_whole_and_in_parts(nvme, page):
    length = LOGS[page]
    done, whole = nvme.log(page, length, rae=1)
    expect(done, spec.OK)
    if page == spec.LOG_SMART:
        return  # it counts what is read
    assert nvme.log(page, length // 2, rae=1)[1] == whole[:length // 2]
    if nvme.controller().lpa >> 2 & 1:
        for offset in (4, length // 2, length - 4):
            done, part = nvme.log(page, length - offset, offset=offset, rae=1)
            expect(done, spec.OK)
            assert part == whole[offset:]


def test_log_of_supported_pages_tells_the_truth(nvme):
    """5.16.1.1: bit 0 of each page's word; without it, Invalid Log Page (figure 98)."""
    done, data = nvme.log(spec.LOG_SUPPORTED, 1024)
    expect(done, spec.OK)
    for page in range(256):
        done, _ = nvme.log(page, 512, rae=1)
        if struct.unpack_from("<I", data, 4 * page)[0] & 1:
            expect(done, spec.OK)
        else:
            expect(done, spec.LOG_PAGE_INVALID)


@pytest.mark.parametrize("page", sorted(LOGS))
def test_n09_log_from_an_offset_past_its_end_is_refused(nvme, page):
    """5.16: Invalid Field in Command where LPO is beyond the page; every offset is taken or refused by what LPA says."""
    if not nvme.controller().lpa >> 2 & 1:
        pytest.skip("LPA bit 2: no offsets")
    elpe = (nvme.controller().elpe + 1) * 64
    end = elpe if page == spec.LOG_ERROR else LOGS[page]
    for offset in (end + 4, end + 4096, 1 << 32, 1 << 63, wire.U64_MAX - 3):
        done, data = nvme.log(page, 64, offset=offset, rae=1)
        expect(done, spec.INVALID_FIELD)
        assert data == b"\xA5" * 64


@pytest.mark.parametrize("page", sorted(LOGS))
@pytest.mark.parametrize("offset", [1, 2, 3])
def test_n09_log_offset_that_is_no_multiple_of_four_is_refused(nvme, page, offset):
    """5.16, LPOL: bits 1:0 shall be zero."""
    done, _ = nvme.log(page, 64, offset=offset, rae=1)
    expect(done, spec.INVALID_FIELD)


@pytest.mark.parametrize("page", sorted(LOGS))
def test_n09_log_longer_than_it_is_gives_nothing_of_anybody_elses(nvme, page):
    """5.16: what comes behind the page is undefined: here zeroes, or nothing."""
    done, data = nvme.log(page, 1 << 16, rae=1)
    expect(done, spec.OK, spec.INVALID_FIELD)
    elpe = (nvme.controller().elpe + 1) * 64
    behind = data[max(LOGS[page], elpe if page == spec.LOG_ERROR else 0):]
    assert behind in (bytes(len(behind)), b"\xA5" * len(behind))


@pytest.mark.parametrize("dwords", [0xFFFFFFFF, 0x7FFFFFFF, 0x3FFFFFFF, 0x40000])
def test_n09_log_of_gigabytes_is_refused_or_bounded(nvme, nvme_server, dwords):
    """NUMD counts to 16 GiB; MDTS is 1 MiB."""
    before = nvme_server.resident_bytes()
    for page in LOGS:
        done = nvme.admin(spec.GET_LOG, nsid=spec.ALL, prp1=nvme.buffer(length=4096), cdw10=page | 1 << 15 | (dwords & 0xFFFF) << 16,
                          cdw11=dwords >> 16)
        expect(done, spec.INVALID_FIELD, spec.DATA_TRANSFER_ERROR)
    nvme_server.assert_grew_less(before, 4 << 20)
    nvme.assert_works()


def test_smart_log_counts_what_was_read_and_written(nvme):
    """5.16.1.3: thousands of 512 bytes, rounded up; commands one by one."""
    def counters():
        data = expect_log(nvme, spec.LOG_SMART, 512)
        return [int.from_bytes(data[at:at + 16], "little") for at in (32, 48, 64, 80)]
    before = counters()
    for number in range(10):
        nvme.write(number * 256, bytes(256 * 512))
    for number in range(5):
        nvme.read(number * 256, 256)
    after = counters()
    assert after[3] - before[3] == 10 and after[2] - before[2] == 5
    assert 2 <= after[1] - before[1] <= 4 and 1 <= after[0] - before[0] <= 3


def expect_log(nvme, page, length, **kwargs):
    done, data = nvme.log(page, length, **kwargs)
    expect(done, spec.OK)
    return data


def test_smart_log_is_of_a_healthy_disk(nvme):
    data = expect_log(nvme, spec.LOG_SMART, 512)
    kelvin = struct.unpack_from("<H", data, 1)[0]
    assert data[0] == 0, "no critical warning"
    assert 273 < kelvin < 373 and data[3] == 100 and data[4] <= 100 and data[5] <= 100


@pytest.mark.parametrize("nsid", [1, 0xFFFFFFFE, 2])
def test_n13_smart_log_of_one_namespace_is_what_identify_says(nvme, nsid):
    """5.16, LPA bit 0: for each namespace or for the controller only, and then Invalid Field in Command."""
    done, _ = nvme.log(spec.LOG_SMART, 512, nsid=nsid)
    if nsid != 1:
        expect(done, spec.INVALID_NAMESPACE, spec.INVALID_FIELD)
    else:
        expect(done, spec.OK if nvme.controller().lpa & 1 else spec.INVALID_FIELD)


def test_error_log_tells_of_a_bad_doorbell(nvme):
    """5.16.1.2."""
    expect_log(nvme, spec.LOG_ERROR, 64)
    nvme.ring(2, 1)
    nvme.client.fence()
    nvme.until(lambda: int.from_bytes(expect_log(nvme, spec.LOG_ERROR, 64)[:8], "little"))
    data = expect_log(nvme, spec.LOG_ERROR, 64)
    count = int.from_bytes(data[:8], "little")
    assert count > 0
    assert int.from_bytes(expect_log(nvme, spec.LOG_SMART, 512)[176:192], "little") >= count


def test_firmware_log_names_the_revision_of_identify(nvme):
    data = expect_log(nvme, spec.LOG_FIRMWARE, 512)
    slot = data[0] & 7
    assert 1 <= slot <= 7
    assert data[8 * slot:8 * slot + 8] == nvme.controller().raw[64:72]


# --- opcodes ------------------------------------------------------------------------------------------------------

def test_n13_every_other_opcode_is_invalid_and_the_effects_log_tells_the_same(nvme):
    """Figure 96: Invalid Command Opcode; 5.16.1.6. The fabrics opcode 7Fh, and 80h and above, are among them."""
    effects = expect_log(nvme, spec.LOG_EFFECTS, 4096)
    supported = [opcode for opcode in range(256) if struct.unpack_from("<I", effects, 4 * opcode)[0] & 1]
    assert set(MANDATORY) <= set(supported)
    for gone in (spec.NS_MANAGEMENT, spec.NS_ATTACH, spec.FORMAT, spec.SANITIZE, spec.FABRICS):
        assert gone not in supported
    address = nvme.buffer(length=4096)
    for opcode in range(256):
        if opcode in supported:
            if opcode != spec.ASYNC_EVENT:
                assert nvme.admin(opcode, prp1=address, cdw10=0xFFFF).status != spec.INVALID_OPCODE
            continue
        done = nvme.admin(opcode, nsid=1, prp1=address)
        expect(done, spec.INVALID_OPCODE)
        assert done.dnr, "the same again gives the same"
    assert nvme.space.read(address, 4096) == b"\xA5" * 4096
    nvme.controller()


@pytest.mark.parametrize("fuse", [1, 2, 3])
def test_n13_fused_admin_command_is_refused(nvme, fuse):
    """Figure 87: there are no fused admin commands."""
    expect(nvme.admin(spec.IDENTIFY, fuse=fuse, prp1=nvme.buffer(length=4096), cdw10=1), spec.INVALID_FIELD)


# --- features (5.27, 5.15) ----------------------------------------------------------------------------------------

SETTABLE = {spec.F_ARBITRATION: 0x03020105, spec.F_WRITE_CACHE: 0, spec.F_COALESCING: 0x0203, spec.F_ASYNC: 0x100}
NEEDED = (spec.F_ARBITRATION, spec.F_POWER, spec.F_TEMPERATURE, spec.F_ERROR_RECOVERY, spec.F_QUEUES, spec.F_COALESCING, spec.F_VECTOR,
          spec.F_ATOMICITY, spec.F_ASYNC)


@pytest.mark.parametrize("feature", NEEDED)
def test_every_mandatory_feature_can_be_asked_for(nvme, feature):
    """Figure 316; 5.27.1."""
    expect(nvme.get_feature(feature, nsid=1 if feature == spec.F_ERROR_RECOVERY else 0), spec.OK)


@pytest.mark.parametrize("feature", sorted(SETTABLE))
def test_feature_that_is_set_is_kept_until_a_reset(nvme, feature):
    """3.7.2: a reset gives the defaults back."""
    default = expect(nvme.get_feature(feature), spec.OK).result
    expect(nvme.set_feature(feature, SETTABLE[feature]), spec.OK)
    assert expect(nvme.get_feature(feature), spec.OK).result == SETTABLE[feature]
    nvme.restart()
    assert expect(nvme.get_feature(feature), spec.OK).result == default


def test_features_say_what_can_be_done_with_them(nvme):
    """5.15.1, SEL 011b: bit 0 saveable, bit 1 of each namespace, bit 2 changeable; ONCS bit 4 offers SEL and SV."""
    if not nvme.controller().oncs >> 4 & 1:
        pytest.skip("ONCS bit 4: neither SEL nor SV")
    for feature in NEEDED:
        nsid = 1 if feature == spec.F_ERROR_RECOVERY else 0
        can = expect(nvme.get_feature(feature, select=3, nsid=nsid), spec.OK).result
        assert can & ~7 == 0
        if not can & 1:
            expect(nvme.set_feature(feature, SETTABLE.get(feature, 0), save=1, nsid=nsid), spec.NOT_SAVEABLE, spec.NOT_CHANGEABLE,
                   spec.SEQUENCE_ERROR)
        if feature in SETTABLE:
            assert can & 4
            default = expect(nvme.get_feature(feature, select=1), spec.OK).result
            expect(nvme.set_feature(feature, SETTABLE[feature]), spec.OK)
            assert expect(nvme.get_feature(feature, select=1), spec.OK).result == default


@pytest.mark.parametrize("select", [4, 5, 7])
def test_n13_reserved_selection_of_a_feature_is_refused(nvme, select):
    expect(nvme.get_feature(spec.F_COALESCING, select=select), spec.INVALID_FIELD)


def test_n13_features_that_are_not_there_are_invalid_and_the_log_tells_the_same(nvme):
    """5.27: Invalid Field in Command; 5.16.1.18, feature identifiers: bit 0 of each word."""
    done, data = nvme.log(spec.LOG_FEATURES, 1024)
    expect(done, spec.OK)
    address = nvme.buffer(length=4096)
    for feature in range(256):
        supported = struct.unpack_from("<I", data, 4 * feature)[0] & 1
        assert supported or feature not in NEEDED
        got = nvme.get_feature(feature, nsid=1 if feature == spec.F_ERROR_RECOVERY else 0, prp1=address)
        if supported:
            assert got.status == spec.OK, f"feature {feature:#x} is in the log: {got}"
        else:
            expect(got, spec.INVALID_FIELD)
            expect(nvme.set_feature(feature, 0, prp1=address), spec.INVALID_FIELD)
    nvme.assert_works()


@pytest.mark.parametrize("feature", [spec.F_ARBITRATION, spec.F_COALESCING, spec.F_WRITE_CACHE, spec.F_ASYNC])
def test_n13_feature_of_the_controller_is_not_set_for_a_namespace(nvme, feature):
    """5.27, figure 98: Feature Not Namespace Specific."""
    expect(nvme.set_feature(feature, SETTABLE[feature], nsid=1), spec.NOT_NS_SPECIFIC)
    expect(nvme.set_feature(feature, SETTABLE[feature], nsid=0x1234), spec.NOT_NS_SPECIFIC, spec.INVALID_NAMESPACE)


@pytest.mark.parametrize("value", [0x40, 0xFFFF0000 | 9, 0xFFFF])
def test_n13_configuration_of_a_vector_that_is_not_there_is_refused(nvme, value):
    """5.27.1.7: Invalid Field in Command."""
    expect(nvme.set_feature(spec.F_VECTOR, value), spec.INVALID_FIELD)
    expect(nvme.get_feature(spec.F_VECTOR, cdw11=0xFFFF), spec.INVALID_FIELD)


def test_n13_power_state_that_is_not_there_is_refused(nvme):
    """5.27.1.2: Invalid Field in Command beyond NPSS."""
    expect(nvme.set_feature(spec.F_POWER, nvme.controller().npss), spec.OK, spec.NOT_CHANGEABLE)
    expect(nvme.set_feature(spec.F_POWER, nvme.controller().npss + 1), spec.INVALID_FIELD, spec.NOT_CHANGEABLE)


def test_coalescing_holds_interrupts_back_but_not_for_ever(nvme):
    """5.27.1.6: threshold and time, in 100 us; 5.27.1.7: a vector may be left out."""
    expect(nvme.set_feature(spec.F_COALESCING, 0xFF | 20 << 8), spec.OK)
    nvme.vectors[1].clear()
    for _ in range(3):
        cid = nvme.issue(1, spec.FLUSH, nsid=1)
        assert nvme.until(lambda: nvme.cqs[1].peek())
        assert nvme.vectors[1].wait(), "held back for ever"
        nvme.finish(1, cid)
    expect(nvme.set_feature(spec.F_VECTOR, 1 | 1 << 16), spec.OK)
    assert expect(nvme.get_feature(spec.F_VECTOR, cdw11=1), spec.OK).result == 1 | 1 << 16
    nvme.run(1, spec.FLUSH, nsid=1)
    assert nvme.vectors[1].wait()


def test_write_cache_that_is_off_makes_writes_durable_and_is_kept(nvme):
    """5.27.1.4; what a write's end means then is for the backend's own tests."""
    assert expect(nvme.get_feature(spec.F_WRITE_CACHE), spec.OK).result & 1
    expect(nvme.set_feature(spec.F_WRITE_CACHE, 0), spec.OK)
    nvme.assert_works()
    expect(nvme.set_feature(spec.F_WRITE_CACHE, 1), spec.OK)
    assert expect(nvme.get_feature(spec.F_WRITE_CACHE), spec.OK).result & 1


def test_timestamp_goes_on_from_what_was_set(nvme):
    """5.27.1.10: milliseconds in six bytes; bits 3:1 of the seventh tell where from, 001b: from the host."""
    assert nvme.controller().oncs & spec.ONCS_TIMESTAMP
    address = nvme.buffer(struct.pack("<Q", 0x0123_4567_89AB))
    expect(nvme.set_feature(spec.F_TIMESTAMP, prp1=address), spec.OK)
    back = nvme.buffer(length=8)
    expect(nvme.get_feature(spec.F_TIMESTAMP, prp1=back), spec.OK)
    value = nvme.space.u64(back)
    assert 0 <= (value & (1 << 48) - 1) - 0x0123_4567_89AB < 60000
    assert value >> 49 & 7 == 1
    for bad in (0, 0x7000_0000):
        expect(nvme.set_feature(spec.F_TIMESTAMP, prp1=bad), spec.DATA_TRANSFER_ERROR, spec.INVALID_FIELD)
        expect(nvme.get_feature(spec.F_TIMESTAMP, prp1=bad), spec.DATA_TRANSFER_ERROR, spec.INVALID_FIELD)


# --- asynchronous events and Abort (5.2, 5.1) ---------------------------------------------------------------------

def test_n10_one_request_for_events_too_many_is_refused(nvme):
    """5.2, AERL: Asynchronous Event Request Limit Exceeded."""
    limit = nvme.controller().aerl + 1
    assert limit >= 4
    requests = [nvme.issue(0, spec.ASYNC_EVENT) for _ in range(limit)]
    expect(nvme.admin(spec.ASYNC_EVENT), spec.ASYNC_LIMIT)
    nvme.ring(2, 1)
    assert nvme.until(lambda: nvme.take(0)), "no event"
    done = [entry for entry in nvme.done if entry.cid in requests]
    assert len(done) == 1
    nvme.done.clear()
    another = nvme.issue(0, spec.ASYNC_EVENT)
    expect(nvme.admin(spec.ASYNC_EVENT), spec.ASYNC_LIMIT)
    assert nvme.nothing_comes(0, another)


def test_n10_requests_for_events_are_forgotten_at_a_reset(nvme):
    """5.2: the controller completes none of them then."""
    for _ in range(3):
        for _ in range(nvme.controller().aerl + 1):
            nvme.issue(0, spec.ASYNC_EVENT)
        nvme.restart()
    request = nvme.issue(0, spec.ASYNC_EVENT)
    assert nvme.nothing_comes(0, request)


def aborted(done):
    """5.1: bit 0 of dword 0 is zero if the command was aborted."""
    return done.result & 1 == 0


@pytest.mark.parametrize("sqid, cid", [(1, 0x1234), (0, 0x4321), (1, 0xFFFF)])
def test_n10_abort_of_a_command_that_is_not_there_aborts_nothing(nvme, sqid, cid):
    done = expect(nvme.admin(spec.ABORT, cdw10=sqid | cid << 16), spec.OK)
    assert not aborted(done)
    nvme.assert_works()


@pytest.mark.parametrize("sqid", [2, 9, 0xFFFF])
def test_n10_abort_on_a_queue_that_is_not_there_aborts_nothing(nvme, sqid):
    done = nvme.admin(spec.ABORT, cdw10=sqid | 1 << 16)
    expect(done, spec.OK, spec.INVALID_FIELD, spec.QID_INVALID)
    assert done.status != spec.OK or not aborted(done)


def test_n10_abort_of_a_finished_command_aborts_nothing_and_completes_it_no_second_time(nvme):
    cid = nvme.issue(1, spec.FLUSH, nsid=1)
    nvme.finish(1, cid)
    assert not aborted(expect(nvme.admin(spec.ABORT, cdw10=1 | cid << 16), spec.OK))
    assert nvme.nothing_comes(1, cid)


def test_n10_abort_of_itself_aborts_nothing(nvme):
    cid = 0x2222
    assert not aborted(expect(nvme.admin(spec.ABORT, cid=cid, cdw10=cid << 16), spec.OK))


def test_n10_abort_of_a_request_for_events_ends_it_once(nvme):
    request = nvme.issue(0, spec.ASYNC_EVENT)
    if aborted(expect(nvme.admin(spec.ABORT, cdw10=request << 16), spec.OK)):
        expect(nvme.finish(0, request), spec.ABORT_REQUESTED)
    else:
        assert nvme.nothing_comes(0, request)
    nvme.ring(2, 1)
    nvme.controller()


def test_n10_aborts_beyond_the_limit_are_done_or_refused(nvme):
    """5.1, ACL: Abort Command Limit Exceeded."""
    for _ in range(30):
        nvme.put(0, spec.ABORT, cdw10=1 | 0x7777 << 16)
    nvme.kick(0)
    entries = nvme.finish_all()
    assert len(entries) == 30
    for done in entries:
        expect(done, spec.OK, spec.ABORT_LIMIT)
        assert done.status != spec.OK or not aborted(done)


# --- Keep Alive (5.13) --------------------------------------------------------------------------------------------

def test_keep_alive_is_what_identify_says(nvme):
    """3.9: KAS of zero: not supported."""
    supported = nvme.controller().kas != 0
    expect(nvme.admin(spec.KEEP_ALIVE), spec.OK if supported else spec.INVALID_OPCODE)
    done = nvme.set_feature(spec.F_KEEP_ALIVE, 120000)
    expect(done, *((spec.OK,) if supported else (spec.INVALID_FIELD, spec.KEEP_ALIVE_INVALID)))
    if supported:
        assert expect(nvme.get_feature(spec.F_KEEP_ALIVE), spec.OK).result >= 120000
        expect(nvme.set_feature(spec.F_KEEP_ALIVE, 0), spec.OK)


def test_keep_alive_that_does_not_come_stops_the_controller(nvme):
    """3.9.3.1: CSTS.CFS, and nothing is fetched any more; any reset heals."""
    granularity = nvme.controller().kas * 100
    if granularity == 0:
        pytest.skip("KAS is zero")
    expect(nvme.set_feature(spec.F_KEEP_ALIVE, 1), spec.OK, spec.KEEP_ALIVE_INVALID)
    expect(nvme.set_feature(spec.F_KEEP_ALIVE, granularity), spec.OK)
    nvme.assert_fatal(5 + 3 * granularity / 1000)
    nvme.recover()


# --- all of it at random ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(6))
def test_n13_random_admin_commands_end_with_a_status(nvme, seed):
    """Three hundred, half of whose fields make sense. Queues come and go meanwhile."""
    dice = random.Random(seed)
    address = nvme.buffer(length=8 * PAGE)
    for turn in range(300):
        opcode = dice.choice([*MANDATORY[:-1], spec.DBBUF, spec.KEEP_ALIVE, dice.randrange(256)])
        if opcode == spec.ASYNC_EVENT:
            continue
        small = [0, 1, 2, 3, 0xFFFF, 0x10001, 0xF0001, dice.getrandbits(32)]
        done = nvme.admin(opcode, nsid=dice.choice([0, 1, 2, spec.ALL, dice.getrandbits(32)]), psdt=dice.choice([0] * 9 + [1, 2, 3]),
                          fuse=dice.choice([0] * 9 + [1]), prp1=dice.choice([address, address + 512, 0, dice.getrandbits(64)]),
                          prp2=dice.choice([address + PAGE, 0, dice.getrandbits(64)]), cdw10=dice.choice(small), cdw11=dice.choice(small),
                          cdw12=dice.choice([0, 0, 4, dice.getrandbits(32)]), cdw13=dice.choice([0, 0, 0, dice.getrandbits(32)]),
                          cdw14=dice.choice([0, dice.getrandbits(32)]))
        assert done.status <= 0x2FF
    nvme.recover()
