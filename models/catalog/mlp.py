"""Multilayer perceptron."""

import numpy as np
import onnx

from models.builder import GraphBuilder


def build(
    *, features: int, classes: int, random: np.random.Generator, hidden: int = 200, layers: int = 2
) -> onnx.ModelProto:
    """ReLU layers of equal width; the defaults are the 2NN of McMahan et al. 2017 (AISTATS), section 3."""
    graph = GraphBuilder("mlp", (features,), random)
    value, width = graph.input, features
    for layer in range(1, layers + 1):
        value, width = graph.dense(f"hidden{layer}", value, width, hidden, relu=True), hidden
    return graph.build(graph.dense("out", value, width, classes, relu=False), (classes,))
