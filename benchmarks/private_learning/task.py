"""What is learned, whoever learns it, and the federated rounds in which it happens."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from benchmarks.learning.averaging import averaging
from benchmarks.private_learning.aggregation import Aggregation
from benchmarks.private_learning.network import Vectors
from benchmarks.private_learning.recipe import Recipe
from protocol.plan import Server

MASKED_EVERY = 20


class Task(Protocol):
    """A model, every device's examples, and the test examples."""

    def initial(self) -> Vectors:
        """Weights before the first round, float32 (d,)."""
        ...

    def updates(self, weights: Vectors, recipe: Recipe, number: int) -> Vectors:
        """Every device's update in a round, float32 (devices, d)."""
        ...

    def accuracy(self, weights: Vectors) -> float:
        """Part of the test examples that are predicted right, 0 to 1."""
        ...


@dataclass(frozen=True)
class Round:
    """One round, done.

    Attributes:
        number: from 1.
        accuracy: on the test examples, afterwards.
        masked: whether masks went on and came off, and the sum was bit-equal to the plain one.
        seconds: it took, everybody's work.
        error: root mean square by which a coordinate of the mean was off: noise and rounding.
    """

    number: int
    accuracy: float
    masked: bool
    seconds: float
    error: float


def learn(task: Task, recipe: Recipe, aggregation: Aggregation) -> Iterator[Round]:
    """Federated averaging; the first, the last and every 20th round is masked."""
    told: list[partial[Round]] = []

    def mean_update(weights: Vectors, number: int) -> Vectors:
        began = time.perf_counter()
        masked = number in {1, recipe.rounds} or number % MASKED_EVERY == 0
        updates = task.updates(weights, recipe, number)
        mean = aggregation.mean(updates, number, masked=masked)
        seconds = time.perf_counter() - began
        error = aggregation.error(mean, updates, number)
        told.append(partial(Round, number=number, masked=masked, seconds=seconds, error=error))
        return mean.mean

    server = Server(learning_rate=recipe.server_rate)
    for weights in averaging(server, task.initial(), mean_update, recipe.rounds):
        yield told.pop()(accuracy=task.accuracy(weights))
