"""Readers of bytes: each answers with a message or with an error that its contract names."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from virtual_fleet import NOW

from coordinator.round_entries import (
    BeginEntry,
    DoneEntry,
    Entry,
    FailedEntry,
    FrameAgainEntry,
    FrameEntry,
    GoneEntry,
    ResumedEntry,
    SumEntry,
    UnknownEntryError,
    UploadedEntry,
    UploadFailedEntry,
    WokeEntry,
    decode_entry,
    encode_entry,
)
from fuzz.findings import Findings, smaller
from fuzz.mutator import JSON, MSGPACK, Language, Mutator
from fuzz.rounds import RecordedRound
from protocol.chunks import MIN_CHUNK_SIZE, Assembly, Chunk, describe, split
from protocol.errors import FrameError, PeerError
from protocol.frames import open_coordinator_frame, open_device_frame, reopen_device_frame
from protocol.ids import DeviceId
from protocol.messages import MAX_FRAME, Message, decode_from_coordinator, decode_from_device, encode
from protocol.status import (
    MAX_STATUS,
    CoordinatorStatus,
    DeviceStatus,
    ModelStatus,
    RoundResult,
    RoundStatus,
    encode_status,
    read_status,
)
from protocol.topics import Topics
from runtime.uploads import _decoded as decode_chunk

MAX_CAUSE = 1000
"""Characters of an error: it goes into a log, which hostile bytes must not fill."""


class LongCauseError(AssertionError):
    """An error quotes its input at length."""


class ForgedError(AssertionError):
    """A frame was opened that nobody signed."""


@dataclass(frozen=True)
class Reader:
    """What is attacked, and with what to begin.

    Attributes:
        name: of the target.
        seeds: valid inputs.
        read: may raise `documented` alone.
        documented: its errors.
        language: of the input.
        limit: longest input, in bytes.
    """

    name: str
    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    documented: type[Exception] = FrameError
    language: Language = MSGPACK
    limit: int = MAX_FRAME


class Bytes:
    """Feeds a reader.

    Args:
        reader: see there.
        chance: seeded.
        findings: where failures go.
    """

    def __init__(self, reader: Reader, chance: random.Random, findings: Findings) -> None:
        self.name = reader.name
        self._reader = reader
        self._findings = findings
        self._mutator = Mutator(chance, reader.seeds, reader.language, reader.limit)

    def feed(self, frames: int) -> None:
        """Read so many hostile inputs."""
        draw, read, documented = self._mutator.draw, self._reader.read, self._reader.documented
        for _ in range(frames):
            data = draw()
            try:
                read(data)
            except documented as error:
                if len(str(error)) > MAX_CAUSE:
                    self._failed(data, LongCauseError(f"{len(str(error))} characters"))
            except BaseException as error:  # noqa: BLE001 - finding these is what this is for
                self._failed(data, error)

    def _failed(self, data: bytes, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise error
        kind = type(error)
        self._findings.add(
            self.name, error, lambda: smaller(data, lambda less: self._fails(less, kind)).hex()
        )

    def _fails(self, data: bytes, kind: type[BaseException]) -> bool:
        try:
            self._reader.read(data)
        except self._reader.documented as error:
            return kind is LongCauseError and len(str(error)) > MAX_CAUSE
        except BaseException as error:  # noqa: BLE001 - as above
            return type(error) is kind
        return False


def readers(recorded: RecordedRound) -> list[Reader]:
    """Every reader of bytes that a peer, or a damaged disk, has a hand in."""
    trust = recorded.trust
    up, down = _one_of_each(recorded.frames_up), _one_of_each(recorded.frames_down)
    stored = [encode_entry(entry) for entry in _entries(recorded)]
    return [
        Reader("device body", _bodies(recorded.from_devices), _stable(decode_from_device)),
        Reader("coordinator body", _bodies(recorded.from_coordinator), _stable(decode_from_coordinator)),
        Reader("device frame", up, _genuine(up, lambda data: open_device_frame(data, trust, NOW)), PeerError),
        Reader(
            "coordinator frame",
            down,
            _genuine(down, lambda data: open_coordinator_frame(data, trust, NOW)),
            PeerError,
        ),
        Reader("stored frame", up, lambda data: reopen_device_frame(data, trust), PeerError),
        Reader("journal entry", stored, decode_entry, UnknownEntryError),
        Reader("status", _statuses(), _read_statuses, language=JSON, limit=MAX_STATUS),
        _chunk_reader(),
    ]


def _one_of_each(frames: list[bytes]) -> list[bytes]:
    """Frames of different lengths: of each kind at least one."""
    return list({len(frame): frame for frame in frames}.values())


def _bodies(kinds: list[list[Message]]) -> list[bytes]:
    return [encode(message) for kind in kinds for message in kind[:2]]


def _stable(decode: Callable[[bytes], Message]) -> Callable[[bytes], None]:
    """What is read can be written, and reads the same again."""

    def read(data: bytes) -> None:
        body = encode(decode(data))
        if encode(decode(body)) != body:
            raise AssertionError("a message that changes when it is written")

    return read


def _genuine(frames: list[bytes], open_frame: Callable[[bytes], object]) -> Callable[[bytes], None]:
    signed = frozenset(frames)

    def read(data: bytes) -> None:
        open_frame(data)
        if data not in signed:
            raise ForgedError

    return read


def _entries(recorded: RecordedRound) -> list[Entry]:
    ref = describe(recorded.uploads[0])
    frames = [FrameEntry(frame) for frame in _one_of_each(recorded.frames_up)]
    return [
        BeginEntry(),
        *frames,
        FrameAgainEntry(3),
        WokeEntry(),
        GoneEntry("d001"),
        UploadedEntry("d001", ref),
        UploadFailedEntry("d002"),
        DoneEntry("AddUpdate/d001"),
        FailedEntry("FormCohort", "why"),
        SumEntry(ref.sha256),
        SumEntry(None),
        ResumedEntry(3.5),
    ]


def _statuses() -> list[bytes]:
    why = "too few devices"
    result = RoundResult(
        3, "aborted", 1, 2, 0.5, 0.25, clipped=0.0, seconds=3.5, model="sha256:00", reason=why
    )
    return [
        encode_status(CoordinatorStatus("online", "0.1.0", 3, 12, why)),
        encode_status(RoundStatus(3, "keying", 10, 9, 8, 7, 6, 5, 4, 3, 31.5, why)),
        encode_status(result),
        encode_status(ModelStatus(3, "00" * 32, 1000)),
        encode_status(DeviceStatus("sleeping", why, 12)),
    ]


_TOPICS = Topics("test")
_STATUS_TOPICS = (
    _TOPICS.coordinator_status,
    _TOPICS.round_status,
    f"{_TOPICS.round_status}s/3",
    _TOPICS.model_status,
    _TOPICS.device_status(DeviceId("d001")),
)


def _read_statuses(data: bytes) -> None:
    refusal: FrameError | None = None
    for topic in _STATUS_TOPICS:
        try:
            encode_status(read_status(topic, data))
        except FrameError as error:
            refusal = error if refusal is None or len(str(error)) > len(str(refusal)) else refusal
    if refusal is not None:
        raise refusal


def _chunk_reader() -> Reader:
    content = bytes(range(256)) * (MIN_CHUNK_SIZE // 256) + b"the rest"
    ref = describe(content, MIN_CHUNK_SIZE)
    chunks = [Chunk(ref.sha256, index, chunk) for index, chunk in enumerate(split(content, ref))]

    def read(data: bytes) -> None:
        chunk = decode_chunk(data)
        Assembly(ref).add(chunk.index, chunk.data)

    return Reader("chunk", [msgspec.msgpack.encode(chunk) for chunk in chunks], read, PeerError)
