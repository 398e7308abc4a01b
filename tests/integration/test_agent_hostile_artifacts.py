"""An agent is invited, by frames that are properly signed, to train what would harm it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hostile_artifacts import GOOD, WEIGHTS, contained, stopped
from known_conditions import conditions
from msgspec.structs import replace
from virtual_fleet import manifest_for

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
from models.training_limits import TrainingLimits
from models.training_process import TrainingWorker
from protocol.certificates import FleetTrust, Role
from protocol.chunks import BlobRef, describe
from protocol.frames import open_device_frame, seal_frame
from protocol.ids import DeviceId, Order, UnixTime
from protocol.messages import Accept, Decline, FromDevice, RoundKeys
from protocol.topics import Topics
from registrar.authority import FleetAuthority
from runtime.clock import SystemClock
from runtime.compute import Computer
from runtime.config import BrokerSettings
from runtime.downloads import publish_blob
from runtime.entropy import SystemEntropy
from runtime.revocations import RevocationKeeper
from runtime.status_board import StatusBoard

TOPICS, CLOCK, ENTROPY = Topics("test"), SystemClock(), SystemEntropy()
PATIENCE = 60.0
LIMITS = TrainingLimits(memory_limit_mb=384, cpu_seconds=2)
CORPUS = {hostile.name: hostile for hostile in [*stopped(), *contained()]}
GOOD_WEIGHTS = WEIGHTS.tobytes()


class Scene:
    """One real agent, and a coordinator that says what a test wants.

    Args:
        folder: an empty one, for the agent's state and data.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bus = MemoryBroker()
        authority = FleetAuthority.create("test", UnixTime(CLOCK.unix() - 60), ENTROPY.bytes)
        self._signer = authority.issue("coordinator", Role.COORDINATOR, 1)
        self._identity = authority.issue("d001", Role.DEVICE)
        self._trust = FleetTrust(self._identity.root)
        self._said: asyncio.Queue[FromDevice] = asyncio.Queue()
        self.worker = TrainingWorker(LIMITS)

    async def invite(self, number: int, bundle: bytes, weights: bytes = GOOD_WEIGHTS) -> None:
        """Open a round with these contents, published under their right hashes."""
        for content in (bundle, weights):
            await self.publish(content, describe(content))
        await self.send(number, describe(bundle), describe(weights))

    async def publish(self, content: bytes, ref: BlobRef) -> None:
        """Publish a content under any name."""
        await publish_blob(self._coordinator, TOPICS, content, ref)

    async def send(self, number: int, bundle: BlobRef, weights: BlobRef) -> None:
        """Send the signed manifest of a round."""
        manifest = manifest_for(WEIGHTS.size, members=5, order=Order(1, 1, number))
        manifest = replace(manifest, bundle=bundle, weights=weights)
        await self._coordinator.publish(TOPICS.inbox(DeviceId("d001")), seal_frame(self._signer, manifest))

    async def answer(self, number: int) -> FromDevice:
        """What the agent says next in this round, beside that it accepts."""
        async with asyncio.timeout(PATIENCE):
            while isinstance(said := await self._said.get(), Accept) or said.order.round != number:
                pass
        return said

    async def declines(self, number: int, name: str) -> str:
        """Invite it to train one of the corpus; the reason for which it declines."""
        hostile = CORPUS[name]
        await self.invite(number, hostile.bundle, hostile.weights.tobytes())
        return await self.reason(number)

    async def reason(self, number: int) -> str:
        """For which it leaves a round."""
        said = await self.answer(number)
        assert isinstance(said, Decline)
        return said.reason

    async def trains(self, number: int) -> bool:
        """Whether it trains a good artifact, and shows its keys."""
        await self.invite(number, GOOD.encode())
        return isinstance(await self.answer(number), RoundKeys)

    def _hear(self, delivery: Delivery) -> None:
        self._said.put_nowait(open_device_frame(delivery.payload, self._trust, CLOCK.unix()).message)

    @asynccontextmanager
    async def played(self) -> AsyncIterator["Scene"]:
        """The agent runs."""
        x = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
        np.savez(self._folder / "data.npz", x=x, y=(x[:, 0] > 0).astype(np.int64))
        stop = asyncio.Event()
        async with self._bus.connect("coordinator") as self._coordinator, Computer(workers=0) as computer:
            await self._coordinator.subscribe(TOPICS.outbox(DeviceId("d001")), self._hear)
            self.agent = Agent(self._equipment(computer))
            running = asyncio.create_task(self.agent.run(stop))
            try:
                await asyncio.sleep(0)
                yield self
            finally:
                stop.set()
                await running
                await self.worker.close()

    def _equipment(self, computer: Computer) -> Equipment:
        transport = self._bus.connect("d001")
        memory = AgentMemory(self._folder)
        memory.begin()
        return Equipment(
            settings=AgentSettings(
                fleet="test",
                broker=BrokerSettings(urls=("mqtt://localhost",)),
                identity=self._folder,
                state=self._folder,
                data=NpzSource(self._folder / "data.npz"),
                floors=Floors(min_cohort=3),
                training=LIMITS,
            ),
            identity=self._identity,
            trust=self._trust,
            revocations=RevocationKeeper(self._trust, CLOCK, self._folder),
            topics=TOPICS,
            transport=transport,
            board=StatusBoard(transport),
            memory=memory,
            artifacts=ArtifactCache(self._folder / "artifacts"),
            private=PrivateWeights(self._folder / "private"),
            worker=self.worker,
            computer=computer,
            clock=CLOCK,
            entropy=ENTROPY,
            conditions=conditions(memory, CLOCK),
            pace=PaceKeeper(self._trust, CLOCK, self._folder),
        )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("memory bomb by ConstantOfShape in eval_model.onnx", "training failed: out of memory"),
        ("memory bomb by doubling in training_model.onnx", "training failed: out of memory"),
        ("a thousand products of large matrices", "training failed: out of time"),
        ("crash by pool with strides of 0", "training failed: crashed"),
        ("external data, absolute", "training failed: bundle"),
        ("operator Loop", "training failed: bundle"),
        ("100,000 lists in each other", "training failed: bundle"),
        ("weights: NaN", "training failed: weights"),
        ("weights: too few", "training failed: weights"),
    ],
)
async def test_it_costs_one_round_and_the_next_one_works(tmp_path: Path, name: str, reason: str) -> None:
    async with Scene(tmp_path).played() as scene:
        assert await scene.declines(1, name) == reason
        assert await scene.trains(2)


async def test_content_without_the_hash_of_the_manifest_is_not_even_fetched_whole(tmp_path: Path) -> None:
    async with Scene(tmp_path).played() as scene:
        bomb = CORPUS["memory bomb by ConstantOfShape in eval_model.onnx"].bundle
        lie = replace(describe(bomb), sha256=sha256(GOOD.encode()).digest())
        await scene.publish(bomb, lie)
        await scene.send(1, lie, describe(GOOD_WEIGHTS))
        assert await scene.reason(1) == "the artifact cannot be fetched"
        assert scene.worker.pid is None
        assert await scene.trains(2)


async def test_an_older_round_is_not_trained_again(tmp_path: Path) -> None:
    async with Scene(tmp_path).played() as scene:
        assert await scene.trains(7)
        refused = scene.agent.refused
        for number in (6, 1):
            await scene.invite(number, CORPUS["operator Loop"].bundle)
        assert await scene.trains(8)
        assert scene.agent.refused == refused + 2
