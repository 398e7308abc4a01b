"""Whether a registrar runs on a state folder: one at a time, and the operator's commands want to know."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registrar.store import StoreError

_LOCK_FILE = "registrar.lock"


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Hold the folder while a registrar runs on it; the kernel lets go when its process ends.

    Raises:
        StoreError: another one runs on it, or the folder cannot be used.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / _LOCK_FILE).open("ab")
    except OSError as error:
        raise StoreError(f"{folder} cannot be used ({error.strerror}); give another --state") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"another registrar runs on {folder}; stop it first") from None
        yield


def is_running(folder: Path) -> bool:
    """Whether a registrar holds the folder now."""
    try:
        with running(folder):
            return False
    except StoreError:
        return True
