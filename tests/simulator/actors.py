"""What actors are made of: a clock, an identity, and for a device training that adds one to one weight."""

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from known_conditions import conditions
from numpy.typing import NDArray

from broker.transport import Transport, Will
from coordinator.artifact import Artifact, build_artifact
from device_agent.app import Agent
from device_agent.artifacts import ArtifactCache
from device_agent.equipment import Equipment
from device_agent.memory import AgentMemory
from device_agent.pace import PaceKeeper
from device_agent.private_weights import PrivateWeights
from device_agent.settings import AgentSettings, Floors
from models.datasets.source import DataSource, NpzSource
from models.errors import OUT_OF_TIME, TrainingFailedError
from models.installed import ORT_GRAPH
from models.training_calls import TrainResult
from protocol.certificates import Certificate, FleetTrust, Role
from protocol.ids import DeviceId, Seconds, UnixTime
from protocol.plan import (
    AdaptiveClipping,
    Deadlines,
    Model,
    Plan,
    Privacy,
    SecureAggregation,
    Selection,
    Stopping,
    Training,
)
from protocol.status import DeviceStatus, encode_status
from protocol.topics import Topics
from registrar.authority import FleetAuthority
from runtime.compute import Computer
from runtime.config import BrokerSettings
from runtime.entropy import SeededEntropy
from runtime.identity import Identity
from runtime.revocations import RevocationKeeper
from runtime.status_board import StatusBoard
from simulator.loop import VirtualLoop
from simulator.operations import FLOOR, Private

NOW = UnixTime(1_700_000_000.0)
FLEET = "simulated"
MOST_DEVICES = 7
CLIP = 1.2
"""Above the length of every update, which is 1, until an adaptive clip comes down."""

MODEL = Model(catalog="logistic", parameters={"features": 3, "classes": 3})
"""Twelve parameters: room for seven devices, and for ones that must stay zero."""

NO_BROKER = BrokerSettings(("mqtt://nowhere",))


TICK = 1e-6
"""Seconds that a sleep is late: a sum of floats may fall short of the time that was meant."""


@dataclass
class Wall:
    """How wrong an actor's wall clock is, in seconds; outlives its incarnations."""

    by: float = 0.0


class VirtualClock:
    """An actor's clock. Its monotonic time begins anywhere, as after a boot.

    Args:
        loop: whose time it is.
        boot: what is added to it.
        wall: what is added to the wall clock.
    """

    def __init__(self, loop: VirtualLoop, boot: float, wall: Wall) -> None:
        self._loop = loop
        self._boot = boot
        self._wall = wall

    def now(self) -> Seconds:
        """See `runtime.clock.Clock`."""
        return Seconds(self._loop.time() + self._boot)

    def unix(self) -> UnixTime:
        """See `runtime.clock.Clock`."""
        return UnixTime(NOW + self._loop.time() + self._wall.by)

    async def sleep(self, seconds: float) -> None:
        """See `runtime.clock.Clock`."""
        await asyncio.sleep(seconds + TICK if seconds > 0 else 0)


class OneHotWorker:
    """Trains by adding one to one weight.

    Args:
        index: of the weight.
        seconds: how long it takes, asked each time.
        clock: time.
        finite: whether the update is a number, asked each time.
    """

    def __init__(
        self, index: int, seconds: Callable[[], float], clock: VirtualClock, finite: Callable[[], bool]
    ) -> None:
        self._index = index
        self._seconds = seconds
        self._clock = clock
        self._finite = finite

    async def train(
        self,
        bundle: bytes,
        weights: NDArray[np.float32],
        training: Training,
        source: DataSource,
        *,
        seed: int,
        deadline: float,
        engine: str = ORT_GRAPH,
        private: bytes | None = None,
    ) -> TrainResult:
        """As `models.training_process.TrainingWorker.train`."""
        del bundle, source, seed, engine, private
        seconds = self._seconds()
        await self._clock.sleep(min(seconds, deadline))
        if seconds > deadline:
            raise TrainingFailedError(OUT_OF_TIME, "training took too long")
        trained = weights.copy()
        trained[self._index] += 1.0 if self._finite() else float("nan")
        return TrainResult(
            weights=trained.tobytes(),
            examples=training.max_examples,
            training_loss=1.0,
            evaluated=1,
            loss_sum=1.0,
            correct=1,
            seconds=seconds,
        )

    async def close(self) -> None:
        """Nothing to end."""


class Signer(Identity):
    """An identity that remembers what it signed: Ed25519 gives the same again, and nobody need verify it."""

    __slots__ = ("raw",)
    raw: bytes

    def sign(self, message: bytes) -> bytes:
        """See `Identity.sign`."""
        known = SIGNED.get((self.raw, message))
        if known is None:
            known = SIGNED[self.raw, message] = self.private_key.sign(message)
        return known


SIGNED: dict[tuple[bytes, bytes], bytes] = {}
"""Signatures made in this simulation, by public key and message."""


@dataclass(frozen=True)
class Cast:
    """Everyone's certificates; the same in every simulation of a process, because making them is slow."""

    coordinator: Identity
    registrar: Identity
    devices: dict[str, Identity]
    artifact: Artifact
    verified: dict[str, OrderedDict[bytes, Certificate]]

    def trust(self, actor: str) -> FleetTrust:
        """A life's; an actor's lives share their memory of verified certificates, which is slow to make."""
        trust = FleetTrust(self.registrar.root, self.registrar.certificate)
        trust._verified = self.verified.setdefault(actor, OrderedDict())
        return trust


@cache
def cast() -> Cast:
    """The fleet's identities and its artifact."""
    entropy = SeededEntropy(1)
    authority = FleetAuthority.create(FLEET, UnixTime(NOW - 1000), entropy.bytes)
    registrar = authority.issue("registrar", Role.REGISTRAR)
    issuer = FleetAuthority.of_registrar(registrar, UnixTime(NOW - 1000), entropy.bytes)
    names = [f"d{index}" for index in range(1, MOST_DEVICES + 1)]
    return Cast(
        _signer(authority.issue("coordinator", Role.COORDINATOR, generation=1)),
        registrar,
        {name: _signer(issuer.issue(name, Role.DEVICE)) for name in names},
        build_artifact(plan(1 / 3), Path(), seed=1),
        {},
    )


def _signer(identity: Identity) -> Identity:
    signer = Signer(identity.name, identity.certificate, identity.root, identity.private_key)
    object.__setattr__(signer, "raw", identity.private_key.public_key().public_bytes_raw())
    return signer


def plan(corrupt_fraction: float, private: Private | None = None) -> Plan:
    """A plan that never stops, unless a private one does; every phase ends within a minute."""
    wanted = private or Private(mode="none", rounds=10**9, bits=32, min_cohort=FLOOR)
    return Plan(
        model=MODEL,
        training=Training(max_examples=10),
        selection=Selection(fraction=1.0, over_selection=1.0, min_cohort=wanted.min_cohort),
        secure_aggregation=SecureAggregation(
            clip=CLIP, corrupt_fraction=corrupt_fraction, bits=wanted.bits, sketch=wanted.sketch
        ),
        privacy=_privacy(wanted),
        deadlines=Deadlines(
            inviting=10.0,
            keying=60.0,
            sharing=20.0,
            collecting=30.0,
            confirming=20.0,
            recovering=20.0,
            max_lifetime=600.0,
        ),
        stopping=Stopping(rounds=wanted.rounds, aborted_in_a_row=10**9),
    )


def _privacy(wanted: Private) -> Privacy:
    return Privacy(
        mode=wanted.mode,
        noise_multiplier=None if wanted.mode == "none" else wanted.multiplier,
        spacing=wanted.spacing,
        adaptive_clipping=AdaptiveClipping(wanted.quantile, learning_rate=1.0),
    )


@dataclass(frozen=True)
class Life:
    """What the world gives to one life of a program.

    Attributes:
        clock: time.
        chance: seeds its entropy.
        connect: makes a client of the network from a name and a will.
    """

    clock: VirtualClock
    chance: random.Random
    connect: Callable[[str, Will], Transport]


@dataclass(frozen=True)
class DeviceSetting:
    """What a device's program is built from; the settings file of an actor.

    Attributes:
        name: of the identity.
        index: of the weight it trains.
        folder: of its state.
        seconds: how long training takes, asked each time.
        finite: whether its update is a number, asked each time.
        begins: is told what a life begins with.
    """

    name: str
    index: int
    folder: Path
    seconds: Callable[[], float]
    finite: Callable[[], bool]
    begins: Callable[[AgentMemory], None]


async def run_device(setting: DeviceSetting, life: Life) -> None:
    """The agent's program, composed as in `device_agent.app`."""
    async with _equipped(setting, life) as equipment:
        await Agent(equipment).run(asyncio.Event())


@contextlib.asynccontextmanager
async def _equipped(setting: DeviceSetting, life: Life) -> AsyncIterator[Equipment]:
    identity, topics = cast().devices[setting.name], Topics(FLEET)
    memory = AgentMemory(setting.folder)
    trust = cast().trust(setting.name)
    revocations = RevocationKeeper(trust, life.clock, setting.folder)
    revocations.recall()
    memory.begin()
    setting.begins(memory)
    will = encode_status(DeviceStatus("lost", boot=memory.boot))
    transport = life.connect(setting.name, Will(topics.device_status(DeviceId(setting.name)), will))
    async with Computer(workers=0) as computer:
        yield Equipment(
            settings=_settings(setting.folder),
            identity=identity,
            trust=trust,
            revocations=revocations,
            topics=topics,
            transport=transport,
            board=StatusBoard(transport),
            memory=memory,
            artifacts=ArtifactCache(setting.folder / "bundles"),
            private=PrivateWeights(setting.folder / "private"),
            worker=OneHotWorker(setting.index, setting.seconds, life.clock, setting.finite),  # type: ignore[arg-type]
            computer=computer,
            clock=life.clock,
            entropy=SeededEntropy(life.chance.getrandbits(64)),
            conditions=conditions(memory, life.clock),
            pace=PaceKeeper(trust, life.clock, setting.folder),
        )


def _settings(folder: Path) -> AgentSettings:
    return AgentSettings(
        fleet=FLEET,
        broker=NO_BROKER,
        identity=folder,
        state=folder,
        data=NpzSource(path=folder),
        floors=Floors(min_cohort=FLOOR, corrupt_fraction=0.15),
    )
