"""Pooling: the largest or the mean of each window, or of all."""

import math
from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from models.gradients.graph import Node, StepGraph
from models.gradients.rules.rule import Rule, Saved, as_it_is
from models.gradients.rules.window import Window


def _max_pool(step: StepGraph, node: Node) -> Saved:
    """Where windows overlap, an element may win several: then it must be known which element won which."""
    if len(node.outputs) > 1:
        raise node.error("its second output cannot be used in training; export it with one")
    if not step.wants(node.inputs[0]) or _tiles(_window(step, node)):
        return as_it_is(step, node)
    winners = step.fresh("winners")
    attributes = {name: value for name, value in node.attributes.items() if name != "storage_order"}
    step.add("MaxPool", node.inputs, [node.outputs[0], winners], **attributes)
    return (winners,)


def _max_pool_back(step: StepGraph, node: Node, upstream: Sequence[str], saved: Saved) -> Sequence[str]:
    (dy,), x = upstream, node.inputs[0]
    if not saved:
        return (_winners_of_tiles(step, node, dy),)
    zeros = step.node("ConstantOfShape", step.node("Reshape", step.node("Size", x), step.integers(1)))
    winners, gradients = (step.node("Reshape", each, step.integers(-1)) for each in (saved[0], dy))
    summed = step.node("ScatterElements", zeros, winners, gradients, axis=0, reduction="add")
    return (step.reshape(summed, step.shape(x), like=x),)


def _winners_of_tiles(step: StepGraph, node: Node, dy: str) -> str:
    """To the element that equals its window's largest; equal ones share.

    Three times as fast as asking MaxPool for the winners' positions and scattering.
    """
    window, x, y = _window(step, node), node.inputs[0], node.outputs[0]
    read = _with_ends(step, x, [-size for size in window.rest])
    won = step.node("Cast", step.node("Equal", read, _repeated(step, window, y)), to=1)
    mean = step.node("AveragePool", won, kernel_shape=window.kernel, strides=window.strides)
    share = step.scaled(step.node("Div", dy, mean), 1 / math.prod(window.kernel))
    return _with_ends(step, step.node("Mul", won, _repeated(step, window, share)), window.rest)


def _average_pool(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    """Each window hands its gradient to what it read, in equal parts."""
    window, (dy,) = _window(step, node), upstream
    if min(window.rest) < 0:
        raise node.error("ceil_mode 1 has no gradient here; pad the input, or use 0")
    if any(window.pads) and not node.attributes.get("count_include_pad", 0):
        part = step.node("Div", dy, step.constant(_counts(window)))
    else:
        part = step.scaled(dy, 1 / math.prod(window.kernel))
    if _tiles(window):
        return (_with_ends(step, _repeated(step, window, part), window.rest),)
    return (_summed(step, window, part, step.sizes(node.inputs[0])),)


def _summed(step: StepGraph, window: Window, part: str, sizes: tuple[int, ...]) -> str:
    """The transposed convolution with ones, each channel by itself; one axis as two, which is faster."""
    flat = [1] * (2 - len(window.kernel))
    none = [0] * len(flat)
    dx = step.node(
        "ConvTranspose",
        step.reshape(part, ("batch", 1, *flat, *window.counts)),
        step.constant(np.ones((1, 1, *flat, *window.kernel))),
        strides=[*flat, *window.strides],
        dilations=[*flat, *window.dilations],
        pads=[*none, *window.before, *none, *window.after],
        output_padding=[*none, *window.rest],
    )
    return step.reshape(dx, ("batch", *sizes))


def _counts(window: Window) -> NDArray[np.float32]:
    """Elements that each window reads without the padding, (1, 1, *counts)."""
    rows = [
        np.array(
            [
                sum(0 <= index * stride + tap * far - before < size for tap in range(kernel))
                for index in range(count)
            ],
            dtype=np.float32,
        )
        for kernel, stride, far, before, _, size, count in zip(*window, strict=True)
    ]
    return reduce(np.multiply.outer, rows)[np.newaxis, np.newaxis]


def _global_average(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    x = node.inputs[0]
    part = step.scaled(upstream[0], 1 / math.prod(step.sizes(x)[1:]))
    return (step.node("Expand", part, step.integers(1, 1, *step.sizes(x)[1:])),)


def _global_max(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    """Equal ones share."""
    (x,), (y,), (dy,) = node.inputs, node.outputs, upstream
    won = step.node("Cast", step.node("Equal", x, y), to=1)
    count = step.node("ReduceSum", won, step.integers(*range(2, len(step.shape(x)))))
    return (step.node("Mul", won, step.node("Div", dy, count)),)


def _window(step: StepGraph, node: Node) -> Window:
    return Window.of(step, node, node.attributes["kernel_shape"])


def _tiles(window: Window) -> bool:
    """Whether each element is read at most once, and none of the padding."""
    return (
        window.kernel == window.strides
        and not any(window.pads)
        and set(window.dilations) == {1}
        and min(window.rest) >= 0
    )


def _repeated(step: StepGraph, window: Window, value: str) -> str:
    """Each element over its whole tile."""
    scales = step.constant([1, 1, *window.kernel])
    attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return step.node("Resize", value, "", scales, mode="nearest", **attributes)


def _with_ends(step: StepGraph, value: str, ends: Sequence[int]) -> str:
    """As many zeros more at the end of each axis, or elements less."""
    if not any(ends):
        return value
    return step.node("Pad", value, step.integers(*[0] * (4 + len(ends)), *ends))


RULES: Mapping[str, Rule] = {
    "AveragePool": Rule(_average_pool),
    "GlobalAveragePool": Rule(_global_average),
    "GlobalMaxPool": Rule(_global_max),
    "MaxPool": Rule(_max_pool_back, _max_pool),
}
