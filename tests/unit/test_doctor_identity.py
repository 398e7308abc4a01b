"""What the doctor says of an identity, and of keys that must not be where it looks."""

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from examined import (
    DAY,
    NOW,
    StillClock,
    authority,
    changed,
    coordinator,
    device,
    keep,
    only,
    registrar,
    registrar_of,
    results,
    worst,
)

from console.demo_files import bundled_plan
from console.doctor import identity, issuing_keys
from console.doctor.findings import Finding
from protocol.certificates import Role
from registrar.authority import YEAR
from runtime.identity import Identity, load_identity


def test_a_good_identity(tmp_path: Path) -> None:
    issuer, _ = registrar_of(authority())
    patient = device(tmp_path, issuer.issue("d1", Role.DEVICE))
    assert results(identity.files(patient)) == ["ok"]
    assert results(identity.standing(patient)) == ["ok"]
    assert results(identity.dates(patient)) == ["ok", "ok", "ok"]
    assert results(identity.clock(patient)) == ["ok"]


# Files.


def test_no_identity_is_told_once(tmp_path: Path) -> None:
    patient = changed(device(tmp_path), identity=tmp_path / "nowhere")
    assert "copy it here" in worst(identity.files(patient)).fix
    assert [*identity.standing(patient), *identity.dates(patient), *identity.clock(patient)] == []


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    patient = device(tmp_path)
    file = patient.settings.identity / "d1.key"
    file.chmod(0o644)
    found = worst(identity.files(patient))
    assert "can be read by others" in found.cause
    assert found.fix == f"run chmod 600 {file}"


def test_a_folder_that_others_can_write(tmp_path: Path) -> None:
    patient = device(tmp_path)
    patient.settings.identity.chmod(0o777)
    found = worst(identity.files(patient))
    assert found.fix == f"run chmod 700 {patient.settings.identity}"


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    root = authority()
    patient = device(tmp_path, root.issue("d1", Role.DEVICE))
    other = keep(tmp_path / "other", root.issue("d1", Role.DEVICE))
    shutil.copy(other / "d1.key", patient.settings.identity / "d1.key")
    assert "do not belong together" in worst(identity.files(patient)).cause


# Role, fleet, name.


def test_the_identity_of_another_role_and_of_another_fleet(tmp_path: Path) -> None:
    patient = device(tmp_path, authority().issue("coordinator", Role.COORDINATOR))
    assert worst(identity.standing(patient)).cause == "coordinator is a coordinator, not a device"
    found = worst(identity.standing(changed(device(tmp_path), fleet="g", name="d1")))
    assert found.cause == "the certificate is of fleet f, the settings say g"
    assert found.fix == "give the identity of a device of fleet g"


def test_a_certificate_of_another_root(tmp_path: Path) -> None:
    patient = device(tmp_path)
    other = keep(tmp_path / "other", authority().issue("d9", Role.DEVICE))
    shutil.copy(other / "fleet.crt", patient.settings.identity / "fleet.crt")
    assert worst(identity.standing(patient)).result == "failure"


# Dates.


def dated(folder: Path, now: float) -> list[Finding]:
    """A device of one year, in a fleet of ten, both from NOW on; asked at `now`."""
    return [*identity.dates(changed(device(folder), clock=StillClock(now)))]


@pytest.mark.parametrize(
    ("later", "result", "cause"),
    [
        (YEAR / 2, "ok", "d1's certificate is good for another 182.5 days"),
        (YEAR * 0.9, "warning", "d1's certificate expires in 36.5 days"),
        (YEAR + DAY, "failure", "d1's certificate expired 1.0 days ago"),
        (-DAY, "failure", "d1's certificate is not valid for another 1.0 days"),
    ],
)
def test_the_dates_of_a_certificate(tmp_path: Path, later: float, result: str, cause: str) -> None:
    own, root = dated(tmp_path, NOW + later)
    assert (own.result, own.cause) == (result, cause)
    assert root.result == ("failure" if later < 0 else "ok")
    if result == "warning":
        assert "registrar runs" in own.fix


def test_a_coordinators_certificate_is_renewed_by_the_root(tmp_path: Path) -> None:
    patient = coordinator(tmp_path, bundled_plan(), clock=StillClock(NOW + 2 * YEAR))
    assert "fedfleet ca renew" in worst(identity.dates(patient)).fix


def test_a_clock_that_is_behind(tmp_path: Path) -> None:
    patient = device(tmp_path, clock=StillClock(NOW - 3600))
    found = worst(identity.clock(patient))
    assert "3,600 s behind" in found.cause
    assert "set the clock" in found.fix
    assert results(identity.clock(changed(patient, clock=StillClock(NOW - 200)))) == ["ok"]


# Keys that issue certificates.


@pytest.fixture
def registrars() -> tuple[Identity, Identity]:
    """A registrar's identity, and that of a device by it."""
    issuer, own = registrar_of(authority())
    return own, issuer.issue("d1", Role.DEVICE)


def test_no_issuing_key(tmp_path: Path, registrars: tuple[Identity, Identity]) -> None:
    patient = device(tmp_path, registrars[1])
    keep(tmp_path / "home" / "etc" / "other", authority().issue("d2", Role.DEVICE))
    assert results(issuing_keys.issuing_keys(patient)) == ["ok"]


@pytest.mark.parametrize("place", ["home/etc/identity", "home/etc/old", "home/state/x/y", "home"])
def test_a_registrars_key_near_the_program(
    tmp_path: Path, place: str, registrars: tuple[Identity, Identity]
) -> None:
    patient = device(tmp_path, registrars[1])
    keep(tmp_path / place, registrars[0])
    found = worst(issuing_keys.issuing_keys(changed(patient, name="d1")))
    assert found.result == "failure"
    assert f"{tmp_path / place}/registrar.key is the key of the registrar" in found.cause
    assert "leave no copy here" in found.fix


def test_a_key_without_its_certificate(tmp_path: Path, registrars: tuple[Identity, Identity]) -> None:
    patient = device(tmp_path, registrars[1])
    own = keep(tmp_path / "elsewhere" / "registrar", registrars[0])
    shutil.copy(own / "registrar.key", tmp_path / "home" / "backup.txt")
    assert "backup.txt is the key of the registrar" in worst(issuing_keys.issuing_keys(patient)).cause


def test_an_authority_of_another_root_of_the_same_fleet(tmp_path: Path) -> None:
    patient = device(tmp_path)
    keep(tmp_path / "home" / "new", registrar_of(authority())[1])
    assert "the authority CN=registrar" in worst(issuing_keys.issuing_keys(patient)).cause


def test_an_authority_of_something_else_is_none_of_our_business(tmp_path: Path) -> None:
    patient = device(tmp_path)
    keep(tmp_path / "home" / "g", registrar_of(authority("g"))[1])
    assert results(issuing_keys.issuing_keys(patient)) == ["ok"]


@pytest.mark.parametrize("encryption", [NoEncryption(), BestAvailableEncryption(b"x")])
def test_the_roots_key_also_encrypted(
    tmp_path: Path, encryption: NoEncryption | BestAvailableEncryption
) -> None:
    root = authority()
    patient = device(tmp_path, root.issue("d1", Role.DEVICE))
    key: Ed25519PrivateKey = root._key
    folder = tmp_path / "srv" / "ca"
    folder.mkdir(parents=True)
    shutil.copy(patient.settings.identity / "fleet.crt", folder)
    (folder / "root.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    assert results(issuing_keys.issuing_keys(patient)) == ["ok"]
    found = worst(issuing_keys.issuing_keys(changed(patient, folders=(tmp_path / "srv",))))
    assert f"{folder / 'root.key'} is the key of" in found.cause


def test_a_registrar_may_hold_its_own_key_and_not_the_roots(tmp_path: Path) -> None:
    root = authority()
    _, own = registrar_of(root)
    patient = registrar(tmp_path, own)
    assert results(issuing_keys.issuing_keys(patient)) == ["ok"]
    pem = root._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "home" / "root.key").write_bytes(pem)
    assert "the fleet's root" in worst(issuing_keys.issuing_keys(patient)).cause


def test_what_was_examined_is_named(tmp_path: Path) -> None:
    patient = device(tmp_path)
    assert str(patient.settings.identity) in only(issuing_keys.issuing_keys(patient)).cause
    assert load_identity(patient.settings.identity).name == "d1"
