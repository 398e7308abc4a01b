"""Files that are there whole or not at all."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

PRIVATE_MODE = 0o600
"""The owner alone may read and write."""


def write_synced(path: Path, data: bytes) -> None:
    """Replace a file's content durably: after a crash it holds the old content or the new, never a part.

    Args:
        path: in a folder that exists.
        data: the content.

    Raises:
        OSError: the disk refused; the old content stands.
    """
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        _write_out(file, data)
    temporary.replace(path)
    sync_folder(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """As `write_synced`, for the owner's eyes only: nobody else can read it, not even for a moment.

    Raises:
        OSError: the disk refused; the old content stands.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        _write_out(file, data)
    temporary.replace(path)
    sync_folder(path.parent)


def append_synced(path: Path, size: int, data: bytes) -> None:
    """Make a file's content its first `size` bytes and `data`, durably.

    After a crash, and after an error, the first `size` bytes stand; what is behind them may be anything that
    was there, or a part of `data`.

    Args:
        path: in a folder that exists; made when it is missing and `size` is 0.
        size: bytes of it that stay, and are durable when this returns.
        data: what comes behind them.

    Raises:
        OSError: the disk refused, or somebody has made the file shorter than `size`.
    """
    if size == 0:
        path.touch(mode=0o600)
    with path.open("r+b") as file:
        if file.seek(0, os.SEEK_END) < size:
            raise OSError(errno.EIO, "the file was cut short", str(path))
        file.truncate(size)
        file.seek(size)
        _write_out(file, data)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: what was made, renamed or deleted in it.

    Raises:
        OSError: the disk refused.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_out(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def keep_newest(files: Iterable[Path], count: int, size: int) -> None:
    """Delete all but the files that were changed last.

    Args:
        files: that compete.
        count: the most that stay.
        size: the most bytes that they may have together.

    Raises:
        OSError: one cannot be looked at or deleted.
    """
    stats = [(file.stat(), file) for file in files]
    stats.sort(key=lambda each: each[0].st_mtime_ns, reverse=True)
    for place, (status, file) in enumerate(stats):
        size -= status.st_size
        if place >= count or size < 0:
            file.unlink(missing_ok=True)


def in_words(error: OSError) -> str:
    """Why the disk refused, for others: without a path, which is nobody's business."""
    return "disk full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "disk error"
