"""How hostile artifacts are made from a good one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from models.artifact import build_bundle, initial_weights
from models.bundle import Bundle
from models.catalog import build_model
from models.layout import Vector

FEATURES = 6
MODEL = build_model("mlp", {"features": FEATURES, "classes": 2, "hidden": 8}, seed=1)
GOOD = build_bundle(MODEL, loss="cross_entropy", optimizer="sgd")
WEIGHTS = initial_weights(MODEL)
ADAM = build_bundle(MODEL, loss="cross_entropy", optimizer="adamw")

Change = Callable[[Any], None]


@dataclass(frozen=True)
class Hostile:
    """One artifact.

    Attributes:
        name: what is wrong with it.
        bundle: encoded.
        ends: of a stopped one, a pattern that its refusal matches; of a contained one, the kinds of failure
            in which it may end, separated by "|".
        weights: the global model that comes with it.
    """

    name: str
    bundle: bytes
    ends: str
    weights: Vector = field(default_factory=lambda: WEIGHTS)


def with_file(file: str, content: bytes, bundle: Bundle = GOOD) -> bytes:
    """A bundle with one file replaced."""
    return replace(bundle, files=bundle.files | {file: content}).encode()


def edited(file: str, change: Change, bundle: Bundle = GOOD) -> bytes:
    """A bundle with one graph changed."""
    model: Any = onnx.load_model_from_string(bundle.files[file])
    change(model)
    return with_file(file, model.SerializeToString(), bundle)


def with_manifest(**fields: Any) -> bytes:
    """A bundle whose manifest says something else."""
    return replace(GOOD, manifest=replace(GOOD.manifest, **fields)).encode()


def node(operator: str, inputs: list[str], output: str = "bad", **more: Any) -> Any:
    """One operator with one output."""
    return helper.make_node(operator, inputs, [output], name=f"make_{output}", **more)


def constant(name: str, *values: int) -> Any:
    """An int64 initializer."""
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def added(*nodes: Any, constants: tuple[Any, ...] = ()) -> Change:
    """Operators that nothing reads, in front of all others."""

    def change(model: Any) -> None:
        kept = [*model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend([*nodes, *kept])
        model.graph.initializer.extend(constants)

    return change


def into_the_loss(*nodes: Any, constants: tuple[Any, ...] = ()) -> Change:
    """Operators whose float output "bad" the loss needs, so that no optimisation drops them."""

    def change(model: Any) -> None:
        loss = model.graph.output[0].name
        maker = next(each for each in model.graph.node if loss in each.output)
        maker.output[[*maker.output].index(loss)] = "loss before"
        model.graph.initializer.extend(constants)
        everything = helper.make_node("ReduceMax", ["bad"], ["worst"], keepdims=0)
        everything.op_type, everything.name = "ReduceMean", "worst"
        model.graph.node.extend(
            [*nodes, everything, helper.make_node("Add", ["loss before", "worst"], [loss])]
        )

    return change


def elsewhere(location: str, tensor: Any | None = None) -> Any:
    """A tensor that says its data is in another file."""
    tensor = tensor or numpy_helper.from_array(np.zeros(4, dtype=np.float32), "stolen")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def branch(*initializers: Any, inner: Any | None = None) -> Any:
    """A graph within a node."""
    nodes = [helper.make_node("Identity", ["input"], ["out"])] if inner is None else [inner]
    return helper.make_graph(nodes, "branch", [], [float_value("out", None)], initializers)


def nested(depth: int) -> Any:
    """An If in an If in an If …"""
    inner = None
    for _ in range(depth):
        inner = helper.make_node(
            "If", ["yes"], ["out"], then_branch=branch(inner=inner), else_branch=branch()
        )
    return inner


def float_value(name: str, shape: list[int] | None) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def varint(value: int) -> bytes:
    """As Protocol Buffers write it."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def wire_field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def appended(file: str, extra: bytes) -> bytes:
    """A bundle with bytes behind one file's end."""
    return with_file(file, GOOD.files[file] + extra)
