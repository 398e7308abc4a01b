"""The training engine: steps, batches, FedProx, refusals."""

import numpy as np
import pytest
from msgspec.structs import replace

from models.artifact import build_bundle, initial_weights
from models.catalog import build_model
from models.engines import TrainingEngine, load_engine
from models.errors import BundleError, DatasetError, EngineUnavailableError, TrainingFailedError
from models.installed import available_engines, choose_engine
from protocol.plan import Optimizer, Training

PLAIN = Training()


@pytest.fixture(params=available_engines(), autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here holds for each engine that this machine has."""
    monkeypatch.setattr(Bench, "name", request.param, raising=False)
    return str(request.param)


class Bench:
    """One logistic model and 10 examples."""

    name: str

    def __init__(self, training: Training = PLAIN) -> None:
        model = build_model("logistic", {"features": 3, "classes": 2}, seed=1)
        self.bundle = build_bundle(model, training)
        self.engine: TrainingEngine = load_engine(self.bundle, self.name)
        self.weights = initial_weights(model)
        random = np.random.default_rng(2)
        self.x = random.normal(size=(10, 3)).astype(np.float32)
        self.y = (self.x[:, 0] > 0).astype(np.int64)

    def softmax_step(self, weights: np.ndarray, rows: slice, rate: float) -> np.ndarray:
        """One SGD step in plain numpy."""
        matrix, bias = weights[:6].reshape(3, 2), weights[6:]
        x, y = self.x[rows], self.y[rows]
        logits = x @ matrix + bias
        error = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(2)[y]
        gradient = np.concatenate([(x.T @ error).ravel(), error.sum(axis=0)]) / len(x)
        return weights - rate * gradient


def test_a_step_is_what_plain_numpy_computes() -> None:
    bench = Bench()

    result = bench.engine.fit(
        bench.weights, bench.x, bench.y, Training(local_epochs=1, learning_rate=0.5), seed=0
    )

    np.testing.assert_allclose(result.weights, bench.softmax_step(bench.weights, slice(None), 0.5), atol=1e-6)
    assert (result.examples, result.steps) == (10, 1)


def test_the_last_partial_batch_is_a_step_too() -> None:
    bench = Bench()

    result = bench.engine.fit(bench.weights, bench.x, bench.y, Training(local_epochs=3, batch_size=4), seed=0)

    assert result.steps == 9


def test_a_seed_repeats_the_training_and_another_does_not() -> None:
    bench = Bench()
    settings = Training(batch_size=3)

    first, again, other = (
        bench.engine.fit(bench.weights, bench.x, bench.y, settings, seed=seed).weights for seed in (1, 1, 2)
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_more_examples_than_the_cap_are_not_used() -> None:
    bench = Bench()

    result = bench.engine.fit(bench.weights, bench.x, bench.y, Training(max_examples=7, batch_size=2), seed=0)

    assert (result.examples, result.steps) == (7, 8)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_learns(optimizer: Optimizer) -> None:
    settings = Training(optimizer=optimizer, local_epochs=120, learning_rate=0.3)
    bench = Bench(settings)

    trained = bench.engine.fit(bench.weights, bench.x, bench.y, settings, seed=0).weights

    before, after = (bench.engine.evaluate(w, bench.x, bench.y) for w in (bench.weights, trained))
    assert after.loss_sum < before.loss_sum / 2
    assert after.correct == 10


def test_adam_starts_anew_every_time() -> None:
    settings = Training(optimizer="adamw")
    bench = Bench(settings)

    first = bench.engine.fit(bench.weights, bench.x, bench.y, settings, seed=0).weights
    bench.engine.fit(first, bench.x, bench.y, settings, seed=1)

    assert np.array_equal(bench.engine.fit(bench.weights, bench.x, bench.y, settings, seed=0).weights, first)


def test_the_proximal_term_pulls_towards_the_weights_received() -> None:
    moved = []
    for mu in (0.0, 1.0, 5.0):
        settings = Training(local_epochs=20, learning_rate=0.1, proximal=mu)
        bench = Bench(settings)
        trained = bench.engine.fit(bench.weights, bench.x, bench.y, settings, seed=0).weights
        moved.append(float(np.linalg.norm(trained - bench.weights)))

    assert moved[0] > moved[1] > moved[2] > 0


def test_the_proximal_gradient_is_mu_times_the_distance() -> None:
    settings = Training(local_epochs=2, learning_rate=0.5, proximal=0.4)
    bench = Bench(settings)

    result = bench.engine.fit(bench.weights, bench.x, bench.y, settings, seed=0).weights

    first = bench.softmax_step(bench.weights, slice(None), 0.5)
    second = bench.softmax_step(first, slice(None), 0.5) - 0.5 * 0.4 * (first - bench.weights)
    np.testing.assert_allclose(result, second, atol=1e-6)


def test_binary_cross_entropy_stays_finite_for_extreme_logits() -> None:
    bench = Bench(Training(loss="bce"))
    weights = np.full(8, 100.0, dtype=np.float32)
    y = np.zeros((10, 2), dtype=np.float32)

    logits = np.repeat(bench.x.sum(axis=1) * 100 + 100, 2)
    evaluation = bench.engine.evaluate(weights, bench.x, y)

    assert evaluation.loss_sum == pytest.approx(float(np.maximum(logits, 0).sum() / 2), rel=1e-4)
    assert evaluation.correct == np.count_nonzero(logits[::2] <= 0)
    settings = Training(loss="bce", learning_rate=1e-3)
    assert np.isfinite(bench.engine.fit(weights, bench.x, y, settings, seed=0).weights).all()


def test_evaluation_in_parts_is_evaluation() -> None:
    bench = Bench()
    x, y = np.tile(bench.x, (60, 1)), np.tile(bench.y, 60)

    once, sixty = (bench.engine.evaluate(bench.weights, *pair) for pair in ((bench.x, bench.y), (x, y)))

    assert (sixty.examples, sixty.correct) == (600, 60 * once.correct)
    assert sixty.loss_sum == pytest.approx(60 * once.loss_sum, rel=1e-5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_non_finite_weights_are_refused(wrong: float) -> None:
    bench = Bench()
    bench.weights[3] = wrong

    with pytest.raises(TrainingFailedError, match="NaN or infinity"):
        bench.engine.fit(bench.weights, bench.x, bench.y, Training(), seed=0)


def test_weights_of_another_length_are_refused() -> None:
    bench = Bench()

    with pytest.raises(TrainingFailedError, match=r"float32 \(8,\)"):
        bench.engine.evaluate(bench.weights[1:], bench.x, bench.y)


def test_a_training_that_runs_away_is_a_failure() -> None:
    bench = Bench(Training(loss="mse"))
    y = np.zeros((10, 2), dtype=np.float32)

    with pytest.raises(TrainingFailedError, match=r"diverged.*learning_rate"):
        bench.engine.fit(
            bench.weights, bench.x, y, Training(loss="mse", local_epochs=200, learning_rate=1e6), seed=0
        )


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("x", np.zeros((10, 4), dtype=np.float32), r"x is float32 \(10, 4\); .* takes float32 \('n', 3\)"),
        ("x", np.zeros((10, 3)), "x is float64"),
        ("x", np.full((10, 3), np.nan, dtype=np.float32), "NaN"),
        ("y", np.zeros(9, dtype=np.int64), "9"),
        ("y", np.full(10, 2), "2 classes, 0 to 1"),
        ("y", np.full(10, -1), "labels run from -1"),
        ("y", np.zeros(10, dtype=np.float32), "takes int64"),
    ],
)
def test_data_that_the_graph_would_misread_is_refused(name: str, value: np.ndarray, text: str) -> None:
    bench = Bench()
    setattr(bench, name, value)

    with pytest.raises(DatasetError, match=text):
        bench.engine.evaluate(bench.weights, bench.x, bench.y)


def test_a_bundle_for_other_engines_only_is_refused_with_the_reason(engine: str) -> None:
    bench = Bench()

    with pytest.raises(EngineUnavailableError, match=r"for ort-graph.*; this machine has abacus"):
        choose_engine(bench.bundle.manifest.engines, ["abacus"])
    with pytest.raises(EngineUnavailableError, match="no engine 'abacus'"):
        load_engine(bench.bundle, "abacus")
    assert choose_engine(bench.bundle.manifest.engines, ["abacus", engine]) == engine


def test_settings_that_the_bundle_was_not_built_for_are_refused() -> None:
    bench = Bench()

    with pytest.raises(TrainingFailedError, match="bundle: it was built for"):
        bench.engine.fit(bench.weights, bench.x, bench.y, Training(proximal=0.1), seed=0)


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"a location", bytes(300)])
def test_graphs_that_cannot_be_loaded_are_refused(engine: str, content: bytes) -> None:
    bench = Bench()
    file = bench.bundle.manifest.engines[engine][0]

    with pytest.raises(BundleError):
        load_engine(replace(bench.bundle, files=bench.bundle.files | {file: content}), engine)
