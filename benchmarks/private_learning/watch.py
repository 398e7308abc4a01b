"""The watch data at its own size: ten people, a device each, with the product's model and training engine."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.private_learning.cases import SEED, Case
from benchmarks.private_learning.network import Vectors
from benchmarks.private_learning.recipe import Recipe, Rules, rules
from models.artifact import build_bundle, initial_weights
from models.baselines import centralised, local_only
from models.bundle import Bundle
from models.catalog import build_model
from models.engines import TrainingEngine, load_engine
from models.errors import TrainingFailedError
from models.watch import CHANNELS, CLASSES, WINDOW, DeviceData, load_watch
from protocol.plan import Training

SEEDS = 3
CORRUPT = 1 / 3
"""The default of a plan: a tenth of ten devices would be none, as it is rounded down."""

EPSILONS = (8.0, 32.0, 128.0)
RECIPE = Recipe(rounds=10, steps=5, learning_rate=0.1, clip=1.0, server_rate=1.0)
WITHOUT_NOISE = Recipe(rounds=20, steps=2, learning_rate=0.1, clip=4.0, server_rate=1.0)


@dataclass
class Watches:
    """The task: every person's windows, and everybody's test windows."""

    devices: list[DeviceData]
    bundle: Bundle
    first: Vectors

    @cached_property
    def _engine(self) -> TrainingEngine:
        return load_engine(self.bundle)

    def initial(self) -> Vectors:
        """See `Task`."""
        return self.first

    def updates(self, weights: Vectors, recipe: Recipe, number: int) -> Vectors:
        """See `Task`. Where noise has made a model that cannot be trained, a device's update is zero."""
        settings = Training(local_epochs=recipe.steps, batch_size=16, learning_rate=recipe.learning_rate)
        updates = np.zeros((len(self.devices), weights.size), np.float32)
        for index, (update, device) in enumerate(zip(updates, self.devices, strict=True)):
            with suppress(TrainingFailedError):
                seed = 1000 * number + index
                fitted = self._engine.fit(weights, device.x_train, device.y_train, settings, seed=seed)
                np.subtract(fitted.weights, weights, out=update)
        return updates

    def accuracy(self, weights: Vectors) -> float:
        """See `Task`."""
        x = np.concatenate([device.x_test for device in self.devices])
        y = np.concatenate([device.y_test for device in self.devices])
        evaluation = self._engine.evaluate(weights, x, y)
        return evaluation.correct / evaluation.examples

    def baselines(self) -> dict[str, float]:
        """Accuracy of the same model trained elsewhere."""
        training = Training(batch_size=16)
        return {
            "all data in one place": centralised(self.bundle, self.first, self.devices, training, seed=SEED),
            "each device alone": local_only(self.bundle, self.first, self.devices, training, seed=SEED),
        }


def task() -> Watches:
    """Natural split: a device for each person."""
    model = build_model("cnn1d", {"channels": CHANNELS, "window": WINDOW, "classes": CLASSES}, seed=SEED)
    bundle = build_bundle(model, Training(loss="cross_entropy", optimizer="sgd"))
    return Watches(load_watch("subject"), bundle, initial_weights(model))


def cases(watches: Watches) -> Iterator[Case]:
    """Runs by epsilon and by who adds the noise."""
    devices, size = len(watches.devices), watches.first.size
    for central in (False, True):
        for epsilon in EPSILONS:
            made = rules(RECIPE, devices, size, epsilon=epsilon, central=central, corrupt=CORRUPT)
            yield from _seeded(f"{epsilon:g}, {made.privacy.mode}", RECIPE, made)
    yield from _seeded("inf, same recipe", RECIPE, rules(RECIPE, devices, size))
    yield from _seeded("inf", WITHOUT_NOISE, rules(WITHOUT_NOISE, devices, size))


def _seeded(label: str, recipe: Recipe, made: Rules) -> Iterator[Case]:
    """Three runs: with so few devices, one says little."""
    return (Case(label, recipe, made, seed) for seed in range(SEED, SEED + SEEDS))
