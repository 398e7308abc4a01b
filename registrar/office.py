"""What a registrar decides: who gets a certificate, and what the next revocation list says.

No network and no clock: each call is told the time, and is one transaction of the store.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.certificates import FleetTrust, Role
from protocol.enrolment import (
    CLAIM,
    Applicant,
    Claim,
    Enrolled,
    EnrolmentRefused,
    EnrolmentRequest,
    FromRegistrar,
    check_device_name,
    read_csr,
)
from protocol.errors import CertificateError, RequestError
from protocol.frames import Opened
from protocol.ids import UnixTime
from protocol.messages import MAX_REASON
from protocol.revocations import MAX_LIST, encode_revocations, read_registrar, read_revocations
from registrar.authority import YEAR, FleetAuthority
from registrar.store import DeviceRecord, RegistrarStore, SignedList
from runtime.identity import Identity

DAY = 86_400.0

CLOCK_MARGIN = 300.0
"""Seconds that a broker's clock may be behind ours: certificates of minutes are valid so long ago, too."""


@dataclass(frozen=True, slots=True)
class Terms:
    """For how long what a registrar signs is good, in seconds.

    Attributes:
        certificate: a device's; never beyond the registrar's own.
        revocations: a revocation list.
    """

    certificate: float = YEAR
    revocations: float = 7 * DAY


class Office:
    """A registrar's decisions.

    Args:
        identity: the registrar's.
        store: what it remembers.
        entropy: gives that many unpredictable bytes.
        terms: how long its signatures are good.

    Attributes:
        trust: whom it believes: the fleet's root, and itself under its own newest list.
        refused: requests that broke a rule.

    Raises:
        CertificateError: the identity is not a registrar's.
    """

    def __init__(
        self,
        identity: Identity,
        store: RegistrarStore,
        entropy: Callable[[int], bytes],
        terms: Terms | None = None,
    ) -> None:
        self.identity = identity
        self.store = store
        self.trust = FleetTrust(identity.root, identity.certificate)
        self.refused = 0
        self._root = x509.load_der_x509_certificate(identity.root)
        self._own = read_registrar(identity.certificate, self._root)
        self._entropy = entropy
        self._terms = terms or Terms()

    def check_dates(self, now: UnixTime) -> None:
        """The registrar's own certificate must be in its dates.

        Raises:
            CertificateError: it is not.
        """
        if not self._own.not_before <= now <= self._own.not_after:
            raise CertificateError(
                "the registrar's certificate is not valid now; run `fedfleet ca renew`, or check the clock"
            )

    # Tokens.

    def give_claim(self, now: UnixTime, lifetime: float, name: str | None = None) -> Claim:
        """Make a claim: one device's right to enrol. Only its digest is kept here.

        Args:
            now: wall clock.
            lifetime: seconds for which it can be used.
            name: that the device must have; None lets it choose.

        Raises:
            RequestError: the name is no device's, or taken.
            CertificateError: the registrar's certificate is not valid now.
        """
        self.check_dates(now)
        if name is not None and self.store.standing(check_device_name(name)):
            raise RequestError(f"the name {name} is taken; choose another, or revoke its device first")
        expires = UnixTime(min(now + lifetime, self._own.not_after))
        issued = self._claim(CLAIM, now, expires)
        self.store.add_claim(hashlib.sha256(issued.certificate).digest(), expires, name)
        key = issued.private_key.private_bytes_raw()
        return Claim(issued.root, self.identity.certificate, issued.certificate, key, name)

    def takeover_identity(self, name: str, now: UnixTime) -> Identity:
        """An identity with a device's name that can do nothing but push the device's session out."""
        return self._claim(name, now, UnixTime(now + CLOCK_MARGIN))

    def _claim(self, name: str, now: UnixTime, expires: UnixTime) -> Identity:
        start = UnixTime(now - CLOCK_MARGIN)
        return self._authority(start).issue(name, Role.CLAIM, lifetime=expires - start)

    # Requests.

    def answer(self, request: Opened[EnrolmentRequest], now: UnixTime) -> FromRegistrar:
        """Decide on a request whose frame was verified.

        Returns:
            The certificate, or why there is none.
        """
        try:
            applicant = read_csr(request.message.csr)
            with self.store.transaction():
                if request.signer.role is Role.CLAIM:
                    certificate = self._enrol(request.signer.digest, applicant, now)
                else:
                    certificate = self._renew(request, applicant, now)
        except RequestError as error:
            self.refused += 1
            return EnrolmentRefused(hashlib.sha256(request.body).digest(), str(error)[:MAX_REASON])
        return Enrolled(certificate, self.identity.certificate, self.current_list.message)

    def enrol_by_hand(self, csr: bytes, now: UnixTime) -> bytes:
        """Give a certificate to a device whose request somebody has brought; asked again, the same.

        Returns:
            The certificate, DER.

        Raises:
            RequestError: it breaks a rule.
            CertificateError: the registrar's certificate is not valid now.
        """
        self.check_dates(now)
        applicant = read_csr(csr)
        with self.store.transaction():
            known = self.store.standing(applicant.name)
            if known is not None and known.key == applicant.key.public_bytes_raw():
                return known.certificate
            return self._admit(applicant, now)[1]

    def _enrol(self, digest: bytes, applicant: Applicant, now: UnixTime) -> bytes:
        claim = self.store.claim(digest)
        if claim is None:
            raise RequestError("the token is not known here; make one with `fedfleet device enroll`")
        if claim.used_by is not None:
            return self._again(self.store.device(claim.used_by), applicant)
        if now > claim.expires:
            raise RequestError("the token has expired; make a new one with `fedfleet device enroll`")
        if claim.name not in {None, applicant.name}:
            raise RequestError(f"the token is for a device called {claim.name}")
        device, certificate = self._admit(applicant, now)
        self.store.use_claim(digest, device)
        return certificate

    def _again(self, device: DeviceRecord | None, applicant: Applicant) -> bytes:
        """The answer may have been lost: who had the certificate may have it again."""
        if device is None or (device.name, device.key) != (applicant.name, applicant.key.public_bytes_raw()):
            raise RequestError("the token was used by another device; a token is good for one")
        if device.revoked is not None:
            raise RequestError(f"{device.name} was revoked")
        return device.certificate

    def _admit(self, applicant: Applicant, now: UnixTime) -> tuple[int, bytes]:
        enrolled = UnixTime(int(now))  # as its certificate will say
        device = self.store.add_device(applicant.name, applicant.key.public_bytes_raw(), enrolled)
        return device, self._certify(device, applicant, enrolled, now)

    def _renew(self, request: Opened[EnrolmentRequest], applicant: Applicant, now: UnixTime) -> bytes:
        device = self.store.standing(request.sender)
        if device is None or device.key != request.signer.public_key:
            raise RequestError(f"{request.sender} is not enrolled here; it must join anew")
        if (device.name, device.key) != (applicant.name, applicant.key.public_bytes_raw()):
            raise RequestError("a certificate is renewed under the same name and key only")
        # Asked early, or again: a device that asks all the time gets nothing new.
        if device.not_after >= min(now + self._terms.certificate / 2, self._own.not_after):
            return device.certificate
        return self._certify(device.id, applicant, device.enrolled, now)

    def _certify(self, device: int, applicant: Applicant, enrolled: UnixTime, now: UnixTime) -> bytes:
        """A certificate's first moment stays that of the enrolment, which others may go by."""
        until = UnixTime(int(min(now + self._terms.certificate, self._own.not_after)))
        der = self._authority(now).certify(applicant.key, applicant.name, Role.DEVICE, (enrolled, until))
        self.store.add_certificate(device, self.trust.read(der).serial, until, der)
        return der

    # Revocation lists.

    @property
    def current_list(self) -> SignedList:
        """The newest; signed now if there was none."""
        newest = self.store.newest_list()
        if newest is None:
            raise CertificateError("no revocation list was signed yet; start `fedfleet registrar` once")
        return newest

    def unlisted(self, now: UnixTime) -> bool:
        """Whether a certificate was taken back of which the newest list does not tell."""
        known = self.trust.revocations
        return known is None or not self.store.revocations(now).keys() <= known.serials

    def sign_list(self, now: UnixTime) -> SignedList:
        """Sign a new list, and go by it.

        Its time of signing should be in a later second than that of the list before: TLS takes the list with
        the later time, which it reads in seconds.

        Raises:
            CertificateError: the registrar's certificate is not valid now.
        """
        self.check_dates(now)
        with self.store.transaction():
            newest = self.store.newest_list()
            sequence = newest.sequence + 1 if newest else 1
            revoked = self.store.revocations(now)
            expires = UnixTime(now + self._terms.revocations)
            crl = self._authority(now).revocation_list(sequence, revoked, expires)
            message = encode_revocations(self.identity.certificate, crl.public_bytes(Encoding.DER))
            if len(message) > MAX_LIST:
                raise CertificateError(
                    f"{len(revoked)} revoked certificates are more than a list can hold; give devices "
                    "certificates of fewer days (--certificate-days), so that revoked ones expire sooner"
                )
            signed = SignedList(sequence, UnixTime(int(now)), message)
            self.store.keep_list(signed)
            self.store.forget_claims(UnixTime(now - DAY))
        self.trust.heed(message)
        return signed

    def learn(self, message: bytes, now: UnixTime) -> bool:
        """Look at the list that is published: this store may be an old copy that has forgotten the newest.

        What that list takes back stays taken back.

        Returns:
            Whether a newer one must be signed.

        Raises:
            CertificateError: it is not a list of this fleet.
        """
        found = read_revocations(message, self._root)
        if found.registrar.key != self._own.key:
            # One of the past counts no more, whatever its number: ours is said again.
            return found.registrar.not_before < self._own.not_before
        with self.store.transaction():
            newest = self.store.newest_list()
            if newest and (found.sequence < newest.sequence or found.message == newest.message):
                return False
            for serial in found.serials:
                self.store.add_revocation(serial, now, self._own.not_after)
            signed = newest.signed if newest else UnixTime(0.0)
            self.store.keep_list(SignedList(found.sequence, signed, found.message))
        return True

    def _authority(self, now: UnixTime) -> FleetAuthority:
        return FleetAuthority.of_registrar(self.identity, now, self._entropy)
