"""Identities on disk: a folder with the fleet's root, and one certificate and key for each name.

fleet.crt     the root certificate, PEM
<name>.crt    a certificate, PEM
<name>.key    its Ed25519 private key, PEM (PKCS #8), readable by its owner only
"""

import datetime as dt
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.certificates import Role
from protocol.errors import FedfleetError, MisuseError
from protocol.ids import NAME_PATTERN, UnixTime

ROOT_FILE = "fleet.crt"

# A development fleet is thrown away long before; provisioning decides for real ones.
_VALIDITY = dt.timedelta(days=365)

# The owner alone may read and write.
_PRIVATE_MODE = 0o600

# RFC 5280, section 4.1.2.2: positive and at most 20 octets.
_SERIAL_BYTES = 19


class IdentityError(FedfleetError):
    """An identity cannot be read; the message says the fix."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this program is.

    Attributes:
        name: common name of the certificate.
        certificate: its own, DER.
        root: the fleet's, DER.
        private_key: signs protocol messages.
    """

    name: str
    certificate: bytes
    root: bytes
    private_key: Ed25519PrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """Ed25519 (RFC 8032) signature, 64 bytes."""
        return self.private_key.sign(message)


def load_identity(folder: Path, name: str | None = None) -> Identity:
    """Read one identity.

    Args:
        folder: as described above.
        name: which; may be left out when the folder holds one key.

    Raises:
        IdentityError: naming the file and the fix.
    """
    name = name or _only_name(folder)
    root = _read_certificate(folder / ROOT_FILE)
    certificate = _read_certificate(folder / f"{name}.crt")
    key = _read_key(folder / f"{name}.key")
    if certificate.public_key() != key.public_key():
        raise IdentityError(f"{folder / name}.crt and {name}.key do not belong together; copy both again")
    return Identity(name, certificate.public_bytes(Encoding.DER), root.public_bytes(Encoding.DER), key)


class FleetAuthority:
    """A fleet's root with its private key: issues certificates for a development fleet.

    Args:
        root: its certificate.
        key: its private key.
        now: wall clock at which everything it issues becomes valid.
        entropy: gives that many unpredictable bytes.
    """

    def __init__(
        self, root: x509.Certificate, key: Ed25519PrivateKey, now: UnixTime, entropy: Callable[[int], bytes]
    ) -> None:
        self.root = root
        self._key = key
        self._now = now
        self._entropy = entropy

    @classmethod
    def create(cls, fleet: str, now: UnixTime, entropy: Callable[[int], bytes]) -> "FleetAuthority":
        """Make a new fleet with a root of its own.

        Raises:
            MisuseError: `fleet` is not 1 to 64 of [a-z0-9_-].
        """
        _check_name(fleet)
        key = Ed25519PrivateKey.from_private_bytes(entropy(32))
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, fleet)])
        builder = _builder(subject, subject, key.public_key(), now, entropy)
        root = _restricted(builder, authority=True).sign(key, None)
        return cls(root, key, now, entropy)

    def issue(self, name: str, role: Role, generation: int = 0) -> Identity:
        """Make a key and a certificate for it.

        Args:
            name: 1 to 64 of [a-z0-9_-].
            role: what the holder may do.
            generation: of a coordinator, 0 to 2^32 - 1.

        Raises:
            MisuseError: `name` is something else.
        """
        _check_name(name)
        key = Ed25519PrivateKey.from_private_bytes(self._entropy(32))
        fleet = self.root.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0]
        attributes = [
            fleet,
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
        if role is Role.COORDINATOR:
            attributes.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, str(generation)))
        builder = _builder(
            x509.Name(attributes), self.root.subject, key.public_key(), self._now, self._entropy
        )
        certificate = _restricted(builder, authority=False).sign(self._key, None)
        return Identity(
            name, certificate.public_bytes(Encoding.DER), self.root.public_bytes(Encoding.DER), key
        )


def write_identity(folder: Path, identity: Identity) -> None:
    """Write an identity and its fleet's root, readable by the owner only; the folder is made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_private(folder / ROOT_FILE, _pem(identity.root))
    _write_private(folder / f"{identity.name}.crt", _pem(identity.certificate))
    key = identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write_private(folder / f"{identity.name}.key", key)


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise MisuseError(f'"{name}" is not a name; write 1 to 64 of a-z, 0-9, _ and -')


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: Ed25519PublicKey,
    now: UnixTime,
    entropy: Callable[[int], bytes],
) -> x509.CertificateBuilder:
    start = dt.datetime.fromtimestamp(int(now), tz=dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(int.from_bytes(entropy(_SERIAL_BYTES)) + 1)
        .not_valid_before(start)
        .not_valid_after(start + _VALIDITY)
    )


def _restricted(builder: x509.CertificateBuilder, *, authority: bool) -> x509.CertificateBuilder:
    """What the key may be used for: an authority signs certificates, the others messages and TLS."""
    usage = x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    builder = builder.add_extension(usage, critical=True)
    if authority:
        return builder
    return builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)


def _only_name(folder: Path) -> str:
    names = sorted(file.stem for file in folder.glob("*.key"))
    if not names:
        raise IdentityError(
            f"{folder} holds no <name>.key; make it with `fedfleet identities`, or copy it here"
        )
    if len(names) > 1:
        raise IdentityError(
            f"{folder} holds {len(names)} keys ({', '.join(names[:3])}, …); set `name` to one"
        )
    return names[0]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise IdentityError(
            f"{file} cannot be read ({error.strerror}); make it with `fedfleet identities`, or copy it here"
        ) from error


def _read_certificate(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(file))
    except ValueError as error:
        raise IdentityError(f"{file} is not a PEM certificate; copy it again") from error


def _read_key(file: Path) -> Ed25519PrivateKey:
    pem = _read(file)
    if stat.S_IMODE(file.stat().st_mode) & ~_PRIVATE_MODE:
        raise IdentityError(f"{file} can be read by others; run chmod 600 {file}")
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:  # TypeError: the key is encrypted
        raise IdentityError(f"{file} is not an unencrypted PEM private key; copy it again") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{file} is not an Ed25519 key; make it with `fedfleet identities`")
    return key


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _write_private(file: Path, content: bytes) -> None:
    """Never readable by others, not even for the moment between making and restricting it."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE), "wb") as opened:
        opened.write(content)
