"""Graphs that declare more than a device could hold."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from hostile_artifacts.making import (
    Hostile,
    added,
    constant,
    edited,
    float_value,
    node,
)
from models.bundle_scan import (
    EVALUATION_FILE,
    TRAINING_FILE,
)


def sizes() -> Iterator[Hostile]:
    """What is declared larger than a device."""
    huge = TensorProto(data_type=TensorProto.FLOAT, name="huge", dims=[2**31, 2**31])
    yield Hostile("constant of 2^62 elements", edited(EVALUATION_FILE, added(constants=(huge,))), "more than")
    short = TensorProto(data_type=TensorProto.FLOAT, name="short", dims=[1_000], raw_data=bytes(4))
    yield Hostile(
        "constant shorter than its shape", edited(EVALUATION_FILE, added(constants=(short,))), "1,000"
    )
    wraps = TensorProto(data_type=TensorProto.FLOAT, name="wraps", dims=[2**32, 2**32, 0])
    yield Hostile(
        "shape whose product wraps", edited(EVALUATION_FILE, added(constants=(wraps,))), "more than"
    )
    minus = TensorProto(data_type=TensorProto.FLOAT, name="minus", dims=[-1])
    yield Hostile("negative length", edited(EVALUATION_FILE, added(constants=(minus,))), "negative")
    ranks = TensorProto(data_type=TensorProto.FLOAT, name="ranks", dims=[1] * 100, raw_data=bytes(4))
    yield Hostile("100 axes", edited(EVALUATION_FILE, added(constants=(ranks,))), "more than 8")
    strings = TensorProto(data_type=TensorProto.STRING, name="text", dims=[1], string_data=[b"x"])
    yield Hostile("strings", edited(EVALUATION_FILE, added(constants=(strings,))), "no engine|not allowed")
    two = numpy_helper.from_array(np.zeros(1, np.float32), "two")
    two.float_data.append(1.0)
    yield Hostile("constant with two contents", edited(EVALUATION_FILE, added(constants=(two,))), "both")
    big = constant("big", 2**20, 2**20)
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    bombs = {
        "ConstantOfShape": node("ConstantOfShape", ["big"], value=one),
        "Expand": node("Expand", ["input", "big"]),
        "Tile": node("Tile", ["input", "big"]),
        "Reshape": node("Reshape", ["input", "big"]),
    }
    for operator, bomb in bombs.items():
        for file in (EVALUATION_FILE, TRAINING_FILE):
            change = added(bomb, constants=(big,))
            yield Hostile(f"bomb by {operator} in {file}", edited(file, change), "makes 1,099,511,627,776")
    inside = (node("Constant", [], "big", value=big), bombs["ConstantOfShape"])
    yield Hostile("bomb by a Constant node", edited(EVALUATION_FILE, added(*inside)), "makes 1,099")
    ints = (node("Constant", [], "big", value_ints=[2**40]), bombs["ConstantOfShape"])
    yield Hostile("bomb by value_ints", edited(EVALUATION_FILE, added(*ints)), "beyond|makes 1,099")
    kernel = node("MaxPool", ["input"], kernel_shape=[2**40])
    yield Hostile("kernel of 2^40", edited(EVALUATION_FILE, added(kernel)), "beyond")
    lists = node("Transpose", ["input"], perm=[0] * 10_000)
    yield Hostile("10,000 numbers in an attribute", edited(EVALUATION_FILE, added(lists)), "more than 64")
    named = node("Relu", ["input"], "n" * 100_000)
    yield Hostile("name of 100,000 letters", edited(EVALUATION_FILE, added(named)), "at most 1,024")

    def wide(model: Any) -> None:
        model.graph.value_info.append(float_value("wide", [2**40, 2**40]))

    yield Hostile("intermediate value of 2^80", edited(EVALUATION_FILE, wide), "more than")

    def deep(model: Any) -> None:
        kind = model.graph.value_info.add(name="deep").type
        for _ in range(60):
            kind = kind.sequence_type.elem_type
        kind.tensor_type.elem_type = 1

    yield Hostile("sequence of sequences", edited(EVALUATION_FILE, deep), "something else than tensors")
