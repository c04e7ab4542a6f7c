# SPDX-License-Identifier: BSD-3-Clause
"""Mistakes at the command line: one line that names the value and what to type; status 2 for usage, 1 for the rest."""

import os
import signal
import socket
import struct

import pytest

USAGE, FAILED = 2, 1


def said(result, status, *parts):
    """One line, the right status, and every part (lower case) in it."""
    code, stderr = result
    lines = stderr.splitlines()
    assert len(lines) == 1, f"one line is right, not {len(lines)}:\n{stderr}"
    assert lines[0].startswith("sidecard: "), f"the line doesn't begin with 'sidecard: ': {stderr}"
    assert code == status, f"status {code} where {status} is due: {stderr}"
    for part in parts:
        options = part if isinstance(part, tuple) else (part,)
        assert any(option.lower() in stderr.lower() for option in options), f"none of {options} in: {stderr}"


@pytest.fixture
def sock(workdir):
    return workdir.path / "s"


@pytest.fixture(autouse=True)
def nothing_is_left_behind(sock):
    yield
    assert not os.path.lexists(sock), "a refused command left a socket file"


@pytest.fixture
def disk(workdir):
    return workdir.file("disk.img", 1 << 20)


# --- images ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("prefix", ["", "file:"])
def test_image_that_does_not_exist(cli, sock, workdir, prefix):
    missing = workdir.path / "missing.img"
    said(cli("serve", sock, "virtio-blk", f"{prefix}{missing}"), FAILED, str(missing), "no such file")


def test_image_in_a_folder_that_does_not_exist(cli, sock):
    said(cli("serve", sock, "virtio-blk", "/nonexistent/folder/x.img"), FAILED, "/nonexistent/folder/x.img")


def test_image_that_is_a_directory(cli, sock, workdir):
    said(cli("serve", sock, "virtio-blk", workdir.path), FAILED, str(workdir.path), "directory")


@pytest.mark.parametrize("special", ["fifo", "/dev/null", "/dev/zero", "socket"])
def test_image_that_is_neither_file_nor_block_device(cli, sock, workdir, special):
    path = workdir.path / "special"
    if special == "fifo":
        os.mkfifo(path)
    elif special == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    else:
        path = special
    said(cli("serve", sock, "virtio-blk", path), FAILED, str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="root may read everything; needs root to become somebody else")
@pytest.mark.parametrize("mode, hint", [(0o000, ()), (0o444, ("--read-only",))])
def test_image_without_permission(cli, sock, workdir, disk, mode, hint):
    workdir.path.chmod(0o777)
    disk.chmod(mode)
    said(cli("serve", sock, "virtio-blk", disk, user=65534), FAILED, str(disk), "permission", *hint)


@pytest.mark.skipif(os.geteuid() != 0, reason="root may write everywhere; needs root to become somebody else")
def test_socket_in_a_folder_without_permission(cli, workdir, disk):
    folder = workdir.path / "closed"
    folder.mkdir(mode=0o700)
    workdir.path.chmod(0o755)
    disk.chmod(0o666)
    said(cli("serve", folder / "s", "virtio-blk", disk, user=65534), FAILED, str(folder), "permission")


@pytest.mark.parametrize("size, option", [(1000, None), (513, None), (1, None), (4096 + 512, "--block-size=4096")])
def test_image_whose_size_is_no_multiple_of_the_block_size(cli, sock, workdir, size, option):
    image = workdir.file("odd.img", size)
    said(cli("serve", sock, "virtio-blk", image, *([option] if option else [])), FAILED, str(image), str(size),
         "4096" if option else "512")


def test_image_of_no_bytes(cli, sock, workdir):
    said(cli("serve", sock, "virtio-blk", workdir.file("empty.img")), FAILED, "empty.img")


HEADERS = {
    "qcow2": b"QFI\xfb\0\0\0\x03" + b"\0" * 96,
    "vmdk": b"KDMV\x01\0\0\0" + b"\0" * 96,
    "vhdx": b"vhdxfile" + b"\0" * 96,
    "vdi": b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + struct.pack("<I", 0xBEDA107F),
}


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_image_with_the_header_of_another_format_is_refused_with_a_hint(cli, sock, workdir, name):
    """A guest would write its partition table over it."""
    image = workdir.file("disk", 1 << 20, HEADERS[name])
    said(cli("serve", sock, "virtio-blk", image), FAILED, str(image), name, "--raw")
    assert image.read_bytes()[:len(HEADERS[name])] == HEADERS[name]


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_image_with_the_header_of_another_format_is_served_when_it_is_raw(serve, workdir, name):
    image = workdir.file("disk", 1 << 20, HEADERS[name])
    guest = serve(image, "--raw").guest()
    assert guest.read(0, 1)[:len(HEADERS[name])] == HEADERS[name][:512]


def test_guest_that_writes_a_header_of_another_format_does_not_matter(serve, workdir):
    """The check is made when the image is opened and never again while it is served."""
    guest = serve(workdir.file("disk", 1 << 20)).guest()
    guest.write(0, HEADERS["qcow2"].ljust(512, b"\0"))
    assert guest.read(0, 1).startswith(b"QFI\xfb")


# --- sockets --------------------------------------------------------------------------------------------------

def test_socket_in_use(serve, cli):
    server = serve("ram:16M")
    said(cli("serve", server.path, "virtio-blk", "ram:16M"), FAILED, str(server.path), ("in use", "another server"))


def test_socket_path_longer_than_a_socket_address(cli, workdir):
    path = workdir.path / ("x" * 120)
    said(cli("serve", path, "virtio-blk", "ram:16M"), FAILED, ("108", "107"), "long")


def test_socket_path_of_the_longest_length_works(serve, workdir):
    longest = str(workdir.path) + "/"
    longest += "y" * (107 - len(longest))
    serve("ram:16M", socket=longest).guest().assert_works()


def test_socket_in_a_folder_that_does_not_exist(cli, workdir):
    path = workdir.path / "no" / "s"
    said(cli("serve", path, "virtio-blk", "ram:16M"), FAILED, str(path), "no such", f"mkdir -p {path.parent}")


@pytest.mark.parametrize("text", ["fd:", "fd:x", "fd:-1", "fd:99999999999", "fd:3x", ""])
def test_socket_argument_that_is_no_path_and_no_number(cli, text):
    code, stderr = cli("serve", text, "virtio-blk", "ram:16M")
    assert code in (USAGE, FAILED)
    assert len(stderr.splitlines()) == 1 and stderr.startswith("sidecard: ")
    assert text in stderr


def test_transport_that_is_not_there(cli, sock):
    code, stderr = cli("serve", f"vhost-usr:{sock}", "virtio-blk", "ram:16M")
    if code == 0:
        pytest.fail("a path with a colon was served")
    assert len(stderr.splitlines()) == 1


# --- words ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("typed, meant", [("--quees=2", "--queues"), ("--queue-sise=64", "--queue-size"),
                                          ("--readonly", "--read-only"), ("--thread=2", "--threads"),
                                          ("--blocksize=512", "--block-size"), ("--derect", "--direct"),
                                          ("--write-cash=on", "--write-cache"), ("--log-levl=debug", "--log-level")])
def test_unknown_option_names_the_nearest(cli, sock, disk, typed, meant):
    said(cli("serve", sock, "virtio-blk", disk, typed), USAGE, typed.split("=")[0], meant)


@pytest.mark.parametrize("typed", ["--zzzzzzzz", "-x", "---queues=1", "--=1"])
def test_option_that_is_like_nothing(cli, sock, disk, typed):
    code, stderr = cli("serve", sock, "virtio-blk", disk, typed)
    assert code == USAGE
    assert len(stderr.splitlines()) == 1 and stderr.startswith("sidecard: ")


@pytest.mark.parametrize("typed, meant", [("virtio-blck", "virtio-blk"), ("virtioblk", "virtio-blk"),
                                          ("virtio-bkl", "virtio-blk"), ("Virtio-Blk", "virtio-blk")])
def test_unknown_device_names_the_nearest(cli, sock, disk, typed, meant):
    said(cli("serve", sock, typed, disk), USAGE, typed, meant)


def test_device_that_is_like_nothing_says_what_there_is(cli, sock, disk):
    said(cli("serve", sock, "zzz", disk), USAGE, "zzz", "virtio-blk")


@pytest.mark.parametrize("word", ["vhost-usr", "vfio-usr", "x"])
def test_unknown_transport_is_not_taken_for_a_path(cli, workdir, disk, word):
    said(cli("serve", f"{word}:vm0.sock", "virtio-blk", disk), USAGE, word, "vfio-user:", "./")


@pytest.mark.parametrize("socket, said_of_it", [("vhost-user:", "path is missing"), ("vhost-user:fd:0", "fd:0"),
                                                ("vm0.sock", "vhost-user:")])
def test_connecting_takes_the_path_of_a_vhost_user_front_end(cli, workdir, disk, socket, said_of_it):
    said(cli("serve", socket, "virtio-blk", disk, "--connect"), USAGE, said_of_it)


@pytest.mark.parametrize("options", [("--socket-mode=0660",), ("--socket-owner=root",)])
@pytest.mark.parametrize("how", [("fd:0",), ("vhost-user:{}", "--connect")])
def test_socket_of_somebody_else_gets_neither_mode_nor_owner(cli, sock, disk, how, options):
    name = options[0][2:].partition("=")[0]
    said(cli("serve", how[0].format(sock), "virtio-blk", disk, *how[1:], *options), USAGE, name, how[0].format(sock), "leave it out")


def test_configuration_file_without_a_path(cli):
    said(cli("serve", "--config="), USAGE, "--config=", "path is missing")


def test_connecting_to_a_path_that_no_socket_can_have_is_refused_at_once(cli, workdir, disk):
    code, stderr = cli("serve", f"vhost-user:{workdir.path}/{'x' * 120}", "virtio-blk", disk, "--connect")
    assert code != 0 and "the limit is 107" in stderr and "trying again" not in stderr


@pytest.mark.parametrize("typed, meant", [("serv", "serve"), ("bnch", "bench"), ("server", "serve")])
def test_unknown_command_names_the_nearest(cli, typed, meant):
    said(cli(typed), USAGE, typed, meant)


@pytest.mark.parametrize("arguments", [("serve",), ("serve", "s"), ("serve", "s", "virtio-blk"),
                                       ("serve", "s", "virtio-blk", "ram:1M", "more")])
def test_arguments_that_are_missing_or_too_many(cli, workdir, arguments):
    code, stderr = cli(*arguments)
    assert code == USAGE
    assert stderr.startswith("sidecard: ")
    assert len(stderr.splitlines()) <= 3


def test_option_without_its_dashes_is_told_what_options_look_like(cli, sock, disk):
    said(cli("serve", sock, "virtio-blk", disk, "queues=2"), USAGE, "queues=2", "two dashes")


def test_option_of_another_device_is_told_whose_it_is(cli, sock, disk):
    said(cli("serve", sock, "nvme", disk, "--packed=on"), USAGE, "--packed", "virtio-blk", "leave it out")


@pytest.mark.parametrize("command", ["bench", "inspect", "check"])
@pytest.mark.parametrize("what", ["no such socket", "is not a socket", "nobody listens"])
def test_socket_where_nobody_is_is_told_at_once(cli, workdir, command, what):
    """However long an answer may take."""
    path = workdir.path / "vm0.sock"
    if what == "is not a socket":
        path.touch()
    elif what == "nobody listens":
        socket.socket(socket.AF_UNIX).bind(str(path))
    code, stderr = cli(command, path, "--timeout=3600")
    said((code, stderr), FAILED, what)
    assert stderr.count(str(path)) == 1, f"the path is told twice: {stderr}"


def test_disk_of_the_other_protocol_is_told_how_to_reach_it(serve, cli):
    server = serve("ram:16M", transport="vhost-user")
    said(cli("bench", server.path), FAILED, f"vhost-user:{server.path}")


def test_no_command_at_all_is_usage(cli):
    code, stderr = cli()
    assert code == USAGE and stderr.startswith("sidecard: ") and ("--help" in stderr or "serve" in stderr)


def test_help_and_version_succeed(cli):
    for word in ("--help", "--version"):
        code, stderr = cli(word)
        assert (code, stderr) == (0, "")
    code, stderr = cli("serve", "--help")
    assert (code, stderr) == (0, "")


# --- sizes and counts -----------------------------------------------------------------------------------------

BAD_VALUES = [
    ("--queues", "0"), ("--queues", "-1"), ("--queues", "1025"), ("--queues", "four"), ("--queues", ""),
    ("--queues", "4x"), ("--queues", "99999999999999999999"), ("--queues", "1.5"), ("--queues", " 4"),
    ("--queue-size", "0"), ("--queue-size", "3"), ("--queue-size", "100"), ("--queue-size", "65536"),
    ("--queue-size", "32769"), ("--queue-size", "abc"),
    ("--threads", "0"), ("--threads", "-2"), ("--threads", "100000"), ("--threads", "two"),
    ("--block-size", "0"), ("--block-size", "1"), ("--block-size", "1024"), ("--block-size", "513"),
    ("--block-size", "8192"), ("--block-size", "x"),
    ("--seg-max", "0"), ("--seg-max", "-1"), ("--seg-max", "many"), ("--seg-max", "4294967296"),
    ("--size-max", "0"), ("--size-max", "-1"), ("--size-max", "x"),
    ("--write-cache", "maybe"), ("--write-cache", ""), ("--write-cache", "2"),
    ("--log-level", "loud"), ("--log-level", ""),
    ("--poll", "sometimes"), ("--poll", ""), ("--poll-max-us", "0"), ("--poll-max-us", "10001"), ("--poll-max-us", "1ms"),
    ("--socket-mode", "0999"), ("--socket-mode", "rw"), ("--socket-mode", "77777"), ("--socket-mode", ""),
    ("--socket-owner", "no-such-user-here"), ("--socket-owner", "root:no-such-group-here"), ("--socket-owner", ""),
    ("--ready-fd", "x"), ("--ready-fd", "-1"), ("--ready-fd", "917"),
    ("--serial", "t" * 21),
]


@pytest.mark.parametrize("option, value", BAD_VALUES)
def test_option_with_a_bad_value_names_both(cli, sock, disk, option, value):
    code, stderr = cli("serve", sock, "virtio-blk", disk, f"{option}={value}")
    lines = stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("sidecard: "), stderr
    assert option in stderr, stderr
    assert value.strip() in stderr, stderr
    assert code in ((USAGE, FAILED) if option in ("--socket-owner", "--ready-fd") else (USAGE,)), stderr


@pytest.mark.parametrize("option", ["--queues", "--serial", "--block-size", "--socket-mode"])
def test_option_without_its_value(cli, sock, disk, option):
    said(cli("serve", sock, "virtio-blk", disk, option), USAGE, option)


@pytest.mark.parametrize("mode", ["never", "always"])
def test_a_window_for_queues_that_have_none(cli, sock, disk, mode):
    said(cli("serve", sock, "virtio-blk", disk, "--poll-max-us=20", f"--poll={mode}"), USAGE, "--poll-max-us=20", "--poll=adaptive")


@pytest.mark.parametrize("option", ["--read-only=maybe", "--direct=perhaps", "--raw=2"])
def test_switch_with_a_value_that_is_none(cli, sock, disk, option):
    said(cli("serve", sock, "virtio-blk", disk, option), USAGE, option.split("=")[0])


@pytest.mark.parametrize("backend", [
    "ram:", "ram:0", "ram:-1", "ram:x", "ram:1Q", "ram:1MB2", "ram:99999999999999999999", "ram:16E", "ram:1000",
    "null:", "null:0", "null:12x", "null:1000", "null:16777216T"])
def test_size_of_a_backend_that_is_none(cli, sock, backend):
    code, stderr = cli("serve", sock, "virtio-blk", backend)
    lines = stderr.splitlines()
    assert code in (USAGE, FAILED) and len(lines) == 1 and lines[0].startswith("sidecard: "), stderr
    assert backend in stderr or backend.split(":")[1] in stderr


@pytest.mark.parametrize("backend", ["null", "ram"])
def test_backend_without_its_size_is_not_taken_for_a_file(cli, sock, backend, workdir, monkeypatch):
    monkeypatch.chdir(workdir.path)
    said(cli("serve", sock, "virtio-blk", backend), USAGE, f"{backend}:10G")
    workdir.file(backend)
    said(cli("serve", sock, "virtio-blk", backend), FAILED, f"{backend} is empty")


@pytest.mark.parametrize("backend", ["nul:16M", "rma:16M", "fiel:/x", "nbd:/x"])
def test_backend_that_is_not_there(cli, sock, backend):
    code, stderr = cli("serve", sock, "virtio-blk", backend)
    lines = stderr.splitlines()
    assert code in (USAGE, FAILED) and len(lines) == 1, stderr
    assert backend in stderr or backend.split(":")[0] in stderr


def test_good_values_at_the_edges_are_taken(serve):
    server = serve("null:1G", "--queues=64", "--queue-size=32768", "--threads=4", "--block-size=4096", "--serial=",
                   "--write-cache=off", "--seg-max=1", "--log-level=debug", "--socket-mode=0600", "--poll=adaptive", "--poll-max-us=10000")
    server.guest(queue_size=64).read(0, 8)


def test_stderr_that_is_closed_or_full_does_not_stop_the_server(serve):
    with open("/dev/full", "wb") as full:
        server = serve("ram:16M", "--log-level=debug", stderr_to=full)
        server.guest().assert_works()
        server.signal(signal.SIGHUP)
