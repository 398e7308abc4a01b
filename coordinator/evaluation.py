"""How good a model is on the coordinator's own held-out data, if it has any."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from models.datasets.source import NpzSource
from models.errors import TrainingFailedError
from models.training_limits import TrainingLimits
from models.training_process import TrainingWorker

EVALUATION_SECONDS = 300.0
"""A model that takes longer on the coordinator's data is not evaluated; the round goes on."""

LIMITS = TrainingLimits(memory_limit_mb=8192, cpu_seconds=int(EVALUATION_SECONDS))
"""A server's share: the model comes from the coordinator's own plan, but even that must not end it."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """A model on held-out data.

    Attributes:
        loss: mean; None when there is no evaluation.
        accuracy: part that was right, 0 to 1; None likewise.
    """

    loss: float | None = None
    accuracy: float | None = None


class Evaluator:
    """Evaluates models in a process of their own.

    Args:
        engine: which one judges.
        bundle: the part of the bundle that it reads, encoded.
        data: `.npz` with x and y; None evaluates nothing.
    """

    def __init__(self, engine: str, bundle: bytes, data: Path | None) -> None:
        self._engine = engine
        self._bundle = bundle
        self._data = data
        self._worker = TrainingWorker(LIMITS)

    async def evaluate(self, weights: NDArray[np.float32]) -> Evaluation:
        """Judge these weights, float32 (d,). A failure is logged and costs only the figure."""
        if self._data is None:
            return Evaluation()
        try:
            result = await self._worker.evaluate(
                self._bundle,
                weights,
                NpzSource(self._data),
                deadline=EVALUATION_SECONDS,
                engine=self._engine,
                whole=True,
            )
        except TrainingFailedError as error:
            _log.warning("not_evaluated", cause=str(error))
            return Evaluation()
        return Evaluation(result.loss_sum / result.evaluated, result.correct / result.evaluated)

    async def close(self) -> None:
        """End the process."""
        await self._worker.close()
