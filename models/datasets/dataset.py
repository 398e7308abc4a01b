"""Examples in memory: those to train on, and those held out."""

from typing import Any, Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models.bundle import BundleManifest
from models.engines.interface import Examples, check_examples
from models.errors import DatasetError


class Bound(Struct, frozen=True):
    """How many examples of each part are used, and which.

    Attributes:
        limit: the most, >= 1.
        examples: "random" draws them anew for each seed; "newest" takes the last.
        seed: >= 0.
    """

    limit: int
    examples: Literal["random", "newest"] = "random"
    seed: int = 0


class Dataset(Struct, frozen=True):
    """Examples to train on and examples held out.

    Attributes:
        x: float32 (n, …), n >= 1.
        y: int64 or float32 (n, …).
        x_test: float32 (m, …), m >= 1.
        y_test: int64 or float32 (m, …).
    """

    x: Examples
    y: Examples
    x_test: Examples
    y_test: Examples

    def check(self, manifest: BundleManifest, where: str) -> None:
        """Refuse data that this model cannot read.

        Raises:
            DatasetError: names file, array, shape and fix.
        """
        for part, x, y in (("training", self.x, self.y), ("held-out", self.x_test, self.y_test)):
            try:
                check_examples(manifest, x, y)
            except DatasetError as error:
                raise DatasetError(f"{where} ({part} part): {error}") from error

    def bounded(self, bound: Bound) -> "Dataset":
        """At most `bound.limit` examples of each part."""
        train = _chosen(len(self.x), bound, 0)
        test = _chosen(len(self.x_test), bound, 1)
        return Dataset(self.x[train], self.y[train], self.x_test[test], self.y_test[test])


def cut(where: str, x: Examples, y: Examples, holdout: float) -> Dataset:
    """Hold out the last `holdout` part. Time series overlap, so the cut is by order, not at random.

    Raises:
        DatasetError: there is only one example.
    """
    trained = len(x) - max(1, round(holdout * len(x)))
    if trained < 1:
        raise DatasetError(f"{where}: x has shape {x.shape}; at least 2 examples are needed, 1 to hold out")
    return Dataset(x[:trained], y[:trained], x[trained:], y[trained:])


def examples_of(where: str, x: Any, y: Any, names: tuple[str, str] = ("x", "y")) -> tuple[Examples, Examples]:
    """Arrays in the types that engines take.

    Args:
        where: for messages.
        x: anything that converts to float32 (n, …), n >= 1.
        y: integer classes or float targets (n, …); None makes x its own target.
        names: of both, for messages.

    Raises:
        DatasetError: names file, array, shape and fix.
    """
    x = _inputs(where, names[0], np.asarray(x))
    if y is None:
        return x, x
    y = _labels(where, names[1], np.asarray(y))
    if len(x) != len(y):
        raise DatasetError(
            f"{where}: {names[0]} has shape {x.shape}, {names[1]} {y.shape}; the first axes must agree"
        )
    return x, y


def _inputs(where: str, name: str, array: NDArray[Any]) -> Examples:
    if array.dtype.kind not in "biuf" or array.ndim < 1 or len(array) == 0:
        raise DatasetError(
            f"{where}: {name} is {array.dtype} {array.shape}; it must be numbers (n, …), n >= 1"
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def _labels(where: str, name: str, array: NDArray[Any]) -> Examples:
    """Integers are classes, floats are targets: the array says which by its dtype."""
    if array.dtype.kind not in "biuf" or array.ndim < 1:
        raise DatasetError(f"{where}: {name} is {array.dtype} {array.shape}; it must be numbers (n, …)")
    return np.ascontiguousarray(array, dtype=np.float32 if array.dtype.kind == "f" else np.int64)


def _chosen(examples: int, bound: Bound, part: int) -> NDArray[np.int64] | slice:
    if examples <= bound.limit:
        return slice(None)
    if bound.examples == "newest":
        return slice(examples - bound.limit, None)
    random = np.random.default_rng([bound.seed, part])
    return np.sort(random.choice(examples, bound.limit, replace=False))
