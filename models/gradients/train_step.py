"""The graphs of the engine `ort-graph`: one optimizer step, and one evaluation of a batch.

    train_step      (input, label, example_weights, noise/…, parameters, gradient_weights, scalars, anchor/…,
                     moments) -> (loss, new/<parameter> …, new/<moment> …)
    evaluate_step   (input, label, example_weights, parameters) -> (loss, output)

Every input beyond the weights of the examples is there only if the plan needs it. The batch is dynamic.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper, version_converter

from models.builder import IR_VERSION
from models.bundle import Tensor
from models.errors import ModelError
from models.forward import Forward
from models.gradients.graph import Shape, StepGraph
from models.gradients.losses import Judged, add_loss
from models.gradients.optimizers import add_optimizer, is_plain, slots_of
from models.gradients.rules import NO_GRADIENT, RULES, Rule
from models.step_inputs import (
    ANCHOR,
    CORRECTED_RATE,
    EXAMPLE_WEIGHTS,
    GRADIENT_WEIGHTS,
    LOSS,
    NEW,
    RATE,
    STEP_OPSET,
)
from protocol.plan import Training


def build_train_step(forward: Forward, label: Tensor, training: Training) -> bytes:
    """The graph of one step.

    Args:
        forward: the model.
        label: what the loss compares with.
        training: loss, optimizer, proximal term and clip are built in; rate, batch and epochs are not.

    Raises:
        ModelError: an operator has no gradient here; names the node.
    """
    step = _begin(forward)
    trained = [parameter.name for parameter in forward.trained]
    _mark(step, trained)
    saved = _run_forward(step)
    judged = add_loss(step, training.loss, forward.output.name, label.name)
    _add_total(step, judged)
    seed = step.node("Mul", judged.slope, GRADIENT_WEIGHTS)
    gradients = _run_backward(step, saved, {forward.output.name: seed})
    moved = [name for name in trained if name in gradients]
    renewed = add_optimizer(step, training, {name: gradients[name] for name in moved})
    for name in trained:
        if name not in gradients:
            step.rename(step.updates.get(name) or step.node("Identity", name), NEW + name)
            renewed.append(NEW + name)
    return _model(step, forward, label, _inputs(forward, training, moved), [LOSS, *renewed])


def build_evaluate_step(forward: Forward, label: Tensor, training: Training) -> bytes:
    """The graph of one evaluation; arguments as for `build_train_step`."""
    step = _begin(forward)
    for node in step.forward:
        RULES.get(node.operator, _COPY).evaluate(step, node)
    _add_total(step, add_loss(step, training.loss, forward.output.name, label.name))
    return _model(step, forward, label, {}, [LOSS, forward.output.name])


def _begin(forward: Forward) -> StepGraph:
    model = forward.model
    if forward.opset != STEP_OPSET:
        model = version_converter.convert_version(model, STEP_OPSET)
    return StepGraph(model, [parameter.name for parameter in forward.everything])


def _mark(step: StepGraph, trained: Sequence[str]) -> None:
    """Everything between a trained parameter and the output wants a gradient."""
    for name in trained:
        step.want(name)
    for node in step.forward:
        if node.operator in NO_GRADIENT or not any(map(step.wants, node.inputs)):
            continue
        if node.operator not in RULES:
            raise node.error(f"it has no gradient here; operators that have: {', '.join(sorted(RULES))}")
        for name in node.outputs:
            step.want(name)


def _run_forward(step: StepGraph) -> list[Sequence[str]]:
    saved = []
    for node in step.forward:
        rule = RULES.get(node.operator, _COPY)
        saved.append(rule.forward(step, node))
    return saved


def _run_backward(
    step: StepGraph, saved: Sequence[Sequence[str]], seeds: Mapping[str, str]
) -> dict[str, str]:
    """Gradients of everything that is wanted, last node first."""
    parts: dict[str, list[str]] = defaultdict(list)
    for name, seed in seeds.items():
        parts[name].append(seed)
    total: dict[str, str] = {}
    for node, kept in zip(reversed(step.forward), reversed(saved), strict=True):
        upstream = [_sum(step, parts.pop(name, [])) for name in node.outputs]
        if node.operator in NO_GRADIENT or not any(upstream) or not any(map(step.wants, node.inputs)):
            continue
        gradients = RULES[node.operator].backward(step, node, upstream, kept)
        for name, gradient in zip(node.inputs, gradients, strict=False):
            if gradient and step.wants(name):
                parts[name].append(gradient)
    for name, gradients in parts.items():
        total[name] = _sum(step, gradients)
    return total


def _sum(step: StepGraph, parts: Sequence[str]) -> str:
    if len(parts) > 1:
        return step.node("Sum", *parts)
    return parts[0] if parts else ""


def _add_total(step: StepGraph, judged: Judged) -> None:
    weighted = step.node("Mul", judged.losses, EXAMPLE_WEIGHTS)
    step.add("ReduceSum", [weighted], [LOSS], keepdims=0)


def _inputs(forward: Forward, training: Training, moved: Sequence[str]) -> dict[str, Shape]:
    """Float inputs that only this plan needs, with their shapes; `moved` have a gradient."""
    shapes = {parameter.name: parameter.shape for parameter in forward.trained}
    slots = slots_of(training)
    ones = (1,) * len(forward.output.shape)
    inputs: dict[str, Shape] = {GRADIENT_WEIGHTS: ("batch", *ones)}
    if not is_plain(training):
        inputs[RATE] = ()
    if training.optimizer == "adamw":
        inputs[CORRECTED_RATE] = ()
    if slots.anchors:
        inputs |= {ANCHOR + name: shapes[name] for name in moved}
    for prefix in slots.moments:
        inputs |= {prefix + name: shapes[name] for name in moved}
    return inputs


def _model(
    step: StepGraph,
    forward: Forward,
    label: Tensor,
    more: Mapping[str, Shape],
    outputs: Sequence[str],
) -> bytes:
    parameters = {parameter.name: parameter.shape for parameter in forward.everything}
    ones = (1,) * len(forward.output.shape)
    floats: dict[str, Shape] = {
        EXAMPLE_WEIGHTS: ("batch", *ones),
        **{name: ("batch", *sizes) for name, sizes in step.noises},
        **parameters,
        **more,
    }
    shapes: dict[str, Shape] = {**floats, LOSS: (), forward.output.name: ("batch", *forward.output.shape)}
    graph = helper.make_graph(
        step.nodes,
        forward.model.graph.name,
        [
            _value(forward.input.name, ("batch", *forward.input.shape)),
            _value(label.name, ("batch", *label.shape), label.dtype),
            *(_value(name, shape) for name, shape in floats.items()),
        ],
        [_value(name, shapes[name.removeprefix(NEW)]) for name in outputs],
        step.initializers(),
    )
    opset = helper.make_opsetid("", STEP_OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="fedfleet")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the training graph is not valid: {error}") from error
    return bytes(model.SerializeToString(deterministic=True))


def _value(name: str, shape: Shape, dtype: str = "float32") -> Any:
    kind = TensorProto.INT64 if dtype == "int64" else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, shape)


_COPY = Rule(backward=lambda _step, node, _upstream, _saved: [""] * len(node.inputs))
