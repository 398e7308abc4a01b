"""The operator's commands: the fleet's root, devices, and enrolling by hand. No network."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from registry import DAY, NOW, Registry
from typer.testing import CliRunner

from console.commands import app
from console.join import host_name
from console.passphrase import PassphraseError, ask_passphrase
from protocol.certificates import FleetTrust, Role
from protocol.enrolment import decode_token
from protocol.ids import UnixTime
from registrar.guard import GuardError, list_on_disk, number_of, signal_broker, write_list
from registrar.root import OpenRoot, RootFolder
from registrar.running import is_running, running
from registrar.store import RegistrarStore, StoreError
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.identity import load_identity

Command = Callable[..., Result]
SECRET = "correct horse battery"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()

    def one(*arguments: str, code: int = 0, passphrase: str | None = SECRET) -> Result:
        result = runner.invoke(app, arguments, env={"FEDFLEET_CA_PASSPHRASE": passphrase})
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return one


@pytest.fixture
def fleet(run: Command) -> Command:
    run("ca", "init", "ca", "--fleet", "demo")
    return run


def private(folder: Path) -> bool:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return bool(files) and all(file.stat().st_mode & 0o077 == 0 for file in files)


def test_a_new_fleet_has_an_encrypted_root_and_a_registrar(fleet: Command, tmp_path: Path) -> None:
    root = tmp_path / "ca" / "root"
    assert b"ENCRYPTED" in (root / "root.key").read_bytes()
    assert private(tmp_path / "ca")
    registrar = load_identity(tmp_path / "ca" / "registrar")
    assert FleetTrust(registrar.root).read(registrar.certificate).role is Role.REGISTRAR
    crl = x509.load_pem_x509_crl((root / "root.crl").read_bytes())
    assert list(crl) == []
    assert crl.next_update_utc == RootFolder(root).certificate.not_valid_after_utc
    assert "not empty" in fleet("ca", "init", "ca", "--fleet", "demo", code=2).output


def test_a_root_may_be_without_a_passphrase(run: Command, tmp_path: Path) -> None:
    run("ca", "init", "ca", "--fleet", "demo", "--no-passphrase", passphrase=None)
    assert not RootFolder(tmp_path / "ca" / "root").encrypted
    run("ca", "issue", "watch", "--ca", "ca", "--out", "w", passphrase=None)


def test_a_passphrase_is_needed_and_right(run: Command, tmp_path: Path) -> None:
    assert "_FILE" in run("ca", "init", "x", "--fleet", "demo", code=2, passphrase=None).output
    assert "longer" in run("ca", "init", "x", "--fleet", "demo", code=2, passphrase="short").output
    run("ca", "init", "ca", "--fleet", "demo")
    issue = ("ca", "issue", "coordinator", "--ca", "ca", "--out", "c")
    assert "does not open" in run(*issue, code=2, passphrase="another one").output
    assert "no terminal" in run(*issue, code=2, passphrase=None).output
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    given = ask_passphrase(new=False, environment={"FEDFLEET_CA_PASSPHRASE_FILE": str(tmp_path / "secret")})
    assert given == SECRET.encode()
    with pytest.raises(PassphraseError, match="readable"):
        ask_passphrase(new=False, environment={"FEDFLEET_CA_PASSPHRASE_FILE": str(tmp_path / "none")})


def test_each_coordinator_is_of_a_higher_generation(fleet: Command, tmp_path: Path) -> None:
    for generation, folder in enumerate(("c1", "c2"), start=1):
        told = fleet("ca", "issue", "coordinator", "--ca", "ca", "--out", folder)
        assert f"generation {generation}" in told.output
        identity = load_identity(tmp_path / folder)
        trust = FleetTrust(identity.root)
        assert trust.read(identity.certificate).generation == generation
        assert private(tmp_path / folder)
    renewed = fleet("ca", "renew", "coordinator", "--ca", "ca", "--days", "700")
    assert "c2" in renewed.output
    after = load_identity(tmp_path / "c2")
    assert trust.read(after.certificate).generation == 2
    assert trust.read(after.certificate).not_after > trust.read(identity.certificate).not_after


def test_a_broker_is_reached_under_its_names_alone(fleet: Command, tmp_path: Path) -> None:
    issue = ("ca", "issue", "broker", "--ca", "ca", "--out", "b")
    assert "--san" in fleet(*issue, code=2).output
    assert "correct it" in fleet(*issue, "--san", "bad name", code=2).output
    fleet(*issue, "--san", "broker.example.org", "--san", "192.0.2.7")
    fleet("ca", "renew", "broker", "--ca", "ca")
    certificate = x509.load_pem_x509_certificate((tmp_path / "b" / "broker.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one.value) for one in names] == ["broker.example.org", "192.0.2.7"]
    assert (
        "leave --san out"
        in fleet(*("ca", "issue", "guard", "--san", "x", "--ca", "ca", "--out", "g"), code=2).output
    )


def test_names_go_with_roles_and_are_issued_once(fleet: Command) -> None:
    issue = ("ca", "issue", "watch", "--ca", "ca")
    assert 'is called "watch"' in fleet(*issue, "--name", "alice", "--out", "w", code=2).output
    fleet(*issue, "--name", "watch-alice", "--out", "w")
    assert "ca renew watch-alice" in fleet(*issue, "--name", "watch-alice", "--out", "w2", code=2).output
    assert "give another --out" in fleet(*issue, "--name", "watch-alice", "--out", "w", code=2).output


def test_what_the_root_takes_back_is_on_its_list(fleet: Command, tmp_path: Path) -> None:
    fleet("ca", "issue", "watch", "--ca", "ca", "--out", "w")
    serial = x509.load_pem_x509_certificate((tmp_path / "w" / "watch.crt").read_bytes()).serial_number
    fleet("ca", "revoke", "watch", "--ca", "ca")
    crl = x509.load_pem_x509_crl((tmp_path / "ca" / "root" / "root.crl").read_bytes())
    assert crl.get_revoked_certificate_by_serial_number(serial) is not None
    assert "was revoked" in fleet("ca", "renew", "watch", "--ca", "ca", code=2).output
    rows = [
        msgspec.json.decode(line) for line in fleet("ca", "show", "--ca", "ca", "--json").output.splitlines()
    ]
    assert {row["name"]: row["state"] for row in rows} == {
        "root": "valid",
        "registrar": "valid",
        "watch": "revoked",
    }
    fleet("ca", "issue", "watch", "--ca", "ca", "--out", "w2")
    assert "has issued nothing to nobody" in fleet("ca", "revoke", "nobody", "--ca", "ca", code=2).output


def test_what_expires_soon_is_warned_of(fleet: Command) -> None:
    fleet("ca", "issue", "watch", "--ca", "ca", "--out", "w")
    assert "run `fedfleet ca renew" not in fleet("ca", "show", "--ca", "ca").output
    long_ago = UnixTime(SystemClock().unix() - 300 * DAY)
    root = OpenRoot(RootFolder(Path("ca/root")), SECRET.encode(), long_ago, SystemEntropy().bytes)
    root.issue("watch-old", Role.WATCH, Path("old"), lifetime=330 * DAY)
    root.issue("watch-gone", Role.WATCH, Path("old"), lifetime=200 * DAY)
    shown = fleet("ca", "show", "--ca", "ca").output
    assert "expires in 29 days; run `fedfleet ca renew watch-old`" in shown
    assert "expires in 0 days; run `fedfleet ca renew watch-gone`" in shown


def test_nothing_secret_is_printed(fleet: Command, tmp_path: Path) -> None:
    told = fleet("ca", "issue", "watch", "--ca", "ca", "--out", "w").output
    told += fleet("ca", "show", "--ca", "ca").output
    for file in tmp_path.rglob("*.key"):
        for line in file.read_text().splitlines()[1:-1]:
            assert line not in told


def test_tokens_are_all_there_is_on_standard_output(fleet: Command) -> None:
    own = ("--identity", "ca/registrar", "--state", "state")
    printed = fleet("device", "enroll", "--count", "3", *own)
    claims = [decode_token(line) for line in printed.stdout.splitlines()]
    assert len({claim.id for claim in claims}) == 3
    named = fleet("device", "enroll", "--name", "pump-1", "--name", "pump-2", *own)
    assert [decode_token(line).name for line in named.stdout.splitlines()] == ["pump-1", "pump-2"]
    assert "another role" in fleet("device", "enroll", "--name", "guard", *own, code=2).output


def test_a_device_by_hand_listed_shown_and_revoked(fleet: Command, tmp_path: Path) -> None:
    own = ("--identity", "ca/registrar", "--state", "state")
    assert "no registrar's state" in fleet("device", "ls", "--state", "state", code=2).output
    fleet("agent", "csr", "--name", "d1", "--identity", "d1")
    fleet("ca", "sign", "d1.csr", *own)
    told = fleet("agent", "install", "d1.enrolled", "--identity", "d1").output
    assert "d1 is a device of fleet demo" in told
    assert private(tmp_path / "d1")
    assert "d1" in fleet("device", "ls", "--state", "state").output
    # Without a registrar that runs, nobody is told yet.
    gone = fleet("device", "revoke", "d1", "--state", "state", "--reason", "stolen", code=1)
    assert "no registrar runs" in gone.output
    shown = fleet("device", "show", "d1", "--state", "state").output
    assert "revoked" in shown
    assert "stolen" in shown
    assert "no device called d1 stands" in fleet("device", "revoke", "d1", "--state", "state", code=2).output
    assert "no device is called d9" in fleet("device", "show", "d9", "--state", "state", code=2).output
    assert "is no signing request" in fleet("ca", "sign", "d1.enrolled", *own, code=2).output


def test_a_registrar_that_does_not_answer_is_told_of(fleet: Command) -> None:
    own = ("--identity", "ca/registrar", "--state", "state")
    fleet("agent", "csr", "--name", "d1", "--identity", "d1")
    fleet("ca", "sign", "d1.csr", *own)
    with running(Path("state")):
        told = fleet("device", "revoke", "d1", "--state", "state", "--wait", "0.1", code=1)
    assert "not seen within" in told.output


def test_joining_needs_one_usable_token(fleet: Command, tmp_path: Path) -> None:
    join = ("agent", "join", "mqtts://localhost:1")
    assert "--token-file" in fleet(*join, code=2).output
    assert "whole line" in fleet(*join, "--token", "abc", code=2).output
    assert "cannot be read" in fleet(*join, "--token-file", "none", code=2).output
    own = ("--identity", "ca/registrar", "--state", "state")
    token = fleet("device", "enroll", *own).stdout.strip()
    assert "another role" in fleet(*join, "--token", token, "--name", "claim", code=2).output
    late = fleet(*join, "--token", token, "--name", "d1", "--identity", "d1", "--timeout", "1", code=2)
    assert "no answer within 1 s" in late.output
    assert (tmp_path / "d1" / "d1.key").stat().st_mode & 0o077 == 0
    assert token not in late.output


def test_a_hosts_name_becomes_a_devices() -> None:
    assert 1 <= len(host_name()) <= 64


# The guard's files.


def test_a_guards_file_holds_both_lists_and_its_number(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "state")
    root_crl, file = tmp_path / "root.crl", tmp_path / "revoked.crl"
    empty = registry.root.revocation_list(1, {}, NOW).public_bytes(Encoding.PEM)
    root_crl.write_bytes(empty)
    assert list_on_disk(file) is None
    file.write_bytes(empty)
    assert list_on_disk(file) is None
    known = registry.office.trust.revocations
    assert known is not None
    write_list(known, file, root_crl)
    assert file.read_bytes().count(b"BEGIN X509 CRL") == 2
    found = list_on_disk(file)
    assert found is not None
    assert number_of(found) == known.sequence
    file.write_bytes(b"something else")
    with pytest.raises(GuardError, match="copy root"):
        list_on_disk(file)


@pytest.mark.parametrize("text", ["", "0", "-1", "1 2", "999999999999"])
def test_a_guard_signals_nobody_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    with pytest.raises(GuardError, match="pid file"):
        signal_broker(tmp_path / "pid")


def test_one_registrar_at_a_time(tmp_path: Path) -> None:
    RegistrarStore(tmp_path).close()
    assert not is_running(tmp_path)
    with running(tmp_path):
        assert is_running(tmp_path)
        with pytest.raises(StoreError, match="another registrar"), running(tmp_path):
            pass
    assert not is_running(tmp_path)
