"""The catalog's models at sizes that devices train. Needs nothing but the standard library."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One model and one batch.

    Attributes:
        name: of the row.
        model: of the catalog.
        sizes: of the model.
        batch: examples a step.
        shape: of one example.
        outputs: classes, or numbers in the target.
        loss: "cross_entropy" or "mse".
        dense: (inputs, outputs, ReLU) of each layer, where all are dense.
    """

    name: str
    model: str
    sizes: Mapping[str, int]
    batch: int
    shape: tuple[int, ...]
    outputs: int
    loss: str = "cross_entropy"
    dense: tuple[tuple[int, int, bool], ...] = ()


_WINDOW = {"channels": 6, "window": 128, "classes": 7}
_SHORT = {**_WINDOW, "window": 32}
_IMAGE = {"channels": 1, "height": 28, "width": 28, "classes": 10}
_TWO = ((784, 200, True), (200, 200, True), (200, 10, False))
_CODE = ((24, 16, True), (16, 4, False), (4, 16, True), (16, 24, False))

CASES = (
    Case("logistic", "logistic", {"features": 64, "classes": 10}, 20, (64,), 10, dense=((64, 10, False),)),
    Case("mlp", "mlp", {"features": 784, "classes": 10}, 10, (784,), 10, dense=_TWO),
    Case("autoencoder", "autoencoder", {"features": 24}, 16, (24,), 24, "mse", _CODE),
    Case("cnn1d", "cnn1d", _WINDOW, 16, (6, 128), 7),
    Case("dscnn1d", "dscnn1d", _WINDOW, 16, (6, 128), 7),
    Case("cnn2d", "cnn2d", _IMAGE, 10, (1, 28, 28), 10),
    Case("gru", "gru", _SHORT, 16, (6, 32), 7),
    Case("lstm", "lstm", _SHORT, 16, (6, 32), 7),
)

RATE = 1e-4
FEW, MANY = 50, 250
"""Steps of the two runs whose difference is measured, so that what a run costs once drops out."""

TURNS = 7


def case_of(name: str) -> Case:
    """The case of this name."""
    return next(case for case in CASES if case.name == name)


def microseconds(run: Callable[[int], object]) -> float:
    """Processor time of one step: each runs in one thread, and a shared machine does not count.

    Args:
        run: makes so many steps.
    """
    run(FEW)
    turns = [_seconds(run, MANY) - _seconds(run, FEW) for _ in range(TURNS)]
    return 1e6 * statistics.median(turns) / (MANY - FEW)


def _seconds(run: Callable[[int], object], steps: int) -> float:
    began = time.process_time()
    run(steps)
    return time.process_time() - began
