"""What a registrar remembers: claims, devices, certificates, revocations, and the newest list.

One SQLite file that the running registrar and the operator's commands use at the same time; each call is one
transaction, durable when it returns. `version` tells that somebody else has written.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from protocol.errors import FedfleetError, RequestError
from protocol.ids import UnixTime
from runtime.files import PRIVATE_MODE

STORE_FILE = "registrar.sqlite"

# Another program's transaction takes milliseconds; a disk may stall.
_PATIENCE = 10.0

EXPIRED_FOR = 3600.0
"""Seconds for which an expired certificate stays listed: others tolerate five minutes of skew, and their
clocks may be as much behind ours."""

# "flwr" in ASCII; tells our files from those of other programs.
_APPLICATION_ID = 0x666C7772
_SCHEMA = "001_registrar.sql"
_VERSION = 1


class StoreError(FedfleetError):
    """The registrar's store cannot be used; the message names the fix."""


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """One token that was given out.

    Attributes:
        expires: last moment at which it is good.
        name: that its device must have; None lets it choose.
        used_by: id of the device that it enrolled.
    """

    expires: UnixTime
    name: str | None
    used_by: int | None


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """One device, standing or revoked; a name may have had several, one after the other.

    Attributes:
        id: of the record.
        name: common name.
        key: raw public key.
        enrolled: when it got its first certificate.
        revoked: when it was revoked; None while it stands.
        reason: why, in the operator's words.
        listed: when the broker had the list that names it.
        guarded: when the broker's guard said that the broker goes by that list.
        kicked: when its session at the broker was ended.
        certificate: its newest, DER.
        not_after: last moment of that.
    """

    id: int
    name: str
    key: bytes
    enrolled: UnixTime
    revoked: UnixTime | None
    reason: str
    listed: UnixTime | None
    guarded: UnixTime | None
    kicked: UnixTime | None
    certificate: bytes
    not_after: UnixTime


@dataclass(frozen=True, slots=True)
class SignedList:
    """A revocation list as it was signed.

    Attributes:
        sequence: its number.
        signed: when, in whole seconds.
        message: as it is published.
    """

    sequence: int
    signed: UnixTime
    message: bytes


_DEVICES = """
SELECT devices.id, name, key, enrolled, revoked, reason, listed, guarded, kicked, certificate, max(not_after)
FROM devices JOIN certificates ON certificates.device = devices.id
"""  # beside max(), SQLite takes the other columns of the group from its row


class RegistrarStore:
    """The file. Belongs to one thread.

    Args:
        folder: made if it is not there.

    Raises:
        StoreError: the file is damaged, of another program, or of a newer release, or cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / STORE_FILE
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(file, os.O_RDWR | os.O_CREAT, PRIVATE_MODE))
            with ExitStack() as opened:
                self._connection = sqlite3.connect(file, timeout=_PATIENCE, isolation_level=None)
                opened.callback(self._connection.close)
                self._open(file)
                opened.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{file} cannot be used: {error}; restore a backup, or free the disk") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def version(self) -> int:
        """Changes whenever another program has written (SQLite's data_version); cheap."""
        ((version,),) = self._connection.execute("PRAGMA data_version")
        return int(version)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and nobody else writes meanwhile."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise StoreError(f"the registrar's store refuses: {error}; is the disk full?") from error
        finally:
            # SQLite has rolled back by itself after some errors.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    # Claims.

    def add_claim(self, digest: bytes, expires: UnixTime, name: str | None) -> None:
        """Remember a token that is given out, by the SHA-256 of its certificate."""
        self._connection.execute("INSERT INTO claims VALUES (?, ?, ?, NULL)", (digest, expires, name))

    def claim(self, digest: bytes) -> ClaimRecord | None:
        """The claim of that digest."""
        rows = self._connection.execute(
            "SELECT expires, name, used_by FROM claims WHERE digest = ?", (digest,)
        )
        return next((ClaimRecord(*row) for row in rows), None)

    def use_claim(self, digest: bytes, device: int) -> None:
        """The claim has enrolled this device, and no other will follow."""
        self._connection.execute("UPDATE claims SET used_by = ? WHERE digest = ?", (device, digest))

    def forget_claims(self, before: UnixTime) -> None:
        """Drop those that expired before that moment."""
        self._connection.execute("DELETE FROM claims WHERE expires < ?", (before,))

    def open_claims(self, now: UnixTime) -> int:
        """How many tokens could still be used."""
        query = "SELECT count(*) FROM claims WHERE used_by IS NULL AND expires >= ?"
        ((count,),) = self._connection.execute(query, (now,))
        return int(count)

    # Devices.

    def add_device(self, name: str, key: bytes, enrolled: UnixTime) -> int:
        """Remember a new device; its certificate must follow in the same transaction.

        Returns:
            The id of its record.

        Raises:
            RequestError: another standing device has the name, or any has had the key.
        """
        try:
            cursor = self._connection.execute(
                "INSERT INTO devices (name, key, enrolled) VALUES (?, ?, ?)", (name, key, enrolled)
            )
        except sqlite3.IntegrityError as error:
            raise RequestError(
                f"the name {name} is taken; choose another, or have its device revoked first"
                if "devices.name" in str(error)
                else "the key belongs to another enrolment; start from an empty identity folder"
            ) from None
        assert cursor.lastrowid is not None  # noqa: S101 (an INSERT that worked has one)
        return cursor.lastrowid

    def add_certificate(self, device: int, serial: int, not_after: UnixTime, certificate: bytes) -> None:
        """Remember what a device was given; older ones stay, as they are good until they expire."""
        row = (f"{serial:x}", device, not_after, certificate)
        self._connection.execute("INSERT INTO certificates VALUES (?, ?, ?, ?)", row)

    def devices(self) -> list[DeviceRecord]:
        """All, by name; revoked ones of the same name before the standing one."""
        rows = self._connection.execute(f"{_DEVICES} GROUP BY devices.id ORDER BY name, devices.id")
        return [DeviceRecord(*row) for row in rows]

    def device(self, identity: int) -> DeviceRecord | None:
        """The record of that id."""
        rows = self._connection.execute(f"{_DEVICES} WHERE devices.id = ? GROUP BY devices.id", (identity,))
        return next((DeviceRecord(*row) for row in rows), None)

    def standing(self, name: str) -> DeviceRecord | None:
        """The device of that name that is not revoked."""
        query = f"{_DEVICES} WHERE name = ? AND revoked IS NULL GROUP BY devices.id"
        return next((DeviceRecord(*row) for row in self._connection.execute(query, (name,))), None)

    # Revocations.

    def revoke(self, device: int, now: UnixTime, reason: str) -> None:
        """Take a device's certificates back; the running registrar tells everybody."""
        with self.transaction():
            self._connection.execute(
                "UPDATE devices SET revoked = ?, reason = ? WHERE id = ? AND revoked IS NULL",
                (now, reason, device),
            )
            self._connection.execute(
                "INSERT OR IGNORE INTO revocations SELECT serial, ?, not_after FROM certificates "
                "WHERE device = ? AND not_after >= ?",
                (now, device, now - EXPIRED_FOR),
            )

    def add_revocation(self, serial: int, revoked: UnixTime, not_after: UnixTime) -> None:
        """Take a certificate back of which the store knows nothing else."""
        row = (f"{serial:x}", revoked, not_after)
        self._connection.execute("INSERT OR IGNORE INTO revocations VALUES (?, ?, ?)", row)

    def revocations(self, now: UnixTime) -> dict[int, UnixTime]:
        """When each serial was taken back, of certificates that have not expired for everybody."""
        query = "SELECT serial, revoked FROM revocations WHERE not_after >= ?"
        rows = self._connection.execute(query, (now - EXPIRED_FOR,))
        return {int(serial, 16): UnixTime(at) for serial, at in rows}

    def unfinished(self) -> list[DeviceRecord]:
        """Revoked devices that may still be, or come, into a broker: without a guard's word nobody knows."""
        query = (
            f"{_DEVICES} WHERE revoked NOT NULL AND (kicked IS NULL OR guarded IS NULL) GROUP BY devices.id"
        )
        return [DeviceRecord(*row) for row in self._connection.execute(query)]

    def thrown_out(self, now: UnixTime) -> list[str]:
        """Names of revoked devices of which all has been done, but whose certificate has not expired.

        Not those that another device stands under: whoever had the name before loses to it at the broker.
        """
        query = (
            "SELECT DISTINCT name FROM devices AS gone JOIN certificates ON certificates.device = gone.id "
            "WHERE kicked NOT NULL AND not_after >= ? AND NOT EXISTS "
            "(SELECT 1 FROM devices WHERE devices.name = gone.name AND devices.revoked IS NULL) ORDER BY name"
        )
        return [name for (name,) in self._connection.execute(query, (now,))]

    def mark_listed(self, devices: list[int], now: UnixTime) -> None:
        """The broker has the list that names them."""
        self._mark("UPDATE devices SET listed = ? WHERE id = ? AND listed IS NULL", devices, now)

    def mark_guarded(self, devices: list[int], now: UnixTime) -> None:
        """The broker lets them in no more. Who was thrown out before that may have come back: again."""
        query = "UPDATE devices SET guarded = ?, kicked = NULL WHERE id = ? AND guarded IS NULL"
        self._mark(query, devices, now)

    def mark_kicked(self, devices: list[int], now: UnixTime) -> None:
        """Their sessions were ended."""
        self._mark("UPDATE devices SET kicked = ? WHERE id = ? AND kicked IS NULL", devices, now)

    def _mark(self, query: str, devices: list[int], now: UnixTime) -> None:
        with self.transaction():
            self._connection.executemany(query, [(now, device) for device in devices])

    # The list.

    def newest_list(self) -> SignedList | None:
        """The list that was signed last."""
        rows = self._connection.execute("SELECT sequence, signed, message FROM list")
        return next((SignedList(*row) for row in rows), None)

    def keep_list(self, signed: SignedList) -> None:
        """Remember a list, before anybody sees it."""
        row = (signed.sequence, signed.signed, signed.message)
        self._connection.execute("INSERT OR REPLACE INTO list VALUES (1, ?, ?, ?)", row)

    # Opening.

    def _open(self, file: Path) -> None:
        execute = self._connection.execute
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA foreign_keys=ON")
        with self.transaction():
            ((application,),) = execute("PRAGMA application_id")
            ((version,),) = execute("PRAGMA user_version")
            if version > _VERSION or application not in {0, _APPLICATION_ID}:
                raise StoreError(
                    f"{file} is of a newer release or another program; run the release that wrote it"
                )
            if version == 0:
                schema = (files("registrar") / "sql" / _SCHEMA).read_text("utf-8")
                for statement in schema.split(";\n")[:-1]:
                    execute(statement)
                execute(f"PRAGMA application_id={_APPLICATION_ID}")
                execute(f"PRAGMA user_version={_VERSION}")
