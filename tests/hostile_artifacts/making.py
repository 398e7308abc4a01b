"""How hostile artifacts are made from a good one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from models.artifact import build_bundle, initial_weights
from models.bundle import FORWARD_FILE, Bundle
from models.bundle_scan import (
    EVALUATE_STEP_FILE,
    EVALUATION_FILE,
    ORT_TRAINING_FILES,
    TRAIN_STEP_FILE,
    TRAINING_FILE,
)
from models.catalog import build_model
from models.installed import ORT_GRAPH, ORT_TRAINING, available_engines
from models.layout import Vector
from protocol.chunks import BlobRef, describe
from protocol.plan import Training

if ORT_TRAINING not in available_engines():
    pytest.skip("a bundle for both engines needs onnxruntime-training-cpu", allow_module_level=True)

FEATURES = 6
SGD, ADAMW = Training(), Training(optimizer="adamw")
MODEL = build_model("mlp", {"features": FEATURES, "classes": 2, "hidden": 8}, seed=1)
GOOD = build_bundle(MODEL, SGD)
WEIGHTS = initial_weights(MODEL)
ADAM = build_bundle(MODEL, ADAMW)

ENGINES = (ORT_GRAPH, ORT_TRAINING)
JUDGING = (EVALUATION_FILE, EVALUATE_STEP_FILE)
"""The graph of each engine that evaluates."""

LEARNING = (TRAINING_FILE, TRAIN_STEP_FILE)
"""The graph of each engine that trains."""

EXPORT = "export"
"""Aimed at who exports a model: no engine reads the forward graph."""

Change = Callable[[Any], None]


class Aimed(NamedTuple):
    """An artifact, and who is to load it.

    Attributes:
        engine: its name, or `EXPORT`.
        bundle: encoded, as a worker gets it.
    """

    engine: str
    bundle: bytes


@dataclass(frozen=True)
class Hostile:
    """One artifact.

    Attributes:
        name: what is wrong with it.
        aimed: what it is, and at which engine it is aimed.
        ends: of a stopped one, a pattern that its refusal matches; of a contained one, the kinds of failure
            in which it may end, separated by "|".
        weights: the global model that comes with it.
        training: the round's settings.
    """

    name: str
    aimed: Aimed
    ends: str
    weights: Vector = field(default_factory=lambda: WEIGHTS)
    training: Training = SGD

    @property
    def engine(self) -> str:
        """At which it is aimed."""
        return self.aimed.engine

    @property
    def bundle(self) -> bytes:
        """Encoded, as a worker gets it."""
        return self.aimed.bundle


def aim(bundle: Bundle, engine: str) -> Aimed:
    """What an engine gets of a bundle; all that is there when the bundle does not say."""
    needed = bundle.manifest.needed(engine) if engine in bundle.manifest.engines else bundle.files
    kept = {name: bundle.files[name] for name in needed if name in bundle.files}
    return Aimed(engine, replace(bundle, files=kept).encode())


def reference(content: bytes) -> BlobRef:
    """The right one; of nothing, for which there is none, one that says it is a byte."""
    return describe(content) if content else BlobRef(sha256(b"").digest(), 1, 4096, (sha256(b"").digest(),))


def holding(files: Mapping[str, bytes], bundle: Bundle = GOOD) -> Bundle:
    """A bundle with some files replaced, and a manifest that names the new ones."""
    references = bundle.manifest.files | {name: reference(content) for name, content in files.items()}
    return Bundle(replace(bundle.manifest, files=references), bundle.files | files)


def with_file(file: str, content: bytes, bundle: Bundle = GOOD, engine: str | None = None) -> Aimed:
    """A bundle with one file replaced, aimed at the engine that reads it."""
    changed = holding({file: content}, bundle)
    if file == FORWARD_FILE:
        return Aimed(EXPORT, changed.encode())
    return aim(changed, engine or (ORT_TRAINING if file in ORT_TRAINING_FILES else ORT_GRAPH))


def edited(file: str, change: Change, bundle: Bundle = GOOD) -> Aimed:
    """A bundle with one graph changed."""
    return with_file(file, changed(bundle.files[file], change), bundle)


def changed(content: bytes, change: Change) -> bytes:
    """A graph after a change."""
    model: Any = onnx.load_model_from_string(content)
    change(model)
    return bytes(model.SerializeToString())


def with_manifest(engine: str, bundle: Bundle = GOOD, **fields: Any) -> Aimed:
    """A bundle whose manifest says something else."""
    return aim(replace(bundle, manifest=replace(bundle.manifest, **fields)), engine)


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


def appended(file: str, extra: bytes) -> Aimed:
    """A bundle with bytes behind one file's end."""
    return with_file(file, GOOD.files[file] + extra)
