"""Steps that the scan lets through, as only running them shows what they do; all for the engine ort-graph."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from msgspec.structs import replace
from onnx import helper, numpy_helper

from hostile_artifacts.bombs import ANY_END
from hostile_artifacts.making import (
    GOOD,
    Hostile,
    aim,
    changed,
    constant,
    edited,
    float_value,
    holding,
    into_the_loss,
    node,
)
from hostile_artifacts.steps import ROLED, renamed
from models.bundle import Bundle
from models.bundle_scan import EVALUATE_STEP_FILE, MAX_NOISE, ORT_GRAPH_FILES, TRAIN_STEP_FILE
from models.errors import DIVERGED, OUT_OF_MEMORY, OUT_OF_TIME
from models.installed import ORT_GRAPH
from models.layout import ParameterTable
from models.step_inputs import NEW, NOISE

_SHARED = GOOD.manifest.parameters.parameters[0]
_ROLED_WEIGHTS = np.zeros(ROLED.manifest.parameters.size, dtype=np.float32)


def running_steps() -> Iterator[Hostile]:
    """All of them."""
    yield from wrong_results()
    yield from thieves()
    yield from odd_names()
    yield from wild_numbers()
    yield from bombs_of_steps()


def wrong_results() -> Iterator[Hostile]:
    """New parameters that are no parameters."""
    for name, value in (("NaN", np.nan), ("infinity", np.inf)):
        for what in (f"{NEW}{_SHARED.name}", "loss"):
            bad = numpy_helper.from_array(np.float32(value), "bad")
            change = _instead(what, lambda old, new: node("Add", [old, "bad"], new), bad)
            yield Hostile(f"a step gives {name} as {what}", edited(TRAIN_STEP_FILE, change), DIVERGED)
    spoilt = _instead(
        f"{NEW}out.bias",
        lambda old, new: node("Div", [old, "zero"], new),
        numpy_helper.from_array(np.float32(0), "zero"),
    )
    hostile = edited(TRAIN_STEP_FILE, spoilt, ROLED)
    yield Hostile("a step spoils a private parameter", hostile, DIVERGED, _ROLED_WEIGHTS)
    for name, shape in (("flat", [48]), ("turned", [8, 6]), ("longer", [1, 6, 8])):
        for what in (f"{NEW}{_SHARED.name}", "loss"):
            odd = constant("odd", *(shape if what != "loss" else [1] * len(shape)))
            change = _instead(what, lambda old, new: node("Reshape", [old, "odd"], new), odd)
            hostile = edited(TRAIN_STEP_FILE, change)
            yield Hostile(f"a step gives {what} {name}, not as it declares", hostile, "bundle")
    for name, operators in {
        "more classes": [node("Concat", ["before", "before"], "output", axis=1)],
        "a row more": [node("Concat", ["before", "before"], "output", axis=0)],
        "another axis": [node("Unsqueeze", ["before", "first"], "output")],
    }.items():
        change = _behind_output(operators, constant("first", 0))
        yield Hostile(f"an evaluation gives {name}", edited(EVALUATE_STEP_FILE, change), "bundle")
    nan = numpy_helper.from_array(np.float32(np.nan), "nan")
    change = _instead("loss", lambda old, new: node("Add", [old, "nan"], new), nan)
    # Said to the agent, which does not send it on.
    yield Hostile("an evaluation gives NaN as loss", edited(EVALUATE_STEP_FILE, change), "trained")


def thieves() -> Iterator[Hostile]:
    """What no reading can tell from training: masks, noise and the size of a cohort stand against it."""
    bias = node("ReduceSum", ["hidden2.bias"], "stolen")
    change = _instead(f"{NEW}out.weight", lambda old, new: node("Add", [old, "stolen"], new), before=[bias])
    hostile = edited(TRAIN_STEP_FILE, change, ROLED)
    yield Hostile("private parameters go into the shared ones", hostile, "trained", _ROLED_WEIGHTS)
    data = node("ReduceMean", ["input"], "stolen")
    change = _instead(
        f"{NEW}{_SHARED.name}", lambda old, new: node("Add", [old, "stolen"], new), before=[data]
    )
    yield Hostile("data go into the shared parameters", edited(TRAIN_STEP_FILE, change), "trained")


def odd_names() -> Iterator[Hostile]:
    """Parameters whose names mean something else to a step."""
    for name in ("loss", "learning_rate", "noise/x", "momentum/x", "anchor/x", "new/x", "gradient_weights"):
        yield Hostile(f"a parameter called {name}", aim(_called(name), ORT_GRAPH), f"trained|{ANY_END}")


def _called(name: str) -> Bundle:
    def change(model: Any) -> None:
        renamed(model, _SHARED.name, name)
        renamed(model, f"{NEW}{_SHARED.name}", f"{NEW}{name}")

    table = GOOD.manifest.parameters.parameters
    rows = [(name if each == _SHARED else each.name, each.shape) for each in table]
    bundle = holding({file: changed(GOOD.files[file], change) for file in ORT_GRAPH_FILES})
    return replace(bundle, manifest=replace(bundle.manifest, parameters=ParameterTable.of(rows)))


def wild_numbers() -> Iterator[Hostile]:
    """Numbers that are computed, or shapes that are not declared, where native code may not look.

    Some read what is behind a tensor; what is there is the child's own memory: the data, the weights.
    """
    far, near, least = constant("far", 2**40), constant("near", -9), constant("least", -(2**63))
    cast = node("Cast", ["whole"], to=1)
    row, short = constant("row", 1, 1, -1), numpy_helper.from_array(np.ones(1, np.float32), "short")
    wide = numpy_helper.from_array(np.ones((4096, 1, 1), np.float32), "wide")
    signal = node("Reshape", ["input", "row"], "signal")
    wild: dict[str, tuple[list[Any], list[Any]]] = {
        "GatherElements": ([node("GatherElements", ["signal", "where"])], [constant("where", 2**40)]),
        "GatherND": ([node("GatherND", ["signal", "near"])], [near]),
        "ScatterElements": (
            [node("ScatterElements", ["least", "far", "near"], "whole"), cast],
            [least, far, near],
        ),
        "OneHot of a depth below zero": (
            [node("OneHot", ["labels", "near", "values"])],
            [near, numpy_helper.from_array(np.float32([0, 1]), "values")],
        ),
        "OneHot of 2^40": (
            [node("OneHot", ["labels", "far", "values"])],
            [far, numpy_helper.from_array(np.float32([0, 1]), "values")],
        ),
        "Trilu": ([node("Trilu", ["input", "k"])], [numpy_helper.from_array(np.int64(-(2**63)), "k")]),
        "division by zero": (
            [node("Sub", ["labels", "labels"], "none"), node("Div", ["labels", "none"], "whole"), cast],
            [],
        ),
        "remainder of zero": (
            [node("Sub", ["labels", "labels"], "none"), node("Mod", ["labels", "none"], "whole"), cast],
            [],
        ),
        "Conv with a short bias": ([node("Conv", ["signal", "wide", "short"])], [wide, short]),
        "Conv with a kernel beyond": ([node("Conv", ["signal", "signal"], kernel_shape=[2**31 - 1])], []),
        "LSTM with short weights": (
            [node("LSTM", ["signal", "signal", "signal"], hidden_size=2**20)],
            [],
        ),
        "Pad of 2^62": ([node("Pad", ["input", "pads"])], [constant("pads", 2**62, 0, 2**62, 0)]),
        "Pad below zero": ([node("Pad", ["input", "pads"])], [constant("pads", -(2**40), 0, 2**40, 0)]),
        "Split": ([node("Split", ["input", "sizes"], axis=1)], [constant("sizes", -5, 11)]),
        "Range without an end": (
            [node("Range", ["a", "b", "c"])],
            [numpy_helper.from_array(np.float32(v), n) for n, v in (("a", 0), ("b", np.inf), ("c", 1))],
        ),
        "Tile below zero": ([node("Tile", ["input", "times"])], [constant("times", -4, -4)]),
        "CumSum along nothing": ([node("CumSum", ["input", "far"])], [far]),
    }
    for name, (nodes, constants) in wild.items():
        for file in ORT_GRAPH_FILES:
            change = into_the_loss(signal, *nodes, constants=(row, *constants))
            yield Hostile(f"{name} in {file}", edited(file, change), f"trained|{OUT_OF_TIME}|{ANY_END}")


def bombs_of_steps() -> Iterator[Hostile]:
    """More than there is, in ways that only steps have."""

    def noisy(model: Any) -> None:
        for index in range(64):
            model.graph.input.append(float_value(f"{NOISE}{index}", ["batch", MAX_NOISE]))

    yield Hostile("64 inputs of noise", edited(TRAIN_STEP_FILE, noisy), OUT_OF_MEMORY)
    kernel = numpy_helper.from_array(np.ones((1, 1, 2), np.float32), "kernel")
    widen = [
        node("ReduceMean", ["input"], "mean", keepdims=1),
        node("Unsqueeze", ["mean", "first"], "one"),
        node("Concat", ["one", "one"], "w0", axis=2),
        *(node("ConvTranspose", [f"w{i}", "kernel"], f"w{i + 1}", strides=[2**10]) for i in range(4)),
        node("Identity", ["w4"]),
    ]
    for file in ORT_GRAPH_FILES:
        change = into_the_loss(*widen, constants=(constant("first", 0), kernel))
        yield Hostile(f"ConvTranspose of 2^40 in {file}", edited(file, change), f"bundle|{OUT_OF_MEMORY}")
    scales = numpy_helper.from_array(np.float32([1, 1e12]), "scales")
    for file in ORT_GRAPH_FILES:
        larger = node("Resize", ["input", "", "scales"], mode="nearest")
        hostile = edited(file, into_the_loss(larger, constants=(scales,)))
        yield Hostile(f"Resize by 10^12 in {file}", hostile, f"bundle|{OUT_OF_MEMORY}")
    one = helper.make_tensor("one", 1, [1], [1e-4])
    start = node("ConstantOfShape", ["side"], "side by side", value=one)
    mixed = (node("ReduceMean", ["input"], "mean", keepdims=0), node("Mul", ["side by side", "mean"], "m0"))
    chain = [node("MatMul", [f"m{index}"] * 2, f"m{index + 1}") for index in range(1_000)]
    end = node("Identity", ["m1000"])
    change = into_the_loss(start, *mixed, *chain, end, constants=(constant("side", 2000, 2000),))
    yield Hostile("a thousand products in a step", edited(TRAIN_STEP_FILE, change), OUT_OF_TIME)


def _instead(
    name: str, make: Callable[[str, str], Any], *constants: Any, before: list[Any] | None = None
) -> Callable[[Any], None]:
    """Something done to an output before it is given."""

    def change(model: Any) -> None:
        maker = next(each for each in model.graph.node if name in each.output)
        maker.output[[*maker.output].index(name)] = "as it was"
        for each in model.graph.node:
            each.input[:] = ["as it was" if read == name else read for read in each.input]
        model.graph.initializer.extend(constants)
        model.graph.node.extend([*(before or []), make("as it was", name)])

    return change


def _behind_output(nodes: list[Any], *constants: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        maker = next(each for each in model.graph.node if "output" in each.output)
        maker.output[0] = "before"
        for each in model.graph.node:
            each.input[:] = ["before" if read == "output" else read for read in each.input]
        model.graph.initializer.extend(constants)
        model.graph.node.extend(nodes)

    return change
