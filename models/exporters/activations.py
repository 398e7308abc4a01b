"""Losses take logits: a Softmax or Sigmoid at the end is cut off, and put back when the model is used."""

from typing import Any, Literal

import numpy as np
from onnx import helper, numpy_helper

from models.errors import ModelError
from models.exporters.wires import attribute, fresh, label, maker, rename, replace
from protocol.plan import Loss

Activation = Literal["Softmax", "LogSoftmax", "Sigmoid"]

_BELONGS: dict[str, Loss] = {"Softmax": "cross_entropy", "LogSoftmax": "cross_entropy", "Sigmoid": "bce"}


def cut_activation(graph: Any, loss: Loss) -> Activation | None:
    """Cut off the last node where it is the activation that the loss brings along.

    The output keeps its name. Other losses compare what the model answers, activation and all.

    Returns:
        What was cut off.

    Raises:
        ModelError: the activation belongs to another loss.
    """
    output = graph.output[0].name
    node = maker(graph, output)
    if node is None or loss not in _BELONGS.values():
        return None
    if loss == "cross_entropy" and (pair := _two_classes(graph, node)):
        _pair_of_logits(graph, node, pair)
        return "Softmax"
    if node.op_type not in _BELONGS:
        return None
    if _BELONGS[node.op_type] != loss:
        raise ModelError(
            f"{label(node)} is the model's last, and training.loss is {loss}; write loss = "
            f'"{_BELONGS[node.op_type]}", or export without it'
        )
    _check_axis(node, graph.output[0])
    logits = node.input[0]
    if maker(graph, logits) is None:
        raise ModelError(f"{label(node)} is all there is: there is nothing to train")
    graph.node.remove(node)
    rename(graph, logits, output)
    activation: Activation = node.op_type
    return activation


def put_activation(graph: Any, activation: Activation) -> None:
    """Put it back behind the output, whose name stays."""
    output = graph.output[0].name
    logits = fresh(graph, f"{output}.logits")
    rename(graph, output, logits)
    axis = {} if activation == "Sigmoid" else {"axis": 1}
    graph.node.append(helper.make_node(activation, [logits], [output], **axis))


def _check_axis(node: Any, output: Any) -> None:
    axis = attribute(node, "axis")
    last = len(output.type.tensor_type.shape.dim) - 1 if output.type.tensor_type.HasField("shape") else 1
    if node.op_type != "Sigmoid" and axis is not None and axis.i not in {-1, last}:
        raise ModelError(
            f"{label(node)} works along axis {axis.i}; only one along the classes can be trained"
        )


def _two_classes(graph: Any, node: Any) -> str | None:
    """The logit z of `Concat(1 - sigmoid(z), sigmoid(z))`, which is softmax(0, z) in other words."""
    if node.op_type != "Concat" or len(node.input) != 2:  # noqa: PLR2004 (no and yes)
        return None
    no, yes = (maker(graph, name) for name in node.input)
    if no is None or yes is None or no.op_type != "Sub" or yes.op_type != "Sigmoid":
        return None
    return str(yes.input[0]) if no.input[1] == yes.output[0] else None


def _pair_of_logits(graph: Any, node: Any, logit: str) -> None:
    zero, nothing = fresh(graph, f"{logit}.zero"), fresh(graph, f"{logit}.nothing")
    value = numpy_helper.from_array(np.array(0.0, dtype=np.float32))
    replace(
        graph,
        node,
        [
            helper.make_node("Constant", [], [zero], value=value),
            helper.make_node("Mul", [logit, zero], [nothing]),
            helper.make_node("Concat", [nothing, logit], [node.output[0]], axis=1),
        ],
    )
