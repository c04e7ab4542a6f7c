# SPDX-License-Identifier: BSD-3-Clause
"""The example card, driven by the example client, and by a client that shares no code with the library."""

import os

import pytest

from pylib import pci, wire
from pylib.client import Refused
from pylib.dma import DmaResponder
from pylib.events import wait_until
from pylib.pci_guest import BASE, PciGuest
from pylib.wire import Cmd

PAGE = 4096
STATUS, ADDRESS, ADDRESS_HIGH, SIZE, COMMAND = range(5)
LOAD, STORE, CAPITALS = 1, 2, 3
IDLE, BUSY, DONE, FAILED = range(4)
TEXT = b"a card of one's own"


class CardGuest(PciGuest):
    """A guest with the card: 16 KiB of memory, and the interrupt."""

    def start(self, *, remote=False):
        self.window = self.add_memory(BASE, 4 * PAGE, remote=remote)
        self.responder = DmaResponder(self.client, self.space) if remote else None
        self.pci.set_command(pci.COMMAND_MEMORY | pci.COMMAND_MASTER)
        (self.interrupt,) = self.connect_msix(1)

    def get(self, register):
        return self.client.read_uint(wire.BAR0, 4 * register, 4)

    def set(self, register, value):
        self.client.write_uint(wire.BAR0, 4 * register, 4, value)

    def begin(self, command, address=0, size=0):
        self.set(ADDRESS, address)
        self.set(ADDRESS_HIGH, address >> 32)
        self.set(SIZE, size)
        self.set(COMMAND, command)

    def wait(self):
        """The status after the interrupt."""
        if self.responder is None:
            came = self.interrupt.wait()
        else:
            came = self.client.serve_commands(lambda: self.interrupt.wait(0))
        assert came == 1, f"{came} interrupts came"
        return self.get(STATUS)

    def run(self, command, address=0, size=0):
        self.begin(command, address, size)
        return self.wait()

    def memory_by_message(self, size):
        return self.client.read_region(wire.BAR0, PAGE, size)


@pytest.fixture
def card(start):
    return start("card")


@pytest.fixture
def boot(card):
    """boot(...) is a guest of the card."""
    guests = []

    def make(**options):
        guests.append(CardGuest.boot(card.socket, **options))
        return guests[-1]

    yield make
    for guest in guests:
        guest.close()


@pytest.fixture
def guest(boot):
    return boot()


@pytest.fixture(params=["shared", "remote"])
def either(request, boot):
    """Memory that the card reaches itself, and memory that it has to ask the client for."""
    return boot(remote=request.param == "remote")


# --- the client example ---

@pytest.mark.parametrize("kind", [[], ["private"]], ids=["shared", "private"])
def test_the_client_example_drives_the_card(card, examples, tmp_path, kind):
    assert examples.run_client(tmp_path, card.socket, "Hello, card", *kind) == (
        0, "in the card: HELLO, CARD\nstored:      HELLO, CARD\n", "")


def test_the_client_example_says_what_is_wrong(examples, tmp_path, start):
    other = start("own-loop")
    assert examples.run_client(tmp_path, other.socket, "text") == (1, "", "client: this is another card: 1234:c10c\n")
    status, _, stderr = examples.run_client(tmp_path, "/nonexistent/socket", "text")
    assert status == 1 and "/nonexistent/socket" in stderr


# --- what it is ---

def test_it_is_the_card_that_the_header_describes(guest):
    assert guest.pci.read(pci.VENDOR_ID, 2) == 0x1234 and guest.pci.read(pci.DEVICE_ID, 2) == 0xCA4D
    assert guest.pci.config(pci.CLASS, 3) == bytes([0, 0, 0x12])
    assert guest.pci.size_bar(0)[0] == 2 * PAGE
    assert guest.pci.msix()[:2] == (1, 1)
    assert {pci.CAP_PM, pci.CAP_PCIE, pci.CAP_MSIX} <= {cap.id for cap in guest.pci.capabilities()}
    assert guest.client.irq_info(wire.IRQ_MSIX).count == 1


# --- registers ---

def test_registers_read_back_and_the_status_is_read_only(guest):
    for register in (ADDRESS, ADDRESS_HIGH, SIZE):
        guest.set(register, 0x12345670 + register)
    for register in (ADDRESS, ADDRESS_HIGH, SIZE):
        assert guest.get(register) == 0x12345670 + register
    guest.set(STATUS, DONE)
    assert guest.get(STATUS) == IDLE


@pytest.mark.parametrize("offset, size", [(20, 4), (24, 8), (PAGE - 1, 1), (PAGE - 4, 4)])
def test_what_is_no_register_reads_as_zero_and_takes_nothing(guest, offset, size):
    guest.client.write_uint(wire.BAR0, offset, size, (1 << 8 * size) - 1)
    assert guest.client.read_uint(wire.BAR0, offset, size) == 0
    assert [guest.get(register) for register in range(5)] == [0] * 5


def test_parts_of_registers_are_accessed_too(guest):
    guest.set(ADDRESS, 0x11223344)
    guest.client.write_uint(wire.BAR0, 4 * ADDRESS + 1, 1, 0x99)
    guest.client.write_uint(wire.BAR0, 4 * ADDRESS_HIGH, 8, 0x5566778801020304)
    assert guest.get(ADDRESS) == 0x11229944
    assert guest.client.read_uint(wire.BAR0, 4 * ADDRESS + 2, 2) == 0x1122
    assert (guest.get(ADDRESS_HIGH), guest.get(SIZE)) == (0x01020304, 0x55667788)


# --- its memory ---

def test_its_memory_can_be_mapped_and_is_the_same_by_message(guest):
    offset, size, memory = guest.client.map_region(wire.BAR0)
    assert (offset, size) == (PAGE, PAGE)
    memory[100:104] = b"here"
    assert guest.client.read_region(wire.BAR0, PAGE + 100, 4) == b"here"
    guest.client.write_region(wire.BAR0, PAGE + 200, b"there")
    assert memory[200:205] == b"there"
    memory[:len(TEXT)] = TEXT
    assert guest.run(CAPITALS, 0, len(TEXT)) == DONE
    assert memory[:len(TEXT)] == TEXT.upper()
    memory.close()


# --- the engine ---

def test_text_goes_in_and_out_in_capitals(either):
    either.space.write(BASE + 3, TEXT)
    assert either.run(LOAD, BASE + 3, len(TEXT)) == DONE
    assert either.memory_by_message(len(TEXT)) == TEXT
    assert either.run(CAPITALS, 0, len(TEXT)) == DONE
    assert either.run(STORE, BASE + 2 * PAGE + 5, len(TEXT)) == DONE
    assert either.space.read(BASE + 2 * PAGE + 5, len(TEXT)) == TEXT.upper()
    assert either.space.read(BASE + 2 * PAGE + 5 + len(TEXT), 1) == b"\0"


def test_a_whole_page_over_the_edge_of_two(either):
    data = os.urandom(PAGE)
    either.space.write(BASE + 100, data)
    assert either.run(LOAD, BASE + 100, PAGE) == DONE
    assert either.run(STORE, BASE + 2 * PAGE - 7, PAGE) == DONE
    assert either.space.read(BASE + 2 * PAGE - 7, PAGE) == data


def test_memory_above_four_gigabytes_is_reached(guest):
    high = guest.add_memory((5 << 32) + BASE, PAGE)
    guest.space.write(BASE, b"the wrong text")
    guest.space.write(high.iova, TEXT)
    assert guest.run(LOAD, high.iova, len(TEXT)) == DONE
    assert guest.memory_by_message(len(TEXT)) == TEXT


@pytest.mark.parametrize("command", [LOAD, STORE])
def test_memory_that_is_not_there_fails_the_command_alone(either, command):
    for address in (BASE - 8, BASE + 4 * PAGE - 8, (1 << 64) - 16):
        assert either.run(command, address, 16) == FAILED
    either.space.write(BASE, TEXT)
    assert either.run(LOAD, BASE, len(TEXT)) == DONE


def test_memory_that_may_only_be_read_is_not_written(guest):
    window = guest.add_memory(BASE + (1 << 20), PAGE, flags=wire.MAP_READ)
    assert guest.run(LOAD, window.iova, 16) == DONE
    assert guest.run(STORE, window.iova, 16) == FAILED


@pytest.mark.parametrize("command, size", [(LOAD, PAGE + 1), (STORE, 0xFFFFFFFF), (CAPITALS, PAGE + 1), (0, 8), (4, 8)])
def test_a_command_that_cannot_be_fails(guest, command, size):
    assert guest.run(command, BASE, size) == FAILED


def test_a_masked_interrupt_stays_pending(guest):
    guest.client.disable_irqs(wire.IRQ_MSIX)
    guest.begin(CAPITALS)
    assert wait_until(lambda: guest.get(STATUS) == DONE)
    _, _, _, bar, offset, _ = guest.pci.msix()
    assert guest.client.read_uint(bar, offset, 8) == 1
    guest.client.set_irq_eventfds(wire.IRQ_MSIX, [guest.interrupt])
    assert guest.interrupt.wait() == 1


# --- reset and disconnection ---

def test_reset_forgets_registers(guest):
    assert guest.run(CAPITALS, BASE, 16) == DONE
    guest.client.reset()
    assert [guest.get(register) for register in range(5)] == [0] * 5
    guest.space.write(BASE, TEXT)
    assert guest.run(LOAD, BASE, len(TEXT)) == DONE


def test_reset_right_behind_a_command_is_the_last_word(guest):
    """Both are there before the card has looked at either."""
    client = guest.client
    guest.set(SIZE, len(TEXT))
    for _ in range(20):
        command = wire.pack(Cmd.REGION_WRITE, wire.region_write(wire.BAR0, 4 * COMMAND, CAPITALS.to_bytes(4, "little")),
                            msg_id=client.fresh_id(), flags=wire.NO_REPLY)
        reset = client.fresh_id()
        client.send_bytes(command + wire.pack(Cmd.RESET, msg_id=reset))
        assert not client.reply_to(reset).is_error
        assert [guest.get(register) for register in range(5)] == [0] * 5


def test_reset_cancels_what_waits_for_the_client(boot):
    """The card asks for memory, the answer does not come, and a reset waits for nothing."""
    guest = boot(remote=True)
    guest.space.write(BASE, TEXT)
    guest.responder.hold = lambda *_: True
    guest.begin(LOAD, BASE, len(TEXT))
    assert guest.client.serve_commands(lambda: guest.responder.held)
    assert guest.get(STATUS) == BUSY
    guest.set(SIZE, 1)  # for the next command: the engine has what it needs
    guest.set(COMMAND, CAPITALS)  # not while it runs
    assert guest.get(STATUS) == BUSY and len(guest.responder.held) == 1
    guest.client.reset()
    assert guest.get(STATUS) == IDLE
    guest.responder.release()  # the late answer is of no use to anybody
    guest.client.fence()
    assert guest.memory_by_message(len(TEXT)) == bytes(len(TEXT)) and not guest.interrupt.pending()
    assert guest.run(LOAD, BASE, len(TEXT)) == DONE
    assert guest.memory_by_message(len(TEXT)) == TEXT


def test_a_client_that_refuses_fails_the_command(boot):
    guest = boot(remote=True)
    guest.responder.refuse = 14
    assert guest.run(LOAD, BASE, 16) == FAILED
    guest.responder.refuse = None
    assert guest.run(LOAD, BASE, 16) == DONE


def test_the_next_client_finds_a_new_card(boot):
    guest = boot(remote=True)
    guest.client.write_region(wire.BAR0, PAGE, b"a secret of the first client's")
    guest.responder.hold = lambda *_: True
    guest.begin(STORE, BASE, 16)
    assert guest.client.serve_commands(lambda: guest.responder.held)
    guest.close()
    following = boot()
    assert [following.get(register) for register in range(5)] == [0] * 5
    assert following.memory_by_message(PAGE) == bytes(PAGE)
    following.space.write(BASE, TEXT)
    assert following.run(LOAD, BASE, len(TEXT)) == DONE


def test_memory_that_was_taken_back_is_not_touched(guest):
    guest.remove_memory(guest.window)
    assert guest.run(STORE, BASE, 16) == FAILED


def test_what_a_device_has_not_is_refused(guest):
    for cmd, payload in ((Cmd.REGION_READ, wire.region_read(wire.BAR2, 0, 4)), (Cmd.REGION_READ, wire.region_read(wire.BAR0, 2 * PAGE, 4))):
        with pytest.raises(Refused):
            guest.client.call(cmd, payload)
    guest.client.fence()


# --- the card in a loop of the program's own ---

def test_a_card_in_its_programs_own_loop_ticks(start):
    program = start("own-loop")
    with CardGuest.boot(program.socket) as guest:
        assert guest.pci.read(pci.DEVICE_ID, 2) == 0xC10C
        assert guest.interrupt.wait() >= 1
        first = guest.get(0)
        assert wait_until(lambda: guest.get(0) > first + 3)
        assert guest.interrupt.wait() >= 1
