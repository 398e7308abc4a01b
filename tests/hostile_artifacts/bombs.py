"""What passes the scan, as only running it shows what it does."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from hostile_artifacts.making import (
    ENGINES,
    FEATURES,
    GOOD,
    JUDGING,
    LEARNING,
    SGD,
    WEIGHTS,
    Hostile,
    aim,
    constant,
    edited,
    into_the_loss,
    node,
    with_file,
)
from models.artifact import build_bundle, initial_weights
from models.bundle_scan import CHECKPOINT_FILE, OPTIMIZER_FILE, TRAIN_STEP_FILE, TRAINING_FILE
from models.catalog import build_model
from models.errors import OUT_OF_MEMORY, OUT_OF_TIME

ANY_END = "crashed|bundle|failed|weights|diverged|" + OUT_OF_MEMORY


def bombs() -> Iterator[Hostile]:
    """What either engine may be sent."""
    yield from memory_bombs()
    yield from time_bombs()
    yield from crashes()
    yield from poisoned_weights()


def memory_bombs() -> Iterator[Hostile]:
    """More than there is, by numbers that are computed on the way."""
    half, one = constant("half", 1, 2**18), helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    zero, end, step = (numpy_helper.from_array(np.array(v), n) for n, v in (("a", 0), ("z", 2**37), ("d", 1)))
    squared = node("Mul", ["half", "half"], "size")
    bombs: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
        "ConstantOfShape": ((squared, node("ConstantOfShape", ["size"], value=one)), (half,)),
        "Expand": ((squared, node("Expand", ["loss before", "size"])), (half,)),
        "Tile": ((squared, node("Tile", ["input", "size"])), (half,)),
        "Range": ((node("Range", ["a", "z", "d"], "long"), node("Cast", ["long"], to=1)), (zero, end, step)),
        "Pad": ((node("Pad", ["input", "pads"]),), (constant("pads", 0, 0, 0, 2**37),)),
        "doubling": (
            (
                node("Concat", ["input", "input"], "c0", axis=1),
                *(node("Concat", [f"c{i}"] * 4, f"c{i + 1}", axis=1) for i in range(18)),
                node("Identity", ["c18"]),
            ),
            (),
        ),
        "many constants of the allowed size": (
            (
                *(node("ConstantOfShape", ["each"], f"k{i}", value=one) for i in range(8)),
                node("Sum", [f"k{i}" for i in range(8)]),
            ),
            (constant("each", 2**13, 2**13),),
        ),
        "outer product": (
            (
                node("ConstantOfShape", ["column"], "left", value=one),
                node("ConstantOfShape", ["row"], "right", value=one),
                node("MatMul", ["left", "right"]),
            ),
            (constant("column", 2**20, 1), constant("row", 1, 2**20)),
        ),
    }
    for name, (nodes, constants) in bombs.items():
        for file in (*JUDGING, *LEARNING):
            change = into_the_loss(*nodes, constants=constants)
            yield Hostile(f"memory bomb by {name} in {file}", edited(file, change), OUT_OF_MEMORY)


def time_bombs() -> Iterator[Hostile]:
    """Work without an end, in little memory."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1e-4])
    start = node("ConstantOfShape", ["side"], "side by side", value=one)
    # What depends on the input cannot be computed when the graph is loaded.
    mixed = (node("ReduceMean", ["input"], "mean", keepdims=0), node("Mul", ["side by side", "mean"], "m0"))
    chain = [node("MatMul", [f"m{index}"] * 2, f"m{index + 1}") for index in range(1_000)]
    end = node("Identity", ["m1000"])
    change = into_the_loss(start, *mixed, *chain, end, constants=(constant("side", 2000, 2000),))
    for file in JUDGING:
        yield Hostile(f"a thousand products of large matrices in {file}", edited(file, change), OUT_OF_TIME)


def crashes() -> Iterator[Hostile]:
    """Operators with arguments for which native code was not written."""
    for file in JUDGING:
        yield from odd_arguments(file)
        yield Hostile(f"a loss that is no number in {file}", edited(file, _no_number), ANY_END)
    for file in (*JUDGING, *LEARNING):
        # A step gives no output, so it may judge what it likes.
        end = f"trained|{ANY_END}" if file == TRAIN_STEP_FILE else ANY_END
        yield Hostile(f"fewer classes than declared in {file}", edited(file, _one_class), end)
    yield from lying_offsets()
    yield from crossed_gradients()
    random = np.random.default_rng(1)
    for file in (CHECKPOINT_FILE, OPTIMIZER_FILE, *LEARNING):
        for number in range(8):
            flipped = bytearray(GOOD.files[file])
            flipped[random.integers(8, len(flipped))] ^= 1 << random.integers(8)
            name = f"flipped bit {number} in {file}"
            yield Hostile(name, with_file(file, bytes(flipped)), f"trained|{ANY_END}")


def lying_offsets() -> Iterator[Hostile]:
    """Checkpoints."""
    checkpoint = GOOD.files[CHECKPOINT_FILE]
    for offset in (0, 12, 16, 40, 60):
        spoilt = checkpoint[:offset] + b"\xff\xff\xff\x7f" + checkpoint[offset + 4 :]
        yield Hostile(f"checkpoint whose offset {offset} lies", with_file(CHECKPOINT_FILE, spoilt), ANY_END)


def crossed_gradients() -> Iterator[Hostile]:
    """What reads or writes beyond a buffer."""
    yield Hostile("gradients into each other's place", edited(TRAINING_FILE, _crossed), f"trained|{ANY_END}")
    # So large that the read or write beyond the buffer leaves what the process owns.
    large = build_model("mlp", {"features": FEATURES, "classes": 2, "hidden": 1500}, seed=1)
    crossed = edited(TRAINING_FILE, _crossed, build_bundle(large, SGD))
    yield Hostile("large gradients into each other's place", crossed, ANY_END, initial_weights(large))


def odd_arguments(file: str) -> Iterator[Hostile]:
    """Operators with arguments for which native code was not written."""
    index = constant("far", 2**40)
    divided = node("Div", ["labels", "none"], "whole"), node("Cast", ["whole"], to=1)
    for name, nodes, constants in (
        ("gather far outside", (node("Gather", ["input", "far"], axis=1),), (index,)),
        (
            "scatter far outside",
            (node("ScatterND", ["input", "where", "input"]),),
            (constant("where", 2**40),),
        ),
        ("reshape to another size", (node("Reshape", ["input", "odd"]),), (constant("odd", 7, 11, 13),)),
        ("division by zero", (node("Sub", ["labels", "labels"], "none"), *divided), ()),
        ("pool with huge pads", (node("MaxPool", ["cube"], kernel_shape=[1], pads=[2**30, 2**30]),), ()),
        ("most of nothing", (node("TopK", ["input", "far"]),), (index,)),
        ("axis that is not there", (node("Softmax", ["input"], axis=2**30),), ()),
        ("split of nothing", (node("Slice", ["input", "far", "far", "far"]),), (index,)),
        ("integers where floats belong", (node("MatMul", ["labels", "labels"]),), ()),
        ("too few inputs", (node("Gemm", ["input"]),), ()),
        ("attribute of another type", (node("Softmax", ["input"], axis="one"),), ()),
        ("recurrent layer of another size", (node("GRU", ["cube", "cube", "cube"], hidden_size=2**30),), ()),
    ):
        cube = node("Unsqueeze", ["input", "front"], "cube")
        change = into_the_loss(cube, *nodes, constants=(constant("front", 1), *constants))
        yield Hostile(f"crash by {name} in {file}", edited(file, change), ANY_END)


def _no_number(model: Any) -> None:
    """The loss of each example, not of the batch."""
    model.graph.node[-1].output[0] = "one loss"
    model.graph.node.append(helper.make_node("Expand", ["one loss", "three"], [model.graph.output[0].name]))
    model.graph.initializer.append(constant("three", 3))


def _one_class(model: Any) -> None:
    """The output that the loss judges has one class, whatever is declared."""
    for each in model.graph.node:
        if "output" in each.output:
            each.output[0] = "wide"
    maker = next(index for index, each in enumerate(model.graph.node) if "wide" in each.output)
    narrow = helper.make_node("Slice", ["wide", "from", "to", "axis"], ["output"])
    model.graph.node.insert(maker + 1, narrow)
    model.graph.initializer.extend([constant("from", 0), constant("to", 1), constant("axis", 1)])


def _crossed(model: Any) -> None:
    """Each gradient is added to another parameter's."""
    accumulators = [each for each in model.graph.node if each.op_type == "InPlaceAccumulatorV2"]
    gradients = [each.input[1] for each in accumulators]
    for each, gradient in zip(accumulators, gradients[1:] + gradients[:1], strict=True):
        each.input[1] = gradient
        model.graph.node.remove(each)
        model.graph.node.append(each)


def poisoned_weights() -> Iterator[Hostile]:
    """A good bundle, and weights that are not of it."""
    for engine in ENGINES:
        good = aim(GOOD, engine)
        for name, weights in (
            ("NaN", np.full_like(WEIGHTS, np.nan)),
            ("infinite", np.full_like(WEIGHTS, np.inf)),
            ("too few", WEIGHTS[1:]),
            ("too many", np.append(WEIGHTS, WEIGHTS)),
            ("none", WEIGHTS[:0]),
            ("of another type", np.frombuffer(WEIGHTS.tobytes()[:-2], dtype="<u2")),
        ):
            yield Hostile(f"weights: {name}, for {engine}", good, "weights", weights.astype(weights.dtype))
        extreme = np.full_like(WEIGHTS, np.finfo(np.float32).max)
        yield Hostile(f"weights: the largest numbers, for {engine}", good, "diverged", extreme)
