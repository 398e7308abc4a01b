"""Normalisation over the batch, or over parts of each example.

With xh = (x - mean) / deviation over n elements, y = scale xh + bias and g = scale dy:
dx = (g - mean(g) - xh mean(g xh)) / deviation (Ioffe and Szegedy 2015, arXiv 1502.03167, section 3).
"""

import math
from collections.abc import Mapping, Sequence

from models.gradients.graph import Node, Shape, StepGraph
from models.gradients.rules.rule import Rule, Saved
from models.step_inputs import EXAMPLE_WEIGHTS

EPSILON = 1e-5
"""What ONNX takes when a node says nothing."""


def _batch(step: StepGraph, node: Node) -> Saved:
    """With the batch's own statistics while they are learnt, else as in evaluation.

    Mean and variance weigh each example as the loss does: what only fills the batch up has no part in them.
    """
    mean, variance = node.inputs[3:5]
    if not (step.wants(mean) and step.wants(variance)):
        return _batch_fixed(step, node)
    _check_evaluation(node)
    x, scale, bias = node.inputs[:3]
    shares = _shares(step, x)
    batch_mean = _weighted(step, x, shares, x)
    centred = step.node("Sub", x, batch_mean)
    batch_variance = _weighted(step, x, shares, centred, squared=True)
    inverse = _inverse_deviation(step, node, batch_variance)
    factor = step.node("Mul", inverse, _column(step, scale, x))
    scaled = step.node("Mul", centred, factor)
    step.add("Add", [scaled, _column(step, bias, x)], [node.outputs[0]])
    _update(step, node, mean, batch_mean)
    _update(step, node, variance, batch_variance)
    return centred, inverse, factor, shares


def _batch_fixed(step: StepGraph, node: Node) -> Saved:
    """With the statistics given. Noise, or a server's optimizer, may make a variance negative: that is 0."""
    _check_evaluation(node)
    variance = step.node("Max", node.inputs[4], step.constant(0.0))
    attributes = {name: value for name, value in node.attributes.items() if name in {"epsilon", "momentum"}}
    step.add("BatchNormalization", [*node.inputs[:4], variance], node.outputs[:1], **attributes)
    return (variance,)


def _batch_back(step: StepGraph, node: Node, upstream: Sequence[str], saved: Saved) -> Sequence[str]:
    (dy, *_), (x, scale, _bias, mean, _variance) = upstream, node.inputs
    learning = len(saved) > 1
    if learning:
        centred, inverse, factor, shares = saved
    else:
        inverse = _inverse_deviation(step, node, _column(step, saved[0], x))
        factor = step.node("Mul", inverse, _column(step, scale, x))
        centred = step.node("Sub", x, _column(step, mean, x))
    axes = step.integers(0, *_space(step, x))
    total = step.node("ReduceSum", dy, axes)
    along = step.node("ReduceSum", step.node("Mul", dy, centred), axes)
    dx = ""
    if step.wants(x):
        dx = step.node("Mul", dy, factor)
        if learning:
            square = step.node("Mul", inverse, inverse)
            tilt = step.node("Mul", step.node("Mul", factor, square), step.node("Mul", along, shares))
            shift = step.node("Mul", factor, step.node("Mul", total, shares))
            dx = step.node("Sub", dx, step.node("Add", step.node("Mul", centred, tilt), shift))
    flat = step.shape(scale)
    return dx, step.reshape(step.node("Mul", along, inverse), flat), step.reshape(total, flat), "", ""


def _check_evaluation(node: Node) -> None:
    if node.attributes.get("training_mode", 0):
        raise node.error(
            "it is exported in training mode; export the model in evaluation mode (model.eval())"
        )


def _shares(step: StepGraph, x: str) -> str:
    """What each element of an example counts, (batch, 1 …); the sum over batch and space is 1."""
    weights = step.reshape(EXAMPLE_WEIGHTS, ("batch", *[1] * (len(step.shape(x)) - 1)))
    total = step.node("ReduceSum", weights, keepdims=0)
    return step.node("Div", weights, step.scaled(total, math.prod(step.sizes(x)[1:])))


def _weighted(step: StepGraph, x: str, shares: str, value: str, *, squared: bool = False) -> str:
    """Sum of shares * value, or of shares * value^2, over batch and space: (1, channels, 1 …)."""
    if space := _space(step, x):
        inner = step.node("ReduceSumSquare" if squared else "ReduceSum", value, step.integers(*space))
    else:
        inner = step.node("Mul", value, value) if squared else value
    return step.node("ReduceSum", step.node("Mul", inner, shares), step.integers(0))


def _update(step: StepGraph, node: Node, statistic: str, of_batch: str) -> None:
    """ONNX, BatchNormalization: running = running * momentum + batch * (1 - momentum)."""
    momentum = node.attributes.get("momentum", 0.9)
    fresh = step.reshape(step.scaled(of_batch, 1 - momentum), step.shape(statistic))
    step.update(statistic, step.node("Add", step.scaled(statistic, momentum), fresh))


def _layer(step: StepGraph, node: Node) -> Saved:
    mean, inverse = step.fresh("mean"), step.fresh("inverse")
    step.add("LayerNormalization", node.inputs, [node.outputs[0], mean, inverse], **node.attributes)
    return mean, inverse


def _layer_back(step: StepGraph, node: Node, upstream: Sequence[str], saved: Saved) -> Sequence[str]:
    dy, (x, scale), (mean, inverse) = upstream[0], node.inputs[:2], saved
    shape = step.shape(x)
    first = node.attributes.get("axis", -1) % len(shape)
    normal = step.node("Mul", step.node("Sub", x, mean), inverse)
    dx = ""
    if step.wants(x):
        axes = step.integers(*range(first, len(shape)))
        dx = _back(step, step.node("Mul", dy, scale), normal, inverse, axes)
    dscale = step.sum_to(step.node("Mul", dy, normal), shape, step.shape(scale)) if step.wants(scale) else ""
    bias = node.input(2)
    return dx, dscale, step.sum_to(dy, shape, step.shape(bias)) if bias and step.wants(bias) else ""


def _group(step: StepGraph, node: Node) -> Saved:
    if step.shape(node.inputs[1]) != step.shape(node.inputs[0])[1:2]:
        raise node.error("its scale must have one value for each channel; export it with opset 21")
    return _grouped(step, node)


def _grouped(step: StepGraph, node: Node) -> Saved:
    """Wu and He 2018, Group normalization (arXiv 1803.08494), equation 1: each group by itself."""
    x, scale, bias = node.inputs
    rows, last = step.reshape(x, _rows(step, node)), step.integers(2)
    centred = step.node("Sub", rows, step.node("ReduceMean", rows, last))
    variance = step.node("ReduceMean", step.node("Mul", centred, centred), last)
    inverse = _inverse_deviation(step, node, variance)
    normal = step.node("Mul", centred, inverse)
    shaped = step.reshape(normal, step.shape(x), like=x)
    scaled = step.node("Mul", shaped, _column(step, scale, x))
    step.add("Add", [scaled, _column(step, bias, x)], [node.outputs[0]])
    return normal, inverse, shaped


def _grouped_back(step: StepGraph, node: Node, upstream: Sequence[str], saved: Saved) -> Sequence[str]:
    (dy,), (x, scale, _bias), (normal, inverse, shaped) = upstream, node.inputs, saved
    dx, axes, flat = "", step.integers(0, *_space(step, x)), step.shape(scale)
    if step.wants(x):
        seed = step.reshape(step.node("Mul", dy, _column(step, scale, x)), _rows(step, node))
        dx = step.reshape(_back(step, seed, normal, inverse, step.integers(2)), step.shape(x), like=x)
    dscale = step.node("ReduceSum", step.node("Mul", dy, shaped), axes, keepdims=0)
    return dx, step.reshape(dscale, flat), step.node("ReduceSum", dy, axes, keepdims=0)


def _rows(step: StepGraph, node: Node) -> Shape:
    """Each group of channels as a row; without a number of groups, each channel is one."""
    channels, *space = step.sizes(node.inputs[0])
    groups = node.attributes.get("num_groups", channels)
    return "batch", groups, math.prod(space) * channels // groups


def _back(step: StepGraph, seed: str, normal: str, inverse: str, axes: str) -> str:
    mean = step.node("ReduceMean", seed, axes)
    along = step.node("ReduceMean", step.node("Mul", seed, normal), axes)
    moved = step.node("Sub", step.node("Sub", seed, mean), step.node("Mul", normal, along))
    return step.node("Mul", moved, inverse)


def _inverse_deviation(step: StepGraph, node: Node, variance: str) -> str:
    shifted = step.node("Add", variance, step.constant(node.attributes.get("epsilon", EPSILON)))
    return step.node("Reciprocal", step.node("Sqrt", shifted))


def _column(step: StepGraph, value: str, x: str) -> str:
    """One number for each channel, so that it meets the channels of x."""
    channels, *space = step.sizes(x)
    return step.reshape(value, (channels, *[1] * len(space))) if space else value


def _space(step: StepGraph, x: str) -> range:
    return range(2, len(step.shape(x)))


RULES: Mapping[str, Rule] = {
    "BatchNormalization": Rule(_batch_back, _batch, evaluate=_batch_fixed),
    "GroupNormalization": Rule(_grouped_back, _group, evaluate=_group),
    "InstanceNormalization": Rule(_grouped_back, _grouped),
    "LayerNormalization": Rule(_layer_back, _layer),
}
