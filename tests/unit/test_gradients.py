"""Gradients of whole models and of single operators, in graphs of standard operators."""

import numpy as np
import onnx
import pytest
from gradient_check import assert_gradient_is_right

from models.catalog import build_model
from protocol.plan import Loss


@pytest.mark.parametrize(
    ("name", "sizes", "loss"),
    [
        ("logistic", {"features": 10, "classes": 4}, "cross_entropy"),
        ("mlp", {"features": 10, "classes": 4, "hidden": 12}, "cross_entropy"),
        ("gru", {"channels": 3, "window": 6, "classes": 4, "hidden": 5}, "cross_entropy"),
        ("lstm", {"channels": 3, "window": 6, "classes": 4, "hidden": 5}, "cross_entropy"),
        ("autoencoder", {"features": 10}, "mse"),
        ("autoencoder", {"features": 10}, "bce"),
        ("autoencoder", {"features": 10}, "l1"),
        ("autoencoder", {"features": 10}, "huber"),
    ],
)
def test_the_catalog(name: str, sizes: dict[str, int], loss: Loss) -> None:
    assert_gradient_is_right(build_model(name, sizes, seed=1), loss)


def _dense_around(
    *body: onnx.NodeProto, width: int = 6, out: int | None = None, **more: np.ndarray
) -> onnx.ModelProto:
    """input (batch, 6) -> MatMul -> "h" (batch, width) -> body -> "z" -> MatMul -> output (batch, 3)."""
    random = np.random.default_rng(3)
    tensors = {
        "first": random.normal(size=(6, width)).astype(np.float32),
        "last": random.normal(size=(out or width, 3)).astype(np.float32),
        **more,
    }
    make = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [make("MatMul", ["input", "first"], ["h"]), *body, make("MatMul", ["z", "last"], ["output"])],
        "around",
        [onnx.helper.make_tensor_value_info("input", 1, ["batch", 6])],
        [onnx.helper.make_tensor_value_info("output", 1, ["batch", 3])],
        [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    "operator",
    [
        *("Abs", "Cos", "Elu", "Erf", "Exp", "Gelu", "Identity", "LeakyRelu", "LogSoftmax", "Neg", "Relu"),
        *("Sigmoid", "Sin", "Softmax", "Softplus", "Tanh"),
    ],
)
def test_one_input(operator: str) -> None:
    assert_gradient_is_right(_dense_around(onnx.helper.make_node(operator, ["h"], ["z"])))
