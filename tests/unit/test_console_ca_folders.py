"""`fedfleet ca`: each identity's folder is whole, so that its program can be started on it as it is."""

import re
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner, Result

from console.commands import app
from console.join import read_token
from device_agent.join import JoinError
from registrar.guard import PROGRAM, GuardError, roots_list

ROOT = Path(__file__).parents[2]


def fedfleet(*words: object, answer: str = "") -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], input=answer)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    folder = tmp_path / "ca"
    told = fedfleet(
        "ca", "init", folder, "--fleet", "plant", "--broker", "broker.example.org", "--no-passphrase"
    )
    assert told.exit_code == 0, told.output
    return folder


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_one_command_makes_a_fleet(ca: Path) -> None:
    assert names(ca) == {"root", "registrar", "fleet", "watch"}
    assert names(ca / "fleet") == {"broker", "guard", "coordinator"}
    assert names(ca / "registrar") == {"fleet.crt", "registrar.crt", "registrar.key", "root.crl"}


def test_the_brokers_folder_is_all_that_mosquitto_reads(ca: Path) -> None:
    named = re.findall(
        r"^\w+file /etc/fedfleet/(\S+)$|^acl_file /etc/fedfleet/(\S+)$", settings(), re.MULTILINE
    )
    assert names(ca / "fleet" / "broker") == {one or other for one, other in named}
    assert "user guard" in (ca / "fleet" / "broker" / "acl").read_text()
    revoked = x509.load_pem_x509_crl((ca / "fleet" / "broker" / "revoked.crl").read_bytes())
    assert list(revoked) == []


def settings() -> str:
    return (ROOT / "mosquitto.conf").read_text()


def test_the_folders_are_those_of_the_compose_files(ca: Path) -> None:
    for file in ("docker-compose.yml", "deploy/registrar.compose.yml"):
        mounted = re.findall(r"- \./(fleet/\w+):/(?:identity|etc/fedfleet)\b", (ROOT / file).read_text())
        assert mounted
        for folder in mounted:
            assert (ca / folder).is_dir() or (ca / folder.removeprefix("fleet/")).is_dir(), folder


def test_a_guard_finds_the_roots_list_beside_its_key_and_the_rest_where_debian_has_it(ca: Path) -> None:
    identity = ca / "fleet" / "guard"
    read = PROGRAM.read(["--fleet", "plant", "--broker", "mqtts://b", "--identity", str(identity)], "guard")
    assert roots_list(read) == identity / "root.crl"
    assert (str(read.crl), str(read.pid_file)) == (
        "/etc/fedfleet/revoked.crl",
        "/run/mosquitto/mosquitto.pid",
    )
    (identity / "root.crl").unlink()
    with pytest.raises(GuardError, match=r"root\.crl is missing; copy root\.crl from the root's folder"):
        roots_list(read)


def test_who_has_a_name_of_their_own_is_told_of_the_brokers_rules(ca: Path, tmp_path: Path) -> None:
    told = fedfleet("ca", "issue", "watch", "--name", "watch-alice", "--ca", ca, "--out", tmp_path / "alice")
    assert "fedfleet access mosquitto --fleet plant --name watch-alice --output acl" in told.output
    more = fedfleet(
        *("ca", "issue", "broker", "--name", "broker-2", "--san", "b2"),
        *("--ca", ca, "--out", tmp_path / "b2"),
    )
    assert "access" not in more.output
    assert "user watch-alice" in (tmp_path / "b2" / "acl").read_text()


def test_an_address_that_is_none_makes_nothing(tmp_path: Path) -> None:
    told = fedfleet("ca", "init", tmp_path / "ca", "--fleet", "plant", "--broker", "a b", "--no-passphrase")
    assert told.exit_code == 2
    assert not (tmp_path / "ca").exists()


def test_a_token_is_given_in_one_way_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("abc\n")
    assert [read_token("abc", None), read_token(None, file)] == ["abc", "abc"]
    with pytest.raises(JoinError, match="not by both"):
        read_token("abc", file)
    with file.open() as line:
        monkeypatch.setattr("sys.stdin", line)
        assert read_token(None, None) == "abc"
