"""A round as a fold over its journal: every event the half is told is written down, and can be told again.

Live, an event and the decisions that came of it are one unit of the journal, and nothing leaves before that
unit is durable. After a restart the same events in the same order give the same half; see
`coordinator.round_replay`.

Recovering is not written down. It is arithmetic on what was revealed, ends in nothing but the end of the
round, and is done again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TypeGuard

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
    UploadedEntry,
    UploadFailedEntry,
    WokeEntry,
    encode_entry,
    name_of,
)
from coordinator.round_replay import Replay
from coordinator.state import CoordinatorState
from coordinator.stored import NewestRound, Recorded
from protocol.certificates import Certificate, FleetTrust
from protocol.coordinator_round import CoordinatorRound, Progress
from protocol.coordinator_work import DecodeSum, ExpandMasks, RecoverKeys
from protocol.effects import (
    Announce,
    Begin,
    Committed,
    Computed,
    ComputeFailed,
    CoordinatorEvent,
    Effect,
    Gone,
    Heard,
    Refuse,
    Resumed,
    Revoked,
    SumKept,
    Uploaded,
    UploadFailed,
    WakeAt,
    Woke,
)
from protocol.frames import Opened, Signer, seal_frame
from protocol.ids import Seconds
from protocol.messages import Decision, FromDevice
from runtime.clock import Clock

DONE_AGAIN = RecoverKeys | ExpandMasks | DecodeSum


class JournaledRound:
    """The coordinator's half of a round with its journal: what the driver runs.

    Args:
        half: not begun.
        state: where the round is written down.
        signer: signs decisions.
        clock: time.

    Attributes:
        signers: of the frames that were replayed.
    """

    def __init__(self, half: CoordinatorRound, state: CoordinatorState, signer: Signer, clock: Clock) -> None:
        self.half = half
        self._state = state
        self._signer = signer
        self._clock = clock
        self._origin = clock.now()
        self._frames: dict[Decision, bytes] = {}
        self._heard: dict[bytes, int] = {}
        self._spooled = Spooled()
        self.signers: Sequence[Certificate] = ()

    @property
    def over(self) -> bool:
        """See `runtime.driver.Machine`."""
        return self.half.over

    @property
    def progress(self) -> Progress:
        """Where the round stands; its deadline as a time of the clock."""
        progress = self.half.progress
        return replace(progress, deadline=Seconds(progress.deadline + self._origin))

    @property
    def seconds(self) -> float:
        """The round took so far, in its own time."""
        return self._clock.now() - self._origin

    @property
    def decisions(self) -> Sequence[tuple[Decision, bytes]]:
        """Everything announced so far, with the frames that leave."""
        return tuple(self._frames.items())

    def frame_of(self, decision: Decision) -> bytes:
        """The signed bytes of a decision, the same at every time."""
        if decision not in self._frames:
            self._frames[decision] = seal_frame(self._signer, decision)
        return self._frames[decision]

    async def flushed(self) -> None:
        """Return once everything handled so far is durable."""
        await self._state.journal.flushed()

    async def forget_summed(self) -> None:
        """Once it is durable that a sum holds them, remove the updates and the sum before it."""
        names = self._spooled.take_obsolete()
        await self.flushed()
        for name in names:
            await asyncio.to_thread(self._state.spool.delete, name)

    def handle(self, event: CoordinatorEvent, now: Seconds) -> list[Effect]:
        """See `runtime.driver.Machine`; writes the event and new decisions down.

        A frame that comes too late or is refused changes nothing, and is not written down: devices cannot
        fill the disk with it.
        """
        if self.half.over or (isinstance(event, Heard) and not self.half.heeds(event.frame.message)):
            return []
        time = Seconds(now - self._origin)
        effects = self.half.handle(event, time)
        new = [effect.decision for effect in effects if _is_new(effect, self._frames)]
        entry = None if _is_refused(event, effects) else self._entry(event)
        recorded = None
        if entry is not None:
            self._spooled.follow(entry)
            recorded = Recorded(time, self._clock.unix(), encode_entry(entry))
        self._state.record(recorded, [self.frame_of(decision) for decision in new])
        return [self._on_the_clock(effect) for effect in effects]

    def _on_the_clock(self, effect: Effect) -> Effect:
        return WakeAt(Seconds(effect.time + self._origin)) if isinstance(effect, WakeAt) else effect

    def _entry(self, event: CoordinatorEvent) -> Entry | None:  # noqa: C901, PLR0911, PLR0912 - one line an event
        match event:
            case Computed(work=work) | ComputeFailed(work=work) if isinstance(work, DONE_AGAIN):
                return None
            case Begin():
                return BeginEntry()
            case Heard(frame):
                return self._frame_entry(frame)
            case Woke():
                return WokeEntry()
            case Gone(device):
                return GoneEntry(device)
            case Revoked(device):
                return RevokedEntry(device)
            case Uploaded(device, ref):
                return UploadedEntry(device, ref)
            case UploadFailed(device):
                return UploadFailedEntry(device)
            case Computed(work):
                return DoneEntry(name_of(work))
            case ComputeFailed(work, error):
                return FailedEntry(name_of(work), str(error))
            case SumKept(blob):
                return SumEntry(blob)
            case Resumed(away):
                return ResumedEntry(away)
            case Committed():
                return None  # the model's own transaction has closed the round

    def _frame_entry(self, frame: Opened[FromDevice]) -> Entry:
        """Devices say things again; a large frame is written once."""
        digest = sha256(frame.frame).digest()
        if digest in self._heard:
            return FrameAgainEntry(self._heard[digest])
        self._heard[digest] = len(self._heard)
        return FrameEntry(frame.frame)

    async def replay(self, kept: NewestRound, trust: FleetTrust) -> Sequence[Effect]:
        """Bring the fresh half to where the journal ends; its time goes on from there.

        Args:
            kept: the open round.
            trust: the fleet's root.

        Returns:
            What was under way, to be begun anew.

        Raises:
            JournalMismatchError: this program decides otherwise than what was announced.
            BlobError: a stored update or sum is missing or damaged.
        """
        replay = Replay(self.half, kept, self._state.spool, trust)
        await replay.run()
        self._frames, self._heard, self._spooled = replay.frames, replay.heard, replay.spooled
        self.signers = replay.signers
        last = kept.events[-1].time if kept.events else 0.0
        self._origin = Seconds(self._clock.now() - last)
        return replay.under_way


def _is_refused(event: CoordinatorEvent, effects: Sequence[Effect]) -> bool:
    return isinstance(event, Heard) and {type(effect) for effect in effects} == {Refuse, WakeAt}


def _is_new(effect: Effect, known: Mapping[Decision, bytes]) -> TypeGuard[Announce]:
    return isinstance(effect, Announce) and effect.decision not in known
