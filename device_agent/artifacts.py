"""What an agent has fetched: one file for each content, filled chunk by chunk as they come.

Nothing in these files is believed. Whenever one is opened, each chunk is checked against the hash that the
signed manifest gives it, and what is missing or wrong is fetched again. So a file may be half full, damaged
or torn by a power cut; nothing has to be renamed when it is complete, and no round waits for a slow disk to
sync.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import structlog

from protocol.chunks import Assembly, BlobRef
from protocol.errors import ProtocolError
from runtime.files import keep_newest

KEPT = 16
"""Contents kept, by last use: of two plans that take turns the manifest, up to four files of an engine,
frozen and private weights, and the newest weights."""

KEPT_BYTES = 2**30
"""Of all of them together, twice what a training process may take of memory unless its owner says more."""

_log = structlog.get_logger(__name__)


@dataclass
class Artifact:
    """One content: in memory as far as it is there, and its file.

    Attributes:
        assembly: holds the chunks that were in the file.
        path: of the file.
    """

    assembly: Assembly
    path: Path
    _kept: bool = True

    def keep(self, index: int, data: bytes) -> None:
        """Write one chunk, blocking. A disk that refuses ends the keeping and frees what the file took."""
        if not self._kept:
            return
        try:
            with self.path.open("r+b") as file:
                file.seek(self.assembly.ref.span(index).start)
                file.write(data)
        except OSError as error:
            self._kept = False
            _log.warning("artifact_not_kept", cause=str(error))
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


class ArtifactCache:
    """A folder of contents, named by their SHA-256.

    Args:
        folder: made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, ref: BlobRef) -> Artifact:
        """A content with what is here of it, blocking; those used longest ago make room for it.

        Raises:
            ProtocolError: the reference contradicts itself.
        """
        artifact = Artifact(Assembly(ref), self._folder / ref.sha256.hex())
        try:
            self._make_place(artifact.path, KEPT_BYTES - ref.size)
            _fill(artifact)
        except OSError as error:
            _log.warning("artifact_not_read", cause=str(error))
        return artifact

    def _make_place(self, path: Path, size: int) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        keep_newest((file for file in self._folder.iterdir() if file != path), KEPT - 1, size)


def _fill(artifact: Artifact) -> None:
    ref = artifact.assembly.ref
    with artifact.path.open("rb") as file:
        for index in range(ref.chunks):
            data = file.read(ref.chunk_size)[: ref.size - index * ref.chunk_size]
            if not data:
                return
            with contextlib.suppress(ProtocolError):
                artifact.assembly.add(index, data)
