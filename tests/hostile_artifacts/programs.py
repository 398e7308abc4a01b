"""Graphs that reach outside of the bundle, or do what no training graph does."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hostile_artifacts.making import (
    GOOD,
    JUDGING,
    LEARNING,
    Aimed,
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
from models.bundle_scan import OPTIMIZER_FILE
from models.graph_scan import MAX_NODES


def other_files() -> Iterator[Hostile]:
    """Data outside of the bundle."""
    for file in (*JUDGING, *LEARNING):
        yield from named_files(file)
        yield from hidden_files(file)
    for file in (FORWARD_FILE, OPTIMIZER_FILE):
        change = added(constants=(elsewhere("secret.bin"),))
        yield Hostile(f"external data in {file}", edited(file, change), "in another file")


def named_files(file: str) -> Iterator[Hostile]:
    """Data outside of the bundle, where a graph says it is."""
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
        yield Hostile(f"external data, {name}, in {file}", edited(file, change), refusal)
    attribute = node("Constant", [], value=elsewhere("secret.bin"))
    yield Hostile(f"external data in an attribute in {file}", edited(file, added(attribute)), refusal)
    choice = node("If", ["yes"], then_branch=branch(elsewhere("secret.bin")), else_branch=branch())
    yield Hostile(f"external data in a subgraph in {file}", edited(file, added(choice)), "not allowed")

    def marked(model: Any) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "marked"))
        model.graph.initializer[-1].data_location = TensorProto.EXTERNAL

    yield Hostile(f"external data without a place in {file}", edited(file, marked), refusal)

    def placed(model: Any) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "placed"))
        model.graph.initializer[-1].external_data.add().key = "location"

    yield Hostile(f"a place without external data in {file}", edited(file, placed), refusal)
    yield Hostile(f"external data in a number that is cut in {file}", _cut_number(file), refusal)


def hidden_files(file: str) -> Iterator[Hostile]:
    """Data outside of the bundle, where one may forget to look."""

    def sparse(model: Any) -> None:
        values, indices = elsewhere("secret.bin"), constant("indices", 1)
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))

    yield Hostile(f"external data in a sparse tensor in {file}", edited(file, sparse), "sparse")
    values = helper.make_sparse_tensor(elsewhere("secret.bin"), constant("i", 1), [4])
    attribute = node("Constant", [], sparse_value=values)
    yield Hostile(f"external data in a sparse attribute in {file}", edited(file, added(attribute)), "sparse")

    def training_info(model: Any) -> None:
        model.training_info.add().initialization.initializer.append(elsewhere("secret.bin"))

    yield Hostile(f"external data in training_info in {file}", edited(file, training_info), "training_info")

    def function(model: Any) -> None:
        inner = [node("Constant", [], "out", value=elsewhere("x"))]
        model.functions.append(helper.make_function("own", "f", [], ["out"], inner, model.opset_import))

    yield Hostile(f"external data in a function in {file}", edited(file, function), "functions")


def _cut_number(file: str) -> Aimed:
    """2^32 + 1 is EXTERNAL to a parser that keeps 32 bits of it."""
    model: Any = onnx.load_model_from_string(GOOD.files[file])
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "cut").SerializeToString()
    tensor += varint(14 << 3) + varint(2**32 + 1)
    graph = model.graph.SerializeToString() + wire_field(5, tensor)
    model.ClearField("graph")
    return with_file(file, model.SerializeToString() + wire_field(7, graph))


def programs() -> Iterator[Hostile]:
    """Operators that no device should run."""
    for file in (*JUDGING, *LEARNING):
        yield from operators(file)
    for file in JUDGING:
        yield from graphs_in_graphs(file)
        yield from orders(file)
    yield Hostile("gradient in a forward graph", edited(FORWARD_FILE, _gradient), "belongs into a training")


def operators(file: str) -> Iterator[Hostile]:
    """Operators beyond the list."""
    refusal = "is not allowed"
    empty = helper.make_graph([], "empty", [], [])
    for operator, attributes in {
        "If": {"then_branch": branch(), "else_branch": branch()},
        "Loop": {"body": empty},
        "Scan": {"body": empty, "num_scan_inputs": 1},
        "SequenceMap": {"body": empty},
        "RoiAlign": {},
        "Upsample": {},
        "RandomNormal": {"shape": [2**20, 2**20]},
        "Multinomial": {"sample_size": 2**30},
        "StringNormalizer": {},
        "Nonsense": {},
    }.items():
        change = added(node(operator, ["input"], **attributes))
        yield Hostile(f"operator {operator} in {file}", edited(file, change), refusal)
    for domain, operator in {
        "com.example": "Own",
        "ai.onnx.ml": "TreeEnsembleRegressor",
        "com.microsoft": "ATen",
        "org.pytorch.aten": "ATen",
        "com.microsoft.experimental": "Anything",
    }.items():
        change = added(node(operator, ["input"], domain=domain))
        yield Hostile(f"operator {operator} of {domain} in {file}", edited(file, change), refusal)
    for operator in ("PythonOp", "LoadExternalTensor", "Send", "EPContext"):
        change = added(node(operator, ["input"], domain="com.microsoft"))
        yield Hostile(f"operator {operator} in {file}", edited(file, change), refusal)


def graphs_in_graphs(file: str) -> Iterator[Hostile]:
    """Programs of a model's own."""
    yield Hostile(f"20 graphs in each other in {file}", edited(file, added(nested(20))), "is not allowed")
    subgraph = node("Identity", ["input"], hidden=branch())
    yield Hostile(f"a graph in an attribute in {file}", edited(file, added(subgraph)), "graph of its own")
    subgraphs = node("Identity", ["input"], hidden=[branch(), branch()])
    yield Hostile(f"graphs in an attribute in {file}", edited(file, added(subgraphs)), "graph of its own")

    def functions(model: Any) -> None:
        model.opset_import.append(helper.make_opsetid("own", 1))
        inner = [node("Identity", ["a"], "b")]
        model.functions.append(helper.make_function("own", "f", ["a"], ["b"], inner, model.opset_import))
        added(node("f", ["input"], domain="own"))(model)

    yield Hostile(f"function of the model's own in {file}", edited(file, functions), "functions|'own'")


def orders(file: str) -> Iterator[Hostile]:
    """Nodes that are too many, or not in order."""
    many = [node("Identity", ["input"], f"copy {index}") for index in range(MAX_NODES)]
    yield Hostile(f"nodes too many in {file}", edited(file, added(*many)), f"at most {MAX_NODES:,}")
    circle = (node("Add", ["input", "b"], "a"), node("Add", ["input", "a"], "b"))
    yield Hostile(f"cycle in {file}", edited(file, added(*circle)), "nothing before it computes")
    itself = node("Add", ["input", "self"], "self")
    yield Hostile(f"node that reads itself in {file}", edited(file, added(itself)), "nothing before it")
    again = node("Identity", ["labels"], "input")
    yield Hostile(f"node that writes the input in {file}", edited(file, added(again)), "already is")


def _gradient(model: Any) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    added(node("ReluGrad", ["input", "input"], domain="com.microsoft"))(model)
