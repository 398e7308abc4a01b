"""The simple recurrent network (Elman 1990): y = tanh(x W' + h R' + b)."""

from models.gradients.graph import Node, StepGraph
from models.gradients.rules.recurrent.layer import Product, Run, Slopes, pieces, recurrent

NODES = 2
"""For each step of time."""


def _rnn(step: StepGraph, _node: Node, run: Run) -> Slopes:
    slope = step.node("Sub", step.constant(1.0), step.node("Mul", run.y, run.y))
    factors = pieces(step, slope, run.steps, 0)
    gates, carry = [""] * run.steps, ""
    for time in run.backwards:
        carry = gates[time] = step.node("Mul", run.back(step, carry, run.r, time), factors[time])
    whole = step.node("Concat", *gates, axis=0)
    of_h = run.back(step, carry, run.r) if run.wants_initial[0] else ""
    return Slopes([Product(whole, run.x)], [Product(whole, run.before)], of_h)


RULE = recurrent(_rnn, ("Tanh",), lambda _node: NODES)
