"""An agent that may not take part sleeps, and says why; one that may not any more leaves its training."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest
from hand_clock import HandClock
from known_conditions import WELL, Sensed, conditions
from msgspec.structs import replace
from virtual_fleet import NOW, VirtualFleet

from broker.memory import MemoryBroker
from broker.transport import Delivery
from coordinator.artifact import build_artifact
from device_agent.app import LOOK_INTERVAL, Agent
from device_agent.artifacts import ArtifactCache
from device_agent.equipment import Equipment
from device_agent.memory import AgentMemory
from device_agent.pace import PaceKeeper
from device_agent.participation import WATCH_INTERVAL
from device_agent.private_weights import PrivateWeights
from device_agent.settings import AgentSettings, ConditionSettings, Floors
from models.datasets.source import NpzSource
from models.training_calls import TrainResult
from models.training_process import TrainingWorker
from protocol.frames import open_device_frame, seal_frame
from protocol.ids import DeviceId, Order, UnixTime
from protocol.messages import MAX_REASON, Accept, Decline, FromDevice, Message, Offer, Pace, RoundEnded
from protocol.plan import Eligibility, Model, Plan
from protocol.status import DeviceStatus, decode_status
from protocol.topics import Topics
from runtime.compute import Computer
from runtime.config import BrokerSettings
from runtime.downloads import publish_blob
from runtime.entropy import SeededEntropy
from runtime.revocations import RevocationKeeper
from runtime.status_board import StatusBoard

ARTIFACT = build_artifact(Plan(Model("logistic", {"features": 2, "classes": 2})), Path(), seed=1)
D1, TOPICS = DeviceId("d001"), Topics("test")
HOT = changed(WELL, temperature=81)
TOO_HOT = "too hot (81 °C, needs at most 70 °C)"
COOL = ConditionSettings(max_temperature=70)
LOOK = 1.25 * LOOK_INTERVAL  # however the chance falls


class WallClock(HandClock):
    def unix(self) -> UnixTime:
        return UnixTime(NOW + self.now())


class EndlessWorker(TrainingWorker):
    """Trains until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.trains = self.cancelled = False

    async def train(self, *_: Any, **__: Any) -> TrainResult:
        self.trains = True
        try:
            return await asyncio.Future[TrainResult]()
        finally:
            self.trains, self.cancelled = False, True


class Bedroom:
    """One agent on a bus in memory, and everything that it says."""

    def __init__(self, folder: Path, settings: ConditionSettings = COOL) -> None:
        self.fleet = VirtualFleet(5)
        self.clock = WallClock()
        self.sensed = Sensed()
        self.worker = EndlessWorker()
        self.offers: list[Offer] = []
        self.said: list[FromDevice] = []
        self.status = DeviceStatus("offline")
        self.folder, self.settings = folder, settings
        self.broker = MemoryBroker()

    async def until(self, condition: Callable[[], object]) -> None:
        """What needs a thread takes real time."""
        for _ in range(2000):
            await self.clock.pass_time(0.0)
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"it never came; {self.status}, {self.said}")

    async def sees(self, state: str, why: str) -> None:
        await self.until(lambda: (self.status.state, self.status.why) == (state, why))

    async def invite(self, rules: Eligibility | None = None, number: int = 1) -> Order:
        """To a round with these rules of the plan."""
        manifest = replace(
            self.fleet.manifest,
            order=Order(1, 1, number),
            eligibility=rules or Eligibility(),
            bundle=ARTIFACT.manifest[1],
        )
        weights = bytes(manifest.weights.size), manifest.weights
        for content, ref in (*ARTIFACT.contents(), weights):
            await publish_blob(self.coordinator, TOPICS, content, ref)
        await self.tells(TOPICS.inbox(D1), manifest)
        return manifest.order

    async def tells(self, topic: str, message: Message, *, retain: bool = False) -> None:
        frame = seal_frame(self.fleet.coordinator_identity, message)
        await self.coordinator.publish(topic, frame, retain=retain)

    def hear(self, delivery: Delivery) -> None:
        message = open_device_frame(delivery.payload, self.fleet.trust, NOW).message
        if isinstance(message, Offer):
            self.offers.append(message)
        else:
            self.said.append(message)

    def see(self, delivery: Delivery) -> None:
        self.status = decode_status(delivery.payload, DeviceStatus)

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[None]:
        async with Computer(workers=0) as computer, self.broker.connect("coordinator") as self.coordinator:
            await self.coordinator.subscribe(TOPICS.outbox(D1), self.hear)
            await self.coordinator.subscribe(TOPICS.offer(D1), self.hear)
            await self.coordinator.subscribe(TOPICS.device_status(D1), self.see)
            stop, agent = asyncio.Event(), Agent(self._equipment(computer))
            running = asyncio.create_task(agent.run(stop))
            try:
                await self.until(lambda: self.status.state in {"idle", "sleeping"})
                yield
            finally:
                stop.set()
                await running

    def _equipment(self, computer: Computer) -> Equipment:
        memory = AgentMemory(self.folder)
        memory.begin()
        self.transport = self.broker.connect(D1)
        return Equipment(
            settings=AgentSettings(
                fleet="test",
                broker=BrokerSettings(urls=("mqtt://localhost",)),
                identity=self.folder,
                state=self.folder,
                data=NpzSource(self.folder),
                floors=Floors(min_cohort=3),
            ),
            identity=self.fleet.devices[D1].identity,
            trust=self.fleet.trust,
            revocations=RevocationKeeper(self.fleet.trust, self.clock, self.folder),
            topics=TOPICS,
            transport=self.transport,
            board=StatusBoard(self.transport),
            memory=memory,
            artifacts=ArtifactCache(self.folder / "artifacts"),
            private=PrivateWeights(self.folder / "private"),
            worker=self.worker,
            computer=computer,
            clock=self.clock,
            entropy=SeededEntropy(1),
            conditions=conditions(memory, self.clock, self.settings, self.sensed),
            pace=PaceKeeper(self.fleet.trust, self.clock, self.folder),
        )


async def test_a_device_that_may_not_take_part_sleeps_and_wakes(tmp_path: Path) -> None:
    room = Bedroom(tmp_path)
    room.sensed.readings = HOT
    async with room.agent():
        await room.clock.pass_time(600.0)
        await room.sees("sleeping", TOO_HOT)
        assert room.offers == []

        room.sensed.readings = WELL
        await room.clock.pass_time(LOOK)
        await room.sees("idle", "")
        assert len(room.offers) == 1
        assert room.offers[0].facts.temperature == 40


async def test_a_device_on_offer_falls_asleep_and_offers_no_more(tmp_path: Path) -> None:
    room = Bedroom(tmp_path)
    async with room.agent():
        await room.until(lambda: room.offers)
        room.sensed.readings = HOT
        await room.clock.pass_time(LOOK)
        await room.sees("sleeping", TOO_HOT)
        offered = len(room.offers)
        await room.clock.pass_time(600.0)
        assert len(room.offers) == offered


async def test_a_sleeping_device_declines_with_the_reason_for_which_it_sleeps(tmp_path: Path) -> None:
    room = Bedroom(tmp_path)
    room.sensed.readings = HOT
    async with room.agent():
        order = await room.invite()
        await room.until(lambda: room.said)
        (declined,) = room.said
        assert isinstance(declined, Decline)
        assert (declined.order, declined.reason) == (order, TOO_HOT)
        await room.sees("sleeping", TOO_HOT)


async def test_a_device_that_the_plan_does_not_want_declines_in_the_same_words_as_it_is_selected(
    tmp_path: Path,
) -> None:
    room = Bedroom(tmp_path)
    async with room.agent():
        await room.invite(Eligibility(tags=("roof",), max_temperature=30))
        await room.until(lambda: room.said)
        reason = "too hot (40 °C, needs at most 30 °C), without tag roof"
        assert [one.reason for one in room.said if isinstance(one, Decline)] == [reason]
        await room.sees("idle", f"declined: {reason}")


async def test_a_reason_fits_a_status_however_much_is_missing(tmp_path: Path) -> None:
    room = Bedroom(tmp_path)
    async with room.agent():
        await room.invite(Eligibility(tags=tuple(f"{i:064}" for i in range(16))))
        await room.until(lambda: len(room.status.why) == MAX_REASON)


@pytest.mark.parametrize(
    ("settings", "rules", "state", "why"),
    [
        (COOL, Eligibility(), "sleeping", TOO_HOT),
        (ConditionSettings(), Eligibility(max_temperature=70), "idle", f"declined: {TOO_HOT}"),
    ],
)
async def test_what_turns_bad_while_it_trains_ends_the_training(
    tmp_path: Path, settings: ConditionSettings, rules: Eligibility, state: str, why: str
) -> None:
    room = Bedroom(tmp_path, settings)
    async with room.agent():
        order = await room.invite(rules)
        await room.until(lambda: room.worker.trains)
        await room.clock.pass_time(3 * WATCH_INTERVAL)
        assert room.worker.trains

        room.sensed.readings = HOT
        await room.clock.pass_time(WATCH_INTERVAL)
        await room.until(lambda: room.worker.cancelled and len(room.said) > 1)
        accepted, declined = room.said
        assert isinstance(accepted, Accept)
        assert isinstance(declined, Decline)
        assert (declined.order, declined.reason) == (order, TOO_HOT)
        await room.sees(state, why)


async def test_its_training_ends_at_once_when_nobody_can_be_told(tmp_path: Path) -> None:
    room = Bedroom(tmp_path)
    async with room.agent():
        await room.invite()
        await room.until(lambda: room.worker.trains)
        room.broker.drop(D1)
        room.sensed.readings = HOT
        await room.clock.pass_time(WATCH_INTERVAL)
        await room.until(lambda: room.worker.cancelled)


async def test_after_a_round_it_rests(tmp_path: Path) -> None:
    room = Bedroom(tmp_path, ConditionSettings(min_rest=3600))
    async with room.agent():
        order = await room.invite()
        await room.until(lambda: room.worker.trains)
        await room.tells(TOPICS.inbox(D1), RoundEnded(order, "committed", "", 0.0))
        await room.until(lambda: room.status.state == "sleeping")
        assert room.status.why.startswith("took part lately (")
        await room.clock.pass_time(3600 + LOOK)
        await room.sees("idle", "")


async def test_a_device_wakes_when_its_hours_begin(tmp_path: Path) -> None:
    room = Bedroom(tmp_path)
    room.settings = ConditionSettings(windows=(hours_from(room.clock.unix() + 600.0),))
    async with room.agent():
        await room.until(lambda: room.status.state == "sleeping")
        assert room.status.why.startswith("outside its hours (")
        await room.clock.pass_time(660.0 + LOOK)
        await room.sees("idle", "")
        assert len(room.offers) > 0


def hours_from(unix: float) -> str:
    """A window of an hour by local time, its begin in whole minutes."""
    begin = time.localtime(unix)
    return f"{begin.tm_hour:02}:{begin.tm_min:02}-{(begin.tm_hour + 1) % 24:02}:{begin.tm_min:02}"


# Pace.


async def test_a_small_fleets_device_offers_itself_at_once_with_every_connection(tmp_path: Path) -> None:
    room = Bedroom(tmp_path)
    async with room.agent():
        await room.until(lambda: len(room.offers) == 1)
        room.broker.drop(D1)
        room.broker.resume(room.transport)
        await room.until(lambda: len(room.offers) == 2)
        await room.clock.pass_time(1.25 * 60)
        await room.until(lambda: len(room.offers) == 3)


async def test_a_large_fleets_device_takes_its_time_also_after_a_restart(tmp_path: Path) -> None:
    room = Bedroom(tmp_path)
    async with room.agent():
        await room.until(lambda: len(room.offers) == 1)
        await room.tells(TOPICS.pace, Pace(Order(1, 1, 1), 3600.0), retain=True)
        await room.until((tmp_path / "pace.json").exists)
        room.broker.drop(D1)
        room.broker.resume(room.transport)
        await room.clock.pass_time(1.0)
        assert len(room.offers) == 1
        await room.clock.pass_time(3600.0)
        assert len(room.offers) == 2

    async with room.agent():
        await room.clock.pass_time(1.0)
        assert len(room.offers) == 2
        await room.clock.pass_time(3600.0)
        assert len(room.offers) == 3


async def test_a_pace_that_is_not_the_coordinators_newest_changes_nothing(tmp_path: Path) -> None:
    room = Bedroom(tmp_path)
    keeper = PaceKeeper(room.fleet.trust, room.clock, tmp_path)

    def hears(pace: Message, by: Any = room.fleet.coordinator_identity) -> float:
        keeper.frame_arrived(Delivery(TOPICS.pace, seal_frame(by, pace), retained=True))
        return keeper.interval

    assert hears(Pace(Order(1, 2, 5), 600.0)) == 600.0
    assert hears(Pace(Order(1, 2, 4), 60.0)) == 600.0  # played again
    assert hears(Pace(Order(2, 0, 0), 60.0)) == 600.0  # of a generation that is not its signer's
    assert hears(Pace(Order(1, 2, 5), 60.0), by=room.fleet.devices[D1].identity) == 600.0
    assert hears(Pace(Order(1, 2, 5), 59.0)) == 600.0
    assert hears(Pace(Order(1, 2, 5), 3601.0)) == 600.0
    keeper.frame_arrived(Delivery(TOPICS.pace, b"noise", retained=True))
    assert hears(Pace(Order(1, 2, 6), 90.0)) == 90.0
    await room.until((tmp_path / "pace.json").exists)


@pytest.mark.parametrize("content", [b"", b"{", b'{"interval": 1e9}', b'{"interval": 5}', b"\xff"])
def test_a_damaged_memory_of_the_pace_is_none(tmp_path: Path, content: bytes) -> None:
    room = Bedroom(tmp_path)
    (tmp_path / "pace.json").write_bytes(content)
    assert PaceKeeper(room.fleet.trust, room.clock, tmp_path).interval == 60.0
