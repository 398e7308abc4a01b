"""Reading a forward ONNX model: what we accept, and what we say when we do not.

Every refusal names the cause and the fix, because the model comes from a data scientist's exporter.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import onnx
from msgspec import Struct
from onnx import TensorProto, numpy_helper

from models.builder import IR_VERSION
from models.bundle import Tensor
from models.errors import ModelError
from models.layout import Parameter, ParameterTable, Vector

MAX_MODEL_BYTES = 2**30
OPSETS = range(12, 22)
"""21 is the newest that onnxruntime 1.19 loads."""

_RESERVED = {"labels": "the loss adds an input of that name", "target": "the loss adds an input of that name"}

# Outputs that inference does not need but the gradient reads.
_OUTPUTS_FOR_GRADIENT = {"LayerNormalization": 3, "Dropout": 2}


class Forward(Struct, frozen=True):
    """A forward model that passed every check.

    Its parameters are the float32 initializers that have an axis and that a node reads, in initializer order.

    Attributes:
        model: our own copy, IR 10, outputs that gradients need declared.
        input: float32.
        output: float32.
        parameters: those that are trained and shared.
        private: those that each device trains for itself and keeps.
        frozen: those that nobody trains.
        opset: of the default domain.
    """

    model: Any
    input: Tensor
    output: Tensor
    parameters: ParameterTable
    private: ParameterTable | None
    frozen: ParameterTable | None
    opset: int

    def weights(self) -> Vector:
        """The values of the shared parameters, float32, shape (d,)."""
        return self.values(self.parameters)

    def values(self, table: ParameterTable) -> Vector:
        """The values of the parameters of a table, float32."""
        names = {parameter.name for parameter in table.parameters}
        return table.flatten(
            {
                tensor.name: numpy_helper.to_array(tensor)
                for tensor in self.model.graph.initializer
                if tensor.name in names
            }
        )

    @property
    def trained(self) -> tuple[Parameter, ...]:
        """Shared and private parameters."""
        return self.parameters.parameters + (self.private.parameters if self.private else ())

    @property
    def everything(self) -> tuple[Parameter, ...]:
        """Shared, private and frozen parameters."""
        return self.trained + (self.frozen.parameters if self.frozen else ())


class Roles(Struct, frozen=True):
    """Which parameters are not shared, by patterns of their names as in a shell (`fnmatch`).

    Attributes:
        frozen: not trained; wins over `private`.
        private: trained, but never leave the device.
    """

    frozen: tuple[str, ...] = ()
    private: tuple[str, ...] = ()


ALL_SHARED = Roles()


def read_forward(source: onnx.ModelProto | bytes, roles: Roles = ALL_SHARED) -> Forward:
    """Check a forward model.

    Args:
        source: the model or its serialised bytes; not changed.
        roles: of its parameters.

    Raises:
        ModelError: it cannot be trained as it is.
    """
    model = parse_model(source)
    graph = model.graph
    _check_data(model)
    opset = _opset(model)
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    # Old exporters list initializers among the inputs as well; as inputs they would not be trained.
    del graph.input[:]
    graph.input.extend(inputs)
    _check_names(graph)
    _declare_outputs(graph)
    model.ir_version = IR_VERSION
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"not a valid ONNX model: {error}") from error
    shared, private, frozen = _by_role(_parameters(graph), roles)
    return Forward(
        model=model,
        input=_single(graph.input, "input"),
        output=_single(graph.output, "output"),
        parameters=_table(shared),
        private=_table(private) if private else None,
        frozen=_table(frozen) if frozen else None,
        opset=opset,
    )


def parse_model(source: onnx.ModelProto | bytes) -> Any:
    """A copy that may be changed.

    Raises:
        ModelError: too large, or not a model.
    """
    if isinstance(source, bytes):
        if len(source) > MAX_MODEL_BYTES:
            raise ModelError(f"the model has {len(source):,} bytes; at most {MAX_MODEL_BYTES:,} are allowed")
        try:
            return onnx.load_model_from_string(source)
        except Exception as error:  # protobuf's DecodeError; that package has no types
            raise ModelError(
                "the file is not an ONNX model; export it with, e.g., torch.onnx.export"
            ) from error
    model = onnx.ModelProto()
    model.CopyFrom(source)
    return model


def _check_data(model: Any) -> None:
    tensors = [*model.graph.initializer]
    tensors += [a.t for node in _nodes(model.graph) for a in node.attribute if a.HasField("t")]
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(
                f"tensor {tensor.name!r} lies in another file; save the model with all data inside"
                " (onnx.save without save_as_external_data)"
            )


def _opset(model: Any) -> int:
    domains = {entry.domain: int(entry.version) for entry in model.opset_import}
    used = {node.domain for node in _nodes(model.graph)} - {"", "ai.onnx"}
    if used:
        raise ModelError(
            f"operators of the domains {sorted(used)}; only standard ONNX operators can be trained"
        )
    opset = domains.get("", domains.get("ai.onnx", 0))
    if opset not in OPSETS:
        raise ModelError(f"opset {opset}; export with opset_version=17 (12 to 21 work)")
    # Declarations of unused domains would only keep an engine from loading the graph.
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    return opset


def _check_names(graph: Any) -> None:
    for node in _nodes(graph):
        for name in (*node.input, *node.output):
            if name in _RESERVED:
                raise ModelError(f"a tensor is called {name!r}: rename it, {_RESERVED[name]}")


def _declare_outputs(graph: Any) -> None:
    for node in _nodes(graph):
        for index in range(len(node.output), _OUTPUTS_FOR_GRADIENT.get(node.op_type, 0)):
            node.output.append(f"{node.output[0]}.for_gradient{index}")


def _single(values: Any, kind: str) -> Tensor:
    if len(values) != 1:
        names = [value.name for value in values]
        raise ModelError(f"the model has {len(values)} {kind}s {names}; it must have exactly one")
    value = values[0]
    kind_of = value.type.tensor_type
    if kind_of.elem_type != TensorProto.FLOAT:
        raise ModelError(f"{kind} {value.name!r} must be float32; add a Cast, or export in float32")
    dims = kind_of.shape.dim
    if not dims or dims[0].HasField("dim_value"):
        raise ModelError(
            f"{kind} {value.name!r}: the first axis must be a dynamic batch; export with"
            f' dynamic_axes={{"{value.name}": {{0: "batch"}}}} (PyTorch with dynamo=True: dynamic_shapes;'
            " Keras: an input signature that begins with None)"
        )
    shape = tuple(dim.dim_value for dim in dims[1:])
    if not all(size > 0 for size in shape):
        raise ModelError(
            f"{kind} {value.name!r}: only the batch may be dynamic, its shape is {shape} (0 = dynamic)"
        )
    return Tensor(value.name, "float32", shape)


def _parameters(graph: Any) -> list[Any]:
    used = {name for node in _nodes(graph) for name in node.input}
    found = [
        tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 0 and tensor.name in used
    ]
    if not found:
        raise ModelError("the model has no float32 initializers: there is nothing to train")
    for tensor in found:
        if not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise ModelError(f"initial weight {tensor.name!r} holds NaN or infinity")
    return found


def _by_role(tensors: list[Any], roles: Roles) -> tuple[list[Any], list[Any], list[Any]]:
    names = [tensor.name for tensor in tensors]
    for pattern in (*roles.frozen, *roles.private):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ModelError(f"no parameter is called {pattern!r}; the model has {', '.join(names)[:1000]}")

    def is_one_of(tensor: Any, patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(tensor.name, pattern) for pattern in patterns)

    frozen = [tensor for tensor in tensors if is_one_of(tensor, roles.frozen)]
    rest = [tensor for tensor in tensors if not is_one_of(tensor, roles.frozen)]
    private = [tensor for tensor in rest if is_one_of(tensor, roles.private)]
    shared = [tensor for tensor in rest if not is_one_of(tensor, roles.private)]
    if not shared:
        raise ModelError("every parameter is frozen or private: nothing is left to learn together")
    return shared, private, frozen


def _table(tensors: list[Any]) -> ParameterTable:
    try:
        return ParameterTable.of((tensor.name, tuple(tensor.dims)) for tensor in tensors)
    except ValueError as error:
        raise ModelError(str(error)) from error


def _nodes(graph: Any) -> Iterator[Any]:
    """Every node, those of nested graphs (If, Loop, Scan) included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)
