"""A fleet with a registrar, for tests: its root, the registrar's office, and devices that ask it."""

import random
import weakref
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.certificates import FleetTrust, Role
from protocol.enrolment import (
    CLAIM,
    Claim,
    Enrolled,
    EnrolmentRefused,
    EnrolmentRequest,
    FromRegistrar,
    write_csr,
)
from protocol.frames import Opened, open_enrolment_request, seal_frame
from protocol.ids import UnixTime
from registrar.authority import YEAR, FleetAuthority
from registrar.office import Office, Terms
from registrar.store import RegistrarStore
from runtime.identity import Identity

NOW = UnixTime(1_900_000_000.0)
DAY = 86_400.0


def key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(random.Random(seed).randbytes(32))


def claimant(claim: Claim) -> Identity:
    private = Ed25519PrivateKey.from_private_bytes(claim.key)
    return Identity(CLAIM, claim.certificate, claim.root, private, claim.registrar)


@dataclass
class Registry:
    """One fleet.

    Attributes:
        folder: of the registrar's state.
        terms: how long what it signs is good.
    """

    folder: Path
    terms: Terms = field(default_factory=Terms)
    seed: int = 5

    def __post_init__(self) -> None:
        self.entropy = random.Random(self.seed).randbytes
        self.root = FleetAuthority.create("demo", NOW, self.entropy, lifetime=20 * YEAR)
        self.identity = self.root.issue("registrar", Role.REGISTRAR, lifetime=2 * YEAR)
        self.store = self._own(RegistrarStore(self.folder))
        self.office = self.reopened()

    def reopened(
        self, identity: Identity | None = None, store: RegistrarStore | None = None, now: float = NOW
    ) -> Office:
        """The office as after a restart, perhaps with a renewed identity, or another state."""
        used = self._own(store) if store else self.store
        office = Office(identity or self.identity, used, self.entropy, self.terms)
        office.sign_list(UnixTime(now))
        return office

    def _own(self, store: RegistrarStore) -> RegistrarStore:
        """It is closed when nobody has this registry any more."""
        weakref.finalize(self, store.close)
        return store

    def ask(self, who: Identity, name: str, private: Ed25519PrivateKey, now: float = NOW) -> FromRegistrar:
        """One request and its answer."""
        return self.office.answer(self.opened(who, write_csr(name, private), now), UnixTime(now))

    def opened(self, who: Identity, csr: bytes, now: float = NOW) -> Opened[EnrolmentRequest]:
        frame = seal_frame(who, EnrolmentRequest(csr))
        return open_enrolment_request(frame, self.office.trust, UnixTime(now))

    def enrolled(self, name: str, seed: int, now: float = NOW) -> Identity:
        """A device with its certificate."""
        claim = self.office.give_claim(UnixTime(now), 600)
        answer = self.ask(claimant(claim), name, key(seed), now)
        assert isinstance(answer, Enrolled)
        return Identity(name, answer.certificate, claim.root, key(seed), answer.registrar)

    def refusal(self, who: Identity, name: str, private: Ed25519PrivateKey, now: float = NOW) -> str:
        answer = self.ask(who, name, private, now)
        assert isinstance(answer, EnrolmentRefused)
        return answer.reason

    def trust(self) -> FleetTrust:
        """What a device believes that has the root and the newest list."""
        trust = FleetTrust(self.identity.root)
        trust.heed(self.office.current_list.message)
        return trust
