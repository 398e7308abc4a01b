"""Gradients of GRU, LSTM and RNN against differences of the loss."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from gradient_check import assert_gradient_is_right, open_session

from models.artifact import label_of
from models.catalog import build_model
from models.errors import ModelError
from models.forward import read_forward
from models.gradients.train_step import build_evaluate_step, build_train_step
from protocol.plan import Training

GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
INPUTS, HIDDEN = 3, 5


def layer(
    operator: str,
    *,
    direction: str = "forward",
    bias: bool = True,
    initial: Sequence[str] = (),
    outputs: str = "y",
    steps: int = 4,
    more: Sequence[str] = (),
    **attributes: Any,
) -> onnx.ModelProto:
    """Dense, a recurrent layer, its outputs side by side, dense: (batch, steps, 3) to (batch, 2).

    Args:
        operator: GRU, LSTM or RNN.
        direction: of it.
        bias: whether it has one.
        initial: which of "h" and "c" begin with something, that follows from the input.
        outputs: which of y, h, c the rest of the model reads, by letters.
        steps: of time.
        more: names of inputs after the bias, instead of the initial states.
        attributes: of the operator.
    """
    make, count, gates = onnx.helper.make_node, 2 if direction == "bidirectional" else 1, GATES[operator]
    width = {"y": steps * count * HIDDEN, "h": count * HIDDEN, "c": count * HIDDEN}
    shapes: dict[str, tuple[int, ...]] = {
        "dense": (INPUTS, INPUTS),
        "w": (count, gates * HIDDEN, INPUTS),
        "r": (count, gates * HIDDEN, HIDDEN),
        "last": (sum(width[name] for name in outputs), 2),
        **({"b": (count, 2 * gates * HIDDEN)} if bias else {}),
        **{f"weight_{name}": (steps * INPUTS, count * HIDDEN) for name in initial},
    }
    nodes = [make("MatMul", ["input", "dense"], ["d"]), make("Transpose", ["d"], ["x"], perm=[1, 0, 2])]
    constants = {"flat": [0, -1], "states": [0, count, HIDDEN]}
    for name in initial:
        nodes += [
            make("Reshape", ["d", "flat"], [f"{name}1"]),
            make("MatMul", [f"{name}1", f"weight_{name}"], [f"{name}2"]),
            make("Reshape", [f"{name}2", "states"], [f"{name}3"]),
            make("Transpose", [f"{name}3"], [f"first_{name}"], perm=[1, 0, 2]),
        ]
    started = ["", *(f"first_{name}" if name in initial else "" for name in "hc")]
    given = ["x", "w", "r", "b" if bias else "", *(more or started)]
    while not given[-1]:
        given.pop()
    told = [name if name in outputs else "" for name in "yhc"["yhc".index(outputs[-1]) :: -1]][::-1]
    if direction != "forward":
        attributes["direction"] = direction
    nodes.append(make(operator, given, told, hidden_size=HIDDEN, **attributes))
    for name in outputs:
        order = [2, 0, 1, 3] if name == "y" else [1, 0, 2]
        nodes += [
            make("Transpose", [name], [f"{name}_turned"], perm=order),
            make("Reshape", [f"{name}_turned", "flat"], [f"{name}_flat"]),
        ]
    nodes += [
        make("Concat", [f"{name}_flat" for name in outputs], ["all"], axis=1),
        make("MatMul", ["all", "last"], ["output"]),
    ]
    random = np.random.default_rng(3)
    graph = onnx.helper.make_graph(
        nodes,
        operator,
        [onnx.helper.make_tensor_value_info("input", 1, ["batch", steps, INPUTS])],
        [onnx.helper.make_tensor_value_info("output", 1, ["batch", 2])],
        [
            *(
                onnx.numpy_helper.from_array(random.normal(0, 0.6, shape).astype(np.float32), name)
                for name, shape in shapes.items()
            ),
            *(onnx.numpy_helper.from_array(np.array(values), name) for name, values in constants.items()),
        ],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)


CELLS = [("GRU", {"linear_before_reset": 1}), ("GRU", {}), ("LSTM", {}), ("RNN", {})]


@pytest.mark.parametrize(("operator", "attributes"), CELLS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_every_direction(operator: str, attributes: dict[str, Any], direction: str) -> None:
    assert_gradient_is_right(layer(operator, direction=direction, outputs="yh", **attributes))


@pytest.mark.parametrize(("operator", "attributes"), CELLS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_initial_states_that_are_learned(operator: str, attributes: dict[str, Any], direction: str) -> None:
    states = "hc" if operator == "LSTM" else "h"
    assert_gradient_is_right(
        layer(operator, direction=direction, initial=states, outputs=states, **attributes)
    )


@pytest.mark.parametrize(("operator", "attributes"), CELLS)
@pytest.mark.parametrize("outputs", ["y", "h", "yh"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_without_biases(operator: str, attributes: dict[str, Any], outputs: str, steps: int) -> None:
    assert_gradient_is_right(layer(operator, bias=False, outputs=outputs, steps=steps, **attributes))


@pytest.mark.parametrize("outputs", ["c", "yc", "hc", "yhc"])
@pytest.mark.parametrize("initial", ["", "h", "c"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_the_cell_state(outputs: str, initial: str, direction: str) -> None:
    assert_gradient_is_right(layer("LSTM", direction=direction, outputs=outputs, initial=initial))


def build(model: onnx.ModelProto) -> onnx.ModelProto:
    forward, training = read_forward(model), Training(loss="mse")
    return onnx.load_model_from_string(build_train_step(forward, label_of(forward, "mse"), training))


@pytest.mark.parametrize(
    ("operator", "attributes", "cause"),
    [
        ("GRU", {"activations": ["Sigmoid", "Relu"]}, "only its default activations Sigmoid, Tanh"),
        ("RNN", {"activations": ["Relu"]}, "only its default activations Tanh"),
        ("LSTM", {"clip": 3.0}, "the attribute clip"),
        ("LSTM", {"input_forget": 1}, "the attribute input_forget"),
        ("GRU", {"more": ["first"]}, "its input sequence_lens"),
        ("LSTM", {"more": ["", "", "", "peepholes"]}, r"its input P \(peepholes\)"),
        ("GRU", {"steps": 1001}, "1001 time steps, at most 1000 can be trained: take shorter windows"),
        ("LSTM", {"steps": 313, "direction": "bidirectional"}, "313 time steps, at most 312"),
    ],
)
def test_what_has_no_gradient_says_so(operator: str, attributes: dict[str, Any], cause: str) -> None:
    model = layer(operator, **attributes)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([4], dtype=np.int32), "first"))
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.ones((1, 3 * HIDDEN), dtype=np.float32), "peepholes")
    )
    with pytest.raises(ModelError, match=cause):
        build(model)


@pytest.mark.parametrize("operator", GATES)
def test_named_defaults_are_defaults(operator: str) -> None:
    names = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "RNN": ["Tanh"]}[operator]
    model = layer(operator, direction="bidirectional", activations=names * 2)
    assert_gradient_is_right(model)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_they_learn_what_came_first(name: str) -> None:
    """A pulse in each of two channels, in noise: only what remembers can tell which one was earlier."""
    random, batch, window = np.random.default_rng(1), 32, 20

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        places = np.array([random.choice(window, 2, replace=False) for _ in range(count)])
        x = random.normal(0, 0.1, (count, 2, window)).astype(np.float32)
        for channel in range(2):
            x[np.arange(count), channel, places[:, channel]] += 2
        return x, (places[:, 0] > places[:, 1]).astype(np.int64)

    sizes = {"channels": 2, "window": window, "classes": 2, "hidden": 16}
    forward, training = read_forward(build_model(name, sizes, seed=1)), Training(loss="cross_entropy")
    label = label_of(forward, "cross_entropy")
    session = open_session(build_train_step(forward, label, training))
    names = [value.name for value in session.get_outputs()]
    weights = dict(forward.parameters.unflatten(forward.weights()))
    shares = np.full((batch, 1), 1 / batch, dtype=np.float32)
    for _ in range(400):
        x, y = draw(batch)
        feed = {"input": x, "labels": y, "example_weights": shares, "gradient_weights": -0.5 * shares}
        results = session.run(
            None, {**feed, **{key: np.ascontiguousarray(of) for key, of in weights.items()}}
        )
        stepped = dict(zip(names, results, strict=True))
        weights = {key: stepped[f"new/{key}"] for key in weights}

    x, y = draw(500)
    evaluation = open_session(build_evaluate_step(forward, label, training))
    shares = np.full((500, 1), 1 / 500, dtype=np.float32)
    logits = evaluation.run(["output"], {"input": x, "labels": y, "example_weights": shares, **weights})[0]
    assert np.mean(logits.argmax(axis=1) == y) >= 0.95
