// SPDX-License-Identifier: BSD-3-Clause
// What the card and its drivers agree on.
#pragma once

enum { CARD_VENDOR = 0x1234, CARD_DEVICE = 0xca4d };

// BAR 0 has registers in its first page, and in its second the card's memory. Registers are 4 bytes each, numbered in their order.
enum { CARD_PAGE = 4096, CARD_BAR_SIZE = 8192 };
enum card_register {
    CARD_STATUS,       // enum card_status
    CARD_ADDRESS,      // in guest memory: the low half
    CARD_ADDRESS_HIGH,
    CARD_SIZE,         // bytes, at most CARD_PAGE
    CARD_COMMAND,      // enum card_command: writing it starts the engine
    CARD_REGISTERS,
};
enum card_command {
    CARD_LOAD = 1,     // from guest memory to the card's
    CARD_STORE = 2,    // from the card's memory to the guest's
    CARD_CAPITALS = 3, // turns the text in the card's memory into capitals
};
// MSI-X vector 0 is raised when the engine is done or has failed.
enum card_status { CARD_IDLE, CARD_BUSY, CARD_DONE, CARD_FAILED };
