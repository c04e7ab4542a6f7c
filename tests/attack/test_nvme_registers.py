# SPDX-License-Identifier: BSD-3-Clause
"""An NVMe controller's registers: what they say, and what comes of wrong values and odd accesses. Sections are those of the base
specification 2.0."""

import random
import struct

import pytest

from pylib import nvme_spec as spec
from pylib import wire
from pylib.client import Refused
from pylib.nvme import expect
from pylib.wire import Cmd

BAR0_SIZE = 0x4000


@pytest.fixture
def found(nvme_server):
    """A controller as the guest's driver finds it: not enabled."""
    return nvme_server.guest(enable=False)


def begin(nvme, **fields):
    """Sets CC without waiting for anything."""
    nvme.set(spec.CC, spec.cc(**fields))


def comes_to_nothing(nvme):
    """Waits until an enable has ended, one way or the other. True: fatal, or not ready. False: ready."""
    nvme.until(lambda: nvme.csts & (spec.CFS | spec.RDY))
    return nvme.csts & (spec.CFS | spec.RDY) != spec.RDY


# --- what they say (3.1.3) ----------------------------------------------------------------------------------------

def test_capabilities_are_those_of_a_controller_of_the_nvm_command_set(found):
    cap = found.capabilities
    assert cap.entries == 1024, "the default depth"
    assert cap.contiguous == 1
    assert cap.command_sets & 1, "CSS bit 0: NVM command set (3.1.3.1)"
    assert cap.timeout_s >= 0.5
    assert cap.page_min == 0, "4 KiB pages are what drivers have"
    assert cap.page_max >= cap.page_min
    assert cap.value >> 56 & 3 == 0, "neither persistent memory nor a memory buffer"


def test_version_is_two_zero(found):
    assert found.get(spec.VS) == 0x0002_0000


def test_controller_is_found_disabled(found):
    assert found.get(spec.CC) & spec.EN == 0
    assert found.csts == 0


def test_w15_registers_read_the_same_in_every_size(found):
    words = b"".join(found.client.read_region(wire.BAR0, at, 4) for at in range(0, 0x40, 4))
    for size in (1, 2, 8):
        pieces = b"".join(found.client.read_region(wire.BAR0, at, size) for at in range(0, 0x40, size))
        assert pieces == words


@pytest.mark.parametrize("register", [spec.CAP, spec.CAP + 4, spec.VS, spec.CSTS])
def test_w17_read_only_registers_ignore_writes(found, register):
    before = found.get(register)
    for value in (0, 0xFFFFFFFF):
        found.set(register, value)
        assert found.get(register) == before


def test_queue_addresses_and_sizes_are_kept_and_reserved_bits_read_zero(found):
    """3.1.3.9 to 3.1.3.11."""
    found.set(spec.AQA, 0xFFFFFFFF)
    assert found.get(spec.AQA) == 0x0FFF0FFF
    for register in (spec.ASQ, spec.ACQ):
        found.set8(register, 0x1234_5678_9ABC_D000)
        assert found.get8(register) == 0x1234_5678_9ABC_D000
        found.set(register, 0xFEDC_B000_1111_2000, 8)
        assert found.get(register, 8) == 0xFEDC_B000_1111_2000


def test_interrupt_masks_are_set_and_cleared_bit_by_bit(nvme_server):
    """3.1.3.3: INTMS sets, INTMC clears, both read the mask."""
    nvme = nvme_server.guest(interrupts="intx", enable=False)
    nvme.set(spec.INTMS, 0x5)
    nvme.set(spec.INTMS, 0x2)
    assert nvme.get(spec.INTMS) == nvme.get(spec.INTMC) == 0x7
    nvme.set(spec.INTMC, 0x3)
    assert nvme.get(spec.INTMS) == nvme.get(spec.INTMC) == 0x4
    nvme.set(spec.INTMC, 0xFFFFFFFF)
    assert nvme.get(spec.INTMS) == 0


@pytest.mark.parametrize("register", [0x38, 0x3C, 0x40, 0x44, 0x48, 0x50, 0x58, 0x64, 0x70, 0xE00, 0xE04, 0xE18, 0xFF8])
def test_w18_registers_of_what_is_not_there_read_zero_and_ignore_writes(found, register):
    """Memory buffer, boot partition, persistent memory: CAP says that there is none."""
    assert found.get(register) == 0
    found.set(register, 0xFFFFFFFF)
    assert found.get(register) == 0


def test_w17_doorbells_cannot_be_read_back(nvme):
    """3.1.4: what reading gives is up to the vendor; here it tells nothing."""
    nvme.assert_works()
    for qid in range(0, 9):
        for completion in (False, True):
            assert nvme.get(spec.DOORBELLS + nvme.doorbell_offset(qid, completion)) == 0


# --- accesses (W15, W18) ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [3, 5, 6, 7, 9, 12, 31, 64, 4095])
@pytest.mark.parametrize("offset", [0, 1, 2, 8, 0x14, 0x19, 0x24, 0x28, 0x2E, 0xFFE, 0x1000, 0x1001, 0x3FFF])
def test_w15_register_read_of_odd_size_or_place_is_split_or_refused(found, offset, size):
    reply = found.client.exchange(Cmd.REGION_READ, wire.region_read(wire.BAR0, offset, size))
    if reply.is_error:
        found.client.check_refusal(reply)
    else:
        assert offset + size <= BAR0_SIZE, "past the region's end"
        assert reply.payload[16:] == b"".join(found.client.read_region(wire.BAR0, offset + i, 1) for i in range(size))
    found.client.fence()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 16, 4095])
@pytest.mark.parametrize("offset", [spec.INTMS, spec.CC, spec.CC + 1, spec.CC + 2, spec.AQA + 3, spec.ASQ + 1, 0xFFF, spec.DOORBELLS,
                                    spec.DOORBELLS + 2, spec.DOORBELLS + 7])
def test_w15_register_write_of_odd_size_or_place_is_split_or_refused(found, offset, size):
    reply = found.client.exchange(Cmd.REGION_WRITE, wire.region_write(wire.BAR0, offset, b"\0" * size))
    if reply.is_error:
        found.client.check_refusal(reply)
    found.client.fence()
    assert not found.fatal


@pytest.mark.parametrize("offset, size", [(BAR0_SIZE - 4, 8), (BAR0_SIZE, 4), (0, BAR0_SIZE + 4), (1 << 32, 4), (wire.U64_MAX - 3, 4)])
def test_w15_access_past_the_regions_end_is_refused(found, offset, size):
    found.client.refused(Cmd.REGION_READ, wire.region_read(wire.BAR0, offset, size))
    found.client.refused(Cmd.REGION_WRITE, wire.region_write(wire.BAR0, offset, b"\0" * size))
    found.client.fence()


def test_w15_doorbells_written_in_other_sizes_are_not_taken_for_others(nvme):
    """3.1.4: doorbells are written by dwords. A write of eight bytes is two doorbells, or refused."""
    cid = nvme.put(0, spec.KEEP_ALIVE)
    tail = nvme.sqs[0].tail
    try:
        nvme.client.write_region(wire.BAR0, spec.DOORBELLS, struct.pack("<II", tail, nvme.cqs[0].head))
    except Refused:
        nvme.kick(0)
    if nvme.nothing_comes(0, cid):
        nvme.kick(0)
    nvme.finish(0, cid)
    nvme.assert_works()


@pytest.mark.parametrize("seed", range(4))
def test_w15_thousand_random_register_accesses_leave_the_controller_usable(nvme, seed):
    dice = random.Random(seed)
    for _ in range(1000):
        offset, size = dice.choice([dice.randrange(0x48), dice.randrange(BAR0_SIZE), 0x1000 + dice.randrange(80)]), dice.randrange(1, 17)
        if dice.random() < 0.5:
            reply = nvme.client.exchange(Cmd.REGION_READ, wire.region_read(wire.BAR0, offset, size))
        else:
            reply = nvme.client.exchange(Cmd.REGION_WRITE, wire.region_write(wire.BAR0, offset, dice.randbytes(size)))
        if reply.is_error:
            nvme.client.check_refusal(reply)
    nvme.client.fence()
    nvme.recover()


# --- enabling with wrong values -----------------------------------------------------------------------------------

BAD_CC = {
    "a command set that is not there": {"css": 2}, "another": {"css": 5},
    "a page of 2 GiB": {"mps": 15}, "an arbitration that is reserved": {"ams": 3}, "one of vendors": {"ams": 7},
}


@pytest.mark.parametrize("name", sorted(BAD_CC))
def test_n12_enable_with_a_value_that_capabilities_exclude_is_fatal_and_a_reset_heals(found, name):
    """3.1.3.5: CSS, MPS and AMS shall be what CAP has; 3.1.3.6: CFS tells of what cannot be told otherwise."""
    found.set_admin_queues(32)
    begin(found, **BAD_CC[name])
    found.assert_fatal()
    assert found.csts & spec.RDY == 0
    found.recover()


@pytest.mark.parametrize("fields", [{"iosqes": 0}, {"iosqes": 5}, {"iosqes": 7}, {"iosqes": 15},
                                    {"iocqes": 0}, {"iocqes": 3}, {"iocqes": 5}, {"iocqes": 15}])
def test_n12_entry_sizes_that_are_not_there_are_fatal_or_let_no_queue_be_made(found, fields):
    """3.1.3.5: IOSQES and IOCQES are for I/O queues; a host may set them before it makes the first."""
    found.set_admin_queues(32)
    begin(found, **fields)
    if not comes_to_nothing(found):
        # That of completions is wrong: no completion queue. Else no submission queue.
        done = found.create_cq(1, 16)
        if "iosqes" in fields and done.status == spec.OK:
            done = found.create_sq(1, 16)
        assert done.status != spec.OK, "a queue whose entries have a size that is not there"
    found.recover()


@pytest.mark.parametrize("size, cq_size", [(1, 32), (32, 1), (1, 1)])
def test_n02_admin_queue_of_one_entry_is_fatal(found, size, cq_size):
    """3.1.3.9: a queue has two entries at least."""
    found.set_admin_queues(size, cq_size)
    begin(found)
    found.assert_fatal()
    found.recover()


@pytest.mark.parametrize("size, cq_size", [(2, 2), (2, 32), (32, 2), (3, 5), (4096, 4096)])
def test_n02_admin_queues_of_every_other_size_work(found, size, cq_size):
    found.set_admin_queues(size, cq_size)
    begin(found)
    found.wait_csts(spec.RDY | spec.CFS, spec.RDY)
    for _ in range(3 * min(size, 32)):
        found.identify(spec.CNS_CONTROLLER)


@pytest.mark.parametrize("register", [spec.ASQ, spec.ACQ])
@pytest.mark.parametrize("low", [1, 0x40, 0x800, 0xFFF])
def test_n12_misaligned_admin_queue_is_fatal_or_has_its_low_bits_cut_off(found, register, low):
    """3.1.3.10: bits 11:0 are reserved."""
    found.set_admin_queues(32)
    good = found.get8(register)
    found.set8(register, good | low)
    if found.get8(register) == good:
        begin(found)
        found.wait_csts(spec.RDY | spec.CFS, spec.RDY)
        found.controller()
        return
    begin(found)
    found.assert_fatal()
    found.recover()


@pytest.mark.parametrize("register", [spec.ASQ, spec.ACQ])
@pytest.mark.parametrize("address", [0, 0x7000_0000, wire.U64_MAX - 0xFFF, 0x8000_0000_0000_0000])
def test_n12_admin_queue_where_no_memory_is_is_fatal_at_the_first_command(found, register, address):
    """A queue that cannot be read or written leaves no other way to tell (3.1.3.6)."""
    found.set_admin_queues(32)
    found.set8(register, address)
    begin(found)
    if not comes_to_nothing(found):
        found.issue(0, spec.KEEP_ALIVE)
    found.assert_fatal()
    found.recover()


def test_n12_second_enable_without_a_disable_changes_nothing(nvme):
    nvme.set(spec.CC, nvme.get(spec.CC))
    nvme.set(spec.CC, spec.cc())
    assert nvme.csts & (spec.RDY | spec.CFS) == spec.RDY
    nvme.assert_works()


def test_n12_admin_registers_written_while_enabled_change_no_live_queue(nvme):
    """3.1.3.9: what a host that changes them while CC.EN is set gets is up to the device: here they count at the next enable."""
    address, size = nvme.get8(spec.ASQ), nvme.get(spec.AQA)
    nvme.set8(spec.ASQ, 0xDEAD_0000)
    nvme.set8(spec.ACQ, 0xDEAD_0000)
    nvme.set(spec.AQA, 0)
    nvme.controller()
    nvme.set8(spec.ASQ, address)
    nvme.set(spec.AQA, size)
    nvme.restart()
    nvme.assert_works()


@pytest.mark.parametrize("fields", [{"mps": 15}, {"iosqes": 0}, {"iocqes": 0}, {"css": 7}, {"ams": 7}])
def test_n12_other_fields_of_cc_changed_while_enabled_harm_nothing(nvme, fields):
    begin(nvme, **fields)
    nvme.client.fence()
    nvme.until(lambda: nvme.fatal, 0.05)
    nvme.recover()


# --- subsystem reset and shutdown ---------------------------------------------------------------------------------

def test_n12_subsystem_reset_is_what_capabilities_say(nvme):
    """3.1.3.8: NSSR without CAP.NSSRS is reserved; with it the magic value resets, and CSTS.NSSRO says so."""
    for value in (0, 1, 0xFFFFFFFF, spec.NSSR_MAGIC ^ 1):
        nvme.set(spec.NSSR, value)
    nvme.assert_works()
    nvme.set(spec.NSSR, spec.NSSR_MAGIC)
    assert nvme.get(spec.NSSR) == 0
    if not nvme.capabilities.subsystem_reset:
        nvme.assert_works()
        return
    nvme.wait_csts(spec.RDY, 0)
    assert nvme.csts & spec.NSSRO
    nvme.set(spec.CSTS, spec.NSSRO)
    assert not nvme.csts & spec.NSSRO, "NSSRO is cleared by writing one"
    nvme.recover()


@pytest.mark.parametrize("kind", [spec.SHN_NORMAL, spec.SHN_ABRUPT])
def test_n12_shutdown_is_told_when_it_is_complete_and_a_reset_ends_it(nvme, kind):
    """3.6.1, 3.1.3.6."""
    nvme.write(3, b"\x3C" * 512)
    nvme.shut_down(kind)
    nvme.disable()
    assert nvme.csts & spec.SHST_MASK == spec.SHST_NONE or nvme.csts & spec.RDY == 0
    nvme.bring_up()
    assert nvme.csts & spec.SHST_MASK == spec.SHST_NONE
    assert nvme.read(3, 1) == b"\x3C" * 512


def test_n12_shutdown_of_a_controller_that_is_not_enabled_harms_nothing(found):
    """There is nothing to shut down then; it may be said to be done."""
    found.set(spec.CC, spec.cc(en=0, shn=spec.SHN_NORMAL))
    found.client.fence()
    assert found.csts & ~spec.SHST_MASK == 0
    found.set(spec.CC, spec.cc(en=0))
    found.recover()


def test_n12_shutdown_twice_and_both_kinds_at_once_end(nvme):
    nvme.shut_down(spec.SHN_NORMAL)
    nvme.shut_down(spec.SHN_ABRUPT)
    nvme.set(spec.CC, nvme.get(spec.CC) | spec.SHN_MASK)
    nvme.client.fence()
    nvme.recover()


def test_n12_doorbell_after_a_shutdown_hurts_nobody(nvme):
    """3.6.1: no command is to be submitted then."""
    nvme.shut_down()
    nvme.put(1, spec.FLUSH, nsid=1)
    nvme.kick(1)
    nvme.client.fence()
    nvme.recover()


def test_n12_disable_and_enable_a_hundred_times(nvme):
    for _ in range(100):
        nvme.restart()
    nvme.assert_works()


def test_n12_enable_and_disable_without_waiting(found):
    """EN up and down at once: whatever the order of what is posted, the last word counts."""
    for _ in range(50):
        found.set_admin_queues(32)
        begin(found)
        found.set(spec.CC, 0)
    found.wait_csts(spec.RDY, 0)
    found.recover()


def test_n12_reset_of_the_device_leaves_a_controller_that_is_found_disabled(nvme):
    """vfio-user's DEVICE_RESET, as a function level reset: all registers as after power on."""
    nvme.set(spec.INTMS, 1)
    nvme.client.reset()
    assert nvme.get(spec.CC) == 0 and nvme.csts == 0 and nvme.get(spec.AQA) == 0 and nvme.get8(spec.ASQ) == 0
    nvme.pci.set_command(6)
    nvme.pci.enable_msix()
    nvme.bring_up()
    nvme.assert_works()


def test_n04_doorbells_before_enable_do_nothing(found):
    """3.1.4."""
    for offset in range(0, 0x80, 4):
        found.set(spec.DOORBELLS + offset, 1)
    assert found.csts == 0
    found.recover()


def test_bar_0_has_sixteen_kibibytes_and_msix_lies_elsewhere(found):
    """Windows wants 16 KiB there."""
    assert found.client.region_info(wire.BAR0).size == BAR0_SIZE
    count, table_bar, table, pba_bar, pba, _ = found.pci.msix()
    assert (table_bar, pba_bar) == (4, 5)
    assert found.client.region_info(table_bar).size >= table + 16 * count
    assert found.client.region_info(pba_bar).size >= pba + (count + 63) // 64 * 8
    assert count >= 9, "a vector for each of eight queues and one for the admin queue"


def test_class_code_is_that_of_nvme(found):
    assert found.pci.config(9, 3) == bytes([0x02, 0x08, 0x01])


def test_many_writes_in_one_message_bring_the_controller_up(found):
    """As QEMU sends them with REGION_WRITE_MULTI."""
    found.set_admin_queues(32)
    sq, cq = found.sqs[0].address, found.cqs[0].address
    writes = [(spec.AQA, 31 | 31 << 16), (spec.ASQ, sq & 0xFFFFFFFF), (spec.ASQ + 4, sq >> 32), (spec.ACQ, cq & 0xFFFFFFFF),
              (spec.ACQ + 4, cq >> 32), (spec.CC, spec.cc())]
    found.client.call(Cmd.REGION_WRITE_MULTI, wire.region_write_multi(
        [(wire.BAR0, register, struct.pack("<I", value)) for register, value in writes]))
    found.wait_csts(spec.RDY | spec.CFS, spec.RDY)
    expect(found.admin(spec.KEEP_ALIVE), spec.OK, spec.INVALID_OPCODE)
