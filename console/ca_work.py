"""What the commands of `fedfleet ca` do."""

import datetime as dt
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct
from rich.table import Table

from console.passphrase import ask_passphrase
from protocol.certificates import Certificate, Role
from protocol.ids import UnixTime
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
from runtime.identity import write_identity

DAY = 86_400.0
ROOT = "root"
REGISTRAR = "registrar"

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


def make_fleet(folder: Path, fleet: str, passphrase: bytes | None) -> list[str]:
    """`ca init`: returns what to tell.

    Raises:
        RootError: the folder is there and not empty.
        MisuseError: the fleet's name is none.
    """
    if folder.exists() and any(folder.iterdir()):
        raise RootError(f"{folder} is not empty; give a new folder: a fleet's root is made once")
    now, entropy = SystemClock().unix(), SystemEntropy().bytes
    opened = OpenRoot.create(folder / ROOT, fleet, passphrase, now, entropy)
    place = folder / REGISTRAR
    write_identity(place, opened.issue(REGISTRAR, Role.REGISTRAR, place, lifetime=REGISTRAR_YEARS * YEAR))
    write_private(place / ROOT_CRL_FILE, (folder / ROOT / CRL_FILE).read_bytes())
    root = opened.root.certificate.public_bytes(Encoding.DER)
    return [
        f"Fleet {fleet}: its root is in {folder / ROOT}, its registrar's identity in {place}.",
        f"Fingerprint of the root: {fingerprint(root)}",
        "Next: issue the others with `fedfleet ca issue`, then take root/ off this machine and keep it safe;",
        "bring registrar/ to the registrar's host, which must not be the coordinator's.",
    ]


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
    made = opened.issue(name, Role(role), out, addresses=addresses, lifetime=days * DAY)
    write_identity(out, made)
    _, certificate = opened.root.find(name)
    generation = f", generation {certificate.generation}" if role == Role.COORDINATOR else ""
    return [
        f"{out}: {name}, a {role}{generation}, until {_day(certificate.not_after)}.",
        f"Fingerprint: {fingerprint(made.certificate)}",
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
        f"{', '.join(names)}: revoked. Bring {opened.root.folder / CRL_FILE} to every broker (its guard's",
        "--root-crl) and into the registrar's identity folder, and restart the guards.",
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
