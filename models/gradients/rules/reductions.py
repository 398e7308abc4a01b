"""Sums and means over axes."""

import math
from collections.abc import Mapping, Sequence

from models.gradients.graph import Node, StepGraph
from models.gradients.rules.rule import Rule, Saved


def _sum(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    return (_spread(step, node, upstream[0], axes_of(step, node)), "")


def _mean(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    axes, shape = axes_of(step, node), step.shape(node.inputs[0])
    sizes = [shape[axis] for axis in axes]
    if not all(isinstance(size, int) for size in sizes):
        raise node.error(
            "a mean over the batch makes examples depend on one another; average other axes only"
        )
    factor = 1 / math.prod(int(size) for size in sizes)
    return (_spread(step, node, step.scaled(upstream[0], factor), axes), "")


def axes_of(step: StepGraph, node: Node) -> list[int]:
    """The reduced axes, counted from 0.

    Raises:
        ModelError: they are computed.
    """
    rank = len(step.shape(node.inputs[0]))
    if not node.input(1):
        return [] if node.attributes.get("noop_with_empty_axes", 0) else [*range(rank)]
    axes = step.constant_of(node.input(1))
    if axes is None:
        raise node.error("its axes must be constants")
    return sorted(int(axis) % rank for axis in axes.reshape(-1)) or [*range(rank)]


def _spread(step: StepGraph, node: Node, dy: str, axes: Sequence[int]) -> str:
    """Each element of the input gets the gradient of the sum that it is in."""
    if axes and not node.attributes.get("keepdims", 1):
        dy = step.node("Unsqueeze", dy, step.integers(*axes))
    return step.node("Expand", dy, step.node("Shape", node.inputs[0]))


RULES: Mapping[str, Rule] = {"ReduceMean": Rule(_mean), "ReduceSum": Rule(_sum)}
