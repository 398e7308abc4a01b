"""A training graph under construction: the forward nodes, what is added to them, and the shapes it knows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from models.errors import ModelError
from models.step_inputs import NOISE

Dim = int | str
"""Length of an axis; a word is one that is known only when the graph runs, above all the batch. Equal words
are equal lengths."""

Shape = tuple[Dim, ...]


class Node(NamedTuple):
    """A node of the forward graph.

    Attributes:
        operator: of the default domain.
        name: for people; made from the output when the exporter gave none.
        inputs: names; "" is an input that was left out.
        outputs: likewise.
        attributes: decoded; text as str, tensors as arrays.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, proto: Any) -> "Node":
        """Read a NodeProto."""
        return cls(
            proto.op_type,
            proto.name or f"{proto.op_type} of {proto.output[0]}",
            tuple(proto.input),
            tuple(proto.output),
            {each.name: _decoded(helper.get_attribute_value(each)) for each in proto.attribute},
        )

    def input(self, index: int) -> str:
        """Its name; "" when there is none."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def error(self, cause: str) -> ModelError:
        """An error that names the node."""
        return ModelError(f"operator {self.operator} ({self.name}): {cause}")


class StepGraph:
    """Collects nodes and constants; every method that adds a node returns its output's name.

    Args:
        forward: the forward model, opset 21, every parameter an initializer.
        parameters: names of the initializers that are inputs of this graph.
    """

    def __init__(self, forward: Any, parameters: Sequence[str]) -> None:
        inferred = shape_inference.infer_shapes(forward, strict_mode=True, data_prop=True)
        graph = inferred.graph
        self._shapes: dict[str, Shape] = {}
        self._types: dict[str, int] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            self._learn(value)
        self._constants: dict[str, NDArray[Any]] = {}
        for tensor in graph.initializer:
            self._shapes[tensor.name], self._types[tensor.name] = tuple(tensor.dims), tensor.data_type
            if tensor.name not in parameters:
                self._constants[tensor.name] = numpy_helper.to_array(tensor)
        self.forward = tuple(Node.of(node) for node in graph.node)
        for node in self.forward:
            if node.operator == "Constant":
                self._fold(node)
        self._taken = {*self._shapes, *(name for node in self.forward for name in node.outputs)}
        self._interned: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._wanted: set[str] = set()
        self.nodes: list[Any] = []
        self.noises: list[tuple[str, tuple[int, ...]]] = []
        self.updates: dict[str, str] = {}

    # What is known.

    def shape(self, name: str) -> Shape:
        """Of a tensor of the forward graph.

        Raises:
            ModelError: it cannot be known before the graph runs.
        """
        if name not in self._shapes:
            raise ModelError(
                f"the shape of {name!r} cannot be known before the model runs; export it with fixed sizes,"
                " only the batch dynamic"
            )
        return self._shapes[name]

    def sizes(self, name: str) -> tuple[int, ...]:
        """The shape without its first axis, which is the batch; everything else must be fixed.

        Raises:
            ModelError: it is not.
        """
        sizes = self.shape(name)[1:]
        if not all(isinstance(size, int) for size in sizes):
            raise ModelError(f"only the batch may be dynamic, but {name!r} has the shape {self.shape(name)}")
        return tuple(int(size) for size in sizes)

    def is_float(self, name: str) -> bool:
        """Whether it holds float32: only that can have a gradient."""
        return bool(self._types.get(name) == TensorProto.FLOAT)

    def constant_of(self, name: str) -> NDArray[Any] | None:
        """The values of a constant; None for anything that is computed."""
        return self._constants.get(name)

    def _learn(self, value: Any) -> None:
        kind = value.type.tensor_type
        self._types[value.name] = kind.elem_type
        if kind.HasField("shape"):
            self._shapes[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param or f"{value.name}:{axis}"
                for axis, dim in enumerate(kind.shape.dim)
            )

    def _fold(self, node: Node) -> None:
        """A Constant is known as an initializer is."""
        for key in ("value", "value_float", "value_floats", "value_int", "value_ints"):
            if key in node.attributes:
                dtype = np.float32 if "float" in key else None if key == "value" else np.int64
                self._constants[node.outputs[0]] = np.asarray(node.attributes[key], dtype=dtype)

    def wants(self, name: str) -> bool:
        """Whether the gradient of this tensor is needed."""
        return name in self._wanted

    def want(self, name: str) -> None:
        """The gradient of this float32 tensor is needed."""
        if self.is_float(name):
            self._wanted.add(name)

    # What is added.

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output; inputs at the end that are "" are left out."""
        return self.node_of(operator, inputs, 1, **attributes)[0]

    def node_of(
        self, operator: str, inputs: Sequence[str], outputs: int, **attributes: Any
    ) -> tuple[str, ...]:
        """A node with several outputs."""
        names = tuple(self.fresh(operator.lower()) for _ in range(outputs))
        self.add(operator, inputs, names, **attributes)
        return names

    def add(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """A node whose outputs have names already."""
        given = list(inputs)
        while given and not given[-1]:
            given.pop()
        self._taken.update(outputs)
        self.nodes.append(helper.make_node(operator, given, list(outputs), **attributes))

    def copy(self, node: Node) -> None:
        """A forward node as it is."""
        self.add(node.operator, node.inputs, node.outputs, **_encoded(node.attributes))

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """An initializer with these values; equal ones are kept once."""
        array = np.ascontiguousarray(values, dtype=dtype)
        key = (array.dtype.str, np.shape(values), array.tobytes())
        if key not in self._interned:
            self._interned[key] = self.fresh("constant")
            self._constants[self._interned[key]] = array.reshape(np.shape(values))
        return self._interned[key]

    def integers(self, *values: int) -> str:
        """Axes or sizes: int64 (n,)."""
        return self.constant(values, np.int64)

    def fresh(self, word: str) -> str:
        """A name that nothing has."""
        number = len(self._taken)
        while (name := f"{word}_{number}") in self._taken:
            number += 1
        self._taken.add(name)
        return name

    def noise(self, sizes: tuple[int, ...]) -> str:
        """A new input, uniform in [0, 1): float32 (batch, *sizes), drawn anew for every step."""
        name = f"{NOISE}{len(self.noises)}"
        self.noises.append((name, sizes))
        return name

    def rename(self, value: str, name: str) -> None:
        """Call what a node computes by another name, an output's."""
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [name if each == value else each for each in names]

    def update(self, parameter: str, value: str) -> None:
        """What a parameter becomes that follows another rule than the gradient's: running statistics."""
        self.updates[parameter] = value

    def reshape(self, value: str, shape: Shape, like: str = "") -> str:
        """`value` in this shape; where several axes are dynamic, the shape that `like` has at run time."""
        dynamic = [size for size in shape if not isinstance(size, int)]
        if len(dynamic) > 1:
            return self.node("Reshape", value, self.node("Shape", like))
        return self.node(
            "Reshape", value, self.integers(*(size if isinstance(size, int) else -1 for size in shape))
        )

    def scaled(self, value: str, factor: float) -> str:
        """`factor * value`, no node for 1."""
        return value if factor == 1 else self.node("Mul", value, self.constant(factor))

    def sum_to(self, value: str, shape: Shape, target: Shape) -> str:
        """The gradient of broadcasting `target` to `shape`: sums over what was repeated."""
        padded: Shape = (1,) * (len(shape) - len(target)) + target
        # What is 1 was repeated. Other lengths are the same, whatever words the exporter has for them.
        axes = [
            axis for axis, (big, small) in enumerate(zip(shape, padded, strict=True)) if small == 1 != big
        ]
        leading = range(len(shape) - len(target))
        if not axes and not leading:
            return value
        dropped = [axis for axis in {*axes, *leading} if axis in leading]
        summed = sorted({*axes, *leading})
        keep = len(dropped) < len(summed)
        value = self.node("ReduceSum", value, self.integers(*summed), keepdims=int(keep))
        return self.reshape(value, target) if keep and dropped else value

    def initializers(self) -> list[Any]:
        """Constants that nodes read, as TensorProto."""
        read = {name for node in self.nodes for name in node.input}
        made = {name for node in self.nodes for name in node.output}
        return [
            numpy_helper.from_array(values, name)
            for name, values in self._constants.items()
            if name in read and name not in made
        ]


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        return [each.decode() for each in value]
    return value


def _encoded(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in attributes.items()
    }
