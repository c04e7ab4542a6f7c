# SPDX-License-Identifier: BSD-3-Clause
"""Filters in front of backends, as guests find them: through every kind of card, while requests wait in them and everything ends around
them, over several processes, and from configuration files. Nothing here depends on time: what is limited or late is so for hours."""

import json
import os
import signal

import pytest

from pylib import blk, faults, virtio
from pylib import nvme_spec as spec
from pylib.events import wait_until
from pylib.nvme import NvmeGuest
from pylib.server import run_command
from pylib.vm import USUAL_FEATURES, Guest

M = 1 << 20
S = 512
CARDS = [("vfio-user", "virtio-blk"), ("vhost-user", "virtio-blk"), ("vfio-user", "nvme")]

# Reads pass it at once. Three writes of a sector may go, in all; the next one may after 512 seconds.
THREE_WRITES = "limit,write-bw=1,burst=1024s"
# Reads pass it at once; writes wait for an hour.
NO_WRITES = "delay,write=1h"


@pytest.fixture(params=CARDS, ids=["-".join(card) for card in CARDS])
def kind(request):
    """transport and device of a card, as serve wants them."""
    return dict(zip(("transport", "device"), request.param))


class Disk:
    """What a test does to a disk, whatever its device is. Statuses are "ok", "error", "unsupported" or an NVMe status."""

    def __init__(self, guest):
        self.guest = guest
        guest.reuse = False  # for TSan: see pylib.vm
        self.nvme = isinstance(guest, NvmeGuest)

    def _say(self, status):
        if self.nvme:
            return "ok" if status == spec.OK else status
        return {blk.S_OK: "ok", blk.S_IOERR: "error", blk.S_UNSUPP: "unsupported"}[status]

    def do(self, op, sector, queue=0):
        guest = self.guest
        if self.nvme:
            return self._say(guest.finish(queue + 1, self.submit(op, sector, queue)).status)
        if op in ("discard", "zeroes"):
            code = blk.T_DISCARD if op == "discard" else blk.T_WRITE_ZEROES
            return self._say(guest.do(code, 0, data=blk.discard_segment(sector, 1), queue=queue).status)
        code = {"read": blk.T_IN, "write": blk.T_OUT, "flush": blk.T_FLUSH}[op]
        return self._say(guest.do(code, sector, data=b"w" * S if op == "write" else b"", length=S if op == "read" else 0,
                                  queue=queue).status)

    def submit(self, op, sector, queue=0):
        """And no more."""
        guest = self.guest
        if not self.nvme:
            code = {"read": blk.T_IN, "write": blk.T_OUT}[op]
            return guest.submit(guest.prepare(code, sector, data=b"w" * S if op == "write" else b"", length=S, queue=queue))
        sqid = queue + 1
        if op == "flush":
            return guest.issue(sqid, spec.FLUSH, nsid=1)
        if op == "discard":
            address = guest.buffer(spec.dsm_range(sector, 1), length=16)
            return guest.issue(sqid, spec.DSM, nsid=1, prp1=address, cdw10=0, cdw11=spec.DSM_DEALLOCATE)
        opcode = {"read": spec.READ, "write": spec.WRITE, "zeroes": spec.WRITE_ZEROES}[op]
        cid = guest.put_io(opcode, sector, 1, guest.buffer(b"w" * S), sqid=sqid)
        guest.kick(sqid)
        return cid

    def data(self, sector):
        """Over the second queue, so that the first one's requests may wait."""
        return self.guest.read(sector, 1, **({"sqid": 2} if self.nvme else {"queue": 1}))


# --- readonly ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stack", ["readonly:", "limit,iops=100000:readonly:slice,offset=1M:", "slice,size=4M:readonly:"])
def test_readonly_disk_says_so_and_cannot_be_written(serve, image, kind, stack):
    os.chmod(image, 0o444)
    server = serve(f"{stack}{image}", **kind)
    server.check_service = False
    guest = server.guest()
    disk = Disk(guest)
    if disk.nvme:
        assert guest.namespace().attributes & 1
    else:
        assert guest.virtio.features & blk.F_RO
    before = image.read_bytes()
    for op in ("write", "zeroes", "discard"):
        assert disk.do(op, 8) == (spec.WRITE_TO_READ_ONLY if disk.nvme else "error" if op == "write" else "unsupported")
    assert disk.do("read", 8) == "ok" and disk.do("flush", 0) == "ok"
    assert image.read_bytes() == before
    modes = [server.fd_flags(fd) & os.O_ACCMODE for fd, what in server.fds().items() if what == str(image)]
    assert modes == [os.O_RDONLY]


# --- error ------------------------------------------------------------------------------------------------------

READ_ERROR, WRITE_FAULT, NOT_READY = 0x281, 0x280, 0x082


@pytest.mark.parametrize("name, of_virtio, of_nvme", [
    ("EIO", "error", None), ("ETIMEDOUT", "error", None), ("EOPNOTSUPP", "unsupported", None),
    ("ENOSPC", "error", spec.CAPACITY_EXCEEDED), ("EINVAL", "error", spec.LBA_OUT_OF_RANGE), ("EROFS", "error", spec.WRITE_TO_READ_ONLY),
    ("EBUSY", "error", NOT_READY), ("ENOMEM", "error", spec.INTERNAL_ERROR)])
def test_injected_errors_come_as_the_statuses_of_the_device(serve, kind, name, of_virtio, of_nvme):
    server = serve(f"error,errno={name},times=5:ram:16M", **kind)
    disk = Disk(server.guest())
    for op in ("read", "write", "flush", "discard", "zeroes"):
        due = of_virtio if not disk.nvme else of_nvme or (READ_ERROR if op == "read" else WRITE_FAULT)
        assert disk.do(op, 8) == due, op
    for op in ("read", "write", "flush", "discard", "zeroes"):
        assert disk.do(op, 8) == "ok", op


def test_errors_are_counted_over_queues_resets_and_guests(serve, kind):
    server = serve("error,op=read,every=5:ram:16M", "--queues=2", "--threads=2", **kind)
    server.check_service = False
    failed, count = [], 0
    for _ in range(3):
        guest = server.guest(queues=2)
        disk = Disk(guest)
        for turn in range(12):
            if turn == 6:
                guest.restart()
            count += 1
            if disk.do("read", turn, queue=turn % 2) != "ok":
                failed.append(count)
            assert disk.do("write", turn, queue=turn % 2) == "ok"
        guest.close()
    assert failed == list(range(5, 37, 5))


def test_bad_place_on_a_disk_is_bad_and_the_rest_is_not(serve, kind):
    server = serve("error,op=read,offset=1M,size=4k:ram:16M", **kind)
    disk = Disk(server.guest())
    bad = [sector for sector in range(2040, 2064) if disk.do("read", sector) != "ok"]
    assert bad == list(range(2048, 2056))
    assert all(disk.do("write", sector) == "ok" for sector in bad)


def test_bench_is_told_of_an_injected_error(serve, kind, workdir):
    server = serve("error,op=write,after=100,times=1:ram:16M", **kind)
    socket = f"vhost-user:{server.path}" if kind["transport"] == "vhost-user" else server.path
    bench = ("bench", socket, "--rw=write", "--bs=4k", "--verify")
    status, _, stderr = run_command(*bench, log_dir=workdir.path, timeout=60)
    assert status != 0 and "write" in stderr, stderr
    status, _, stderr = run_command(*bench, log_dir=workdir.path, timeout=60)
    assert status == 0, stderr


# --- limit and delay: requests that wait ------------------------------------------------------------------------

def fill_up(disk, where):
    """Writes as many as may go, and two more."""
    count = 3 if where == THREE_WRITES else 0
    for sector in range(count):
        assert disk.do("write", sector) == "ok"
    disk.submit("write", 100)
    disk.submit("write", 101)
    assert disk.do("read", 100, queue=1) == "ok", "reads pass writes that wait"
    assert disk.do("flush", 0, queue=1) == "ok"
    assert disk.data(100) == bytes(S), "it was written all the same"


@pytest.fixture(params=[THREE_WRITES, NO_WRITES], ids=["limit", "delay"])
def where(request):
    return request.param


@pytest.fixture
def held(serve, kind, where):
    """A server and a guest with two writes that wait in a filter."""
    server = serve(f"{where}:ram:16M", "--queues=2", "--threads=2", **kind)
    server.check_service = False
    guest = server.guest(queues=2)
    fill_up(Disk(guest), where)
    return server, guest


def test_reset_gives_up_what_waits(held, where):
    server, guest = held
    guest.restart()
    disk = Disk(guest)
    assert disk.data(100) == bytes(S)
    if where == THREE_WRITES:
        disk.submit("write", 100)  # nothing was saved up meanwhile
        assert disk.do("read", 100, queue=1) == "ok" and disk.data(100) == bytes(S)
    guest.restart()


def test_disconnect_gives_up_what_waits(held):
    server, guest = held
    guest.close()
    assert Disk(server.guest(queues=2)).data(100) == bytes(S)


def test_end_of_the_server_gives_up_what_waits(held):
    server, _ = held
    server.close_clients()
    assert server.stop() == 0


def test_end_of_the_server_with_a_client_gives_up_what_waits(held):
    server, _ = held
    assert server.stop() == 0


@pytest.mark.parametrize("where", [THREE_WRITES, NO_WRITES])
def test_reset_of_one_queue_gives_up_what_waits_in_it_and_no_more(serve, where, packed):
    server = serve(f"{where}:ram:16M", "--queues=2")
    server.check_service = False
    guest = server.guest(queues=2, packed=packed, features=USUAL_FEATURES | virtio.F_RING_RESET)
    disk = Disk(guest)
    for sector in range(3 if where == THREE_WRITES else 0):
        assert disk.do("write", sector) == "ok"
    disk.submit("write", 100, queue=0)
    disk.submit("write", 101, queue=1)
    guest.reset_queue(0)
    guest.enable_queue(0)
    assert disk.do("read", 100, queue=0) == "ok"
    assert guest.queues[1].wait(1, 0.05) == [], "a request of another queue has ended"
    guest.restart()


@pytest.mark.parametrize("where", [THREE_WRITES, NO_WRITES])
def test_namespace_goes_while_requests_wait(serve_cards, where):
    server = serve_cards([{"socket": "s0", "device": "nvme", "queues": 2,
                           "namespaces": [{"backend": "ram:16M"}, {"backend": f"{where}:ram:16M"}]}], threads=2)
    guest = server.guest_of(0, queues=2)
    for sqid in (1, 2):
        for sector in range(4):
            cid = guest.put_io(spec.WRITE, sector, 1, guest.buffer(b"x" * S), sqid=sqid, nsid=2)
            guest.kick(sqid)
            if where == THREE_WRITES and sqid == 1 and sector < 3:
                assert guest.finish(sqid, cid).status == spec.OK
        guest.read(0, 1, sqid=sqid)  # so all before it were taken
    waiting = 5 if where == THREE_WRITES else 8
    server.cards[0]["namespaces"] = [{"backend": "ram:16M"}]
    server.write(server.cards)
    server.signal(signal.SIGHUP)
    done = guest.finish_all()
    assert len(done) == waiting and {entry.status for entry in done} == {spec.ABORT_REQUESTED}
    guest.assert_works()


def test_nothing_begins_behind_a_reset(serve, faulty_disk, workdir):
    """The second range of a discard, whose first was in the kernel when the reset came."""
    image = workdir.file("disk.img", content=b"." * M)
    server = serve(f"limit,write-iops=1,burst=1ms:{image}")
    server.check_service = False
    guest = server.guest()
    faulty_disk.hold(faults.ALLOCATE)
    guest.submit(guest.prepare(blk.T_DISCARD, 0, data=blk.discard_segment(0, 8) + blk.discard_segment(64, 8)))
    assert wait_until(lambda: faulty_disk.hits(faults.ALLOCATE) == 1)
    guest.virtio.status = 0
    guest.virtio.get("device_status")
    faulty_disk.open_gate()
    assert wait_until(lambda: guest.virtio.status == 0)
    content = image.read_bytes()
    assert content[:8 * S] == bytes(8 * S) and content[8 * S:] == b"." * (M - 8 * S)


# --- slice ------------------------------------------------------------------------------------------------------

def test_slices_of_one_image_are_written_by_two_processes(serve, workdir):
    image = workdir.file("disk.img", content=b"." * (8 * M))
    first = serve(f"slice,offset=1M,size=2M:{image}").guest()
    second = serve(f"slice,offset=3M:limit,iops=1000000:{image}", device="nvme").guest()
    assert first.config.capacity == 2 * M // S and second.namespace().size == 5 * M // S
    for sector in (0, 2 * M // S - 1):
        first.write(sector, b"a" * S)
    for sector in (0, 5 * M // S - 1):
        second.write(sector, b"b" * S)
    assert first.do(blk.T_OUT, 2 * M // S, data=b"!" * S).status == blk.S_IOERR
    assert first.do(blk.T_IN, 2 * M // S - 1, length=2 * S).status == blk.S_IOERR
    assert second.io(spec.WRITE, 5 * M // S, 1, second.buffer(length=S)).status == spec.LBA_OUT_OF_RANGE
    due = bytearray(b"." * (8 * M))
    for at, letter in ((M, b"a"), (3 * M - S, b"a"), (3 * M, b"b"), (8 * M - S, b"b")):
        due[at:at + S] = letter * S
    assert image.read_bytes() == due


def test_slices_of_one_image_are_written_by_cards_of_one_process(serve_cards, workdir):
    image = workdir.file("disk.img", 4 * M)
    server = serve_cards([{"socket": f"{prefix}s{i}", "device": "virtio-blk", "backend": str(image),
                           "filters": [{"type": "slice", "offset": i * M, "size": "1M"}]}
                          for i, prefix in enumerate(["", "vhost-user:", "", "vhost-user:"])], threads=2)
    guests = [server.guest_of(i) for i in range(4)]
    for i, guest in enumerate(guests):
        assert guest.config.capacity == M // S
        guest.write(7, bytes([i + 1]) * S)
    for i, guest in enumerate(guests):
        assert guest.read(7, 1) == bytes([i + 1]) * S
    content = image.read_bytes()
    assert [content[i * M + 7 * S:i * M + 8 * S] for i in range(4)] == [bytes([i + 1]) * S for i in range(4)]
    assert content.count(0) == 4 * M - 4 * S


def test_slices_of_one_image_are_namespaces_of_one_controller(serve_cards, workdir):
    image = workdir.file("disk.img", 4 * M)
    namespaces = [{"backend": f"slice,offset={i}M,size=1M:{image}"} for i in range(4)]
    server = serve_cards([{"socket": "s0", "device": "nvme", "queues": 2, "namespaces": namespaces}], threads=2)
    guest = server.guest_of(0, queues=2)
    for nsid in range(1, 5):
        assert guest.namespace(nsid).size == M // S
        guest.write(3, bytes([nsid]) * S, nsid=nsid, sqid=nsid % 2 + 1)
    assert len({guest.namespace(nsid).nguid for nsid in range(1, 5)}) == 4
    assert [guest.read(3, 1, nsid=nsid)[:1] for nsid in range(1, 5)] == [b"\1", b"\2", b"\3", b"\4"]
    content = image.read_bytes()
    assert [content[i * M + 3 * S] for i in range(4)] == [1, 2, 3, 4]


@pytest.mark.parametrize("first, second", [("slice,size=3M:", "slice,offset=2M:"), ("", "slice,offset=2M:"), ("slice,size=1M:", "")])
def test_second_writer_of_the_same_bytes_waits_for_the_first(serve, workdir, first, second):
    image = workdir.file("disk.img", 8 * M)
    owner, waiter = serve(f"{first}{image}"), serve(f"{second}{image}")
    owner.guest().write(0, b"a" * S)
    guest = waiter.guest()
    request = guest.submit(guest.prepare(blk.T_OUT, 0, data=b"b" * S))
    assert wait_until(lambda: "is in use, locked by another process" in waiter.stderr())
    assert guest.queue.wait(1, 0.05) == []
    assert owner.stop() == 0
    assert guest.finish(request).status == blk.S_OK


@pytest.mark.parametrize("rw", ["randrw", "write", "randwrite"])
def test_bench_on_a_slice_touches_nothing_beside_it(serve, kind, workdir, rw):
    content = os.urandom(M)
    image = workdir.file("disk.img", content=content + bytes(2 * M) + content)
    server = serve(f"slice,offset=1M,size=2M:{image}", "--queues=2", **kind)
    socket = f"vhost-user:{server.path}" if kind["transport"] == "vhost-user" else server.path
    status, _, stderr = run_command("bench", socket, f"--rw={rw}", "--bs=4k", "--iodepth=16", "--numjobs=2", "--verify",
                                    log_dir=workdir.path, timeout=60)
    assert status == 0, stderr
    after = image.read_bytes()
    assert after[:M] == content and after[3 * M:] == content and len(after) == 4 * M
    assert after[M:3 * M] != bytes(2 * M)


def test_slice_grows_with_its_image_unless_it_has_a_size(serve_cards, workdir):
    image = workdir.file("disk.img", 8 * M)
    stacks = ["slice,offset=1M,size=1M", "delay,read=1us:slice,offset=2M", "slice,offset=2M"]
    server = serve_cards([{"socket": "s0", "device": "virtio-blk", "backend": f"{stacks[0]}:{image}"},
                          {"socket": "s1", "device": "virtio-blk", "backend": f"{stacks[1]}:readonly:{image}"},
                          {"socket": "s2", "device": "nvme", "namespaces": [{"backend": f"{stacks[2]}:readonly:{image}"}]}])
    sized, rest, nvme = (server.guest_of(i) for i in range(3))
    assert sized.config.capacity == M // S and rest.config.capacity == 6 * M // S
    os.truncate(image, 16 * M)
    server.signal(signal.SIGHUP)
    assert rest.config_event.wait(), "no configuration interrupt"
    assert capacity(rest) == 14 * M // S and capacity(sized) == M // S
    assert nvme.until(lambda: nvme.namespace().size == 14 * M // S)
    assert rest.do(blk.T_IN, 14 * M // S - 1, length=S).status == blk.S_OK
    # And smaller: of the first half of it is left, and what is past that fails.
    os.truncate(image, M + M // 2)
    server.signal(signal.SIGHUP)
    assert sized.config_event.wait()
    assert capacity(sized) == M // 2 // S and wait_until(lambda: capacity(rest) == 0)
    assert sized.do(blk.T_OUT, M // 2 // S - 1, data=b"x" * S).status == blk.S_OK
    assert sized.do(blk.T_OUT, M // 2 // S, data=b"x" * S).status == blk.S_IOERR
    assert image.stat().st_size == M + M // 2
    server.check_service = False


def capacity(guest):
    return blk.parse_config(guest.virtio.config_read(0, blk.CONFIG_SIZE)).capacity


# --- another process goes on ------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("device", ["virtio-blk", "nvme"])
def test_requests_that_wait_are_done_by_the_next_process(keep, workdir, how, device):
    image = workdir.file("disk.img", 16 * M)
    # The fourth write waits here, and is the first one there.
    keeper = keep("--log-level=info", backend=f"{THREE_WRITES}:slice,offset=1M:{image}", device=device)
    guest = (NvmeGuest if device == "nvme" else Guest).boot(keeper.path)
    disk = Disk(guest)
    for sector in range(3):
        assert disk.do("write", sector) == "ok"
    request = disk.submit("write", 100)
    guest.client.fence()
    keeper.kill() if how == "kill" else keeper.stop()
    assert "have not ended" not in keeper.stderr(), "the process has waited for them"
    keeper.start()
    assert (guest.finish(1, request) if disk.nvme else guest.finish(request)).status == 0
    assert image.read_bytes()[M + 100 * S:M + 101 * S] == b"w" * S
    guest.close()


@pytest.mark.parametrize("device", ["virtio-blk", "nvme"])
@pytest.mark.parametrize("before, after", [("", "slice,size=4M:"), ("slice,size=4M:", "slice,offset=4M:"), ("readonly:", ""),
                                           ("delay,all=1ms:" * 4, "delay,all=1ms:" * 3),
                                           # Both too long to be written out, and different at their very end.
                                           *[tuple("error,op=read,after=1000000,every=1000000,seed=1:" * 3 + f"error,seed={seed}:"
                                                   for seed in "12")]])
def test_another_stack_is_another_card(keep, workdir, device, before, after):
    image = workdir.file("disk.img", 16 * M)
    keeper = keep("--serial=SAME", backend=f"{before}{image}", device=device)
    keeper.kill()
    keeper.backend = f"{after}{image}"
    keeper.spawn()
    assert keeper.wait() in (1, 2) and "of another card" in keeper.stderr(), keeper.stderr()
    keeper.backend = f"{before}{image}"
    keeper.start()


# --- configuration files, and mistakes --------------------------------------------------------------------------

def test_filters_of_a_file_are_those_of_the_command_line(serve_cards, serve):
    """Down to the serial number, which is made of the backend's name."""
    filters = [{"type": "slice", "offset": "1M", "size": 2 * M}, {"type": "delay", "read": "1us-5us", "seed": 3},
               {"type": "error", "probability": 0.5, "op": "discard"}, {"type": "limit", "iops": 1000000}]
    server = serve_cards([{"socket": "s0", "device": "virtio-blk", "backend": "ram:16M", "filters": filters}])
    stack = "slice,offset=1M,size=2097152:delay,read=1us-5us,seed=3:error,probability=0.500000000000,op=discard:limit,iops=1000000"
    same = serve(f"{stack}:ram:16M")
    serials = [guest.do(blk.T_GET_ID, length=20).data for guest in (server.guest_of(0), same.guest())]
    assert serials[0] == serials[1]


def test_filters_of_a_namespace_change_while_the_guest_runs(serve_cards):
    server = serve_cards([{"socket": "s0", "device": "nvme", "namespaces": [{"backend": "ram:16M"},
                                                                            {"backend": "ram:16M", "filters": [{"type": "readonly"}]}]}])
    guest = server.guest_of(0)
    assert guest.namespace(2).attributes & 1
    server.cards[0]["namespaces"][1]["filters"] = [{"type": "slice", "size": "1M"}]
    server.write(server.cards)
    server.signal(signal.SIGHUP)
    assert guest.until(lambda: guest.namespace(2).size == M // S and not guest.namespace(2).attributes & 1)
    guest.write(0, b"z" * S, nsid=2)


FILTER_MISTAKES = [
    ([{"type": "slcie", "size": "1M"}], 'filters[0].type: "slcie": there is no such filter; did you mean "slice"?'),
    ([{"type": 5}], "filters[0].type: 5: there is no such filter; sidecard-filters(7)"),
    ([{"size": "1M"}], 'filters[0]: "type" is missing; write for example "type": "readonly"'),
    ([{"type": "readonly"}, {"type": "slice", "siez": "1M"}], 'filters[1].siez: there is no such key; did you mean "size"?'),
    ([{"type": "slice", "size": "1X"}], 'filters[0].size: "1X": is not a size in bytes'),
    ([{"type": "slice", "size": True}], "filters[0].size: true: must be a size in bytes"),
    ([{"type": "error", "every": "7"}], 'filters[0].every: "7": must be a number'),
    ([{"type": "error", "probability": 1.5}], "filters[0].probability: 1.5: must be a number above 0, and 1 at most"),
    ([{"type": "delay"}], "filters[0]: delay: it is not said how long"),
    ([], "filters: []: must be a list with something in it"),
    ({"type": "readonly"}, "must be a list"),
    ([{"type": "readonly"}] * 5, "filters: 5 entries, the limit is 4"),
    ([{"type": "error", "every": 1, "seed": 10 ** 18, "after": 10 ** 18, "times": 10 ** 18}] * 4, None),
]


@pytest.mark.parametrize("filters, says", FILTER_MISTAKES)
@pytest.mark.parametrize("inside", [False, True], ids=["card", "namespace"])
def test_mistakes_in_filters_of_a_file_are_told_with_their_place(cli, workdir, filters, says, inside):
    backend = {"backend": "ram:16M", "filters": filters}
    card = {"socket": str(workdir.path / "s"), "device": "nvme", **({"namespaces": [backend]} if inside else backend)}
    path = workdir.path / "c.json"
    path.write_text(json.dumps({"cards": [card], "log-level": "nonsense" if says is None else "info"}))
    status, stderr = cli("serve", f"--config={path}")
    place = "cards[0].namespaces[0]" if inside else "cards[0]"
    assert status == 2 and len(stderr.splitlines()) == 1, stderr
    assert (f"{path}: {place}" in stderr and says in stderr) if says else "log-level" in stderr, stderr


@pytest.mark.parametrize("card, says", [
    ({"namespaces": [{"backend": "ram:1M"}], "filters": [{"type": "readonly"}]}, "cards[0].filters: it is said of each namespace"),
    ({"backend": "readonly:readonly:ram:1M", "filters": [{"type": "readonly"}] * 3}, "one filter too many"),
    ({"backend": "ram:1M", "filtres": []}, 'did you mean "filters"?')])
def test_filters_that_are_in_the_wrong_place_are_told(cli, workdir, card, says):
    path = workdir.path / "c.json"
    path.write_text(json.dumps({"cards": [{"socket": str(workdir.path / "s"), "device": "nvme", **card}]}))
    status, stderr = cli("serve", f"--config={path}")
    assert status == 2 and says in stderr, stderr


@pytest.mark.parametrize("spec_, status, says", [
    ("slice,ofset=1M:ram:16M", 2, "slice: unknown option 'ofset'; did you mean 'offset'?"),
    ("slcie,offset=1M:ram:16M", 1, "did you mean slice,offset=1M:ram:16M?"),
    ("limit,iops=1000", 2, "a filter without a backend"),
    ("slice,offset=20M:ram:16M", 2, "the disk ends before"),
    ("slice,offset=512:ram:16M", 2, "not a multiple of the block size 4096; type for example offset=4096"),
    ("readonly:" * 5 + "ram:16M", 2, "one filter too many: 4 may stand on one another")])
def test_mistakes_in_filters_of_a_command_line_are_told(cli, workdir, spec_, status, says):
    code, stderr = cli("serve", workdir.path / "s", "virtio-blk", spec_, "--block-size=4096")
    assert code == status and len(stderr.splitlines()) == 1 and says in stderr, stderr
    assert not os.path.lexists(workdir.path / "s")
