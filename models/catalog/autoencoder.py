"""Dense autoencoder for anomaly detection: the reconstruction error is the anomaly score."""

import numpy as np
import onnx

from models.builder import GraphBuilder


def build(*, features: int, random: np.random.Generator, hidden: int = 16, code: int = 4) -> onnx.ModelProto:
    """features, hidden, code, hidden, features; (batch, features) to the same shape. Train it with mse."""
    graph = GraphBuilder("autoencoder", (features,), random)
    value = graph.dense("encode1", graph.input, features, hidden, relu=True)
    value = graph.dense("encode2", value, hidden, code, relu=False)
    value = graph.dense("decode1", value, code, hidden, relu=True)
    return graph.build(graph.dense("decode2", value, hidden, features, relu=False), (features,))
