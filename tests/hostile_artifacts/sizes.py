"""Graphs that declare more than a device could hold."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from hostile_artifacts.making import (
    JUDGING,
    LEARNING,
    Hostile,
    added,
    constant,
    edited,
    float_value,
    node,
)


def sizes() -> Iterator[Hostile]:
    """What is declared larger than a device."""
    for file in JUDGING:
        yield from constants(file)
        yield from declarations(file)
    for file in (*JUDGING, *LEARNING):
        yield from asked_for(file)


def constants(file: str) -> Iterator[Hostile]:
    """Initializers whose shapes lie, or say too much."""
    floats, strings = TensorProto.FLOAT, TensorProto.STRING
    short = TensorProto(data_type=floats, dims=[1_000], raw_data=bytes(4))
    text = TensorProto(data_type=strings, dims=[1], string_data=[b"x"])
    two = numpy_helper.from_array(np.zeros(1, np.float32), "two")
    two.float_data.append(1.0)
    for name, tensor, refusal in (
        ("2^62 elements", TensorProto(data_type=floats, dims=[2**31, 2**31]), "more than"),
        ("fewer elements than its shape", short, "1,000"),
        ("a product that wraps", TensorProto(data_type=floats, dims=[2**32, 2**32, 0]), "more than"),
        ("a negative length", TensorProto(data_type=floats, dims=[-1]), "negative"),
        ("100 axes", TensorProto(data_type=floats, dims=[1] * 100, raw_data=bytes(4)), "more than 8"),
        ("strings", text, "no engine|not allowed"),
        ("two contents", two, "both"),
    ):
        tensor.name = "odd"
        change = added(constants=(tensor,))
        yield Hostile(f"constant of {name} in {file}", edited(file, change), refusal)


def asked_for(file: str) -> Iterator[Hostile]:
    """Operators whose output is as large as a constant says."""
    big = constant("big", 2**20, 2**20)
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    for operator, bomb in {
        "ConstantOfShape": node("ConstantOfShape", ["big"], value=one),
        "Expand": node("Expand", ["input", "big"]),
        "Tile": node("Tile", ["input", "big"]),
        "Reshape": node("Reshape", ["input", "big"]),
    }.items():
        change = added(bomb, constants=(big,))
        yield Hostile(f"bomb by {operator} in {file}", edited(file, change), "makes 1,099,511,627,776")
    bomb = node("ConstantOfShape", ["big"], value=one)
    inside = (node("Constant", [], "big", value=big), bomb)
    yield Hostile(f"bomb by a Constant node in {file}", edited(file, added(*inside)), "makes 1,099")
    ints = (node("Constant", [], "big", value_ints=[2**40]), bomb)
    yield Hostile(f"bomb by value_ints in {file}", edited(file, added(*ints)), "beyond|makes 1,099")


def declarations(file: str) -> Iterator[Hostile]:
    """Attributes, names and values."""
    kernel = node("MaxPool", ["input"], kernel_shape=[2**40])
    yield Hostile(f"kernel of 2^40 in {file}", edited(file, added(kernel)), "beyond")
    lists = node("Transpose", ["input"], perm=[0] * 10_000)
    yield Hostile(f"10,000 numbers in an attribute in {file}", edited(file, added(lists)), "more than 64")
    named = node("Relu", ["input"], "n" * 100_000)
    yield Hostile(f"name of 100,000 letters in {file}", edited(file, added(named)), "at most 1,024")

    def wide(model: Any) -> None:
        model.graph.value_info.append(float_value("wide", [2**40, 2**40]))

    yield Hostile(f"intermediate value of 2^80 in {file}", edited(file, wide), "more than")

    def deep(model: Any) -> None:
        kind = model.graph.value_info.add(name="deep").type
        for _ in range(60):
            kind = kind.sequence_type.elem_type
        kind.tensor_type.elem_type = 1

    yield Hostile(f"sequence of sequences in {file}", edited(file, deep), "something else than tensors")
