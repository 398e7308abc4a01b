"""The fleet's root: a folder that is taken out to issue something, and otherwise kept away.

fleet.crt      the root certificate
root.key       its private key, PEM (PKCS #8), encrypted with a passphrase unless told otherwise
root.crl       which of its certificates the root has taken back; brokers need it, also when it is empty
issued.jsonl   every certificate that it has signed, and every one that it has taken back, one a line
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
)
from msgspec import Struct

from protocol.certificates import Certificate, FleetTrust, Role
from protocol.errors import FedfleetError
from protocol.ids import UnixTime
from registrar.authority import YEAR, FleetAuthority
from runtime.files import write_private
from runtime.identity import ROOT_FILE, Identity

KEY_FILE = "root.key"
CRL_FILE = "root.crl"
ISSUED_FILE = "issued.jsonl"

ROOT_YEARS = 20
REGISTRAR_YEARS = 2


class RootError(FedfleetError):
    """The root's folder cannot be used as asked; the message says the fix."""


class Issued(Struct, frozen=True, tag="issued"):
    """One certificate that the root has signed.

    Attributes:
        name: common name.
        certificate: DER, base64.
        folder: that it was written to.
    """

    name: str
    certificate: str
    folder: str

    @property
    def der(self) -> bytes:
        """The certificate."""
        return base64.b64decode(self.certificate)


class TakenBack(Struct, frozen=True, tag="revoked"):
    """One certificate that the root has taken back.

    Attributes:
        name: common name.
        serial: hexadecimal.
        at: when, seconds since 1970 UTC.
    """

    name: str
    serial: str
    at: float


class RootFolder:
    """What can be read of a root without its key.

    Args:
        folder: as described above.

    Raises:
        RootError: it is no such folder, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.certificate = x509.load_pem_x509_certificate((folder / ROOT_FILE).read_bytes())
            lines = (folder / ISSUED_FILE).read_bytes().splitlines()
            self._history = [_entries.decode(line) for line in lines]
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise RootError(
                f"{folder} is not the folder of a fleet's root ({error}); make one with `fedfleet ca init`"
            ) from error
        self.trust = FleetTrust(self.certificate.public_bytes(Encoding.DER))

    @property
    def encrypted(self) -> bool:
        """Whether the key needs a passphrase."""
        return b"ENCRYPTED" in (self.folder / KEY_FILE).read_bytes()

    def issued(self) -> list[tuple[Issued, Certificate]]:
        """The newest certificate of each name, by name."""
        newest = {entry.name: entry for entry in self._history if isinstance(entry, Issued)}
        return [(entry, self.trust.read(entry.der)) for _, entry in sorted(newest.items())]

    def find(self, name: str) -> tuple[Issued, Certificate]:
        """The newest certificate of a name.

        Raises:
            RootError: there is none.
        """
        for entry, certificate in self.issued():
            if entry.name == name:
                return entry, certificate
        names = ", ".join(entry.name for entry, _ in self.issued())
        raise RootError(f"the root has issued nothing to {name}; it has to {names}")

    def revoked(self) -> dict[int, UnixTime]:
        """When each serial was taken back."""
        taken = (entry for entry in self._history if isinstance(entry, TakenBack))
        return {int(entry.serial, 16): UnixTime(entry.at) for entry in taken}

    def next_generation(self) -> int:
        """Of the next coordinator: one higher than any before."""
        generations = [
            self.trust.read(entry.der).generation for entry in self._history if isinstance(entry, Issued)
        ]
        return max(generations, default=0) + 1

    def serials_of(self, name: str) -> list[int]:
        """Of all certificates of a name."""
        return [
            self.trust.read(entry.der).serial
            for entry in self._history
            if isinstance(entry, Issued) and entry.name == name
        ]

    def record(self, *entries: Issued | TakenBack) -> None:
        """Write down what was done, durably."""
        self._history += entries
        lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in self._history)
        write_private(self.folder / ISSUED_FILE, lines)


class OpenRoot:
    """A root whose key is at hand: it can sign.

    Args:
        root: the folder.
        passphrase: of the key; None when it is not encrypted.
        now: wall clock.
        entropy: gives that many unpredictable bytes.

    Raises:
        RootError: the key cannot be read with that passphrase.
    """

    def __init__(
        self, root: RootFolder, passphrase: bytes | None, now: UnixTime, entropy: Callable[[int], bytes]
    ) -> None:
        self.root = root
        self._now = now
        self._authority = FleetAuthority(root.certificate, _read_key(root.folder, passphrase), now, entropy)

    @classmethod
    def create(
        cls,
        folder: Path,
        fleet: str,
        passphrase: bytes | None,
        now: UnixTime,
        entropy: Callable[[int], bytes],
    ) -> "OpenRoot":
        """Make a new root in a new folder.

        Raises:
            RootError: the folder is there and not empty.
            MisuseError: the fleet's name is not 1 to 64 of [a-z0-9_-].
        """
        if folder.exists() and any(folder.iterdir()):
            raise RootError(f"{folder} is not empty; give a new folder: a fleet's root is made once")
        lifetime = ROOT_YEARS * YEAR
        made = FleetAuthority.create(fleet, now, entropy, lifetime=lifetime)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / ROOT_FILE, made.root.public_bytes(Encoding.PEM))
        write_private(folder / KEY_FILE, made.key_pem(passphrase))
        write_private(folder / ISSUED_FILE, b"")
        opened = cls(RootFolder(folder), passphrase, now, entropy)
        opened.write_crl()
        return opened

    def issue(
        self, name: str, role: Role, folder: Path, *, addresses: Sequence[str] = (), lifetime: float = YEAR
    ) -> Identity:
        """Make an identity, of the next generation for a coordinator, and write down that it was issued.

        Raises:
            RootError: the name was issued before, and not taken back; coordinators may follow each other.
            MisuseError: the name is none, or another role's.
        """
        standing = set(self.root.serials_of(name)) - self.root.revoked().keys()
        if standing and role is not Role.COORDINATOR:
            raise RootError(
                f"{name} was issued before: renew it with `fedfleet ca renew {name}`, or give another --name"
            )
        generation = self.root.next_generation() if role is Role.COORDINATOR else 0
        issued = self._authority.issue(name, role, generation, addresses=addresses, lifetime=lifetime)
        self._record(name, issued.certificate, folder)
        return issued

    def renew(self, name: str, lifetime: float) -> tuple[Issued, bytes]:
        """Sign the newest certificate of a name anew: nothing but the dates is new.

        Returns:
            What was known of it, and the new certificate, DER.

        Raises:
            RootError: the root has issued nothing to that name, or taken it back.
        """
        entry, old = self.root.find(name)
        if old.serial in self.root.revoked():
            raise RootError(f"{name} was revoked; issue a new one under another name")
        certificate = self._authority.certify(
            Ed25519PublicKey.from_public_bytes(old.public_key),
            name,
            old.role,
            (self._now, UnixTime(self._now + lifetime)),
            generation=old.generation,
            addresses=addresses_of(entry.der),
        )
        self._record(name, certificate, Path(entry.folder))
        return entry, certificate

    def revoke(self, names: Sequence[str]) -> None:
        """Take back all certificates of these names, and write the list anew.

        Raises:
            RootError: the root has issued nothing to one of them.
        """
        for name in names:
            self.root.find(name)
        known = self.root.revoked()
        self.root.record(
            *(
                TakenBack(name, f"{serial:x}", self._now)
                for name in names
                for serial in self.root.serials_of(name)
                if serial not in known
            )
        )
        self.write_crl()

    def write_crl(self) -> None:
        """Write the root's revocation list; good until the root itself expires."""
        revoked = self.root.revoked()
        end = UnixTime(self.root.certificate.not_valid_after_utc.timestamp())
        crl = self._authority.revocation_list(len(revoked) + 1, revoked, end)
        write_private(self.root.folder / CRL_FILE, crl.public_bytes(Encoding.PEM))

    def _record(self, name: str, der: bytes, folder: Path) -> None:
        self.root.record(Issued(name, base64.b64encode(der).decode(), str(folder.absolute())))


def addresses_of(der: bytes) -> list[str]:
    """Names and addresses under which a broker is reached."""
    extensions = x509.load_der_x509_certificate(der).extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(one.value) for one in names]


def fingerprint(der: bytes) -> str:
    """SHA-256 as people compare it: pairs of hexadecimal digits with colons."""
    return hashlib.sha256(der).digest().hex(":").upper()


def _read_key(folder: Path, passphrase: bytes | None) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key((folder / KEY_FILE).read_bytes(), passphrase)
    except OSError as error:
        raise RootError(
            f"{folder / KEY_FILE} cannot be read ({error.strerror}); bring the root's folder"
        ) from error
    except (ValueError, TypeError) as error:  # TypeError: a passphrase too many, or missing
        raise RootError(f"{folder / KEY_FILE} does not open with this passphrase; try again") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise RootError(f"{folder / KEY_FILE} is not an Ed25519 key; it is not a fleet's root")
    return key


_entries: msgspec.json.Decoder[Issued | TakenBack] = msgspec.json.Decoder(Issued | TakenBack)
