# SPDX-License-Identifier: BSD-3-Clause
"""Life of a server: sockets, readiness, signals, rebooted guests, two servers on one path, one image for two."""

import errno
import grp
import os
import pwd
import re
import signal
import socket
import stat
import threading
import time

import pytest

from pylib import blk, virtio, wire
from pylib.client import Client, NoReply
from pylib.events import PATIENCE, timed, within
from pylib.server import Server
from pylib.vm import Guest

ROOT = os.geteuid() == 0


# --- readiness and signals ------------------------------------------------------------------------------------

def test_ready_fd_is_written_once_and_closed_when_the_server_listens(server):
    assert server.ready_text == b"READY\n"
    server.client().fence()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("state", ["no client", "a client", "a running guest", "io in flight"])
@timed
def test_signal_ends_the_server_in_good_order(serve, image, number, state):
    server = serve(image)
    guest = None
    if state == "a client":
        server.client()
    elif state != "no client":
        guest = server.guest(queue_size=128, memory=8 << 20)
    if state == "io in flight":
        for i in range(32):
            guest.submit(guest.prepare(blk.T_IN, 128 * i, length=1 << 16), kick=False)
        guest.kick(posted=True)
    with within(3):
        server.signal(number)
        server.exit_status = server.process.wait(PATIENCE)
    assert server.exit_status == 0
    assert not server.path.exists()


def test_second_signal_while_ending_is_harmless(server):
    server.signal(signal.SIGTERM)
    server.signal(signal.SIGINT)
    server.signal(signal.SIGTERM)
    server.exit_status = server.process.wait(PATIENCE)
    assert server.exit_status == 0, "a second signal cut the orderly end short"


def test_running_server_says_nothing_on_stderr_at_level_error(serve):
    server = serve("ram:16M", "--log-level=error")
    server.guest().assert_works()
    server.close_clients()
    assert server.stop() == 0
    assert server.stderr() == ""


def test_idle_server_uses_no_processor_time(server):
    guest = server.guest()
    guest.assert_works()
    server.assert_comes_to_rest(0.5)


# --- guests that come again -----------------------------------------------------------------------------------

def test_rebooted_guest_on_the_same_path_finds_a_clean_device_and_its_data(serve, image):
    server = serve(image)
    for turn in range(5):
        guest = Guest(server.client())
        guest.virtio.discover()
        assert guest.virtio.status == 0
        guest.virtio.set("queue_select", 0)
        assert guest.virtio.get("queue_enable") == 0 and guest.virtio.get("queue_desc") == 0
        assert guest.pci.read(4, 2) == 0
        guest.start()
        if turn:
            assert guest.read(50, 1) == bytes([turn]) * 512
        guest.write(50, bytes([turn + 1]) * 512)
        guest.close()


def test_guest_that_dies_without_a_word_leaves_a_clean_device(serve, image):
    server = serve(image)
    pid = os.fork()
    if pid == 0:
        try:
            guest = Guest.boot(server.path, memory=8 << 20)
            for i in range(16):
                guest.submit(guest.prepare(blk.T_IN, 128 * i, length=1 << 16), kick=False)
            guest.kick(posted=True)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    guest = server.guest()
    assert guest.read(2, 1) == (2).to_bytes(8, "little") * 64


def test_hundred_guests_one_after_another_leave_memory_and_fds_constant(server):
    def turn():
        with Guest.boot(server.path) as guest:
            guest.assert_works()
    for _ in range(10):
        turn()
    server.assert_fds_back()
    before = server.resident_bytes()
    for _ in range(100):
        turn()
    server.assert_fds_back()
    server.assert_grew_less(before, 4 << 20)


def test_settings_of_one_session_do_not_reach_the_next(server):
    """Quirks are fixed at VERSION: after Cloud Hypervisor's comes an ordinary client."""
    client = server.connect()
    client.handshake(minor=1, text=b'{"capabilities":{"max_msg_fds":1}}\0')
    client.write_uint(7, 0x3C, 1, 0x55)
    client.close()
    client = server.client()
    assert client.irq_info(0).count == 1
    assert client.read_uint(7, 0x3C, 1) in (0, 0xFF)
    assert client.refused(9, b"\0" * 3)


# --- socket files ---------------------------------------------------------------------------------------------

def test_stale_socket_file_is_taken_over(serve, workdir):
    path = workdir.path / "stale"
    old = socket.socket(socket.AF_UNIX)
    old.bind(str(path))
    old.close()
    assert path.exists()
    serve("ram:16M", socket=path).guest().assert_works()


def test_socket_file_of_a_killed_server_is_taken_over(serve):
    first = serve("ram:16M")
    first.process.kill()
    first.process.wait()
    first.may_die_by = (signal.SIGKILL,)
    assert first.path.exists()
    serve("ram:16M", socket=first.path).guest().assert_works()


def test_second_server_on_a_path_in_use_is_refused_and_the_first_goes_on(serve, cli):
    first = serve("ram:16M")
    status, stderr = cli("serve", first.path, "virtio-blk", "ram:16M")
    assert status == 1
    assert_one_line(stderr, str(first.path), "another server")
    first.guest().assert_works()


def test_second_server_is_refused_also_while_a_client_is_connected(serve, cli):
    first = serve("ram:16M")
    guest = first.guest()
    status, stderr = cli("serve", first.path, "virtio-blk", "ram:16M")
    assert status == 1 and "another server" in stderr
    guest.assert_works()


def test_two_servers_that_start_at_the_same_moment_do_not_share_a_path(workdir):
    path = workdir.path / "race"
    servers = [Server(workdir, "ram:16M", socket=path) for _ in range(2)]
    failures = []

    def start(server):
        try:
            server.start()
        except AssertionError as error:
            failures.append((server, error))
    threads = [threading.Thread(target=start, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(failures) == 1, f"{len(failures)} of two servers were refused"
        loser = failures[0][0]
        assert loser.process.wait(PATIENCE) == 1
        winner = next(server for server in servers if server is not loser)
        winner.finish()
    finally:
        for server in servers:
            server.kill()


def assert_one_line(stderr, *parts):
    lines = stderr.splitlines()
    assert len(lines) == 1, f"one line is right, not {len(lines)}:\n{stderr}"
    assert lines[0].startswith("sidecard: "), stderr
    for part in parts:
        assert part in lines[0], f"{part!r} is missing in: {lines[0]}"


@pytest.mark.parametrize("kind", ["symlink to nothing", "symlink to a socket", "regular file", "directory", "fifo"])
def test_path_that_is_no_socket_of_ours_is_refused_and_left_alone(workdir, cli, kind):
    path = workdir.path / "taken"
    target = workdir.path / "target"
    if kind == "symlink to nothing":
        path.symlink_to(target)
    elif kind == "symlink to a socket":
        old = socket.socket(socket.AF_UNIX)
        old.bind(str(target))
        old.close()
        path.symlink_to(target)
    elif kind == "regular file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    before = os.lstat(path)
    status, stderr = cli("serve", path, "virtio-blk", "ram:16M")
    assert status == 1
    assert_one_line(stderr, str(path))
    after = os.lstat(path)
    assert (before.st_ino, before.st_mode, before.st_size) == (after.st_ino, after.st_mode, after.st_size)
    if kind == "symlink to nothing":
        assert not target.exists()


def test_socket_removed_by_somebody_else_does_not_disturb_the_end(serve):
    server = serve("ram:16M")
    os.unlink(server.path)
    assert server.stop() == 0


def test_socket_that_belongs_to_a_successor_is_not_removed_at_the_end(serve, workdir):
    """The path was unlinked and is another socket by now."""
    server = serve("ram:16M")
    os.unlink(server.path)
    other = socket.socket(socket.AF_UNIX)
    other.bind(str(server.path))
    inode = os.lstat(server.path).st_ino
    server.removes_socket = False
    assert server.stop() == 0
    assert os.path.lexists(server.path) and os.lstat(server.path).st_ino == inode
    other.close()


@pytest.mark.parametrize("mode", ["0600", "0660", "0666", "600"])
def test_socket_mode_is_set(serve, mode):
    server = serve("ram:16M", f"--socket-mode={mode}")
    assert stat.S_IMODE(os.stat(server.path).st_mode) == int(mode, 8)


@pytest.mark.skipif(not ROOT, reason="needs root to give a file away")
@pytest.mark.parametrize("form", ["user", "user:group", "number", "number:number"])
def test_socket_owner_is_set(serve, form):
    user = pwd.getpwnam("nobody")
    group = grp.getgrnam("daemon")
    text = {"user": "nobody", "user:group": "nobody:daemon", "number": str(user.pw_uid),
            "number:number": f"{user.pw_uid}:{group.gr_gid}"}[form]
    server = serve("ram:16M", f"--socket-owner={text}")
    found = os.stat(server.path)
    assert found.st_uid == user.pw_uid
    if ":" in form:
        assert found.st_gid == group.gr_gid


def test_vfio_user_prefix_of_a_path_is_understood(serve, workdir):
    path = workdir.path / "prefixed"
    server = serve("ram:16M", socket=path, argument=f"vfio-user:{path}")
    server.guest().assert_works()


def test_listening_socket_passed_in_by_number(serve, workdir):
    path = workdir.path / "passed"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(4)
    server = serve("ram:16M", socket=path, argument=f"fd:{listener.fileno()}", pass_fds=[listener.fileno()])
    listener.close()
    server.guest().assert_works()
    server.close_clients()
    server.guest().assert_works()
    server.removes_socket = False  # it isn't the server's file


@pytest.mark.parametrize("kind", ["not open", "a file", "a pipe", "a connected socket", "an unbound socket", "tcp"])
def test_passed_fd_that_is_no_listening_unix_socket_is_refused(workdir, cli, kind):
    keep = []
    if kind == "not open":
        fd = 917
    elif kind == "a file":
        fd = os.open(workdir.file("f", 10), os.O_RDWR)
    elif kind == "a pipe":
        fd, other = os.pipe()
        keep.append(os.fdopen(other, "wb"))
    elif kind == "a connected socket":
        one, two = socket.socketpair()
        keep += [one, two]
        fd = one.fileno()
    elif kind == "an unbound socket":
        keep.append(socket.socket(socket.AF_UNIX))
        fd = keep[-1].fileno()
    else:
        keep.append(socket.create_server(("127.0.0.1", 0)))
        fd = keep[-1].fileno()
    status, stderr = cli("serve", f"fd:{fd}", "virtio-blk", "ram:16M", pass_fds=[] if kind == "not open" else [fd])
    assert status in (1, 2)
    assert_one_line(stderr, str(fd))


# --- one image for two ---------------------------------------------------------------------------------------

def test_image_locked_by_another_server_is_waited_for_and_used_when_it_is_free(serve, image):
    """Both may be up; the first queue that starts takes the lock, the other's requests wait (30 s at most)."""
    first, second = serve(image), serve(image)
    holder = first.guest()
    holder.write(0, b"\x01" * 512)
    waiter = second.guest()
    request = waiter.prepare(blk.T_IN, 0, length=512)
    waiter.submit(request)
    assert not waiter.queue.wait(1, 0.3), "two processes work on one image at the same time"
    assert not waiter.broken
    holder.write(0, b"\x02" * 512)
    holder.close()
    result = waiter.finish(request)
    assert (result.status, result.data) == (blk.S_OK, b"\x02" * 512)
    assert re.search(r"locked|in use", second.stderr()) and str(image) in second.stderr(), \
        f"nobody says why the disk waits:\n{second.stderr()}"


def test_image_is_unlocked_by_a_device_reset_and_by_the_end_of_the_session(serve, image):
    first, second = serve(image), serve(image)
    holder = first.guest()
    holder.assert_works()
    holder.virtio.reset()
    other = second.guest()
    other.assert_works()
    second.close_clients()
    holder.bring_up()
    holder.assert_works()


@pytest.mark.parametrize("how", ["unmap", "status", "reset", "close", "sigterm"])
@timed
def test_waiting_for_a_lock_does_not_hold_up(serve, image, how):
    """An unmap may say EBUSY after 4 s; QEMU gives a request up after 5 s, and a later reply ends its session."""
    first, second = serve(image), serve(image)
    first.guest().assert_works()
    waiter = second.guest()
    window = waiter.space.windows[0]
    data = os.urandom(512)
    waiter.submit(waiter.prepare(blk.T_OUT, 0, data=data))
    time.sleep(0.02)
    try:
        with within(4.5):
            if how == "unmap":
                reply = waiter.client.exchange(wire.Cmd.DMA_UNMAP, wire.dma_unmap(window.iova, window.size))
                assert not reply.is_error or reply.errno == errno.EBUSY, str(reply)
            elif how == "status":
                waiter.virtio.reset()
            elif how == "reset":
                waiter.client.reset()
            elif how == "close":
                waiter.client.close()
                second.client().fence()
            else:
                assert second.stop() == 0
        assert image.read_bytes()[:512] != data
    finally:
        first.close_clients()
    # One that was refused the unmap may write now.
    assert how == "unmap" or image.read_bytes()[:512] != data


@timed
def test_waiting_for_a_lock_does_not_stop_messages_resets_or_the_end(serve, image):
    first, second = serve(image), serve(image)
    first.guest().assert_works()
    waiter = second.guest()
    waiter.submit(waiter.prepare(blk.T_OUT, 0, data=b"\x0E" * 512))
    waiter.client.fence()
    waiter.virtio.reset()
    waiter.client.fence()
    waiter.close()
    try:
        with within(5):
            assert second.stop() == 0
    finally:
        first.close_clients()
    assert image.read_bytes()[:512] != b"\x0E" * 512


def test_two_servers_with_their_own_images_do_not_meet(serve, workdir):
    one, two = serve(workdir.file("a", 1 << 20)), serve(workdir.file("b", 1 << 20))
    left, right = one.guest(), two.guest()
    left.write(0, b"\xAA" * 512)
    right.write(0, b"\xBB" * 512)
    assert left.read(0, 1) == b"\xAA" * 512 and right.read(0, 1) == b"\xBB" * 512


# --- a session that waits -------------------------------------------------------------------------------------

def test_client_that_comes_while_another_is_served_gets_the_same_service_later(server):
    guest = server.guest()
    later = Client.connect(server.path)
    later.send(1, b"\0\0\0\0")
    with pytest.raises(NoReply):
        later.recv(timeout=0.05)
    guest.assert_works()
    guest.close()
    assert not later.recv().is_error
    later.fence()
    later.close()


def test_reset_of_the_device_is_over_when_the_register_says_so(guest):
    for _ in range(50):
        guest.submit(guest.prepare(blk.T_IN, 0, length=512), kick=True)
        guest.virtio.status = 0
        while guest.virtio.status:
            pass
        used = guest.queue.used_idx()
        assert guest.virtio.get("queue_select") in (0,)
        time.sleep(0.0005)
        assert guest.queue.used_idx() == used
        guest.space.release(guest.queue.used_addr + 4096)
        guest.bring_up()
    assert not guest.virtio.status & virtio.NEEDS_RESET
