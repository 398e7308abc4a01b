"""A round's devices, trained by a few processes with the product's engine."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from types import TracebackType

from benchmarks.learning.examples import Examples, Fleet
from models.bundle import Bundle
from models.engines import Evaluation, FitResult, TrainingEngine, load_engine
from models.layout import Vector
from protocol.plan import Training


class Workers(AbstractContextManager["Workers"]):
    """Processes that hold the model and everybody's examples; they end with the context.

    Args:
        bundle: of the model.
        fleet: everybody's examples; copied into each process once.
        engine: the only one that may be used, one of `models.installed.available_engines()`.
        processes: how many.
    """

    def __init__(self, bundle: Bundle, fleet: Fleet, engine: str, processes: int) -> None:
        self._parts = _cut(len(fleet.test), processes)
        self._pool = ProcessPoolExecutor(
            processes,
            mp_context=get_context("spawn"),
            initializer=_Worker.open,
            initargs=(bundle.only(engine), engine, fleet),
        )

    def train(
        self, weights: Vector, members: Sequence[int], training: Training, seeds: Sequence[int]
    ) -> list[FitResult]:
        """What each member makes of the weights, in order; a seed each.

        Raises:
            TrainingFailedError: a member's training ran away.
        """
        return list(self._pool.map(partial(_train, weights, training), members, seeds))

    def accuracy(self, weights: Vector) -> float:
        """Part of the test examples that are predicted right, 0 to 1."""
        sums = list(self._pool.map(partial(_evaluate, weights), self._parts))
        return sum(part.correct for part in sums) / sum(part.examples for part in sums)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes; nothing that waits is begun any more."""
        self._pool.shutdown(cancel_futures=True)


class _Worker:
    """What a worker process holds from its beginning on."""

    engine: TrainingEngine
    fleet: Fleet

    @classmethod
    def open(cls, bundle: Bundle, engine: str, fleet: Fleet) -> None:
        cls.engine, cls.fleet = load_engine(bundle, engine), fleet


def _train(weights: Vector, training: Training, member: int, seed: int) -> FitResult:
    own = _Worker.fleet.clients[member]
    return _Worker.engine.fit(weights, own.x, own.y, training, seed=seed)


def _evaluate(weights: Vector, part: tuple[int, int]) -> Evaluation:
    some: Examples = _Worker.fleet.test.part(*part)
    return _Worker.engine.evaluate(weights, some.x, some.y)


def _cut(examples: int, parts: int) -> list[tuple[int, int]]:
    bounds = [examples * part // parts for part in range(parts + 1)]
    return list(pairwise(bounds))
