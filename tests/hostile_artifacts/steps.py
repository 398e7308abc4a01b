"""Graphs of a step that do not keep to what a step may take, give and hold; all for the engine ort-graph."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from hostile_artifacts.making import (
    ADAM,
    GOOD,
    MODEL,
    SGD,
    Hostile,
    added,
    edited,
    float_value,
    node,
    with_file,
    with_manifest,
)
from models.artifact import build_bundle
from models.bundle import FROZEN_FILE, PRIVATE_FILE
from models.bundle_scan import EVALUATE_STEP_FILE, MAX_NOISE, ORT_GRAPH_FILES, TRAIN_STEP_FILE
from models.forward import Roles
from models.installed import ORT_GRAPH
from models.step_inputs import ANCHOR, EXAMPLE_WEIGHTS, GRADIENT_WEIGHTS, LOSS, NEW, NOISE, RATE

ROLED = build_bundle(MODEL, SGD, roles=Roles(frozen=("hidden1*",), private=("*bias",)))
"""The first layer is frozen, the other biases are private, the rest is shared."""

_SHARED = GOOD.manifest.parameters.parameters[0]


def steps() -> Iterator[Hostile]:
    """All that the scan finds in them."""
    yield from inputs()
    yield from noises()
    yield from outputs()
    yield from values_apart()
    yield from arguments()


def inputs() -> Iterator[Hostile]:
    """A step that takes something else."""
    for name, change in {
        "an input without a meaning": lambda model: _take(model, "more", [2]),
        "the data again": lambda model: _take(model, "input2", ["batch", 6]),
        "a moment of no parameter": lambda model: _take(model, "momentum/nothing", [8]),
        "a moment of another shape": lambda model: _take(model, f"momentum/{_SHARED.name}", [8]),
        "an anchor of no parameter": lambda model: _take(model, f"{ANCHOR}nothing", [8]),
        "an anchor of another shape": lambda model: _take(model, f"{ANCHOR}{_SHARED.name}", [8]),
        "an anchor of a moment": lambda model: _take(model, f"{ANCHOR}momentum/{_SHARED.name}", [6, 8]),
        "a rate that is a vector": lambda model: _take(model, RATE, [1]),
        "a rate of integers": lambda model: _take(model, RATE, [], TensorProto.INT64),
        "data of doubles": lambda model: _retype(model, TensorProto.DOUBLE),
        "a batch of one": lambda model: _resize(model, "input", 0, 1),
        "wider data": lambda model: _resize(model, "input", 1, 7),
        "weights of a fixed batch": lambda model: _resize(model, EXAMPLE_WEIGHTS, 0, 16),
        "a larger parameter": lambda model: _resize(model, _SHARED.name, 0, 60),
        "a parameter of any length": lambda model: _resize(model, _SHARED.name, 0, None),
        "a parameter of another name": lambda model: renamed(model, _SHARED.name, "another"),
    }.items():
        yield Hostile(
            f"a step takes {name}", edited(TRAIN_STEP_FILE, change), "which no step of its manifest"
        )
    for name in ("input", "labels", EXAMPLE_WEIGHTS, GRADIENT_WEIGHTS, _SHARED.name):
        hostile = edited(TRAIN_STEP_FILE, lambda model, name=name: _fill_in(model, name))
        yield Hostile(f"a step does not take {name}", hostile, "does not take")
    for name in ("frozen/hidden1.weight", f"{ANCHOR}hidden1.weight", "momentum/hidden1.weight"):
        hostile = edited(TRAIN_STEP_FILE, lambda model, name=name: _take(model, name, [6, 8]), ROLED)
        yield Hostile(f"a step takes {name} of a frozen one", hostile, "which no step of its manifest")


def noises() -> Iterator[Hostile]:
    """Random numbers that nobody could draw."""
    for name, shape in {
        "2^40 for an example": ["batch", 2**20, 2**20],
        "one more than allowed": ["batch", MAX_NOISE + 1],
        "as many as it likes": ["batch", None],
        "none at all": ["batch", 0],
        "a batch of its own": [2**20],
        "a scalar": [],
        "no shape": None,
    }.items():
        hostile = edited(TRAIN_STEP_FILE, lambda model, shape=shape: _take(model, f"{NOISE}0", shape))
        yield Hostile(f"noise: {name}", hostile, "as noise|more than")
    integers = edited(
        TRAIN_STEP_FILE, lambda model: _take(model, f"{NOISE}0", ["batch", 1], TensorProto.INT64)
    )
    yield Hostile("noise: integers", integers, "as noise")

    def sequence(model: Any) -> None:
        kind = helper.make_tensor_sequence_value_info(f"{NOISE}0", TensorProto.FLOAT, ["batch", 1])
        model.graph.input.append(kind)

    yield Hostile("noise: a sequence", edited(TRAIN_STEP_FILE, sequence), "as noise")


def outputs() -> Iterator[Hostile]:
    """A step that gives something else."""
    first = f"{NEW}{_SHARED.name}"
    for name, change in {
        "the data": lambda model: _give(model, "input", "stolen", ["batch", 6]),
        "an input that nobody renews": lambda model: _give(model, "input", f"{NEW}input", ["batch", 6]),
        "no loss": lambda model: _drop(model, LOSS),
        "no new parameter": lambda model: _drop(model, first),
        "a parameter of another name": lambda model: renamed(model, first, f"{NEW}another"),
        "the loss last": lambda model: model.graph.output.append(model.graph.output.pop(0)),
    }.items():
        yield Hostile(f"a step gives {name}", edited(TRAIN_STEP_FILE, change), "gives .* not the loss and")
    frozen = edited(
        TRAIN_STEP_FILE, lambda model: _give(model, "hidden1.bias", f"{NEW}hidden1.bias", [8]), ROLED
    )
    yield Hostile("a step gives a frozen parameter", frozen, "not the loss and")
    lost = edited(TRAIN_STEP_FILE, lambda model: _drop(model, f"{NEW}moment1/{_SHARED.name}"), ADAM)
    yield Hostile("a step keeps a moment to itself", lost, "not the loss and")
    for name, shape in {
        "wider": [6, 9],
        "flat": [48],
        "of any length": [None, 8],
        "of any rank": None,
    }.items():
        hostile = edited(TRAIN_STEP_FILE, lambda model, shape=shape: _reshape(model, first, shape))
        yield Hostile(f"a step gives a parameter that is {name}", hostile, "of another shape than it takes")
    doubled = edited(TRAIN_STEP_FILE, lambda model: model.graph.output.append(model.graph.output[-1]))
    yield Hostile("a step gives a parameter twice", doubled, "described twice")
    nothing = edited(TRAIN_STEP_FILE, lambda model: model.graph.ClearField("node"))
    yield Hostile("a step without a node", nothing, "no node computes")


def values_apart() -> Iterator[Hostile]:
    """Values of frozen and private parameters that are not what the manifest says, and who is which."""
    for file in (FROZEN_FILE, PRIVATE_FILE):
        content = ROLED.files[file]
        numbers = np.frombuffer(content, "<f4").copy()
        for name, value in (("NaN", np.nan), ("infinity", -np.inf)):
            numbers[-1] = value
            spoilt = with_file(file, numbers.tobytes(), ROLED, ORT_GRAPH)
            yield Hostile(f"{name} among the {file} values", spoilt, "NaN or infinity")
        for name, cut in (("one", content[:-4]), ("half a", content[:-2]), ("every", b"")):
            short = with_file(file, cut, ROLED, ORT_GRAPH)
            yield Hostile(f"{name} {file} value fewer", short, f"{file}: .* the manifest has")
        long = with_file(file, content + bytes(4), ROLED, ORT_GRAPH)
        yield Hostile(f"one {file} value more", long, f"{file}: .* at most")
    manifest = ROLED.manifest
    swapped = with_manifest(ORT_GRAPH, ROLED, parameters=manifest.private, private=manifest.parameters)
    yield Hostile("shared and private in each other's place", swapped, "private: .* at most|manifest")
    shared = with_manifest(ORT_GRAPH, ROLED, parameters=manifest.private, private=None)
    yield Hostile("private parameters named as the shared ones", shared, "its manifest|which no step")


def arguments() -> Iterator[Hostile]:
    """Operators, and arguments of theirs, that native code does not look at before it reads or writes."""
    number = {"kernel_shape": [1], "pads": [-9, 20], "strides": [-1]}
    for name, operator, more, refusal in (
        ("a pad below zero", "Conv", {"pads": [-9, 20]}, "below 0"),
        ("a step of nothing", "MaxPool", {"kernel_shape": [1], "strides": [0]}, "below 1"),
        ("a step backwards", "Conv", {"strides": [-1]}, "below 1"),
        ("a kernel of nothing", "MaxPool", {"kernel_shape": [0]}, "below 1"),
        ("gaps below zero", "Conv", {"dilations": [-9]}, "below 1"),
        ("no group", "Conv", {"group": 0}, "below 1"),
        ("groups of nothing", "GroupNormalization", {"num_groups": 0}, "below 1"),
        ("padding of an output below zero", "ConvTranspose", {"output_padding": [-2]}, "below 0"),
        ("an output of its own shape", "ConvTranspose", {"output_shape": [1_000]}, "not allowed"),
        ("an axis that is not there", "Resize", {"axes": [9, -9]}, "not allowed"),
        ("batches below zero", "GatherND", {"batch_dims": -3}, "below 0"),
        ("a state of nothing", "GRU", {"hidden_size": 0}, "below 1"),
        ("mirrored padding", "Pad", {"mode": "reflect"}, "only constant padding"),
        ("repeated padding", "Pad", {"mode": "edge"}, "only constant padding"),
        ("padding around", "Pad", {"mode": "wrap"}, "only constant padding"),
        ("two of them", "Conv", number, "below"),
    ):
        for file in ORT_GRAPH_FILES:
            hostile = edited(file, added(node(operator, ["input", "input", "input"], **more)))
            yield Hostile(f"{operator} with {name} in {file}", hostile, refusal)
    for operator in ("MaxPoolGrad", "SoftmaxCrossEntropyLoss", "MaxUnpool"):
        for file in ORT_GRAPH_FILES:
            hostile = edited(file, added(node(operator, ["input", "labels"])))
            yield Hostile(f"{operator} in {file}", hostile, "belongs into a training|nobody checks")
    for operator in ("FusedMatMul", "InPlaceAccumulatorV2", "SGDOptimizerV2", "ConvGrad"):
        for file in ORT_GRAPH_FILES:
            hostile = edited(file, lambda model, operator=operator: _extended(model, operator))
            yield Hostile(f"{operator} of the training build in {file}", hostile, "belongs into a training")
    whole = with_file(TRAIN_STEP_FILE, GOOD.files[EVALUATE_STEP_FILE])
    yield Hostile("an evaluation in place of a step", whole, "does not take")
    other = with_file(EVALUATE_STEP_FILE, GOOD.files[TRAIN_STEP_FILE])
    yield Hostile("a step in place of an evaluation", other, "its manifest")


def _extended(model: Any, operator: str) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    added(node(operator, ["input", "input"], domain="com.microsoft"))(model)


def _take(model: Any, name: str, shape: list[Any] | None, kind: int = TensorProto.FLOAT) -> None:
    model.graph.input.append(helper.make_tensor_value_info(name, kind, shape))


def _retype(model: Any, kind: int) -> None:
    model.graph.input[0].type.tensor_type.elem_type = kind


def _resize(model: Any, name: str, axis: int, length: int | None) -> None:
    value = next(each for each in model.graph.input if each.name == name)
    dimension = value.type.tensor_type.shape.dim[axis]
    dimension.Clear()
    if length is not None:
        dimension.dim_value = length


def _fill_in(model: Any, name: str) -> None:
    """The graph has a constant where a step takes something."""
    value = next(each for each in model.graph.input if each.name == name)
    model.graph.input.remove(value)
    shape = [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]
    values = [0] * int(np.prod(shape))
    model.graph.initializer.append(helper.make_tensor(name, value.type.tensor_type.elem_type, shape, values))


def renamed(model: Any, old: str, new: str) -> None:
    """Call a tensor by another name."""
    for values in (model.graph.input, model.graph.output):
        for value in values:
            value.name = new if value.name == old else value.name
    for each in model.graph.node:
        for names in (each.input, each.output):
            names[:] = [new if name == old else name for name in names]


def _give(model: Any, source: str, name: str, shape: list[Any]) -> None:
    model.graph.node.append(helper.make_node("Identity", [source], [name]))
    model.graph.output.append(float_value(name, shape))


def _drop(model: Any, name: str) -> None:
    model.graph.output.remove(next(each for each in model.graph.output if each.name == name))


def _reshape(model: Any, name: str, shape: list[Any] | None) -> None:
    value = next(each for each in model.graph.output if each.name == name)
    value.CopyFrom(float_value(name, shape))
