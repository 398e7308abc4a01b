"""Convolutions over any number of axes, in groups or not.

Dumoulin and Visin 2016, A guide to convolution arithmetic (arXiv 1603.07285), sections 2 and 4: with y = C x,
C a sparse matrix of the weights, dx = C' dy, which is the transposed convolution. The gradient of the weights
is one matrix product of dy with what each window read, as in Chellapilla et al. 2006, High performance
convolutional neural networks for document processing.
"""

import math
from collections.abc import Mapping, Sequence

from models.gradients.graph import Node, StepGraph
from models.gradients.rules.rule import Rule, Saved
from models.gradients.rules.window import Window

WIDTH = 32
"""Columns from which on a matrix product of ONNX Runtime is worth its while."""


def _conv(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    (dy,), (x, w) = upstream, node.inputs[:2]
    window = Window.of(step, node, _kernel(step, w))
    dx = _input_gradient(step, node, window, dy) if step.wants(x) else ""
    dw = _weight_gradient(step, node, window, x, dy) if step.wants(w) else ""
    return dx, dw, _bias_gradient(step, node, dy)


def _conv_transpose(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    """The same with the parts of input and output exchanged."""
    if node.attributes.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        raise node.error("neither auto_pad nor output_shape has a gradient here; give pads")
    (dy,), (x, w) = upstream, node.inputs[:2]
    window = Window.of(step, node, _kernel(step, w)).exchanged()
    attributes = {name: value for name, value in node.attributes.items() if name != "output_padding"}
    dx = step.node("Conv", dy, w, **attributes) if step.wants(x) else ""
    dw = _weight_gradient(step, node, window, dy, x) if step.wants(w) else ""
    return dx, dw, _bias_gradient(step, node, dy)


def _input_gradient(step: StepGraph, node: Node, window: Window, dy: str) -> str:
    """C' dy; for channels by themselves and strides of 1 it is the convolution with the kernel turned round.

    That takes half to two thirds of the time there; elsewhere it would have to exchange the kernel's axes.
    """
    around = window.turned()
    if not _is_depthwise(step, node) or set(window.strides) != {1} or min(around) < 0:
        return _transposed_convolution(step, node, window, dy)
    ones, w = [-1] * len(window.kernel), node.inputs[1]
    axes, ends = range(2, 2 + len(ones)), [-(size + 1) for size in window.kernel]
    turned = step.node("Slice", w, *(step.integers(*each) for each in (ones, ends, axes, ones)))
    attributes = {"dilations": window.dilations, "pads": around, "group": _groups(node)}
    return step.node("Conv", dy, turned, **attributes)


def _transposed_convolution(step: StepGraph, node: Node, window: Window, dy: str) -> str:
    """C' dy. Over one axis as over two, for which alone ONNX Runtime 1.19 is fast (4 times)."""
    flat = len(window.kernel) == 1
    one, none = ([1], [0]) if flat else ([], [])
    axis, w = step.integers(2), node.inputs[1]
    if flat:
        dy, w = step.node("Unsqueeze", dy, axis), step.node("Unsqueeze", w, axis)
    dx = step.node(
        "ConvTranspose",
        dy,
        w,
        kernel_shape=[*one, *window.kernel],
        strides=[*one, *window.strides],
        dilations=[*one, *window.dilations],
        pads=[*none, *window.before, *none, *window.after],
        output_padding=[*none, *window.rest],
        group=_groups(node),
    )
    return step.node("Squeeze", dx, axis) if flat else dx


def _weight_gradient(step: StepGraph, node: Node, window: Window, x: str, dy: str) -> str:
    """dw[o, i, t] = sum over batch and windows of dy[o] x[i] at tap t."""
    w, groups = node.inputs[1], _groups(node)
    outputs, depth = int(step.shape(w)[0]), step.sizes(w)[0]
    find = _weights_of_channels if _is_depthwise(step, node) else _weights_of_groups
    parts = find(step, window, x, dy, (groups, outputs, depth))
    return step.reshape(parts[0] if len(parts) == 1 else step.node("Concat", *parts, axis=-1), step.shape(w))


def _weights_of_groups(
    step: StepGraph, window: Window, x: str, dy: str, counts: tuple[int, int, int]
) -> list[str]:
    """A product of matrices, over some taps at once if they are narrow: (outputs, depth, taps)."""
    groups, outputs, depth = counts
    wide = step.reshape(_by_channel(step, x, window), (groups, depth, 1, "batch", *window.sizes))
    taps = window.taps(step, window.padded(step, wide, 4), 4)
    rows = step.node("Reshape", _by_channel(step, dy, window), step.integers(groups, outputs // groups, -1))
    parts, some = [], math.ceil(WIDTH / depth)
    for start in range(0, len(taps), some):
        chosen = taps[start : start + some]
        read = chosen[0] if len(chosen) == 1 else step.node("Concat", *chosen, axis=2)
        read = step.reshape(read, (groups, depth * len(chosen), "all"))
        product = step.node("MatMul", rows, step.node("Transpose", read, perm=[0, 2, 1]))
        parts.append(step.reshape(product, (outputs, depth, len(chosen))))
    return parts


def _weights_of_channels(
    step: StepGraph, window: Window, x: str, dy: str, counts: tuple[int, int, int]
) -> list[str]:
    """Each channel by itself: no matrices, so channels go last, where they lie together: (channels, 1)."""
    order = [*range(2, 2 + len(window.kernel)), 0, 1]
    read = window.padded(step, step.node("Transpose", x, perm=order), 0, behind=2)
    gradient, last = step.node("Transpose", dy, perm=order), step.integers(-1)
    parts = []
    for tap in window.taps(step, read, 0):
        rows = step.reshape(step.node("Mul", tap, gradient), ("all", counts[1]))
        parts.append(step.node("Unsqueeze", step.node("ReduceSum", rows, step.integers(0), keepdims=0), last))
    return parts


def _bias_gradient(step: StepGraph, node: Node, dy: str) -> str:
    axes = [axis for axis in range(len(step.shape(node.outputs[0]))) if axis != 1]
    wanted = node.input(2) and step.wants(node.input(2))
    return step.node("ReduceSum", dy, step.integers(*axes), keepdims=0) if wanted else ""


def _by_channel(step: StepGraph, value: str, window: Window) -> str:
    """The channels in front of the batch."""
    return step.node("Transpose", value, perm=[1, 0, *range(2, 2 + len(window.kernel))])


def _kernel(step: StepGraph, w: str) -> tuple[int, ...]:
    return step.sizes(w)[1:]


def _is_depthwise(step: StepGraph, node: Node) -> bool:
    """Whether each channel is made of one of its own."""
    return step.shape(node.inputs[1])[:2] == (_groups(node), 1)


def _groups(node: Node) -> int:
    return int(node.attributes.get("group", 1))


RULES: Mapping[str, Rule] = {"Conv": Rule(_conv), "ConvTranspose": Rule(_conv_transpose)}
