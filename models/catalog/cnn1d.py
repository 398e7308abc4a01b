"""1-D convolutional network for windows of sensor signals."""

import numpy as np
import onnx

from models.builder import GraphBuilder

KERNEL = (5,)


def build(
    *, channels: int, window: int, classes: int, random: np.random.Generator, filters: int = 16
) -> onnx.ModelProto:
    """Three convolutions, global average, dense: (batch, channels, window) to (batch, classes) logits.

    3,207 parameters for 6 channels and 7 classes, whatever the window. Strides instead of pooling: a third
    of the time per step, and an output sees 29 samples. The average over time makes the answer independent of
    where in the window a movement lies.
    """
    graph = GraphBuilder("cnn1d", (channels, window), random)
    value = graph.convolution("conv1", graph.input, (channels, filters), KERNEL, stride=2)
    value = graph.convolution("conv2", value, (filters, filters), KERNEL, stride=2)
    value = graph.convolution("conv3", value, (filters, filters), KERNEL)
    value = graph.node("Flatten", graph.node("GlobalAveragePool", value))
    return graph.build(graph.dense("out", value, filters, classes, relu=False), (classes,))
