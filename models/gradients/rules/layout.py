"""Operators that move elements and change none; Dropout, which leaves some out."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from models.gradients.graph import Node, StepGraph
from models.gradients.rules.rule import Rule, Saved


def _same(_step: StepGraph, _node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    return upstream


def _reshaped(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    """Reshape, Flatten, Squeeze, Unsqueeze: back to the shape that was."""
    x = node.inputs[0]
    return (step.reshape(upstream[0], step.shape(x), like=x), *[""] * (len(node.inputs) - 1))


def _transpose(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    rank = len(step.shape(node.inputs[0]))
    order = node.attributes.get("perm", [*reversed(range(rank))])
    return (step.node("Transpose", upstream[0], perm=[order.index(axis) for axis in range(rank)]),)


def _expand(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    x = node.inputs[0]
    return step.sum_to(upstream[0], step.shape(node.outputs[0]), step.shape(x)), ""


def _concat(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    axis = node.attributes["axis"]
    lengths = [_length(step, node, name, axis) for name in node.inputs]
    ends = [*accumulate(lengths)]
    return [
        _cut(step, upstream[0], end - length, end, axis) if step.wants(name) else ""
        for name, length, end in zip(node.inputs, lengths, ends, strict=True)
    ]


def _split(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    parts = [
        gradient or _zeros_like(step, output) for gradient, output in zip(upstream, node.outputs, strict=True)
    ]
    return step.node("Concat", *parts, axis=node.attributes.get("axis", 0)), ""


def _slice(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    """Zeros around what was cut out, and between when it was cut with steps."""
    x = node.inputs[0]
    starts, ends, axes, strides = _cuts(step, node)
    rank = len(step.shape(x))
    gradient, pads = upstream[0], np.zeros((2, rank), dtype=np.int64)
    for start, end, axis, stride in zip(starts, ends, axes, strides, strict=True):
        if stride != 1:
            return _scattered(step, node, gradient, (start, end, axis, stride), len(axes)), *[""] * 4
        length = _length(step, node, x, axis)
        first, last, _step = slice(start, end).indices(length)
        pads[:, axis] = first, length - max(last, first)
    return step.node("Pad", gradient, step.integers(*pads.reshape(-1).tolist())), *[""] * 4


def _pad(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    """What was added is cut off again, and what was cut off had no part: padding by the opposite numbers."""
    if node.attributes.get("mode", "constant") != "constant":
        raise node.error("only the mode constant has a gradient here; use it")
    if node.input(2) and step.wants(node.input(2)):
        raise node.error("the value that it pads with cannot be trained; make it a constant")
    back = step.node("Neg", node.inputs[1])
    return step.node("Pad", upstream[0], back, "", node.input(3)), "", "", ""


def _cuts(step: StepGraph, node: Node) -> tuple[list[int], list[int], list[int], list[int]]:
    rank = len(step.shape(node.inputs[0]))
    given = [step.constant_of(name) if name else None for name in (node.input(i) for i in range(1, 5))]
    starts, ends = given[0], given[1]
    if starts is None or ends is None:
        raise node.error("its bounds must be constants")
    axes = [*range(len(starts))] if given[2] is None else [int(axis) % rank for axis in given[2]]
    strides = [1] * len(starts) if given[3] is None else [int(each) for each in given[3]]
    return [int(each) for each in starts], [int(each) for each in ends], axes, strides


def _scattered(step: StepGraph, node: Node, gradient: str, cut: tuple[int, ...], cuts: int) -> str:
    start, end, axis, stride = cut
    if cuts != 1:
        raise node.error("steps other than 1 have a gradient here only where a single axis is cut")
    x = node.inputs[0]
    rows = np.arange(_length(step, node, x, axis))[slice(start, end if abs(end) < 2**31 else None, stride)]
    return _scatter_rows(step, x, axis, step.integers(*rows.tolist()), gradient)


def _gather(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    """Rows of a table by number, an embedding above all; a row that was read twice gets both gradients."""
    table, rows = node.inputs
    axis = int(node.attributes.get("axis", 0)) % len(step.shape(table))
    if axis == 0 and len(step.shape(rows)) != 1:
        rest = step.shape(table)[1:]
        gradient = step.reshape(upstream[0], ("rows", *rest))
        return _scatter_rows(step, table, 0, step.node("Reshape", rows, step.integers(-1)), gradient), ""
    if len(step.shape(rows)) == 0:
        gradient = step.node("Unsqueeze", upstream[0], step.integers(axis))
        return _scatter_rows(step, table, axis, step.node("Reshape", rows, step.integers(1)), gradient), ""
    if len(step.shape(rows)) != 1:
        raise node.error("rows of several axes have a gradient here only along the first axis; use axis 0")
    return _scatter_rows(step, table, axis, rows, upstream[0]), ""


def _scatter_rows(step: StepGraph, like: str, axis: int, rows: str, gradient: str) -> str:
    """Zeros of this shape, plus each row of the gradient at its number (1-D) along the axis."""
    rank = len(step.shape(like))
    order = [axis, *(one for one in range(rank) if one != axis)]
    shape = step.node("Shape", like)
    if axis:
        gradient = step.node("Transpose", gradient, perm=order)
        shape = step.node("Gather", shape, step.integers(*order))
    zeros = step.node("ConstantOfShape", shape)
    index = step.node("Unsqueeze", rows, step.integers(1))
    summed = step.node("ScatterND", zeros, index, gradient, reduction="add")
    return step.node("Transpose", summed, perm=[order.index(one) for one in range(rank)]) if axis else summed


def _dropout(step: StepGraph, node: Node) -> Saved:
    """Inverted dropout; what falls follows from noise that comes from outside, so a seed repeats it."""
    rate = step.constant_of(node.input(1)) if node.input(1) else np.float32(0.5)
    if rate is None or not 0 <= float(np.reshape(rate, ())) < 1:
        raise node.error("its ratio must be a constant in [0, 1)")
    share = 1 - float(np.reshape(rate, ()))
    noise = step.noise(step.sizes(node.inputs[0]))
    kept = step.node("Cast", step.node("Less", noise, step.constant(share)), to=1)
    mask = step.scaled(kept, 1 / share)
    step.add("Mul", [node.inputs[0], mask], [node.outputs[0]])
    return (mask,)


def _dropped(step: StepGraph, _node: Node, upstream: Sequence[str], saved: Saved) -> Sequence[str]:
    return step.node("Mul", upstream[0], saved[0]), "", ""


def _length(step: StepGraph, node: Node, name: str, axis: int) -> int:
    size: Any = step.shape(name)[axis]
    if not isinstance(size, int):
        raise node.error(
            f"axis {axis} of {name!r} must have a fixed length; the batch cannot be cut or joined"
        )
    return size


def _cut(step: StepGraph, value: str, start: int, end: int, axis: int) -> str:
    return step.node("Slice", value, step.integers(start), step.integers(end), step.integers(axis))


def _zeros_like(step: StepGraph, name: str) -> str:
    return step.node("ConstantOfShape", step.node("Shape", name))


RULES: Mapping[str, Rule] = {
    "Cast": Rule(_same),
    "Concat": Rule(_concat),
    "Dropout": Rule(_dropped, _dropout),
    "Expand": Rule(_expand),
    "Flatten": Rule(_reshaped),
    "Gather": Rule(_gather),
    "Identity": Rule(_same),
    "Pad": Rule(_pad),
    "Reshape": Rule(_reshaped),
    "Slice": Rule(_slice),
    "Split": Rule(_split),
    "Squeeze": Rule(_reshaped),
    "Transpose": Rule(_transpose),
    "Unsqueeze": Rule(_reshaped),
}
