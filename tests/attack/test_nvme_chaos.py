# SPDX-License-Identifier: BSD-3-Clause
"""Rows N12 and D6 at random: a guest that does everything at once, most of it wrong, on two threads of the server. What it may not do is
harm anybody else, and a reset heals its controller."""

import random
import struct

import pytest

from pylib import nvme_spec as spec
from pylib import wire
from pylib.memory import PAGE, GuestMemory
from pylib.nvme import NvmeGuest
from pylib.wire import Cmd

STEPS = 1500
QUEUES = 4
SPARE, SPARE_SIZE = 0x5000_0000, 1 << 20
PAGES = 64


class Chaos:
    """One guest, and the dice."""

    def __init__(self, server, seed, remote):
        self.dice = random.Random(seed)
        self.nvme = NvmeGuest(server.client())
        server.handed_out.append(self.nvme)
        self.nvme.start(queues=QUEUES, queue_size=16, remote=remote)
        self.pages = [self.nvme.allocate(PAGE) for _ in range(PAGES)]
        self.spare = GuestMemory(SPARE_SIZE)
        self.nvme.memories.append(self.spare)
        self.spare_mapped = False
        self.nvme.space.add(SPARE, SPARE_SIZE, self.spare)

    def address(self):
        dice = self.dice
        return dice.choice([dice.choice(self.pages), dice.choice(self.pages), dice.choice(self.pages) + 4 * dice.randrange(1024),
                            SPARE + PAGE * dice.randrange(256), dice.getrandbits(64)])

    def command(self):
        dice = self.dice
        if dice.random() < 0.1:
            return dice.randbytes(64)
        opcode = dice.choice([spec.FLUSH, spec.READ, spec.WRITE, spec.READ, spec.WRITE, spec.COMPARE, spec.WRITE_ZEROES, spec.DSM])
        return spec.command(opcode, cid=dice.getrandbits(16), nsid=dice.choice([1, 1, 1, 0, spec.ALL]), psdt=dice.choice([0, 0, 0, 1]),
                            prp1=self.address(), prp2=self.address(), cdw10=dice.choice([0, 8, dice.getrandbits(32)]),
                            cdw12=dice.choice([0, 7, 15, 300, dice.getrandbits(32)]), cdw11=dice.choice([0, 0, 4, dice.getrandbits(32)]))

    def admin(self):
        dice = self.dice
        qid = dice.randrange(0, QUEUES + 2)
        size = dice.choice([1, 3, 15, 63])
        return dice.choice([
            spec.command(spec.CREATE_CQ, prp1=self.address() & ~0xFFF, cdw10=qid | size << 16, cdw11=3 | dice.randrange(6) << 16),
            spec.command(spec.CREATE_SQ, prp1=self.address() & ~0xFFF, cdw10=qid | size << 16, cdw11=1 | dice.randrange(6) << 16),
            spec.command(spec.DELETE_SQ, cdw10=qid), spec.command(spec.DELETE_CQ, cdw10=qid),
            spec.command(spec.DBBUF, prp1=self.address() & ~0xFFF, prp2=self.address() & ~0xFFF),
            spec.command(spec.ABORT, cdw10=qid | dice.getrandbits(16) << 16), spec.command(spec.ASYNC_EVENT),
            spec.command(spec.IDENTIFY, prp1=self.address(), prp2=self.address(), cdw10=dice.choice([0, 1, 2, 3])),
            spec.command(spec.GET_LOG, prp1=self.address(), prp2=self.address(), cdw10=dice.choice([1, 2, 3, 5]) | 127 << 16),
            spec.command(spec.SET_FEATURES, cdw10=dice.choice([6, 7, 8, 9, 11]), cdw11=dice.getrandbits(32))])

    def fill_queue(self):
        """A queue's own memory, or a page that a queue may have been made in."""
        qid = self.dice.randrange(QUEUES + 1)
        body = b"".join(self.admin() if qid == 0 else self.command() for _ in range(8))
        at = self.dice.choice([self.nvme.sqs[qid].address if qid in self.nvme.sqs else self.pages[0], self.dice.choice(self.pages)])
        self.nvme.space.write(at + 512 * self.dice.randrange(2), body)

    def fill_list(self):
        self.nvme.space.write(self.dice.choice(self.pages), struct.pack("<512Q", *(self.dice.choice(self.pages) for _ in range(512))))

    def ring(self):
        value = self.dice.choice([self.dice.randrange(16), self.dice.randrange(70), self.dice.getrandbits(32)])
        self.nvme.set(spec.DOORBELLS + 4 * self.dice.randrange(2 * QUEUES + 4), value, posted=True)

    def control(self):
        value = self.dice.choice([0, spec.cc(), spec.cc(), spec.cc(shn=spec.SHN_NORMAL), spec.cc(shn=spec.SHN_ABRUPT),
                                  self.dice.getrandbits(32)])
        register = self.dice.choice([spec.CC] * 6 + [spec.NSSR, spec.AQA, spec.ASQ, spec.ACQ, spec.INTMS, spec.INTMC])
        self.nvme.set(register, value, posted=True)

    def enable(self):
        """A good one, or nothing would ever run."""
        self.nvme.set(spec.CC, 0)
        self.nvme.until(lambda: self.nvme.csts & spec.RDY == 0)
        self.nvme.set(spec.AQA, 31 | 31 << 16)
        self.nvme.set8(spec.ASQ, self.pages[0])
        self.nvme.set8(spec.ACQ, self.pages[1])
        self.nvme.set(spec.CC, spec.cc())
        good = [spec.command(spec.CREATE_CQ, prp1=self.pages[2 * qid], cdw10=qid | 15 << 16, cdw11=3 | qid << 16)
                for qid in range(1, QUEUES + 1)]
        good += [spec.command(spec.CREATE_SQ, prp1=self.pages[2 * qid + 1], cdw10=qid | 15 << 16, cdw11=1 | qid << 16)
                 for qid in range(1, QUEUES + 1)]
        self.nvme.space.write(self.pages[0], b"".join(good))
        self.nvme.set(spec.DOORBELLS, len(good))

    def remap(self):
        """The spare window comes and goes; an unmap that waits for messages of the server's is served meanwhile."""
        window = wire.dma_unmap(SPARE, SPARE_SIZE) if self.spare_mapped else wire.dma_map(SPARE, SPARE_SIZE)
        fds = [] if self.spare_mapped or self.nvme.dma else [self.spare.fd]
        reply = self.nvme.client.exchange(Cmd.DMA_UNMAP if self.spare_mapped else Cmd.DMA_MAP, window, fds=fds)
        if not reply.is_error:
            self.spare_mapped = not self.spare_mapped

    def step(self):
        self.dice.choice([self.fill_queue] * 4 + [self.ring] * 8 + [self.fill_list, self.control, self.enable, self.remap])()

    def heal(self):
        self.nvme.client.call(Cmd.RESET)
        self.nvme.pci.set_command(6)
        self.nvme.pci.enable_msix()
        self.nvme.bring_up()
        for sqid in range(1, QUEUES + 1):
            self.nvme.assert_works(sqid=sqid)


@pytest.mark.parametrize("remote", [False, True], ids=["shared", "remote"])
@pytest.mark.parametrize("seed", range(4))
def test_n12_d06_everything_at_once_harms_nobody(serve, seed, remote):
    server = serve("ram:16M", f"--queues={QUEUES}", "--threads=2", device="nvme")
    chaos = Chaos(server, seed, remote)
    for _ in range(3):
        for number in range(STEPS // 3):
            chaos.step()
            if remote and number % 8 == 0:
                chaos.nvme.client.serve_commands(lambda: False, 0.003)
        chaos.heal()
