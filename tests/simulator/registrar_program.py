"""The registrar of a simulation: its revocation lists, and a program that publishes them."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding

from broker.transport import TransportError, Will
from protocol.certificates import FleetTrust
from protocol.ids import UnixTime
from protocol.revocations import encode_revocations
from protocol.topics import Topics
from registrar.authority import FleetAuthority
from simulator.actors import FLEET, NOW, Life, cast

SAY_AGAIN = 5.0
"""Virtual seconds: a list that a broker forgot without saying so is published again."""

_FOR_EVER = UnixTime(NOW + 10.0**10)


@dataclass
class Office:
    """Whose certificates were taken back so far; outlives the lives of the program."""

    revoked: list[str] = field(default_factory=list)

    @property
    def message(self) -> bytes:
        """The newest list, as it is published; it is number 1 when nobody was revoked."""
        return revocation_list(tuple(self.revoked))


@cache
def revocation_list(names: tuple[str, ...]) -> bytes:
    """The list that takes these devices' certificates back."""
    trust = FleetTrust(cast().registrar.root, cast().registrar.certificate)
    serials = [trust.read(cast().devices[name].certificate).serial for name in names]
    registrar = FleetAuthority.of_registrar(cast().registrar, NOW, bytes)
    made = registrar.revocation_list(1 + len(names), dict.fromkeys(serials, NOW), _FOR_EVER)
    return encode_revocations(cast().registrar.certificate, made.public_bytes(Encoding.DER))


async def run_registrar(office: Office, life: Life) -> None:
    """Publish the newest list, again and again."""
    topic = Topics(FLEET).revocations
    async with life.connect("registrar", Will(f"{topic}/lost", b"")) as transport:
        while True:
            with contextlib.suppress(TransportError):
                await transport.publish(topic, office.message, retain=True)
            await asyncio.sleep(SAY_AGAIN)
