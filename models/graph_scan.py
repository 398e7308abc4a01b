"""What is in an ONNX graph, read from its bytes before ONNX Runtime may see them.

A graph is a program from somebody else. What this scan lets through has no other files, no graphs inside, no
functions and no loops, uses known operators only, and declares nothing larger than a device could hold. It
says nothing about the time and memory that the graph really takes: for that the training process has limits.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from models.onnx_schema import (
    ATTRIBUTE,
    DIMENSION,
    DOMAINS,
    ELEMENT_BYTES,
    GRAPH,
    MICROSOFT,
    MODEL,
    NODE,
    OPERATORS,
    OPSET,
    SEQUENCE_TYPE,
    SHAPE,
    STANDARD,
    TENSOR,
    TENSOR_TYPE,
    TYPE,
    VALUE,
)
from models.protobuf_reader import Message, Reader
from models.tensor_scan import MAX_ELEMENTS, MAX_NUMBERS, check_shape, check_tensor

MAX_NODES = 10_000
"""The training graph of 60 dense layers has 550, of an LSTM over 256 samples about 2,500."""

MAX_NAME_BYTES = 1_024
"""A parameter's name has up to 256; the gradient builder puts a few names together."""

MAX_ATTRIBUTE = 2**31 - 1
"""Of a number in an attribute, either sign: sizes of kernels, pads and axes lie far below."""

_AT_LEAST = {
    **dict.fromkeys(("kernel_shape", "strides", "dilations", "group", "num_groups", "hidden_size"), 1),
    **dict.fromkeys(("pads", "output_padding", "batch_dims"), 0),
}
"""Of attributes that native code divides by, or reads and writes by, without a look at them."""

_UNCHECKED = {
    ("ConvTranspose", "output_shape"): "nothing holds it to what is computed",
    ("Resize", "axes"): "nothing holds them to the rank of the input",
}
"""Attributes by which native code writes beyond an output, or over its own stack."""

MAX_METADATA = 1_000
"""Entries that exporters attach to a graph and nobody reads."""

Shape = tuple[int | None, ...]

_SHAPE_INPUT = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Tile": 1}
"""Operators whose output is as large as the numbers in this input say."""


class Value(NamedTuple):
    """An input or output of a graph, as it is declared.

    Attributes:
        name: of the tensor, or of the sequence of tensors.
        dtype: of the elements.
        shape: None for an axis is one of any length; None for all is one of any rank.
        sequence: whether it is a sequence of such tensors.
    """

    name: str
    dtype: int
    shape: Shape | None
    sequence: bool = False


class Node(NamedTuple):
    """One operator in its place.

    Attributes:
        domain: of the operator; "" is the standard one.
        operator: its name.
        inputs: names of what it reads, in order.
    """

    domain: str
    operator: str
    inputs: tuple[str, ...]


class ScannedGraph(NamedTuple):
    """What a graph takes, gives and does.

    Attributes:
        inputs: in order.
        outputs: in order.
        nodes: in order.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]


def scan_graph(file: str, data: bytes, *, opset: int, ir: int) -> ScannedGraph:
    """Read a model.

    Args:
        file: its name, for errors.
        data: its bytes.
        opset: of the standard domain, that it must have.
        ir: version of ONNX's own format, that it must have.

    Raises:
        BundleError: it is not such a model, or not one that a device should run; names file, node and cause.
    """
    reader = Reader(file)
    model = reader.message(memoryview(data), MODEL, "the model")
    if model.number("ir_version") != ir:
        raise reader.error(f"is of IR version {model.number('ir_version')}, its manifest says {ir}")
    _check_opsets(reader, model, opset)
    graphs = model.parts("graph")
    if not graphs:
        raise reader.error("holds no graph")
    return _Graph(reader).read(graphs[0])


def _check_opsets(reader: Reader, model: Message, opset: int) -> None:
    versions: dict[str, int] = {}
    for data in model.parts("opset_import"):
        entry = reader.message(data, OPSET, "an opset")
        domain = _text(reader, entry, "domain", "an opset")
        if domain not in DOMAINS:
            raise reader.error(f"uses the operators of {domain!r}; only standard ones are allowed")
        domain = STANDARD if domain == "ai.onnx" else domain
        if domain in versions:
            raise reader.error(f"declares the operators of {domain!r} twice")
        versions[domain] = entry.number("version")
    if versions.get(STANDARD) != opset:
        raise reader.error(f"is of opset {versions.get(STANDARD)}, its manifest says {opset}")
    if versions.get(MICROSOFT, 1) != 1:
        raise reader.error(f"asks for version {versions[MICROSOFT]} of {MICROSOFT}; there is only 1")


class _Graph:
    """The state of reading one graph: which names are defined, and what the small constants are."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._defined: set[str] = {""}  # an input that is left out has no name
        self._constants: dict[str, tuple[int, ...]] = {}

    def read(self, data: memoryview) -> ScannedGraph:
        graph = self._reader.message(data, GRAPH, "the graph")
        nodes = graph.parts("node")
        for name, count, limit in (
            ("nodes", len(nodes), MAX_NODES),
            ("entries of metadata", len(graph.parts("metadata_props")), MAX_METADATA),
        ):
            if count > limit:
                raise self._reader.error(f"{count:,} {name}; at most {limit:,} are allowed")
        inputs = tuple(self._value(part, "an input") for part in graph.parts("input"))
        for value in inputs:
            self._define(value.name, "an input")
        for part in graph.parts("initializer"):
            self._initializer(part)
        scanned = tuple(self._node(index, part) for index, part in enumerate(nodes))
        outputs = tuple(self._value(part, "an output") for part in graph.parts("output"))
        for value in outputs:
            if value.name not in self._defined:
                raise self._reader.error(f"no node computes the output {value.name!r}")
        described = [self._value(part, "a value").name for part in graph.parts("value_info")]
        for names, what in ((described, "a value"), ([value.name for value in outputs], "an output")):
            if len(set(names)) != len(names):
                raise self._reader.error(f"{what} is described twice")
        return ScannedGraph(inputs, outputs, scanned)

    def _define(self, name: str, what: str) -> None:
        if name in self._defined:
            raise self._reader.error(f"{what} is called {name!r}, as something else already is")
        self._defined.add(name)

    def _initializer(self, data: memoryview) -> None:
        tensor = self._reader.message(data, TENSOR, "an initializer")
        name = _text(self._reader, tensor, "name", "an initializer")
        self._define(name, "an initializer")
        self._keep_constant(name, check_tensor(self._reader, tensor, f"initializer {name!r}"))

    def _keep_constant(self, name: str, values: tuple[int, ...] | None) -> None:
        if values is not None:
            self._constants[name] = values

    # Nodes.

    def _node(self, index: int, data: memoryview) -> Node:
        node = self._reader.message(data, NODE, f"node {index}")
        operator = _text(self._reader, node, "op_type", f"node {index}")
        domain = _text(self._reader, node, "domain", f"node {index}")
        domain = STANDARD if domain == "ai.onnx" else domain
        what = f"node {index} ({_text(self._reader, node, 'name', f'node {index}') or 'unnamed'}, {operator})"
        if operator not in OPERATORS.get(domain, frozenset()):
            where = f" of {domain!r}" if domain else ""
            raise self._reader.error(f"{what}: the operator {operator!r}{where} is not allowed")
        inputs = [self._reader.text(part, f"{what}: a name", MAX_NAME_BYTES) for part in node.parts("input")]
        for name in inputs:
            if name not in self._defined:
                raise self._reader.error(f"{what} reads {name!r}, which nothing before it computes")
        self._check_size_asked_for(operator, inputs, what)
        constant = self._attributes(node, operator, what)
        for part in node.parts("output"):
            name = self._reader.text(part, f"{what}: a name", MAX_NAME_BYTES)
            if name:
                self._define(name, f"an output of {what}")
            if operator == "Constant":
                self._keep_constant(name, constant)
        return Node(domain, operator, tuple(inputs))

    def _check_size_asked_for(self, operator: str, inputs: Sequence[str], what: str) -> None:
        index = _SHAPE_INPUT.get(operator, len(inputs))
        sizes = self._constants.get(inputs[index], ()) if index < len(inputs) else ()
        if (size := math.prod(max(size, 1) for size in sizes)) > MAX_ELEMENTS:
            raise self._reader.error(f"{what} makes {size:,} elements; at most {MAX_ELEMENTS:,} are allowed")

    def _attributes(self, node: Message, operator: str, what: str) -> tuple[int, ...] | None:
        """Check them; the integers of the tensor among them, if there are any."""
        constant = None
        names = set()
        for data in node.parts("attribute"):
            attribute = self._reader.message(data, ATTRIBUTE, what)
            name = _text(self._reader, attribute, "name", what)
            if name in names:
                raise self._reader.error(f"{what}: attribute {name!r} is there twice")
            names.add(name)
            _check_attribute(self._reader, attribute, (operator, name), f"{what}, attribute {name!r}")
            for part in attribute.parts("t"):
                if operator not in {"Constant", "ConstantOfShape"}:
                    raise self._reader.error(f"{what}: only constants hold a tensor")
                tensor = self._reader.message(part, TENSOR, what)
                constant = check_tensor(self._reader, tensor, f"the tensor of {what}")
            if name == "value_ints":
                constant = self._reader.integers(attribute, "ints", MAX_NUMBERS)
        return constant

    # Inputs and outputs.

    def _value(self, data: memoryview, what: str) -> Value:
        value = self._reader.message(data, VALUE, what)
        name = _text(self._reader, value, "name", what)
        kinds = value.parts("type")
        if not name or not kinds:
            raise self._reader.error(f"{what} has no {'type' if name else 'name'}")
        what = f"{what}, {name!r},"
        kind = self._reader.message(kinds[0], TYPE, what)
        sequence = kind.has("sequence_type")
        if sequence == kind.has("tensor_type"):
            raise self._reader.error(f"{what} must be either a tensor or a sequence")
        if sequence:
            elements = self._reader.message(kind.parts("sequence_type")[0], SEQUENCE_TYPE, what)
            kinds = elements.parts("elem_type")
            # Not a sequence again: nothing here is deeper than this.
            kind = self._reader.message(kinds[0] if kinds else memoryview(b""), TYPE, what)
        tensors = kind.parts("tensor_type")
        if not tensors:
            raise self._reader.error(f"{what} is a sequence of something else than tensors")
        tensor = self._reader.message(tensors[0], TENSOR_TYPE, what)
        dtype = tensor.number("elem_type")
        if dtype not in ELEMENT_BYTES:
            raise self._reader.error(f"{what} has elements of type {dtype}, which are not allowed")
        shapes = tensor.parts("shape")
        return Value(name, dtype, self._shape(shapes[0], what) if shapes else None, sequence)

    def _shape(self, data: memoryview, what: str) -> Shape:
        message = self._reader.message(data, SHAPE, what)
        shape = tuple(self._dimensions(message, what))
        check_shape(self._reader, [size for size in shape if size is not None], len(shape), what)
        return shape

    def _dimensions(self, shape: Message, what: str) -> Iterator[int | None]:
        for part in shape.parts("dim"):
            axis = self._reader.message(part, DIMENSION, what)
            if axis.has("dim_value") and axis.has("dim_param"):
                raise self._reader.error(f"{what} has an axis with both a length and a name")
            yield axis.number("dim_value") if axis.has("dim_value") else None


def _text(reader: Reader, message: Message, field: str, what: str) -> str:
    parts = message.parts(field)
    return reader.text(parts[0], f"{what}: {field}", MAX_NAME_BYTES) if parts else ""


def _check_attribute(reader: Reader, attribute: Message, key: tuple[str, str], what: str) -> None:
    integers = reader.integers(attribute, "ints", MAX_NUMBERS)
    if attribute.has("i"):
        integers = (*integers, attribute.number("i"))
    if any(abs(value) > MAX_ATTRIBUTE for value in integers):
        raise reader.error(f"{what} holds a number beyond {MAX_ATTRIBUTE:,}")
    least = _AT_LEAST.get(key[1], -MAX_ATTRIBUTE)
    if any(value < least for value in integers):
        raise reader.error(f"{what} holds a number below {least}")
    if key in _UNCHECKED:
        raise reader.error(f"{what} is not allowed: {_UNCHECKED[key]}")
    if key == ("Pad", "mode") and [bytes(part) for part in attribute.parts("s")] != [b"constant"]:
        raise reader.error(f"{what} is not allowed: only constant padding stays within its input")
    for part in (*attribute.parts("s"), *attribute.parts("strings")):
        reader.text(part, what, MAX_NAME_BYTES)
