"""Graphs and manifests that do not say the same."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from hostile_artifacts.making import (
    ADAM,
    ENGINES,
    GOOD,
    JUDGING,
    Hostile,
    added,
    constant,
    edited,
    float_value,
    with_file,
    with_manifest,
)
from models.bundle_scan import (
    EVALUATE_STEP_FILE,
    EVALUATION_FILE,
    OPTIMIZER_FILE,
    TRAIN_STEP_FILE,
    TRAINING_FILE,
)
from models.installed import ORT_TRAINING
from models.layout import ParameterTable


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
        for file in (EVALUATION_FILE, TRAINING_FILE, EVALUATE_STEP_FILE):
            yield Hostile(f"{name} in {file}", edited(file, change), "its manifest")

    for file in (TRAINING_FILE, TRAIN_STEP_FILE, EVALUATE_STEP_FILE):
        yield Hostile(f"the same initializer twice in {file}", edited(file, _doubled), "already is")
        yield Hostile(f"initializer in place of a parameter in {file}", edited(file, _shadow), "already is")


def lies_of_manifests() -> Iterator[Hostile]:
    """Parameters, labels, optimizer, files in each other's place."""
    manifest = GOOD.manifest
    rows = [(row.name, row.shape) for row in manifest.parameters.parameters]
    tables = {
        "of other shapes": [(name, (int(np.prod(shape)),)) for name, shape in rows],
        "of fewer parameters": rows[:-1],
        "of more parameters": [*rows, ("extra", (9,))],
        "of other names": [(f"{name}x", shape) for name, shape in rows],
        "of 2^26 parameters": [("all", (2**26,))],
    }
    for engine in ENGINES:
        for name, shapes in tables.items():
            other = with_manifest(engine, parameters=ParameterTable.of(shapes))
            yield Hostile(f"table {name} for {engine}", other, "its manifest|does not take")
        for name, fields, refusal in (
            ("label of floats", {"label": replace(manifest.label, dtype="float32")}, "label"),
            ("label with a shape", {"label": replace(manifest.label, shape=(3,))}, "label"),
            ("another loss", {"loss": "mse"}, "label"),
            ("input of integers", {"input": replace(manifest.input, dtype="int64")}, "the manifest's input"),
            # Labels of so many would reach foreign memory.
            ("1,000 classes", {"output": replace(manifest.output, shape=(1_000,))}, "its man"),
        ):
            yield Hostile(f"{name} for {engine}", with_manifest(engine, **fields), refusal)
    for file in (EVALUATION_FILE, TRAINING_FILE):
        yield Hostile(f"loss of something else in {file}", edited(file, _foreign_logits), "the loss judges")
    named = with_manifest(ORT_TRAINING, step=ADAM.manifest.step)
    yield Hostile("another optimizer named", named, "is not the optimizer adamw")
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
    for file in JUDGING:
        for name, change, refusal in (
            ("IR 99", _version, "IR version 99"),
            ("another opset", _opset, "opset 16"),
            ("two opsets", _twice, "twice"),
            ("opset of a stranger", _foreign, "com.example"),
            ("no opset", _unopset, "opset None"),
        ):
            yield Hostile(f"{name} in {file}", edited(file, change), refusal)


def _doubled(model: Any) -> None:
    twice = numpy_helper.from_array(np.zeros(1, dtype=np.float32), "twice")
    model.graph.initializer.extend([twice, twice])


def _shadow(model: Any) -> None:
    parameter = GOOD.manifest.parameters.parameters[0]
    values = np.zeros(parameter.shape, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, parameter.name))


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
    model.opset_import[0].version = 16


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
