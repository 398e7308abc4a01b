import datetime as dt
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from protocol import certificates
from protocol.certificates import FleetTrust, Role
from protocol.errors import CertificateError
from protocol.ids import UnixTime
from registrar.authority import FleetAuthority

NOW = UnixTime(1_900_000_000.0)
YEAR = 365 * 86_400

ENTROPY = random.Random(3).randbytes
AUTHORITY = FleetAuthority.create("demo", NOW, ENTROPY)
ROOT = AUTHORITY.root.public_bytes(Encoding.DER)
DEVICE = AUTHORITY.issue("d1", Role.DEVICE)


def refused(der: bytes, *, role: Role = Role.DEVICE, now: UnixTime = NOW) -> str:
    with pytest.raises(CertificateError) as caught:
        FleetTrust(ROOT).verify(der, role=role, now=now)
    return str(caught.value)


@dataclass(frozen=True)
class Forger:
    """Writes certificates that the authority would not, signed with its real key unless told otherwise."""

    subject: tuple[tuple[ObjectIdentifier, str], ...] = (
        (NameOID.ORGANIZATION_NAME, "demo"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "device"),
        (NameOID.COMMON_NAME, "d1"),
    )
    issuer: x509.Name = AUTHORITY.root.subject
    authority: bool | None = False
    extension: x509.ExtensionType | None = None
    signer: Ed25519PrivateKey | ec.EllipticCurvePrivateKey = AUTHORITY._key
    holder: Ed25519PrivateKey | ec.EllipticCurvePrivateKey = DEVICE.private_key

    def write(self) -> bytes:
        start = dt.datetime.fromtimestamp(NOW, tz=dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(oid, text) for oid, text in self.subject]))
            .issuer_name(self.issuer)
            .public_key(self.holder.public_key())
            .serial_number(7)
            .not_valid_before(start)
            .not_valid_after(start + dt.timedelta(days=1))
        )
        if self.authority is not None:
            builder = builder.add_extension(x509.BasicConstraints(self.authority, None), critical=True)
        if self.extension is not None:
            builder = builder.add_extension(self.extension, critical=True)
        algorithm = None if isinstance(self.signer, Ed25519PrivateKey) else hashes.SHA256()
        return builder.sign(self.signer, algorithm).public_bytes(Encoding.DER)

    def named(self, oid: ObjectIdentifier, text: str) -> "Forger":
        others = tuple(one for one in self.subject if one[0] != oid)
        return replace(self, subject=(*others, (oid, text)))


def test_a_device_of_the_fleet_is_known_by_its_certificate() -> None:
    trust = FleetTrust(ROOT)

    certificate = trust.verify(DEVICE.certificate, role=Role.DEVICE, now=NOW)

    assert trust.fleet == "demo"
    assert (certificate.subject, certificate.role, certificate.fleet) == ("d1", Role.DEVICE, "demo")
    assert certificate.public_key == DEVICE.private_key.public_key().public_bytes_raw()
    assert (certificate.not_before, certificate.generation) == (NOW, 0)
    assert len(certificate.digest) == 32


def test_a_coordinator_carries_its_generation() -> None:
    identity = AUTHORITY.issue("coordinator", Role.COORDINATOR, generation=2**32 - 1)

    certificate = FleetTrust(ROOT).verify(identity.certificate, role=Role.COORDINATOR, now=NOW)

    assert certificate.generation == 2**32 - 1


def test_a_device_is_not_a_coordinator() -> None:
    assert refused(DEVICE.certificate, role=Role.COORDINATOR) == "d1 is a device, not a coordinator"


def test_another_fleet_is_not_this_fleet() -> None:
    same_name = FleetAuthority.create("demo", NOW, ENTROPY).issue("d1", Role.DEVICE)
    other_name = FleetAuthority.create("other", NOW, ENTROPY).issue("d1", Role.DEVICE)

    assert "signature is not by this fleet's root" in refused(same_name.certificate)
    assert "not issued by this fleet's root" in refused(other_name.certificate)


@pytest.mark.parametrize(
    ("seconds", "cause"),
    [(-301, "not valid yet"), (YEAR + 301, "has expired")],
)
def test_dates_hold_with_five_minutes_of_skew(seconds: float, cause: str) -> None:
    assert cause in refused(DEVICE.certificate, now=UnixTime(NOW + seconds))
    inside = UnixTime(NOW + seconds - (2 if seconds > 0 else -2))
    assert FleetTrust(ROOT).verify(DEVICE.certificate, role=Role.DEVICE, now=inside).subject == "d1"


def test_a_remembered_certificate_expires_all_the_same() -> None:
    trust = FleetTrust(ROOT)
    trust.verify(DEVICE.certificate, role=Role.DEVICE, now=NOW)

    with pytest.raises(CertificateError, match="expired"):
        trust.verify(DEVICE.certificate, role=Role.DEVICE, now=UnixTime(NOW + 2 * YEAR))
    with pytest.raises(CertificateError, match="not a coordinator"):
        trust.verify(DEVICE.certificate, role=Role.COORDINATOR, now=NOW)


def test_a_signature_is_checked_once_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    check = certificates.check_signed

    def counting(parsed: x509.Certificate, *, by: x509.Certificate) -> None:
        checked.append(parsed.subject.rfc4514_string())
        check(parsed, by=by)

    trust = FleetTrust(ROOT)
    monkeypatch.setattr(certificates, "check_signed", counting)
    monkeypatch.setattr(certificates, "MAX_REMEMBERED", 2)
    first, second, third = (AUTHORITY.issue(f"m{i}", Role.DEVICE).certificate for i in range(3))

    for der in (first, first, second, first, third, first, second):
        trust.verify(der, role=Role.DEVICE, now=NOW)

    # The third pushed out the second, which was used less recently than the first.
    assert [name.split("CN=")[1][:2] for name in checked] == ["m0", "m1", "m2", "m1"]


@pytest.mark.parametrize(
    ("forger", "cause"),
    [
        (Forger().named(NameOID.ORGANIZATION_NAME, "other"), "is of fleet other, not demo"),
        (Forger().named(NameOID.ORGANIZATIONAL_UNIT_NAME, "king"), "'king' is not a role"),
        (Forger().named(NameOID.COMMON_NAME, "D 1"), "is not a name"),
        (Forger().named(NameOID.COMMON_NAME, "d1\n"), "is not a name"),
        (Forger().named(NameOID.SERIAL_NUMBER, "1"), "a device has no generation"),
        (Forger(subject=Forger().subject[:2]), "is not a name"),
        (Forger(subject=(*Forger().subject, (NameOID.COMMON_NAME, "d2"))), "twice"),
        (Forger(subject=(Forger().subject[0], Forger().subject[2])), "is not a role"),
        (Forger(authority=True), "is an authority's"),
        (Forger(authority=None), "no basic constraints"),
        (Forger(extension=x509.InhibitAnyPolicy(0)), "critical extension"),
        (Forger(holder=ec.derive_private_key(9, ec.SECP256R1())), "key is not Ed25519"),
        (Forger(signer=ec.derive_private_key(9, ec.SECP256R1())), "not signed with Ed25519"),
        (Forger(signer=DEVICE.private_key), "signature is not by"),
    ],
)
def test_what_the_profile_forbids_is_refused(forger: Forger, cause: str) -> None:
    assert cause in refused(forger.write())


@pytest.mark.parametrize("generation", ["-1", "4294967296", "01", "1e3", ""])
def test_a_generation_must_be_a_plain_number(generation: str) -> None:
    forged = Forger().named(NameOID.ORGANIZATIONAL_UNIT_NAME, "coordinator")
    forged = forged.named(NameOID.SERIAL_NUMBER, "1")
    assert FleetTrust(ROOT).verify(forged.write(), role=Role.COORDINATOR, now=NOW).generation == 1

    wrong = forged.named(NameOID.SERIAL_NUMBER, generation)

    assert "must be its generation" in refused(wrong.write(), role=Role.COORDINATOR)


def test_a_device_cannot_issue() -> None:
    device_name = x509.load_der_x509_certificate(DEVICE.certificate).subject

    assert "not issued by" in refused(Forger(issuer=device_name, signer=DEVICE.private_key).write())


# A changed serial number may be zero, which `cryptography` will refuse one day and deprecates today.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_no_bit_of_a_certificate_can_be_changed() -> None:
    trust = FleetTrust(ROOT)
    for bit in range(8 * len(DEVICE.certificate)):
        changed = bytearray(DEVICE.certificate)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CertificateError):
            trust.verify(bytes(changed), role=Role.DEVICE, now=NOW)


@pytest.mark.parametrize("der", [b"", b"\x30", DEVICE.certificate[:-1], DEVICE.certificate + b"\x00"])
def test_bytes_that_are_no_certificate_are_malformed(der: bytes) -> None:
    assert "malformed" in refused(der)


def test_an_oversized_certificate_is_not_even_parsed() -> None:
    assert "more than 2048" in refused(bytes(2049))


def test_only_a_root_can_be_pinned() -> None:
    with pytest.raises(CertificateError, match="not issued by"):
        FleetTrust(DEVICE.certificate)
    lone = Forger(
        issuer=x509.Name([x509.NameAttribute(o, t) for o, t in Forger().subject]), signer=DEVICE.private_key
    )
    with pytest.raises(CertificateError, match="is not an authority's"):
        FleetTrust(lone.write())


def test_two_threads_may_read_certificates_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop reads frames while a thread checks a cohort, and what one remembers the other may forget."""
    monkeypatch.setattr(certificates, "MAX_REMEMBERED", 2)
    ders = [AUTHORITY.issue(f"d{number}", Role.DEVICE).certificate for number in range(3)]
    trust = FleetTrust(ROOT)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as threads:
            reads = threads.map(lambda number: trust.read(ders[number % 3]).subject, range(3_000))
            assert set(reads) == {"d0", "d1", "d2"}
    finally:
        sys.setswitchinterval(before)
