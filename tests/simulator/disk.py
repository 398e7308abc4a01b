"""Disks that fail on order. Folders are real ones in memory; syncing is free, and refused by a full disk."""

import errno
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import runtime.journal
from simulator.loop import CURRENT

SHELF = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108 - memory, if the machine has it
"""Where simulated disks are; None is the usual temporary folder."""

FULL: set[str] = set()
"""Actors whose disks are full."""


SYNCED: dict[tuple[int, int], int] = {}
"""Bytes of each file that are certainly on the disk, by device and inode."""

_APPENDED = "*.jsonl"
"""Files that only grow: what is behind their synced bytes is lost with the power, from any byte on."""


def fsync(file: int) -> None:
    """Takes the place of `os.fsync`.

    Raises:
        OSError: the disk of the actor whose step it is is full.
    """
    incarnation = CURRENT.get()
    if incarnation is not None and incarnation.actor in FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    found = os.fstat(file)
    SYNCED[found.st_dev, found.st_ino] = found.st_size


def commit(connection: sqlite3.Connection, units: Sequence[Any]) -> None:
    """Takes the place of `runtime.journal._commit`, which may meet a full disk."""
    incarnation = CURRENT.get()
    if incarnation is not None and incarnation.actor in FULL:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error
    COMMIT(connection, units)


COMMIT = runtime.journal._commit


def kill(folder: Path, close: Callable[[], None]) -> None:
    """Release what a process holds open, as SIGKILL does: what closing tidies up is undone in place."""
    left = {file: file.read_bytes() for file in folder.glob("*.db*") if not file.name.endswith("-shm")}
    close()
    for file, content in left.items():
        overwrite(file, content)


def overwrite(file: Path, content: bytes) -> None:
    """Replace what a file holds; it stays the same file."""
    with file.open("r+b" if file.exists() else "wb") as opened:
        opened.write(content)
        opened.truncate()


def roll_back(folder: Path, copied: Path) -> None:
    """Bring a folder to what a copy holds, in the same files where there are such."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not (copied / file.relative_to(folder)).exists():
            file.unlink()
    for file in sorted(copied.rglob("*")):
        target = folder / file.relative_to(copied)
        if file.is_dir():
            target.mkdir(exist_ok=True)
        else:
            overwrite(target, file.read_bytes())


def copy(source: Path, target: Path) -> None:
    """What a disk holds, as a kill leaves it."""
    shutil.copytree(source, target)


def settle(folder: Path) -> None:
    """What a folder holds has been on the disk for long."""
    for file in folder.glob(_APPENDED):
        SYNCED[_key(file)] = file.stat().st_size


def durable(file: Path) -> bytes:
    """What would be left of a file that only grows if the power failed now; nothing if it is not there."""
    return file.read_bytes()[: SYNCED.get(_key(file), 0)] if file.exists() else b""


def lose_power(folder: Path, chance: random.Random) -> None:
    """Cut what was appended and not synced at any byte."""
    for file in sorted(folder.glob(_APPENDED)):
        content, kept = file.read_bytes(), len(durable(file))
        if len(content) > kept:
            overwrite(file, content[: kept + chance.randrange(len(content) - kept + 1)])


def _key(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_dev, found.st_ino


def tear(folder: Path, chance: random.Random) -> None:
    """What a write under way may leave: half a temporary file, and garbage behind what is appended to."""
    for file in sorted(folder.iterdir()):
        if file.suffix in {".json", ".msgpack"}:
            half = file.read_bytes()[: chance.randrange(file.stat().st_size + 1)]
            file.with_name(f".{file.name}.new").write_bytes(half)
        if file.name.endswith(("-wal", ".log", ".jsonl")):
            with file.open("ab") as opened:
                opened.write(chance.randbytes(1 + chance.randrange(200)))


def digest(content: bytes) -> str:
    """Names a content in the event log."""
    return sha256(content).hexdigest()[:12]
