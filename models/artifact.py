"""From any forward ONNX model to a training bundle, and from trained weights to a model for inference."""

from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from models.builder import IR_VERSION
from models.bundle import FORWARD_FILE, MAX_BUNDLE_BYTES, Bundle, BundleManifest, Tensor
from models.bundle_scan import ORT_TRAINING_FILES, check_bundle
from models.engines import ort_artifacts, ort_training
from models.errors import BundleError, ModelError
from models.forward import Forward, read_forward
from models.layout import Vector
from protocol.plan import Loss, Optimizer


def build_bundle(model: onnx.ModelProto | bytes, *, loss: Loss, optimizer: Optimizer) -> Bundle:
    """Make the content-addressed training bundle of a forward model.

    Takes 5 to 100 ms, and touches file descriptor 2 and module globals of `onnx` for that time: run it where
    no other thread writes to standard error.

    Args:
        model: one float32 input and output, batch axis dynamic and first, nothing else dynamic.
        loss: cross_entropy takes (batch, classes) logits and int64 labels; mse and bce (on logits) take
            float32 targets of the output's shape.
        optimizer: the local optimizer.

    Returns:
        Equal bytes for equal graphs and arguments; weights play no part in it.

    Raises:
        ModelError: the model cannot be trained as it is; the text says what to change.
        EngineUnavailableError: the training build of onnxruntime is not installed.
    """
    forward = read_forward(model)
    label = label_of(forward, loss)
    files = ort_artifacts.generate(forward, loss, optimizer)
    bundle = Bundle(
        BundleManifest(
            format=1,
            model=forward.model.graph.name[:256],
            opset=forward.opset,
            ir=IR_VERSION,
            loss=loss,
            optimizer=optimizer,
            input=forward.input,
            label=label,
            output=forward.output,
            parameters=forward.parameters,
            engines={ort_training.OrtTrainingEngine.name: ORT_TRAINING_FILES},
            versions={name: version(name) for name in ("onnx", "onnxruntime-training-cpu")},
        ),
        {FORWARD_FILE: _pure_function(forward), **files},
    )
    if (size := len(bundle.encode())) > MAX_BUNDLE_BYTES:
        raise ModelError(
            f"the bundle has {size:,} bytes of {MAX_BUNDLE_BYTES:,}: store large constants as weights"
        )
    try:
        check_bundle(bundle)
    except BundleError as error:
        raise ModelError(f"devices would refuse this model: {error}") from error
    return bundle


def initial_weights(model: onnx.ModelProto | bytes) -> Vector:
    """The model's own initial values as the flat vector, float32 (d,).

    Raises:
        ModelError: as for `build_bundle`.
    """
    return read_forward(model).weights()


def export_inference(bundle: Bundle, weights: Vector) -> bytes:
    """A forward model with these weights inside, which plain onnxruntime runs.

    Args:
        bundle: of the model.
        weights: float32 (d,), finite.

    Raises:
        ModelError: weights of another shape, or not finite.
    """
    if not np.isfinite(weights).all():
        raise ModelError("the weights hold NaN or infinity; such a model is not worth exporting")
    tensors = bundle.manifest.parameters.unflatten(weights)
    model: Any = onnx.load_model_from_string(bundle.files[FORWARD_FILE])
    graph = model.graph
    inputs = [value for value in graph.input if value.name not in tensors]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in tensors.items())
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
    names = {parameter.name for parameter in forward.parameters.parameters}
    model: Any = onnx.ModelProto()
    model.CopyFrom(forward.model)
    graph = model.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in names]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.input.extend(
        helper.make_tensor_value_info(parameter.name, onnx.TensorProto.FLOAT, parameter.shape)
        for parameter in forward.parameters.parameters
    )
    return bytes(model.SerializeToString(deterministic=True))
