"""Graphs that reach outside of the bundle, or do what no training graph does."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hostile_artifacts.making import (
    GOOD,
    Hostile,
    added,
    branch,
    constant,
    edited,
    elsewhere,
    nested,
    node,
    varint,
    wire_field,
    with_file,
)
from models.bundle import FORWARD_FILE
from models.bundle_scan import (
    EVALUATION_FILE,
    OPTIMIZER_FILE,
    TRAINING_FILE,
)


def other_files() -> Iterator[Hostile]:
    """Data outside of the bundle."""
    refusal = "in another file"
    for name, location in {
        "relative": "weights.bin",
        "absolute": "/etc/passwd",
        "traversal": "../../../../etc/shadow",
        "of a symlink": "nominal_checkpoint_link",
        "of a device": "/dev/zero",
        "empty": "",
    }.items():
        change = added(constants=(elsewhere(location),))
        yield Hostile(f"external data, {name}", edited(TRAINING_FILE, change), refusal)
    for file in (FORWARD_FILE, EVALUATION_FILE, OPTIMIZER_FILE):
        change = added(constants=(elsewhere("secret.bin"),))
        yield Hostile(f"external data in {file}", edited(file, change), refusal)
    attribute = node("Constant", [], value=elsewhere("secret.bin"))
    yield Hostile("external data in an attribute", edited(EVALUATION_FILE, added(attribute)), refusal)
    choice = node("If", ["yes"], then_branch=branch(elsewhere("secret.bin")), else_branch=branch())
    yield Hostile("external data in a subgraph", edited(EVALUATION_FILE, added(choice)), "not allowed")

    def marked(model: Any) -> None:
        model.graph.initializer[0].data_location = TensorProto.EXTERNAL

    yield Hostile("external data without a place", edited(TRAINING_FILE, marked), refusal)

    def placed(model: Any) -> None:
        model.graph.initializer[0].external_data.add().key = "location"

    yield Hostile("a place without external data", edited(TRAINING_FILE, placed), refusal)
    yield Hostile("external data in a number that is cut", _cut_number(), refusal)
    yield from hidden_files()


def hidden_files() -> Iterator[Hostile]:
    """Data outside of the bundle, where one may forget to look."""

    def sparse(model: Any) -> None:
        values, indices = elsewhere("secret.bin"), constant("indices", 1)
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))

    yield Hostile("external data in a sparse tensor", edited(EVALUATION_FILE, sparse), "sparse")
    values = helper.make_sparse_tensor(elsewhere("secret.bin"), constant("i", 1), [4])
    attribute = node("Constant", [], sparse_value=values)
    yield Hostile("external data in a sparse attribute", edited(EVALUATION_FILE, added(attribute)), "sparse")

    def training_info(model: Any) -> None:
        model.training_info.add().initialization.initializer.append(elsewhere("secret.bin"))

    yield Hostile("external data in training_info", edited(TRAINING_FILE, training_info), "training_info")

    def function(model: Any) -> None:
        model.functions.append(
            helper.make_function(
                "own",
                "f",
                [],
                ["out"],
                [node("Constant", [], "out", value=elsewhere("x"))],
                model.opset_import,
            )
        )

    yield Hostile("external data in a function", edited(TRAINING_FILE, function), "functions")


def _cut_number() -> bytes:
    """2^32 + 1 is EXTERNAL to a parser that keeps 32 bits of it."""
    model: Any = onnx.load_model_from_string(GOOD.files[TRAINING_FILE])
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "cut").SerializeToString()
    tensor += varint(14 << 3) + varint(2**32 + 1)
    graph = model.graph.SerializeToString() + wire_field(5, tensor)
    model.ClearField("graph")
    return with_file(TRAINING_FILE, model.SerializeToString() + wire_field(7, graph))


def programs() -> Iterator[Hostile]:
    """Operators that no device should run."""
    refusal = "is not allowed"
    empty = helper.make_graph([], "empty", [], [])
    for operator, attributes in {
        "If": {"then_branch": branch(), "else_branch": branch()},
        "Loop": {"body": empty},
        "Scan": {"body": empty, "num_scan_inputs": 1},
        "SequenceMap": {"body": empty},
        "AveragePool": {"kernel_shape": [2, 2]},
        "Resize": {},
        "RandomNormal": {"shape": [2**20, 2**20]},
        "Multinomial": {"sample_size": 2**30},
        "StringNormalizer": {},
        "Nonsense": {},
    }.items():
        change = added(node(operator, ["input"], **attributes))
        yield Hostile(f"operator {operator}", edited(EVALUATION_FILE, change), refusal)
    for domain, operator in {
        "com.example": "Own",
        "ai.onnx.ml": "TreeEnsembleRegressor",
        "com.microsoft": "ATen",
        "org.pytorch.aten": "ATen",
        "com.microsoft.experimental": "Anything",
    }.items():
        change = added(node(operator, ["input"], domain=domain))
        yield Hostile(f"operator {operator} of {domain}", edited(TRAINING_FILE, change), refusal)
    for operator in ("PythonOp", "LoadExternalTensor", "Send", "EPContext"):
        change = added(node(operator, ["input"], domain="com.microsoft"))
        yield Hostile(f"operator {operator}", edited(TRAINING_FILE, change), refusal)
    yield Hostile("20 graphs in each other", edited(EVALUATION_FILE, added(nested(20))), refusal)
    yield Hostile("gradient in a forward graph", edited(FORWARD_FILE, _gradient), "belongs into a training")
    subgraph = node("Identity", ["input"], hidden=branch())
    yield Hostile("a graph in an attribute", edited(EVALUATION_FILE, added(subgraph)), "graph of its own")
    subgraphs = node("Identity", ["input"], hidden=[branch(), branch()])
    yield Hostile("graphs in an attribute", edited(EVALUATION_FILE, added(subgraphs)), "graph of its own")

    def functions(model: Any) -> None:
        model.opset_import.append(helper.make_opsetid("own", 1))
        inner = [node("Identity", ["a"], "b")]
        model.functions.append(helper.make_function("own", "f", ["a"], ["b"], inner, model.opset_import))
        added(node("f", ["input"], domain="own"))(model)

    yield Hostile("function of the model's own", edited(EVALUATION_FILE, functions), "functions|'own'")
    many = [node("Identity", ["input"], f"copy {index}") for index in range(5_001)]
    yield Hostile("5,000 nodes too many", edited(EVALUATION_FILE, added(*many)), "at most 5,000")
    circle = (node("Add", ["input", "b"], "a"), node("Add", ["input", "a"], "b"))
    yield Hostile("cycle", edited(EVALUATION_FILE, added(*circle)), "nothing before it computes")
    itself = node("Add", ["input", "self"], "self")
    yield Hostile("node that reads itself", edited(EVALUATION_FILE, added(itself)), "nothing before it")
    again = node("Identity", ["labels"], "input")
    yield Hostile("node that writes the input", edited(EVALUATION_FILE, added(again)), "already is")


def _gradient(model: Any) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    added(node("ReluGrad", ["input", "input"], domain="com.microsoft"))(model)
