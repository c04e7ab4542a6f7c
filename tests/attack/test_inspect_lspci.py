# SPDX-License-Identifier: BSD-3-Clause
"""`sidecard inspect` held against lspci, which decodes the dump that inspect makes (lspci -F): a decoder that nobody here wrote.

Configuration spaces are made from a seed: capabilities of the kinds that both know, in any order and place, with any bits in them."""

import json
import random
import re
import shutil
import struct
import subprocess

import pytest

from pylib.fake import FakeVfio
from pylib.server import run_command

pytestmark = pytest.mark.skipif(not shutil.which("lspci"), reason="lspci is not installed (the package is called pciutils)")

# Kinds of capabilities and their bytes.
SIZES = {0x01: 8, 0x05: 24, 0x09: 12, 0x10: 60, 0x11: 12, 0x0D: 8}
EXTENDED = {0x01: 64, 0x03: 12, 0x0B: 16, 0x10: 64, 0x0E: 8, 0x0F: 8, 0x18: 8, 0x1B: 8}


def made(seed):
    """A function with random registers and two lists that are in order."""
    rng = random.Random(seed)
    config = bytearray(rng.randbytes(64)) + bytearray(4096 - 64)
    config[0:4] = struct.pack("<HH", 0x8086, rng.choice([0x1533, 0x100E, 0xFFF0]))
    config[0x06] |= 0x10
    config[0x0E] = rng.choice([0, 0x80])
    config[0x3D] = rng.randrange(5)
    for bar in range(6):
        config[0x10 + 4 * bar:0x14 + 4 * bar] = struct.pack("<I", rng.choice([0, 0xF7400000, 0xD001, 0xE0000008]))
    kinds = rng.sample(sorted(SIZES), rng.randrange(1, len(SIZES) + 1))
    at, link = 0x40, 0x34
    for kind in kinds:
        config[link] = at | rng.randrange(4)  # two bits are reserved
        config[at:at + SIZES[kind]] = bytes([kind, 0]) + rng.randbytes(SIZES[kind] - 2)
        if kind == 0x09:
            config[at + 2] = 12
        if kind == 0x10:  # an endpoint of version 2
            config[at + 2] = 0x02
        link, at = at + 1, at + SIZES[kind] + 4 * rng.randrange(3)
    config[link] = 0
    if 0x10 in kinds:
        at, kinds = 0x100, rng.sample(sorted(EXTENDED), rng.randrange(1, 6))
        for index, kind in enumerate(kinds):
            following = at + EXTENDED[kind] + 4 * rng.randrange(9) if index + 1 < len(kinds) else 0
            config[at:at + EXTENDED[kind]] = struct.pack("<I", kind | 1 << 16 | following << 20) + rng.randbytes(EXTENDED[kind] - 4)
            at = following
    return bytes(config)


def lspci(dump):
    done = subprocess.run(["lspci", "-F", "/dev/stdin", "-vv"], input=dump, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def blocks(text):
    """lspci's words for each capability: {offset: text}."""
    parts = re.split(r"^\tCapabilities: \[([0-9a-f]+)(?: v\d+)?\] ", text, flags=re.MULTILINE)
    return {int(offset, 16): block for offset, block in zip(parts[1::2], parts[2::2])}


def plus(flag):
    return "+" if flag else "-"


def check_power(ours, theirs):
    assert f"Power Management version {ours['version']}" in theirs
    assert f"D1{plus(ours['d1'])} D2{plus(ours['d2'])}" in theirs
    pme = ours["pme_from"]
    assert "PME(" + ",".join(f"{name}{plus(pme[key])}" for name, key in (("D0", "d0"), ("D1", "d1"), ("D2", "d2"), ("D3hot", "d3hot"),
                                                                         ("D3cold", "d3cold"))) + ")" in theirs
    assert f"Status: {ours['state']} NoSoftRst{plus(ours['no_soft_reset'])} PME-Enable{plus(ours['pme_enabled'])}" in theirs


def check_msi(ours, theirs):
    assert f"Enable{plus(ours['enabled'])} Count={ours['vectors_enabled']}/{ours['vectors']} " \
           f"Maskable{plus(ours['maskable'])} 64bit{plus(ours['address_64'])}" in theirs
    assert f"Address: {ours['address'][2:]}  Data: {ours['data'][2:]}" in theirs
    if ours["maskable"]:
        assert f"Masking: {ours['masked'][2:]}  Pending: {ours['pending'][2:]}" in theirs


def check_msix(ours, theirs):
    assert f"Enable{plus(ours['enabled'])} Count={ours['vectors']} Masked{plus(ours['masked'])}" in theirs
    assert f"Vector table: BAR={ours['table']['bar']} offset={int(ours['table']['offset'], 0):08x}" in theirs
    assert f"PBA: BAR={ours['pending']['bar']} offset={int(ours['pending']['offset'], 0):08x}" in theirs


def check_express(ours, theirs):
    assert "Express (v2) Endpoint" in theirs and f"MSI {ours['interrupt_message']:02x}" in theirs
    can, control, status, link = ours["can"], ours["control"], ours["status"], ours["link"]
    assert re.search(rf"DevCap:\tMaxPayload {can['max_payload']} bytes, PhantFunc {(1 << can['phantom_functions']) - 1}", theirs)
    assert f"ExtTag{plus(can['extended_tag'])}" in theirs and f"FLReset{plus(can['function_reset'])}" in theirs
    assert f"DevCtl:\tCorrErr{plus(control['correctable_errors'])} NonFatalErr{plus(control['nonfatal_errors'])} " \
           f"FatalErr{plus(control['fatal_errors'])} UnsupReq{plus(control['unsupported_requests'])}" in theirs
    assert f"MaxPayload {control['max_payload']} bytes, MaxReadReq {control['max_read_request']} bytes" in theirs
    assert f"RlxdOrd{plus(control['relaxed_ordering'])} ExtTag{plus(control['extended_tag'])}" in theirs
    assert f"NoSnoop{plus(control['no_snoop'])}" in theirs
    assert f"DevSta:\tCorrErr{plus(status['correctable_error'])} NonFatalErr{plus(status['nonfatal_error'])} " \
           f"FatalErr{plus(status['fatal_error'])} UnsupReq{plus(status['unsupported_request'])} " \
           f"AuxPwr{plus(status['aux_power'])} TransPend{plus(status['transactions_pending'])}" in theirs
    assert f"LnkCap:\tPort #{link['port']}, " in theirs and f"Width x{link['width_max']}," in theirs
    if isinstance(link["speed"], str) and link["speed"] != "none":
        assert re.search(rf"LnkSta:\tSpeed {link['speed'].replace(' ', '')}.*, Width x{link['width']}\b", theirs)


def check_errors(ours, theirs):
    severity = int(ours["uncorrectable"]["severity"], 0)
    assert f"UESvrt:\tDLP{plus(severity & 1 << 4)}" in theirs
    assert f"CEMsk:\tRxErr{plus(int(ours['correctable']['mask'], 0) & 1)}" in theirs


def check_serial(ours, theirs):
    assert "Device Serial Number " + "-".join(re.findall("..", ours["serial"][2:])) in theirs


def check_vendor_extended(ours, theirs):
    assert f"ID={int(ours['vendor_id'], 0):04x} Rev={ours['revision']} Len={ours['length']:03x}" in theirs


def check_sriov(ours, theirs):
    assert f"Initial VFs: {ours['functions_initial']}, Total VFs: {ours['functions_total']}, Number of VFs: {ours['functions']}" in theirs
    assert f"VF offset: {ours['first']}, stride: {ours['stride']}, Device ID: {ours['device'][2:]}" in theirs
    assert f"Enable{plus(ours['enabled'])}" in theirs


def check_ari(ours, theirs):
    assert f"Next Function: {ours['next_function']}" in theirs


def check_ats(ours, theirs):
    # A depth of 0 is 32, in theirs.
    assert f"Enable{plus(ours['enabled'])}, Smallest Translation Unit: {ours['smallest_unit']:02x}" in theirs


def check_pasid(ours, theirs):
    assert f"Exec{plus(ours['can']['execute'])} Priv{plus(ours['can']['privileged'])}, Max PASID Width: {ours['width']:02x}" in theirs


CHECKS = {"power management": check_power, "MSI": check_msi, "MSI-X": check_msix, "PCI Express": check_express,
          "advanced error reporting": check_errors, "device serial number": check_serial, "SR-IOV": check_sriov,
          "alternative routing-ID": check_ari, "address translation": check_ats, "PASID": check_pasid}

COMMAND = (("io", "I/O"), ("memory", "Mem"), ("bus_master", "BusMaster"), ("special_cycles", "SpecCycle"), ("write_invalidate", "MemWINV"),
           ("vga_snoop", "VGASnoop"), ("parity_error", "ParErr"), ("stepping", "Stepping"), ("serr", "SERR"),
           ("fast_back_to_back", "FastB2B"), ("intx_disable", "DisINTx"))


def check_header(pci, text):
    assert "Control: " + " ".join(name + plus(pci["command"][key]) for key, name in COMMAND) in text
    status = pci["status"]
    assert f"Status: Cap{plus(status['capabilities'])} 66MHz{plus(status['66mhz'])}" in text
    if isinstance(status["devsel"], str):
        assert f"DEVSEL={status['devsel']}" in text
    assert f">TAbort{plus(status['signaled_target_abort'])} <TAbort{plus(status['received_target_abort'])} " \
           f"<MAbort{plus(status['received_master_abort'])} >SERR{plus(status['signaled_serr'])} " \
           f"<PERR{plus(status['detected_parity_error'])} INTx{plus(status['intx'])}" in text
    if pci["command"]["bus_master"]:
        assert f"Latency: {pci['latency_timer']}" in text
    if pci["interrupt"]["pin"] in tuple("ABCD"):
        assert f"Interrupt: pin {pci['interrupt']['pin']} routed to IRQ {pci['interrupt']['line']}" in text


def inspected(path, workdir, *options):
    status, out, err = run_command("inspect", path, *options, log_dir=workdir.path)
    assert status == 0, out + err
    return out


@pytest.mark.parametrize("seed", range(20))
def test_lspci_reads_the_same(workdir, seed):
    with FakeVfio(workdir.path / "fake", made(seed)) as server:
        found = json.loads(inspected(server.path, workdir, "--json"))
        text = lspci(inspected(server.path, workdir, "--hex"))
    pci, theirs = found["pci"], blocks(text)
    ours = {int(each["offset"], 0): each for each in pci["capabilities"] + pci.get("extended_capabilities", [])}
    assert list(ours) == list(theirs), text
    check_header(pci, text)
    for offset, each in ours.items():
        check = CHECKS.get(each.get("name"))
        if check:
            check(each, theirs[offset])
        if each["name"] == "vendor specific" and offset >= 0x100:
            check_vendor_extended(each, theirs[offset])


@pytest.mark.parametrize("device", ["virtio-blk", "nvme"])
def test_lspci_reads_our_own_cards(serve, workdir, device):
    server = serve("ram:16M", "--queues=3", device=device)
    found = json.loads(inspected(server.path, workdir, "--json"))["pci"]
    text = lspci(inspected(server.path, workdir, "--hex"))
    theirs = blocks(text)
    assert [int(each["offset"], 0) for each in found["capabilities"]] == list(theirs)
    check_header(found, text)
    for each in found["capabilities"]:
        block = theirs[int(each["offset"], 0)]
        CHECKS.get(each["name"], lambda *_: None)(each, block)
        if "bar_offset" in each:
            assert f"BAR={each['bar']} offset={int(each['bar_offset'], 0):08x} size={each['size']:08x}" in block
            assert "multiplier" not in each or f"multiplier={each['multiplier']:08x}" in block
    if "name" in found["vendor"]:
        assert found["vendor"]["name"] in text
