"""A training graph's gradient against central differences of the same loss in float64.

ONNX Runtime computes the gradient; the differences come from onnx's own reference implementation, on the
evaluation graph with every float32 made float64. So nothing is compared with itself.
"""

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from models.artifact import label_of
from models.forward import read_forward
from models.gradients.train_step import build_evaluate_step, build_train_step
from protocol.plan import Loss, Training

TOLERANCE = 3e-6
"""Of an error relative to the gradient's norm; float32 has 1.2e-7."""

DIRECTIONS = 12
STEP = 1e-6


def assert_gradient_is_right(
    model: onnx.ModelProto,
    loss: Loss = "mse",
    *,
    batch: int = 5,
    seed: int = 0,
    statistics: Collection[str] = (),
) -> None:
    """Compare directional derivatives in random directions.

    Args:
        model: forward, with initial weights; every float initializer is trained.
        loss: any.
        batch: examples.
        seed: of data and directions.
        statistics: parameters that follow the batch and not the gradient. They stay where they are, and the
            loss of the training graph, which takes the batch's own, is what differences are taken of.
    """
    forward = read_forward(model)
    training = Training(loss=loss)
    label = label_of(forward, loss)
    random = np.random.default_rng(seed)
    x = random.normal(size=(batch, *forward.input.shape))
    y = (
        random.integers(0, forward.output.shape[-1], batch)
        if loss == "cross_entropy"
        else random.uniform(size=(batch, *forward.output.shape))
    )
    ones = (1,) * len(forward.output.shape)
    # Examples of unequal weight: a rule that sums where it should not is found out.
    shares = random.uniform(0.5, 1.5, size=(batch, *ones))
    shares /= shares.sum()
    weights = forward.weights().astype(np.float64)
    weights += 0.05 * random.normal(size=weights.shape)

    def feed(at: NDArray[np.float64], dtype: Any) -> dict[str, NDArray[Any]]:
        tensors = forward.parameters.unflatten(at.astype(dtype))
        return {
            forward.input.name: x.astype(dtype),
            label.name: y if loss == "cross_entropy" else y.astype(dtype),
            "example_weights": shares.astype(dtype),
            "gradient_weights": (-shares).astype(dtype),
            **{name: np.ascontiguousarray(values) for name, values in tensors.items()},
        }

    session = open_session(build_train_step(forward, label, training))
    names = [value.name for value in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    given = feed(weights, np.float32)
    results = session.run(None, {name: value for name, value in given.items() if name in wanted})
    stepped = {name.removeprefix("new/"): value for name, value in zip(names, results, strict=True)}
    moved = {name: stepped[name] for name in forward.parameters.unflatten(forward.weights())}
    gradient = weights.astype(np.float32).astype(np.float64) - forward.parameters.flatten(moved)

    build = build_train_step if statistics else build_evaluate_step
    reference = in_float64(build(forward, label, training))
    moving = forward.parameters.flatten(
        {name: np.full(values.shape, name not in statistics) for name, values in moved.items()}
    )
    gradient *= moving
    for _ in range(DIRECTIONS):
        direction = random.normal(size=weights.shape) * moving
        direction /= np.linalg.norm(direction)
        up = reference.run(["loss"], feed(weights + STEP * direction, np.float64))[0]
        down = reference.run(["loss"], feed(weights - STEP * direction, np.float64))[0]
        difference = (float(up) - float(down)) / (2 * STEP)
        assert abs(difference - gradient @ direction) <= TOLERANCE * np.linalg.norm(gradient)


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """One thread, errors only."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Erf(OpRun):
    """The reference's own gives float32 whatever it is given."""

    op_domain = ""

    def _run(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64]]:
        return (np.vectorize(math.erf, otypes=[np.float64])(x),)


class Gelu(OpRun):
    """As Erf."""

    op_domain = ""

    def _run(self, x: NDArray[np.float64], approximate: str = "none") -> tuple[NDArray[np.float64]]:
        if approximate == "none":
            return (x * 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float64])(x * math.sqrt(0.5))),)
        return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)


class GlobalMaxPool(OpRun):
    """The reference's own takes images only."""

    op_domain = ""

    def _run(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64]]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class Pad(OpRun):
    """The reference's own cannot cut off."""

    op_domain = ""

    def _run(
        self, x: NDArray[np.float64], pads: Any, value: Any = None, axes: Any = None, mode: str = "constant"
    ) -> tuple[NDArray[np.float64]]:
        assert mode == "constant"
        for axis, around in zip(range(x.ndim) if axes is None else axes, pads.reshape(2, -1).T, strict=True):
            every = np.zeros((x.ndim, 2), dtype=np.int64)
            every[axis] = around
            x = np.pad(x, np.maximum(every, 0), constant_values=0.0 if value is None else value)
            before, after = np.maximum(-around, 0)
            x = np.take(x, range(before, x.shape[axis] - after), axis)
        return (x,)


def in_float64(model: bytes) -> ReferenceEvaluator:
    """The same graph, every float32 a float64."""
    proto: Any = onnx.load_model_from_string(model)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    tensors = [*proto.graph.initializer]
    for node in proto.graph.node:
        tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT:
            doubled = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(doubled, tensor.name))
    return ReferenceEvaluator(proto, new_ops=[Erf, Gelu, GlobalMaxPool, Pad])
