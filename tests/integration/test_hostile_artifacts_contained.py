"""One training process meets every hostile artifact, and trains a good one after each."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from hostile_artifacts import ENGINES, GOOD, Hostile, aim, contained, stopped

from models.datasets.source import NpzSource
from models.errors import TrainingFailedError
from models.training_limits import TrainingLimits
from models.training_process import TrainingWorker

LIMITS = TrainingLimits(memory_limit_mb=384, cpu_seconds=2)
DEADLINE = 60.0

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Victim:
    """A worker with data of its own.

    Args:
        folder: for the data.
    """

    def __init__(self, folder: Path) -> None:
        self.worker = TrainingWorker(LIMITS)
        self._dataset = folder / "data.npz"
        x = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
        np.savez(self._dataset, x=x, y=(x[:, 0] > 0).astype(np.int64))

    async def end_of(self, hostile: Hostile) -> str:
        """How training this ends."""
        try:
            await self._train(hostile)
        except TrainingFailedError as error:
            return error.kind
        return "trained"

    async def trains(self, engine: str) -> bool:
        """Whether a good artifact still trains."""
        return await self._train(Hostile("good", aim(GOOD, engine), "trained")) == 32

    async def _train(self, what: Hostile) -> int:
        result = await self.worker.train(
            what.bundle,
            what.weights,
            what.training,
            NpzSource(self._dataset),
            seed=1,
            deadline=DEADLINE,
            engine=what.engine,
        )
        return result.examples


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def victim(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Victim]:
    victim = Victim(tmp_path_factory.mktemp("victim"))
    assert await victim.trains(ENGINES[0])
    yield victim
    await victim.worker.close()


@pytest.mark.parametrize("hostile", list(contained()), ids=lambda hostile: hostile.name)
async def test_what_only_shows_itself_when_it_runs_costs_one_training(
    victim: Victim, hostile: Hostile
) -> None:
    assert await victim.end_of(hostile) in hostile.ends.split("|")
    assert await victim.trains(hostile.engine)


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_the_scan_stops_does_not_even_cost_the_process(victim: Victim, engine: str) -> None:
    assert await victim.trains(engine)
    process = victim.worker.pid
    for hostile in stopped():
        if hostile.engine == engine:
            assert await victim.end_of(hostile) == "bundle", hostile.name
    assert await victim.trains(engine)
    assert victim.worker.pid == process
