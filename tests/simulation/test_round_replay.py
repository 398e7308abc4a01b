"""A round folded again from its journal stands where it stood, whatever event was the last that was kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hand_clock import HandClock
from virtual_fleet import NOW, VirtualFleet

from coordinator.round_journal import JournaledRound
from coordinator.round_replay import JournalMismatchError
from coordinator.stored import NewestRound, Opening, Recorded
from protocol import effects as fx
from protocol.chunks import BlobRef
from protocol.coordinator_phases import SUM_INTERVAL, Collecting
from protocol.coordinator_round import CoordinatorRound
from protocol.frames import seal_frame
from protocol.ids import DeviceId, Seconds
from protocol.messages import ShareSet
from protocol.phases import Phase
from runtime.blobs import BlobStore, MissingBlobError
from secagg.keys import Secret

WRITTEN_DOWN = (Phase.INVITING, Phase.KEYING, Phase.SHARING, Phase.COLLECTING, Phase.CONFIRMING)


@dataclass
class Tape:
    """A coordinator's state that remembers every unit it was given."""

    spool: BlobStore
    units: list[tuple[Recorded | None, Sequence[bytes]]] = field(default_factory=list)

    def record(self, event: Recorded | None, decisions: Sequence[bytes]) -> None:
        if event is not None or decisions:
            self.units.append((event, decisions))


class JournaledFleet(VirtualFleet):
    """A virtual fleet whose coordinator keeps a journal."""

    def __init__(self, folder: Path, devices: int, **more: int) -> None:
        super().__init__(devices, 4, **more)  # type: ignore[arg-type]
        self.tape = Tape(BlobStore(folder))
        self.clock = HandClock()
        self.opening = Opening(
            seal_frame(self.coordinator_identity, self.manifest), tuple(self.devices), devices, 2, NOW
        )
        self.journaled = self.fresh()
        self.round = self.journaled.half
        self.snapshots: list[tuple[int, str, bytes]] = []

    def fresh(self) -> JournaledRound:
        opening = self.opening
        half = CoordinatorRound(
            self.manifest,
            [DeviceId(name) for name in opening.invited],
            opening.wanted,
            self.trust,
            workers=opening.workers,
            started=NOW,
            noise_key=Secret(bytes(32)),
        )
        return JournaledRound(half, self.tape, self.coordinator_identity, self.clock)  # type: ignore[arg-type]

    def kept(self, units: int) -> NewestRound:
        events = [event for event, _ in self.tape.units[:units] if event is not None]
        decisions = [frame for _, frames in self.tape.units[:units] for frame in frames]
        return NewestRound(self.manifest.order, self.opening, over=False, events=events, decisions=decisions)

    def _coordinator(self, event: fx.CoordinatorEvent) -> None:
        effects = self.journaled.handle(event, self.now)
        if self.round.phase in WRITTEN_DOWN:
            self.snapshots.append((len(self.tape.units), *standing(self.round)))
        for name in self.losses.pop(self.round.phase, []):
            self.devices[name].lost = True
            self._coordinator(fx.Gone(name))
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.KeepSum):
            self._coordinator(fx.SumKept(self.tape.spool.put(effect.total.pack())))
        else:
            super()._perform(effect)

    def _receive(self, device: DeviceId, ref: BlobRef) -> None:
        self.tape.spool.put(self.devices[device].upload)
        super()._receive(device, ref)


def standing(half: CoordinatorRound) -> tuple[str, bytes]:
    """Everything a half knows: what prints, and the running sum."""
    state = half._state
    total = state.total.pack() if isinstance(state, Collecting) else b""
    return repr((half.progress, state, half._declined, half._gone, half._resend_at, half._away)), total


@pytest.mark.parametrize(("devices", "seed"), [(5, 1), (SUM_INTERVAL + 4, 2)])
async def test_every_prefix_of_the_journal_gives_the_half_of_that_moment(
    tmp_path: Path, devices: int, seed: int
) -> None:
    fleet = JournaledFleet(tmp_path, devices, seed=seed)
    fleet.lose("d002", phase=Phase.COLLECTING)
    assert fleet.run() is Phase.COMMITTED
    assert len(fleet.snapshots) > 3 * devices
    for units, known, total in fleet.snapshots:
        again = fleet.fresh()
        await again.replay(fleet.kept(units), fleet.trust)
        assert standing(again.half) == (known, total)


async def test_updates_that_a_stored_sum_holds_are_not_needed_any_more(tmp_path: Path) -> None:
    fleet = JournaledFleet(tmp_path, SUM_INTERVAL + 4)
    assert fleet.run() is Phase.COMMITTED
    obsolete = fleet.journaled._spooled.take_obsolete()
    assert len(obsolete) == SUM_INTERVAL
    for name in obsolete:
        fleet.tape.spool.delete(name)
    units, known, total = max(fleet.snapshots)
    again = fleet.fresh()
    await again.replay(fleet.kept(units), fleet.trust)
    assert standing(again.half) == (known, total)


async def test_what_was_under_way_is_begun_anew(tmp_path: Path) -> None:
    fleet = JournaledFleet(tmp_path, 5)
    fleet.run()
    begun: set[type] = set()
    ended = next(index for index, (event, _) in enumerate(fleet.tape.units) if event is None)
    for units in range(ended + 1):
        again = fleet.fresh()
        for effect in await again.replay(fleet.kept(units), fleet.trust):
            begun.add(type(effect.work) if isinstance(effect, fx.Compute) else type(effect))
    assert {kind.__name__ for kind in begun} >= {"FormCohort", "SortMail", "AddUpdate", "RecoverKeys"}


async def test_another_decision_than_the_one_announced_is_a_mismatch(tmp_path: Path) -> None:
    fleet = JournaledFleet(tmp_path, 5)
    fleet.run()
    before = next(units for units, known, _ in fleet.snapshots if "COLLECTING" in known)
    kept = fleet.kept(before)
    altered = ShareSet(fleet.manifest.order, bytes(32), ("d001",))
    wrong = [*kept.decisions[:-1], seal_frame(fleet.coordinator_identity, altered)]
    for decisions in (wrong, kept.decisions[:-1], [*kept.decisions, wrong[-1]]):
        other = NewestRound(kept.order, kept.opening, over=False, events=kept.events, decisions=decisions)
        with pytest.raises(JournalMismatchError):
            await fleet.fresh().replay(other, fleet.trust)


async def test_a_missing_update_is_an_error_and_not_a_wrong_sum(tmp_path: Path) -> None:
    fleet = JournaledFleet(tmp_path, 5)
    fleet.run()
    fleet.tape.spool.keep_only(())
    with pytest.raises(MissingBlobError):
        await fleet.fresh().replay(fleet.kept(max(fleet.snapshots)[0]), fleet.trust)


async def test_time_goes_on_from_where_it_stood(tmp_path: Path) -> None:
    fleet = JournaledFleet(tmp_path, 5)
    fleet.run()
    kept = fleet.kept(5)
    await fleet.clock.pass_time(1000.0)
    again = fleet.fresh()
    await again.replay(kept, fleet.trust)
    assert again.seconds == kept.events[-1].time
    (alarm,) = [
        one for one in again.handle(fx.Resumed(Seconds(1.0)), fleet.clock.now()) if isinstance(one, fx.WakeAt)
    ]
    assert alarm.time >= fleet.clock.now()


async def test_the_sum_after_a_restart_is_the_sum(tmp_path: Path) -> None:
    """Crash in the middle of collecting, twice; the mean is plain averaging all the same."""
    fleet = JournaledFleet(tmp_path, 6)
    crashes = iter([25, 32])

    class Crash(Exception):  # noqa: N818 - no error
        pass

    def tamper(_sender: str, receiver: str, frame: bytes) -> list[bytes]:
        if receiver == "coordinator" and len(fleet.tape.units) >= due[0]:
            due[0] = next(crashes, 10**9)
            raise Crash
        return [frame]

    due = [next(crashes)]
    fleet.tamper = tamper
    for _ in range(3):
        try:
            phase = fleet.run()
            break
        except Crash:
            fleet.journaled = fleet.fresh()
            unfinished = await fleet.journaled.replay(fleet.kept(len(fleet.tape.units)), fleet.trust)
            fleet.round = fleet.journaled.half
            fleet.journaled._origin = Seconds(0.0)
            for effect in unfinished:
                fleet._perform(effect)
            fleet._coordinator(fx.Resumed(Seconds(5.0)))
    assert phase is Phase.COMMITTED
    assert fleet.mean is not None
    np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean(), atol=1e-4)


async def test_a_restarted_coordinator_does_not_take_a_revoked_device_back(tmp_path: Path) -> None:
    fleet = JournaledFleet(tmp_path, 6)
    units: list[int] = []

    def watching(sender: str, receiver: str, frame: bytes) -> list[bytes]:
        if receiver == "coordinator" and sender == "d002" and b"round-keys" in frame and not units:
            fleet._hear(frame)
            fleet._coordinator(fx.Revoked(DeviceId("d002")))
            units.append(len(fleet.tape.units))
        return [frame] if sender != "d002" or not units else []

    fleet.tamper = watching
    assert fleet.run() is Phase.COMMITTED
    assert "d002" not in fleet.survivors
    again = fleet.fresh()
    await again.replay(fleet.kept(units[0]), fleet.trust)
    assert "d002" in again.half._declined
    assert "d002" in {certificate.subject for certificate in again.signers}
    assert (units[0], *standing(again.half)) in fleet.snapshots
