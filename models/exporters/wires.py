"""Who makes a tensor and who reads it."""

from collections.abc import Sequence
from typing import Any

from onnx import TensorProto, shape_inference


def maker(graph: Any, name: str) -> Any:
    """The node that makes a tensor; None for inputs and initializers."""
    return next((node for node in graph.node if name in node.output), None)


def label(node: Any) -> str:
    """An operator and its name, or what it makes."""
    return f"operator {node.op_type} ({node.name or node.output[0]})"


def fresh(graph: Any, wish: str) -> str:
    """A name that no tensor has."""
    taken = {tensor.name for tensor in (*graph.initializer, *graph.input)}
    taken |= {name for node in graph.node for name in node.output}
    name, number = wish, 1
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    return name


def attribute(node: Any, name: str) -> Any:
    """The AttributeProto of that name; None when the node has none."""
    return next((each for each in node.attribute if each.name == name), None)


def replace(graph: Any, old: Any, new: Sequence[Any]) -> None:
    """Put nodes in the place of another."""
    nodes = [each for node in graph.node for each in (new if node is old else [node])]
    del graph.node[:]
    graph.node.extend(nodes)


def rename(graph: Any, old: str, new: str) -> None:
    """Call a tensor otherwise, wherever nodes make or read it."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def drop_identities(model: Any) -> None:
    """Leave out what hands a tensor on as it is: Identity, and Cast from float32 to float32."""
    graph = model.graph
    inferred = shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    outputs = {value.name for value in graph.output}
    for node in list(graph.node):
        if not _hands_on(node, types):
            continue
        given, made = node.input[0], node.output[0]
        if made in outputs and (maker(graph, given) is None or given in outputs):
            continue  # both names have to stay
        graph.node.remove(node)
        rename(graph, *((given, made) if made in outputs else (made, given)))


def _hands_on(node: Any, types: dict[str, int]) -> bool:
    if node.op_type == "Identity":
        return True
    return bool(
        node.op_type == "Cast"
        and attribute(node, "to").i == TensorProto.FLOAT
        and types.get(node.input[0]) == TensorProto.FLOAT
    )
