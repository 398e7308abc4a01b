"""`python -m benchmarks.engines.ours ENGINE CASE`: one of our engines, or numpy, in a process of its own.

Prints JSON: microseconds of a step, parameters of the model, and the most memory that the process had.
"""

import json
import resource
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec.structs import replace

from benchmarks.engines.cases import MANY, RATE, Case, case_of, microseconds
from models.artifact import build_bundle, initial_weights
from models.catalog import build_model
from models.engines import load_engine
from models.installed import ORT_GRAPH
from protocol.plan import Training


def examples(case: Case, count: int) -> tuple[Any, Any]:
    """Normal inputs; classes, or the inputs as targets."""
    random = np.random.default_rng(0)
    x = random.normal(size=(count, *case.shape)).astype(np.float32)
    return (x, x) if case.loss == "mse" else (x, random.integers(0, case.outputs, count))


def engine_run(case: Case, name: str) -> Callable[[int], object]:
    """So many steps of `fit`."""
    model = build_model(case.model, case.sizes, seed=1)
    training = Training(
        loss=case.loss,  # type: ignore[arg-type]
        learning_rate=RATE,
        batch_size=case.batch,
        local_epochs=1,
    )
    bundle, weights = build_bundle(model, training), initial_weights(model)
    if name == ORT_GRAPH:
        bundle = bundle.only(name)
    engine = load_engine(bundle, name)
    x, y = examples(case, MANY * case.batch)

    def run(steps: int) -> object:
        return engine.fit(weights, x, y, replace(training, max_examples=steps * case.batch), seed=0)

    return run


def numpy_run(case: Case) -> Callable[[int], object]:
    """So many steps of plain numpy, for dense models: what there is to win."""
    random = np.random.default_rng(1)
    layers = [
        (random.normal(0, 0.1, (into, out)).astype(np.float32), np.zeros(out, np.float32), relu)
        for into, out, relu in case.dense
    ]
    x, y = examples(case, case.batch)
    picked = x if case.loss == "mse" else np.eye(case.outputs, dtype=np.float32)[y]

    def step() -> None:
        value, inputs = x, []
        for weights, bias, relu in layers:
            inputs.append(value)
            value = value @ weights + bias
            value = np.maximum(value, 0) if relu else value
        slope = _slope(case, value, picked)
        for index in reversed(range(len(layers))):
            weights, bias, _ = layers[index]
            below = slope @ weights.T if index else slope
            if index and layers[index - 1][2]:
                below *= inputs[index] > 0
            weights -= RATE * (inputs[index].T @ slope)
            bias -= RATE * slope.sum(axis=0)
            slope = below

    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    return run


def _slope(case: Case, value: Any, picked: Any) -> Any:
    if case.loss == "mse":
        return (value - picked) * (2 / value.size)
    shifted = np.exp(value - value.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True) - picked) / len(value)


def main() -> None:
    """Measure and print."""
    name, case = sys.argv[1], case_of(sys.argv[2])
    run = numpy_run(case) if name == "numpy" else engine_run(case, name)
    found = {
        "us": microseconds(run),
        "parameters": len(initial_weights(build_model(case.model, case.sizes, seed=1))),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
