"""The catalog's models, and that their training graphs compute the gradient."""

from collections.abc import Mapping

import numpy as np
import pytest

from models.artifact import build_bundle, initial_weights
from models.bundle import Bundle
from models.catalog import CATALOG, build_model
from models.engines import load_engine
from models.errors import ModelError
from protocol.plan import Loss, Training

CASES: list[tuple[str, Mapping[str, int], Loss]] = [
    ("logistic", {"features": 5, "classes": 3}, "cross_entropy"),
    ("logistic", {"features": 5, "classes": 2}, "bce"),
    ("mlp", {"features": 6, "classes": 3, "hidden": 7}, "cross_entropy"),
    ("cnn1d", {"channels": 2, "window": 16, "classes": 3, "filters": 4}, "cross_entropy"),
    (
        "dscnn1d",
        {"channels": 2, "window": 16, "classes": 3, "filters": 4, "blocks": 2},
        "cross_entropy",
    ),
    (
        "cnn2d",
        {"channels": 1, "height": 8, "width": 8, "classes": 3, "filters1": 2, "filters2": 3},
        "cross_entropy",
    ),
    ("gru", {"channels": 2, "window": 5, "classes": 3, "hidden": 4}, "cross_entropy"),
    ("lstm", {"channels": 2, "window": 5, "classes": 3, "hidden": 4}, "cross_entropy"),
    ("autoencoder", {"features": 6, "hidden": 5, "code": 2}, "mse"),
]


def examples(bundle: Bundle, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    manifest = bundle.manifest
    x = random.normal(size=(count, *manifest.input.shape)).astype(np.float32)
    if manifest.loss == "cross_entropy":
        return x, random.integers(0, manifest.output.shape[0], count)
    return x, random.integers(0, 2, (count, *manifest.label.shape)).astype(np.float32)


def test_every_catalog_model_is_tried_here() -> None:
    assert {name for name, _, _ in CASES} == set(CATALOG)


@pytest.mark.parametrize(("name", "sizes", "loss"), CASES)
def test_one_step_follows_the_gradient_of_the_loss(name: str, sizes: Mapping[str, int], loss: Loss) -> None:
    model = build_model(name, sizes, seed=3)
    bundle = build_bundle(model, Training(loss=loss, optimizer="sgd"))
    engine, weights = load_engine(bundle), initial_weights(model)
    # A little noise moves biases off 0, where ReLU has a corner.
    weights += np.random.default_rng(4).normal(0, 0.05, weights.shape).astype(np.float32)
    x, y = examples(bundle, 4)

    one_step = Training(loss=loss, local_epochs=1, batch_size=4, learning_rate=1.0)
    gradient = weights - engine.fit(weights, x, y, one_step, seed=0).weights

    step = 1e-2
    random = np.random.default_rng(6)
    for _ in range(8):
        direction = random.normal(size=weights.shape).astype(np.float32)
        direction /= np.linalg.norm(direction)
        ahead = engine.evaluate(weights + step * direction, x, y).loss_sum / 4
        behind = engine.evaluate(weights - step * direction, x, y).loss_sum / 4
        slope = (ahead - behind) / (2 * step)
        assert slope == pytest.approx(float(gradient @ direction), abs=0.02 * float(np.linalg.norm(gradient)))


def test_the_sensor_model_of_the_demo_is_small() -> None:
    model = build_model("cnn1d", {"channels": 6, "window": 128, "classes": 7}, seed=1)

    assert initial_weights(model).shape == (3207,)


def test_the_separable_sensor_model_keeps_its_size() -> None:
    model = build_model("dscnn1d", {"channels": 6, "window": 128, "classes": 7}, seed=1)

    assert initial_weights(model).shape == (4967,)


def test_a_seed_repeats_a_model_exactly() -> None:
    sizes = {"features": 4, "classes": 2}

    first, again, other = (build_model("mlp", sizes, seed).SerializeToString() for seed in (1, 1, 2))

    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("name", "sizes", "text"),
    [
        ("resnet", {}, "choose one of logistic, mlp"),
        ("logistic", {"features": 4}, r"needs the parameter \['classes'\]"),
        (
            "mlp",
            {"features": 4, "classes": 2, "depth": 3},
            r"no parameter \['depth'\].*hidden \(default 200\)",
        ),
        ("mlp", {"features": 0, "classes": 2}, "features = 0 must be between 1"),
        ("cnn2d", {"channels": 1, "height": 2, "width": 2, "classes": 2}, "cannot have the sizes"),
    ],
)
def test_wrong_sizes_are_answered_with_what_is_allowed(name: str, sizes: dict[str, int], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        build_model(name, sizes, seed=1)
