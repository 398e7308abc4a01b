"""One simulation: actors, network and disks from a schedule, until a round commits after the last fault."""

import random
from collections.abc import Coroutine, Iterator
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.transport import Delivery, Will
from coordinator.run import OutrunError
from device_agent.ledger import FILE as LEDGER_FILE
from device_agent.ledger import Charge
from device_agent.memory import AgentMemory
from protocol.errors import FedfleetError
from protocol.ids import Order
from runtime.blobs import BlobError
from runtime.revocations import FILE as REVOCATIONS
from simulator import disk, faults, logs
from simulator.actors import DeviceSetting, Life, VirtualClock, Wall, cast, plan, run_device
from simulator.books import charges_in
from simulator.coordinator_program import CoordinatorSetting, durable, run_coordinator
from simulator.evidence import Disks
from simulator.liars import LyingCoordinator, MaliciousDevice
from simulator.loop import CURRENT, Incarnation, VirtualLoop
from simulator.network import Network, SimulatedTransport
from simulator.operations import COORDINATOR, REGISTRAR, Crash, DiskFull, Schedule
from simulator.oracle import Oracle, Violation
from simulator.registrar_program import Office, revocation_list, run_registrar

PATIENCE = 900.0
"""Virtual seconds after the last fault within which a round must commit: the rest of an open round, whose
phases last 160 s, a pause, an offer each minute, and a round; and as much again."""

COME_BACK = 5.0
"""Seconds after which a program that ended for want of disk is started again."""


@dataclass(frozen=True)
class Outcome:
    """How a simulation ended.

    Attributes:
        violation: the first invariant that did not hold; None is what we want.
        committed: rounds; `aborted` likewise.
        faults: how often something was done to somebody.
        seconds: virtual.
        steps: that each actor took.
        log: what happened, one line each.
    """

    violation: Violation | None
    committed: int
    aborted: int
    faults: int
    seconds: float
    steps: dict[str, int]
    log: list[tuple[Any, ...]] = field(repr=False)

    def lines(self) -> Iterator[str]:
        """The event log as text."""
        for time, what, *details in self.log:
            yield " ".join([f"{time:.6f}", what, *map(_shown, details)])


def _shown(detail: object) -> str:
    if isinstance(detail, bytes):
        return f"{len(detail)}:{disk.digest(detail)}"
    return str(detail)


@dataclass
class Actor:
    """A machine: what outlives the lives of its program."""

    name: str
    identity: str
    folder: Path
    chance: random.Random
    lives: int = 0
    steps: int = 0
    crashes: dict[int, Crash] = field(default_factory=dict)
    incarnation: Incarnation | None = None
    wall: Wall = field(default_factory=Wall)
    slow: float = 0.0
    malice: MaliciousDevice | None = None
    wanted: bool = True

    @property
    def all_steps(self) -> int:
        """Steps of all its lives."""
        return self.steps if self.incarnation is None else self.incarnation.steps

    def next_crash(self, steps: int) -> int:
        """Before which of its coming steps it is to be killed; 0 is none."""
        return min((step for step in self.crashes if step > steps), default=0)

    def awaits_crash(self, now: float) -> bool:
        """Whether it is down, or to be killed at a step that it may yet come to."""
        coming = {step: crash for step, crash in self.crashes.items() if now < crash.start}
        self.crashes = {step: crash for step, crash in coming.items() if step > self.all_steps}
        return bool(self.crashes) or (self.wanted and self.incarnation is None)


class World:
    """Everything of one simulation.

    Args:
        schedule: what happens.
        folder: for the actors' disks, empty.
    """

    def __init__(self, schedule: Schedule, folder: Path) -> None:
        self.schedule = schedule
        self.folder = folder
        self.log: list[tuple[Any, ...]] = []
        self.faults = 0
        self.loop = VirtualLoop(schedule.seed)
        self.network = Network(
            self.loop,
            schedule.seed,
            schedule.latency,
            say=self._publishes,
            note=self.note,
            fault=self.fault,
        )
        self.actors = {name: self._actor(name, name) for name in (COORDINATOR, *schedule.names)}
        self.office = Office()
        if schedule.revoked:
            self.actors[REGISTRAR] = self._actor(REGISTRAR, REGISTRAR)
        self.coordinator = CoordinatorSetting(
            self.actors[COORDINATOR].folder,
            schedule.devices - len(schedule.revoked),
            plan(schedule.corrupt_fraction, schedule.privacy),
        )
        self.transports: dict[str, SimulatedTransport] = {}
        found = self.coordinator
        disks = Disks(
            found.records,
            found.holds,
            self._entered,
            self._charged,
            lambda: found.revoked(),  # noqa: PLW0108 - every life of the coordinator sets another
        )
        self.oracle = Oracle(schedule, self.coordinator.plan, cast().artifact.weights, disks, self._step)
        self.liar = LyingCoordinator(self.oracle, self.fault)
        self.network.lie = self._arrives
        self.healed = float("inf")
        self._committed_before = 0
        self._finished = False

    def _actor(self, name: str, identity: str) -> Actor:
        folder = self.folder / name
        folder.mkdir()
        # As it comes with a device's certificate.
        (folder / REVOCATIONS).write_bytes(revocation_list(()))
        return Actor(name, identity, folder, random.Random(f"{self.schedule.seed}/{name}"))

    def note(self, what: str, *details: object) -> None:
        """Keep a line of the event log."""
        self.log.append((self.loop.time(), what, *details))

    def fault(self, what: str, *details: object) -> None:
        """Count and note something that was done to somebody."""
        self.faults += 1
        self.note(what, *details)

    def _entered(self, device: str) -> Order:
        return AgentMemory(self.actors[device].folder).seen

    def _charged(self, device: str) -> list[Charge]:
        return charges_in(disk.durable(self.actors[device].folder / LEDGER_FILE))

    def _step(self) -> str:
        incarnation = CURRENT.get()
        if incarnation is None:
            return f"{self.loop.time():.3f} s"
        return f"step {incarnation.steps} of {incarnation.actor}, {self.loop.time():.3f} s"

    # Running.

    def run(self) -> Outcome:
        """Run it to its end."""
        faults.plan(self)
        for actor in list(self.actors.values()):
            self.start(actor)
        self.loop.call_at(self.schedule.healed, self._heal)
        try:
            self.loop.run_until(self._over)
            self._judge()
        finally:
            self._release()
            self.loop.bury()
        steps = {name: actor.all_steps for name, actor in self.actors.items()}
        oracle = self.oracle
        return Outcome(
            oracle.violation, oracle.committed, oracle.aborted, self.faults, self.loop.time(), steps, self.log
        )

    def _over(self) -> bool:
        if self.oracle.violation is not None or self.loop.failures or logs.FAILED:
            return True
        if self.loop.time() > self.healed + PATIENCE:
            self.oracle.fail("stuck", f"no round was committed in {PATIENCE:g} s without faults")
            return True
        return self.healed < float("inf") and (
            self._finished or self.oracle.committed > self._committed_before
        )

    def _heal(self) -> None:
        """The last fault is over, once nobody waits for a step any more and everybody is up again."""
        now = self.loop.time()
        if any(actor.awaits_crash(now) for actor in self.actors.values()):
            self.loop.call_later(0.5, self._heal)
            return
        self.note("healed")
        self.healed = self.loop.time()
        self._committed_before = self.oracle.committed

    def _judge(self) -> None:
        for failure in [*self.loop.failures, *logs.FAILED]:
            self.oracle.fail("uncaught", failure)
        if self.oracle.violation is None and self.coordinator.state is not None:
            try:
                found = durable(self.coordinator.state)
            except BlobError as error:
                self.oracle.fail("I5", f"the newest model is lost: {type(error).__name__}")
            else:
                self.oracle.finds(found)
        if self.oracle.violation is None:
            self._audit()

    def _audit(self) -> None:
        """What the devices have paid, all lives of each together."""
        paid: dict[str, list[Charge]] = {name: [] for name in self.schedule.names}
        for actor in self.actors.values():
            if actor.identity in paid:
                charges = AgentMemory(actor.folder).ledger.charges
                self.oracle.books.begins(actor.name, charges)
                paid[actor.identity] += charges
        self.oracle.books.compares(paid)

    # Lives.

    def start(self, actor: Actor) -> None:
        """Begin an actor's next life, on what its last one left on the disk."""
        if not actor.wanted or _lives(actor):
            return
        actor.lives += 1
        incarnation = Incarnation(actor.name, actor.steps, lambda: self._reaches_crash(actor, incarnation))
        incarnation.stop_at = actor.next_crash(actor.steps)
        actor.incarnation = incarnation
        self.note("starts", actor.name, actor.lives)
        context = Context()
        context.run(CURRENT.set, incarnation)
        task = self.loop.create_task(self._program(actor, incarnation), context=context)
        task.add_done_callback(lambda done: self._ended(actor, incarnation, done), context=Context())

    def _program(self, actor: Actor, incarnation: Incarnation) -> Coroutine[Any, Any, None]:
        def connect(name: str, will: Will) -> SimulatedTransport:
            client = self.transports[actor.name] = self.network.client(name, will, incarnation)
            return client

        clock = VirtualClock(self.loop, 1000.0 * actor.chance.random() - self.loop.time(), actor.wall)
        life = Life(clock, actor.chance, connect)
        if actor.name == COORDINATOR:
            return run_coordinator(self.coordinator, life, self.oracle)
        if actor.name == REGISTRAR:
            return run_registrar(self.office, life)
        return run_device(
            DeviceSetting(
                actor.identity,
                self.schedule.names.index(actor.identity),
                actor.folder,
                lambda: self.schedule.training * (0.5 + actor.chance.random()) + actor.slow,
                lambda: actor.malice is None or actor.malice.finite,
                lambda memory: self.oracle.books.begins(actor.name, memory.ledger.charges),
            ),
            life,
        )

    def _reaches_crash(self, actor: Actor, incarnation: Incarnation) -> None:
        crash = actor.crashes.pop(incarnation.steps, None)
        if crash is not None:
            self.crash(actor, crash)

    def crash(self, actor: Actor, crash: Crash) -> None:
        """Kill an actor and start it again later."""
        if not _lives(actor):
            return
        self.kill(actor, silent=crash.silent)
        self.fault("crashes", actor.name, actor.steps)
        if crash.silent:
            disk.lose_power(actor.folder, actor.chance)
        if crash.torn:
            disk.tear(actor.folder, actor.chance)
        self.loop.call_later(max(crash.seconds, 0.1), self.start, actor, context=Context())

    def kill(self, actor: Actor, *, silent: bool = False) -> None:
        """End an actor's life between two steps."""
        if actor.incarnation is None:
            return
        actor.incarnation.alive = False
        actor.steps = actor.incarnation.steps
        actor.incarnation = None
        if actor.name == COORDINATOR:
            self._release()
        transport = self.transports.pop(actor.name, None)
        if transport is not None:
            self.loop.call_soon(lambda: self.network.vanish(transport, silent=silent), context=Context())

    def _ended(self, actor: Actor, incarnation: Incarnation, task: Any) -> None:
        """A program ended by itself: its run is over, its disk is full, or its state was rolled back."""
        if actor.incarnation is not incarnation:
            return
        error = task.exception()
        self.kill(actor)
        self.note("ends", actor.name, type(error).__name__)
        if error is None and actor.name == COORDINATOR:
            self._finished = self.healed < float("inf")
            self.loop.call_later(COME_BACK, self.start, actor)
        elif isinstance(error, OutrunError) or (self._had_full_disk(actor) and _is_disk(error)):
            self.loop.call_later(COME_BACK, self.start, actor)
        else:
            self.oracle.fail("uncaught", f"{actor.name} ended: {error!r}")

    def _arrives(self, client: str, delivery: Delivery) -> list[Delivery]:
        if "/rounds/" in delivery.topic:
            self.oracle.arrives(delivery.payload)
        malice = self.actors[client].malice
        return self.liar.instead(client, delivery if malice is None else malice.hears(delivery))

    # Clones.

    def clone(self, device: str) -> None:
        """Start a second agent with a copy of a device's identity and state."""
        name = f"{device}-clone"
        actor = self.actors[name] = self._actor(name, device)
        disk.roll_back(actor.folder, self.actors[device].folder)
        disk.settle(actor.folder)
        self.start(actor)

    def end_clone(self, device: str) -> None:
        """The second agent is found and gone; the first is started anew, as its boot count fell behind."""
        actor = self.actors[f"{device}-clone"]
        actor.wanted = False
        self.kill(actor)
        self.kill(self.actors[device])
        self.loop.call_later(COME_BACK, self.start, self.actors[device])

    def _had_full_disk(self, actor: Actor) -> bool:
        now, operations = self.loop.time(), self.schedule.operations
        full = (one for one in operations if isinstance(one, DiskFull) and one.actor == actor.name)
        return any(one.start <= now for one in full)

    # What the network and the oracle ask.

    def _publishes(self, transport: SimulatedTransport, topic: str, payload: bytes) -> list[bytes] | None:
        actor = self.actors[transport.incarnation.actor]
        self.note("publishes", actor.name, topic, payload)
        if topic.startswith("fl/") or actor.name == REGISTRAR:
            return None
        if "/uploads/" in topic:
            self.oracle.books.sends(actor.name, payload)
        self.oracle.said(actor.name, payload)
        if actor.malice is None:
            return None
        instead = actor.malice.instead(topic, payload)
        if instead is not None:
            self.fault("forges", actor.name)
        return instead

    def _release(self) -> None:
        state, self.coordinator.state = self.coordinator.state, None
        if state is not None:
            disk.kill(self.coordinator.folder, state.close)


def _lives(actor: Actor) -> bool:
    return actor.incarnation is not None


def _is_disk(error: BaseException | None) -> bool:
    """Whether all that went wrong is that the disk refused."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_disk, error.exceptions))
    return isinstance(error, OSError | FedfleetError)
