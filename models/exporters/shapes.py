"""Shapes: one word for the batch, and no fixed batch in the middle of a graph."""

from typing import Any

import onnx
from onnx import TensorProto, shape_inference

from models.errors import ModelError
from models.exporters.wires import label

BATCH = "batch"


def name_batch(graph: Any) -> None:
    """Call the first axis of the input and of the output the batch, where it is not a number."""
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_param = BATCH


def settle_shapes(model: Any) -> Any:
    """The model with the shape of its output as it follows from the input's.

    Raises:
        ModelError: a batch of one size is written into the graph; names the node.
    """
    graph = model.graph
    output = graph.output[0]
    declared = output.type.tensor_type
    output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, TensorProto.FLOAT, None))
    try:
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except Exception as error:  # InferenceError, or what its C++ part raises
        raise ModelError(f"the model's shapes contradict each other: {error}") from error
    _check_batch(graph, inferred)
    found = inferred.output[0].type.tensor_type
    output.type.tensor_type.CopyFrom(found if found.HasField("shape") else declared)
    dims = output.type.tensor_type.shape.dim
    if dims and not dims[0].HasField("dim_value"):
        dims[0].dim_param = BATCH
    return model


def _check_batch(graph: Any, inferred: Any) -> None:
    """An exporter that saw one example writes its batch into Reshape and Expand."""
    first = {
        value.name: value.type.tensor_type.shape.dim[0]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.shape.dim
    }
    for node in graph.node:
        given, made = first.get(node.input[0]) if node.input else None, first.get(node.output[0])
        if node.op_type != "Reshape" or given is None or made is None:
            continue
        if given.dim_param == BATCH and made.HasField("dim_value") and made.dim_value == 1:
            raise ModelError(
                f"{label(node)} makes every batch one of {made.dim_value}; write -1 for the batch in the "
                "model's own reshape, and export with dynamic_axes or dynamic_shapes"
            )
