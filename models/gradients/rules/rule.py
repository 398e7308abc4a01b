"""What a rule is: how one operator runs in a training graph, and how a gradient goes back through it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from models.gradients.graph import Node, StepGraph

Saved = Sequence[str]
"""Tensors that `forward` made for `backward`."""

Forward = Callable[[StepGraph, Node], Saved]
Backward = Callable[[StepGraph, Node, Sequence[str], Saved], Sequence[str]]
"""(graph, node, gradient of each output, saved) to the gradient of each input; "" is none, both ways."""


def as_it_is(step: StepGraph, node: Node) -> Saved:
    """A forward that adds the node unchanged."""
    step.copy(node)
    return ()


class Rule(NamedTuple):
    """One operator.

    Attributes:
        backward: the vector-Jacobian product; is called only when the first output has a gradient. Need not
            give what `step.wants` says nobody needs.
        forward: adds the nodes that compute the node's outputs in training.
        evaluate: adds those that compute them otherwise.
    """

    backward: Backward
    forward: Forward = as_it_is
    evaluate: Forward = as_it_is
