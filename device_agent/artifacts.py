"""Training bundles that were fetched before, by their hash."""

from hashlib import sha256
from pathlib import Path

from runtime.files import write_synced

KEPT = 4
"""Bundles kept; a fleet trains one or two models at a time."""


class ArtifactCache:
    """A folder of content-addressed files.

    Args:
        folder: made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder

    def get(self, digest: bytes) -> bytes | None:
        """The content with this SHA-256, if it is here and undamaged."""
        try:
            data = (self._folder / digest.hex()).read_bytes()
        except OSError:
            return None
        return data if sha256(data).digest() == digest else None

    def put(self, data: bytes) -> None:
        """Keep a content, dropping the oldest beyond KEPT.

        Raises:
            OSError: the disk refused.
        """
        write_synced(self._folder / sha256(data).hexdigest(), data)
        files = sorted(self._folder.glob("[0-9a-f]*"), key=lambda file: file.stat().st_mtime)
        for old in files[:-KEPT]:
            old.unlink(missing_ok=True)
