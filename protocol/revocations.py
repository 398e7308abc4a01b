"""Revocation lists: the certificates that a registrar has taken back.

A list is an X.509 CRL (RFC 5280, section 5) signed with the registrar's key, so that a broker's TLS and the
protocol go by the same bytes. Its number (section 5.2.3) grows with each list, its next update is when it
expires. It travels with the registrar's certificate, which the fleet's root has signed: whoever holds the
root can read it.
"""

from dataclasses import dataclass
from typing import Annotated

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID
from msgspec import Meta, Struct

from protocol.certificate_profile import (
    MAX_CERTIFICATE,
    check_authority,
    check_signed,
    key_of,
    name_of,
    parse,
    role_of,
)
from protocol.errors import MAX_CAUSE, CertificateError
from protocol.ids import UnixTime
from protocol.roles import Role

MAX_LIST = 1_000_000
"""Bytes of a CRL: about 25,000 revoked certificates that have not expired, and still one small message."""

MAX_SEQUENCE = 2**53


class RevocationMessage(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is published, retained.

    Attributes:
        registrar: its certificate, DER.
        revocations: its CRL, DER.
    """

    registrar: Annotated[bytes, Meta(max_length=MAX_CERTIFICATE)]
    revocations: Annotated[bytes, Meta(max_length=MAX_LIST)]


@dataclass(frozen=True)
class Registrar:
    """Who issues the certificates of a fleet's devices.

    Attributes:
        name: common name.
        certificate: parsed; signed by the root.
        key: raw Ed25519 public key, 32 bytes.
        not_before: first moment of validity; `not_after` the last.
    """

    name: str
    certificate: x509.Certificate
    key: bytes
    not_before: UnixTime
    not_after: UnixTime


@dataclass(frozen=True)
class RevocationList:
    """A verified list.

    Attributes:
        registrar: who signed it.
        sequence: number of the list, from 1.
        expires: when a newer one must have come.
        serials: of the certificates it takes back.
        crl: the list itself, DER, for TLS.
        message: as it was published.
    """

    registrar: Registrar
    sequence: int
    expires: UnixTime
    serials: frozenset[int]
    crl: bytes
    message: bytes


def encode_revocations(registrar: bytes, revocations: bytes) -> bytes:
    """The message for a registrar's certificate and CRL, both DER."""
    return _encoder.encode(RevocationMessage(registrar, revocations))


def read_registrar(der: bytes, root: x509.Certificate) -> Registrar:
    """Verify a registrar's certificate; dates are for whoever relies on it.

    Raises:
        CertificateError: not a registrar of the root's fleet.
    """
    parsed = parse(der)
    check_signed(parsed, by=root)
    check_authority(parsed, expected=True)
    if name_of(parsed, NameOID.ORGANIZATION_NAME) != name_of(root, NameOID.ORGANIZATION_NAME):
        raise CertificateError("the registrar is of another fleet")
    if role_of(parsed) is not Role.REGISTRAR:
        raise CertificateError(f"the authority is a {role_of(parsed)}, not a registrar")
    return Registrar(
        name=name_of(parsed, NameOID.COMMON_NAME),
        certificate=parsed,
        key=key_of(parsed).public_bytes_raw(),
        not_before=UnixTime(parsed.not_valid_before_utc.timestamp()),
        not_after=UnixTime(parsed.not_valid_after_utc.timestamp()),
    )


def read_revocations(data: bytes, root: x509.Certificate) -> RevocationList:
    """Decode and verify a list; whether it is newer than another is for whoever holds that.

    Raises:
        CertificateError: malformed, or not signed by a registrar of the root's fleet.
    """
    try:
        message = _decoder.decode(data)
    # msgspec raises plain UnicodeDecodeError (a ValueError) for some bad strings.
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        raise CertificateError(f"not a revocation list: {str(error)[:MAX_CAUSE]}") from error
    registrar = read_registrar(message.registrar, root)
    try:
        return _read(message.revocations, registrar, data)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise CertificateError(f"the revocation list is malformed: {str(error)[:MAX_CAUSE]}") from error


def _read(der: bytes, registrar: Registrar, data: bytes) -> RevocationList:
    crl = x509.load_der_x509_crl(der)
    if crl.signature_algorithm_oid != SignatureAlgorithmOID.ED25519:
        raise CertificateError("the revocation list is not signed with Ed25519")
    if crl.issuer != registrar.certificate.subject:
        raise CertificateError("the revocation list is not of the registrar that it comes with")
    try:
        key_of(registrar.certificate).verify(crl.signature, _signed_part(der))
    except InvalidSignature:
        raise CertificateError("the revocation list's signature is not the registrar's") from None
    try:
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        raise CertificateError("the revocation list has no number") from None
    if crl.next_update_utc is None or not 0 < number < MAX_SEQUENCE:
        raise CertificateError("the revocation list has no expiry, or a number that is none")
    # A list of changes (section 5.2.4), or of some certificates only, would be taken for the whole one.
    if any(extension.critical for extension in crl.extensions):
        raise CertificateError("the revocation list has a critical extension")
    return RevocationList(
        registrar=registrar,
        sequence=number,
        expires=UnixTime(crl.next_update_utc.timestamp()),
        serials=frozenset(revoked.serial_number for revoked in crl),
        crl=der,
        message=bytes(data),
    )


def _signed_part(der: bytes) -> bytes:
    """What a CRL's signature covers, of one that was parsed: the first element of the outermost sequence.

    The library would write it anew, entry by entry, and hold the interpreter's lock for as long.
    """
    start = _content(der, 0)[0]
    return der[start : _content(der, start)[1]]


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Start and end of the content of the element at `at` (X.690, section 8.1)."""
    first = der[at + 1]
    start = at + 2 + (first & 0x7F if first & 0x80 else 0)
    size = int.from_bytes(der[at + 2 : start]) if first & 0x80 else first
    return start, start + size


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RevocationMessage)
