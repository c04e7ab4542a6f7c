# SPDX-License-Identifier: BSD-3-Clause
"""Many cards in one process: `sidecard serve --config`."""

import json
import os
import socket

from .nvme import NvmeGuest
from .server import Server
from .vhost import VhostGuest
from .vm import Guest


class Cards(Server):
    """One process with a configuration file. cards: their entries, with a path that ends in a name of its own for each socket; further
    keys of the file by name."""

    def __init__(self, workdir, cards, *options, **process):
        backend = cards[0].get("backend") or cards[0]["namespaces"][0]["backend"]
        super().__init__(workdir, backend, *options, socket=self.path_of(cards[0]), transport=self.transport_of(cards[0]),
                         device=cards[0]["device"])
        self.cards = cards
        self.config = workdir.path / f"config{Server.count}.json"
        self.write(cards, **process)

    def write(self, cards, **process):
        self.config.write_text(json.dumps({**{name.replace("_", "-"): value for name, value in process.items()}, "cards": cards}))

    def what(self):
        return [f"--config={self.config}"]

    @staticmethod
    def transport_of(card):
        return "vhost-user" if str(card["socket"]).startswith("vhost-user:") else "vfio-user"

    @staticmethod
    def path_of(card):
        return str(card["socket"]).removeprefix("vhost-user:").removeprefix("vfio-user:")

    def guest_of(self, number, **options):
        """A guest with card `number`."""
        card = self.cards[number]
        kind = NvmeGuest if card["device"] == "nvme" else VhostGuest if self.transport_of(card) == "vhost-user" else Guest
        guest = kind.boot(self.path_of(card), **options)
        self.handed_out.append(guest)
        return guest

    def listens(self, number):
        """Whether somebody listens at the socket of card `number`."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.path_of(self.cards[number])) == 0

    def finish(self):
        super().finish()
        left = [self.path_of(card) for card in self.cards if os.path.lexists(self.path_of(card))]
        assert not left, f"socket files are left behind: {left[:5]}"
