"""Reading one X.509 certificate of a fleet: what the profile allows, and nothing that can fail later.

Profile: RFC 5280 with Ed25519 of RFC 8410; basic constraints present, and no critical extension that is not
read here. The subject says everything the protocol needs: O is the fleet, CN the holder's name, OU its role,
and for a coordinator the serialNumber attribute (2.5.4.5) its generation.
"""

import re

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID, ObjectIdentifier, SignatureAlgorithmOID

from protocol.errors import CertificateError
from protocol.ids import NAME_PATTERN
from protocol.roles import Role

# Ours are about 330 bytes; the bound leaves room for longer names and a broker's addresses.
MAX_CERTIFICATE = 2048

_GENERATIONS = range(2**32)
_READ_EXTENSIONS = (x509.BasicConstraints.oid, x509.KeyUsage.oid, x509.ExtendedKeyUsage.oid)


def parse(der: bytes) -> x509.Certificate:
    """Decode, and touch all that is decoded late, so that nothing below can fail on malformed bytes.

    Raises:
        CertificateError: as every function here.
    """
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
    key_of(parsed)
    # The one byte that no signature covers: how many bits of the BIT STRING before it are unused. Any other
    # than zero would make a second encoding of the same certificate.
    if der[-1 - len(parsed.signature)]:
        raise CertificateError("the certificate is malformed: its signature has unused bits")
    return parsed


def key_of(parsed: x509.Certificate) -> Ed25519PublicKey:
    """The holder's key, which must be Ed25519."""
    try:
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"the certificate's key is malformed: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("the certificate's key is not Ed25519")
    return key


def check_signed(parsed: x509.Certificate, *, by: x509.Certificate) -> None:
    """The certificate must name `by` as its issuer, and be signed with its key."""
    if parsed.signature_algorithm_oid != SignatureAlgorithmOID.ED25519:
        raise CertificateError("the certificate is not signed with Ed25519")
    if parsed.issuer != by.subject:
        raise CertificateError("the certificate was not issued by this fleet's root or registrar")
    try:
        key_of(by).verify(parsed.signature, parsed.tbs_certificate_bytes)
    except InvalidSignature:
        raise CertificateError(
            "the certificate's signature is not by this fleet's root or registrar"
        ) from None


def check_authority(parsed: x509.Certificate, *, expected: bool) -> None:
    """It must say whether it is an authority's, and ask for nothing that is not read here."""
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


def name_of(parsed: x509.Certificate, oid: ObjectIdentifier) -> str:
    """One attribute of the subject that is a name."""
    value = _attribute(parsed, oid)
    if value is None or not re.fullmatch(NAME_PATTERN, value):
        raise CertificateError(
            f"subject attribute {oid.dotted_string} is not a name of 1 to 64 of [a-z0-9_-]"
        )
    return value


def role_of(parsed: x509.Certificate) -> Role:
    """The holder's role."""
    value = _attribute(parsed, NameOID.ORGANIZATIONAL_UNIT_NAME)
    try:
        return Role(value or "")
    except ValueError:
        raise CertificateError(f"{value!r} is not a role") from None


def generation_of(parsed: x509.Certificate, role: Role) -> int:
    """A coordinator's generation; 0 for everybody else."""
    value = _attribute(parsed, NameOID.SERIAL_NUMBER)
    if role is not Role.COORDINATOR:
        if value is not None:
            raise CertificateError(f"a {role} has no generation")
        return 0
    if value is None or not re.fullmatch(r"0|[1-9][0-9]{0,9}", value) or int(value) not in _GENERATIONS:
        raise CertificateError("a coordinator's serialNumber must be its generation, 0 to 2^32 - 1")
    return int(value)
