"""What is written down of a round: its events without what can be computed or read again.

Entries also tell which spooled updates are still needed; the journal and its replay follow them alike.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from protocol.chunks import BlobRef
from protocol.coordinator_work import AddUpdate
from protocol.effects import Work
from protocol.errors import MAX_CAUSE, FedfleetError
from protocol.ids import Hash, Name


class _Base(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class BeginEntry(_Base, frozen=True, tag="begun"):
    """`Begin`."""


class FrameEntry(_Base, frozen=True, tag="frame"):
    """`Heard` of a new frame."""

    frame: bytes


class FrameAgainEntry(_Base, frozen=True, tag="again"):
    """`Heard` of a frame that a device says again: the number of its `FrameEntry`, from 0."""

    number: int


class WokeEntry(_Base, frozen=True, tag="woke"):
    """`Woke`."""


class GoneEntry(_Base, frozen=True, tag="gone"):
    """`Gone`."""

    device: Name


class RevokedEntry(_Base, frozen=True, tag="revoked"):
    """`Revoked`."""

    device: Name


class UploadedEntry(_Base, frozen=True, tag="uploaded"):
    """`Uploaded`; the content is spooled under its hash."""

    device: Name
    ref: BlobRef


class UploadFailedEntry(_Base, frozen=True, tag="upload-failed"):
    """`UploadFailed`."""

    device: Name


class DoneEntry(_Base, frozen=True, tag="done"):
    """`Computed`: the name of the work, see `name_of`."""

    work: str


class FailedEntry(_Base, frozen=True, tag="failed"):
    """`ComputeFailed`, and why."""

    work: str
    reason: str


class SumEntry(_Base, frozen=True, tag="sum"):
    """`SumKept`: the spooled sum of every update added so far."""

    blob: Hash


class ResumedEntry(_Base, frozen=True, tag="resumed"):
    """`Resumed`."""

    away: float


Entry = (
    BeginEntry
    | FrameEntry
    | FrameAgainEntry
    | WokeEntry
    | GoneEntry
    | RevokedEntry
    | UploadedEntry
    | UploadFailedEntry
    | DoneEntry
    | FailedEntry
    | SumEntry
    | ResumedEntry
)
_decoder: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)


class UnknownEntryError(FedfleetError):
    """An entry of the journal is damaged, or was written by another release."""


def encode_entry(entry: Entry) -> bytes:
    """The bytes to store."""
    return msgspec.msgpack.encode(entry)


def decode_entry(data: bytes) -> Entry:
    """Read an entry.

    Raises:
        UnknownEntryError: see there.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        raise UnknownEntryError(f"not an entry of this release: {str(error)[:MAX_CAUSE]}") from error


_ADD = f"{AddUpdate.__name__}/"


def name_of(work: Work) -> str:
    """Tells apart what may be under way at once."""
    return f"{_ADD}{work.device}" if isinstance(work, AddUpdate) else type(work).__name__


class Spooled:
    """Which blobs of the open round are still needed."""

    def __init__(self) -> None:
        self._waiting: dict[str, bytes] = {}
        self._added: set[bytes] = set()
        self._obsolete: set[bytes] = set()

    def follow(self, entry: Entry) -> None:
        """Take the next entry into account.

        Raises:
            UnknownEntryError: it cannot follow the ones before.
        """
        match entry:
            case UploadedEntry(device, ref):
                self._waiting[device] = ref.sha256
            case DoneEntry(work) | FailedEntry(work) if work.startswith(_ADD):
                self._added.add(self._take(work.removeprefix(_ADD)))
            case SumEntry(blob):
                # Two devices may have sent the same bytes: what one still needs stays.
                self._obsolete |= self._added - set(self._waiting.values())
                self._added = {blob}

    def _take(self, device: str) -> bytes:
        if device not in self._waiting:
            raise UnknownEntryError(f"the update of {device} was added, but never came")
        return self._waiting.pop(device)

    def take_obsolete(self) -> set[bytes]:
        """Hashes of what nobody needs any more; each is told once."""
        obsolete, self._obsolete = self._obsolete, set()
        return obsolete


def newest_sum(entries: Sequence[Entry]) -> tuple[bytes | None, frozenset[str]]:
    """The hash of the newest stored sum, and the devices whose updates it holds."""
    blob: bytes | None = None
    held: frozenset[str] = frozenset()
    added: set[str] = set()
    for entry in entries:
        if isinstance(entry, DoneEntry) and entry.work.startswith(_ADD):
            added.add(entry.work.removeprefix(_ADD))
        elif isinstance(entry, SumEntry):
            blob, held = entry.blob, frozenset(added)
    return blob, held
