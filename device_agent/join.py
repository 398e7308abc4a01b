"""Joining a fleet: a key made on this device, and a certificate for it from the registrar.

What is in the identity folder tells how far it got, so that it can be done again after anything:
`<name>.key` alone means that a certificate was asked for, and asking again gets the same one.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker.transport import Delivery, Transport, TransportError
from protocol.certificates import FleetTrust
from protocol.enrolment import (
    CLAIM,
    Claim,
    Enrolled,
    EnrolmentRefused,
    EnrolmentRequest,
    check_enrolled,
    write_csr,
)
from protocol.errors import FedfleetError, PeerError, RequestError
from protocol.frames import open_registrar_frame, seal_frame
from protocol.ids import UnixTime
from protocol.messages import encode
from protocol.revocations import encode_revocations, read_revocations
from protocol.topics import Topics
from runtime.clock import Clock
from runtime.entropy import Entropy
from runtime.files import write_private
from runtime.identity import ROOT_FILE, Identity, load_identity, made_key, read_key, write_certificate

REVOCATIONS_FILE = "revocations"
"""In the identity folder: the newest revocation list that the device has heard of, as it is published."""

ATTEMPT = 5.0
"""Seconds of one try, with a connection of its own: claims share a client id, and push each other out."""

LONGEST_WAIT = 10.0

_log = structlog.get_logger(__name__)


class JoinError(FedfleetError):
    """The device could not join; the message says the fix."""


@dataclass(frozen=True, slots=True)
class Applying:
    """What a device asks with.

    Attributes:
        claim: the token's content.
        name: that it wants.
        key: its own, kept in its folder already.
        trust: the fleet of the token.
    """

    claim: Claim
    name: str
    key: Ed25519PrivateKey
    trust: FleetTrust

    @property
    def identity(self) -> Identity:
        """Of the claim: who asks."""
        return Identity(
            name=CLAIM,
            certificate=self.claim.certificate,
            root=self.claim.root,
            private_key=Ed25519PrivateKey.from_private_bytes(self.claim.key),
            registrar=self.claim.registrar,
        )

    @property
    def topics(self) -> Topics:
        """Of the fleet."""
        return Topics(self.trust.fleet)

    @property
    def message(self) -> EnrolmentRequest:
        """What it asks, the same each time."""
        return EnrolmentRequest(write_csr(self.name, self.key))

    @property
    def request(self) -> bytes:
        """The frame to publish."""
        return seal_frame(self.identity, self.message)

    def read(self, payload: bytes, now: UnixTime) -> Enrolled:
        """An answer that is ours.

        Raises:
            JoinError: the registrar refused.
            PeerError: it is no answer to us.
        """
        answer = open_registrar_frame(payload, self.trust, now).message
        if isinstance(answer, EnrolmentRefused):
            if answer.request != hashlib.sha256(encode(self.message)).digest():
                raise RequestError("a refusal of another request")
            raise JoinError(f"the registrar refused: {answer.reason}")
        key = self.key.public_key().public_bytes_raw()
        check_enrolled(answer, self.trust, name=self.name, public_key=key, now=now)
        return answer


def apply(claim: Claim, name: str, folder: Path, entropy: Entropy) -> Applying:
    """Make the device's key, or find the one of an earlier try.

    Raises:
        IdentityError: the folder's key cannot be used.
        CertificateError: the token is of no fleet.
    """
    trust = FleetTrust(claim.root, claim.registrar)
    return Applying(claim, name, made_key(folder, name, entropy.bytes), trust)


async def enrol(
    applying: Applying, connect: Callable[[], Transport], clock: Clock, entropy: Entropy, seconds: float
) -> Enrolled:
    """Ask until there is an answer.

    Args:
        applying: who asks.
        connect: makes a fresh connection with the claim.
        clock: time.
        entropy: jitter.
        seconds: after which it gives up.

    Raises:
        JoinError: the registrar refused, or nobody answered in time.
        RefusedError: the broker refuses the claim.
    """
    end = clock.now() + seconds
    attempt = 0
    while (left := end - clock.now()) > 0:
        asking = asyncio.create_task(_ask(applying, connect(), clock))
        if await _done(asking, min(left, ATTEMPT), clock) and (answer := asking.result()):
            return answer
        await clock.sleep(entropy.uniform() * min(LONGEST_WAIT, 2.0**attempt))
        attempt += 1
    raise JoinError(
        f"no answer within {seconds:.0f} s; check that the broker is reached, that `fedfleet registrar` "
        "runs, and that the token has not expired. Then run the same command again"
    )


async def _done(task: asyncio.Task[Enrolled | None], seconds: float, clock: Clock) -> bool:
    """Waits for a task, at most so long; a late one is cancelled."""
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait([task, timer], return_when=asyncio.FIRST_COMPLETED)
        return task.done()
    finally:
        timer.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _ask(applying: Applying, transport: Transport, clock: Clock) -> Enrolled | None:
    """One connection: the answer, or None if it was lost, or none came."""
    answers = list[Enrolled | JoinError]()
    over = asyncio.Event()

    def arrived(delivery: Delivery) -> None:
        try:
            answers.append(applying.read(delivery.payload, clock.unix()))
        except JoinError as error:
            answers.append(error)
        except PeerError as error:
            _log.warning("refused", cause=str(error))
            return
        over.set()

    def changed(connected: bool) -> None:  # noqa: FBT001 - the transport's listener
        if not connected:
            over.set()

    transport.on_connection(changed)
    applicant = applying.claim.id
    await transport.subscribe(applying.topics.enrolment_answer(applicant), arrived)
    async with transport:
        try:
            await transport.publish(applying.topics.enrolment_request(applicant), applying.request)
        except TransportError:
            return None
        await over.wait()
    if answers and isinstance(answers[0], JoinError):
        raise answers[0]
    return answers[0] if answers and isinstance(answers[0], Enrolled) else None


# The folder.


def keep(folder: Path, name: str, root: bytes, enrolled: Enrolled, key: Ed25519PrivateKey) -> None:
    """Write what the registrar gave; the certificate last, as it tells that all is there."""
    write_private(folder / ROOT_FILE, x509.load_der_x509_certificate(root).public_bytes(Encoding.PEM))
    write_private(folder / REVOCATIONS_FILE, enrolled.revocations)
    identity = Identity(name, enrolled.certificate, root, key, enrolled.registrar)
    write_certificate(folder, identity)


def joined_before(folder: Path, name: str, root: bytes, now: UnixTime) -> bool:
    """Whether the folder holds a certificate of that fleet already that is good now.

    Raises:
        JoinError: it holds one that is not.
    """
    if not (folder / f"{name}.crt").exists():
        return False
    identity = load_identity(folder, name)
    own = FleetTrust(identity.root, identity.registrar).read(identity.certificate)
    if identity.root == root and now <= own.not_after:
        return True
    raise JoinError(f"{folder} holds a certificate of another fleet, or an old one; give another --identity")


# By hand.


def write_request(folder: Path, name: str, entropy: Entropy) -> bytes:
    """The signing request of a device that is enrolled by hand, PEM; its key is made if there is none."""
    csr = write_csr(name, made_key(folder, name, entropy.bytes))
    return x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM)


def write_bundle(root: bytes, enrolled: Enrolled) -> bytes:
    """The answer to it, PEM: certificates of device, registrar and root, and the revocation list."""
    chain = (enrolled.certificate, enrolled.registrar, root)
    pem = b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain)
    crl = read_revocations(enrolled.revocations, x509.load_der_x509_certificate(root)).crl
    return pem + x509.load_der_x509_crl(crl).public_bytes(Encoding.PEM)


def install(bundle: bytes, folder: Path, now: UnixTime) -> tuple[str, str, bytes]:
    """Take over the answer that somebody has brought.

    Returns:
        The device's name, its fleet's, and the fleet's root, DER: for people to compare.

    Raises:
        JoinError: it is not an answer to this folder's request.
        CertificateError: its certificates do not hold.
    """
    try:
        leaf, registrar, root = x509.load_pem_x509_certificates(bundle)
        crl = x509.load_pem_x509_crl(bundle[bundle.index(b"-----BEGIN X509 CRL") :])
    except ValueError as error:
        raise JoinError("this is not what `fedfleet ca sign` wrote; copy the file again") from error
    ders = [one.public_bytes(Encoding.DER) for one in (leaf, registrar, root)]
    trust = FleetTrust(ders[2], ders[1])
    name = trust.read(ders[0]).subject
    if not (folder / f"{name}.key").exists():
        raise JoinError(f"{folder} holds no {name}.key; run `fedfleet agent csr` here, and have that signed")
    key = read_key(folder / f"{name}.key")
    enrolled = Enrolled(ders[0], ders[1], encode_revocations(ders[1], crl.public_bytes(Encoding.DER)))
    check_enrolled(enrolled, trust, name=name, public_key=key.public_key().public_bytes_raw(), now=now)
    keep(folder, name, ders[2], enrolled, key)
    return name, trust.fleet, ders[2]
