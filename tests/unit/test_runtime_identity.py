import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from protocol.certificates import FleetTrust, Role
from protocol.errors import MisuseError
from protocol.ids import UnixTime
from registrar.authority import FleetAuthority
from runtime.identity import IdentityError, load_identity, write_identity

NOW = UnixTime(1_900_000_000.0)
AUTHORITY = FleetAuthority.create("demo", NOW, random.Random(1).randbytes)


def folder_of(base: Path, *names: str) -> Path:
    for name in names:
        write_identity(base / "keys", AUTHORITY.issue(name, Role.DEVICE))
    return base / "keys"


def complaint(folder: Path, name: str | None = None) -> str:
    with pytest.raises(IdentityError) as caught:
        load_identity(folder, name)
    return str(caught.value)


def test_an_identity_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "d1")

    identity = load_identity(folder)

    certificate = FleetTrust(identity.root).verify(identity.certificate, role=Role.DEVICE, now=NOW)
    assert identity.name == certificate.subject == "d1"
    identity.private_key.public_key().verify(identity.sign(b"message"), b"message")
    assert identity.private_key.public_key().public_bytes_raw() == certificate.public_key


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "d1", "d2")

    modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}

    assert modes == dict.fromkeys(["fleet.crt", "d1.crt", "d1.key", "d2.crt", "d2.key"], 0o600)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_key_does_not_print(tmp_path: Path) -> None:
    assert "rivate" not in repr(load_identity(folder_of(tmp_path, "d1")))


def test_one_of_several_identities_is_chosen_by_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "d1", "d2")

    assert load_identity(folder, "d2").name == "d2"
    assert "holds 2 keys (d1, d2, …); set `name` to one" in complaint(folder)


def test_what_is_missing_says_where_it_comes_from(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "d1")

    assert "holds no <name>.key; make it with" in complaint(tmp_path / "none")
    assert "d9.crt cannot be read (No such file or directory); make it with" in complaint(folder, "d9")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "d1")
    (folder / "d1.key").chmod(0o640)

    assert f"run chmod 600 {folder / 'd1.key'}" in complaint(folder)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "d1", "d2")
    (folder / "d1.crt").write_bytes((folder / "d2.crt").read_bytes())

    assert "do not belong together" in complaint(folder, "d1")


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "d1")
    other = ec.derive_private_key(9, ec.SECP256R1())
    (folder / "d1.key").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "is not an Ed25519 key" in complaint(folder)

    (folder / "d1.key").write_text("-----BEGIN")
    assert "is not an unencrypted PEM private key" in complaint(folder)

    (folder / "d1.crt").write_text("-----BEGIN")
    assert "is not a PEM certificate" in complaint(folder)


def test_the_same_entropy_makes_the_same_fleet() -> None:
    first, second = (FleetAuthority.create("demo", NOW, random.Random(9).randbytes) for _ in range(2))

    assert first.issue("d1", Role.DEVICE).certificate == second.issue("d1", Role.DEVICE).certificate


@pytest.mark.parametrize("name", ["", "D1", "d 1", "d" * 65])
def test_a_name_that_a_topic_cannot_carry_is_not_certified(name: str) -> None:
    with pytest.raises(MisuseError, match="is not a name"):
        AUTHORITY.issue(name, Role.DEVICE)
    with pytest.raises(MisuseError, match="is not a name"):
        FleetAuthority.create(name, NOW, random.Random(1).randbytes)
