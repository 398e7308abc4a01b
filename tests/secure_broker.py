"""A real Mosquitto with the production settings, as a fleet's operator would run it, in a private folder.

`mosquitto.conf` is taken as it stands at the top level; only its paths and ports are others. Another
Mosquitto than the machine's is named by FEDFLEET_TEST_MOSQUITTO in the environment.
"""

import contextlib
import os
import re
import shutil
import signal
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
        revoked: serial numbers that the registrar has taken back.
    """

    fleet: str
    folder: Path
    root: FleetAuthority = field(init=False)
    registrar: FleetAuthority = field(init=False)
    revoked: dict[int, UnixTime] = field(default_factory=dict)
    lists: int = 0

    def __post_init__(self) -> None:
        began = UnixTime(CLOCK.unix() - HOUR)
        self.root = FleetAuthority.create(self.fleet, began, ENTROPY.bytes)
        issuer = self.root.issue("registrar", Role.REGISTRAR)
        self.registrar = FleetAuthority.of_registrar(issuer, began, ENTROPY.bytes)
        self._keep(issuer)

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
    changes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, office: Office, *names: str, changes: tuple[tuple[str, str], ...] = ()) -> "SecureBroker":
        """A broker for a fleet; `names` are those of more clients other than devices."""
        try:
            program = _program()
        except BrokerMissingError as missing:
            pytest.skip(str(missing))
        broker = cls(program, BrokerAddress(HOST, 0, tls=True), HOST)
        broker.office, broker.names, broker.changes = office, names, changes
        return broker

    @property
    def files(self) -> Path:
        """What would be /etc/fedfleet."""
        return self._home / "etc"

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
        for old, new in self.changes:
            assert old in text
            text = text.replace(old, new)
        own = f"""
            persistence_location {self._home / "state"}/
            pid_file {self._home / "pid"}
            log_dest stderr
            {"user root" if os.geteuid() == 0 else ""}
        """
        settings = self._home / "mosquitto.conf"
        settings.write_text(text + "\n".join(line.strip() for line in own.splitlines()) + "\n")
        return ["-c", str(settings)]

    def _write_files(self) -> None:
        if self.files.exists():
            return
        self.files.mkdir()
        server = self.office.identity("broker", Role.BROKER, addresses=[HOST, "localhost"])
        assert server.folder is not None
        shutil.copy(server.folder / "fleet.crt", self.files / "ca.crt")
        shutil.copy(server.folder / "broker.crt", self.files / "broker.crt")
        shutil.copy(server.folder / "broker.key", self.files / "broker.key")
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
