"""The coordinator program: one round after another until the plan's stopping rule. Built here, once."""

import contextlib
import os
import random
from collections.abc import AsyncIterator
from importlib.metadata import version

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
from protocol.certificates import Role
from protocol.status import CoordinatorStatus
from protocol.topics import Topics
from runtime.bus import connect_mqtt
from runtime.clock import Clock, SystemClock
from runtime.compute import Computer
from runtime.entropy import Entropy, SystemEntropy
from runtime.identity import load_identity
from runtime.plan_file import load_plan
from runtime.revocations import RevocationKeeper
from runtime.signals import run_until, stop_event
from runtime.status_board import StatusBoard
from runtime.transfers import UploadReceiver
from runtime.watchdog import watched


async def run(settings: CoordinatorSettings) -> None:
    """Run the plan to its end, or until SIGTERM or SIGINT.

    Raises:
        FedfleetError: settings, plan, identity or state are not usable, or the broker refuses.
    """
    stop, clock = stop_event(), SystemClock()
    async with _composed(settings, clock, SystemEntropy()) as composed:
        await run_until(stop, composed.run(stop), clock)


@contextlib.asynccontextmanager
async def _composed(settings: CoordinatorSettings, clock: Clock, entropy: Entropy) -> AsyncIterator[Run]:
    identity = load_identity(settings.identity, settings.name)
    trust, own = identity.trust(Role.COORDINATOR, clock.unix())
    plan = load_plan(settings.plan)
    chance = entropy.uniform if settings.seed is None else random.Random(settings.seed).random  # noqa: S311 - sampling
    artifact = build_artifact(plan, settings.plan.parent, _model_seed(settings.seed, entropy))
    topics = Topics(settings.fleet)
    transport = connect_mqtt(
        settings.broker,
        identity=identity,
        will=(topics.coordinator_status, CoordinatorStatus("lost", version("fedfleet"))),
        clock=clock,
        entropy=entropy,
    )
    revocations = RevocationKeeper(trust, clock, settings.state)
    revocations.recall()
    evaluator = Evaluator(*artifact.evaluated_by(), settings.evaluation.data)
    async with contextlib.AsyncExitStack() as stack:
        state = CoordinatorState(
            settings.state,
            artifact.bundle.manifest.model_id,
            lambda: Model.of(artifact.weights, initial_state(plan.server, artifact.weights.size)),
            clock,
        )
        stack.callback(state.close)
        stack.push_async_callback(evaluator.close)
        computer = await stack.enter_async_context(Computer(settings.workers or len(os.sched_getaffinity(0))))
        uploads = UploadReceiver(
            transport,
            topics,
            settings.shard,
            lambda *grant: current.grant(*grant),  # noqa: PLW0108 - `current` is made below
            clock=clock,
        )
        desk = Desk(
            signer=identity,
            topics=topics,
            transport=transport,
            board=StatusBoard(transport),
            fleet=Fleet(trust, clock),
            revocations=revocations,
            uploads=uploads,
            state=state,
            computer=computer,
            clock=clock,
            entropy=entropy,
        )
        current = Run(
            desk,
            settings,
            plan,
            artifact,
            ModelStore(settings.state),
            evaluator,
            trust,
            own.generation,
            chance,
        )
        await stack.enter_async_context(watched(transport, clock, os.environ))
        yield current


def _model_seed(seed: int | None, entropy: Entropy) -> int:
    return int.from_bytes(entropy.bytes(4), "big") if seed is None else seed
