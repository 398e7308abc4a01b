"""The coordinator's program in the simulator, composed as in `coordinator.app`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast as typed

import msgspec

from broker.transport import Will
from coordinator.evaluation import Evaluator
from coordinator.fleet import Fleet
from coordinator.ledger import Account
from coordinator.model_store import ModelStore
from coordinator.round_entries import UploadedEntry, decode_entry
from coordinator.rounds import Desk
from coordinator.run import Run
from coordinator.server_optimizer import initial_state
from coordinator.settings import CoordinatorSettings
from coordinator.state import CoordinatorState
from coordinator.stored import Model, stored_message
from protocol.effects import Commit
from protocol.ids import Order
from protocol.messages import Message
from protocol.plan import Plan
from protocol.status import CoordinatorStatus, RoundResult, encode_status
from protocol.topics import Topics
from runtime.compute import Computer
from runtime.entropy import SeededEntropy
from runtime.revocations import RevocationKeeper
from runtime.status_board import StatusBoard
from runtime.transfers import UploadReceiver
from simulator.actors import FLEET, NO_BROKER, Life, cast
from simulator.evidence import Durable
from simulator.oracle import Oracle

Commits = Callable[[Commit], Awaitable[None]]


@dataclass
class CoordinatorSetting:
    """What a coordinator's program is built from; the settings file of an actor.

    Attributes:
        folder: of its state.
        devices: to wait for before the first round.
        plan: what to do.
        state: what the living program holds open.
        revoked: whose certificates it knows to be taken back.
    """

    folder: Path
    devices: int
    plan: Plan
    state: CoordinatorState | None = None
    revoked: Callable[[], frozenset[str]] = frozenset

    def records(self, frame: bytes) -> bool:
        """Whether a manifest or decision is durable, or of a round that the journal has forgotten."""
        if self.state is None:
            return False
        decisions = self.state.journal.select("read_decisions")
        newest = self.state.journal.select("read_newest_round")
        if (frame,) in decisions or any(frame in typed("bytes", row[3]) for row in newest):
            return True
        said = stored_message(frame, Message)
        return any(_order_of(said) < Order(*typed("tuple[int, int, int]", row[:3])) for row in newest)

    def holds(self, blob: bytes) -> bool:
        """Whether an update is durably in the open round, by its hash."""
        if self.state is None:
            return False
        entries = [decode_entry(typed("bytes", row[2])) for row in self.state.journal.select("read_events")]
        return any(isinstance(entry, UploadedEntry) and entry.ref.sha256 == blob for entry in entries)


async def run_coordinator(setting: CoordinatorSetting, life: Life, oracle: Oracle) -> None:
    """The coordinator's program."""
    async with compose_coordinator(setting, life, oracle) as run:
        await run.run(asyncio.Event())
        oracle.finishes(durable(typed("CoordinatorState", setting.state)))


@contextlib.asynccontextmanager
async def compose_coordinator(setting: CoordinatorSetting, life: Life, oracle: Oracle) -> AsyncIterator[Run]:
    """Everything a coordinator acts with, on this network and in this folder."""
    identity, topics = cast().coordinator, Topics(FLEET)
    will = Will(topics.coordinator_status, encode_status(CoordinatorStatus("lost", "0")))
    transport = life.connect(identity.name, will)
    trust, artifact, rules = cast().trust(identity.name), cast().artifact, setting.plan
    revocations = RevocationKeeper(trust, life.clock, setting.folder)
    revocations.recall()
    setting.revoked = lambda: frozenset(
        name for name, one in cast().devices.items() if trust.is_revoked(trust.read(one.certificate))
    )
    async with contextlib.AsyncExitStack() as stack:
        state = CoordinatorState(
            setting.folder,
            artifact.bundle.manifest.model_id,
            lambda: Model.of(artifact.weights, initial_state(rules.server, artifact.weights.size)),
            life.clock,
        )
        setting.state = state
        stack.callback(state.close)
        oracle.finds(durable(state))
        computer = await stack.enter_async_context(Computer(2))
        uploads = UploadReceiver(
            transport,
            topics,
            "main",
            lambda *grant: current.grant(*grant),  # noqa: PLW0108 - `current` is made below
            clock=life.clock,
        )
        desk = Desk(
            signer=identity,
            topics=topics,
            transport=transport,
            board=StatusBoard(transport),
            fleet=Fleet(trust, life.clock),
            revocations=revocations,
            uploads=uploads,
            state=state,
            computer=computer,
            clock=life.clock,
            entropy=SeededEntropy(life.chance.getrandbits(64)),
        )
        current = Run(
            desk,
            _settings(setting),
            rules,
            artifact,
            ModelStore(setting.folder),
            Evaluator(*artifact.evaluated_by(), None),
            trust,
            1,
            life.chance.random,
        )
        current._commit = _watched(current._commit, oracle)  # type: ignore[method-assign, assignment]
        yield current


def _watched(commit: Commits, oracle: Oracle) -> Commits:
    async def watched(effect: Commit) -> None:
        oracle.sums(effect.ended.order, effect.mean, effect.survivors)
        await commit(effect)

    return watched


def _order_of(said: Message) -> Order:
    order: Order = said.order  # type: ignore[attr-defined]
    return order


def durable(state: CoordinatorState) -> Durable:
    """What a coordinator's disk says of its run."""
    rows = state.journal.select("read_run")
    if not rows:
        return Durable(cast().artifact.weights)
    weights = msgspec.msgpack.decode(state._models.get(typed("bytes", rows[0][4])), type=Model).vector
    outcomes = state.journal.select("read_outcomes")
    results = [msgspec.json.decode(typed("str", row[4]), type=RoundResult) for row in outcomes]
    return Durable(
        weights,
        sum(bool(row[0]) for row in outcomes),
        sum(one.result == "committed" for one in results),
        typed("float | None", rows[0][5]),
        {
            typed("str", device): Account(*typed("tuple[float, int, int]", account))
            for device, *account in state.journal.select("read_accounts")
        },
        _over(state),
    )


def _over(state: CoordinatorState) -> dict[Order, bool]:
    """Rounds that are over, and whether they were committed; what no query of the program asks for."""
    rows = state.journal._reader.execute(
        "SELECT generation, epoch, number, committed FROM rounds WHERE committed IS NOT NULL"
    )
    return {Order(*order): bool(committed) for *order, committed in rows}


def _settings(setting: CoordinatorSetting) -> CoordinatorSettings:
    return CoordinatorSettings(
        fleet=FLEET,
        broker=NO_BROKER,
        identity=setting.folder,
        state=setting.folder,
        plan=setting.folder,
        workers=2,
        seed=1,
        start_when=setting.devices,
    )
