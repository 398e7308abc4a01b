"""The 2NN of McMahan et al. 2017 (AISTATS), 784-200-200-10 with ReLU, trained on many devices at once.

Written in numpy because a thousand devices, each with weights of its own, are then a few products of stacked
matrices. A device's weights are one flat row: for each layer its matrix (inputs, outputs), then its biases.
"""

from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.private_learning.mnist import Examples

Vectors: TypeAlias = NDArray[np.float32]

WIDTHS = (784, 200, 200, 10)
SIZE = sum((inputs + 1) * outputs for inputs, outputs in pairwise(WIDTHS))
"""199,210 parameters."""

BATCH = 60
"""Examples of a step: all that each of a thousand devices has."""

_TOGETHER = 25
"""Devices trained at once: 20 MB of weights, and as much of gradients."""

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
        local = np.tile(weights, (len(some), 1))
        for step in range(steps):
            _descend(_layers(local), _batch(some, step), learning_rate)
        np.subtract(local, weights, out=deltas[start : start + _TOGETHER])
    return deltas


def accuracy(weights: Vectors, examples: Examples) -> float:
    """Part of the examples, (n, ...), that the model predicts right."""
    outputs = _forward(_layers(weights[None]), examples.x[None])[-1][0]
    return float(np.mean(outputs.argmax(axis=1) == examples.y))


def _batch(devices: Examples, step: int) -> Examples:
    start = step * BATCH % devices.y.shape[1]
    return Examples(devices.x[:, start : start + BATCH], devices.y[:, start : start + BATCH])


def _layers(rows: Vectors) -> list[_Layer]:
    """Views into flat rows: matrices (devices, inputs, outputs) and biases (devices, 1, outputs)."""
    layers, start = [], 0
    for inputs, outputs in pairwise(WIDTHS):
        middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
        layers.append((rows[:, start:middle].reshape(-1, inputs, outputs), rows[:, None, middle:end]))
        start = end
    return layers


def _forward(layers: list[_Layer], x: Vectors) -> list[Vectors]:
    """The input, what each hidden layer gives, and the logits."""
    values = [x]
    for matrix, bias in layers:
        values.append(values[-1] @ matrix + bias)
        if len(values) <= len(layers):
            np.maximum(values[-1], 0, out=values[-1])
    return values


def _descend(layers: list[_Layer], examples: Examples, learning_rate: float) -> None:
    """One step of gradient descent on the mean cross-entropy, in place."""
    values = _forward(layers, examples.x)
    errors = values.pop()
    errors -= errors.max(axis=-1, keepdims=True)
    np.exp(errors, out=errors)
    errors /= errors.sum(axis=-1, keepdims=True)
    errors -= np.eye(WIDTHS[-1], dtype=np.float32)[examples.y]
    errors *= learning_rate / examples.y.shape[-1]
    for layer in reversed(layers):
        inputs = values.pop()
        # The errors go back through the weights as they were before this step; the image needs none.
        back = errors @ layer[0].swapaxes(1, 2) * (inputs > 0) if values else errors
        _adjust(layer, inputs, errors)
        errors = back


def _adjust(layer: _Layer, inputs: Vectors, errors: Vectors) -> None:
    matrix, bias = layer
    matrix -= inputs.swapaxes(1, 2) @ errors
    bias -= errors.sum(axis=1, keepdims=True)
