"""Mosquitto's settings as an operator may have spoiled them."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from examined import DAY, NOW, authority, device, only, registrar_of, results, worst

from console.doctor import mosquitto
from console.doctor.mosquitto import read_mosquitto
from protocol.ids import UnixTime

PRODUCTION = (Path(__file__).parents[2] / "mosquitto.conf").read_text()


def spoiled(folder: Path, old: str = "", new: str = "") -> Path:
    assert old in PRODUCTION
    file = folder / "mosquitto.conf"
    file.write_text(PRODUCTION.replace("/etc/fedfleet", str(folder)).replace(old, new) if old else PRODUCTION)
    return file


def test_no_file_no_findings(tmp_path: Path) -> None:
    patient = device(tmp_path)
    assert [*mosquitto.settings(patient), *mosquitto.lists(patient)] == []


def test_our_own_settings_are_as_they_should_be(tmp_path: Path) -> None:
    patient = device(tmp_path, mosquitto_conf=spoiled(tmp_path))
    assert results(mosquitto.settings(patient)) == ["ok"]


@pytest.mark.parametrize(
    ("old", "new", "cause", "fix"),
    [
        ("persistence true", "persistence false", "persistence is false", "persistence true"),
        ("autosave_interval 5\n", "", "no autosave_interval", "autosave_interval 5"),
        ("autosave_interval 5\n", "autosave_interval 1800\n", "1800", "autosave_interval 5"),
        ("allow_anonymous false", "allow_anonymous true", "is true: strangers", "allow_anonymous false"),
        ("acl_file", "# acl_file", "no acl_file: everybody", "acl_file"),
        ("max_packet_size 2097152", "max_packet_size 100000", "is 100000", "max_packet_size 2097152"),
        ("max_inflight_messages 20", "", "no max_inflight_messages", "max_inflight_messages 20"),
        ("max_keepalive 300", "max_keepalive 65535", "is 65535", "max_keepalive 300"),
        ("tls_version tlsv1.3", "tls_version tlsv1.2", "listener 8883: tls_version", "tls_version tlsv1.3"),
        ("require_certificate true", "", "no require_certificate", "require_certificate true"),
        ("use_username_as_clientid true", "", "push another one out", "use_username_as_clientid true"),
        ("crlfile", "# crlfile", "who was revoked", "crlfile"),
    ],
)
def test_each_setting_is_missed(tmp_path: Path, old: str, new: str, cause: str, fix: str) -> None:
    found = worst(mosquitto.settings(device(tmp_path, mosquitto_conf=spoiled(tmp_path, old, new))))
    assert found.result == "failure"
    assert cause in found.cause
    assert f"write {fix}" in found.fix


def test_a_file_without_a_listener_and_one_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "mosquitto.conf"
    patient = device(tmp_path, mosquitto_conf=file)
    assert "cannot be read" in worst(mosquitto.settings(patient)).cause
    assert [*mosquitto.lists(patient)] == []
    file.write_text("persistence true\n")
    assert "no listener" in [one.cause for one in mosquitto.settings(patient)]


def test_plugins_stand_for_rules_and_persistence(tmp_path: Path) -> None:
    text = PRODUCTION.replace("acl_file /etc/fedfleet/acl", "plugin /usr/lib/mosquitto_acl_file.so")
    text = text.replace(
        "persistence true\nautosave_interval 5", "plugin /usr/lib/mosquitto_persist_sqlite.so"
    )
    file = tmp_path / "mosquitto.conf"
    file.write_text(text)
    assert results(mosquitto.settings(device(tmp_path, mosquitto_conf=file))) == ["ok"]


def test_what_stands_behind_a_listener_is_its_own() -> None:
    read = read_mosquitto("listener 1 a\n crlfile x\nlistener 2\npersistence true\n# persistence false\n")
    assert read.listeners == {"1 a": {"crlfile": "x"}, "2": {}}
    assert read.common == {"persistence": "true"}


# The lists that TLS goes by.


def lists(folder: Path, left: float) -> Path:
    root = authority()
    registrar, _ = registrar_of(root)
    both = [
        root.revocation_list(1, {}, UnixTime(NOW + 100 * DAY)),
        registrar.revocation_list(7, {}, UnixTime(NOW + left)),
    ]
    (folder / "revoked.crl").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in both))
    return spoiled(folder, "persistence true", "persistence true")


@pytest.mark.parametrize(("left", "result"), [(3 * DAY, "ok"), (3600.0, "warning"), (1.0, "warning")])
def test_lists_that_are_good(tmp_path: Path, left: float, result: str) -> None:
    patient = device(tmp_path, mosquitto_conf=lists(tmp_path, left))
    assert results(mosquitto.lists(patient)) == ["ok", result]


def test_a_list_that_has_expired(tmp_path: Path) -> None:
    found = worst(mosquitto.lists(device(tmp_path, mosquitto_conf=lists(tmp_path, 0.0))))
    assert found.result == "failure"
    assert "CN=registrar" in found.cause
    assert "fedfleet guard" in found.fix


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN X509 CRL-----\n?\n-----END X509 CRL-----\n"])
def test_no_lists_or_broken_ones(tmp_path: Path, content: bytes | None) -> None:
    file = spoiled(tmp_path, "persistence true", "persistence true")
    if content is not None:
        (tmp_path / "revoked.crl").write_bytes(content)
    found = only(mosquitto.lists(device(tmp_path, mosquitto_conf=file)))
    assert found.result == "failure"
    assert "refuses everybody" in found.cause
