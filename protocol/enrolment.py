"""Enrolment: how a device gets its certificate from the registrar, and a later one before that expires.

A claim is a certificate of minutes or hours, good for one enrolment; its token carries it to the device, with
its key. The device makes a key of its own and signs a request with the claim (to enrol) or with its standing
certificate (to renew); the registrar answers with a frame of its own. A request may be said again: the same
key and name get the same certificate.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from msgspec import Meta, Struct

from protocol.certificate_profile import MAX_CERTIFICATE
from protocol.certificates import Certificate, FleetTrust
from protocol.errors import MAX_CAUSE, CertificateError, FrameError, RequestError
from protocol.ids import NAME_PATTERN, Hash, Name, UnixTime
from protocol.messages import MAX_REASON, Message, Reason
from protocol.revocations import MAX_LIST
from protocol.roles import Role, fits

MAX_CSR = 2048
"""Bytes of a certificate signing request; ours have about 180."""

MAX_REQUEST = 8192
"""Bytes of a request's frame: certificate, CSR, signatures and room."""

CLAIM = "claim"
"""What every holder of a claim is called."""

_MAX_TOKEN = 16_384


class EnrolmentRequest(Message, frozen=True, tag="enrolment-request"):
    """A certificate is asked for.

    Attributes:
        csr: PKCS #10 (RFC 2986), DER; of its subject only CN counts, of its attributes nothing.
    """

    csr: Annotated[bytes, Meta(max_length=MAX_CSR)]


class Enrolled(Message, frozen=True, tag="enrolled"):
    """Here it is.

    Attributes:
        certificate: the device's, DER.
        registrar: the certificate above it, DER.
        revocations: the newest revocation list, as it is published: without one no peer can be believed.
    """

    certificate: Annotated[bytes, Meta(max_length=MAX_CERTIFICATE)]
    registrar: Annotated[bytes, Meta(max_length=MAX_CERTIFICATE)]
    revocations: Annotated[bytes, Meta(max_length=MAX_LIST + 2 * MAX_CERTIFICATE)]


class EnrolmentRefused(Message, frozen=True, tag="enrolment-refused"):
    """There is none.

    Attributes:
        request: SHA-256 of the request's body.
        reason: which rule it breaks.
    """

    request: Hash
    reason: Reason


FromRegistrar = Enrolled | EnrolmentRefused


def decode_request(body: bytes) -> EnrolmentRequest:
    """Decode what an applicant said.

    Raises:
        FrameError: the bytes are no such message or exceed a limit.
    """
    return _decode(_requests, body)


def decode_from_registrar(body: bytes) -> FromRegistrar:
    """Decode what a registrar said; raises as `decode_request`."""
    return _decode(_answers, body)


# Requests.


@dataclass(frozen=True, slots=True)
class Applicant:
    """What counts of a signing request.

    Attributes:
        name: that the device wants.
        key: its public key, whose private part it has proved to have.
    """

    name: str
    key: Ed25519PublicKey


def write_csr(name: str, key: Ed25519PrivateKey) -> bytes:
    """A signing request, DER; the same for the same name and key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, None)
    return csr.public_bytes(Encoding.DER)


def read_csr(der: bytes) -> Applicant:
    """Verify a signing request.

    Raises:
        RequestError: malformed, another kind of key, signed with another, or no name for a device.
    """
    if len(der) > MAX_CSR:
        raise RequestError(f"the signing request has {len(der)} bytes, more than {MAX_CSR}")
    try:
        csr = x509.load_der_x509_csr(der)
        key, valid = csr.public_key(), csr.is_signature_valid
        names = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise RequestError(f"the signing request is malformed: {error}"[:MAX_REASON]) from None
    if not isinstance(key, Ed25519PublicKey):
        raise RequestError("the signing request's key is not Ed25519")
    if not valid:
        raise RequestError("the signing request is not signed with its own key")
    if len(names) != 1:
        raise RequestError("the signing request's subject has not one common name")
    return Applicant(check_device_name(str(names[0].value)), key)


def check_device_name(name: str) -> str:
    """The name, if a device may have it.

    Raises:
        RequestError: it may not.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise RequestError("the name is not 1 to 64 of a-z, 0-9, _ and -")
    if not fits(name, Role.DEVICE):
        raise RequestError(f"a device cannot be called {name}: the name says another role")
    return name


# Answers.


def check_enrolled(
    answer: Enrolled, trust: FleetTrust, *, name: str, public_key: bytes, now: UnixTime
) -> Certificate:
    """What a registrar gave must be what was asked for.

    Args:
        answer: the message of a verified frame.
        trust: takes note of the answer's revocation list, if it is newer.
        name: of this device.
        public_key: its own, raw.
        now: wall clock.

    Raises:
        CertificateError: it is something else, or revoked.
    """
    if trust.revocations is None:
        trust.heed(answer.revocations)
    certificate = trust.verify(answer.certificate, role=Role.DEVICE, now=now)
    if certificate.subject != name or certificate.public_key != public_key:
        raise CertificateError(f"the registrar sent {certificate.subject}'s certificate")
    known = trust.revocations
    if known is None or certificate.issuer != known.registrar.key:
        raise CertificateError("the certificate is not by the fleet's registrar")
    return certificate


# Tokens.


class Claim(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="fedfleet-claim"):
    """What a token holds: all that a device needs to enrol.

    Attributes:
        root: the fleet's certificate, DER: the device believes it from now on.
        registrar: the certificate above the claim's, DER.
        certificate: the claim's, DER.
        key: its private key, raw.
        name: that the device must have; None lets it choose.
    """

    root: Annotated[bytes, Meta(max_length=MAX_CERTIFICATE)]
    registrar: Annotated[bytes, Meta(max_length=MAX_CERTIFICATE)]
    certificate: Annotated[bytes, Meta(max_length=MAX_CERTIFICATE)]
    key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    name: Name | None = None

    @property
    def id(self) -> str:
        """Names the claim's topics."""
        return claim_id(self.certificate)

    def __repr__(self) -> str:
        return f"Claim({self.id})"


def claim_id(certificate: bytes) -> str:
    """SHA-256 of a claim's certificate (DER), hexadecimal."""
    return hashlib.sha256(certificate).hexdigest()


def encode_token(claim: Claim) -> str:
    """Text that carries a claim: base64url without padding, about 1,300 characters. It is a secret."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(claim)).decode().rstrip("=")


def decode_token(text: str) -> Claim:
    """Read a token.

    Raises:
        RequestError: it is none; the text is not repeated.
    """
    if len(text) > _MAX_TOKEN:
        raise RequestError("the token is too long; copy the one line that `fedfleet device enroll` printed")
    try:
        return _claims.decode(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise RequestError(
            "the token is damaged; copy the whole line that `fedfleet device enroll` printed"
        ) from None


T = TypeVar("T")


def _decode(decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    # msgspec raises plain UnicodeDecodeError (a ValueError) for some bad strings.
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        raise FrameError(f"not a message of enrolment: {str(error)[:MAX_CAUSE]}") from error


_requests = msgspec.msgpack.Decoder(EnrolmentRequest)
_answers: msgspec.msgpack.Decoder[FromRegistrar] = msgspec.msgpack.Decoder(FromRegistrar)
_claims = msgspec.msgpack.Decoder(Claim)
