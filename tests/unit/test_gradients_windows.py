"""Gradients of convolution, pooling and padding, for every attribute that is supported."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from gradient_check import assert_gradient_is_right, open_session

from models.artifact import label_of
from models.catalog import build_model
from models.errors import ModelError
from models.forward import read_forward
from models.gradients.train_step import build_train_step
from protocol.plan import Training


def around(
    operator: str,
    example: Sequence[int],
    weights: Sequence[Sequence[int]] = (),
    *more: np.ndarray,
    **attributes: Any,
) -> onnx.ModelProto:
    """input (batch, *example) -> Mul by a weight for each element -> operator -> dense -> output (batch, 2).

    The operator's further inputs are weights of the given shapes, then constants.
    """
    random = np.random.default_rng(7)
    tensors = {"gate": random.normal(size=example).astype(np.float32)}
    for index, shape in enumerate(weights):
        tensors[f"w{index}"] = random.normal(size=shape).astype(np.float32)
    constants = {f"c{index}": value for index, value in enumerate(more)}
    make = onnx.helper.make_node
    body = [
        make("Mul", ["input", "gate"], ["h"]),
        make(operator, ["h", *[name for name in tensors if name != "gate"], *constants], ["z"], **attributes),
    ]
    width = _width(body, example, {**tensors, **constants})
    tensors["last"] = random.normal(size=(width, 2)).astype(np.float32)
    body += [make("Flatten", ["z"], ["f"]), make("MatMul", ["f", "last"], ["output"])]
    return _model(body, example, ("batch", 2), {**tensors, **constants})


def _width(body: Sequence[Any], example: Sequence[int], tensors: Mapping[str, np.ndarray]) -> int:
    model = _model(
        [*body, onnx.helper.make_node("Flatten", ["z"], ["output"])], example, ("batch", None), tensors
    )
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shape = next(value for value in inferred.graph.value_info if value.name == "z").type.tensor_type.shape
    return math.prod(dim.dim_value for dim in shape.dim[1:])


def _model(
    body: Sequence[Any], example: Sequence[int], output: Sequence[Any], tensors: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    graph = onnx.helper.make_graph(
        body,
        "around",
        [onnx.helper.make_tensor_value_info("input", 1, ["batch", *example])],
        [onnx.helper.make_tensor_value_info("output", 1, output)],
        [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


def refuse(model: onnx.ModelProto, cause: str) -> None:
    forward = read_forward(model)
    with pytest.raises(ModelError, match=cause):
        build_train_step(forward, label_of(forward, "mse"), Training(loss="mse"))


def gradients(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Of every parameter, for fixed examples, as ONNX Runtime computes them."""
    forward, random = read_forward(model), np.random.default_rng(2)
    training = Training(loss="mse")
    session = open_session(build_train_step(forward, label_of(forward, "mse"), training))
    weights = forward.parameters.unflatten(forward.weights())
    feed = {
        "input": random.normal(size=(3, *forward.input.shape)).astype(np.float32),
        "target": random.normal(size=(3, *forward.output.shape)).astype(np.float32),
        "example_weights": np.full((3, 1), 1 / 3, dtype=np.float32),
        "gradient_weights": np.full((3, 1), -1 / 3, dtype=np.float32),
        **weights,
    }
    names = [value.name for value in session.get_outputs()]
    stepped = dict(zip(names, session.run(None, feed), strict=True))
    return {name: values - stepped[f"new/{name}"] for name, values in weights.items()}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("cnn1d", {"channels": 2, "window": 16, "classes": 3, "filters": 4}),
        ("dscnn1d", {"channels": 2, "window": 16, "classes": 3, "filters": 4}),
        ("cnn2d", {"channels": 1, "height": 9, "width": 8, "classes": 3, "filters1": 2, "filters2": 3}),
    ],
)
def test_the_catalog(name: str, sizes: dict[str, int]) -> None:
    assert_gradient_is_right(build_model(name, sizes, seed=1), "cross_entropy")


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2]},
        {"strides": [3], "pads": [2, 1]},
        {"dilations": [2], "pads": [0, 3]},
        {"strides": [2], "dilations": [3], "pads": [3, 4]},
        {"auto_pad": "VALID", "strides": [2]},
        {"auto_pad": "SAME_UPPER", "strides": [2]},
        {"auto_pad": "SAME_LOWER", "strides": [3]},
        {"auto_pad": "SAME_LOWER"},
    ],
)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolution_of_signals(attributes: dict[str, Any], groups: int) -> None:
    shapes = (8, 4 // groups, 3), (8,)
    assert_gradient_is_right(around("Conv", (4, 12), shapes, group=groups, **attributes))


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 1], "pads": [1, 0, 2, 1]},
        {"strides": [2, 3], "dilations": [1, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [3, 2]},
    ],
)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolution_of_images(attributes: dict[str, Any], groups: int) -> None:
    shapes = [(4, 4 // groups, 3, 2)]
    assert_gradient_is_right(around("Conv", (4, 7, 8), shapes, group=groups, **attributes))


@pytest.mark.parametrize("pads", [[1, 0, 2, 1], [0, 3, 0, 0]])
def test_each_channel_by_itself(pads: list[int]) -> None:
    assert_gradient_is_right(around("Conv", (3, 6, 7), [(3, 1, 3, 2)], group=3, dilations=[1, 2], pads=pads))


def test_dilations_say_their_padding_themselves() -> None:
    refuse(around("Conv", (3, 8), [(4, 3, 2)], dilations=[2], auto_pad="SAME_UPPER"), "give pads")


@pytest.mark.parametrize("strides", [[1], [2]])
def test_convolution_with_a_kernel_of_one(strides: list[int]) -> None:
    assert_gradient_is_right(around("Conv", (3, 8), [(4, 3, 1)], strides=strides))


def test_convolution_of_volumes() -> None:
    shapes = (3, 2, 2, 3, 2), (3,)
    assert_gradient_is_right(around("Conv", (2, 4, 5, 4), shapes, strides=[1, 2, 1], pads=[0, 1, 0, 0, 1, 1]))


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2]},
        {"strides": [3], "pads": [1, 2], "output_padding": [1]},
        {"strides": [2], "dilations": [2]},
    ],
)
def test_transposed_convolution_of_signals(attributes: dict[str, Any]) -> None:
    shapes = (4, 3, 3), (3,)
    assert_gradient_is_right(around("ConvTranspose", (4, 5), shapes, **attributes))


def test_groups_of_a_transposed_convolution_are_blocks_of_a_whole_one() -> None:
    grouped, whole = (
        around("ConvTranspose", (4, 5), [shape], strides=[2], group=groups)
        for shape, groups in (((4, 3, 3), 2), ((4, 6, 3), 1))
    )
    blocks, full = grouped.graph.initializer[1], whole.graph.initializer[1]
    values = onnx.numpy_helper.to_array(blocks)
    wide = np.zeros((4, 6, 3), dtype=np.float32)
    wide[:2, :3], wide[2:, 3:] = values[:2], values[2:]
    full.CopyFrom(onnx.numpy_helper.from_array(wide, full.name))
    whole.graph.initializer[-1].CopyFrom(grouped.graph.initializer[-1])

    one, other = gradients(grouped), gradients(whole)

    np.testing.assert_allclose(one["w0"][:2], other["w0"][:2, :3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one["w0"][2:], other["w0"][2:, 3:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one["gate"], other["gate"], rtol=1e-4, atol=1e-5)


def test_transposed_convolution_of_images() -> None:
    shapes = [(3, 2, 2, 3)]
    assert_gradient_is_right(around("ConvTranspose", (3, 4, 3), shapes, strides=[2, 1], pads=[0, 1, 1, 0]))


def test_a_transposed_convolution_says_its_padding_itself() -> None:
    refuse(around("ConvTranspose", (3, 4), [(3, 2, 2)], strides=[2], auto_pad="SAME_UPPER"), "give pads")


POOLS_1D = [
    {"kernel_shape": [2], "strides": [2]},
    {"kernel_shape": [3], "strides": [3]},
    {"kernel_shape": [3], "strides": [2]},
    {"kernel_shape": [3], "strides": [2], "pads": [1, 1]},
    {"kernel_shape": [2], "strides": [3]},
    {"kernel_shape": [3], "auto_pad": "SAME_UPPER", "strides": [2]},
    {"kernel_shape": [3], "auto_pad": "VALID", "strides": [3]},
    {"kernel_shape": [3], "dilations": [2], "strides": [3]},
]
POOLS_2D = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 2], "strides": [3, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [0, 1, 2, 0]},
    {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"kernel_shape": [2, 3], "dilations": [2, 1], "strides": [1, 1]},
]


@pytest.mark.parametrize("attributes", POOLS_1D)
def test_pooling_of_signals(attributes: dict[str, Any]) -> None:
    assert_gradient_is_right(around("MaxPool", (3, 11), **attributes))
    assert_gradient_is_right(around("AveragePool", (3, 11), **attributes))
    assert_gradient_is_right(around("AveragePool", (3, 11), **attributes, count_include_pad=1))


@pytest.mark.parametrize("attributes", POOLS_2D)
def test_pooling_of_images(attributes: dict[str, Any]) -> None:
    assert_gradient_is_right(around("MaxPool", (2, 7, 6), **attributes))
    assert_gradient_is_right(around("AveragePool", (2, 7, 6), **attributes))
    assert_gradient_is_right(around("AveragePool", (2, 7, 6), **attributes, count_include_pad=1))


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_padding_at_the_start_is_like_padding_said(operator: str) -> None:
    same = around(operator, (2, 7), kernel_shape=[4], strides=[2], auto_pad="SAME_LOWER")
    said = around(operator, (2, 7), kernel_shape=[4], strides=[2], pads=[2, 1])

    for one, other in zip(gradients(same).values(), gradients(said).values(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("operator", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("example", [(3, 6), (2, 4, 5)])
def test_pooling_of_everything(operator: str, example: tuple[int, ...]) -> None:
    assert_gradient_is_right(around(operator, example))


def test_windows_beyond_the_end() -> None:
    assert_gradient_is_right(around("MaxPool", (3, 11), kernel_shape=[2], strides=[2], ceil_mode=1))
    refuse(around("AveragePool", (3, 11), kernel_shape=[2], strides=[2], ceil_mode=1), "ceil_mode")


@pytest.mark.parametrize("pads", [[0, 0, 1, 0, 0, 2], [0, 1, 0, 0, 0, 3], [0, 0, -2, 0, 0, 1]])
def test_padding(pads: list[int]) -> None:
    assert_gradient_is_right(around("Pad", (3, 6), (), np.array(pads, dtype=np.int64)))


def test_padding_along_some_axes() -> None:
    pads, axis = np.array([1, 2], dtype=np.int64), np.array([-1], dtype=np.int64)
    assert_gradient_is_right(around("Pad", (3, 6), (), pads, np.float32(0.5), axis))


def test_padding_by_reflection_is_refused() -> None:
    refuse(
        around("Pad", (3, 6), (), np.array([0, 0, 1, 0, 0, 1], dtype=np.int64), mode="reflect"),
        "mode constant",
    )
