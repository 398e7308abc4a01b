"""Who is who in a fleet, and whom to believe: certificates under the fleet's pinned root.

The root signs for coordinators, registrars and whoever the broker lets in; it is offline. A registrar signs
for devices. What a registrar has signed counts only under its current revocation list: without one, an
expired one, or listed there, it is worth nothing.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from protocol.certificate_profile import (
    MAX_CERTIFICATE,
    check_authority,
    check_signed,
    generation_of,
    key_of,
    name_of,
    parse,
    role_of,
)
from protocol.errors import CertificateError
from protocol.ids import DeviceId, UnixTime
from protocol.revocations import Registrar, RevocationList, read_registrar, read_revocations
from protocol.roles import REGISTRARS, Role, fits

__all__ = ["MAX_CERTIFICATE", "Certificate", "FleetTrust", "Role"]

# Verified certificates remembered: four of the largest cohorts, about 1 MB.
MAX_REMEMBERED = 4096

# Devices without a clock of their own drift between time synchronisations.
MAX_CLOCK_SKEW = 300.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says, its signature verified.

    Attributes:
        subject: the holder's name.
        role: what it may do.
        fleet: that it belongs to.
        public_key: raw Ed25519, 32 bytes.
        not_before: first moment of validity: for a device, when it was enrolled.
        not_after: last moment of validity.
        generation: of a coordinator, 0 to 2^32 - 1; 0 for the others.
        serial: number that a revocation list names it by.
        issuer: public key of the registrar that signed it; empty for the root.
        digest: SHA-256 of the DER bytes.
    """

    subject: DeviceId
    role: Role
    fleet: str
    public_key: bytes
    not_before: UnixTime
    not_after: UnixTime
    generation: int
    serial: int
    issuer: bytes
    digest: bytes

    def check(self, role: Role, now: UnixTime) -> None:
        """It must be of this role, and in its dates; five minutes of skew are tolerated.

        Raises:
            CertificateError: naming the cause.
        """
        if self.role is not role:
            raise CertificateError(f"{self.subject} is a {self.role}, not a {role}")
        if now < self.not_before - MAX_CLOCK_SKEW:
            raise CertificateError(f"{self.subject}'s certificate is not valid yet; check the clock")
        if now > self.not_after + MAX_CLOCK_SKEW:
            raise CertificateError(f"{self.subject}'s certificate has expired")


class FleetTrust:
    """The pinned root of one fleet, and what it vouches for.

    A certificate's signature is checked once; its digest is then remembered, so that a cohort of a thousand
    costs a thousand signatures in the first round only. Role, dates and revocation are checked every time.

    Args:
        root_der: the fleet's root certificate, DER.
        registrar_der: a registrar's, DER, where one is known before its list arrives.

    Attributes:
        fleet: its name.
        revocations: the newest revocation list; None where the fleet has no registrar, or it was not heard.

    Raises:
        CertificateError: the root is not a self-signed Ed25519 certificate authority of a fleet, or the
            registrar's certificate is not by it.
    """

    def __init__(self, root_der: bytes, registrar_der: bytes | None = None) -> None:
        root = parse(root_der)
        check_signed(root, by=root)
        check_authority(root, expected=True)
        self.fleet = name_of(root, NameOID.ORGANIZATION_NAME)
        self.revocations: RevocationList | None = None
        self._root = root
        self._registrar = read_registrar(registrar_der, root) if registrar_der else None
        self._verified: OrderedDict[bytes, Certificate] = OrderedDict()

    # Revocation lists.

    @property
    def sequence(self) -> int:
        """Number of the newest revocation list; 0 for none."""
        return self.revocations.sequence if self.revocations else 0

    def heed(self, message: bytes) -> bool:
        """Read a revocation list and take note of it; a long one takes tens of milliseconds.

        Args:
            message: as it was published.

        Returns:
            Whether it is newer than the one before.

        Raises:
            CertificateError: as `read_list` and `take_list`.
        """
        return self.take_list(self.read_list(message))

    def read_list(self, message: bytes) -> RevocationList:
        """Verify a revocation list. Nothing changes, so a thread may do it.

        Raises:
            CertificateError: it is not by a registrar of this fleet.
        """
        known = self.revocations
        return known if known and known.message == message else read_revocations(message, self._root)

    def take_list(self, offered: RevocationList) -> bool:
        """Go by a list that was read; its dates are judged whenever something depends on it.

        A device without a clock of its own may hear the list before it has the time.

        Returns:
            Whether it is newer than the one before.

        Raises:
            CertificateError: it is older than the one before, or another of the same number.
        """
        known = self.revocations
        if known is not None:
            if known.message == offered.message:
                return False
            _check_newer(offered, known)
        self.revocations, self._registrar = offered, offered.registrar
        return True

    def check_list(self, now: UnixTime) -> None:
        """The newest revocation list, if there is one, and its registrar must be in their dates.

        Raises:
            CertificateError: they are not.
        """
        known = self.revocations
        if known is None:
            return
        registrar = known.registrar
        if not registrar.not_before - MAX_CLOCK_SKEW <= now <= registrar.not_after + MAX_CLOCK_SKEW:
            raise CertificateError(
                "the registrar's certificate is not valid now; renew it, or check the clock"
            )
        if now > known.expires + MAX_CLOCK_SKEW:
            raise CertificateError(
                f"revocation list {known.sequence} has expired; is the registrar running and connected?"
            )

    def is_revoked(self, certificate: Certificate) -> bool:
        """Whether the newest list of its registrar takes it back."""
        known = self.revocations
        return (
            known is not None
            and certificate.issuer == known.registrar.key
            and certificate.serial in known.serials
        )

    def check_standing(self, certificate: Certificate, now: UnixTime) -> None:
        """What a registrar has signed must stand under its current list.

        Raises:
            CertificateError: there is no such list, or the certificate is on it.
        """
        if not certificate.issuer:
            return
        known = self.revocations
        if known is None:
            raise CertificateError("the registrar's revocation list has not arrived yet; is it running?")
        self.check_list(now)
        if certificate.issuer != known.registrar.key:
            raise CertificateError(f"{certificate.subject}'s certificate is by a registrar of the past")
        if self.is_revoked(certificate):
            raise CertificateError(f"{certificate.subject}'s certificate was revoked")

    # Certificates.

    def verify(self, der: bytes, *, role: Role, now: UnixTime) -> Certificate:
        """Read a certificate that this fleet vouches for now.

        Args:
            der: as received.
            role: that its holder must have.
            now: wall clock.

        Raises:
            CertificateError: naming the cause.
        """
        certificate = self.read(der)
        certificate.check(role, now)
        self.check_standing(certificate, now)
        return certificate

    def read(self, der: bytes) -> Certificate:
        """Read a certificate that this fleet has issued, whatever its role, dates and standing.

        Raises:
            CertificateError: naming the cause.
        """
        digest = hashlib.sha256(der).digest()
        # Another thread may read, too, and forget this one: nothing relies on what was there a line before.
        certificate = self._verified.pop(digest, None) or self._read(der, digest)
        self._verified[digest] = certificate
        if len(self._verified) > MAX_REMEMBERED:
            self._verified.popitem(last=False)
        return certificate

    def _read(self, der: bytes, digest: bytes) -> Certificate:
        parsed = parse(der)
        registrar = self._registrar_of(parsed)
        check_signed(parsed, by=registrar.certificate if registrar else self._root)
        fleet = name_of(parsed, NameOID.ORGANIZATION_NAME)
        if fleet != self.fleet:
            raise CertificateError(f"the certificate is of fleet {fleet}, not {self.fleet}")
        role = role_of(parsed)
        check_authority(parsed, expected=role is Role.REGISTRAR)
        if registrar and role not in REGISTRARS:
            raise CertificateError(f"a registrar issued the certificate of a {role}; only the root may")
        name = name_of(parsed, NameOID.COMMON_NAME)
        if role is Role.DEVICE and not fits(name, role):
            raise CertificateError(f"a device is called {name}, which only another role may be")
        return Certificate(
            subject=DeviceId(name),
            role=role,
            fleet=fleet,
            public_key=key_of(parsed).public_bytes_raw(),
            not_before=UnixTime(parsed.not_valid_before_utc.timestamp()),
            not_after=UnixTime(parsed.not_valid_after_utc.timestamp()),
            generation=generation_of(parsed, role),
            serial=parsed.serial_number,
            issuer=registrar.key if registrar else b"",
            digest=digest,
        )

    def _registrar_of(self, parsed: x509.Certificate) -> Registrar | None:
        """Whose signature to expect: the registrar's by its name, else the root's."""
        known = self._registrar
        return known if known is not None and parsed.issuer == known.certificate.subject else None


def _check_newer(offered: RevocationList, known: RevocationList) -> None:
    """Numbers compare the lists of one registrar; of two, the one counts that the root has signed later."""
    # Or a stolen one could go on with numbers that no other reaches.
    if offered.registrar.key != known.registrar.key:
        if offered.registrar.not_before <= known.registrar.not_before:
            raise CertificateError(f"the list is by {offered.registrar.name}, a registrar of the past")
    elif offered.sequence <= known.sequence:
        raise CertificateError(f"revocation list {offered.sequence} came after list {known.sequence}")
