"""Large content as files named by their hash; rows of the journal hold the hash."""

import os
import re
import tempfile
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path

from protocol.chunks import Bytes
from protocol.errors import FedfleetError
from runtime.files import sync_folder

# Never the start of a blob's name.
_TEMPORARY = ".new-"

_OURS = re.compile(r"[0-9a-f]{64}|\.new-\w+")


class BlobError(FedfleetError):
    """A blob cannot be read; the message names the file and the fix."""


class MissingBlobError(BlobError):
    """No blob has this hash."""


class DamagedBlobError(BlobError):
    """The content does not have the hash that is its name."""


class BlobStore:
    """Content-addressed files. Every method blocks; any number of threads may call them.

    A blob is written under a temporary name, synced and renamed: its own name always shows it whole.

    Args:
        folder: made if it does not exist; nothing else keeps files in it.

    Raises:
        OSError: the disk refused, here and in every method.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self._folder.parent)

    def put(self, data: Bytes) -> bytes:
        """Keep content durably.

        What is there already is compared, not written again; a damaged file is replaced.

        Returns:
            Its SHA-256, 32 bytes.
        """
        digest = sha256(data).digest()
        file = self._file(digest)
        if not _holds(file, data):
            self._write(file, data)
        # Also for content that was there: its writer, another thread or a process that died, may not have
        # come to this line.
        sync_folder(self._folder)
        return digest

    def get(self, digest: bytes) -> bytes:
        """The content with this SHA-256.

        Raises:
            MissingBlobError: see there.
            DamagedBlobError: see there.
        """
        file = self._file(digest)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise MissingBlobError(f"{file} is missing. Restore it from a backup of the same time.") from None
        if sha256(data).digest() != digest:
            raise DamagedBlobError(f"{file} does not have the hash in its name. Restore it from a backup.")
        return data

    def delete(self, digest: bytes) -> None:
        """Forget content, if it is there. A crash may bring it back: see `keep_only`."""
        self._file(digest).unlink(missing_ok=True)

    def keep_only(self, digests: Collection[bytes]) -> None:
        """Delete every other blob, and what a crash left of a put. For start-up: no put may run."""
        kept = {digest.hex() for digest in digests}
        for file in self._folder.iterdir():
            if _OURS.fullmatch(file.name) and file.name not in kept:
                file.unlink()

    def _file(self, digest: bytes) -> Path:
        return self._folder / digest.hex()

    def _write(self, file: Path, data: Bytes) -> None:
        # A name of its own, so that two threads with the same content do not write into one file.
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=self._folder)
        temporary = Path(name)
        try:
            with open(descriptor, "wb") as stream:  # noqa: PTH123 - a descriptor has no path
                stream.write(data)
                stream.flush()
                os.fsync(descriptor)
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _holds(file: Path, data: Bytes) -> bool:
    try:
        return file.read_bytes() == data
    except FileNotFoundError:
        return False
