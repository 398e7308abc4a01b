"""Both engines on the same seed give the same update, whatever the model and the optimizer.

Held for each catalog model over 5 and over 50 steps, by ||difference|| / ||update||. Only the order of
float32 sums may differ: at most 2e-6 was measured, and 4e-6 for AdamW, whose first steps divide by the
gradient's size. A sum that falls on the other side of ReLU's corner drives trainings apart for good: one of
48 did so within 200 steps, by 0.4 % of the update; the others stayed at 1e-6.
"""

from collections.abc import Mapping

import numpy as np
import pytest
from msgspec.structs import replace

from models.artifact import build_bundle, initial_weights
from models.bundle import Bundle
from models.catalog import CATALOG, build_model
from models.engines import load_engine
from models.engines.interface import Examples
from models.installed import ORT_GRAPH, ORT_TRAINING, available_engines
from protocol.plan import Loss, Training

pytestmark = pytest.mark.skipif(
    ORT_TRAINING not in available_engines(), reason="onnxruntime-training-cpu is not installed here"
)

MODELS: dict[str, Mapping[str, int]] = {
    "logistic": {"features": 20, "classes": 5},
    "mlp": {"features": 20, "classes": 5, "hidden": 32},
    "autoencoder": {"features": 24},
    "cnn1d": {"channels": 6, "window": 64, "classes": 5},
    "dscnn1d": {"channels": 6, "window": 64, "classes": 5},
    "cnn2d": {"channels": 1, "height": 12, "width": 12, "classes": 5, "filters1": 4, "filters2": 8},
    "gru": {"channels": 4, "window": 16, "classes": 5, "hidden": 16},
    "lstm": {"channels": 4, "window": 16, "classes": 5, "hidden": 16},
}
SGD = Training(learning_rate=0.05, batch_size=16)
PROXIMAL = Training(learning_rate=0.05, batch_size=16, proximal=0.1)
ADAMW = Training(optimizer="adamw", learning_rate=1e-3, batch_size=16)
EPOCHS = (1, 10)
"""Of five steps each; the last of them has half a batch."""


def tolerance(training: Training) -> float:
    return 2e-5 if training.optimizer == "adamw" else 1e-5


def settings_of(model: str, training: Training, epochs: int = 1) -> Training:
    loss: Loss = "mse" if model == "autoencoder" else "cross_entropy"
    return replace(training, loss=loss, local_epochs=epochs)


def examples(bundle: Bundle, *, in_steps: bool = False) -> tuple[Examples, Examples]:
    """72 of them; in steps of a half, as of a coarse sensor, many values are equal."""
    random, manifest = np.random.default_rng(5), bundle.manifest
    x = random.normal(size=(72, *manifest.input.shape)).astype(np.float32)
    if in_steps:
        x = (np.round(x * 2) / 2).astype(np.float32)
    if manifest.loss == "cross_entropy":
        return x, random.integers(0, manifest.output.shape[0], len(x))
    return x, random.normal(size=(len(x), *manifest.label.shape)).astype(np.float32)


def apart(model: str, training: Training, *, in_steps: bool = False) -> float:
    """How far the engines' updates are apart, in parts of the update."""
    graph = build_model(model, MODELS[model], seed=3)
    bundle, weights = build_bundle(graph, training), initial_weights(graph)
    x, y = examples(bundle, in_steps=in_steps)
    mine, other = (
        load_engine(bundle, engine).fit(weights, x, y, training, seed=9)
        for engine in (ORT_GRAPH, ORT_TRAINING)
    )
    assert (mine.steps, mine.examples) == (other.steps, other.examples)
    assert mine.loss == pytest.approx(other.loss, rel=1e-6)
    return float(np.linalg.norm(mine.weights - other.weights) / np.linalg.norm(other.weights - weights))


def test_every_catalog_model_is_compared() -> None:
    assert set(MODELS) == set(CATALOG)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("training", [SGD, PROXIMAL, ADAMW], ids=["sgd", "proximal", "adamw"])
def test_the_updates_are_equal(model: str, training: Training) -> None:
    for epochs in EPOCHS:
        assert apart(model, settings_of(model, training, epochs)) < tolerance(training)


@pytest.mark.parametrize("model", ["cnn1d", "dscnn1d", "cnn2d"])
def test_equal_values_under_a_maximum_do_not_drive_them_apart(model: str) -> None:
    for epochs in EPOCHS:
        assert apart(model, settings_of(model, SGD, epochs), in_steps=True) < tolerance(SGD)


@pytest.mark.parametrize("model", MODELS)
def test_the_evaluations_are_equal(model: str) -> None:
    graph = build_model(model, MODELS[model], seed=3)
    bundle = build_bundle(graph, settings_of(model, SGD))
    weights, (x, y) = initial_weights(graph), examples(bundle)
    mine, other = (
        load_engine(bundle, engine).evaluate(weights, x, y) for engine in (ORT_GRAPH, ORT_TRAINING)
    )
    assert mine.loss_sum == pytest.approx(other.loss_sum, rel=1e-6)
    assert (mine.examples, mine.correct) == (other.examples, other.correct)
