# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard inspect`: of servers of ours, held against what a client of another make reads there."""

import json
import struct

import pytest

from pylib import wire
from pylib.server import run_command
from pylib.vhost import P, Req

FAILED, USAGE = 1, 2


@pytest.fixture
def inspect(workdir):
    """inspect(socket, *options) runs the command; the JSON if that was asked for, else the text."""
    def run(socket, *options, status=0, timeout=60):
        ended, out, err = run_command("inspect", socket, *options, log_dir=workdir.path, timeout=timeout)
        assert ended == status, f"status {ended}: {out}{err}"
        if status == USAGE or not out:
            return err
        return json.loads(out) if "--json" in options else out
    return run


# --- vfio-user ------------------------------------------------------------------------------------------------

@pytest.fixture(params=["virtio-blk", "nvme"])
def device(request):
    return request.param


def test_regions_and_interrupts_are_those_that_a_client_is_told(serve, inspect, device):
    server = serve("ram:16M", "--queues=3", device=device)
    found = inspect(server.path, "--json")
    with server.client() as client:
        info = client.device_info()
        assert found["device"] == {"flags": ["reset", "pci"], "regions": info.num_regions, "irqs": info.num_irqs}
        assert [region["index"] for region in found["regions"]] == list(range(info.num_regions))
        for region in found["regions"]:
            told = client.region_info(region["index"])
            assert region["size"] == told.size
            assert ("mmap" in region["flags"]) == bool(told.flags & wire.REGION_MMAP)
            assert ("write" in region["flags"]) == bool(told.flags & wire.REGION_WRITABLE)
        for irq in found["irqs"]:
            assert irq["count"] == client.irq_info(irq["index"]).count
    assert found["connection"]["version"] == "0.0"
    assert found["connection"]["max_message_fds"] == wire.MAX_FDS
    assert found["problems"] == []


def test_the_configuration_space_is_the_one_that_a_client_reads(serve, inspect, device):
    server = serve("ram:16M", device=device)
    found = inspect(server.path, "--json", "--hex")
    with server.client() as client:
        config = client.read_region(wire.CONFIG, 0, 4096)
    assert bytes.fromhex(found["config_space"]) == config
    pci = found["pci"]
    assert int(pci["vendor"]["id"], 0) == struct.unpack_from("<H", config)[0]
    assert int(pci["device"]["id"], 0) == struct.unpack_from("<H", config, 2)[0]
    assert int(pci["class"]["id"], 0) == struct.unpack_from("<I", config, 8)[0] >> 8
    assert not any(pci["command"].values())
    offsets, at = [], config[0x34]
    while at:
        offsets.append((at, config[at]))
        at = config[at + 1]
    assert [(int(each["offset"], 0), int(each["id"], 0)) for each in pci["capabilities"]] == offsets
    msix = next(each for each in pci["capabilities"] if each["name"] == "MSI-X")
    assert msix["vectors"] == next(irq["count"] for irq in found["irqs"] if irq["name"] == "msix")


def test_a_virtio_disk_is_told_as_a_driver_sees_it(serve, inspect):
    server = serve("ram:16M", "--queues=5", "--queue-size=128", "--in-order=on")
    found = inspect(server.path, "--json")["virtio"]
    with server.guest() as guest:
        offered = guest.virtio.device_features()
        capacity, queues = guest.config.capacity, guest.config.num_queues
    assert (found["device"], found["device_number"], found["status"]) == ("blk", 2, [])
    assert int(found["features_value"], 0) == offered
    assert {"VERSION_1", "RING_PACKED", "IN_ORDER", "FLUSH", "MQ"} <= set(found["features"])
    assert len(found["features"]) == bin(offered).count("1")
    assert found["config"]["capacity_size"] == capacity * 512 == 16 << 20
    assert found["queues_count"] == found["config"]["num_queues"] == queues == 5
    assert [(queue["index"], queue["entries"], queue["enabled"]) for queue in found["queues"]] == [(i, 128, False) for i in range(5)]
    assert [int(queue["notify_offset"], 0) for queue in found["queues"]] == [4 * i for i in range(5)]


def test_an_nvme_controller_is_asked_and_left_as_it_was(serve, inspect, workdir):
    server = serve("ram:16M", "--queues=2", "--serial=INSPECTED", device="nvme")
    for _ in range(2):  # the second finds what the first has left
        found = inspect(server.path, "--json")
        nvme = found["nvme"]
        assert nvme["version"] == nvme["controller"]["version"] == "2.0.0"
        assert not nvme["config"]["enabled"] and not nvme["status"]["ready"] and nvme["status"]["shutdown"] == "none"
        assert nvme["controller"]["serial"] == "INSPECTED"
        assert nvme["controller"]["write_cache"]
        (namespace,) = nvme["namespaces"]
        assert (namespace["nsid"], namespace["block_size"], namespace["size"]) == (1, 512, 16 << 20)
        assert len(namespace["uuid"]) == 32
    with server.client() as client:
        assert client.read_uint(wire.BAR0, 0x14, 4) == 0 and client.read_uint(wire.BAR0, 0x1C, 4) == 0
        assert client.read_uint(wire.CONFIG, 4, 2) == 0


def test_passive_writes_no_register(serve, inspect, device):
    server = serve("ram:16M", "--log-level=debug", device=device)
    found = inspect(server.path, "--json", "--passive")
    if device == "nvme":
        assert "controller" not in found["nvme"] and "passive" in found["nvme"]["identify"]
        assert found["nvme"]["capabilities"]["nvm_command_set"]
    else:
        assert "features" not in found["virtio"] and "queues" not in found["virtio"]
        assert found["virtio"]["queues_count"] == 1 and found["virtio"]["config"]["capacity_size"] == 16 << 20


def test_mappable_areas_are_told(serve, inspect, device):
    server = serve("ram:16M", "--poll=always", device=device)
    mapped = [region for region in inspect(server.path, "--json")["regions"] if "mmap" in region["flags"]]
    assert len(mapped) == 1
    assert mapped[0]["capabilities"] == [1]
    (area,) = mapped[0]["areas"]
    assert 0 < area["size"] < mapped[0]["size"] and int(area["offset"], 0) % 4096 == 0


def test_the_text_has_what_the_json_has(serve, inspect, device):
    server = serve("ram:16M", "--queues=2", "--serial=INSPECTED", device=device)
    found, text = inspect(server.path, "--json"), inspect(server.path)
    assert text.startswith(f"{server.path}: vfio-user\n")

    def look(value):
        if isinstance(value, dict):
            for each in value.values():
                look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)
        elif isinstance(value, str):
            assert all(word in text for word in value.split()), value
        elif not isinstance(value, bool):
            assert str(value) in text
    look({key: value for key, value in found.items() if key != "format"})
    assert max(map(len, text.splitlines())) <= 140


# --- vhost-user -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("entries", [8, 256])
def test_a_back_end_is_told_as_a_front_end_sees_it(serve, inspect, entries):
    server = serve("ram:16M", "--queues=4", f"--queue-size={entries}", transport="vhost-user")
    found = inspect(f"vhost-user:{server.path}", "--json")
    with server.connect() as end:
        features, protocol = end.ask(Req.GET_FEATURES).value, end.ask(Req.GET_PROTOCOL_FEATURES).value
    assert found["problems"] == []
    assert int(found["virtio"]["features_value"], 0) == features
    assert int(found["connection"]["protocol_features_value"], 0) == protocol
    assert set(found["connection"]["protocol_features"]) == {bit.name for bit in P if protocol & bit}
    assert (found["virtio"]["device"], found["virtio"]["guessed"]) == ("blk", True)
    assert found["virtio"]["queues_count"] == found["virtio"]["config"]["num_queues"] == 4
    assert found["virtio"]["config"]["capacity_size"] == 16 << 20
    assert found["connection"]["memory_slots"] > 8
    assert found["connection"]["inflight"]["size"] > 8 * 16


# --- which of the two -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("transport", ["vfio-user", "vhost-user"])
def test_the_protocol_is_found_out(serve, inspect, transport):
    server = serve("ram:16M", transport=transport)
    assert inspect(server.path, "--json")["protocol"] == transport
    assert inspect(f"{transport}:{server.path}", "--json")["protocol"] == transport


@pytest.mark.parametrize("transport, wrong", [("vfio-user", "vhost-user"), ("vhost-user", "vfio-user")])
def test_the_wrong_protocol_is_an_error_of_one_line(serve, inspect, transport, wrong):
    server = serve("ram:16M", transport=transport)
    error = inspect(f"{wrong}:{server.path}", "--timeout=1", status=FAILED)
    assert error.startswith("sidecard: ") and len(error.splitlines()) == 1


@pytest.mark.parametrize("transport", ["vfio-user", "vhost-user"])
def test_somebody_else_who_is_connected_is_named_as_a_reason(serve, inspect, transport):
    server = serve("ram:16M", transport=transport)
    with server.client():
        error = inspect(server.path, "--timeout=1", status=FAILED)
        assert "another client may be connected" in error and f"type vhost-user:{server.path}" in error
        assert inspect(f"{transport}:{server.path}", "--timeout=1", status=FAILED)
    inspect(server.path, "--json")


# --- what is typed --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, said", [
    ([], "inspect needs a socket"),
    (["vfio-user:"], "the socket's path is empty"),
    (["a", "b"], "one argument too many: 'b'"),
    (["a", "--jsn"], "did you mean --json?"),
    (["a", "--device=disk"], "--device=disk: no virtio device has that name; type for example --device=blk"),
    (["vfio-user:a", "--device=blk"], "type vhost-user:a"),
    (["a", "--timeout=0"], "must be 1 to 3600"),
])
def test_mistakes_are_told_in_one_line(cli, arguments, said):
    status, error = cli("inspect", *arguments)
    assert status == USAGE and said in error and len(error.splitlines()) == 1


def test_a_socket_or_a_file_of_names_that_is_not_there(cli, workdir):
    status, error = cli("inspect", workdir.path / "none")
    assert status == FAILED and str(workdir.path / "none") in error
    status, error = cli("inspect", workdir.path / "none", f"--pci-ids={workdir.path}/no-ids")
    assert status == FAILED and f"--pci-ids={workdir.path}/no-ids: No such file" in error
