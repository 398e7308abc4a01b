"""One training process meets every hostile artifact, and trains a good one after each."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from hostile_artifacts import GOOD, WEIGHTS, Hostile, contained, stopped

from models.datasets.source import NpzSource
from models.errors import TrainingFailedError
from models.layout import Vector
from models.training_limits import TrainingLimits
from models.training_process import TrainingWorker
from protocol.plan import Training

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
            await self._train(hostile.bundle, hostile.weights)
        except TrainingFailedError as error:
            return error.kind
        return "trained"

    async def trains(self) -> bool:
        """Whether a good artifact still trains."""
        return await self._train(GOOD.encode(), WEIGHTS) == 32

    async def _train(self, bundle: bytes, weights: Vector) -> int:
        result = await self.worker.train(
            bundle, weights, Training(), NpzSource(self._dataset), seed=1, deadline=DEADLINE
        )
        return result.examples


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def victim(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Victim]:
    victim = Victim(tmp_path_factory.mktemp("victim"))
    assert await victim.trains()
    yield victim
    await victim.worker.close()


@pytest.mark.parametrize("hostile", list(contained()), ids=lambda hostile: hostile.name)
async def test_what_only_shows_itself_when_it_runs_costs_one_training(
    victim: Victim, hostile: Hostile
) -> None:
    assert await victim.end_of(hostile) in hostile.ends.split("|")
    assert await victim.trains()


async def test_what_is_stopped_by_the_scan_does_not_even_cost_the_process(victim: Victim) -> None:
    assert await victim.trains()
    process = victim.worker.pid
    for hostile in stopped():
        # One that is too long even to be sent to the process is no call.
        assert await victim.end_of(hostile) in {"bundle", "failed"}, hostile.name
    assert await victim.trains()
    assert victim.worker.pid == process
