"""The loss of each example, and its gradient by the model's output.

Each example has a weight; in a batch of n they are 1/n, and 0 for one that only fills the batch up. The loss
is the weighted sum of the examples' losses, and so is its gradient.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from models.gradients.graph import StepGraph
from protocol.plan import Loss

HUBER_DELTA = 1.0
"""Where Huber's loss changes from quadratic to linear, in units of the target."""


class Judged(NamedTuple):
    """A loss in a graph.

    Attributes:
        losses: of each example, float32 (batch, 1 …), of the output's rank.
        slope: d losses / d output, float32 (batch, *output).
    """

    losses: str
    slope: str


def add_loss(step: StepGraph, loss: Loss, output: str, label: str) -> Judged:
    """Add what judges the output.

    Args:
        step: the graph.
        loss: which.
        output: float32 (batch, *sizes); logits for cross_entropy and bce.
        label: int64 (batch,) for cross_entropy, else float32 like the output.
    """
    if loss == "cross_entropy":
        return _cross_entropy(step, output, label)
    elements, slope = _ELEMENTWISE[loss](step, output, label)
    count = math.prod(step.sizes(output))
    if rank := len(step.sizes(output)):
        elements = step.node("ReduceMean", elements, step.integers(*range(1, rank + 1)), keepdims=1)
    return Judged(elements, step.scaled(slope, 1 / count))


def _cross_entropy(step: StepGraph, logits: str, label: str) -> Judged:
    classes = step.sizes(logits)[-1]
    chance = step.node("LogSoftmax", logits, axis=-1)
    picked = step.node("OneHot", label, step.constant(classes, np.int64), step.constant([0.0, 1.0]))
    losses = step.node(
        "Neg", step.node("ReduceSum", step.node("Mul", chance, picked), step.integers(1), keepdims=1)
    )
    return Judged(losses, step.node("Sub", step.node("Exp", chance), picked))


def _mse(step: StepGraph, output: str, target: str) -> tuple[str, str]:
    error = step.node("Sub", output, target)
    return step.node("Mul", error, error), step.scaled(error, 2.0)


def _l1(step: StepGraph, output: str, target: str) -> tuple[str, str]:
    error = step.node("Sub", output, target)
    return step.node("Abs", error), step.node("Sign", error)


def _huber(step: StepGraph, output: str, target: str) -> tuple[str, str]:
    """Huber 1964: with c the error cut to [-delta, delta], c (e - c / 2), whose slope is c."""
    error = step.node("Sub", output, target)
    cut = step.node("Clip", error, step.constant(-HUBER_DELTA), step.constant(HUBER_DELTA))
    return step.node("Mul", cut, step.node("Sub", error, step.scaled(cut, 0.5))), cut


def _bce(step: StepGraph, logits: str, target: str) -> tuple[str, str]:
    """On logits z: max(z, 0) - z t + log(1 + exp(-|z|)), which no z overflows."""
    tail = step.node("Softplus", step.node("Neg", step.node("Abs", logits)))
    body = step.node("Sub", step.node("Relu", logits), step.node("Mul", logits, target))
    return step.node("Add", body, tail), step.node("Sub", step.node("Sigmoid", logits), target)


_ELEMENTWISE: Mapping[Loss, Callable[[StepGraph, str, str], tuple[str, str]]] = {
    "mse": _mse,
    "l1": _l1,
    "huber": _huber,
    "bce": _bce,
}
