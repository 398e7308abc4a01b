"""What GRU, LSTM and RNN have in common: one direction of a layer as matrices, and its weights' gradients.

The fused operator runs forward. Since it gives every state, the gates of all times follow at once, in large
products; what a time step multiplies its gradient with is computed for all times, too. Only the gradient of
the state itself goes back step by step, in a few small nodes each (Werbos 1990, Backpropagation through time:
what it does and how to do it, Proceedings of the IEEE 78).

A matrix here has a row for each time and example, times outermost: (steps * batch, columns).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.gradients.graph import Node, Shape, StepGraph
from models.gradients.rules.rule import Rule, Saved

MAX_STEP_NODES = 5_000
"""Nodes that one layer may take for its steps of time: half of what a device accepts as a graph."""

X, W, R, B, LENGTHS, INITIAL_H, INITIAL_C, PEEPHOLES = range(8)
"""Inputs of the operators, in their order."""


class Run(NamedTuple):
    """One direction of a layer, with n = steps * batch rows.

    Attributes:
        backwards: the times in the order in which the gradient meets them, the last of this direction first.
        hidden: size of a state.
        x: inputs, (n, inputs).
        y: states after each time, (n, hidden).
        before: states before each time, (n, hidden).
        w: (gates * hidden, inputs).
        r: (gates * hidden, hidden).
        bias_w: (1, gates * hidden), or "".
        bias_r: the same.
        initial_c: (1, batch, hidden), or "".
        slopes: for each time, the gradient of its state from outside, (batch, hidden); or "".
        slope_c: of the last cell state, (batch, hidden), or "".
        wants_initial: whether the initial states want a gradient, h and c.
    """

    backwards: range
    hidden: int
    x: str
    y: str
    before: str
    w: str
    r: str
    bias_w: str
    bias_r: str
    initial_c: str
    slopes: Sequence[str]
    slope_c: str
    wants_initial: tuple[bool, bool]

    @property
    def steps(self) -> int:
        """How many times there are."""
        return len(self.backwards)

    def back(self, step: StepGraph, gates: str, weights: str, time: int | None = None) -> str:
        """The gradient of a state: what its gates of the next time give, and what comes from outside.

        Args:
            step: the graph.
            gates: gradients at the time after, (batch, columns); "" at the last time.
            weights: (columns, hidden).
            time: of the state; None for the initial one.
        """
        outside = "" if time is None else self.slopes[time]
        return step.node("Gemm", gates, weights, outside) if gates else outside


class Product(NamedTuple):
    """Gates that come of `operand @ weights'`: their gradient gives that of these rows of the weights.

    Attributes:
        gates: gradient before the activation, (n, some gates * hidden).
        operand: (n, columns).
    """

    gates: str
    operand: str


class Slopes(NamedTuple):
    """What a cell's way back gives.

    Attributes:
        of_w: products with x that fill the rows of w, in order.
        of_r: products that fill the rows of r.
        initial_h: gradient, (batch, hidden).
        initial_c: likewise; "" where there is no such state.
    """

    of_w: Sequence[Product]
    of_r: Sequence[Product]
    initial_h: str
    initial_c: str = ""


Cell = Callable[[StepGraph, Node, Run], Slopes]


def recurrent(cell: Cell, activations: Sequence[str], nodes_per_step: Callable[[Node], int]) -> Rule:
    """The rule of an operator.

    Args:
        cell: its way back through one direction.
        activations: what it has when it says nothing.
        nodes_per_step: how many nodes the cell adds for a time.
    """

    def forward(step: StepGraph, node: Node) -> Saved:
        _check(step, node, activations, nodes_per_step(node))
        outputs = node.outputs if node.outputs[0] else (step.fresh("states"), *node.outputs[1:])
        step.copy(node._replace(outputs=outputs))
        return (outputs[0],)

    def backward(step: StepGraph, node: Node, upstream: Sequence[str], saved: Saved) -> Sequence[str]:
        runs = _runs(step, node, upstream, saved[0])
        slopes = [cell(step, node, run) for run in runs]
        gradients = [""] * len(node.inputs)
        of_each: Mapping[int, Callable[[Slopes], str]] = {
            W: lambda each: _weights(step, each.of_w),
            R: lambda each: _weights(step, each.of_r),
            B: lambda each: _bias(step, each),
            INITIAL_H: lambda each: step.node("Unsqueeze", each.initial_h, step.integers(0)),
            INITIAL_C: lambda each: step.node("Unsqueeze", each.initial_c, step.integers(0)),
        }
        for index, gradient in of_each.items():
            if step.wants(node.input(index)):
                gradients[index] = _stacked(step, [gradient(each) for each in slopes])
        if step.wants(node.inputs[X]):
            gradients[X] = _inputs(step, node, runs, slopes)
        return gradients

    return Rule(backward, forward)


def _check(step: StepGraph, node: Node, activations: Sequence[str], nodes: int) -> None:
    """Refuse what has no gradient here.

    Raises:
        ModelError: names cause and fix.
    """
    given, directions = node.attributes, _directions(node)
    if [*given.get("activations", activations)] != [*activations] * (
        len(given.get("activations", activations)) // len(activations)
    ):
        raise node.error(f"only its default activations {', '.join(activations)} have a gradient here")
    for name, default in (("clip", None), ("input_forget", 0), ("layout", 0)):
        if given.get(name, default) != default:
            raise node.error(f"the attribute {name} has no gradient here; export without it")
    for index, name in ((LENGTHS, "sequence_lens"), (PEEPHOLES, "P (peepholes)")):
        if node.input(index):
            raise node.error(f"its input {name} has no gradient here; export without it")
    steps = step.shape(node.inputs[X])[0]
    if not isinstance(steps, int):
        raise node.error("its first axis, time, must have a fixed length; export with a dynamic batch only")
    if steps > (most := MAX_STEP_NODES // (nodes * directions)):
        raise node.error(
            f"it runs over {steps} time steps, at most {most} can be trained: take shorter windows, or put a"
            " convolution or pooling with a stride before it"
        )


def _directions(node: Node) -> int:
    return 2 if node.attributes.get("direction", "forward") == "bidirectional" else 1


# From tensors to matrices.


def _runs(step: StepGraph, node: Node, upstream: Sequence[str], states: str) -> list[Run]:
    """Cut everything into directions."""
    count = _directions(node)
    steps, _, inputs = step.shape(node.inputs[X])
    rows, hidden = step.shape(node.inputs[R])[1:]
    backward = node.attributes.get("direction", "forward") == "reverse"

    def cut(value: str, axis: int, shape: Shape) -> list[str]:
        parts = pieces(step, value, count, axis)
        return [step.reshape(part, shape) if part else "" for part in parts]

    x = step.reshape(node.inputs[X], ("rows", inputs))
    weights = zip(
        cut(node.inputs[W], 0, (rows, inputs)),
        cut(node.inputs[R], 0, (rows, hidden)),
        cut(node.input(B), 0, (2, rows)),
        strict=True,
    )
    y = cut(states, 1, (steps, "batch", hidden))
    initial_h = pieces(step, node.input(INITIAL_H), count, 0)
    initial_c = pieces(step, node.input(INITIAL_C), count, 0)
    of_y, of_h, of_c = (*upstream, "", "")[:3]
    slopes = zip(
        cut(of_y, 1, ("rows", hidden)),
        cut(of_h, 0, ("batch", hidden)),
        cut(of_c, 0, ("batch", hidden)),
        strict=True,
    )
    runs = []
    for index, ((w, r, bias), (slope_y, slope_h, slope_c)) in enumerate(zip(weights, slopes, strict=True)):
        order = range(int(steps)) if backward or index else range(int(steps) - 1, -1, -1)
        flat = step.reshape(y[index], ("rows", hidden))
        bias_w, bias_r = pieces(step, bias, 2, 0)
        runs.append(
            Run(
                order,
                int(hidden),
                x,
                flat,
                earlier(step, y[index], initial_h[index], order, int(hidden)),
                w,
                r,
                bias_w,
                bias_r,
                initial_c[index],
                _slopes(step, order, slope_y, slope_h),
                slope_c,
                (step.wants(node.input(INITIAL_H)), step.wants(node.input(INITIAL_C))),
            )
        )
    return runs


def earlier(step: StepGraph, states: str, initial: str, order: range, hidden: int) -> str:
    """The states one time earlier in a direction.

    Args:
        step: the graph.
        states: after each time, (steps, batch, hidden).
        initial: (1, batch, hidden), or "" for zeros.
        order: the times backwards.
        hidden: size of a state.

    Returns:
        (steps * batch, hidden).
    """
    forward, steps = order.step < 0, len(order)
    if not initial and steps == 1:  # ONNX Runtime cannot pad what is empty
        shifted = zeros_like(step, states)
    elif not initial:
        pads = (1, 0, 0, -1, 0, 0) if forward else (-1, 0, 0, 1, 0, 0)
        shifted = step.node("Pad", states, step.integers(*pads))
    else:
        first, end = (0, steps - 1) if forward else (1, steps)
        kept = step.node("Slice", states, step.integers(first), step.integers(end), step.integers(0))
        shifted = step.node("Concat", *((initial, kept) if forward else (kept, initial)), axis=0)
    return step.reshape(shifted, ("rows", hidden))


def _slopes(step: StepGraph, order: range, of_y: str, of_h: str) -> list[str]:
    """The gradient of each state from outside; the one met first has that of the last state, too."""
    slopes = pieces(step, of_y, len(order), 0)
    if of_h:
        first = slopes[order[0]]
        slopes[order[0]] = step.node("Add", first, of_h) if first else of_h
    return slopes


def pieces(step: StepGraph, value: str, count: int, axis: int) -> list[str]:
    """Equal parts along an axis; of nothing, nothing."""
    if not value or count == 1:
        return [value] * count
    return [*step.node_of("Split", [value], count, axis=axis, num_outputs=count)]


def zeros_like(step: StepGraph, value: str) -> str:
    """Zeros in the shape of a tensor."""
    return step.node("ConstantOfShape", step.node("Shape", value))


def added(step: StepGraph, first: str, second: str) -> str:
    """A sum of which either may be missing."""
    return step.node("Add", first, second) if first and second else first or second


def identity(step: StepGraph, hidden: int) -> str:
    """(hidden, hidden): below other weights, it lets a gradient pass through the same product."""
    row = np.arange(hidden)
    same = step.node("Equal", step.constant(row, np.int64), step.constant(row[:, None], np.int64))
    return step.node("Cast", same, to=1)


# From the gradient of the gates to those of the inputs.


def _weights(step: StepGraph, products: Sequence[Product]) -> str:
    """(1, gates * hidden, columns)."""
    parts = [step.node("Gemm", each.gates, each.operand, transA=1) for each in products]
    whole = parts[0] if len(parts) == 1 else step.node("Concat", *parts, axis=0)
    return step.node("Unsqueeze", whole, step.integers(0))


def _bias(step: StepGraph, slopes: Slopes) -> str:
    """(1, 2 * gates * hidden): each gate has one bias beside w and one beside r."""
    sums: dict[str, str] = {}
    for each in (*slopes.of_w, *slopes.of_r):
        if each.gates not in sums:
            sums[each.gates] = step.node("ReduceSum", each.gates, step.integers(0), keepdims=1)
    return step.node("Concat", *(sums[each.gates] for each in (*slopes.of_w, *slopes.of_r)), axis=1)


def _inputs(step: StepGraph, node: Node, runs: Sequence[Run], slopes: Sequence[Slopes]) -> str:
    total = ""
    for run, each in zip(runs, slopes, strict=True):
        gates = [product.gates for product in each.of_w]
        whole = gates[0] if len(gates) == 1 else step.node("Concat", *gates, axis=1)
        total = step.node("Gemm", whole, run.w, total)
    return step.reshape(total, step.shape(node.inputs[X]))


def _stacked(step: StepGraph, parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else step.node("Concat", *parts, axis=0)
