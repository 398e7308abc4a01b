"""Gradients of normalisation, and the statistics that a batch leaves behind."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from gradient_check import assert_gradient_is_right, open_session

from models.artifact import label_of
from models.errors import ModelError
from models.forward import read_forward
from models.gradients.train_step import build_evaluate_step, build_train_step
from protocol.plan import Training

TRAINING = Training(loss="mse")
RUNNING = "mean", "variance"


def around(
    node: onnx.NodeProto,
    example: Sequence[int],
    tensors: Mapping[str, np.ndarray],
    *constants: onnx.NodeProto,
) -> onnx.ModelProto:
    """input (batch, *example) -> Mul by a weight for each element -> node -> dense -> output."""
    random = np.random.default_rng(7)
    width = int(np.prod(example))
    every = {
        "gate": random.normal(size=example).astype(np.float32),
        **tensors,
        "last": random.normal(size=(width, 2)).astype(np.float32),
    }
    make = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            *constants,
            make("Mul", ["input", "gate"], ["h"]),
            node,
            make("Flatten", ["z"], ["f"]),
            make("MatMul", ["f", "last"], ["output"]),
        ],
        "around",
        [onnx.helper.make_tensor_value_info("input", 1, ["batch", *example])],
        [onnx.helper.make_tensor_value_info("output", 1, ["batch", 2])],
        [onnx.numpy_helper.from_array(value, name) for name, value in every.items()],
        # onnx does not infer the shape of every normalisation; exporters write it down.
        value_info=[onnx.helper.make_tensor_value_info("z", 1, ["batch", *example])],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


def positive(*shape: int) -> np.ndarray:
    return np.random.default_rng(8).uniform(0.5, 1.5, size=shape).astype(np.float32)


def batch_norm(example: Sequence[int], *, frozen: Sequence[str] = (), **attributes: Any) -> onnx.ModelProto:
    """BatchNormalization; what is frozen is a Constant, and so no parameter."""
    names = ["scale", "bias", *RUNNING]
    node = onnx.helper.make_node("BatchNormalization", ["h", *names], ["z"], **attributes)
    values = {name: positive(example[0]) for name in names}
    constants = [
        onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(values.pop(name)))
        for name in frozen
    ]
    return around(node, example, values, *constants)


def run(
    model: onnx.ModelProto, x: np.ndarray, shares: np.ndarray, **changed: np.ndarray
) -> dict[str, np.ndarray]:
    """One step."""
    return _run(build_train_step, model, x, shares, changed)


def evaluate(model: onnx.ModelProto, x: np.ndarray, **changed: np.ndarray) -> dict[str, np.ndarray]:
    return _run(build_evaluate_step, model, x, np.full(len(x), 1 / len(x)), changed)


def _run(
    build: Any, model: onnx.ModelProto, x: np.ndarray, shares: np.ndarray, changed: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    forward = read_forward(model)
    session = open_session(build(forward, label_of(forward, "mse"), TRAINING))
    feed = {
        "input": x.astype(np.float32),
        "target": np.zeros((len(x), 2), dtype=np.float32),
        "example_weights": shares.astype(np.float32).reshape(-1, 1),
        "gradient_weights": -shares.astype(np.float32).reshape(-1, 1),
        **forward.parameters.unflatten(forward.weights()),
        **changed,
    }
    names = [value.name for value in session.get_outputs()]
    wanted = [value.name for value in session.get_inputs()]
    return dict(zip(names, session.run(None, {name: feed[name] for name in wanted}), strict=True))


SHAPES = [(3,), (3, 5), (2, 4, 3)]


@pytest.mark.parametrize("example", SHAPES)
def test_the_batchs_own_statistics(example: tuple[int, ...]) -> None:
    assert_gradient_is_right(batch_norm(example), statistics=RUNNING)


@pytest.mark.parametrize("example", SHAPES)
@pytest.mark.parametrize("frozen", [RUNNING, ("mean",), (*RUNNING, "scale"), (*RUNNING, "scale", "bias")])
def test_statistics_that_nobody_learns(example: tuple[int, ...], frozen: tuple[str, ...]) -> None:
    learnt = set(RUNNING) - set(frozen)
    if learnt:
        stepped = run(batch_norm(example, frozen=frozen), np.ones((4, *example)), np.full(4, 0.25))
        np.testing.assert_array_equal(stepped["new/variance"], positive(example[0]))
    else:
        assert_gradient_is_right(batch_norm(example, frozen=frozen, epsilon=1e-3))


@pytest.mark.parametrize("example", SHAPES)
def test_running_statistics_follow_the_weighted_batch(example: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    x, shares = random.normal(size=(6, *example)), np.array([0.1, 0.4, 0.2, 0.3, 0.0, 0.0])
    gate = np.ones(example, dtype=np.float32)

    stepped = run(batch_norm(example, momentum=0.7), x, shares, gate=gate)

    channels = np.moveaxis(x, 1, -1).reshape(len(x), -1, example[0])
    mean = np.einsum("b,bsc->c", shares, channels) / channels.shape[1]
    variance = np.einsum("b,bsc->c", shares, (channels - mean) ** 2) / channels.shape[1]
    np.testing.assert_allclose(stepped["new/mean"], 0.7 * positive(example[0]) + 0.3 * mean, rtol=1e-5)
    np.testing.assert_allclose(
        stepped["new/variance"], 0.7 * positive(example[0]) + 0.3 * variance, rtol=1e-5
    )


def test_examples_that_fill_up_a_batch_change_nothing() -> None:
    random, model = np.random.default_rng(1), batch_norm((3, 5))
    x = random.normal(size=(6, 3, 5))

    alone = run(model, x[:4], np.full(4, 0.25))
    filled = run(model, x, np.array([0.25] * 4 + [0, 0]))

    for name, value in alone.items():
        np.testing.assert_allclose(filled[name], value, rtol=1e-4, atol=1e-5)


def test_training_and_evaluation_agree_once_the_statistics_are_the_batchs() -> None:
    random, model = np.random.default_rng(1), batch_norm((2, 4), momentum=0.0)
    x = random.normal(size=(6, 2, 4))
    stepped = run(model, x, np.full(6, 1 / 6))

    judged = evaluate(model, x, mean=stepped["new/mean"], variance=stepped["new/variance"])

    np.testing.assert_allclose(judged["loss"], stepped["loss"], rtol=1e-5)


def test_a_negative_variance_counts_as_none() -> None:
    model, x = batch_norm((2, 4)), np.random.default_rng(1).normal(size=(3, 2, 4))
    negative, none = np.array([-0.5, 1.0], np.float32), np.array([0.0, 1.0], np.float32)

    judged = evaluate(model, x, variance=negative)

    assert np.isfinite(judged["loss"])
    np.testing.assert_array_equal(judged["loss"], evaluate(model, x, variance=none)["loss"])


def test_frozen_negative_variance_trains() -> None:
    model, x = batch_norm((2, 4), frozen=["mean"]), np.random.default_rng(1).normal(size=(3, 2, 4))

    stepped = run(model, x, np.full(3, 1 / 3), variance=np.array([-0.5, 1.0], np.float32))

    assert all(np.isfinite(value).all() for value in stepped.values())


def test_a_model_exported_in_training_mode_is_refused() -> None:
    model = batch_norm((2, 4))
    node = model.graph.node[1]
    node.attribute.append(onnx.helper.make_attribute("training_mode", 1))
    node.output.extend(["m", "v"])
    forward = read_forward(model)

    with pytest.raises(ModelError, match="evaluation mode"):
        build_train_step(forward, label_of(forward, "mse"), TRAINING)


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("biased", [True, False])
def test_each_vector(axis: int, *, biased: bool) -> None:
    example = (3, 4)
    shape = example[(axis % 3) - 1 :]
    tensors = {"scale": positive(*shape), **({"bias": positive(*shape)} if biased else {})}
    node = onnx.helper.make_node("LayerNormalization", ["h", *tensors], ["z"], axis=axis, epsilon=1e-3)

    assert_gradient_is_right(around(node, example, tensors))


@pytest.mark.parametrize("example", [(4, 5), (4, 3, 2)])
def test_each_channel_and_each_group_of_them(example: tuple[int, ...]) -> None:
    tensors = {"scale": positive(4), "bias": positive(4)}
    make = onnx.helper.make_node
    instance = make("InstanceNormalization", ["h", *tensors], ["z"], epsilon=1e-3)
    group = make("GroupNormalization", ["h", *tensors], ["z"], num_groups=2)

    assert_gradient_is_right(around(instance, example, tensors))
    assert_gradient_is_right(around(group, example, tensors))
