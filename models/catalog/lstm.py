"""LSTM for windows of sensor signals."""

import numpy as np
import onnx

from models.builder import GraphBuilder

BIASES = (0.0, 0.0, 1.0, 0.0)
"""Of the gates i, o, f, g, at first: 1 for f, so that it remembers (Jozefowicz et al. 2015, ICML)."""


def build(
    *, channels: int, window: int, classes: int, random: np.random.Generator, hidden: int = 32
) -> onnx.ModelProto:
    """One layer, the last state, dense: (batch, channels, window) to (batch, classes) logits."""
    graph = GraphBuilder("lstm", (channels, window), random)
    value = graph.recurrent("lstm", "LSTM", graph.input, channels, hidden, biases=BIASES)
    return graph.build(graph.dense("out", value, hidden, classes, relu=False), (classes,))
