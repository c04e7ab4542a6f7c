# SPDX-License-Identifier: BSD-3-Clause
"""What sidecard inspect decodes: configuration spaces, configurations, what NVMe controllers say."""

from .numbers import u8, u16, u32, u64

CONFIG, VIRTIO, REGISTERS, CONTROLLER, NAMESPACE, DESCRIPTORS, NAMES = range(7)


def space(capabilities, extended=(), *, vendor=0x8086, header_type=0):
    """Capabilities are (place, bytes behind the head, its id); each leads to the next."""
    config = bytearray(4095)
    config[0:16] = u16(vendor) + u16(0x1042) + u16(7) + u16(0x10) + u32(0x02000003) + u8(16) + u8(0) + u8(header_type) + u8(0)
    config[16:40] = u32(0xf7400000) + u32(0xd001) + u32(0x2000000c) + u32(1) + u32(0) + u32(0)
    config[0x34] = capabilities[0][0] if capabilities else 0
    for index, (place, number, body) in enumerate(capabilities):
        following = capabilities[index + 1][0] if index + 1 < len(capabilities) else 0
        config[place:place + 2 + len(body)] = u8(number) + u8(following) + body
    for index, (place, number, body) in enumerate(extended):
        following = extended[index + 1][0] if index + 1 < len(extended) else 0
        config[place:place + 4 + len(body)] = u32(number | 1 << 16 | following << 20) + body
    return u8(CONFIG) + bytes(config)


POWER = (0x40, 0x01, bytes.fromhex("23c80b210000"))
MSI_64 = (0x50, 0x05, bytes.fromhex("81010000e0fe01000000410000000f00000005000000"))
MSI_32 = (0x50, 0x05, bytes.fromhex("09010000e0fe410000000f00000005000000"))
MSIX = (0x70, 0x11, bytes.fromhex("04c00320000003300000"))
EXPRESS = (0x80, 0x10, bytes.fromhex("0202c28c00101f281900125c42034000112000000000"))
VIRTIO_CAPS = [(0x90, 9, bytes.fromhex("10010400000000000000" "38000000")),
               (0xa0, 9, bytes.fromhex("14020400000000300000" "0010000004000000")),
               (0xc0, 9, bytes.fromhex("10080402000000000000" "38000000")), (0xd0, 9, bytes.fromhex("06dead"))]
EXTENDED = [(0x100, 1, u32(0x100000) * 6), (0x140, 3, u64(0x0123456789abcdef)), (0x150, 0xb, u32(0x10021234)), (0x180, 0x10, bytes(60)),
            (0x1c0, 0xe, u32(0x200)), (0x1d0, 0xf, u32(0x80000020)), (0x1e0, 0x18, u32(1)), (0x1f0, 0x1b, u32(1)), (0x200, 0x7777, b"")]


def inspect():
    seeds = {
        "function": space([POWER, MSI_64, MSIX, EXPRESS], EXTENDED),
        "function-msi-32": space([MSI_32, EXPRESS], [(0xffc - 4, 3, u32(1))]),
        "virtio": space([*VIRTIO_CAPS, EXPRESS], vendor=0x1af4),
        "bridge": space([POWER], header_type=1),
        "cardbus": space([POWER], header_type=2),
        "loop": space([POWER, (0x50, 9, b""), (0x40, 1, b"")]),
        "into-the-header": space([(0x3c, 9, b"")]),
        "extended-loop": space([EXPRESS], [(0x100, 3, b""), (0x200, 0xb, b""), (0x100, 3, b"")]),
        "absent": u8(CONFIG) + b"\xff" * 256,
        "cut": space([POWER, MSI_64, MSIX, EXPRESS])[:0x88],
        "registers": u8(REGISTERS) + u64(0x0240002028010fff) + u32(0x10400) + bytes(8) + u32(0x460001) + bytes(4) + u32(1) + bytes(32),
        "controller": u8(CONTROLLER) + bytes(4) + b"SERIAL".ljust(20) + b"Model\x1b[2J".ljust(40) + b"1.0".ljust(8) + bytes(5) + u8(5),
        "namespace": u8(NAMESPACE) + u64(1000) * 3 + bytes(2) + u8(1) + bytes(101) + u32(9 << 16) + u32(12 << 16 | 8),
        "descriptors": u8(DESCRIPTORS) + bytes.fromhex("01080000") + bytes(8) + bytes.fromhex("03100000") + bytes(range(16)),
        "names": u8(NAMES) + b"# ids\n8086  Intel\n\t1533  I210\n\t\t103c 0003  NIC\nC 01  Mass\n\t08  NVM\n\t\t02  NVMe\n",
    }
    for device in (0, 1, 2, 3, 5, 8, 16, 19, 20, 23, 24, 25, 26, 27, 41):
        seeds[f"virtio-{device}"] = u8(VIRTIO) + u64((1 << 64) - 1 if device else 1 << 6) + u8(device) + bytes(20) + u32(512) + bytes(80)
    return seeds
