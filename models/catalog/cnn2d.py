"""Small 2-D convolutional network for images."""

import numpy as np
import onnx

from models.builder import GraphBuilder


def build(
    *,
    channels: int,
    height: int,
    width: int,
    classes: int,
    random: np.random.Generator,
    filters1: int = 8,
    filters2: int = 16,
) -> onnx.ModelProto:
    """Two 3 x 3 convolutions with 2 x 2 max-pooling, dense: (batch, channels, height, width) to logits."""
    graph = GraphBuilder("cnn2d", (channels, height, width), random)
    value = graph.convolution("conv1", graph.input, (channels, filters1), (3, 3))
    value = graph.node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    value = graph.convolution("conv2", value, (filters1, filters2), (3, 3))
    value = graph.node("Flatten", graph.node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2]))
    flat = filters2 * (height // 4) * (width // 4)
    return graph.build(graph.dense("out", value, flat, classes, relu=False), (classes,))
