"""Who is who in a fleet: X.509 certificates over Ed25519, all signed by the fleet's pinned root.

A certificate's subject says everything the protocol needs: O is the fleet, CN the holder's name, OU its
role, and for a coordinator the serialNumber attribute (2.5.4.5) its generation, the first part of the fleet's
order. Profile: RFC 5280 with Ed25519 of RFC 8410; basic constraints present, and no critical extension that
is not read here.
"""

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID, ObjectIdentifier, SignatureAlgorithmOID

from protocol.errors import CertificateError
from protocol.ids import NAME_PATTERN, DeviceId, UnixTime

# Ours are about 330 bytes; the bound leaves room for longer names and an issuer in between.
MAX_CERTIFICATE = 2048

# Verified certificates remembered: four of the largest cohorts, about 1 MB.
MAX_REMEMBERED = 4096

# Devices without a clock of their own drift between time synchronisations.
MAX_CLOCK_SKEW = 300.0

_GENERATIONS = range(2**32)
_READ_EXTENSIONS = (x509.BasicConstraints.oid, x509.KeyUsage.oid, x509.ExtendedKeyUsage.oid)


class Role(StrEnum):
    """What a certificate's holder may do: its OU."""

    DEVICE = "device"
    COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a verified certificate says.

    Attributes:
        subject: the holder's name.
        role: what it may do.
        fleet: that it belongs to.
        public_key: raw Ed25519, 32 bytes.
        not_before: first moment of validity: for a device, when it was enrolled.
        not_after: last moment of validity.
        generation: of a coordinator, 0 to 2^32 - 1; 0 for the others.
        digest: SHA-256 of the DER bytes.
    """

    subject: DeviceId
    role: Role
    fleet: str
    public_key: bytes
    not_before: UnixTime
    not_after: UnixTime
    generation: int
    digest: bytes


class FleetTrust:
    """The pinned root of one fleet, and what it vouches for.

    A certificate's signature is checked once; its digest is then remembered, so that a cohort of a thousand
    costs a thousand signatures in the first round only. Role and dates are checked every time.

    Args:
        root_der: the fleet's root certificate, DER.

    Raises:
        CertificateError: it is not a self-signed Ed25519 certificate authority of a fleet.
    """

    def __init__(self, root_der: bytes) -> None:
        root = _parse(root_der)
        _check_signed(root, by=root)
        _check_authority(root, expected=True)
        self.fleet = _name(root, NameOID.ORGANIZATION_NAME)
        self._root = root
        self._verified: OrderedDict[bytes, Certificate] = OrderedDict()

    def verify(self, der: bytes, *, role: Role, now: UnixTime) -> Certificate:
        """Read a certificate that this fleet vouches for.

        Args:
            der: as received.
            role: that its holder must have.
            now: wall clock; five minutes of skew are tolerated.

        Raises:
            CertificateError: naming the cause.
        """
        certificate = self.read(der)
        if certificate.role is not role:
            raise CertificateError(f"{certificate.subject} is a {certificate.role}, not a {role}")
        if now < certificate.not_before - MAX_CLOCK_SKEW:
            raise CertificateError(f"{certificate.subject}'s certificate is not valid yet; check the clock")
        if now > certificate.not_after + MAX_CLOCK_SKEW:
            raise CertificateError(f"{certificate.subject}'s certificate has expired")
        return certificate

    def read(self, der: bytes) -> Certificate:
        """Read a certificate that this fleet vouches for, whatever its role and dates.

        Raises:
            CertificateError: naming the cause.
        """
        digest = hashlib.sha256(der).digest()
        certificate = self._verified.get(digest)
        if certificate is None:
            certificate = self._read(der, digest)
            self._verified[digest] = certificate
            if len(self._verified) > MAX_REMEMBERED:
                self._verified.popitem(last=False)
        self._verified.move_to_end(digest)
        return certificate

    def _read(self, der: bytes, digest: bytes) -> Certificate:
        parsed = _parse(der)
        _check_signed(parsed, by=self._root)
        # The one byte that no signature covers: how many bits of the BIT STRING before it are unused. Any
        # other than zero would make a second encoding of the same certificate.
        if der[-1 - len(parsed.signature)]:
            raise CertificateError("the certificate is malformed: its signature has unused bits")
        _check_authority(parsed, expected=False)
        fleet = _name(parsed, NameOID.ORGANIZATION_NAME)
        if fleet != self.fleet:
            raise CertificateError(f"the certificate is of fleet {fleet}, not {self.fleet}")
        role = _role(parsed)
        return Certificate(
            subject=DeviceId(_name(parsed, NameOID.COMMON_NAME)),
            role=role,
            fleet=fleet,
            public_key=_ed25519(parsed).public_bytes_raw(),
            not_before=UnixTime(parsed.not_valid_before_utc.timestamp()),
            not_after=UnixTime(parsed.not_valid_after_utc.timestamp()),
            generation=_generation(parsed, role),
            digest=digest,
        )


def _parse(der: bytes) -> x509.Certificate:
    """Decode, and touch all that is decoded late, so that nothing below can fail on malformed bytes."""
    if len(der) > MAX_CERTIFICATE:
        raise CertificateError(f"the certificate has {len(der)} bytes, more than {MAX_CERTIFICATE}")
    try:
        parsed = x509.load_der_x509_certificate(der)
        _ = (
            parsed.subject,
            parsed.issuer,
            parsed.extensions,
            parsed.not_valid_before_utc,
            parsed.not_valid_after_utc,
        )
    except (
        ValueError,
        TypeError,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        UnsupportedAlgorithm,
    ) as error:
        raise CertificateError(f"the certificate is malformed: {error}") from None
    _ed25519(parsed)
    return parsed


def _ed25519(parsed: x509.Certificate) -> Ed25519PublicKey:
    try:
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"the certificate's key is malformed: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("the certificate's key is not Ed25519")
    return key


def _check_signed(parsed: x509.Certificate, *, by: x509.Certificate) -> None:
    if parsed.signature_algorithm_oid != SignatureAlgorithmOID.ED25519:
        raise CertificateError("the certificate is not signed with Ed25519")
    if parsed.issuer != by.subject:
        raise CertificateError("the certificate was not issued by this fleet's root")
    try:
        _ed25519(by).verify(parsed.signature, parsed.tbs_certificate_bytes)
    except InvalidSignature:
        raise CertificateError("the certificate's signature is not by this fleet's root") from None


def _check_authority(parsed: x509.Certificate, *, expected: bool) -> None:
    for extension in parsed.extensions:
        if extension.critical and extension.oid not in _READ_EXTENSIONS:
            raise CertificateError(f"critical extension {extension.oid.dotted_string} is not of this profile")
    try:
        constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise CertificateError("the certificate has no basic constraints") from None
    if constraints.ca is not expected:
        kind = "is not" if expected else "is"
        raise CertificateError(f"the certificate {kind} an authority's")


def _attribute(parsed: x509.Certificate, oid: ObjectIdentifier) -> str | None:
    values = parsed.subject.get_attributes_for_oid(oid)
    if len(values) > 1:
        raise CertificateError(f"the subject holds {oid.dotted_string} twice")
    return str(values[0].value) if values else None


def _name(parsed: x509.Certificate, oid: ObjectIdentifier) -> str:
    value = _attribute(parsed, oid)
    if value is None or not re.fullmatch(NAME_PATTERN, value):
        raise CertificateError(
            f"subject attribute {oid.dotted_string} is not a name of 1 to 64 of [a-z0-9_-]"
        )
    return value


def _role(parsed: x509.Certificate) -> Role:
    value = _attribute(parsed, NameOID.ORGANIZATIONAL_UNIT_NAME)
    try:
        return Role(value or "")
    except ValueError:
        raise CertificateError(f"{value!r} is not a role") from None


def _generation(parsed: x509.Certificate, role: Role) -> int:
    value = _attribute(parsed, NameOID.SERIAL_NUMBER)
    if role is not Role.COORDINATOR:
        if value is not None:
            raise CertificateError(f"a {role} has no generation")
        return 0
    if value is None or not re.fullmatch(r"0|[1-9][0-9]{0,9}", value) or int(value) not in _GENERATIONS:
        raise CertificateError("a coordinator's serialNumber must be its generation, 0 to 2^32 - 1")
    return int(value)
