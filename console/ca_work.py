"""What the commands of `fedfleet ca` do."""

import datetime as dt
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct
from rich.table import Table

from broker.access import ALWAYS
from console.access import for_mosquitto
from console.passphrase import ask_passphrase
from protocol.certificates import Certificate, Role
from protocol.ids import UnixTime
from registrar.app import CRL_FILE as REVOKED_FILE
from registrar.app import ROOT_CRL_FILE
from registrar.authority import YEAR
from registrar.root import (
    CRL_FILE,
    REGISTRAR_YEARS,
    OpenRoot,
    RootError,
    RootFolder,
    fingerprint,
)
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.files import write_private
from runtime.identity import Identity, write_identity

DAY = 86_400.0
ACL_FILE = "acl"
ROOT = "root"
REGISTRAR = "registrar"
SERVER = "fleet"
"""Folder with a folder for each program of the server, as docker-compose.yml has it."""

_HOST = r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?"

# A third of the life is when a certificate should be renewed; a month is what is left of a year's then.
_WARN_SHARE = 1 / 6


class Row(Struct, frozen=True):
    """One certificate, for people and `--json`.

    Attributes:
        name: common name; "root" for the root.
        role: what its holder may do; "root" for the root.
        not_before: first day, ISO 8601.
        not_after: last moment, ISO 8601, UTC.
        generation: of a coordinator.
        fingerprint: SHA-256.
        state: "valid", "revoked" or "expired".
        warning: what to do about it; empty when nothing.
    """

    name: str
    role: str
    not_before: str
    not_after: str
    generation: int
    fingerprint: str
    state: str
    warning: str


def make_fleet(
    folder: Path, fleet: str, passphrase: bytes | None, addresses: Sequence[str] = ()
) -> list[str]:
    """`ca init`: returns what to tell.

    Args:
        folder: a new one.
        fleet: its name.
        passphrase: of the root's key; None leaves it plain.
        addresses: under which the broker is reached; with some, a server's identities are made, too.

    Raises:
        RootError: the folder is there and not empty, or an address is none.
        MisuseError: the fleet's name is none.
    """
    if folder.exists() and any(folder.iterdir()):
        raise RootError(f"{folder} is not empty; give a new folder: a fleet's root is made once")
    if addresses:
        _check_addresses(Role.BROKER, addresses)
    now, entropy = SystemClock().unix(), SystemEntropy().bytes
    opened = OpenRoot.create(folder / ROOT, fleet, passphrase, now, entropy)
    _issue(opened, Role.REGISTRAR, folder / REGISTRAR, lifetime=REGISTRAR_YEARS * YEAR)
    if addresses:
        _issue(opened, Role.BROKER, folder / SERVER / Role.BROKER, addresses=addresses)
        _issue(opened, Role.GUARD, folder / SERVER / Role.GUARD)
        _issue(opened, Role.COORDINATOR, folder / SERVER / Role.COORDINATOR)
        _issue(opened, Role.WATCH, folder / Role.WATCH)
    root = opened.root.certificate.public_bytes(Encoding.DER)
    return [
        f"Fleet {fleet}: its root is in {folder / ROOT}, its registrar's identity in {folder / REGISTRAR}.",
        f"Fingerprint of the root: {fingerprint(root)}",
        *_next(folder / SERVER if addresses else None),
    ]


def _next(server: Path | None) -> list[str]:
    others = f"bring {server} to the server" if server else "issue the others with `fedfleet ca issue`"
    return [
        f"Next: {others}, then take root/ off this machine and keep it safe;",
        "bring registrar/ to the registrar's host, which must not be the coordinator's.",
    ]


def _issue(opened: OpenRoot, role: Role, out: Path, name: str | None = None, **more: Any) -> Identity:
    """An identity in its folder, with what belongs beside it; it is called like its role, or as told."""
    made = opened.issue(name or role, role, out, **more)
    write_identity(out, made)
    _write_beside(out, role, opened.root)
    return made


def open_root(ca: Path) -> OpenRoot:
    """The root of `--ca`, with its key.

    Raises:
        RootError: there is none, or the passphrase is wrong.
        PassphraseError: there is no passphrase.
    """
    root = find_root(ca)
    passphrase = ask_passphrase(new=False) if root.encrypted else None
    return OpenRoot(root, passphrase, SystemClock().unix(), SystemEntropy().bytes)


def find_root(ca: Path) -> RootFolder:
    """The root's folder in the folder of `ca init`, or that folder itself."""
    return RootFolder(ca / ROOT if (ca / ROOT).is_dir() else ca)


def issue_identity(
    ca: Path, role: str, name: str, out: Path, *, addresses: Sequence[str], days: int
) -> list[str]:
    """`ca issue`: returns what to tell.

    Raises:
        RootError: a broker without addresses, somebody else with some, or the folder holds such a name.
        MisuseError: the name does not go with the role.
    """
    _check_addresses(role, addresses)
    if (out / f"{name}.key").exists():
        raise RootError(f"{out} holds a {name}.key; give another --out")
    opened = open_root(ca)
    made = _issue(opened, Role(role), out, name, addresses=addresses, lifetime=days * DAY)
    _, certificate = opened.root.find(name)
    generation = f", generation {certificate.generation}" if role == Role.COORDINATOR else ""
    return [
        f"{out}: {name}, a {role}{generation}, until {_day(certificate.not_after)}.",
        f"Fingerprint: {fingerprint(made.certificate)}",
        *_rules_to_write(opened.root, Role(role), name),
    ]


def _write_beside(folder: Path, role: Role, root: RootFolder) -> None:
    """What the role's folder holds besides the identity: a broker's is all that mosquitto.conf names."""
    crl = (root.folder / CRL_FILE).read_bytes()
    match role:
        case Role.REGISTRAR | Role.GUARD:
            write_private(folder / ROOT_CRL_FILE, crl)
        case Role.BROKER:
            # The first one, until the guard writes it.
            write_private(folder / REVOKED_FILE, crl)
            write_private(folder / ACL_FILE, for_mosquitto(root.trust.fleet, _names(root)).encode())


def _names(root: RootFolder) -> list[str]:
    """Whom the root has issued something, except those of whom access rules are always made."""
    return [entry.name for entry, _ in root.issued() if entry.name not in ALWAYS]


def _rules_to_write(root: RootFolder, role: Role, name: str) -> list[str]:
    if role is Role.BROKER or name in ALWAYS:
        return []
    options = " ".join(f"--name {one}" for one in _names(root))
    return [
        "The broker does not know that name. Write its acl again, and have it read that (SIGHUP):",
        f"  fedfleet access mosquitto --fleet {root.trust.fleet} {options} --output acl",
    ]


def _check_addresses(role: str, addresses: Sequence[str]) -> None:
    if role != Role.BROKER and addresses:
        raise RootError(f"a {role} is not reached under a name; leave --san out")
    if role == Role.BROKER and not addresses:
        raise RootError("say under which names and addresses the broker is reached: --san broker.example.org")
    for address in addresses:
        if not _is_address(address) and not re.fullmatch(_HOST, address):
            raise RootError(f"--san {address!r} is neither a host's name nor an IP address; correct it")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def renew_certificates(ca: Path, names: Sequence[str], out: Path | None, days: int | None) -> list[str]:
    """`ca renew`: returns what to tell.

    Raises:
        RootError: a name was not issued or was taken back, or its folder is not here and `out` is None.
    """
    opened = open_root(ca)
    return [_renew(opened, name, out, days) for name in names]


def _renew(opened: OpenRoot, name: str, out: Path | None, days: int | None) -> str:
    entry, old = opened.root.find(name)
    folder = out or Path(entry.folder)
    if out is None and not (folder / f"{name}.crt").exists():
        raise RootError(f"{folder}, to which {name} was issued, is not here; give --out, and bring it there")
    life = days * DAY if days is not None else old.not_after - old.not_before
    _, certificate = opened.renew(name, life)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)
    write_private(folder / f"{name}.crt", pem)
    return f"{folder / f'{name}.crt'}: until {_day(opened.root.trust.read(certificate).not_after)}"


def revoke_certificates(ca: Path, names: Sequence[str]) -> list[str]:
    """`ca revoke`: returns what to tell.

    Raises:
        RootError: the root has issued nothing to one of them.
    """
    opened = open_root(ca)
    opened.revoke(names)
    return [
        f"{', '.join(names)}: revoked. Bring {opened.root.folder / CRL_FILE} into the identity folders of",
        "every guard and of the registrar, and restart the guards.",
    ]


def read_rows(ca: Path) -> list[Row]:
    """`ca show`: the root, and the newest certificate of each name."""
    root, now = find_root(ca), SystemClock().unix()
    revoked = root.revoked()
    end = UnixTime(root.certificate.not_valid_after_utc.timestamp())
    start = UnixTime(root.certificate.not_valid_before_utc.timestamp())
    own = root.certificate.public_bytes(Encoding.DER)
    first = _row("root", "root", (start, end), own, now)
    return [first] + [
        _issued_row(certificate, entry.der, now, revoked=certificate.serial in revoked)
        for entry, certificate in root.issued()
    ]


def _issued_row(certificate: Certificate, der: bytes, now: UnixTime, *, revoked: bool) -> Row:
    return _row(
        certificate.subject,
        certificate.role,
        (certificate.not_before, certificate.not_after),
        der,
        now,
        generation=certificate.generation,
        state="revoked" if revoked else "valid",
    )


def _row(
    name: str,
    role: str,
    dates: tuple[UnixTime, UnixTime],
    der: bytes,
    now: UnixTime,
    *,
    generation: int = 0,
    state: str = "valid",
) -> Row:
    start, end = dates
    if state == "valid" and now > end:
        state = "expired"
    warning = ""
    if state != "revoked" and end - now < _WARN_SHARE * (end - start):
        days = max(0, int((end - now) / DAY))
        fix = "make a new fleet" if role == "root" else f"run `fedfleet ca renew {name}`"
        warning = f"expires in {days} days; {fix}"
    return Row(name, role, _day(start), _moment(end), generation, fingerprint(der), state, warning)


def table(rows: Sequence[Row]) -> Table:
    """For the terminal."""
    made = Table("name", "role", "generation", "from", "until", "state", "SHA-256")
    for row in rows:
        generation = str(row.generation) if row.generation else ""
        made.add_row(
            row.name,
            row.role,
            generation,
            row.not_before,
            row.not_after[:10],
            row.state,
            row.fingerprint[:23],
        )
    return made


def _day(unix: UnixTime) -> str:
    return _moment(unix)[:10]


def _moment(unix: UnixTime) -> str:
    return dt.datetime.fromtimestamp(int(unix), tz=dt.UTC).isoformat()
