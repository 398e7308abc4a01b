"""An agent that is invited to a round which it is in no more says so: nobody waits for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hand_clock import HandClock, settle
from known_conditions import conditions
from virtual_fleet import NOW, VirtualFleet

from broker.memory import MemoryBroker
from broker.transport import Delivery
from device_agent.app import Agent
from device_agent.artifacts import ArtifactCache
from device_agent.equipment import Equipment
from device_agent.memory import AgentMemory
from device_agent.pace import PaceKeeper
from device_agent.private_weights import PrivateWeights
from device_agent.settings import AgentSettings, Floors
from models.datasets.source import NpzSource
from models.training_process import TrainingWorker
from protocol.frames import open_device_frame, seal_frame
from protocol.ids import DeviceId, Order, UnixTime
from protocol.messages import Decline, FromDevice, Manifest, Offer, encode
from protocol.topics import Topics
from protocol.transcript import begin
from runtime.compute import Computer
from runtime.config import BrokerSettings
from runtime.entropy import SeededEntropy
from runtime.revocations import RevocationKeeper
from runtime.status_board import StatusBoard

D1 = DeviceId("d001")
TOPICS = Topics("test")


class WallClock(HandClock):
    def unix(self) -> UnixTime:
        return NOW


class Stage:
    """One agent on a bus in memory, and what it says."""

    def __init__(self, folder: Path) -> None:
        self.fleet = VirtualFleet(5)
        self.broker = MemoryBroker()
        self.folder = folder
        self.said: list[FromDevice] = []

    def hear(self, delivery: Delivery) -> None:
        message = open_device_frame(delivery.payload, self.fleet.trust, NOW).message
        if not isinstance(message, Offer):
            self.said.append(message)

    async def invite(self, manifest: Manifest) -> None:
        frame = seal_frame(self.fleet.coordinator_identity, manifest)
        async with self.broker.connect("coordinator") as coordinator:
            await coordinator.publish(TOPICS.inbox(D1), frame)
        await settle()

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[None]:
        memory, clock = AgentMemory(self.folder), WallClock()
        memory.begin()
        transport, identity = self.broker.connect(D1), self.fleet.devices[D1].identity
        async with Computer(workers=0) as computer, self.broker.connect("listener") as listener:
            await listener.subscribe(TOPICS.outbox(D1), self.hear)
            equipment = Equipment(
                settings=AgentSettings(
                    fleet="test",
                    broker=BrokerSettings(urls=("mqtt://localhost",)),
                    identity=self.folder,
                    state=self.folder,
                    data=NpzSource(self.folder),
                    floors=Floors(min_cohort=3),
                ),
                identity=identity,
                trust=self.fleet.trust,
                revocations=RevocationKeeper(self.fleet.trust, clock, self.folder),
                topics=TOPICS,
                transport=transport,
                board=StatusBoard(transport),
                memory=memory,
                artifacts=ArtifactCache(self.folder / "artifacts"),
                private=PrivateWeights(self.folder / "private"),
                worker=TrainingWorker(),
                computer=computer,
                clock=clock,
                entropy=SeededEntropy(1),
                conditions=conditions(memory, clock),
                pace=PaceKeeper(self.fleet.trust, clock, self.folder),
            )
            stop = asyncio.Event()
            running = asyncio.create_task(Agent(equipment).run(stop))
            await settle()
            yield
            stop.set()
            await running


async def test_a_restarted_agent_declines_the_round_that_it_had_entered(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    memory = AgentMemory(tmp_path)
    memory.begin()
    memory.remember(stage.fleet.manifest.order, 0.0)

    async with stage.agent():
        await stage.invite(stage.fleet.manifest)

    order, t0 = stage.fleet.manifest.order, begin(encode(stage.fleet.manifest))
    assert stage.said == [Decline(order, t0, "it is in this round no more")]


async def test_an_older_round_is_refused_without_a_word(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    memory = AgentMemory(tmp_path)
    memory.begin()
    memory.remember(Order(1, 1, 2), 0.0)

    async with stage.agent():
        await stage.invite(stage.fleet.manifest)

    assert stage.said == []
