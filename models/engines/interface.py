"""What a training engine is, and what all engines share.

Engines speak flat float32 vectors of one layout, so a cohort may mix them. They differ in the files of the
bundle that they read, never in the meaning of a step.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models.bundle import BundleManifest, Step
from models.errors import DIVERGED, BundleError, DatasetError, TrainingFailedError
from models.layout import ParameterTable, Vector
from protocol.plan import Training

Examples = NDArray[Any]
"""Inputs (float32) or labels (int64 or float32); the first axis is the example."""


EVALUATION_BATCH = 256
"""Examples evaluated at once; bounds the memory of activations."""

QUIET = 3
"""ONNX Runtime's severity "error"."""


class FitResult(Struct, frozen=True):
    """Local training, done.

    Attributes:
        weights: the new local model, float32 (d,), finite.
        examples: how many distinct examples were used.
        steps: optimizer steps taken.
        loss: mean training loss over all steps, each weighted by its batch.
        private: the new private parameters, float32 (p,); empty when the model has none.
    """

    weights: Vector
    examples: int
    steps: int
    loss: float
    private: Vector


class Evaluation(Struct, frozen=True):
    """Sums over examples, so that evaluations of several devices add.

    Attributes:
        examples: how many.
        loss_sum: sum of each example's loss.
        correct: examples predicted right; 0 for a loss without classes (mse).
    """

    examples: int
    loss_sum: float
    correct: int


class TrainingEngine(Protocol):
    """Trains and evaluates one bundle's model. Not for use by two threads at once."""

    name: str

    def fit(
        self,
        weights: Vector,
        x: Examples,
        y: Examples,
        settings: Training,
        *,
        seed: int,
        private: Vector | None = None,
    ) -> FitResult:
        """Train from `weights` on the device's examples.

        Args:
            weights: float32 (d,), finite.
            x: float32 (n, *input shape), n >= 1.
            y: labels (n, *label shape) in the manifest's dtype.
            settings: epochs, batch size, learning rate, proximal term; at most `max_examples` are used.
            seed: of sampling, shuffling and dropout; the same seed repeats the training exactly on this
                machine.
            private: the device's own parameters, float32 (p,), finite; None begins with the bundle's.

        Raises:
            TrainingFailedError: settings that the bundle was not built for; weights that are not of this
                model, or that are or became non-finite.
            DatasetError: arrays that do not fit the model.
        """
        ...

    def evaluate(
        self, weights: Vector, x: Examples, y: Examples, *, private: Vector | None = None
    ) -> Evaluation:
        """Loss and accuracy of `weights` on the examples; arguments and errors as for `fit`."""
        ...


def check_weights(table: ParameterTable, weights: Vector) -> None:
    """Refuse a vector that is not of this model or not finite (engines themselves accept NaN)."""
    if weights.shape != (table.size,) or weights.dtype != np.float32:
        raise TrainingFailedError(
            "weights", f"got {weights.dtype} {weights.shape}, the model has float32 ({table.size},)"
        )
    if not np.isfinite(weights).all():
        raise TrainingFailedError("weights", "the weights hold NaN or infinity")


def check_settings(manifest: BundleManifest, settings: Training) -> None:
    """Refuse settings that the bundle was not built for: its step would do something else.

    Raises:
        TrainingFailedError: they differ.
    """
    built, wanted = (manifest.loss, manifest.step), (settings.loss, Step.of(settings))
    if built != wanted:
        raise TrainingFailedError("bundle", f"it was built for {built}, the round asks for {wanted}")


def check_examples(manifest: BundleManifest, x: Examples, y: Examples) -> None:
    """Refuse arrays that the graph would misread; out-of-range labels would read foreign memory.

    Raises:
        DatasetError: names array, shape and fix.
    """
    for name, array, tensor in (("x", x, manifest.input), ("y", y, manifest.label)):
        if array.shape[1:] != tensor.shape or array.dtype != tensor.dtype:
            wanted = ("n", *tensor.shape)
            raise DatasetError(
                f"{name} is {array.dtype} {array.shape}; the model {manifest.model!r} with loss"
                f" {manifest.loss} takes {tensor.dtype} {wanted}"
            )
    if len(x) != len(y) or len(x) == 0:
        raise DatasetError(f"x has {len(x)} examples and y {len(y)}; both need the same number, at least one")
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise DatasetError("x or y holds NaN or infinity; clean the data first")
    classes = manifest.output.shape[-1] if manifest.output.shape else 1
    if manifest.loss == "cross_entropy" and not (y.min() >= 0 and y.max() < classes):
        raise DatasetError(
            f"labels run from {y.min()} to {y.max()}; the model has {classes} classes, 0 to {classes - 1}"
        )


def sample(examples: int, settings: Training, random: np.random.Generator) -> NDArray[np.int64]:
    """Which examples a device uses: all, or `max_examples` of them without replacement, in file order."""
    if examples <= settings.max_examples:
        return np.arange(examples)
    return np.sort(random.choice(examples, settings.max_examples, replace=False))


def batches(
    chosen: NDArray[np.int64], settings: Training, random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Indices of each step's batch: shuffled anew each epoch; the last, partial batch counts too."""
    for _ in range(settings.local_epochs):
        shuffled = random.permutation(chosen)
        for start in range(0, len(shuffled), settings.batch_size):
            yield shuffled[start : start + settings.batch_size]


def check_output(manifest: BundleManifest, output: NDArray[np.float32], examples: int) -> None:
    """Refuse an output of another shape than declared: declarations bind nobody.

    Raises:
        BundleError: a loss over fewer classes has read memory that is not its own; more would count twice.
    """
    if output.shape != (examples, *manifest.output.shape):
        raise BundleError(
            f"the output has the shape {output.shape}, declared is (batch, *{manifest.output.shape})"
        )


def train_in_batches(
    step: Callable[[Examples, Examples], float],
    x: Examples,
    y: Examples,
    rows: Iterable[NDArray[np.int64]],
) -> tuple[float, int]:
    """Take a step for each batch.

    Args:
        step: takes one; returns the batch's mean loss before it.
        x: float32 (n, *input shape).
        y: labels of these examples.
        rows: which of them make each batch; see `batches`.

    Returns:
        The mean loss over all steps, each weighted by its batch; and how many steps.
    """
    loss_sum, seen, steps = 0.0, 0, 0
    for batch in rows:
        loss_sum += step(x[batch], y[batch]) * len(batch)
        seen, steps = seen + len(batch), steps + 1
    return loss_sum / seen, steps


def count_correct(manifest: BundleManifest, output: NDArray[np.float32], y: Examples) -> int:
    """Examples predicted right.

    Args:
        manifest: says what "right" is: arg max for cross-entropy, every logit on its side of 0 for bce.
        output: logits, float32 (n, *output shape).
        y: labels of these examples.
    """
    if manifest.loss == "cross_entropy":
        return int(np.count_nonzero(output.argmax(axis=-1) == y))
    if manifest.loss == "bce":
        right = (output > 0) == (y > 0.5)  # noqa: PLR2004 - halfway between the two classes
        return int(np.count_nonzero(right.reshape(len(y), -1).all(axis=1)))
    return 0


def check_trained(weights: Vector, loss: float) -> None:
    """Refuse the result of a training that ran away."""
    if not (math.isfinite(loss) and np.isfinite(weights).all()):
        raise TrainingFailedError(DIVERGED, "NaN or infinity after training; lower training.learning_rate")


@contextmanager
def native(what: str) -> Iterator[None]:
    """Errors of the library as ours; it raises RuntimeError and several classes of its own.

    Raises:
        BundleError: the graph is at fault.
        MemoryError: an allocation failed.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, BundleError):
            raise
        if isinstance(error, MemoryError) or "alloc" in str(error):
            raise MemoryError(f"{what}: {error}") from error
        raise BundleError(f"{what}: {error}") from error
