"""Depthwise separable 1-D convolutional network for windows of sensor signals."""

import numpy as np
import onnx

from models.builder import GraphBuilder

KERNEL = (5,)
POINT = (1,)


def build(
    *,
    channels: int,
    window: int,
    classes: int,
    random: np.random.Generator,
    filters: int = 32,
    blocks: int = 3,
) -> onnx.ModelProto:
    """A convolution, separable blocks, global average, dense: (batch, channels, window) to (batch, classes).

    A block looks along time in each channel by itself, then mixes channels at each instant (Howard et al.
    2017, MobileNets, arXiv 1704.04861, section 3.1), here without a non-linearity between the two (Chollet
    2017, Xception, CVPR, section 4.7). Nothing is normalised: statistics of one device's batches would be
    another thing to average, and to protect.
    """
    graph = GraphBuilder("dscnn1d", (channels, window), random)
    value = graph.convolution("conv", graph.input, (channels, filters), KERNEL, stride=2)
    for index in range(1, blocks + 1):
        stride = 2 if index == 1 else 1
        value = graph.convolution(
            f"depth{index}", value, (filters, filters), KERNEL, stride=stride, groups=filters, relu=False
        )
        value = graph.convolution(f"point{index}", value, (filters, filters), POINT)
    value = graph.node("Flatten", graph.node("GlobalAveragePool", value))
    return graph.build(graph.dense("out", value, filters, classes, relu=False), (classes,))
