"""Graphs and manifests that do not say the same."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from hostile_artifacts.making import (
    ADAM,
    GOOD,
    Hostile,
    added,
    constant,
    edited,
    float_value,
    with_file,
    with_manifest,
)
from models.bundle_scan import (
    EVALUATION_FILE,
    OPTIMIZER_FILE,
    TRAINING_FILE,
)


def lies() -> Iterator[Hostile]:
    """Graphs and manifests that do not say the same."""
    yield from lies_of_graphs()
    yield from lies_of_manifests()
    yield from versions()


def lies_of_graphs() -> Iterator[Hostile]:
    """Inputs, outputs and names."""
    for name, change in {
        "dtype": _retyped,
        "width of the input": _widened,
        "rank of a parameter": _reranked,
        "fixed batch": _static,
        "two parameters in each other's place": _swapped,
        "output of any shape": _shapeless,
        "classes": _more_classes,
        "one input more": _one_more,
        "one output fewer": _one_fewer,
    }.items():
        for file in (EVALUATION_FILE, TRAINING_FILE):
            yield Hostile(f"{name} in {file}", edited(file, change), "its manifest")

    def doubled(model: Any) -> None:
        model.graph.initializer.append(model.graph.initializer[0])

    yield Hostile("the same initializer twice", edited(TRAINING_FILE, doubled), "already is")

    def shadow(model: Any) -> None:
        values = np.zeros((6, 8), dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, model.graph.input[2].name))

    yield Hostile("initializer in place of a parameter", edited(TRAINING_FILE, shadow), "already is")


def lies_of_manifests() -> Iterator[Hostile]:
    """Parameters, labels, optimizer, files in each other's place."""
    table = GOOD.manifest.parameters
    rows = [(row.name, row.shape) for row in table.parameters]
    flat = [(name, (int(np.prod(shape)),)) for name, shape in rows]
    for name, shapes in {
        "of other shapes": flat,
        "of fewer parameters": rows[:-1],
        "of more parameters": [*rows, ("extra", (9,))],
        "of other names": [(f"{name}x", shape) for name, shape in rows],
        "of 2^26 parameters": [("all", (2**26,))],
    }.items():
        yield Hostile(f"table {name}", with_manifest(parameters=type(table).of(shapes)), "its manifest")
    manifest = GOOD.manifest
    yield Hostile("label of floats", with_manifest(label=replace(manifest.label, dtype="float32")), "label")
    yield Hostile("label with a shape", with_manifest(label=replace(manifest.label, shape=(3,))), "label")
    yield Hostile("another loss", with_manifest(loss="mse"), "label")
    classes = replace(manifest.output, shape=(1_000,))
    yield Hostile(
        "1,000 classes, so that labels reach foreign memory", with_manifest(output=classes), "its man"
    )
    for file in (EVALUATION_FILE, TRAINING_FILE):
        yield Hostile(f"loss of something else in {file}", edited(file, _foreign_logits), "the loss judges")
    yield Hostile("another optimizer named", with_manifest(optimizer="adamw"), "is not the optimizer adamw")
    yield Hostile(
        "another optimizer's graph",
        with_file(OPTIMIZER_FILE, ADAM.files[OPTIMIZER_FILE]),
        "not the optimizer",
    )
    yield Hostile(
        "evaluation in place of training",
        with_file(TRAINING_FILE, GOOD.files[EVALUATION_FILE]),
        "its manifest",
    )
    yield Hostile(
        "training as optimizer", with_file(OPTIMIZER_FILE, GOOD.files[TRAINING_FILE]), "optimizer sgd"
    )


def versions() -> Iterator[Hostile]:
    """Of the format and of the operators."""
    for name, change, refusal in (
        ("IR 99", _version, "IR version 99"),
        ("another opset", _opset, "opset 21"),
        ("two opsets", _twice, "twice"),
        ("opset of a stranger", _foreign, "com.example"),
        ("no opset", _unopset, "opset None"),
    ):
        yield Hostile(name, edited(EVALUATION_FILE, change), refusal)


def _retyped(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def _widened(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7


def _reranked(model: Any) -> None:
    model.graph.input[2].type.tensor_type.shape.dim.add().dim_value = 1


def _static(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _swapped(model: Any) -> None:
    first, second = model.graph.input[2].name, model.graph.input[3].name
    model.graph.input[2].name, model.graph.input[3].name = second, first


def _shapeless(model: Any) -> None:
    model.graph.output[1].type.tensor_type.ClearField("shape")


def _more_classes(model: Any) -> None:
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 1_000


def _one_more(model: Any) -> None:
    model.graph.input.append(float_value("more", [2]))


def _one_fewer(model: Any) -> None:
    del model.graph.output[-1]


def _version(model: Any) -> None:
    model.ir_version = 99


def _opset(model: Any) -> None:
    model.opset_import[0].version = 21


def _twice(model: Any) -> None:
    model.opset_import.append(helper.make_opsetid("", 12))


def _foreign(model: Any) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def _unopset(model: Any) -> None:
    del model.opset_import[:]


def _foreign_logits(model: Any) -> None:
    """The loss looks labels up in something narrower than the output."""
    for each in model.graph.node:
        if each.op_type == "SoftmaxCrossEntropyLoss":
            each.input[0] = "narrow"
    narrow = helper.make_node("Slice", ["input", "from", "to", "axis"], ["narrow"])
    added(narrow, constants=(constant("from", 0), constant("to", 1), constant("axis", 1)))(model)
