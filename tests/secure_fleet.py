"""A whole fleet of real processes on a broker with the production settings: certificates for everybody."""

from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from real_fleet import CLOCK, FLEET, RealFleet
from secure_broker import HOUR, Office, SecureBroker, transport

from broker.embedded import EmbeddedBroker
from broker.mqtt import MqttTransport
from protocol.certificates import Role
from protocol.ids import UnixTime
from protocol.revocations import encode_revocations
from runtime.identity import Identity

OLD = "coordinator-old"
"""Another coordinator that the broker knows."""


class SecureFleet(RealFleet):
    """Devices' certificates are the registrar's, under its list; the fleet's user is a watcher.

    Args:
        folder: an empty one.
        plan: see `plan_text`.
    """

    def __init__(self, folder: Path, plan: str = "") -> None:
        super().__init__(folder, "mosquitto", plan)
        self.office = Office(FLEET, folder / "identities")

    def make_broker(self) -> EmbeddedBroker:
        """With the rules of `fedfleet access`."""
        return SecureBroker.of(self.office, "watch-user", OLD)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.publish_list(1)
        return self

    def connect(self, name: str) -> MqttTransport:
        """As a watcher."""
        return transport(self.broker.address, self.office.identity(f"watch-{name}", Role.WATCH))

    def issue(self, name: str, role: Role) -> Identity:
        """By whose office it is."""
        return self.office.identity(name, role, generation=1 if role is Role.COORDINATOR else 0)

    def broker_settings(self) -> dict[str, str]:
        """No login: the certificate is one."""
        return {"URLS": str(self.broker.address)}

    async def publish_list(self, sequence: int) -> None:
        """The registrar's list, retained."""
        office = self.office
        made = office.registrar.revocation_list(sequence, office.revoked, UnixTime(CLOCK.unix() + HOUR))
        assert isinstance(office.registrar.registrar, x509.Certificate)
        message = encode_revocations(
            office.registrar.registrar.public_bytes(Encoding.DER), made.public_bytes(Encoding.DER)
        )
        async with transport(self.broker.address, office.issuer) as registrar:
            await registrar.publish(self.topics.revocations, message, retain=True)
