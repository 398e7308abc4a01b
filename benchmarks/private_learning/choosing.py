"""How a recipe is chosen for an epsilon, without the test examples.

A hundred devices learn from 50,000 of the training examples as if a thousand did: their mean gets normal
noise of the size that the thousand's has. The other 10,000 judge. One field after the other moves to a
neighbouring value while that helps. What this search looks at is not charged to epsilon: a fleet would choose
on data that is not private.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.learning.averaging import averaging
from benchmarks.learning.examples import Examples
from benchmarks.learning.mnist import Mnist, spread
from benchmarks.private_learning import network
from benchmarks.private_learning.network import Vectors
from benchmarks.private_learning.recipe import Recipe, rules
from protocol.plan import Server

_STANDING_IN = 100
_DEVICES = 1000
_HELD_OUT = 10_000
_CHOICES: dict[str, tuple[float, ...]] = {
    "rounds": (2, 4, 6, 8, 12, 16, 24, 32, 48),
    "server_rate": (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0),
    "clip": (0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6),
    "learning_rate": (0.025, 0.05, 0.1, 0.2, 0.4),
    "steps": (5, 10, 15, 20),
}
START = Recipe(rounds=8, steps=15, learning_rate=0.1, clip=0.3, server_rate=4.0)
"""The best of a random search in the same way."""


@dataclass(frozen=True)
class Bench:
    """Where a recipe is tried."""

    devices: Examples
    judges: Examples
    epsilon: float

    def accuracy(self, recipe: Recipe) -> float:
        """Of the last model, on the examples held out."""
        made = rules(recipe, _DEVICES, network.SIZE, epsilon=self.epsilon)
        noise = np.float32(made.parameters.expected_noise(made.survivors).rmse)
        random = np.random.default_rng(1)

        def mean_update(weights: Vectors, number: int) -> Vectors:
            start = (number - 1) * _STANDING_IN % _DEVICES
            some = self.devices.part(start, start + _STANDING_IN)
            updates = network.local_updates(weights, some, recipe.steps, recipe.learning_rate)
            lengths = np.linalg.norm(updates, axis=1, keepdims=True)
            mean: Vectors = np.mean(updates * np.minimum(1, recipe.clip / lengths), axis=0)
            return mean + noise * random.standard_normal(mean.size, np.float32)

        server = Server(learning_rate=recipe.server_rate)
        *_, last = averaging(server, network.initial_weights(1), mean_update, recipe.rounds)
        return network.accuracy(last, self.judges)


def choose(data: Mnist, epsilon: float) -> Iterator[tuple[Recipe, float]]:
    """Yield each recipe that was better than all before, and its accuracy."""
    shuffled = spread(data.train, 1, seed=7)
    every = Examples(shuffled.x[0], shuffled.y[0])
    learners, judges = every.part(0, len(every) - _HELD_OUT), every.part(len(every) - _HELD_OUT, len(every))
    bench = Bench(spread(learners, _DEVICES, seed=1), judges, epsilon)
    best, reached = START, bench.accuracy(START)
    yield best, reached
    moved = True
    while moved:
        moved = False
        for name in _CHOICES:
            for tried in _neighbours(best, name):
                accuracy = bench.accuracy(tried)
                if accuracy > reached:
                    best, reached, moved = tried, accuracy, True
                    yield best, reached
                    break


def _neighbours(recipe: Recipe, name: str) -> Iterator[Recipe]:
    values, fields = _CHOICES[name], asdict(recipe)
    place = values.index(fields[name])
    for other in values[max(place - 1, 0) : place] + values[place + 1 : place + 2]:
        yield Recipe(**{**fields, name: other})
