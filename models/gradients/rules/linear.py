"""Matrix products."""

from collections.abc import Mapping, Sequence

from models.gradients.graph import Node, Shape, StepGraph
from models.gradients.rules.rule import Rule, Saved

MATRIX = 2
"""Axes of a matrix."""


def _gemm(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    """Y = alpha A' B' + beta C, where ' is transposed or not."""
    a, b, c = node.input(0), node.input(1), node.input(2)
    flip_a, flip_b = int(node.attributes.get("transA", 0)), int(node.attributes.get("transB", 0))
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    (dy,) = upstream
    da = db = dc = ""
    if step.wants(a):
        if flip_a:
            da = step.node("Gemm", b, dy, transA=flip_b, transB=1, alpha=alpha)
        else:
            da = step.node("Gemm", dy, b, transA=0, transB=1 - flip_b, alpha=alpha)
    if step.wants(b):
        if flip_b:
            db = step.node("Gemm", dy, a, transA=1, transB=flip_a, alpha=alpha)
        else:
            db = step.node("Gemm", a, dy, transA=1 - flip_a, transB=0, alpha=alpha)
    if c and step.wants(c):
        dc = step.sum_to(step.scaled(dy, beta), step.shape(node.outputs[0]), step.shape(c))
    return da, db, dc


def _matmul(step: StepGraph, node: Node, upstream: Sequence[str], _: Saved) -> Sequence[str]:
    """Y = A B over the last two axes, the others broadcast (numpy.matmul)."""
    a, b = node.inputs
    shape_a, shape_b, shape_y = step.shape(a), step.shape(b), step.shape(node.outputs[0])
    if min(len(shape_a), len(shape_b)) < MATRIX:
        raise node.error("products with vectors have no gradient here; add an axis with Unsqueeze")
    (dy,) = upstream
    da = db = ""
    if step.wants(a):
        da = step.node("MatMul", dy, _transposed(step, b, shape_b))
        da = step.sum_to(da, (*shape_y[:-2], *shape_a[-2:]), shape_a)
    if step.wants(b):
        if len(shape_b) == MATRIX:  # a layer applied to many vectors: one product over all of them
            db = step.node("Gemm", _rows(step, a, shape_a), _rows(step, dy, shape_y), transA=1)
        else:
            db = step.node("MatMul", _transposed(step, a, shape_a), dy)
            db = step.sum_to(db, (*shape_y[:-2], *shape_b[-2:]), shape_b)
    return da, db


def _transposed(step: StepGraph, value: str, shape: Shape) -> str:
    axes = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    return step.node("Transpose", value, perm=axes)


def _rows(step: StepGraph, value: str, shape: Shape) -> str:
    """All vectors along the last axis as one matrix."""
    return value if len(shape) == MATRIX else step.reshape(value, ("rows", shape[-1]))


RULES: Mapping[str, Rule] = {"Gemm": Rule(_gemm), "MatMul": Rule(_matmul)}
