"""The 2NN of McMahan et al. 2017 (AISTATS), 784-200-200-10 with ReLU, trained on many devices at once.

Written in numpy because a thousand devices, each with weights of its own, are then a few products of stacked
matrices. A device's weights are one flat row: for each layer its matrix (inputs, outputs), then its biases.

The first matrix, which is most of the weights, is never changed in place. Its gradient is X' E, with X the
images and E the errors behind it, so after some steps it is W + X' A, where A collects the errors; and what
an image x gives is x W + (x X') A. With 60 images a step costs less than half of what it would otherwise.
"""

from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.examples import Examples

Vectors: TypeAlias = NDArray[np.float32]

WIDTHS = (784, 200, 200, 10)
SIZE = sum((inputs + 1) * outputs for inputs, outputs in pairwise(WIDTHS))
"""199,210 parameters."""

BATCH = 60
"""Examples of a step: all that each of a thousand devices has."""

_FIRST = WIDTHS[0] * WIDTHS[1]
_TOGETHER = 25
"""Devices trained at once: about as much as the caches hold, and few calls."""

_Layer: TypeAlias = tuple[Vectors, Vectors]


def initial_weights(seed: int) -> Vectors:
    """He et al. 2015 (arXiv 1502.01852), equation 10: normal with variance 2 / inputs; biases 0."""
    random = np.random.default_rng(seed)
    parts = []
    for inputs, outputs in pairwise(WIDTHS):
        parts += [random.normal(0, np.sqrt(2 / inputs), inputs * outputs), np.zeros(outputs)]
    return np.concatenate(parts).astype(np.float32)


def local_updates(weights: Vectors, devices: Examples, steps: int, learning_rate: float) -> Vectors:
    """Train every device from the same weights on its own examples: `BATCH` of them a step, in turn.

    Args:
        weights: float32 (d,).
        devices: (devices, n, ...).
        steps: of gradient descent, >= 1.
        learning_rate: > 0.

    Returns:
        Local minus received weights, float32 (devices, d).
    """
    deltas = np.empty((len(devices), weights.size), np.float32)
    for start in range(0, len(devices), _TOGETHER):
        some = devices.part(start, start + _TOGETHER)
        _train(weights, some, steps, learning_rate, deltas[start : start + _TOGETHER])
    return deltas


def accuracy(weights: Vectors, examples: Examples) -> float:
    """Part of the examples, (n, ...), that the model predicts right."""
    bias, layers = _layers(weights[None, _FIRST:])
    logits = _forward(examples.x @ _first_matrix(weights) + bias, layers)[-1][0]
    return float(np.mean(logits.argmax(axis=1) == examples.y))


def _train(weights: Vectors, devices: Examples, steps: int, learning_rate: float, deltas: Vectors) -> None:
    """Train some devices; write what changed."""
    count, each = devices.y.shape
    given = devices.x @ _first_matrix(weights)
    alike = devices.x @ devices.x.swapaxes(1, 2)
    collected = np.zeros_like(given)
    rest = np.tile(weights[_FIRST:], (count, 1))
    bias, layers = _layers(rest)
    for step in range(steps):
        batch = slice(start := step * BATCH % each, start + BATCH)
        first = given[:, batch] + alike[:, batch] @ collected + bias
        errors = _descend(first, layers, devices.y[:, batch], learning_rate)
        collected[:, batch] -= errors
        bias -= errors.sum(axis=1, keepdims=True)
    deltas[:, :_FIRST] = (devices.x.swapaxes(1, 2) @ collected).reshape(count, _FIRST)
    np.subtract(rest, weights[_FIRST:], out=deltas[:, _FIRST:])


def _first_matrix(weights: Vectors) -> Vectors:
    return weights[:_FIRST].reshape(WIDTHS[:2])


def _layers(rows: Vectors) -> tuple[Vectors, list[_Layer]]:
    """Views into rows of weights behind the first matrix.

    Returns:
        The first biases (devices, 1, 200); of the other layers the matrix (devices, inputs, outputs) and the
        biases (devices, 1, outputs).
    """
    layers, start = [], WIDTHS[1]
    for inputs, outputs in pairwise(WIDTHS[1:]):
        middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
        layers.append((rows[:, start:middle].reshape(-1, inputs, outputs), rows[:, None, middle:end]))
        start = end
    return rows[:, None, : WIDTHS[1]], layers


def _forward(first: Vectors, layers: list[_Layer]) -> list[Vectors]:
    """What each hidden layer gives, and the logits, from what stands before the first ReLU."""
    values = [first]
    for matrix, bias in layers:
        values[-1] = np.maximum(values[-1], 0)
        values.append(values[-1] @ matrix + bias)
    return values


def _descend(
    first: Vectors, layers: list[_Layer], labels: NDArray[np.int64], learning_rate: float
) -> Vectors:
    """One step of gradient descent on the mean cross-entropy: change the layers.

    Returns:
        The errors at `first`, multiplied by the learning rate as all errors here.
    """
    values = _forward(first, layers)
    errors = values.pop()
    errors -= errors.max(axis=-1, keepdims=True)
    np.exp(errors, out=errors)
    errors /= errors.sum(axis=-1, keepdims=True)
    errors -= np.eye(WIDTHS[-1], dtype=np.float32)[labels]
    errors *= learning_rate / labels.shape[-1]
    for layer in reversed(layers):
        errors = _step_back(layer, values.pop(), errors)
    return errors


def _step_back(layer: _Layer, inputs: Vectors, errors: Vectors) -> Vectors:
    """Change one layer; return the errors of its inputs, through the weights as they were before."""
    matrix, bias = layer
    back = errors @ matrix.swapaxes(1, 2) * (inputs > 0)
    matrix -= inputs.swapaxes(1, 2) @ errors
    bias -= errors.sum(axis=1, keepdims=True)
    return back
