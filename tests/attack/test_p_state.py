# SPDX-License-Identifier: BSD-3-Clause
"""The state record: a card that is stopped, or killed at any moment, goes on in a fresh process, and the client notices nothing but a
pause. SIDECARD_STATE_CYCLES says how often each load is carried over (make check-long: so that there are 1,000 and more)."""

import fcntl
import json
import os
import random
import signal
import struct
import subprocess
import time

import pytest
from pylib import wire
from pylib.client import Client
from pylib.keeper import Keeper
from pylib.memory import GuestMemory
from pylib.server import binary
from pylib.vm import BASE, Guest
from pylib.wire import Cmd

CYCLES = int(os.environ.get("SIDECARD_STATE_CYCLES", "20"))
MIB = 1 << 20


def carry_over(keeper, how):
    """Ends the device process, and starts another with what it left."""
    keeper.stop() if how == "stop" else keeper.kill()
    keeper.start()


# --- under load ---


def carry_load_over(keeper, how, queues, *options):
    # A small part of the disk, so that most of what is read was written, however slow this is.
    command = binary() + ["bench", str(keeper.path), "--rw=randrw", "--bs=4k", "--size=1M", "--iodepth=16", f"--numjobs={queues}",
                          "--verify", "--runtime=3600", "--timeout=60", "--json", *options]
    dice = random.Random(f"{how} {options} {queues}")
    bench = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not keeper.slots.get(2) and bench.poll() is None:
            time.sleep(0.01)  # it connects and sets the card up
        for cycle in range(CYCLES):
            time.sleep(dice.uniform(0, 0.05))
            assert bench.poll() is None, f"bench ended in cycle {cycle}: {bench.communicate()}\n{keeper.stderr()}"
            carry_over(keeper, how)
        time.sleep(0.5)
        bench.send_signal(signal.SIGINT)
        out, err = bench.communicate(timeout=90)
    finally:
        bench.kill()
        bench.wait()
    # Interrupted, as it was, and by nothing else.
    assert bench.returncode == 1 and "was interrupted" in err, f"{err}\n{keeper.stderr()}"
    job = json.loads(out)["jobs"][0]
    assert job["error"] == 0 and job["device"]["verified_blocks"] > 0
    assert keeper.processes == CYCLES + 1


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("packed", ["on", "off"])
@pytest.mark.parametrize("queues", [1, 2])
def test_p01_a_loaded_card_goes_on_in_a_fresh_process(keep, how, packed, queues):
    carry_load_over(keep(f"--queues={queues}", f"--threads={queues}"), how, queues, f"--packed={packed}")


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("doorbells", ["on", "off"])
@pytest.mark.parametrize("queues", [1, 2])
def test_p01_a_loaded_nvme_controller_goes_on_in_a_fresh_process(keep, how, doorbells, queues):
    # Queues that are short, so that they run full.
    carry_load_over(keep(f"--queues={queues}", f"--threads={queues}", device="nvme"), how, queues, f"--shadow-doorbells={doorbells}",
                    "--queue-size=18")


# --- messages ---


def read_config(message_id, count):
    payload = struct.pack("<QII", 0, wire.CONFIG, count)
    return struct.pack("<HHIII", message_id, Cmd.REGION_READ, 16 + len(payload), 0, 0) + payload


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_p01_half_a_message_is_gone_on_with(keep, how):
    keeper = keep()
    client = Client.connect(keeper.path)
    client.handshake()
    message = read_config(7, 4)
    for cut in range(1, len(message)):
        client.send_bytes(message[:cut])
        carry_over(keeper, how)
        client.send_bytes(message[cut:])
        reply = client.recv()
        assert reply.msg_id == 7 and len(reply.payload) == len(message) - 16 + 4, (cut, reply)
    client.close()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_p01_every_reply_that_is_owed_comes_once_and_in_order(keep, how):
    keeper = keep()
    client = Client.connect(keeper.path)
    client.handshake()
    rounds, each = 5, 300
    for number in range(rounds):
        # More than a socket holds: some wait in the server, some are on their way to it.
        for i in range(each):
            client.send_bytes(read_config(number * each + i, 4096))
        carry_over(keeper, how)
        for i in range(each):
            assert client.recv().msg_id == number * each + i
    client.close()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_p01_registers_memory_and_interrupts_are_as_they_were(keep, how):
    keeper = keep("--queues=2")
    with Guest.boot(keeper.path, queues=2) as guest:
        guest.write(8, b"before" * 256 + bytes(512 - 6 * 256 % 512))
        before = guest.client.read_region(wire.CONFIG, 0, 256)
        common = guest.client.read_region(4, 0, 64)
        more = GuestMemory(MIB)
        for i in range(200):  # windows of one file
            guest.client.dma_map(BASE + (1 << 32) + i * 8192, 4096, fd=more.fd, offset=4096 * (i % 256))
        for i in range(0, 200, 2):
            guest.client.dma_unmap(BASE + (1 << 32) + i * 8192, 4096)
        for _ in range(3):
            carry_over(keeper, how)
            assert guest.client.read_region(wire.CONFIG, 0, 256) == before
            assert guest.client.read_region(4, 0, 64) == common
            for queue in range(2):
                assert guest.read(8, 1, queue=queue)[:6] == b"before"
        # Regions that are there are refused, those that went can come back.
        guest.client.refused(Cmd.DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, BASE + (1 << 32) + 8192, 4096), fds=[more.fd])
        guest.client.dma_map(BASE + (1 << 32), 4096, fd=more.fd)
        guest.client.reset()
        carry_over(keeper, how)
        assert guest.client.read_uint(4, 0x14, 1) == 0  # the device status
    # The next client finds a card as new.
    with Guest.boot(keeper.path) as guest:
        guest.assert_works()


def test_p01_a_client_that_goes_while_nobody_serves_is_let_go(keep):
    keeper = keep()
    guest = Guest.boot(keeper.path)
    guest.write(0, bytes(512))
    keeper.kill()
    guest.close()
    keeper.start()
    with Guest.boot(keeper.path) as another:
        another.assert_works()


def test_p01_a_new_client_of_a_new_process_has_nothing_of_the_last_one(keep):
    """What the queues wrote down for one client is not gone on with for another, though it starts them just as often."""
    keeper = keep()
    for _ in range(3):
        with Guest.boot(keeper.path, queue_size=16) as guest:
            for i in range(21):
                guest.write(i, bytes([i]) * 512)
        keeper.kill()
        keeper.start()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_p01_a_client_with_a_twin_socket_is_sent_away_and_the_next_one_served(keep, how):
    keeper = keep()
    client = Client.connect(keeper.path)
    client.handshake(capabilities=wire.TWIN_CAPS)
    assert client.twin is not None
    carry_over(keeper, how)
    client.dropped()
    client.close()
    with Guest.boot(keeper.path) as guest:
        guest.assert_works()


@pytest.mark.parametrize("packed", [False, True])
def test_p01_a_kill_while_the_client_is_asked_for_memory_ends_its_session(keep, packed):
    keeper = keep()
    guest = Guest.boot(keeper.path, remote=True, packed=packed)
    asked = []
    guest.client.on_command = asked.append
    guest.submit(guest.prepare(0, 0, length=512))
    guest.client.serve_commands(lambda: asked)  # and nobody answers
    carry_over(keeper, "kill")
    guest.client.dropped()
    guest.client.close()
    with Guest.boot(keeper.path) as another:
        another.assert_works()


def test_a_server_whose_keeper_is_gone_ends_in_order(keep):
    keeper = keep()
    guest = Guest.boot(keeper.path)
    keeper.channel.shutdown(2)
    assert keeper.wait() == 0, keeper.stderr()
    assert "the keeper is no more" in keeper.stderr()
    guest.close()
    for slot in [slot for slot in keeper.slots if slot != 0]:
        os.close(keeper.slots.pop(slot))


# --- records that are refused ---


def memfd_copy(fd, size=None, change=None, seals=True, most=MIB):
    length = os.fstat(fd).st_size if size is None else size
    copy = os.memfd_create("record", os.MFD_ALLOW_SEALING)
    os.truncate(copy, length)
    data = bytearray(os.pread(fd, min(length, most), 0))
    if change:
        change(data)
    os.pwrite(copy, data, 0)
    if seals:
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return copy


def flip(offset, mask=0xFF):
    def change(data):
        data[offset] ^= mask
    return change


def spoiled_registers(data):
    """Spoils the copies of the registers: the section's place is in the directory."""
    offset = struct.unpack_from("<Q", data, 64 + 2 * 24 + 8)[0]
    length = struct.unpack_from("<Q", data, 64 + 2 * 24 + 16)[0] // 2
    for copy in range(2):
        data[offset + copy * length + 16 + 100] ^= 0x55


REFUSED = {
    "not a record": (flip(0), "no state record"),
    "of another version": (flip(8, 0x02), "is of version 3"),
    "a wrong number of sections": (flip(12), "checksum"),
    "a wrong size": (flip(17), "checksum"),
    "a section elsewhere": (flip(64 + 24 + 9), "checksum"),
    "registers with a wrong checksum": (spoiled_registers, "section 'registers' has a wrong checksum"),
    "of another card": (lambda data: data.__setitem__(slice(4096, 4100), b"nvme"), "of another card: 'nvme"),
    "an impossible generation": (flip(39), "generation"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_p10_a_record_that_is_wrong_is_refused_and_says_why(keep, case):
    change, words = REFUSED[case]
    keeper = keep()
    guest = Guest.boot(keeper.path)
    guest.write(0, b"x" * 512)
    keeper.kill()
    good = keeper.slots[0]
    keeper.slots[0] = memfd_copy(good, change=change)
    keeper.spawn()
    assert keeper.wait() in (1, 2), keeper.stderr()
    assert words in keeper.stderr(), keeper.stderr()
    # Nothing of what the keeper has was touched: with the right record the client goes on.
    os.close(keeper.slots[0])
    keeper.slots[0] = good
    keeper.start()
    assert guest.read(0, 1) == b"x" * 512
    guest.close()


def test_p10_a_record_that_is_cut_or_no_sealed_memfd_is_refused(keep):
    keeper = keep()
    guest = Guest.boot(keeper.path)
    keeper.kill()
    good = keeper.slots[0]
    for fd, words in ((memfd_copy(good, size=4096), "cut"), (memfd_copy(good, size=100), "no state record"),
                      (memfd_copy(good, seals=False), "not a sealed memfd"), (os.open("/dev/null", os.O_RDWR), "")):
        keeper.slots[0] = fd
        keeper.spawn()
        assert keeper.wait() in (1, 2) and words in keeper.stderr(), keeper.stderr()
        os.close(fd)
    keeper.slots[0] = good
    keeper.start()
    guest.assert_works()
    guest.close()


def test_p10_another_shape_of_card_is_refused(keep):
    keeper = keep("--queues=2")
    keeper.kill()
    keeper.spawn(["--queues=3"])
    assert keeper.wait() in (1, 2) and "of another card" in keeper.stderr(), keeper.stderr()
    keeper.start()


def test_p10_a_slot_that_the_record_names_and_nobody_has_is_refused(keep):
    keeper = keep()
    guest = Guest.boot(keeper.path)
    guest.write(0, b"y" * 512)
    keeper.kill()
    for slot in sorted(set(keeper.slots) - {0}):
        kept = keeper.slots.pop(slot)
        keeper.spawn()
        assert keeper.wait() in (1, 2) and keeper.stderr().strip(), (slot, keeper.stderr())
        keeper.slots[slot] = kept
    keeper.start()
    assert guest.read(0, 1) == b"y" * 512
    guest.close()


def test_p10_any_damage_is_refused_or_survived(keep):
    """Random bytes anywhere in the record: the process says no, or serves; it never dies."""
    keeper = keep()
    guest = Guest.boot(keeper.path)
    guest.write(0, b"z" * 512)
    keeper.kill()
    good = keeper.slots[0]
    size = os.fstat(good).st_size
    dice = random.Random(10)
    places = [range(0, 8192), range(8192, min(size, 60000)), range(0, size)]

    def spoil(data):
        for _ in range(dice.randrange(1, 6)):
            at = dice.choice(places)
            at = dice.randrange(at.start, min(at.stop, len(data)))
            data[at] = dice.randrange(256)

    for _ in range(60):
        keeper.slots[0] = memfd_copy(good, change=spoil)
        slots = dict(keeper.slots)
        keeper.slots = {slot: os.dup(fd) for slot, fd in slots.items()}
        keeper.spawn()
        keeper.ready.wait(60)
        keeper.kill() if keeper.serves else keeper.wait()
        assert keeper.process.returncode in (1, 2, -signal.SIGKILL), f"{keeper.process.returncode} {keeper.stderr()}"
        for fd in keeper.slots.values():
            os.close(fd)
        os.close(slots[0])
        keeper.slots = slots
    guest.client.close()
    keeper.slots[0] = good
    keeper.start()


# --- the command line ---


@pytest.mark.parametrize("arguments, words", [
    (["k.sock", "virtio-blk", "null:1M", "--keeper-fd=0"], "SOCK_SEQPACKET"),
    (["k.sock", "virtio-blk", "null:1M", "--keeper-fd=99"], "no such fd"),
])
def test_a_keeper_that_is_none_is_refused(workdir, arguments, words):
    done = subprocess.run(binary() + ["serve", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                          cwd=workdir.path)
    assert done.returncode != 0 and words in done.stderr, done


@pytest.mark.parametrize("backend, words", [("ram:16M", "must outlast this process")])
def test_what_ends_with_the_process_cannot_be_kept(workdir, backend, words):
    keeper = Keeper(workdir, backend)
    try:
        keeper.spawn()
        assert keeper.wait() in (1, 2) and words in keeper.stderr(), keeper.stderr()
    finally:
        keeper.close()
