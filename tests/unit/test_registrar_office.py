"""Who gets a certificate from the registrar, and what its lists say."""

import contextlib
import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from registry import DAY, NOW, Registry, claimant, key

from protocol.certificates import FleetTrust, Role
from protocol.enrolment import Enrolled, EnrolmentRefused, check_enrolled, write_csr
from protocol.errors import CertificateError, FrameError, RequestError
from protocol.ids import UnixTime
from protocol.revocations import MAX_SEQUENCE, encode_revocations, read_revocations
from registrar.authority import YEAR, FleetAuthority
from registrar.office import Terms
from registrar.store import RegistrarStore, StoreError


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "state")


def test_a_claim_enrols_one_device_and_says_since_when(registry: Registry) -> None:
    claim = registry.office.give_claim(NOW, 600)
    answer = registry.ask(claimant(claim), "d1", key(1), NOW + 100.7)
    assert isinstance(answer, Enrolled)
    own = check_enrolled(
        answer,
        FleetTrust(claim.root, claim.registrar),
        name="d1",
        public_key=key(1).public_key().public_bytes_raw(),
        now=UnixTime(NOW + 101),
    )
    assert (own.role, own.not_before, own.not_after) == (Role.DEVICE, NOW + 100, NOW + 100 + YEAR)
    [device] = registry.store.devices()
    assert (device.name, device.enrolled, device.revoked) == ("d1", NOW + 100, None)


def test_the_answer_may_be_lost_as_often_as_it_likes(registry: Registry) -> None:
    claim = claimant(registry.office.give_claim(NOW, 600))
    answers = {str(registry.ask(claim, "d1", key(1), NOW + later)) for later in (0, 5, 500, 599)}
    assert len(answers) == 1
    assert len(registry.store.devices()) == 1


def test_a_claim_is_good_for_nobody_else(registry: Registry) -> None:
    claim = claimant(registry.office.give_claim(NOW, 600))
    registry.ask(claim, "d1", key(1))
    for name, seed in (("d1", 2), ("d2", 1), ("d2", 2)):
        assert "used by another device" in registry.refusal(claim, name, key(seed))
    assert registry.office.refused == 3


def test_a_claim_expires(registry: Registry) -> None:
    claim = claimant(registry.office.give_claim(NOW, 600))
    assert "expired" in registry.refusal(claim, "d1", key(1), NOW + 601)
    with pytest.raises(CertificateError, match="expired"):
        registry.ask(claim, "d1", key(1), NOW + 1000)


def test_a_claim_may_be_for_one_name(registry: Registry) -> None:
    claim = registry.office.give_claim(NOW, 600, "pump-3")
    assert claim.name == "pump-3"
    assert "for a device called pump-3" in registry.refusal(claimant(claim), "d1", key(1))
    assert isinstance(registry.ask(claimant(claim), "pump-3", key(1)), Enrolled)
    with pytest.raises(RequestError, match="is taken"):
        registry.office.give_claim(NOW, 600, "pump-3")


def test_a_claim_that_the_store_does_not_know_is_nothing(registry: Registry, tmp_path: Path) -> None:
    forged = registry.reopened(store=RegistrarStore(tmp_path / "elsewhere"))
    claim = forged.give_claim(NOW, 600)
    assert "not known" in registry.refusal(claimant(claim), "d1", key(1))


def test_no_secret_of_a_claim_is_on_disk(registry: Registry) -> None:
    claim = registry.office.give_claim(NOW, 600)
    registry.store.close()
    stored = b"".join(file.read_bytes() for file in registry.folder.iterdir())
    assert claim.key not in stored
    assert claim.certificate not in stored
    assert all(file.stat().st_mode & 0o077 == 0 for file in registry.folder.iterdir())
    assert claim.key.hex() not in repr(claim)


def test_a_name_is_one_devices_until_it_is_revoked(registry: Registry) -> None:
    registry.enrolled("d1", 1)
    other = claimant(registry.office.give_claim(NOW, 600))
    assert "is taken" in registry.refusal(other, "d1", key(2))
    [device] = registry.store.devices()
    registry.store.revoke(device.id, NOW, "stolen")
    assert isinstance(registry.ask(other, "d1", key(2)), Enrolled)
    assert [one.revoked for one in registry.store.devices()] == [NOW, None]


def test_a_key_is_one_devices_for_ever(registry: Registry) -> None:
    registry.enrolled("d1", 1)
    other = claimant(registry.office.give_claim(NOW, 600))
    assert "belongs to another" in registry.refusal(other, "d2", key(1))
    registry.store.revoke(registry.store.devices()[0].id, NOW, "stolen")
    assert "belongs to another" in registry.refusal(other, "d2", key(1))
    assert "belongs to another" in registry.refusal(other, "d1", key(1))


@pytest.mark.parametrize(
    "name", ["coordinator", "watch-9", "claim", "broker-2", "registrar", "D1", "a/b", ""]
)
def test_a_device_has_a_devices_name(registry: Registry, name: str) -> None:
    csr = x509.CertificateSigningRequestBuilder()
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, name or "x")] if name else []
    der = csr.subject_name(x509.Name(subject)).sign(key(1), None).public_bytes(Encoding.DER)
    claim = claimant(registry.office.give_claim(NOW, 600))
    assert isinstance(registry.office.answer(registry.opened(claim, der), NOW), EnrolmentRefused)


def hostile_requests() -> dict[str, bytes]:
    good = write_csr("d1", key(1))
    named = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "d1")])
    )
    twice = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one) for one in ("d1", "d2")])
    )
    curve = named.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return {
        "empty": b"",
        "cut": good[:-1],
        "longer": good + b"\0",
        "signed by another": good[:-64] + write_csr("d1", key(2))[-64:],
        "another name than signed": good.replace(b"d1", b"d2"),
        "another kind of key": curve.public_bytes(Encoding.DER),
        "two names": twice.sign(key(1), None).public_bytes(Encoding.DER),
        "no csr": key(1).public_key().public_bytes_raw() * 9,
    }


@pytest.mark.parametrize("kind", hostile_requests())
def test_hostile_signing_requests_are_refused_in_words(registry: Registry, kind: str) -> None:
    claim = claimant(registry.office.give_claim(NOW, 600))
    answer = registry.office.answer(registry.opened(claim, hostile_requests()[kind]), NOW)
    assert isinstance(answer, EnrolmentRefused)
    assert 10 < len(answer.reason) <= 200
    assert registry.store.devices() == []
    # And the claim is still good.
    assert isinstance(registry.ask(claim, "d1", key(1)), Enrolled)


def test_of_a_request_only_key_and_name_are_taken_over(registry: Registry) -> None:
    subject = [(NameOID.ORGANIZATION_NAME, "other"), (NameOID.ORGANIZATIONAL_UNIT_NAME, "coordinator")]
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(
            x509.Name([x509.NameAttribute(*one) for one in [*subject, (NameOID.COMMON_NAME, "d1")]])
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("broker.example.org")]), critical=False)
        .sign(key(1), None)
    )
    claim = claimant(registry.office.give_claim(NOW, 600))
    answer = registry.office.answer(registry.opened(claim, greedy.public_bytes(Encoding.DER)), NOW)
    assert isinstance(answer, Enrolled)
    own = registry.trust().verify(answer.certificate, role=Role.DEVICE, now=NOW)
    assert own.fleet == "demo"
    with pytest.raises(x509.ExtensionNotFound):
        x509.load_der_x509_certificate(answer.certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )


# Renewal.


def test_a_renewal_keeps_name_key_and_the_time_of_enrolment(registry: Registry) -> None:
    device = registry.enrolled("d1", 1)
    later = NOW + 250 * DAY
    registry.office.sign_list(UnixTime(later))
    answer = registry.ask(device, "d1", key(1), later)
    assert isinstance(answer, Enrolled)
    own = FleetTrust(device.root, answer.registrar).read(answer.certificate)
    assert (own.not_before, own.not_after) == (NOW, later + YEAR)
    # The answer was lost: the same again, from either certificate.
    renewed = replace(device, certificate=answer.certificate)
    for who in (device, renewed):
        assert registry.ask(who, "d1", key(1), later + 60) == answer


def test_who_asks_too_early_gets_what_it_has(registry: Registry) -> None:
    device = registry.enrolled("d1", 1)
    answer = registry.ask(device, "d1", key(1), NOW + DAY)
    assert isinstance(answer, Enrolled)
    assert answer.certificate == device.certificate


def test_a_renewal_is_for_oneself(registry: Registry) -> None:
    device = registry.enrolled("d1", 1)
    registry.enrolled("d2", 2)
    for name, seed in (("d2", 1), ("d1", 2), ("d2", 2), ("d3", 3)):
        assert "same name and key" in registry.refusal(device, name, key(seed))


def test_a_revoked_device_renews_nothing(registry: Registry) -> None:
    device = registry.enrolled("d1", 1)
    registry.store.revoke(registry.store.devices()[0].id, NOW, "stolen")
    # In the moment before the new list is signed ...
    assert "not enrolled here" in registry.refusal(device, "d1", key(1))
    registry.office.sign_list(UnixTime(NOW + 1))
    # ... and after it.
    with pytest.raises(CertificateError, match="revoked"):
        registry.ask(device, "d1", key(1))


def test_a_device_of_the_root_is_not_the_registrars_to_renew(registry: Registry) -> None:
    by_root = registry.root.issue("d1", Role.DEVICE)
    assert "not enrolled here" in registry.refusal(by_root, "d1", by_root.private_key)


def test_coordinators_and_registrars_ask_for_nothing(registry: Registry) -> None:
    for who in (registry.root.issue("coordinator", Role.COORDINATOR), registry.identity):
        with pytest.raises(FrameError, match="only claims and devices"):
            registry.ask(who, "d1", key(1))


def test_no_certificate_outlives_the_registrars(tmp_path: Path) -> None:
    registry = Registry(tmp_path, Terms(certificate=10 * YEAR))
    device = registry.enrolled("d1", 1)
    trust = registry.trust()
    assert trust.read(device.certificate).not_after == NOW + 2 * YEAR
    # The registrar's is renewed, under the same key: then the device's goes on, too.
    later = UnixTime(NOW + YEAR)
    own = registry.root.certify(
        registry.identity.private_key.public_key(),
        "registrar",
        Role.REGISTRAR,
        (later, UnixTime(NOW + 9 * YEAR)),
    )
    registry.office = registry.reopened(replace(registry.identity, certificate=own), now=later)
    answer = registry.ask(device, "d1", key(1), later)
    assert isinstance(answer, Enrolled)
    assert answer.registrar == own
    assert trust.heed(answer.revocations)
    assert trust.verify(answer.certificate, role=Role.DEVICE, now=later).not_after == NOW + 9 * YEAR


# Lists.


def test_a_revoked_device_is_listed_with_all_its_certificates_until_they_expire(registry: Registry) -> None:
    first = registry.enrolled("d1", 1)
    later = NOW + 250 * DAY
    registry.office.sign_list(UnixTime(later))
    renewed = registry.ask(first, "d1", key(1), later)
    assert isinstance(renewed, Enrolled)
    assert not registry.office.unlisted(UnixTime(later))
    registry.store.revoke(registry.store.devices()[0].id, UnixTime(later), "stolen")
    assert registry.office.unlisted(UnixTime(later))
    trust = registry.trust()
    serials = {trust.read(der).serial for der in (first.certificate, renewed.certificate)}

    def listed(now: float) -> frozenset[int]:
        message = registry.office.sign_list(UnixTime(now)).message
        return read_revocations(message, registry.root.root).serials

    assert listed(later + 1) == serials
    assert not registry.office.unlisted(UnixTime(later + 1))
    assert listed(NOW + YEAR + DAY) == {trust.read(renewed.certificate).serial}
    assert listed(later + YEAR + DAY) == frozenset()


@pytest.mark.parametrize("revoked_at", [NOW + 100, NOW + YEAR + 100], ids=["in its dates", "just expired"])
def test_a_revoked_device_does_not_count_again_when_its_certificate_has_just_expired(
    registry: Registry, revoked_at: float
) -> None:
    """Others tolerate five minutes of skew, and so go by a list that names it for as long."""
    device = registry.enrolled("d1", 1)
    registry.store.revoke(registry.store.devices()[0].id, UnixTime(revoked_at), "stolen")
    after = UnixTime(NOW + YEAR + 200)
    trust = FleetTrust(device.root)
    trust.heed(registry.office.sign_list(after).message)
    with pytest.raises(CertificateError, match="was revoked"):
        trust.verify(device.certificate, role=Role.DEVICE, now=after)


def test_lists_are_numbered_and_good_for_a_week(registry: Registry) -> None:
    signed = [registry.office.sign_list(UnixTime(NOW + second)) for second in range(3)]
    assert [one.sequence for one in signed] == [2, 3, 4]
    trust = registry.trust()
    trust.check_list(UnixTime(NOW + 7 * DAY))
    with pytest.raises(CertificateError, match="expired"):
        trust.check_list(UnixTime(NOW + 8 * DAY))


def test_a_restored_copy_of_the_store_goes_beyond_what_was_published(
    registry: Registry, tmp_path: Path
) -> None:
    registry.enrolled("d1", 1)
    registry.store.revoke(registry.store.devices()[0].id, NOW, "stolen")
    for second in range(1, 4):
        published = registry.office.sign_list(UnixTime(NOW + second))
    restored = registry.reopened(store=RegistrarStore(tmp_path / "old copy"), now=NOW + 5)
    assert restored.trust.sequence == 1
    assert restored.learn(published.message, UnixTime(NOW + 6))
    newer = restored.sign_list(UnixTime(NOW + 6))
    assert newer.sequence == published.sequence + 1
    found = read_revocations(newer.message, registry.root.root)
    assert found.serials == read_revocations(published.message, registry.root.root).serials != frozenset()
    # Its own list comes back from the broker, and older ones do: nothing to do.
    assert not restored.learn(newer.message, UnixTime(NOW + 7))
    assert not restored.learn(published.message, UnixTime(NOW + 7))


def test_a_list_of_strangers_teaches_nothing(registry: Registry, tmp_path: Path) -> None:
    stranger = Registry(tmp_path / "stranger", seed=6)
    with pytest.raises(CertificateError):
        registry.office.learn(stranger.office.current_list.message, NOW)
    with pytest.raises(CertificateError):
        registry.office.learn(b"nothing", NOW)


def test_a_registrar_goes_on_beside_the_lists_of_a_stolen_one(registry: Registry, tmp_path: Path) -> None:
    """Whose numbers are not its own to go beyond."""
    thief = FleetAuthority.of_registrar(registry.identity, NOW, registry.entropy)
    last = thief.revocation_list(MAX_SEQUENCE - 1, {}, UnixTime(NOW + DAY)).public_bytes(Encoding.DER)
    stolen = encode_revocations(registry.identity.certificate, last)
    later = FleetAuthority(registry.root.root, registry.root._key, UnixTime(NOW + DAY), registry.entropy)
    new = registry.reopened(
        later.issue("registrar-2", Role.REGISTRAR), RegistrarStore(tmp_path / "second"), NOW + DAY
    )
    assert new.learn(stolen, UnixTime(NOW + DAY))
    assert new.sign_list(UnixTime(NOW + DAY + 1)).sequence == 2
    assert not registry.office.learn(new.current_list.message, UnixTime(NOW + DAY))


def test_an_expired_registrar_signs_nothing(registry: Registry) -> None:
    late = UnixTime(NOW + 3 * YEAR)
    for act in (
        lambda: registry.office.sign_list(late),
        lambda: registry.office.give_claim(late, 600),
        lambda: registry.office.enrol_by_hand(write_csr("d1", key(1)), late),
    ):
        with pytest.raises(CertificateError, match="fedfleet ca renew"):
            act()


# By hand.


def test_a_device_is_enrolled_by_hand_once(registry: Registry) -> None:
    csr = write_csr("d1", key(1))
    certificate = registry.office.enrol_by_hand(csr, NOW)
    assert registry.office.enrol_by_hand(csr, UnixTime(NOW + 60)) == certificate
    assert registry.trust().verify(certificate, role=Role.DEVICE, now=NOW).subject == "d1"
    with pytest.raises(RequestError, match="is taken"):
        registry.office.enrol_by_hand(write_csr("d1", key(2)), NOW)


# The store.


def test_two_programs_use_the_store_at_once(registry: Registry) -> None:
    before = registry.store.version
    registry.enrolled("d1", 1)
    assert registry.store.version == before  # its own writing is no news
    with contextlib.closing(RegistrarStore(registry.folder)) as command:
        command.revoke(command.devices()[0].id, NOW, "stolen")
    assert registry.store.version != before
    assert registry.office.unlisted(NOW)


def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "registrar.sqlite").write_bytes(b"dear diary, today ..." * 99)
    with pytest.raises(StoreError, match="restore a backup"):
        RegistrarStore(tmp_path)


def test_moments_are_utc(registry: Registry) -> None:
    crl = read_revocations(registry.office.current_list.message, registry.root.root)
    assert crl.expires == dt.datetime.fromtimestamp(NOW + 7 * DAY, tz=dt.UTC).timestamp()
