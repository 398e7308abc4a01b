"""A real Mosquitto with the production settings, as a fleet's operator would run it, in a private folder.

`mosquitto.conf` is taken as it stands at the top level; only its paths and ports are others. Another
Mosquitto than the machine's is named by FEDFLEET_TEST_MOSQUITTO in the environment.
"""

import asyncio
import contextlib
import os
import re
import select
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.access import mosquitto_rules
from broker.address import BrokerAddress
from broker.embedded import BrokerMissingError, EmbeddedBroker, _find, _Program
from broker.mqtt import MqttSettings, MqttTransport
from protocol.certificates import Role
from protocol.ids import UnixTime
from protocol.topics import Topics
from registrar.authority import FleetAuthority
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.identity import Identity, client_tls, load_identity, write_identity

PRODUCTION = Path(__file__).parents[1] / "mosquitto.conf"
PROGRAM = "FEDFLEET_TEST_MOSQUITTO"

CLOCK = SystemClock()
ENTROPY = SystemEntropy()
HOUR = 3600.0
HOST = "127.0.0.1"


@dataclass
class Office:
    """Everybody who signs something in a fleet, and the folder where identities go.

    Attributes:
        fleet: its name.
        folder: for identities, one folder each.
        root: the fleet's root; `registrar` issues for devices and claims.
        issuer: the registrar's identity.
        revoked: serial numbers that the registrar has taken back.
    """

    fleet: str
    folder: Path
    root: FleetAuthority = field(init=False)
    registrar: FleetAuthority = field(init=False)
    issuer: Identity = field(init=False)
    revoked: dict[int, UnixTime] = field(default_factory=dict)
    lists: int = 0

    def __post_init__(self) -> None:
        began = UnixTime(CLOCK.unix() - HOUR)
        self.root = FleetAuthority.create(self.fleet, began, ENTROPY.bytes)
        self.issuer = self._keep(self.root.issue("registrar", Role.REGISTRAR))
        self.registrar = FleetAuthority.of_registrar(self.issuer, began, ENTROPY.bytes)

    def identity(self, name: str, role: Role = Role.DEVICE, **more: Any) -> Identity:
        """Issue and write an identity; a second call issues another one of that name."""
        by = self.registrar if role in {Role.DEVICE, Role.CLAIM} else self.root
        return self._keep(by.issue(name, role, **more))

    def _keep(self, identity: Identity) -> Identity:
        folder = self.folder / f"{identity.name}-{ENTROPY.bytes(4).hex()}"
        write_identity(folder, identity)
        return load_identity(folder)

    def revoke(self, identity: Identity) -> None:
        """Put an identity on the next lists."""
        serial = x509.load_der_x509_certificate(identity.certificate).serial_number
        self.revoked[serial] = CLOCK.unix()

    def write_lists(self, file: Path) -> None:
        """Both issuers' lists, as the broker wants them: one file, PEM."""
        self.lists += 1
        expires = UnixTime(CLOCK.unix() + HOUR)
        lists = [
            self.root.revocation_list(1, {}, expires),
            self.registrar.revocation_list(self.lists, self.revoked, expires),
        ]
        file.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in lists))


class SecureBroker(EmbeddedBroker):
    """The production settings with the ports and paths of a test; entered like any embedded broker."""

    office: Office
    names: tuple[str, ...] = ()
    server: Identity

    @classmethod
    def of(cls, office: Office, *names: str, server: Identity | None = None) -> "SecureBroker":
        """A broker for a fleet.

        Args:
            office: of the fleet.
            names: of more clients other than devices.
            server: what the broker shows; None is a certificate as it should be.
        """
        try:
            program = _program()
        except BrokerMissingError as missing:
            pytest.skip(str(missing))
        broker = cls(program, BrokerAddress(HOST, 0, tls=True), HOST)
        broker.office, broker.names = office, names
        broker.server = server or office.identity("broker", Role.BROKER, addresses=[HOST, "localhost"])
        return broker

    @property
    def files(self) -> Path:
        """What would be /etc/fedfleet."""
        return self._home / "etc"

    @property
    def state(self) -> Path:
        """Where the broker saves."""
        return self._home / "state"

    async def restart_after_kill(self) -> None:
        """As after kill -9: what was saved is what there is."""
        await self._stop(signal.SIGKILL)
        await self._launch()

    @property
    def settings_file(self) -> Path:
        """Ours, as in /etc/mosquitto/conf.d."""
        return self._home / "conf.d" / "fedfleet.conf"

    def reload(self) -> None:
        """Have the broker read its rules and revocation lists again."""
        os.kill(self.pid, signal.SIGHUP)

    def log(self) -> str:
        """What the broker has written."""
        return self._log()

    def _mosquitto(self) -> list[str]:
        self._write_files()
        text = PRODUCTION.read_text().replace("/etc/fedfleet/", f"{self.files}/")
        text = text.replace("listener 8883", f"listener {self.address.port} {HOST}")
        # The monitoring listener takes any port that is free: Mosquitto has no word for that, so it goes.
        text = re.sub(r"listener 8884 .*?(?=# ---)", "", text, flags=re.DOTALL)
        own = [
            f"pid_file {self._home / 'pid'}",
            f"persistence_location {self.state}/",
            "log_dest stderr",
            # It would become the user "mosquitto", who may not read this folder.
            *(["user root"] if os.geteuid() == 0 else []),
            f"include_dir {self._home / 'conf.d'}",
        ]
        # As on Debian: its own file, and ours in a folder that it includes.
        self.settings_file.parent.mkdir(exist_ok=True)
        self.settings_file.write_text(text)
        settings = self._home / "mosquitto.conf"
        settings.write_text("\n".join(own) + "\n")
        return ["-c", str(settings)]

    def _write_files(self) -> None:
        if self.files.exists():
            return
        self.files.mkdir()
        shown = self.server.folder or Path()
        shutil.copy(shown / "fleet.crt", self.files / "fleet.crt")
        shutil.copy(shown / f"{self.server.name}.crt", self.files / "broker.crt")
        shutil.copy(shown / f"{self.server.name}.key", self.files / "broker.key")
        (self.files / "acl").write_text(mosquitto_rules(Topics(self.office.fleet), self.names))
        self.office.write_lists(self.files / "revoked.crl")


def _program() -> _Program:
    named = os.environ.get(PROGRAM)
    return _Program("mosquitto", named) if named else _find("mosquitto")


def transport(
    address: BrokerAddress,
    identity: Identity,
    *,
    client_id: str | None = None,
    tls: ssl.SSLContext | None = None,
    **more: Any,
) -> MqttTransport:
    """A client that shows this identity's certificate and comes back fast."""
    settings = MqttSettings(
        (address,), client_id or identity.name, clean=True, tls=tls or client_tls(identity, None)
    )
    return MqttTransport(replace(settings, **more), sleep=CLOCK.sleep, uniform=lambda: 0.05)


@contextlib.asynccontextmanager
async def secure_broker(folder: Path, *names: str, fleet: str = "f") -> AsyncIterator[SecureBroker]:
    """A fleet's office and its broker, running."""
    async with SecureBroker.of(Office(fleet, folder / "identities"), *names) as broker:
        yield broker


# A client of a few bytes, for what a well-behaved one would not do.

ACCEPTED = b"\x20\x02\x00\x00"
"""CONNACK of MQTT 3.1.1: no session, accepted (section 3.2)."""


def connect_packet(client_id: str) -> bytes:
    """CONNECT of MQTT 3.1.1, clean session, keepalive of a minute (section 3.1)."""
    body = b"\x00\x04MQTT\x04\x02\x00\x3c" + len(client_id).to_bytes(2) + client_id.encode()
    return bytes([0x10, len(body)]) + body


async def knock(broker: SecureBroker, context: ssl.SSLContext | None, client_id: str = "d1") -> str:
    """Try to connect: "accepted", or why it was not: the TLS alert, or "closed" without one."""
    return await asyncio.to_thread(_knock, broker.address.port, context, client_id)


def _knock(port: int, context: ssl.SSLContext | None, client_id: str) -> str:
    plain = socket.create_connection((HOST, port), timeout=30)
    try:
        with context.wrap_socket(plain, server_hostname=HOST) if context else plain as door:
            if isinstance(door, ssl.SSLSocket):
                _hear_the_verdict(door)
            door.sendall(connect_packet(client_id))
            return "accepted" if door.recv(4) == ACCEPTED else "closed"
    except ssl.SSLError as error:
        return error.reason
    except ConnectionError:
        return "closed"


def _hear_the_verdict(door: ssl.SSLSocket) -> None:
    """A client of TLS 1.3 is done before its certificate was looked at: then tickets come, or an alert."""
    select.select([door], [], [], 30)
    door.settimeout(0)
    with contextlib.suppress(ssl.SSLWantReadError):
        door.recv(1)
    door.settimeout(30)


def bare_context(broker: SecureBroker) -> ssl.SSLContext:
    """Trusts the broker, and shows nothing."""
    context = ssl.create_default_context(cafile=str(broker.files / "fleet.crt"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
