"""Where the broker's deliveries enter the two programs: raw bytes, from whoever may publish."""

import asyncio
import contextlib
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import structlog
from hand_clock import HandClock
from known_conditions import conditions
from msgspec.structs import replace
from virtual_fleet import NOW, VirtualFleet

from broker.memory import MemoryBroker
from broker.transport import Delivery
from coordinator.fleet import Fleet
from coordinator.high_water import HighWaterMark
from device_agent.app import Agent
from device_agent.artifacts import ArtifactCache
from device_agent.equipment import Equipment
from device_agent.memory import AgentMemory
from device_agent.pace import PaceKeeper
from device_agent.private_weights import PrivateWeights
from device_agent.settings import AgentSettings, Floors
from fuzz.findings import Findings
from fuzz.mutator import JSON, MSGPACK, Mutator
from fuzz.rounds import VICTIM, RecordedRound
from fuzz.spoiler import Spoiler
from models.datasets.source import NpzSource
from models.training_process import TrainingWorker
from protocol.certificates import FleetTrust
from protocol.chunks import MIN_CHUNK_SIZE, Chunk, describe, split
from protocol.frames import Signer, seal_frame
from protocol.ids import DeviceId, Order, UnixTime
from protocol.messages import (
    MAX_FRAME,
    HighWater,
    Message,
    RoundEnded,
    decode_from_coordinator,
    decode_from_device,
)
from protocol.status import MAX_STATUS, CoordinatorStatus, DeviceStatus, encode_status
from protocol.topics import Topics
from runtime.compute import Computer
from runtime.config import BrokerSettings
from runtime.entropy import SeededEntropy
from runtime.revocations import RevocationKeeper
from runtime.status_board import StatusBoard
from runtime.uploads import UploadReceiver

TOPICS = Topics("test")
SIGNED = 120
"""Properly signed hostile frames among the seeds."""

TURN = 64
"""Frames after which the event loop gets its turn."""


class StillClock(HandClock):
    """Time does not pass."""

    def unix(self) -> UnixTime:
        """When the certificates are valid."""
        return NOW


@contextlib.contextmanager
def rendered_logs() -> Iterator[None]:
    """What is logged is rendered, as hostile text is written, and dropped."""
    kept = structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()], logger_factory=structlog.ReturnLoggerFactory()
    )
    try:
        yield
    finally:
        structlog.configure(**kept)


class Door:
    """A handler of deliveries under attack.

    Args:
        name: of the target.
        findings: where failures go.
        handler: what is attacked; must not raise.
        draw: makes the deliveries.
    """

    def __init__(
        self, name: str, findings: Findings, handler: Callable[[Delivery], None], draw: Callable[[], Delivery]
    ) -> None:
        self._name = name
        self._findings = findings
        self._handler = handler
        self._draw = draw

    def deliver(self) -> None:
        """One more."""
        delivery = self._draw()
        try:
            self._handler(delivery)
        except Exception as error:  # noqa: BLE001 - finding these is what this is for
            self._findings.add(
                self._name, error, lambda: f"{delivery.topic!r} {bytes(delivery.payload).hex()[:4000]}"
            )


def _fed(topics: list[str], mutator: Mutator, chance: random.Random) -> Callable[[], Delivery]:
    return lambda: Delivery(chance.choice(topics), mutator.draw(), retained=False)


def _sealed(
    kinds: list[list[Message]], spoiler: Spoiler, signer: Signer, chance: random.Random
) -> list[bytes]:
    return [
        seal_frame(signer, spoiler.spoiled(chance.choice(chance.choice(kinds)))[0]) for _ in range(SIGNED)
    ]


class CoordinatorDoors:
    """Frames and presences of devices, and the mark of a coordinator before this one.

    Args:
        recorded: material.
        chance: seeded.
        findings: where failures go.
    """

    name = "coordinator shell"

    def __init__(self, recorded: RecordedRound, chance: random.Random, findings: Findings) -> None:
        clock = StillClock()
        self._recorded = recorded
        self._fleet = Fleet(recorded.trust, clock)
        self._mark = HighWaterMark(recorded.trust, clock)
        up = Spoiler(chance, decode_from_device, _flat(recorded.from_devices), recorded.links)
        signer = recorded.devices[VICTIM].identity
        frames = [*recorded.frames_up, *_sealed(recorded.from_devices, up, signer, chance)]
        marks = [seal_frame(recorded.coordinator_identity, HighWater(Order(1, 1, 1), n)) for n in range(9)]
        statuses = [encode_status(DeviceStatus(state, "why", 3)) for state in ("lost", "idle", "offline")]
        outboxes = [TOPICS.outbox(name) for name in recorded.devices]
        presences = [
            f"fl/1/test/devices/{name}" for name in (*recorded.devices, "", "\x00", "é" * 99, "z" * 999)
        ]
        self._doors = [
            Door(name, findings, handler, _fed(topics, mutator, chance))
            for name, handler, topics, mutator in (
                (
                    "fleet frame",
                    self._fleet.frame_arrived,
                    outboxes,
                    Mutator(chance, frames, MSGPACK, MAX_FRAME),
                ),
                (
                    "fleet status",
                    self._fleet.status_arrived,
                    presences,
                    Mutator(chance, statuses, JSON, MAX_STATUS),
                ),
                (
                    "high water",
                    self._mark.frame_arrived,
                    ["mark"],
                    Mutator(chance, marks, MSGPACK, MAX_FRAME),
                ),
            )
        ]

    def feed(self, frames: int) -> None:
        """Deliver so many, in turn."""
        with rendered_logs():
            for number in range(frames):
                self._doors[number % len(self._doors)].deliver()
        # Only those who hold a certificate are known, and the mark is one that was signed.
        assert self._fleet._devices.keys() <= set(self._recorded.devices)
        assert self._mark.newest.order <= Order(1, 1, 1)


def _flat(kinds: list[list[Message]]) -> list[Message]:
    return [message for kind in kinds for message in kind]


class UploadDoor:
    """Chunks, while two devices upload.

    Args:
        chance: seeded.
        findings: where failures go.
    """

    name = "upload shell"

    def __init__(self, chance: random.Random, findings: Findings) -> None:
        self._chance = chance
        self._findings = findings
        self._content = chance.randbytes(3 * MIN_CHUNK_SIZE + 7)
        self._ref = describe(self._content, MIN_CHUNK_SIZE)

    def feed(self, frames: int) -> None:
        """Deliver so many; the uploads still end well."""
        with rendered_logs():
            asyncio.run(self._feed(frames))

    async def _feed(self, frames: int) -> None:
        broker, ref = MemoryBroker(), self._ref
        chunks = [
            msgspec.msgpack.encode(Chunk(ref.sha256, index, chunk))
            for index, chunk in enumerate(split(self._content, ref))
        ]
        mutator = Mutator(self._chance, [chunk[:200] for chunk in chunks] + chunks, MSGPACK, MAX_FRAME)
        topics = [TOPICS.upload("main", DeviceId(name)) for name in ("d001", "d002", "mallory", "")]
        transport = broker.connect("coordinator")
        receiver = UploadReceiver(transport, TOPICS, "main", _granted, clock=StillClock())
        door = Door(self.name, self._findings, receiver._arrived, _fed(topics, mutator, self._chance))
        async with transport, receiver:
            waiting = [
                asyncio.create_task(receiver.receive(DeviceId(name), ref)) for name in ("d001", "d002")
            ]
            await asyncio.sleep(0)
            for number in range(frames):
                door.deliver()
                if not number % TURN:
                    await asyncio.sleep(0)
            for topic in topics[:2]:
                for chunk in chunks:
                    receiver._arrived(Delivery(topic, chunk, retained=False))
            for content in await asyncio.gather(*waiting):
                assert content == self._content


async def _granted(_: DeviceId, __: bytes, ___: tuple[int, ...]) -> None:
    """Nobody needs to be told."""


class AgentDoors:
    """An agent's inbox and the coordinator's presence.

    Args:
        recorded: material.
        chance: seeded.
        findings: where failures go.
    """

    name = "agent shell"

    def __init__(self, recorded: RecordedRound, chance: random.Random, findings: Findings) -> None:
        self._recorded = recorded
        self._chance = chance
        self._findings = findings
        down = Spoiler(chance, decode_from_coordinator, _flat(recorded.from_coordinator), recorded.links)
        signer = recorded.coordinator_identity
        # Rounds that nobody opened yet: each ends the one before.
        orders = [Order(generation, 1, number) for generation in (0, 1, 2) for number in range(2, 9)]
        rounds = [seal_frame(signer, replace(recorded.manifest, order=order)) for order in orders]
        frames = [*recorded.frames_down, *rounds, *_sealed(recorded.from_coordinator, down, signer, chance)]
        statuses = [encode_status(CoordinatorStatus(state, "1", 3, 4)) for state in ("online", "lost")]
        self._inbox = Mutator(chance, frames, MSGPACK, MAX_FRAME)
        self._status = Mutator(chance, statuses, JSON, MAX_STATUS)

    def feed(self, frames: int) -> None:
        """Deliver so many; the agent still takes part afterwards."""
        with rendered_logs(), tempfile.TemporaryDirectory() as folder:
            asyncio.run(self._feed(frames, Path(folder)))

    async def _feed(self, frames: int, folder: Path) -> None:
        async with Computer(workers=0) as computer:
            agent, stop = Agent(_equipment(self._recorded, folder, computer)), asyncio.Event()
            running = asyncio.create_task(agent.run(stop))
            inbox = _fed([TOPICS.inbox(VICTIM)], self._inbox, self._chance)
            status = _fed([TOPICS.coordinator_status], self._status, self._chance)
            doors = (
                Door("agent inbox", self._findings, agent._inbox_arrived, inbox),
                Door("agent status", self._findings, agent._coordinator_changed, status),
            )
            for number in range(frames):
                doors[number % 2].deliver()
                if not number % TURN:
                    await asyncio.sleep(0)
            await self._still_takes_part(agent)
            stop.set()
            await running

    async def _still_takes_part(self, agent: Agent) -> None:
        assert agent._newest.generation <= 1, "it waits for a coordinator that nobody vouches for"
        order = Order(1, agent._newest.epoch, agent._newest.round + 1)
        manifest = replace(self._recorded.manifest, order=order)
        signer, task = self._recorded.coordinator_identity, None
        for message in (manifest, RoundEnded(order, "aborted", "", 0.0)):
            agent._inbox_arrived(Delivery(TOPICS.inbox(VICTIM), seal_frame(signer, message), retained=False))
            task = task or agent._task
        assert task is not None
        await task
        assert agent._participation is None


def _equipment(fleet: VirtualFleet, folder: Path, computer: Computer) -> Equipment:
    transport, memory, clock = MemoryBroker().connect(VICTIM), AgentMemory(folder), StillClock()
    identity = fleet.devices[VICTIM].identity
    trust = FleetTrust(identity.root)
    return Equipment(
        settings=AgentSettings(
            fleet="test",
            broker=BrokerSettings(urls=("mqtt://localhost",)),
            identity=folder,
            state=folder,
            data=NpzSource(folder),
            floors=Floors(min_cohort=3),
        ),
        identity=identity,
        trust=trust,
        revocations=RevocationKeeper(trust, clock, folder),
        topics=TOPICS,
        transport=transport,
        board=StatusBoard(transport),
        memory=memory,
        artifacts=ArtifactCache(folder / "artifacts"),
        private=PrivateWeights(folder / "private"),
        worker=TrainingWorker(),
        computer=computer,
        clock=clock,
        entropy=SeededEntropy(1),
        conditions=conditions(memory, clock),
        pace=PaceKeeper(trust, clock, folder),
    )
