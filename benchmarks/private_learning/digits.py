"""MNIST on virtual devices: accuracy against epsilon, and against bytes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks.learning.examples import Examples
from benchmarks.learning.mnist import Mnist, spread
from benchmarks.private_learning import network
from benchmarks.private_learning.cases import SEED, Case
from benchmarks.private_learning.network import Vectors
from benchmarks.private_learning.recipe import Recipe, rules

DEVICES = 1000
RECIPES = {
    1.0: Recipe(rounds=6, steps=20, learning_rate=0.1, clip=0.3, server_rate=4.0),
    2.0: Recipe(rounds=8, steps=15, learning_rate=0.1, clip=0.3, server_rate=4.0),
    4.0: Recipe(rounds=12, steps=20, learning_rate=0.2, clip=0.4, server_rate=4.0),
    8.0: Recipe(rounds=24, steps=15, learning_rate=0.2, clip=0.3, server_rate=4.0),
}
"""By epsilon, as `choosing` found them in ten minutes for each."""

BITS_DEVICES = 100
BITS_EPSILON = 8.0
BITS_RECIPES = {
    math.inf: Recipe(rounds=20, steps=10, learning_rate=0.1, clip=0.6, server_rate=1.5),
    BITS_EPSILON: RECIPES[1.0],
}
"""A hundred devices at epsilon 8 have as much noise as a thousand at 1, and take their recipe."""

BITS = (8, 10, 12, 16, 20, 32)
SKETCHES = (0.25, 0.1)


@dataclass(frozen=True)
class Digits:
    """The task: the 2NN, every device's examples (devices, n, ...), and the test examples."""

    devices: Examples
    test: Examples

    def initial(self) -> Vectors:
        """See `Task`."""
        return network.initial_weights(SEED)

    def updates(self, weights: Vectors, recipe: Recipe, number: int) -> Vectors:  # noqa: ARG002 - the same batches every round
        """See `Task`."""
        return network.local_updates(weights, self.devices, recipe.steps, recipe.learning_rate)

    def accuracy(self, weights: Vectors) -> float:
        """See `Task`."""
        return network.accuracy(weights, self.test)


def task(data: Mnist, devices: int) -> Digits:
    """All training examples, shuffled and spread evenly: IID."""
    return Digits(spread(data.train, devices, SEED), data.test)


def epsilon_cases() -> Iterator[Case]:
    """Runs by epsilon, and the one of 8 without its noise."""
    for epsilon, recipe in RECIPES.items():
        yield Case(f"{epsilon:g}", recipe, rules(recipe, DEVICES, network.SIZE, epsilon=epsilon))
    recipe = RECIPES[8.0]
    yield Case("inf, recipe of 8", recipe, rules(recipe, DEVICES, network.SIZE, bits=16))


def bits_cases() -> Iterator[Case]:
    """Runs by ring width and by sketch, without noise and with it."""
    shapes = [*((bits, 1.0) for bits in BITS), *((16, sketch) for sketch in SKETCHES)]
    for epsilon, recipe in BITS_RECIPES.items():
        for bits, sketch in shapes:
            made = rules(recipe, BITS_DEVICES, network.SIZE, epsilon=epsilon, bits=bits, sketch=sketch)
            part = "" if sketch == 1 else f", {sketch:.0%} of the coordinates"
            yield Case(f"{bits} bits{part}", recipe, made)


def shortened(case: Case) -> Case:
    """A tenth of the devices, two rounds: to see that all works, not what it gives."""
    recipe = replace(case.recipe, rounds=2)
    return Case(case.label, recipe, replace(case.rules, devices=case.rules.devices // 10, rounds=2))
