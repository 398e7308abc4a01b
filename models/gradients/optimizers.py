"""What an optimizer does with a gradient: new parameters, and what it remembers until the next step."""

from collections.abc import Mapping
from typing import NamedTuple

from models.gradients.graph import StepGraph
from models.step_inputs import ANCHOR, BETAS, CORRECTED_RATE, EPSILON, MOMENTS, NEW, RATE
from protocol.plan import Training


class Slots(NamedTuple):
    """What a step needs beside parameters and examples.

    Attributes:
        moments: prefixes of one tensor for each parameter, zeros at first.
        anchors: whether the parameters at the start are inputs, too.
    """

    moments: tuple[str, ...]
    anchors: bool


def slots_of(training: Training) -> Slots:
    """What the optimizer of a plan remembers."""
    if training.optimizer == "adamw":
        return Slots(MOMENTS[1:], training.proximal > 0)
    return Slots(MOMENTS[:1] if training.momentum > 0 else (), training.proximal > 0)


def is_plain(training: Training) -> bool:
    """Whether a step is w - rate * gradient and nothing else, so that the rate can go in where it begins."""
    return slots_of(training) == Slots((), anchors=False) and not (
        training.gradient_clip or training.weight_decay
    )


def add_optimizer(step: StepGraph, training: Training, gradients: Mapping[str, str]) -> list[str]:
    """Add the step of every parameter; outputs are called `new/<parameter>`, `new/moment1/<parameter>` ….

    Order: proximal term, clip of the whole gradient's L2 norm, optimizer with decoupled weight decay
    (Loshchilov and Hutter 2019, arXiv 1711.05101).

    Args:
        step: the graph.
        training: of the plan.
        gradients: parameter to its gradient; of a plain step, to gradient times minus the rate.

    Returns:
        The outputs; each without `new/` is an input of the next step.
    """
    if is_plain(training):
        return [_output(step, name, step.node("Sum", change, name)) for name, change in gradients.items()]
    gradients = {name: _pulled(step, training, name, gradient) for name, gradient in gradients.items()}
    if training.gradient_clip:
        gradients = _clipped(step, training.gradient_clip, gradients)
    return [
        output for name, gradient in gradients.items() for output in _stepped(step, training, name, gradient)
    ]


def _pulled(step: StepGraph, training: Training, name: str, gradient: str) -> str:
    """FedProx (Li et al. 2020, MLSys): the gradient of mu/2 ||w - w0||^2 on top."""
    if training.proximal <= 0:
        return gradient
    away = step.node("Sub", name, ANCHOR + name)
    return step.node("Add", gradient, step.scaled(away, training.proximal))


def _clipped(step: StepGraph, limit: float, gradients: Mapping[str, str]) -> dict[str, str]:
    """Pascanu et al. 2013, ICML, Algorithm 1: one factor for all, 1 where the norm is within the limit."""
    squares = [step.node("ReduceSumSquare", gradient, keepdims=0) for gradient in gradients.values()]
    norm = step.node("Sqrt", step.node("Sum", *squares))
    longest = step.node("Max", norm, step.constant(limit))
    factor = step.node("Div", step.constant(limit), longest)
    return {name: step.node("Mul", gradient, factor) for name, gradient in gradients.items()}


def _stepped(step: StepGraph, training: Training, name: str, gradient: str) -> list[str]:
    kept = name
    if training.weight_decay > 0:
        shrunk = step.node("Mul", step.scaled(name, training.weight_decay), RATE)
        kept = step.node("Sub", name, shrunk)
    if training.optimizer == "adamw":
        return _adam(step, name, kept, gradient)
    if training.momentum > 0:
        return _momentum(step, training.momentum, name, kept, gradient)
    change = step.node("Mul", gradient, RATE)
    return [_output(step, name, step.node("Sub", kept, change))]


def _momentum(step: StepGraph, decay: float, name: str, kept: str, gradient: str) -> list[str]:
    """Sutskever et al. 2013, ICML, as PyTorch writes it: v' = m v + g, w' = w - rate v'."""
    slot = MOMENTS[0] + name
    velocity = step.node("Add", step.scaled(slot, decay), gradient)
    moved = step.node("Sub", kept, step.node("Mul", velocity, RATE))
    return [_output(step, name, moved), _output(step, slot, velocity)]


def _adam(step: StepGraph, name: str, kept: str, gradient: str) -> list[str]:
    """Kingma and Ba 2015, end of section 2: both corrections of the bias are in the rate."""
    (first, second), (one, two) = BETAS, (MOMENTS[1] + name, MOMENTS[2] + name)
    mean = step.node("Add", step.scaled(one, first), step.scaled(gradient, 1 - first))
    square = step.scaled(step.node("Mul", gradient, gradient), 1 - second)
    variance = step.node("Add", step.scaled(two, second), square)
    root = step.node("Add", step.node("Sqrt", variance), step.constant(EPSILON))
    moved = step.node("Sub", kept, step.node("Mul", step.node("Div", mean, root), CORRECTED_RATE))
    return [_output(step, name, moved), _output(step, one, mean), _output(step, two, variance)]


def _output(step: StepGraph, name: str, value: str) -> str:
    step.rename(value, NEW + name)
    return NEW + name
