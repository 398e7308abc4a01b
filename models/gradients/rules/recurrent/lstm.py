"""LSTM (Hochreiter and Schmidhuber 1997, with Gers et al. 2000); gates i, o, f, g as ONNX orders them.

With i, o, f = sigmoid, and g = tanh, of x W' + h R' + b: c' = f c + i g, y = o tanh(c'). Of y comes the
gradient d, of c' comes e, to which d (o - y tanh(c')) is added. Before their activations the gates have
e g i (1 - i), d y (1 - o), e c f (1 - f) and e i (1 - g g); e f goes on to c.
"""

from typing import NamedTuple

from models.gradients.graph import Node, StepGraph
from models.gradients.rules.recurrent.layer import (
    Product,
    Run,
    Slopes,
    added,
    earlier,
    pieces,
    recurrent,
    zeros_like,
)

GATES = 4
NODES = 8
"""For each step of time: 2 for the cell state, which the fused operator does not tell, and 6 backwards."""


class _Factors(NamedTuple):
    """What gradients are multiplied with; each a tensor for every time.

    Attributes:
        gates: (batch, 4 hidden): from those of c', y, c', c' to those of the gates before their activations.
        cell: from y to c'.
        forget: from c' to c.
    """

    gates: list[str]
    cell: list[str]
    forget: list[str]


def _lstm(step: StepGraph, _node: Node, run: Run) -> Slopes:
    factors = _factors(step, run)
    gates, carry, cell = [""] * run.steps, "", run.slope_c
    for time in run.backwards:
        d = run.back(step, carry, run.r, time) or zeros_like(step, factors.cell[time])
        at_cell = added(step, step.node("Mul", d, factors.cell[time]), cell)
        spread = step.node("Concat", at_cell, d, at_cell, at_cell, axis=1)
        carry = gates[time] = step.node("Mul", spread, factors.gates[time])
        if time != run.backwards[-1] or run.wants_initial[1]:
            cell = step.node("Mul", at_cell, factors.forget[time])
    whole = step.node("Concat", *gates, axis=0)
    of_h = run.back(step, carry, run.r) if run.wants_initial[0] else ""
    return Slopes([Product(whole, run.x)], [Product(whole, run.before)], of_h, cell)


def _factors(step: StepGraph, run: Run) -> _Factors:
    weights = zip(
        *(pieces(step, value, GATES, 0) for value in (run.w, run.r)),
        pieces(step, added(step, run.bias_w, run.bias_r), GATES, 1),
        strict=True,
    )
    sums = [
        step.node("Gemm", run.before, r, step.node("Gemm", run.x, w, bias, transB=1), transB=1)
        for w, r, bias in weights
    ]
    i, o, f = (step.node("Sigmoid", each) for each in sums[:3])
    g = step.node("Tanh", sums[3])
    product = step.node("Mul", i, g)
    forget = pieces(step, f, run.steps, 0)
    old, new = _cells(step, run, forget, product)
    one, squashed = step.constant(1.0), step.node("Tanh", new)

    def times_left(value: str, gate: str) -> str:
        return step.node("Mul", value, step.node("Sub", one, gate))

    factors = step.node(
        "Concat",
        times_left(product, i),
        times_left(run.y, o),
        times_left(step.node("Mul", old, f), f),
        times_left(i, step.node("Mul", g, g)),
        axis=1,
    )
    cell = step.node("Sub", o, step.node("Mul", run.y, squashed))
    return _Factors(pieces(step, factors, run.steps, 0), pieces(step, cell, run.steps, 0), forget)


def _cells(step: StepGraph, run: Run, forget: list[str], new: str) -> tuple[str, str]:
    """The cell states before and after each time, (n, hidden): c' = f c + i g once more."""
    states = pieces(step, new, run.steps, 0)
    cell = step.node("Squeeze", run.initial_c, step.integers(0)) if run.initial_c else ""
    for time in reversed(run.backwards):
        kept = step.node("Mul", forget[time], cell) if cell else ""
        cell = states[time] = added(step, kept, states[time])
    after = step.node("Concat", *states, axis=0)
    by_time = step.reshape(after, (run.steps, "batch", run.hidden))
    return earlier(step, by_time, run.initial_c, run.backwards, run.hidden), after


RULE = recurrent(_lstm, ("Sigmoid", "Tanh", "Tanh"), lambda _node: NODES)
