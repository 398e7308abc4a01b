"""A whole fleet of real processes on a real broker of this machine, started and watched as a user would.

Everything waits for events (statuses, deliveries, ends of processes) and for a bounded time. Every process
is ended by its id when the fleet is left; if a test fails, the ends of all logs are printed.
"""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypeVar

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_plan import examples, plan_text

from broker.address import BrokerAddress
from broker.embedded import BrokerMissingError, EmbeddedBroker, Engine
from broker.mqtt import MqttSettings, MqttTransport
from broker.transport import Delivery
from coordinator.model_store import MODEL_FILE, RESULTS_FILE
from coordinator.state import JOURNAL_FILE
from coordinator.stored import Model
from protocol.certificates import Role
from protocol.errors import FrameError
from protocol.ids import DeviceId, UnixTime
from protocol.status import (
    CoordinatorStatus,
    DeviceStatus,
    RoundResult,
    RoundStatus,
    Status,
    read_status,
)
from protocol.topics import Topics
from registrar.authority import FleetAuthority
from runtime.clock import SystemClock
from runtime.entropy import SystemEntropy
from runtime.identity import Identity, write_identity

FLEET = "real"
PATIENCE = 60.0
"""Seconds after which something that should have happened has not: far beyond what a busy machine needs."""

CLOCK = SystemClock()
ENTROPY = SystemEntropy()

T = TypeVar("T")


@dataclass
class Program:
    """One process of the fleet."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def pause(self) -> None:
        """It does nothing more, but keeps its connection."""
        self.process.send_signal(signal.SIGSTOP)

    async def kill(self) -> None:
        """As the kernel does: no goodbye."""
        self.process.kill()
        await self.ended()

    async def terminate(self) -> int:
        """Ask it to end, as a service manager does; its exit code."""
        self.process.terminate()
        return await self.ended()

    async def ended(self) -> int:
        """Its exit code, once it has one."""
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


@dataclass
class Watch:
    """Everything that was said on `fl/#`, and waiting for it, for at most so many seconds."""

    patience: float = PATIENCE
    latest: dict[str, Status] = field(default_factory=dict)
    history: list[tuple[str, Status]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, delivery: Delivery) -> None:
        """A status; whatever is not one is no business of ours."""
        try:
            status = read_status(delivery.topic, delivery.payload)
        except FrameError:
            return
        self.latest[delivery.topic] = status
        self.history.append((delivery.topic, status))
        self.changed.set()

    async def until(self, what: str, condition: Callable[[], T | None]) -> T:
        """Waits until the statuses fulfil the condition; fails with the latest of them."""
        try:
            async with asyncio.timeout(self.patience):
                while not (found := condition()):
                    self.changed.clear()
                    await self.changed.wait()
                return found
        except TimeoutError:
            raise AssertionError(f"never saw {what}; the latest statuses are {self.latest}") from None


class RealFleet:
    """A broker, a coordinator and agents. Use it as a context.

    Args:
        folder: an empty one, for identities, data, states and logs.
        engine: which broker.
        plan: see `plan_text`.
    """

    def __init__(self, folder: Path, engine: Engine = "mosquitto", plan: str = "") -> None:
        self.folder = folder
        self.topics = Topics(FLEET)
        self.watch = Watch()
        self.programs: list[Program] = []
        self.authority = FleetAuthority.create(FLEET, UnixTime(CLOCK.unix() - 60), ENTROPY.bytes)
        self.dead_brokers: tuple[str, ...] = ()
        self._engine: Engine = engine
        self._stack = AsyncExitStack()
        (folder / "plan.toml").write_text(plan or plan_text())

    async def __aenter__(self) -> Self:
        try:
            self.broker = await self._stack.enter_async_context(self.make_broker())
        except BrokerMissingError as missing:
            pytest.skip(str(missing))
        self.user = await self._stack.enter_async_context(self.connect("user"))
        await self.user.subscribe(self.topics.everything_for_people, self.watch.take)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for program in self.programs:
            if program.process.returncode is None:
                await program.kill()
        await self._stack.aclose()
        if exc is not None:
            self._print_logs()
            return
        complaints = [line for log in self._logs() for line in log.read_text().splitlines() if _is_bug(line)]
        assert not complaints, complaints

    def _print_logs(self) -> None:
        for log in self._logs():
            print(f"--- {log.name}", *log.read_text().splitlines()[-25:], sep="\n")  # noqa: T201 - for pytest

    def _logs(self) -> list[Path]:
        return sorted({program.log for program in self.programs})

    def make_broker(self) -> EmbeddedBroker:
        """Not entered yet."""
        return EmbeddedBroker.start(self._engine)

    def connect(self, name: str) -> MqttTransport:
        """A client of its own, that leaves nothing behind and comes back fast."""
        settings = MqttSettings((self.broker.address,), name, clean=True)
        return MqttTransport(settings, sleep=CLOCK.sleep, uniform=lambda: 0.05)

    # Programs.

    async def start_coordinator(self, *, start_when: int | None = None, **more: str) -> Program:
        """Start the coordinator; a second call starts it again on the same state."""
        folder = self.folder / "coordinator"
        if not folder.exists():
            write_identity(folder / "identity", self.issue("coordinator", Role.COORDINATOR))
            np.savez(self.folder / "judge.npz", **examples(99, 60))  # type: ignore[arg-type]
        own = {
            "IDENTITY": folder / "identity",
            "STATE": self.coordinator_state,
            "PLAN": self.folder / "plan.toml",
            "SEED": 1,
            "WORKERS": 1,
        }
        if start_when is not None:
            own["START_WHEN"] = start_when
        return await self._start("coordinator", "coordinator", own | more)

    async def start_agents(self, *names: str, **more: str) -> dict[str, Program]:
        """Start agents with data of their own; a second call starts them again."""
        return {name: await self._start_agent(name, more) for name in names}

    def enrol(self, name: str, count: int = 20, features: int = 4) -> Path:
        """Give a device its identity and data, once; its folder."""
        folder = self.folder / name
        if not folder.exists():
            write_identity(folder / "identity", self.issue(name, Role.DEVICE))
            seed = int.from_bytes(name.encode()) % 2**32
            np.savez(folder / "data.npz", **examples(seed, count, features))  # type: ignore[arg-type]
        return folder

    def issue(self, name: str, role: Role) -> Identity:
        """A certificate and its key; a coordinator's is of the first generation."""
        return self.authority.issue(name, role, 1 if role is Role.COORDINATOR else 0)

    async def _start_agent(self, name: str, more: dict[str, str]) -> Program:
        folder = self.enrol(name)
        own = {
            "IDENTITY": folder / "identity",
            "STATE": folder / "state",
            "DATA__PATH": folder / "data.npz",
            "FLOORS__MIN_COHORT": 3,
        }
        return await self._start(name, "device_agent", own | more)

    async def _start(self, name: str, module: str, settings: dict[str, object]) -> Program:
        common = {"FLEET": FLEET} | {f"BROKER__{key}": text for key, text in self.broker_settings().items()}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FEDFLEET_")}
        environment |= {f"FEDFLEET_{key}": str(value) for key, value in (common | settings).items()}
        log = self.folder / f"{name}.log"
        with log.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *self.command(module),
                env=environment | self.more_environment,
                cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )
        program = Program(name, process, log)
        self.programs.append(program)
        return program

    def broker_settings(self) -> dict[str, str]:
        """How a program reaches the broker."""
        address = self.broker.address
        live = BrokerAddress(address.host, address.port)
        return {
            "URLS": ",".join([*self.dead_brokers, str(live)]),
            "USERNAME": address.user or "",
            "PASSWORD": address.password or "",
        }

    more_environment: ClassVar[Mapping[str, str]] = {}
    """Of every program, beside its settings."""

    def command(self, module: str) -> Sequence[str]:
        """How a program is started."""
        return (sys.executable, "-P", "-m", module)

    # What a user sees.

    async def sees_coordinator(self, state: str, **fields: object) -> CoordinatorStatus:
        """Waits for a presence of the coordinator."""
        return await self._sees(self.topics.coordinator_status, CoordinatorStatus, fields | {"state": state})

    async def sees_device(self, name: str, state: str, **fields: object) -> DeviceStatus:
        """Waits for a presence of a device."""
        topic = self.topics.device_status(DeviceId(name))
        return await self._sees(topic, DeviceStatus, fields | {"state": state})

    async def sees_round(self, number: int, **fields: object) -> RoundStatus:
        """Waits until the open round looks like this."""
        return await self._sees(self.topics.round_status, RoundStatus, fields | {"round": number})

    async def hears(self, topic: str, count: int = 1, *, after: Callable[[], None] = lambda: None) -> None:
        """Waits until so many messages have come on a topic for machines, once `after` was done."""
        heard = list[Delivery]()

        def take(delivery: Delivery) -> None:
            heard.append(delivery)
            self.watch.changed.set()

        subscription = await self.user.subscribe(topic, take)
        after()
        await self.watch.until(f"{count} on {topic}", lambda: len(heard) >= count)
        await subscription.cancel()

    async def sees_result(self, number: int) -> RoundResult:
        """Waits for the end of a round."""
        topic = f"fl/1/{FLEET}/rounds/{number}"
        return await self._sees(topic, RoundResult, {"round": number})

    async def _sees(self, topic: str, kind: type[T], fields: dict[str, object]) -> T:
        def look() -> T | None:
            status = self.watch.latest.get(topic)
            if not isinstance(status, kind):
                return None
            fits = all(getattr(status, name) == value for name, value in fields.items())
            return status if fits else None

        return await self.watch.until(f"{fields} on {topic}", look)

    def results(self) -> list[RoundResult]:
        """Every result that was published, by round."""
        found = {status.round: status for _, status in self.watch.history if isinstance(status, RoundResult)}
        return [found[number] for number in sorted(found)]

    # What the coordinator keeps.

    @property
    def coordinator_state(self) -> Path:
        """The folder of its journal, model and results."""
        return self.folder / "coordinator" / "state"

    @property
    def model_file(self) -> Path:
        """The exported inference model."""
        return self.coordinator_state / MODEL_FILE

    def kept(self) -> "Kept":
        """How far it has come, as a bystander may read it at any time."""
        file = f"file:{self.coordinator_state / JOURNAL_FILE}?mode=ro"
        with closing(sqlite3.connect(file, uri=True)) as journal:
            epoch, number, model = journal.execute("SELECT epoch, round, model FROM run").fetchone()
            over = journal.execute("SELECT count(*) FROM rounds WHERE committed IS NOT NULL").fetchone()[0]
        kept = msgspec.msgpack.decode(
            (self.coordinator_state / "models" / model.hex()).read_bytes(), type=Model
        )
        return Kept(epoch, number, over, kept.vector)

    def written_results(self) -> list[RoundResult]:
        """The lines of its results file."""
        lines = (self.coordinator_state / RESULTS_FILE).read_bytes().splitlines()
        return [msgspec.json.decode(line, type=RoundResult) for line in lines]

    async def retained_for_machines(self) -> list[str]:
        """Topics under `flw/#` on which the broker keeps something now."""
        kept, marked = list[str](), asyncio.Event()
        mark = f"flw/1/{FLEET}/mark"

        def look(delivery: Delivery) -> None:
            if delivery.topic == mark:
                marked.set()
            elif delivery.retained and delivery.payload:
                kept.append(delivery.topic)

        async with self.connect("auditor") as auditor, asyncio.timeout(PATIENCE):
            await auditor.subscribe(f"flw/1/{FLEET}/#", look)
            await auditor.publish(mark, b"")
            await marked.wait()
        return sorted(kept)


@dataclass(frozen=True)
class Kept:
    """What a coordinator has stored: its epoch, the newest round, how many are over, the weights."""

    epoch: int
    round: int
    over: int
    vector: NDArray[np.float32]


def _is_bug(line: str) -> bool:
    """Programs warn of what others did wrong; an error is their own."""
    return '"level": "error"' in line or "Traceback" in line
