"""A round whose coordinator keeps a journal beside one whose coordinator forgets everything, in the same run.

    python -m benchmarks.durability [--quick] [--json]

The real coordinator and broker, and devices in a process of their own that train in no time: what is left is
the protocol. Both kinds take turns. A round without a journal writes nothing of the round, its updates or its
model to the disk. The event loop of the coordinator watches itself meanwhile.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from broker.address import BrokerAddress
from broker.embedded import EmbeddedBroker
from broker.mqtt import MqttSettings, MqttTransport
from coordinator.artifact import build_artifact
from coordinator.evaluation import Evaluator
from coordinator.fleet import Fleet
from coordinator.model_store import ModelStore
from coordinator.rounds import Desk
from coordinator.run import Run
from coordinator.server_optimizer import initial_state
from coordinator.settings import CoordinatorSettings
from coordinator.state import CoordinatorState
from coordinator.stored import Model
from device_agent.app import Agent
from device_agent.artifacts import ArtifactCache
from device_agent.conditions import ConditionReader, Sensors
from device_agent.equipment import Equipment
from device_agent.memory import AgentMemory
from device_agent.pace import PaceKeeper
from device_agent.private_weights import PrivateWeights
from device_agent.settings import AgentSettings, ConditionSettings, Floors
from models.datasets.source import NpzSource
from models.training_calls import TrainResult
from protocol import plan as plans
from protocol.certificates import FleetTrust, Role
from protocol.chunks import Bytes
from protocol.ids import UnixTime
from protocol.topics import Topics
from registrar.authority import FleetAuthority
from runtime.clock import SystemClock
from runtime.compute import Computer
from runtime.config import BrokerSettings
from runtime.entropy import SystemEntropy
from runtime.identity import Identity, load_identity, write_identity
from runtime.journal import SqlValue, Statement
from runtime.revocations import RevocationKeeper
from runtime.status_board import StatusBoard
from runtime.transfers import UploadReceiver

FLEET = "benchmark"
CLOCK = SystemClock()
PATIENCE = 300.0


@dataclass(frozen=True)
class Row:
    """One setting: median seconds of a round, and the longest stall of a journaling coordinator's loop."""

    name: str
    n: int
    d: int
    seconds: float
    without_seconds: float
    ratio: float
    stall_seconds: float


class NoJournal:
    """Remembers nothing; stands in for `runtime.journal.Journal` once the run has begun."""

    def append(self, *statements: Statement) -> None:
        """Forget it."""

    async def flushed(self) -> None:
        """Nothing is ever waited for."""

    def select(self, query: str, **parameters: SqlValue) -> list[tuple[SqlValue, ...]]:
        """Nothing is ever found."""
        del query, parameters
        return []

    def close(self) -> None:
        """Nothing is open."""


class NoBlobs:
    """Names contents and drops them; stands in for `runtime.blobs.BlobStore`."""

    def put(self, data: Bytes) -> bytes:
        """Its SHA-256."""
        return sha256(data).digest()

    def delete(self, digest: bytes) -> None:
        """Nothing is there."""

    def keep_only(self, digests: Collection[bytes]) -> None:
        """Nothing is there."""


class NoTraining:
    """A device whose model is better by the same vector in every round."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    async def train(
        self, _bundle: bytes, weights: NDArray[np.float32], training: plans.Training, *_: object, **__: object
    ) -> TrainResult:
        """As `models.training_process.TrainingWorker.train`."""
        better = weights + np.float32(1e-3) * np.float32(self._seed)
        return TrainResult(
            weights=better.astype("<f4").tobytes(),
            examples=training.max_examples,
            training_loss=1.0,
            evaluated=1,
            loss_sum=1.0,
            correct=1,
            seconds=0.0,
        )

    async def close(self) -> None:
        """Nothing to end."""


def plan_for(parameters: int, devices: int, rounds: int) -> plans.Plan:
    """Logistic regression with about so many parameters."""
    return plans.Plan(
        model=plans.Model(catalog="logistic", parameters={"features": parameters // 10, "classes": 10}),
        training=plans.Training(max_examples=10),
        selection=plans.Selection(fraction=1.0, over_selection=1.0, min_cohort=devices),
        stopping=plans.Stopping(rounds=rounds),
    )


def connect(address: BrokerAddress, name: str) -> MqttTransport:
    """A client that leaves nothing behind."""
    return MqttTransport(MqttSettings((address,), name, clean=True), sleep=CLOCK.sleep, uniform=lambda: 0.5)


# Devices, in a process of their own.


def run_devices(address: BrokerAddress, names: list[str], folder: Path, stop: Event) -> None:
    """All devices on one event loop, until `stop`."""
    asyncio.run(_run_devices(address, names, folder, stop))


async def _run_devices(address: BrokerAddress, names: list[str], folder: Path, stop: Event) -> None:
    ended = asyncio.Event()
    async with Computer(workers=0) as computer:
        agents = [
            asyncio.create_task(Agent(_equipment(address, name, seed, folder, computer)).run(ended))
            for seed, name in enumerate(names, 1)
        ]
        await asyncio.to_thread(stop.wait)
        ended.set()
        await asyncio.gather(*agents)


def _equipment(address: BrokerAddress, name: str, seed: int, folder: Path, computer: Computer) -> Equipment:
    own = folder / name
    identity = load_identity(own)
    transport = connect(address, name)
    memory = AgentMemory(own)
    memory.begin()
    settings = AgentSettings(
        fleet=FLEET,
        broker=BrokerSettings((str(address),)),
        identity=own,
        state=own,
        data=NpzSource(path=own),
        floors=Floors(min_cohort=3),
        conditions=ConditionSettings(charging=True, unmetered=True),
    )
    trust = FleetTrust(identity.root)
    return Equipment(
        settings=settings,
        identity=identity,
        trust=trust,
        revocations=RevocationKeeper(trust, CLOCK, own),
        topics=Topics(FLEET),
        transport=transport,
        board=StatusBoard(transport),
        memory=memory,
        artifacts=ArtifactCache(own / "artifacts"),
        private=PrivateWeights(own / "private"),
        worker=NoTraining(seed),  # type: ignore[arg-type]
        computer=computer,
        clock=CLOCK,
        entropy=SystemEntropy(),
        conditions=ConditionReader(
            settings.conditions, Sensors(own, ask_network=False).read, lambda: memory.entered, CLOCK
        ),
        pace=PaceKeeper(trust, CLOCK, own),
    )


# The coordinator.


@contextlib.asynccontextmanager
async def coordinator(
    address: BrokerAddress, identity: Identity, plan: plans.Plan, folder: Path, *, durable: bool
) -> AsyncIterator[tuple[Run, CoordinatorState]]:
    """Composed as in `coordinator.app`, with or without its journal."""
    folder.mkdir()  # noqa: ASYNC240 - nothing runs yet
    artifact = build_artifact(plan, folder, seed=1)
    transport, topics = connect(address, identity.name), Topics(FLEET)
    trust = FleetTrust(identity.root)
    first = Model.of(artifact.weights, initial_state(plan.server, artifact.weights.size))
    state = CoordinatorState(folder, artifact.bundle.manifest.model_id, lambda: first, CLOCK)
    journal = state.journal
    if not durable:
        state.journal, state.spool = NoJournal(), NoBlobs()  # type: ignore[assignment]
        state._models = NoBlobs()  # type: ignore[assignment] # noqa: SLF001 - only here it is not wanted
    settings = CoordinatorSettings(
        fleet=FLEET,
        broker=BrokerSettings((str(address),)),
        identity=folder,
        state=folder,
        plan=folder,
        start_when=plan.selection.min_cohort,
    )
    async with Computer(os.cpu_count() or 1) as computer:
        uploads = UploadReceiver(
            transport,
            topics,
            "main",
            lambda *grant: current.grant(*grant),  # noqa: PLW0108 - `current` is made below
            clock=CLOCK,
        )
        desk = Desk(
            signer=identity,
            topics=topics,
            transport=transport,
            board=StatusBoard(transport),
            fleet=Fleet(trust, CLOCK),
            revocations=RevocationKeeper(trust, CLOCK, folder),
            uploads=uploads,
            state=state,
            computer=computer,
            clock=CLOCK,
            entropy=SystemEntropy(),
        )
        evaluator = Evaluator(*artifact.evaluated_by(), None)
        store = ModelStore(folder)
        current = Run(desk, settings, plan, artifact, store, evaluator, trust, 1, SystemEntropy().uniform)
        try:
            yield current, state
        finally:
            await evaluator.close()
            journal.close()


async def rounds(
    address: BrokerAddress, identity: Identity, plan: plans.Plan, folder: Path, *, durable: bool
) -> tuple[list[float], float]:
    """Seconds of each round but the first, which waits for the devices, and the longest stall meanwhile."""
    async with coordinator(address, identity, plan, folder, durable=durable) as (run, state):
        running = asyncio.create_task(run.run(asyncio.Event()))
        longest, nap = 0.0, 0.001
        while not running.done():
            before = time.perf_counter()
            await asyncio.sleep(nap)
            if state.results:
                longest = max(longest, time.perf_counter() - before - nap)
        await running
        return [json.loads(result)["seconds"] for result in state.results][1:], longest


def measure(devices: int, parameters: int, turns: int, length: int) -> Row:
    """Take turns with and without a journal, `length` rounds each."""
    authority = FleetAuthority.create(FLEET, UnixTime(CLOCK.unix() - 60), os.urandom)
    identity = authority.issue("coordinator", Role.COORDINATOR, generation=1)
    names = [f"d{number}" for number in range(1, devices + 1)]
    plan = plan_for(parameters, devices, length + 1)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            write_identity(Path(folder) / name, authority.issue(name, Role.DEVICE))
        return asyncio.run(_measure(identity, names, plan, Path(folder), turns))


async def _measure(identity: Identity, names: list[str], plan: plans.Plan, folder: Path, turns: int) -> Row:
    taken: dict[bool, list[float]] = {True: [], False: []}
    longest = 0.0
    async with EmbeddedBroker.start("mosquitto") as broker:
        with _devices(broker.address, names, folder):
            for turn in range(turns):
                for durable in (True, False):
                    own = folder / f"{turn}-{durable}"
                    async with asyncio.timeout(PATIENCE):
                        seconds, stall = await rounds(broker.address, identity, plan, own, durable=durable)
                    taken[durable] += seconds
                    longest = max(longest, stall if durable else 0.0)
    ours, without = statistics.median(taken[True]), statistics.median(taken[False])
    size = int(plan.model.parameters["features"]) * 10 + 10
    return Row("a round with its journal", len(names), size, ours, without, ours / without, longest)


@contextlib.contextmanager
def _devices(address: BrokerAddress, names: list[str], folder: Path) -> Iterator[None]:
    spawning = multiprocessing.get_context("spawn")
    stop = spawning.Event()
    process = spawning.Process(target=run_devices, args=(address, names, folder, stop))
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join(PATIENCE)


def main(arguments: list[str]) -> None:
    """Measure, and print a table or one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durability", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small setting, under 40 s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(arguments)
    settings = [(10, 10_000, 2, 5)] if options.quick else [(10, 10_000, 4, 10), (40, 100_000, 4, 5)]
    rows = [measure(*setting) for setting in settings]
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
        return
    for row in rows:
        without = f"without {row.without_seconds:.3f} s, {row.ratio:.2f} x"
        stall = f"longest stall of the event loop {1e3 * row.stall_seconds:.1f} ms"
        print(f"{row.name}, n = {row.n}, d = {row.d}: {row.seconds:.3f} s, {without}; {stall}")


if __name__ == "__main__":
    main(sys.argv[1:])
