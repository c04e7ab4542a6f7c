# SPDX-License-Identifier: BSD-3-Clause
"""P6: requests of very many buffers, as many as the queue holds, while none can end. The process stays small; all of them end."""
import re

from pylib import blk
from pylib.ring import INDIRECT, Segment, indirect_table

PIECES = 63 * 512  # buffers of one byte, whole blocks together
REQUESTS = 256


def resident(server):
    """Bytes of the server's own memory: what it shares with the guest is not counted."""
    with open(f"/proc/{server.pid}/status", encoding="ascii") as status:
        return int(re.search(r"RssAnon:\s+(\d+) kB", status.read())[1]) * 1024


def test_p06_requests_of_very_many_buffers_wait_for_one_another(serve, image):
    owner, server = serve(image), serve(image, "--queue-size=256")
    owner.guest().assert_works()
    guest = server.guest(queue_size=256, memory=16 << 20)
    queue, space = guest.queue, guest.space
    request = guest.prepare(blk.T_OUT, 0, data=b"\x5A" * PIECES)
    segments = [Segment(request.header, 16), *(Segment(request.data + i, 1) for i in range(PIECES)),
                Segment(request.status_addr, 1, True)]
    table = space.alloc(16 * len(segments), 16)
    space.write(table, indirect_table(segments))
    for head in range(REQUESTS):
        queue.set_desc(head, table, 16 * len(segments), INDIRECT)
        queue.free.remove(head)
        queue.chains[head] = [head]
    before = resident(server)
    queue.offer(*range(REQUESTS))
    guest.kick()
    guest.client.fence()
    assert not queue.wait(1, 0.5), "nothing can end while the image is locked"
    grown = resident(server) - before
    assert grown < 24 << 20, f"{grown >> 20} MiB for {REQUESTS} requests"
    assert owner.stop() == 0
    done = queue.wait(REQUESTS)
    assert len(done) == REQUESTS
    assert space.read(request.status_addr, 1)[0] == blk.S_OK
    guest.assert_works()
