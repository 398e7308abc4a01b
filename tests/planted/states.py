"""Bugs in what the coordinator keeps: journal, replay, the run, epochs."""

from dataclasses import replace
from typing import Any

from msgspec.structs import replace as with_fields

import coordinator.round_replay
import coordinator.run
from coordinator.fleet import Fleet
from coordinator.high_water import HighWaterMark
from coordinator.round_entries import Spooled, SumEntry, UploadedEntry, decode_entry
from coordinator.round_journal import JournaledRound
from coordinator.round_replay import Replay
from coordinator.rounds import Round
from coordinator.run import Run
from coordinator.state import CoordinatorState
from planted.bugs import Plant, bug, nothing, nothing_later
from protocol.coordinator_round import CoordinatorRound
from protocol.coordinator_work import AddUpdate
from protocol.effects import Computed, Invite, SumKept
from protocol.frames import seal_frame
from protocol.ids import ORIGIN, Order
from protocol.messages import Manifest
from runtime.journal import Journal

# The journal.


@bug("I3", "The journal says that everything is durable as soon as it is queued.")
def nothing_waits_for_the_sync(plant: Plant) -> None:
    plant.instead(Journal, "flushed", nothing_later)


@bug("I3", "Whoever waits for the journal is woken by the next commit, not by that of its own unit.")
def woken_by_an_earlier_commit(plant: Plant) -> None:
    plant.instead(Journal, "_wake", lambda real, self, _up_to: real(self, self._appended))


@bug("I3", "What the disk refused is dropped, not tried again.")
def refused_by_the_disk_and_dropped(plant: Plant) -> None:
    async def write_group(real: Any, self: Journal, units: Any) -> None:
        await real(self, units)
        if self._trouble:
            del self._queue[: len(units)]
            self._durable += len(units)
            self._wake(self._durable)

    plant.instead(Journal, "_write_group", write_group)


@bug("I3", "A manifest leaves before its round is stored.")
def round_opened_before_the_sync(plant: Plant) -> None:
    async def open_round(real: Any, self: CoordinatorState, order: Order, opening: Any) -> None:
        journal, self.journal = self.journal, Unwaited(self.journal)  # type: ignore[assignment]
        try:
            await real(self, order, opening)
        finally:
            self.journal = journal

    async def emit(real: Any, self: Round, effect: Any) -> None:
        if isinstance(effect, Invite):
            await self._publish(self._desk.topics.inbox(effect.to), self._manifest, Manifest)
        else:
            await real(self, effect)

    plant.instead(CoordinatorState, "open_round", open_round)
    plant.instead(Round, "emit", emit)


class Unwaited:
    """A journal for which nobody waits."""

    def __init__(self, journal: Journal) -> None:
        self.append = journal.append
        self.select = journal.select

    async def flushed(self) -> None: ...


# A round and its journal.


@bug("sum", "The event that leads to a decision is not written down with it.")
def decision_without_its_event(plant: Plant) -> None:
    def record(real: Any, self: CoordinatorState, event: Any, decisions: Any) -> None:
        real(self, None if decisions else event, decisions)

    plant.instead(CoordinatorState, "record", record)


@bug("sum", "A decision is written down in another unit than the event that led to it.")
def decision_in_another_unit(plant: Plant) -> None:
    def record(real: Any, self: CoordinatorState, event: Any, decisions: Any) -> None:
        real(self, event, ())
        if decisions:
            self.journal._writer.get_loop().call_later(  # type: ignore[union-attr]
                0.05, real, self, None, decisions
            )

    plant.instead(CoordinatorState, "record", record)


@bug("I4", "The last event before a crash is lost.")
def last_event_lost(plant: Plant) -> None:
    def newest(real: Any, self: CoordinatorState) -> Any:
        kept = real(self)
        return kept and replace(kept, events=kept.events[:-1])

    plant.instead(CoordinatorState, "newest_round", newest)


@bug("I3", "A restarted coordinator has lost its newest update, with all that followed, and decides anew.")
def decided_anew(plant: Plant) -> None:
    def newest(real: Any, self: CoordinatorState) -> Any:
        kept = real(self)
        if kept is None:
            return None
        entries = [decode_entry(event.entry) for event in kept.events]
        uploads = [place for place, entry in enumerate(entries) if isinstance(entry, UploadedEntry)]
        return replace(kept, events=kept.events[: uploads[-1]], decisions=()) if uploads else kept

    def handle(real: Any, self: JournaledRound, event: Any, now: Any) -> Any:
        signers[:] = [self._signer]
        return real(self, event, now)

    signers: list[Any] = []
    plant.instead(CoordinatorState, "newest_round", newest)
    plant.instead(JournaledRound, "handle", handle)
    plant.instead(Replay, "_stored", lambda _real, _self, decision: seal_frame(signers[0], decision))


@bug("sum", "A restarted coordinator adds the updates that its stored sum holds once more.")
def summed_updates_added_again(plant: Plant) -> None:
    plant.instead(
        coordinator.round_replay, "newest_sum", lambda real, entries: (real(entries)[0], frozenset())
    )


@bug("sum", "A restarted coordinator does not load its stored sum.")
def stored_sum_not_loaded(plant: Plant) -> None:
    async def restore(_real: Any, self: Replay, blob: bytes) -> SumKept:
        self._finish(lambda one: type(one).__name__ == "KeepSum")
        return SumKept(blob)

    plant.instead(Replay, "_restore_sum", restore)


@bug("sum", "A restarted coordinator loads every stored sum, not only the newest.")
def every_stored_sum_loaded(plant: Plant) -> None:
    async def restore(real: Any, self: Replay, blob: Any) -> SumKept:
        self._sum = blob
        kept: SumKept = await real(self, blob)
        return kept

    plant.instead(Replay, "_restore_sum", restore)


@bug("sum", "A restarted coordinator takes its updates as added, and adds none.")
def updates_not_added_again(plant: Plant) -> None:
    async def again(real: Any, self: Replay, work: Any) -> Any:
        return Computed(work, work.device) if isinstance(work, AddUpdate) else await real(self, work)

    plant.instead(Replay, "_again", again)


@bug("sum", "An update's file is removed when it is added, before a stored sum holds it.")
def update_removed_too_early(plant: Plant) -> None:
    def handle(real: Any, self: JournaledRound, event: Any, now: Any) -> Any:
        if isinstance(event, Computed) and isinstance(event.work, AddUpdate):
            self._state.spool.delete(event.work.ref.sha256)
        return real(self, event, now)

    plant.instead(JournaledRound, "handle", handle)


@bug("sum", "With the updates that a stored sum holds, those that wait to be added are removed.")
def waiting_updates_removed(plant: Plant) -> None:
    def follow(real: Any, self: Spooled, entry: Any) -> None:
        real(self, entry)
        if isinstance(entry, SumEntry) and entry.blob is not None:
            self._obsolete |= set(self._waiting.values())

    plant.instead(Spooled, "follow", follow)


@bug("sum", "The newest stored sum is removed together with the updates that it holds.")
def newest_sum_removed(plant: Plant) -> None:
    def follow(real: Any, self: Spooled, entry: Any) -> None:
        real(self, entry)
        if isinstance(entry, SumEntry) and entry.blob is not None:
            self._obsolete.add(entry.blob)

    plant.instead(Spooled, "follow", follow)


@bug("stuck", "A restarted coordinator does not begin anew what was under way.")
def unfinished_work_forgotten(plant: Plant) -> None:
    async def run(real: Any, self: Replay) -> None:
        await real(self)
        self.under_way.clear()

    plant.instead(Replay, "run", run)


@bug("stuck", "The time that a coordinator was away counts for the round's deadlines.")
def time_away_counts(plant: Plant) -> None:
    async def replay(real: Any, self: JournaledRound, kept: Any, trust: Any) -> Any:
        unfinished = await real(self, kept, trust)
        if kept.events:
            self._origin -= self._clock.unix() - kept.events[-1].unix
        return unfinished

    plant.instead(JournaledRound, "replay", replay)


@bug("I3", "A round may be extended beyond its lifetime.")
def extended_beyond_its_lifetime(plant: Plant) -> None:
    plant.instead(
        CoordinatorRound, "_lifetime_left", lambda _real, self, _now: self.manifest.deadlines.max_lifetime
    )


# The run.


def _without(plant: Plant, *queries: str) -> None:
    def append(real: Any, self: Journal, *statements: Any) -> None:
        is_commit = any(name == "set_model" for name, _ in statements)
        real(self, *(one for one in statements if not (is_commit and one[0] in queries)))

    plant.instead(Journal, "append", append)


@bug("I5", "The new model is stored, but the round is not closed.")
def model_without_the_end(plant: Plant) -> None:
    _without(plant, "close_round")


@bug("I5", "The round is closed, but its model is not stored.")
def end_without_the_model(plant: Plant) -> None:
    _without(plant, "set_model")


@bug("I5", "The new model and the end of its round are two transactions.")
def model_and_end_apart(plant: Plant) -> None:
    def append(real: Any, self: Journal, *statements: Any) -> None:
        if any(name == "set_model" for name, _ in statements):
            real(self, *statements[:3])
            self._writer.get_loop().call_later(0.05, real, self, *statements[3:])  # type: ignore[union-attr]
        else:
            real(self, *statements)

    plant.instead(Journal, "append", append)


@bug("I5", "The mean is applied twice.")
def mean_applied_twice(plant: Plant) -> None:
    def step(real: Any, settings: Any, state: Any, weights: Any, mean: Any) -> Any:
        once, moments = real(settings, state, weights, mean)
        return real(settings, moments, once, mean)

    plant.instead(coordinator.run, "step", step)


@bug("I5", "A round that was aborted is kept as committed.")
def aborted_kept_as_committed(plant: Plant) -> None:
    async def abort(real: Any, self: CoordinatorState, outcome: Any, result: Any, **cost: Any) -> None:
        await real(self, replace(outcome, committed=True), result, **cost)

    plant.instead(CoordinatorState, "abort", abort)


@bug("I5", "The result of a committed round says that it was aborted.")
def wrong_result(plant: Plant) -> None:
    async def close(real: Any, self: CoordinatorState, outcome: Any, result: Any, *others: Any) -> None:
        await real(self, outcome, with_fields(result, result="aborted"), *others)

    plant.instead(CoordinatorState, "_close_round", close)


@bug("I3", "A round that is over is opened once more after a restart.")
def closed_round_opened_again(plant: Plant) -> None:
    def newest(real: Any, self: CoordinatorState) -> Any:
        kept = real(self)
        return kept and replace(kept, over=False, decisions=())

    plant.instead(CoordinatorState, "newest_round", newest)


# Which state is the newest.


@bug("I6", "A copied state goes on in the epoch of the copy, whatever mark and devices say.")
def copy_in_the_same_epoch(plant: Plant) -> None:
    def load(real: Any, self: CoordinatorState, *given: Any) -> None:
        real(self, *given)
        self.restored = False

    plant.instead(CoordinatorState, "_load", load)
    plant.instead(HighWaterMark, "frame_arrived", nothing)
    plant.instead(Fleet, "newest_seen", lambda *_: ORIGIN)


@bug("I6", "Nobody looks at what mark and devices say of a rolled-back state.")
def rollback_not_noticed(plant: Plant) -> None:
    plant.instead(HighWaterMark, "frame_arrived", nothing)
    plant.instead(Fleet, "newest_seen", lambda *_: ORIGIN)


@bug("I3", "The open round of a copied or rolled-back state is gone on with.")
def stale_round_resumed(plant: Plant) -> None:
    async def go_on(real: Any, self: Run, kept: Any, _stale: str) -> None:
        await real(self, kept, "")

    plant.instead(Run, "_go_on", go_on)
