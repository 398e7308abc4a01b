"""scikit-learn's own operators (domain ai.onnx.ml) in standard ones.

https://onnx.ai/onnx/operators/index.html, domain ai.onnx.ml.
"""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from models.errors import ModelError
from models.exporters.wires import attribute, fresh, label, replace

DOMAIN = "ai.onnx.ml"


def rewrite_sklearn(model: Any) -> None:
    """Linear models and scaling become MatMul, Add and Softmax.

    Raises:
        ModelError: an operator without parameters that a gradient could train; names it.
    """
    graph = model.graph
    for node in [node for node in graph.node if node.domain == DOMAIN]:
        if node.op_type not in _REWRITTEN:
            raise ModelError(
                f"{label(node)} of scikit-learn has no gradient; of its models only linear ones, "
                "MLPClassifier and MLPRegressor, with StandardScaler before them, can be trained"
            )
        found = next(each for each in graph.node if each.output[0] == node.output[0])
        replace(graph, found, _REWRITTEN[node.op_type](graph, found))


def _classifier(graph: Any, node: Any) -> Sequence[Any]:
    """Its second output, probabilities; whoever wants labels takes the greatest."""
    transform = _text(node, "post_transform")
    weights, bias = _floats(node, "coefficients"), _floats(node, "intercepts")
    classes = len(bias)
    weights = weights.reshape(classes, -1)
    pair = classes == 2 and np.allclose(weights[0], -weights[1])  # noqa: PLR2004 (no and yes)
    if transform == "LOGISTIC" and pair:
        # sigmoid(-z), sigmoid(z) are softmax(-z/2, z/2).
        weights, bias, transform = weights / 2, bias / 2, "SOFTMAX"
    if transform not in {"SOFTMAX", "NONE"}:
        raise ModelError(
            f"{label(node)} judges each class by itself ({transform}); fit a LogisticRegression of "
            "all classes at once"
        )
    answer = node.output[1]
    if transform == "NONE":
        return _linear(graph, node, weights, bias, answer)
    logits = fresh(graph, f"{answer}.logits")
    return [
        *_linear(graph, node, weights, bias, logits),
        helper.make_node("Softmax", [logits], [answer], axis=1),
    ]


def _regressor(graph: Any, node: Any) -> Sequence[Any]:
    if (transform := _text(node, "post_transform")) != "NONE":
        raise ModelError(f"{label(node)} with {transform} has no gradient; export it without")
    targets = attribute(node, "targets")
    weights = _floats(node, "coefficients").reshape(1 if targets is None else targets.i, -1)
    bias = _floats(node, "intercepts")
    return _linear(graph, node, weights, bias if len(bias) else np.zeros(len(weights)), node.output[0])


def _linear(graph: Any, node: Any, weights: NDArray[Any], bias: NDArray[Any], output: str) -> Sequence[Any]:
    names = fresh(graph, "coefficients"), fresh(graph, "intercepts")
    for name, values in zip(names, (weights.T, bias), strict=True):
        graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), name)
        )
    product = fresh(graph, f"{output}.product")
    return [
        helper.make_node("MatMul", [node.input[0], names[0]], [product]),
        helper.make_node("Add", [product, names[1]], [output]),
    ]


def _scaler(graph: Any, node: Any) -> Sequence[Any]:
    """Its numbers are constants: they came from data, and are not trained."""
    made, value = [], node.input[0]
    for name, operator, output in (
        ("offset", "Sub", fresh(graph, f"{node.output[0]}.shifted")),
        ("scale", "Mul", node.output[0]),
    ):
        constant = fresh(graph, f"{node.output[0]}.{name}")
        numbers = numpy_helper.from_array(_floats(node, name).astype(np.float32))
        made.append(helper.make_node("Constant", [], [constant], value=numbers))
        made.append(helper.make_node(operator, [value, constant], [output]))
        value = output
    return made


def _normalizer(_graph: Any, node: Any) -> Sequence[Any]:
    """What comes out of a Softmax has the sum 1 already."""
    if (norm := _text(node, "norm")) != "L1":
        raise ModelError(f"{label(node)} with norm {norm} has no gradient; export without it")
    return [helper.make_node("Identity", [node.input[0]], [node.output[0]])]


def _text(node: Any, name: str) -> str:
    found = attribute(node, name)
    return "NONE" if found is None else found.s.decode()


def _floats(node: Any, name: str) -> NDArray[Any]:
    found = attribute(node, name)
    return np.array([] if found is None else found.floats, dtype=np.float64)


_REWRITTEN: MappingProxyType[str, Callable[[Any, Any], Sequence[Any]]] = MappingProxyType(
    {
        "LinearClassifier": _classifier,
        "LinearRegressor": _regressor,
        "Scaler": _scaler,
        "Normalizer": _normalizer,
    }
)
