"""The one output that is trained, and what leads there."""

from typing import Any

from onnx import TensorProto, helper

from models.errors import ModelError
from models.exporters.wires import maker
from protocol.plan import Loss

_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}


def choose_output(graph: Any, loss: Loss, wanted: str | None) -> None:
    """Keep one output.

    A ZipMap (scikit-learn's dictionaries of probabilities) stands for the tensor that it reads.

    Raises:
        ModelError: none fits, or several do and the plan does not say which.
    """
    names = [value.name for value in graph.output]
    if wanted is not None:
        if wanted not in names:
            raise ModelError(f"model.output is {wanted!r}; the model's outputs are {', '.join(names)}")
        chosen = [value for value in graph.output if value.name == wanted]
    else:
        chosen = [value for value in graph.output if _fits(value, loss)] if len(names) > 1 else graph.output
        if len(chosen) != 1:
            which = (
                f"{len(chosen)} of them could be trained" if chosen else "none of them holds float numbers"
            )
            raise ModelError(
                f"the model has {len(names)} outputs, {', '.join(names)}, and {which}; write the name of one "
                'as output = "…" below [model] in the plan'
            )
    value = _tensor(graph, chosen[0])
    del graph.output[:]
    graph.output.append(value)


def prune(graph: Any) -> None:
    """Remove what leads to no output, and initializers that are listed among the inputs, too."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    initializers = {tensor.name for tensor in graph.initializer}
    for field, things in (
        (graph.node, [*reversed(kept)]),
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed]),
        (graph.input, [each for each in graph.input if each.name in needed - initializers]),
    ):
        del field[:]
        field.extend(things)


def _fits(value: Any, loss: Loss) -> bool:
    if not value.type.HasField("tensor_type"):
        return bool(value.type.HasField("sequence_type"))  # ZipMap's
    kind = value.type.tensor_type
    if kind.elem_type not in _FLOATS:
        return False
    axes = len(kind.shape.dim)
    return axes == 2 or loss != "cross_entropy" or not kind.HasField("shape")  # noqa: PLR2004 (batch, classes)


def _tensor(graph: Any, value: Any) -> Any:
    if value.type.HasField("tensor_type"):
        return value
    node = maker(graph, value.name)
    if node is None or node.op_type != "ZipMap":
        raise ModelError(f"output {value.name!r} is no tensor; only a tensor can be trained")
    return helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, None)
