"""GRU for windows of sensor signals."""

import numpy as np
import onnx

from models.builder import GraphBuilder

BIASES = (0.0, 0.0, 0.0)
"""Of the gates z, r, n, at first."""


def build(
    *, channels: int, window: int, classes: int, random: np.random.Generator, hidden: int = 32
) -> onnx.ModelProto:
    """One layer, the last state, dense: (batch, channels, window) to (batch, classes) logits."""
    graph = GraphBuilder("gru", (channels, window), random)
    value = graph.recurrent("gru", "GRU", graph.input, channels, hidden, biases=BIASES, linear_before_reset=1)
    return graph.build(graph.dense("out", value, hidden, classes, relu=False), (classes,))
