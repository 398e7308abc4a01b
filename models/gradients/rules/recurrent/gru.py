"""GRU (Cho et al. 2014, arXiv 1406.1078); gates z, r, n as ONNX orders them.

    z, r = sigmoid(x Wz' + h Rz' + b), sigmoid(x Wr' + h Rr' + b)
    n = tanh(x Wn' + b + r (h Rn' + c))     linear_before_reset, cuDNN's
    n = tanh(x Wn' + b + (r h) Rn' + c)     otherwise
    y = (1 - z) n + z h

With d the gradient of y, that of z before its sigmoid is d (y - n) (1 - z), for (h - n) z = y - n.
"""

from typing import NamedTuple

from models.gradients.graph import Node, StepGraph
from models.gradients.rules.recurrent.layer import Product, Run, Slopes, added, identity, pieces, recurrent

GATES = 3
LINEAR_NODES, RESET_NODES = 3, 5
"""Nodes for each step of time: reset after the product, before it."""


class _Gates(NamedTuple):
    """For all times, (n, hidden) each.

    Attributes:
        z: share of the state that stays.
        r: share of the state that the new one sees.
        reset: r times what it resets.
        product: of the state with Rn, before the reset; "" if the reset comes first.
        of_z: what the gradient of y is multiplied with for that of z before the sigmoid.
        of_n: likewise of n before the tanh.
        left: 1 - r.
    """

    z: str
    r: str
    reset: str
    product: str
    of_z: str
    of_n: str
    left: str


def _is_linear(node: Node) -> bool:
    return bool(node.attributes.get("linear_before_reset", 0))


def _gru(step: StepGraph, node: Node, run: Run) -> Slopes:
    gates = _gates(step, run, linear=_is_linear(node))
    return _reset_after(step, run, gates) if _is_linear(node) else _reset_before(step, run, gates)


def _gates(step: StepGraph, run: Run, *, linear: bool) -> _Gates:
    (wz, wr, wn), (rz, rr, rn) = (pieces(step, value, GATES, 0) for value in (run.w, run.r))
    (bz, br, bn), (cz, cr, cn) = (pieces(step, value, GATES, 1) for value in (run.bias_w, run.bias_r))

    def dense(value: str, weight: str, plus: str) -> str:
        return step.node("Gemm", value, weight, plus, transB=1)

    z = step.node("Sigmoid", dense(run.before, rz, dense(run.x, wz, added(step, bz, cz))))
    r = step.node("Sigmoid", dense(run.before, rr, dense(run.x, wr, added(step, br, cr))))
    product = dense(run.before, rn, cn) if linear else ""
    reset = step.node("Mul", r, product or run.before)
    if linear:
        n = step.node("Tanh", step.node("Add", dense(run.x, wn, bn), reset))
    else:
        n = step.node("Tanh", dense(reset, rn, dense(run.x, wn, added(step, bn, cn))))
    one = step.constant(1.0)
    new = step.node("Sub", one, z)
    of_z = step.node("Mul", new, step.node("Sub", run.y, n))
    of_n = step.node("Mul", new, step.node("Sub", one, step.node("Mul", n, n)))
    return _Gates(z, r, reset, product, of_z, of_n, step.node("Sub", one, r))


def _reset_after(step: StepGraph, run: Run, gates: _Gates) -> Slopes:
    """The gradients of z, r and the product, and the share z of d that stays, are all multiples of d."""
    of_product = step.node("Mul", gates.of_n, gates.r)
    of_r = step.node("Mul", step.node("Mul", of_product, gates.product), gates.left)
    factors = step.node("Concat", gates.of_z, of_r, of_product, gates.z, axis=1)
    back = step.node("Concat", run.r, identity(step, run.hidden), axis=0)
    factor = pieces(step, factors, run.steps, 0)
    slopes, parts, carry = [""] * run.steps, [""] * run.steps, ""
    for time in run.backwards:
        slopes[time] = run.back(step, carry, back, time)
        parts[time] = step.node("Mul", step.node("Concat", *[slopes[time]] * 4, axis=1), factor[time])
        carry = parts[time]
    whole = step.node("Concat", *parts, axis=0)
    sizes = step.integers(2 * run.hidden, run.hidden, run.hidden)
    zr, in_product, _ = step.node_of("Split", [whole, sizes], 3, axis=1)
    n = step.node("Mul", step.node("Concat", *slopes, axis=0), gates.of_n)
    return Slopes(
        [Product(zr, run.x), Product(n, run.x)],
        [Product(zr, run.before), Product(in_product, run.before)],
        run.back(step, carry, back) if run.wants_initial[0] else "",
    )


def _reset_before(step: StepGraph, run: Run, gates: _Gates) -> Slopes:
    """The gradient of n is a multiple of d; that of r h is e = n Rn, and the rest are multiples of d or e."""
    of_r = step.node("Mul", gates.reset, gates.left)
    factors = step.node("Concat", gates.of_z, of_r, gates.z, gates.r, axis=1)
    rz, rr, rn = pieces(step, run.r, GATES, 0)
    passing = identity(step, run.hidden)
    back = step.node("Concat", rz, rr, passing, passing, axis=0)
    factor, of_n = pieces(step, factors, run.steps, 0), pieces(step, gates.of_n, run.steps, 0)
    parts, ns, carry = [""] * run.steps, [""] * run.steps, ""
    for time in run.backwards:
        d = run.back(step, carry, back, time)
        ns[time] = step.node("Mul", d, of_n[time])
        e = step.node("MatMul", ns[time], rn)
        parts[time] = step.node("Mul", step.node("Concat", d, e, d, e, axis=1), factor[time])
        carry = parts[time]
    zr, _ = pieces(step, step.node("Concat", *parts, axis=0), 2, 1)
    n = step.node("Concat", *ns, axis=0)
    return Slopes(
        [Product(zr, run.x), Product(n, run.x)],
        [Product(zr, run.before), Product(n, gates.reset)],
        run.back(step, carry, back) if run.wants_initial[0] else "",
    )


RULE = recurrent(_gru, ("Sigmoid", "Tanh"), lambda node: LINEAR_NODES if _is_linear(node) else RESET_NODES)
