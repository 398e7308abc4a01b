"""Registrars, what they may issue, and how they take it back."""

import random
from collections.abc import Mapping

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.certificates import FleetTrust
from protocol.errors import CertificateError, MisuseError
from protocol.ids import UnixTime
from protocol.revocations import MAX_SEQUENCE, encode_revocations
from protocol.roles import Role, fits
from registrar.authority import YEAR, FleetAuthority
from runtime.identity import Identity

NOW = UnixTime(1_900_000_000.0)
DAY = 86_400.0
ENTROPY = random.Random(5).randbytes
ROOT = FleetAuthority.create("demo", NOW, ENTROPY)
REGISTRAR = ROOT.issue("registrar", Role.REGISTRAR)


def registrar(now: float = NOW, identity: Identity = REGISTRAR) -> FleetAuthority:
    return FleetAuthority.of_registrar(identity, UnixTime(now), ENTROPY)


def message(
    sequence: int, *, revoked: Mapping[int, UnixTime] | None = None, by: FleetAuthority | None = None
) -> bytes:
    by = by or registrar()
    made = by.revocation_list(sequence, revoked or {}, UnixTime(NOW + 7 * DAY))
    return encode_revocations(by.certificate.public_bytes(Encoding.DER), made.public_bytes(Encoding.DER))


def serial(identity: Identity) -> int:
    return x509.load_der_x509_certificate(identity.certificate).serial_number


DEVICE = registrar().issue("pi-1", Role.DEVICE)


def trusting(*messages: bytes) -> FleetTrust:
    trust = FleetTrust(REGISTRAR.root)
    for one in messages:
        trust.heed(one)
    return trust


def refused(trust: FleetTrust, der: bytes, role: Role = Role.DEVICE, now: float = NOW) -> str:
    with pytest.raises(CertificateError) as caught:
        trust.verify(der, role=role, now=UnixTime(now))
    return str(caught.value)


def unheeded(trust: FleetTrust, data: bytes) -> str:
    with pytest.raises(CertificateError) as caught:
        trust.heed(data)
    return str(caught.value)


def test_a_device_of_a_registrar_counts_under_its_list() -> None:
    trust = trusting(message(1))

    certificate = trust.verify(DEVICE.certificate, role=Role.DEVICE, now=NOW)

    assert certificate.subject == "pi-1"
    assert certificate.issuer == REGISTRAR.private_key.public_key().public_bytes_raw()
    assert trust.sequence == 1


def test_without_a_list_it_does_not_count() -> None:
    assert "not issued by this fleet" in refused(FleetTrust(REGISTRAR.root), DEVICE.certificate)
    known = FleetTrust(REGISTRAR.root, REGISTRAR.certificate)
    assert known.read(DEVICE.certificate).subject == "pi-1"
    assert "has not arrived yet" in refused(known, DEVICE.certificate)


def test_a_revoked_device_does_not_count_from_the_next_list_on() -> None:
    trust = trusting(message(1))
    trust.verify(DEVICE.certificate, role=Role.DEVICE, now=NOW)

    assert trust.heed(message(2, revoked={serial(DEVICE): NOW}))

    assert "was revoked" in refused(trust, DEVICE.certificate)
    again = registrar().issue("pi-1", Role.DEVICE)
    assert trust.verify(again.certificate, role=Role.DEVICE, now=NOW).subject == "pi-1"


def test_under_an_expired_list_nobody_counts() -> None:
    trust = trusting(message(1))
    assert "list 1 has expired" in refused(trust, DEVICE.certificate, now=NOW + 8 * DAY)
    with pytest.raises(CertificateError, match="has expired"):
        trust.check_list(UnixTime(NOW + 8 * DAY))


def test_an_older_list_is_noticed_and_the_same_one_is_no_news() -> None:
    second = message(2)
    trust = trusting(second)
    assert not trust.heed(second)
    assert "list 1 came after list 2" in unheeded(trust, message(1))
    assert "list 2 came after list 2" in unheeded(trust, message(2, revoked={7: NOW}))
    assert trust.sequence == 2


def test_a_stolen_registrar_is_outdone_by_one_that_the_root_signs_later() -> None:
    """Whatever number it has gone to; the root decides who the registrar is."""
    thief = trusting(message(MAX_SEQUENCE - 1))
    later = FleetAuthority(ROOT.root, ROOT._key, UnixTime(NOW + DAY), ENTROPY)
    second = registrar(identity=later.issue("registrar-2", Role.REGISTRAR))
    assert thief.heed(message(1, by=second))
    assert thief.sequence == 1
    assert "registrar, a registrar of the past" in unheeded(thief, message(7))
    anew = second.issue("pi-1", Role.DEVICE)
    assert thief.verify(anew.certificate, role=Role.DEVICE, now=UnixTime(NOW + DAY)).subject == "pi-1"
    with pytest.raises(CertificateError):
        thief.verify(DEVICE.certificate, role=Role.DEVICE, now=UnixTime(NOW + DAY))


def test_the_root_counts_without_a_list() -> None:
    coordinator = ROOT.issue("coordinator", Role.COORDINATOR, 1)
    assert trusting().verify(coordinator.certificate, role=Role.COORDINATOR, now=NOW).issuer == b""


@pytest.mark.parametrize("role", [Role.COORDINATOR, Role.REGISTRAR, Role.WATCH, Role.BROKER])
def test_a_registrar_cannot_make_others_than_devices_and_claims(role: Role) -> None:
    minted = registrar().issue(role, role)
    assert f"a registrar issued the certificate of a {role}" in refused(
        trusting(message(1)), minted.certificate, role
    )


def test_a_registrar_of_a_registrar_is_none() -> None:
    second = registrar().issue("registrar-2", Role.REGISTRAR)
    data = message(1, by=registrar(identity=second))
    assert "not issued by this fleet" in unheeded(trusting(), data)


def test_only_a_registrar_has_lists() -> None:
    coordinator = ROOT.issue("coordinator", Role.COORDINATOR, 1)
    assert "is not an authority" in unheeded(trusting(), message(1, by=registrar(identity=coordinator)))
    assert "not a role" in unheeded(trusting(), message(1, by=ROOT))


def test_a_list_of_another_fleet_or_signer_is_refused() -> None:
    stranger = FleetAuthority.create("demo", NOW, ENTROPY)
    theirs = FleetAuthority.of_registrar(stranger.issue("registrar", Role.REGISTRAR), NOW, ENTROPY)
    assert "signature is not by this fleet" in unheeded(trusting(), message(1, by=theirs))
    forged = theirs.revocation_list(1, {}, UnixTime(NOW + DAY)).public_bytes(Encoding.DER)
    assert "signature is not the registrar's" in unheeded(
        trusting(), encode_revocations(REGISTRAR.certificate, forged)
    )


def test_under_an_expired_registrar_nobody_counts() -> None:
    trust = trusting(message(1))
    with pytest.raises(CertificateError, match="registrar's certificate is not valid now"):
        trust.check_list(UnixTime(NOW + YEAR + 301))


def test_a_list_that_comes_before_the_time_counts_when_it_is_right() -> None:
    trust = trusting(message(1))
    assert "not valid yet" in refused(trust, DEVICE.certificate, now=0.0)
    with pytest.raises(CertificateError, match="is not valid now"):
        trust.check_list(UnixTime(0.0))
    assert trust.verify(DEVICE.certificate, role=Role.DEVICE, now=NOW).subject == "pi-1"


def test_garbage_is_refused() -> None:
    for data in (b"", b"\x92\xc4\x00\xc4\x00", encode_revocations(REGISTRAR.certificate, b"\x30\x00")):
        with pytest.raises(CertificateError):
            trusting().heed(data)
    whole = message(1)
    chance = random.Random(1)
    for _ in range(300):
        at = chance.randrange(len(whole))
        changed = whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1 :]
        with pytest.raises(CertificateError):
            trusting().heed(changed)


@pytest.mark.parametrize("extension", [x509.DeltaCRLIndicator(1), None])
def test_a_list_that_is_not_the_whole_one_is_refused(extension: x509.ExtensionType | None) -> None:
    by = registrar()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(by.certificate.subject)
        .last_update(by.certificate.not_valid_before_utc)
        .next_update(by.certificate.not_valid_after_utc)
    )
    if extension is not None:
        builder = builder.add_extension(x509.CRLNumber(1), critical=False).add_extension(
            extension, critical=True
        )
    made = builder.sign(by._key, None).public_bytes(Encoding.DER)
    expected = "critical extension" if extension is not None else "has no number"
    assert expected in unheeded(trusting(), encode_revocations(REGISTRAR.certificate, made))


def test_names_tell_roles() -> None:
    assert fits("pi-1", Role.DEVICE)
    assert fits("watchtower", Role.DEVICE)
    assert not fits("coordinator", Role.DEVICE)
    assert not fits("watch-pi", Role.DEVICE)
    assert fits("watch-alice", Role.WATCH)
    assert not fits("alice", Role.WATCH)
    with pytest.raises(MisuseError, match="the name says another role"):
        ROOT.issue("registrar-pi", Role.DEVICE)
    with pytest.raises(MisuseError, match='a watch is called "watch"'):
        ROOT.issue("alice", Role.WATCH)
