"""Issuing certificates and revocation lists: what a fleet's root and its registrar can do."""

import datetime as dt
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.errors import MisuseError
from protocol.ids import NAME_PATTERN, UnixTime
from protocol.roles import Role, fits
from runtime.identity import Identity

YEAR = 365 * 86_400.0
"""How long a certificate is valid unless told otherwise, in seconds."""

# RFC 5280, section 4.1.2.2: positive and at most 20 octets.
_SERIAL_BYTES = 19

Entropy = Callable[[int], bytes]


class FleetAuthority:
    """A fleet's root, or its registrar, with its private key.

    Args:
        root: the fleet's certificate.
        key: the private key: the root's, or the registrar's.
        now: wall clock at which what it issues becomes valid.
        entropy: gives that many unpredictable bytes.
        registrar: its certificate; None for the root itself.
    """

    def __init__(
        self,
        root: x509.Certificate,
        key: Ed25519PrivateKey,
        now: UnixTime,
        entropy: Entropy,
        registrar: x509.Certificate | None = None,
    ) -> None:
        self.root = root
        self.registrar = registrar
        self._key = key
        self._now = now
        self._entropy = entropy

    @classmethod
    def create(
        cls, fleet: str, now: UnixTime, entropy: Entropy, *, lifetime: float = YEAR
    ) -> "FleetAuthority":
        """Make a new fleet with a root of its own.

        Raises:
            MisuseError: `fleet` is not 1 to 64 of [a-z0-9_-].
        """
        _check_name(fleet)
        key = Ed25519PrivateKey.from_private_bytes(entropy(32))
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, fleet)])
        builder = _builder(subject, subject, key.public_key(), (now, UnixTime(now + lifetime)), entropy)
        root = _usable(builder, None).sign(key, None)
        return cls(root, key, now, entropy)

    @classmethod
    def of_registrar(cls, identity: Identity, now: UnixTime, entropy: Entropy) -> "FleetAuthority":
        """What a registrar can do with its identity."""
        root, own = map(x509.load_der_x509_certificate, (identity.root, identity.certificate))
        return cls(root, identity.private_key, now, entropy, own)

    @property
    def certificate(self) -> x509.Certificate:
        """Its own."""
        return self.registrar or self.root

    @property
    def fleet(self) -> str:
        """Name of the fleet."""
        return str(self.root.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value)

    def key_pem(self, passphrase: bytes | None) -> bytes:
        """The private key, PEM (PKCS #8), encrypted unless the passphrase is None."""
        encryption = BestAvailableEncryption(passphrase) if passphrase is not None else NoEncryption()
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def issue(
        self,
        name: str,
        role: Role,
        generation: int = 0,
        *,
        addresses: Sequence[str] = (),
        lifetime: float = YEAR,
    ) -> Identity:
        """Make a key and a certificate for it; arguments and errors as for `certify`."""
        key = Ed25519PrivateKey.from_private_bytes(self._entropy(32))
        valid = (self._now, UnixTime(self._now + lifetime))
        certificate = self.certify(
            key.public_key(), name, role, valid, generation=generation, addresses=addresses
        )
        return Identity(
            name=name,
            certificate=certificate,
            root=self.root.public_bytes(Encoding.DER),
            private_key=key,
            registrar=self.registrar.public_bytes(Encoding.DER) if self.registrar else None,
        )

    def certify(
        self,
        key: Ed25519PublicKey,
        name: str,
        role: Role,
        valid: tuple[UnixTime, UnixTime],
        *,
        generation: int = 0,
        addresses: Sequence[str] = (),
    ) -> bytes:
        """Sign a certificate for somebody's key.

        Args:
            key: the holder's, who has proved to have its private part.
            name: 1 to 64 of [a-z0-9_-].
            role: what the holder may do.
            valid: first and last moment.
            generation: of a coordinator, 0 to 2^32 - 1.
            addresses: DNS names and IP addresses under which a broker is reached.

        Returns:
            The certificate, DER.

        Raises:
            MisuseError: `name` is something else, or does not go with the role.
        """
        _check_name(name)
        # A claim in a device's name is how a registrar pushes that device's session out at a broker.
        if not (fits(name, role) or (role is Role.CLAIM and fits(name, Role.DEVICE))):
            raise MisuseError(_misnamed(name, role))
        attributes = [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.fleet),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
        if role is Role.COORDINATOR:
            attributes.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, str(generation)))
        builder = _builder(x509.Name(attributes), self.certificate.subject, key, valid, self._entropy)
        if addresses:
            alternative = x509.SubjectAlternativeName([_general_name(one) for one in addresses])
            builder = builder.add_extension(alternative, critical=False)
        return _usable(builder, role).sign(self._key, None).public_bytes(Encoding.DER)

    def revocation_list(
        self, sequence: int, revoked: Mapping[int, UnixTime], expires: UnixTime
    ) -> x509.CertificateRevocationList:
        """Sign a list (RFC 5280, section 5).

        Args:
            sequence: its number, from 1, larger than that of the list before.
            revoked: when each serial number was taken back.
            expires: when a newer list must have come.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(_moment(self._now))
            .next_update(_moment(expires))
            .add_extension(x509.CRLNumber(sequence), critical=False)
        )
        for serial, moment in sorted(revoked.items()):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_moment(moment))
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, None)


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise MisuseError(f'"{name}" is not a name; write 1 to 64 of a-z, 0-9, _ and -')


def _misnamed(name: str, role: Role) -> str:
    if role is Role.DEVICE:
        return f'a device cannot be called "{name}": the name says another role; choose another'
    return f'a {role} is called "{role}", or "{role}-" and more; not "{name}"'


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: Ed25519PublicKey,
    valid: tuple[UnixTime, UnixTime],
    entropy: Entropy,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(int.from_bytes(entropy(_SERIAL_BYTES)) + 1)
        .not_valid_before(_moment(valid[0]))
        .not_valid_after(_moment(valid[1]))
    )


def _usable(builder: x509.CertificateBuilder, role: Role | None) -> x509.CertificateBuilder:
    """What the key may be used for; None is the root.

    A registrar signs certificates, and messages; a broker is a server of TLS and nobody else is, so that no
    device can play the broker.
    """
    authority = role in {None, Role.REGISTRAR}
    usage = x509.KeyUsage(
        digital_signature=role is not None,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    length = 0 if role is Role.REGISTRAR else None
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=length), critical=True)
    builder = builder.add_extension(usage, critical=True)
    if role is None:
        return builder
    end = ExtendedKeyUsageOID.SERVER_AUTH if role is Role.BROKER else ExtendedKeyUsageOID.CLIENT_AUTH
    return builder.add_extension(x509.ExtendedKeyUsage([end]), critical=False)


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _moment(unix: UnixTime) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(unix), tz=dt.UTC)
