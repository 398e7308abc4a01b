"""Multinomial logistic regression."""

import numpy as np
import onnx

from models.builder import GraphBuilder


def build(*, features: int, classes: int, random: np.random.Generator) -> onnx.ModelProto:
    """One dense layer, (batch, features) to (batch, classes) logits; (features + 1) * classes parameters."""
    graph = GraphBuilder("logistic", (features,), random)
    logits = graph.dense("out", graph.input, features, classes, relu=False)
    return graph.build(logits, (classes,))
