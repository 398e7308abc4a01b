"""Gradients of operators that move elements, join several, or sum over axes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from gradient_check import assert_gradient_is_right
from onnx import helper, numpy_helper

from models.artifact import build_bundle
from models.engines import load_engine
from models.errors import ModelError
from models.forward import read_forward
from models.installed import ORT_GRAPH
from protocol.plan import Training

RANDOM = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def node(operator: str, *inputs: str, to: str = "z", **attributes: Any) -> Any:
    return helper.make_node(operator, list(inputs), to.split(), name=f"the {operator}", **attributes)


def around(
    *body: Any, out: tuple[int, ...] = (6,), example: tuple[int, ...] = (4,), **tensors: np.ndarray
) -> Any:
    """input (batch, 4) -> h = input @ first (batch, 6) -> body -> z (batch, *out), the output."""
    given: Mapping[str, np.ndarray] = {"first": floats(example[-1], 6), **tensors}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "first"], ["h"]), *body],
        "around",
        [helper.make_tensor_value_info("input", 1, ["batch", *example])],
        [helper.make_tensor_value_info("z", 1, ["batch", *out])],
        [numpy_helper.from_array(value, name) for name, value in given.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


WEIGHTS = floats(6)
POSITIVE = np.abs(floats(6)) + 1

CASES = {
    "Add a row": around(node("Add", "h", "w"), w=WEIGHTS),
    "Add a column that is repeated": around(node("Add", "h", "w"), w=floats(1, 1)),
    "Sub": around(node("Sub", "w", "h"), w=WEIGHTS),
    "Mul": around(node("Mul", "h", "w"), w=WEIGHTS),
    "Mul by itself": around(node("Mul", "h", "h")),
    "Div": around(node("Div", "h", "w"), w=POSITIVE),
    "Sum of three": around(node("Sum", "h", "w", "h"), w=WEIGHTS),
    "Max": around(node("Max", "h", "w"), w=WEIGHTS),
    "Min": around(node("Min", "h", "w"), w=WEIGHTS),
    "Where": around(node("Greater", "h", "w", to="c"), node("Where", "c", "h", "w"), w=WEIGHTS),
    "Pow": around(node("Abs", "h", to="a"), node("Pow", "a", "p"), p=np.array(1.5, dtype=np.float32)),
    "Sqrt and Log": around(
        node("Mul", "h", "h", to="s"),
        node("Add", "s", "one", to="p"),
        node("Sqrt", "p", to="r"),
        node("Log", "r"),
        one=np.array(1.0, dtype=np.float32),
    ),
    "Reciprocal": around(node("Exp", "h", to="e"), node("Reciprocal", "e")),
    "Clip": around(
        node("Clip", "h", "low", "high"),
        low=np.array(-0.5, dtype=np.float32),
        high=np.array(0.7, dtype=np.float32),
    ),
    "Gemm, both transposed": around(
        node("Transpose", "h", to="t", perm=[1, 0]),
        node("Gemm", "t", "w", "b", transA=1, transB=1, alpha=0.5, beta=2.0),
        out=(3,),
        w=floats(3, 6),
        b=floats(3),
    ),
    "MatMul of three axes": around(node("MatMul", "h", "w"), out=(5, 3), example=(5, 4), w=floats(6, 3)),
    "MatMul of two that are computed": around(
        node("Transpose", "h", to="t", perm=[0, 2, 1]), node("MatMul", "h", "t"), out=(5, 5), example=(5, 4)
    ),
    "Reshape": around(node("Reshape", "h", "s"), out=(2, 3), s=ints(-1, 2, 3)),
    "Reshape with 0": around(node("Reshape", "h", "s"), out=(30,), example=(5, 4), s=ints(0, 30)),
    "Flatten": around(node("Flatten", "h"), out=(30,), example=(5, 4)),
    "Squeeze and Unsqueeze": around(
        node("Unsqueeze", "h", "a", to="u"), node("Tanh", "u", to="v"), node("Squeeze", "v", "a"), a=ints(1)
    ),
    "Transpose": around(node("Transpose", "h", perm=[0, 2, 1]), out=(6, 5), example=(5, 4)),
    "Concat": around(node("Tanh", "h", to="t"), node("Concat", "h", "t", "h", axis=1), out=(18,)),
    "Split": around(
        node("Split", "h", "s", to="a b", axis=1), node("Concat", "b", "a", axis=1), s=ints(2, 4)
    ),
    "Split of which a part leads nowhere": around(
        node("Split", "h", "s", to="z b", axis=1), out=(2,), s=ints(2, 4)
    ),
    "Slice": around(node("Slice", "h", "b", "e", "a"), out=(3,), b=ints(1), e=ints(4), a=ints(1)),
    "Slice of two axes, from the end": around(
        node("Slice", "h", "b", "e", "a"),
        out=(2, 4),
        example=(5, 4),
        b=ints(-3, 1),
        e=ints(-1, 5),
        a=ints(1, 2),
    ),
    "Slice by steps": around(
        node("Slice", "h", "b", "e", "a", "s"), out=(3,), b=ints(0), e=ints(6), a=ints(1), s=ints(2)
    ),
    "Slice backwards": around(
        node("Slice", "h", "b", "e", "a", "s"), out=(6,), b=ints(-1), e=ints(-(2**62)), a=ints(1), s=ints(-1)
    ),
    "Expand": around(
        node("Unsqueeze", "h", "a", to="u"), node("Expand", "u", "s"), out=(3, 6), a=ints(1), s=ints(1, 3, 1)
    ),
    "Gather of a column": around(node("Gather", "h", "i", axis=1), out=(3,), i=ints(4, 0, 4)),
    "Gather of the last": around(
        node("Gather", "h", "i", axis=1), out=(6,), example=(5, 4), i=np.array(4, dtype=np.int64)
    ),
    "ReduceMean": around(node("ReduceMean", "h", "a", keepdims=0), out=(6,), example=(5, 4), a=ints(1)),
    "ReduceSum": around(node("ReduceSum", "h", "a", keepdims=1), out=(1,), a=ints(-1)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_right(case: str) -> None:
    assert_gradient_is_right(CASES[case])


def test_an_embedding_that_is_read_twice_gets_both_gradients() -> None:
    body = [
        node("Mul", "h", "zero", to="none"),
        helper.make_node("Cast", ["none"], ["rows"], to=onnx.TensorProto.INT64),
        node("Gather", "table", "rows", to="found"),
        node("ReduceSum", "found", "axis", keepdims=0),
    ]
    model = around(*body, out=(3,), zero=np.array(0.0, dtype=np.float32), table=floats(4, 3), axis=ints(1))

    assert_gradient_is_right(model)


def test_dropout_leaves_out_by_noise_that_a_seed_repeats() -> None:
    rate = np.array(0.5, dtype=np.float32)
    training = Training(loss="mse", local_epochs=1, batch_size=8, learning_rate=1.0)
    model = around(node("Dropout", "h", "rate"), rate=rate)
    bundle = build_bundle(model, training)
    weights, x = read_forward(model).weights(), floats(8, 4)
    engine = load_engine(bundle, ORT_GRAPH)

    first, again, other = (
        engine.fit(weights, x, np.zeros((8, 6), dtype=np.float32), training, seed=seed).weights
        for seed in (1, 1, 2)
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    # What is evaluated has no holes.
    exact = float(np.mean((x @ weights.reshape(4, 6)) ** 2, axis=1).sum())
    judged = engine.evaluate(weights, x, np.zeros((8, 6), dtype=np.float32))
    assert judged.loss_sum == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (around(node("Pow", "h", "p"), p=WEIGHTS), "the Pow.*single constant exponent"),
        (around(node("ReduceMean", "h", "a"), a=ints(0)), "the ReduceMean.*over the batch"),
        (around(node("Concat", "h", "h", axis=0)), "the Concat.*the batch cannot be cut or joined"),
    ],
)
def test_what_has_no_gradient_here_is_told_with_its_node(model: onnx.ModelProto, cause: str) -> None:
    with pytest.raises(ModelError, match=cause):
        build_bundle(model, Training(loss="mse"))
