"""From any forward ONNX model to a training bundle, and from trained weights to a model for inference."""

from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from models.bounds import MAX_GRAPH_BYTES
from models.builder import IR_VERSION
from models.bundle import (
    FORWARD_FILE,
    FROZEN_FILE,
    PRIVATE_FILE,
    Bundle,
    BundleManifest,
    Step,
    Tensor,
)
from models.bundle_scan import (
    EVALUATE_STEP_FILE,
    ORT_GRAPH_FILES,
    ORT_TRAINING_FILES,
    TRAIN_STEP_FILE,
    check_bundle,
    check_forward,
)
from models.engines import ort_artifacts
from models.errors import BundleError, ModelError
from models.exporters.activations import Activation, put_activation
from models.forward import ALL_SHARED, Forward, Roles, read_forward
from models.gradients.train_step import build_evaluate_step, build_train_step
from models.installed import ORT_GRAPH, ORT_TRAINING
from models.layout import Vector
from protocol.chunks import describe
from protocol.plan import Loss, Training


def build_bundle(model: onnx.ModelProto | bytes, training: Training, *, roles: Roles = ALL_SHARED) -> Bundle:
    """Make the content-addressed training bundle of a forward model.

    Takes 5 to 100 ms, and touches file descriptor 2 and module globals of `onnx` for that time: run it where
    no other thread writes to standard error.

    Args:
        model: one float32 input and output, batch axis dynamic and first, nothing else dynamic.
        training: loss, optimizer and what else changes the graph of a step. cross_entropy takes (batch,
            classes) logits and int64 labels; other losses take float32 targets of the output's shape.
        roles: of the model's parameters.

    Returns:
        With files for every engine that can train it here: `ort-graph` always, `ort-training` where that
        package is installed and knows the model. Equal bytes for equal graphs and arguments; shared weights
        play no part in it.

    Raises:
        ModelError: the model cannot be trained as it is; the text says what to change.
    """
    forward = read_forward(model, roles)
    label = label_of(forward, training.loss)
    files = {
        FORWARD_FILE: _pure_function(forward),
        TRAIN_STEP_FILE: build_train_step(forward, label, training),
        EVALUATE_STEP_FILE: build_evaluate_step(forward, label, training),
    }
    for table, name in ((forward.frozen, FROZEN_FILE), (forward.private, PRIVATE_FILE)):
        if table:
            files[name] = forward.values(table).astype("<f4").tobytes()
    bundle = _bundle(forward, label, training, {ORT_GRAPH: ORT_GRAPH_FILES}, files)
    _check(bundle)
    return _with_ort_training(bundle, forward, training)


def _with_ort_training(bundle: Bundle, forward: Forward, training: Training) -> Bundle:
    """The bundle for both engines, where that one is installed and trains the model with what devices allow.

    It has no gradient for some operators, and its generator writes operators of its own for some that follow
    each other, which no device loads.
    """
    if ort_artifacts.objection(forward, training) is not None:
        return bundle
    engines = {ORT_GRAPH: ORT_GRAPH_FILES, ORT_TRAINING: ORT_TRAINING_FILES}
    try:
        files = {**bundle.files, **ort_artifacts.generate(forward, training.loss, training.optimizer)}
        both = _bundle(forward, bundle.manifest.label, training, engines, files)
        check_bundle(both, ORT_TRAINING)
    except (BundleError, ModelError):
        return bundle
    return both


def _bundle(
    forward: Forward,
    label: Tensor,
    training: Training,
    engines: dict[str, tuple[str, ...]],
    files: dict[str, bytes],
) -> Bundle:
    return Bundle(
        BundleManifest(
            format=2,
            model=forward.model.graph.name[:256],
            opset=forward.opset,
            ir=IR_VERSION,
            loss=training.loss,
            step=Step.of(training),
            input=forward.input,
            label=label,
            output=forward.output,
            parameters=forward.parameters,
            private=forward.private,
            frozen=forward.frozen,
            engines=engines,
            files={name: describe(content) for name, content in files.items()},
            versions={"onnx": version("onnx"), "fedfleet": version("fedfleet")},
        ),
        files,
    )


def _check(bundle: Bundle) -> None:
    """Whatever a device would refuse is found here."""
    for name in {FORWARD_FILE, *ORT_GRAPH_FILES}:
        if (size := len(bundle.files[name])) > MAX_GRAPH_BYTES:
            raise ModelError(
                f"{name} has {size:,} bytes of {MAX_GRAPH_BYTES:,}: store large constants as weights"
            )
    try:
        check_forward(bundle)
        for engine in bundle.manifest.engines:
            check_bundle(bundle, engine)
    except BundleError as error:
        raise ModelError(f"devices would refuse this model: {error}") from error


def initial_weights(model: onnx.ModelProto | bytes, roles: Roles = ALL_SHARED) -> Vector:
    """The model's own initial values of the shared parameters as the flat vector, float32 (d,).

    Raises:
        ModelError: as for `build_bundle`.
    """
    return read_forward(model, roles).weights()


def export_inference(bundle: Bundle, weights: Vector, activation: Activation | None = None) -> bytes:
    """A forward model with these weights inside, which plain onnxruntime runs.

    Private parameters have the values that every device began with.

    Args:
        bundle: of the model, with its forward graph and its constants.
        weights: float32 (d,), finite.
        activation: that the model had before it was trained on its logits.

    Raises:
        ModelError: weights of another shape, or not finite.
    """
    if not np.isfinite(weights).all():
        raise ModelError("the weights hold NaN or infinity; such a model is not worth exporting")
    manifest = bundle.manifest
    tensors = {**manifest.parameters.unflatten(weights), **bundle.frozen()}
    if manifest.private:
        tensors |= manifest.private.unflatten(bundle.first_private())
    model: Any = onnx.load_model_from_string(bundle.files[FORWARD_FILE])
    graph = model.graph
    inputs = [value for value in graph.input if value.name not in tensors]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in tensors.items())
    if activation:
        put_activation(graph, activation)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def label_of(forward: Forward, loss: Loss) -> Tensor:
    """What a loss compares a model's output with.

    Raises:
        ModelError: the output does not fit the loss.
    """
    if loss != "cross_entropy":
        return Tensor("target", "float32", forward.output.shape)
    if len(forward.output.shape) != 1:
        raise ModelError(
            f"loss cross_entropy needs an output (batch, classes), not (batch, *{forward.output.shape});"
            " add a Flatten or pooling before the last layer"
        )
    return Tensor("labels", "int64", ())


def _pure_function(forward: Forward) -> bytes:
    """The graph with its parameters as further inputs: `f(input, *parameters)`."""
    names = {parameter.name for parameter in forward.everything}
    model: Any = onnx.ModelProto()
    model.CopyFrom(forward.model)
    graph = model.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in names]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.input.extend(
        helper.make_tensor_value_info(parameter.name, onnx.TensorProto.FLOAT, parameter.shape)
        for parameter in forward.everything
    )
    return bytes(model.SerializeToString(deterministic=True))
