"""Identities on disk: a folder with the fleet's root, and one certificate and key for each name.

fleet.crt     the root certificate, PEM
<name>.crt    a certificate, PEM; behind it the registrar's, if one issued it
<name>.key    its Ed25519 private key, PEM (PKCS #8), readable by its owner only
"""

import ssl
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from protocol.certificates import Certificate, FleetTrust, Role
from protocol.errors import FedfleetError, MisuseError
from protocol.ids import UnixTime
from runtime.files import PRIVATE_MODE, write_private

ROOT_FILE = "fleet.crt"


class IdentityError(FedfleetError):
    """An identity cannot be read; the message says the fix."""


@dataclass(slots=True)
class Identity:
    """Who this program is.

    Attributes:
        name: common name of the certificate.
        certificate: its own, DER; renewed now and then, under the same key.
        root: the fleet's, DER.
        private_key: signs protocol messages.
        registrar: certificate of the registrar that issued its own, DER; None where the root did.
        folder: that it was loaded from.
    """

    name: str
    certificate: bytes
    root: bytes
    private_key: Ed25519PrivateKey = field(repr=False)
    registrar: bytes | None = None
    folder: Path | None = None

    def trust(self, role: Role, now: UnixTime) -> tuple[FleetTrust, Certificate]:
        """Whom this program believes, and what its own certificate says.

        Its standing is for others to judge: the revocation list comes with the connection.

        Raises:
            CertificateError: the certificate is not of this fleet, of another role, or out of date.
        """
        trust = FleetTrust(self.root, self.registrar)
        own = trust.read(self.certificate)
        own.check(role, now)
        return trust, own

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
    name = name or only_name(folder)
    root = _read_certificates(folder / ROOT_FILE)[0]
    certificate, *above = _read_certificates(folder / f"{name}.crt")
    key = read_key(folder / f"{name}.key")
    if certificate.public_key() != key.public_key():
        raise IdentityError(f"{folder / name}.crt and {name}.key do not belong together; copy both again")
    return Identity(
        name=name,
        certificate=certificate.public_bytes(Encoding.DER),
        root=root.public_bytes(Encoding.DER),
        private_key=key,
        registrar=above[0].public_bytes(Encoding.DER) if above else None,
        folder=folder,
    )


def write_identity(folder: Path, identity: Identity) -> None:
    """Write an identity and its fleet's root, readable by the owner only; the folder is made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folder / ROOT_FILE, _pem(identity.root))
    _write_key(folder, identity.name, identity.private_key)
    write_certificate(folder, identity)


def made_key(folder: Path, name: str, entropy: Callable[[int], bytes]) -> Ed25519PrivateKey:
    """The key of a name that has no certificate yet: the folder's, or a new one that is kept there first.

    Raises:
        IdentityError: the folder's key cannot be used.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / f"{name}.key").exists():
        _write_key(folder, name, Ed25519PrivateKey.from_private_bytes(entropy(32)))
    return read_key(folder / f"{name}.key")


def write_certificate(folder: Path, identity: Identity) -> None:
    """Write the certificate alone, with what is above it: what a renewal changes. Whole or not at all."""
    chain = _pem(identity.certificate) + (_pem(identity.registrar) if identity.registrar else b"")
    write_private(folder / f"{identity.name}.crt", chain)


def client_tls(identity: Identity, authorities: Path | None) -> ssl.SSLContext:
    """How this program connects to a broker by TLS: as itself, by TLS 1.3 and nothing older.

    Args:
        identity: loaded from a folder.
        authorities: PEM file of those who may vouch for the broker; None is the fleet's root alone.

    Raises:
        IdentityError: a file cannot be used.
    """
    if identity.folder is None:
        raise MisuseError("TLS needs an identity that was loaded from files")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(authorities or identity.folder / ROOT_FILE)
    except (OSError, ssl.SSLError) as error:
        raise IdentityError(f"{authorities} holds no certificates of authorities: {error}") from error
    load_tls_certificate(context, identity)
    return context


def passing_tls(identity: Identity, authorities: Path | None) -> ssl.SSLContext:
    """As `client_tls`, for an identity that lives in memory: a claim, or what a registrar makes for itself.

    OpenSSL reads keys from files only: they are in a folder of the owner's while this runs, and no longer.
    """
    with tempfile.TemporaryDirectory(prefix="fedfleet-") as folder:  # mode 0700
        write_identity(Path(folder), identity)
        return client_tls(replace(identity, folder=Path(folder)), authorities)


def load_tls_certificate(context: ssl.SSLContext, identity: Identity) -> None:
    """Have the next connections show the certificate that is on disk now.

    Raises:
        IdentityError: it cannot be read.
    """
    if identity.folder is None:
        raise MisuseError("TLS needs an identity that was loaded from files")
    stem = identity.folder / identity.name
    try:
        context.load_cert_chain(f"{stem}.crt", f"{stem}.key")
    except (OSError, ssl.SSLError) as error:
        raise IdentityError(f"{stem}.crt and .key cannot be used for TLS: {error}") from error


def _write_key(folder: Path, name: str, key: Ed25519PrivateKey) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(folder / f"{name}.key", pem)


def only_name(folder: Path) -> str:
    """Whose identity a folder holds.

    Raises:
        IdentityError: it holds no key, or several.
    """
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


def _read_certificates(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(file))
    except ValueError as error:
        raise IdentityError(f"{file} is not a PEM certificate; copy it again") from error


def read_key(file: Path) -> Ed25519PrivateKey:
    """A private key.

    Raises:
        IdentityError: it cannot be read, others can read it, or it is none of ours.
    """
    pem = _read(file)
    if stat.S_IMODE(file.stat().st_mode) & ~PRIVATE_MODE:
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
