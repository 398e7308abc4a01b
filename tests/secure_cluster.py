"""Three real NATS nodes with the generated configuration, and a fleet of real processes spread over them."""

import itertools
import os
import shutil
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
from secure_broker import HOST, Office
from secure_fleet import SecureFleet

from broker.address import BrokerAddress
from broker.embedded import BrokerMissingError, EmbeddedBroker, _find
from broker.nats import USERS_FILE, NatsNode, nats_node, nats_users
from protocol.certificates import Role
from protocol.topics import Topics

NODES = ("n1", "n2", "n3")
PASSWORD = "only-nodes-know"


class SecureNode(EmbeddedBroker):
    """One node; its ports are chosen before, because the others must know them."""

    office: Office
    node: NatsNode
    users: Sequence[str]

    @classmethod
    def of(cls, office: Office, node: NatsNode, users: Sequence[str]) -> Self:
        """A node for a fleet; `node.state` and `node.files` are chosen when it starts."""
        try:
            program = _find("nats")
        except BrokerMissingError as missing:
            pytest.skip(str(missing))
        port = int(node.listen.rpartition(":")[2])
        broker = cls(program, BrokerAddress(HOST, port, tls=True), HOST)
        broker.office, broker.node, broker.users = office, node, users
        return broker

    def kill(self) -> None:
        """As the kernel does: no goodbye."""
        os.kill(self.pid, signal.SIGKILL)

    def _nats(self) -> list[str]:
        home = self._home
        server = self.office.identity("broker", Role.BROKER, addresses=[HOST])
        folder = server.folder or Path()
        shutil.copy(folder / "fleet.crt", home / "fleet.crt")
        shutil.copy(folder / "broker.crt", home / "broker.crt")
        shutil.copy(folder / "broker.key", home / "broker.key")
        (home / USERS_FILE).write_text(nats_users(Topics(self.office.fleet), self.users, generation=1))
        settings = home / "node.conf"
        settings.write_text(nats_node(replace(self.node, state=home / "state", files=home)))
        return ["-c", str(settings)]


def nodes(office: Office, users: Sequence[str]) -> list[SecureNode]:
    """Three nodes that know each other, not entered yet."""
    routes = [f"{HOST}:{port}" for port in _free_ports(len(NODES))]
    listen = [f"{HOST}:{port}" for port in _free_ports(len(NODES))]
    return [
        SecureNode.of(
            office,
            NatsNode(name, mqtt, own, tuple(one for one in routes if one != own), PASSWORD),
            users,
        )
        for name, mqtt, own in zip(NODES, listen, routes, strict=True)
    ]


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class ClusterFleet(SecureFleet):
    """Its user is at the first node; programs begin at the second, the third, the first, and so on.

    Args:
        folder: an empty one.
        plan: see `plan_text`.
        devices: names that the nodes know.
    """

    def __init__(self, folder: Path, plan: str, devices: Sequence[str]) -> None:
        super().__init__(folder, plan)
        users = [*devices, "coordinator", "registrar", "watch-user"]
        self.nodes = nodes(self.office, users)
        self._first: Iterator[int] = itertools.cycle((1, 2, 0))

    def make_broker(self) -> EmbeddedBroker:
        """The first node."""
        return self.nodes[0]

    async def __aenter__(self) -> Self:
        for node in self.nodes[1:]:
            await self._stack.enter_async_context(node)
        return await super().__aenter__()

    def broker_settings(self) -> dict[str, str]:
        """All nodes, each program beginning with another."""
        first = next(self._first)
        order = self.nodes[first:] + self.nodes[:first]
        return {"URLS": ",".join(str(node.address) for node in order)}
