"""Keys that issue certificates, where they must not be: a coordinator that has one can unmask anybody."""

from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from console.doctor.examination import Examination
from console.doctor.findings import Findings, failure, ok
from protocol.roles import Role

DEPTH = 2
"""Folders below another in which a forgotten key is looked for."""

MOST_FILES = 5_000
"""Files that are looked at in one folder and those below it."""

ROOT_KEY = "root.key"

_LARGEST = 65_536
_PRIVATE = b"PRIVATE KEY-----"


def issuing_keys(examination: Examination) -> Findings:
    """Who could issue certificates from this machine."""
    known, fleet = _above(examination), examination.settings.fleet
    places = _places(examination)
    found = False
    for file in _key_files(places):
        whose = _whose(file, known, fleet)
        if whose:
            found = True
            yield failure(
                f"{file} is the key of {whose}: who reads it makes as many devices as it likes",
                "move it to the machine of the root or of the registrar, and leave no copy here",
            )
    if not found:
        yield ok(f"none that issues certificates in {', '.join(map(str, places))} and below")


def _above(examination: Examination) -> dict[bytes, str]:
    """The authorities above our own certificate, by public key; a registrar may hold its own key."""
    identity = examination.try_identity()
    if identity is None:
        return {}
    known = {_key_of(identity.root): "the fleet's root"}
    if identity.registrar:
        known[_key_of(identity.registrar)] = "the registrar"
    if examination.role is Role.REGISTRAR:
        known[_key_of(identity.certificate)] = ""
    return known


def _places(examination: Examination) -> tuple[Path, ...]:
    """What the program uses, what is around it, and the machine's own folders."""
    identity, state = examination.settings.identity.absolute(), examination.settings.state.absolute()
    around = [one for one in (identity.parent, identity.parent.parent) if len(one.parts) > 1]
    return tuple(dict.fromkeys([identity, state, *around, *examination.machine.folders]))


def _key_files(folders: tuple[Path, ...]) -> Iterator[Path]:
    """Files that hold a private key which we may read, each once."""
    seen: set[Path] = set()
    for folder in folders:
        for file in _files(folder.resolve()):
            if file not in seen and _PRIVATE in _content(file):
                yield file
            seen.add(file)


def _files(folder: Path) -> Iterator[Path]:
    waiting, left = [(folder, DEPTH)], MOST_FILES
    while waiting and left > 0:
        place, depth = waiting.pop()
        for entry in _entries(place):
            left -= 1
            if entry.is_symlink():
                continue
            if entry.is_dir() and depth:
                waiting.append((entry, depth - 1))
            elif entry.is_file():
                yield entry


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # what we may not read the program may not read either
        return []


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes() if file.stat().st_size <= _LARGEST else b""
    except OSError:
        return b""


def _whose(file: Path, known: dict[bytes, str], fleet: str) -> str:
    """Of which authority a private key is; empty for none, or one that may be here."""
    beside = _authorities_in(file.parent, fleet)
    try:
        key = load_pem_private_key(_content(file), password=None)
    except TypeError:  # it is encrypted: what is beside it must do
        hidden = file.name == ROOT_KEY or file.with_suffix(".crt") in beside
        return "an authority, encrypted" if beside and hidden else ""
    except ValueError:
        return ""
    of = _encoded(key.public_key())
    if of in known:
        return known[of]
    names = {_encoded(one.public_key()): one.subject.rfc4514_string() for one in beside.values()}
    return f"the authority {names[of]}" if of in names else ""


def _authorities_in(folder: Path, fleet: str) -> dict[Path, x509.Certificate]:
    """Files of a folder whose first certificate may sign others in this fleet."""
    found = {}
    for file in _entries(folder):
        try:
            certificate = x509.load_pem_x509_certificate(_content(file))
            basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        except (ValueError, x509.ExtensionNotFound):
            continue
        names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        if basic.value.ca and [name.value for name in names] == [fleet]:
            found[file] = certificate
    return found


def _key_of(der: bytes) -> bytes:
    return _encoded(x509.load_der_x509_certificate(der).public_key())


def _encoded(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
