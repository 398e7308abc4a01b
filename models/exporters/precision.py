"""float64 and float16 models in float32, in which devices train."""

from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from models.exporters.wires import attribute

_OTHERS = {TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}

_TYPE_ATTRIBUTES = ("to", "dtype")
"""Of Cast, and of EyeLike and the random operators."""


def make_float32(graph: Any) -> None:
    """Every float tensor becomes float32; conversions in between then do nothing."""
    for tensor in graph.initializer:
        _convert(tensor)
    for node in graph.node:
        for each in node.attribute:
            if each.HasField("t"):
                _convert(each.t)
        for name in _TYPE_ATTRIBUTES:
            found = attribute(node, name)
            if found is not None and found.i in _OTHERS:
                found.i = TensorProto.FLOAT
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in _OTHERS:
            value.type.tensor_type.elem_type = TensorProto.FLOAT


def _convert(tensor: Any) -> None:
    if tensor.data_type in _OTHERS:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
