"""An agent is invited, by frames that are properly signed, to train what would harm it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hostile_artifacts import GOOD, WEIGHTS, Hostile, aim, contained, greedy, manifests, stopped
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
from models.bounds import MAX_MANIFEST_BYTES
from models.bundle import Bundle
from models.datasets.source import NpzSource
from models.errors import BundleError
from models.installed import ORT_GRAPH
from models.training_limits import TrainingLimits
from models.training_process import TrainingWorker
from protocol.certificates import FleetTrust, Role
from protocol.chunks import MAX_BLOB_SIZE, BlobRef, describe
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
UNFETCHED = "the artifact cannot be fetched"
LIMITS = TrainingLimits(memory_limit_mb=384, cpu_seconds=2)
CORPUS = {hostile.name: hostile for hostile in [*stopped(), *contained()]}
HARMLESS = Hostile("harmless", aim(GOOD, ORT_GRAPH), "")
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

    async def invite(self, number: int, hostile: Hostile) -> None:
        """Open a round with this, published under right hashes."""
        try:
            bundle = Bundle.decode(hostile.bundle)
        except BundleError:
            await self.invite_to(number, hostile.bundle, hostile.weights.tobytes())
            return
        for name, content in bundle.files.items():
            await self.publish(content, bundle.manifest.files[name])
        engines = {hostile.engine: bundle.manifest.engines[hostile.engine]}
        manifest = replace(bundle.manifest, engines=engines).encode()
        await self.invite_to(number, manifest, hostile.weights.tobytes())

    async def invite_to(self, number: int, manifest: bytes, weights: bytes = GOOD_WEIGHTS) -> None:
        """Open a round with a bundle's manifest, whose files are published already or never."""
        for content in (manifest, weights):
            await self.publish(content, describe(content))
        await self.send(number, describe(manifest), describe(weights))

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
        await self.invite(number, CORPUS[name])
        return await self.reason(number)

    async def reason(self, number: int) -> str:
        """For which it leaves a round."""
        said = await self.answer(number)
        assert isinstance(said, Decline)
        return said.reason

    async def trains(self, number: int) -> bool:
        """Whether it trains a good artifact, and shows its keys."""
        await self.invite(number, HARMLESS)
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
        ("memory bomb by ConstantOfShape in evaluate_step.onnx", "training failed: out of memory"),
        ("memory bomb by doubling in training_model.onnx", "training failed: out of memory"),
        ("64 inputs of noise", "training failed: out of memory"),
        ("a thousand products of large matrices in evaluate_step.onnx", "training failed: out of time"),
        ("crash by division by zero in evaluate_step.onnx", "training failed: crashed"),
        ("external data, absolute, in train_step.onnx", "training failed: bundle"),
        ("operator Loop in eval_model.onnx", "training failed: bundle"),
        ("NaN among the private values", "training failed: bundle"),
        ("a step spoils a private parameter", "training failed: diverged"),
        ("an evaluation gives more classes", "training failed: bundle"),
        ("100,000 lists in each other", UNFETCHED),
        ("weights: NaN, for ort-graph", "training failed: weights"),
        ("weights: too few, for ort-training", "training failed: weights"),
    ],
)
async def test_it_costs_one_round_and_the_next_one_works(tmp_path: Path, name: str, reason: str) -> None:
    async with Scene(tmp_path).played() as scene:
        assert await scene.declines(1, name) == reason
        assert await scene.trains(2)


async def test_no_manifest_of_a_bundle_harms_the_agent(tmp_path: Path) -> None:
    async with Scene(tmp_path).played() as scene:
        for number, hostile in enumerate(manifests(), 1):
            if 0 < len(hostile.data) <= MAX_MANIFEST_BYTES:
                await scene.invite_to(number, hostile.data)
                assert await scene.reason(number) == UNFETCHED, hostile.name
        assert scene.worker.pid is None
        assert await scene.trains(number + 1)


async def test_more_than_its_training_could_hold_is_not_even_fetched(tmp_path: Path) -> None:
    """Nothing of it is published: whoever fetched would wait."""
    async with Scene(tmp_path).played() as scene:
        vast = BlobRef(bytes(32), MAX_BLOB_SIZE, 2**18, (bytes(32),) * 2**10)
        await scene.send(1, vast, describe(GOOD_WEIGHTS))
        assert await scene.reason(1) == UNFETCHED
        assert not (tmp_path / "artifacts").exists()
        await scene.invite_to(2, greedy())
        assert await scene.reason(2) == UNFETCHED
        assert len([*(tmp_path / "artifacts").iterdir()]) == 1  # the manifest
        assert await scene.trains(3)


async def test_private_weights_that_run_away_are_begun_again(tmp_path: Path) -> None:
    """Whoever drove them there would otherwise keep the device out of this model for ever."""
    hostile = CORPUS["private parameters go into the shared ones"]
    model = Bundle.decode(hostile.bundle).manifest
    private = PrivateWeights(tmp_path / "private")
    assert model.private
    private.keep(model.model_id, np.full(model.private.size, 3e38, dtype="<f4").tobytes())
    async with Scene(tmp_path).played() as scene:
        assert await scene.declines(1, hostile.name) == "training failed: diverged"
        assert private.load(model.model_id, 4 * model.private.size) is None
        await scene.invite(2, hostile)
        assert isinstance(await scene.answer(2), RoundKeys)
        assert private.load(model.model_id, 4 * model.private.size)


async def test_of_two_engines_the_one_that_it_has_trains(tmp_path: Path) -> None:
    async with Scene(tmp_path).played() as scene:
        for name in GOOD.manifest.needed(ORT_GRAPH):
            await scene.publish(GOOD.files[name], GOOD.manifest.files[name])
        strange = replace(GOOD.manifest, engines={"strange": ("more.onnx",), **GOOD.manifest.engines})
        strange = replace(strange, files=strange.files | {"more.onnx": describe(b"nowhere")})
        await scene.invite_to(1, strange.encode())
        assert isinstance(await scene.answer(1), RoundKeys)
        await scene.invite_to(2, replace(strange, engines={"strange": ("more.onnx",)}).encode())
        assert "the bundle is for strange; this machine has ort-graph" in await scene.reason(2)
        assert await scene.trains(3)


async def test_content_without_the_hash_of_the_manifest_is_not_even_fetched_whole(tmp_path: Path) -> None:
    async with Scene(tmp_path).played() as scene:
        bomb = CORPUS["memory bomb by ConstantOfShape in evaluate_step.onnx"].bundle
        lie = replace(describe(bomb), sha256=sha256(GOOD.manifest.encode()).digest())
        await scene.publish(bomb, lie)
        await scene.send(1, lie, describe(GOOD_WEIGHTS))
        assert await scene.reason(1) == UNFETCHED
        assert scene.worker.pid is None
        assert await scene.trains(2)


async def test_an_older_round_is_not_trained_again(tmp_path: Path) -> None:
    async with Scene(tmp_path).played() as scene:
        assert await scene.trains(7)
        refused = scene.agent.refused
        for number in (6, 1):
            await scene.invite(number, CORPUS["operator Loop in train_step.onnx"])
        assert await scene.trains(8)
        assert scene.agent.refused == refused + 2
