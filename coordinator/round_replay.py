"""Tells a fresh half of a round everything that its journal holds, so that it stands where it stood.

Masked updates that a stored sum holds are not added again. What was under way when the journal ends is
collected, to be begun anew; other effects are not carried out.
"""

import asyncio
from collections.abc import Callable, Sequence
from hashlib import sha256

from coordinator.round_entries import (
    BeginEntry,
    DoneEntry,
    Entry,
    FailedEntry,
    FrameAgainEntry,
    FrameEntry,
    GoneEntry,
    ResumedEntry,
    RevokedEntry,
    Spooled,
    SumEntry,
    UnknownEntryError,
    UploadedEntry,
    UploadFailedEntry,
    WokeEntry,
    decode_entry,
    name_of,
    newest_sum,
)
from coordinator.stored import DamagedStateError, NewestRound, decode_stored
from protocol.certificates import Certificate, FleetTrust
from protocol.chunks import BlobRef
from protocol.coordinator_round import CoordinatorRound
from protocol.coordinator_work import AddUpdate
from protocol.effects import (
    Announce,
    Begin,
    Compute,
    Computed,
    ComputeFailed,
    CoordinatorEvent,
    Effect,
    Gone,
    Heard,
    KeepSum,
    Receive,
    Resumed,
    Revoked,
    StopReceiving,
    SumKept,
    Uploaded,
    UploadFailed,
    Woke,
    Work,
)
from protocol.errors import FedfleetError, PeerError
from protocol.frames import Frame, Opened, reopen_device_frame
from protocol.ids import DeviceId, Seconds
from protocol.messages import Decision, FromDevice, encode
from runtime.blobs import BlobStore
from secagg.ring import RingVector


class JournalMismatchError(FedfleetError):
    """The journal tells another story than this program makes of it; it was written by another release."""


class Replay:
    """One pass over the journal of an open round.

    Args:
        half: fresh; afterwards where the journal ends.
        kept: the open round.
        spool: updates and sums.
        trust: the fleet's root.

    Attributes:
        under_way: what was begun and not ended, to be begun anew.
        frames: the decisions, as they were signed.
        heard: the number of each frame, by its hash.
        spooled: which updates are still needed.
    """

    def __init__(
        self, half: CoordinatorRound, kept: NewestRound, spool: BlobStore, trust: FleetTrust
    ) -> None:
        self._half = half
        self._kept = kept
        self._spool = spool
        self._trust = trust
        self._sum: bytes | None = None
        self._summed: frozenset[str] = frozenset()
        self._opened: list[Opened[FromDevice]] = []
        self.under_way: list[Effect] = []
        self._announced = 0
        self.frames: dict[Decision, bytes] = {}
        self.heard: dict[bytes, int] = {}
        self.spooled = Spooled()

    @property
    def signers(self) -> list[Certificate]:
        """Of every frame, the newest last."""
        return [frame.signer for frame in self._opened]

    async def run(self) -> None:
        """Tell the half everything again.

        Raises:
            JournalMismatchError: see there.
            BlobError: a stored update or sum is missing or damaged.
        """
        try:
            await self._fold([decode_entry(event.entry) for event in self._kept.events])
        except (UnknownEntryError, DamagedStateError, PeerError) as error:
            raise JournalMismatchError(f"it cannot be followed: {error}") from error
        if self._announced < len(self._kept.decisions):
            raise JournalMismatchError("it announced more than follows from what it heard")

    async def _fold(self, entries: Sequence[Entry]) -> None:
        self._sum, self._summed = newest_sum(entries)
        for recorded, entry in zip(self._kept.events, entries, strict=True):
            self.spooled.follow(entry)
            event = await self._event(entry)
            for effect in self._half.handle(event, Seconds(recorded.time)):
                self._follow(effect)

    # Events from entries.

    async def _event(self, entry: Entry) -> CoordinatorEvent:  # noqa: C901, PLR0911 - one line an entry
        match entry:
            case BeginEntry():
                return Begin()
            case FrameEntry(frame):
                self.heard[sha256(frame).digest()] = len(self.heard)
                self._opened.append(reopen_device_frame(frame, self._trust))
                return Heard(self._opened[-1])
            case FrameAgainEntry(number):
                return Heard(self._opened[number])
            case WokeEntry():
                return Woke()
            case GoneEntry(device):
                return Gone(DeviceId(device))
            case RevokedEntry(device):
                return Revoked(DeviceId(device))
            case UploadedEntry(device, ref):
                self._finish(lambda effect: isinstance(effect, Receive) and effect.device == device)
                return Uploaded(DeviceId(device), ref, await self._update(DeviceId(device), ref))
            case UploadFailedEntry(device):
                self._finish(lambda effect: isinstance(effect, Receive) and effect.device == device)
                return UploadFailed(DeviceId(device))
            case DoneEntry(name):
                return await self._again(self._finish_work(name))
            case FailedEntry(name, reason):
                return ComputeFailed(self._finish_work(name), FedfleetError(reason))
            case SumEntry(blob):
                return await self._restore_sum(blob)
            case ResumedEntry(away):
                return Resumed(Seconds(away))

    async def _update(self, device: DeviceId, ref: BlobRef) -> bytes:
        return b"" if device in self._summed else await asyncio.to_thread(self._spool.get, ref.sha256)

    async def _again(self, work: Work) -> CoordinatorEvent:
        """The work's result, computed again unless the stored sum holds it."""
        if isinstance(work, AddUpdate) and work.device in self._summed:
            return Computed(work, work.device)
        return Computed(work, await asyncio.to_thread(work.run))

    async def _restore_sum(self, blob: bytes) -> SumKept:
        for effect in self._finish(lambda one: isinstance(one, KeepSum)):
            if isinstance(effect, KeepSum) and blob == self._sum:
                stored = await asyncio.to_thread(self._spool.get, blob)
                effect.total.add(RingVector.unpack(effect.total.layout, stored))
        return SumKept(blob)

    # Effects.

    def _follow(self, effect: Effect) -> None:
        match effect:
            case Compute() | Receive() | KeepSum():
                self.under_way.append(effect)
            case StopReceiving(device):
                self._finish(lambda one: isinstance(one, Receive) and device in (None, one.device))
            case Announce(decision) if decision not in self.frames:
                self.frames[decision] = self._stored(decision)

    def _stored(self, decision: Decision) -> bytes:
        """The frame that left, or was about to; the same decision must have been taken then."""
        if self._announced == len(self._kept.decisions):
            raise JournalMismatchError(f"a {type(decision).__name__} was not announced then")
        frame = self._kept.decisions[self._announced]
        if decode_stored(frame, Frame).body != encode(decision):
            raise JournalMismatchError(f"another {type(decision).__name__} was announced then")
        self._announced += 1
        return frame

    def _finish(self, ended: Callable[[Effect], bool]) -> list[Effect]:
        finished = [effect for effect in self.under_way if ended(effect)]
        self.under_way = [effect for effect in self.under_way if not ended(effect)]
        return finished

    def _finish_work(self, name: str) -> Work:
        for effect in self._finish(lambda one: isinstance(one, Compute) and name_of(one.work) == name):
            if isinstance(effect, Compute):
                return effect.work
        raise JournalMismatchError(f"{name} was not under way")
