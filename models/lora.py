"""Low-rank adapters: a dense layer's weights stand still, and the product of two thin matrices learns beside.

Hu et al. 2021, LoRA, arXiv 2106.09685, section 4.1: y = x W + scale · (x A) B with A (in, rank) normal and
B (rank, out) zero, so that the model begins as it was. Only A and B travel: rank · (in + out) numbers.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from glob import escape
from itertools import chain
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from models.errors import ModelError
from models.forward import Roles, parse_model
from protocol.plan import Lora

A, B, SCALE = ".lora_a", ".lora_b", ".lora_scale"
_MATRIX = 2


def add_adapters(source: onnx.ModelProto | bytes, roles: Roles, lora: Lora, seed: int) -> tuple[bytes, Roles]:
    """Put adapters beside the dense layers of a model.

    Args:
        source: forward; not changed.
        roles: of the model's own parameters; adapters are shared whatever their patterns say.
        lora: rank, scale, and the layers, by patterns of their weights' names.
        seed: of the matrices A.

    Returns:
        The model with adapters, serialised, and the roles of its parameters; the weights beside which there
        is an adapter stand still.

    Raises:
        ModelError: a pattern matches no weight of a dense layer; names those that there are.
    """
    adapted: Any = parse_model(source)
    graph = adapted.graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    layers = {name: node for node in graph.node if (name := _weights_of(node, weights))}
    chosen = [name for name in layers if any(fnmatchcase(name, pattern) for pattern in lora.layers)]
    if not chosen:
        raise ModelError(
            f"model.lora.layers {list(lora.layers)} match no weights of a dense layer (MatMul or Gemm); "
            f"there are {', '.join(layers) or 'none'}"
        )
    random = np.random.default_rng(seed)
    for name in chosen:
        sizes = _width_and_out(layers[name], weights[name])
        graph.initializer.extend(_matrices(name, sizes, lora, random))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    for node in nodes:
        name = _weights_of(node, weights)
        if name in chosen:
            graph.node.extend(_beside(node, name))
        else:
            graph.node.append(node)
    return bytes(adapted.SerializeToString(deterministic=True)), Roles(
        frozen=(*_exactly(roles.frozen, weights), *map(escape, chosen)),
        private=_exactly(roles.private, weights),
    )


def _exactly(patterns: Collection[str], names: Collection[str]) -> tuple[str, ...]:
    """The names that match; a pattern that matches none stays, so that it is found wrong where all are."""
    found = [
        [escape(name) for name in names if fnmatchcase(name, pattern)] or [pattern] for pattern in patterns
    ]
    return tuple(chain.from_iterable(found))


def _weights_of(node: Any, weights: Mapping[str, tuple[int, ...]]) -> str:
    """The weights of a layer x W that has a matrix of its own; "" of any other node."""
    if node.op_type not in {"MatMul", "Gemm"} or len(weights.get(node.input[1], ())) != _MATRIX:
        return ""
    return "" if _is_set(node, "transA") else str(node.input[1])


def _width_and_out(node: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    first, second = shape
    return (second, first) if _is_set(node, "transB") else (first, second)


def _is_set(node: Any, attribute: str) -> bool:
    return any(each.name == attribute and each.i for each in node.attribute)


def _matrices(name: str, sizes: tuple[int, int], lora: Lora, random: np.random.Generator) -> Iterator[Any]:
    width, out = sizes
    a = random.normal(0.0, 1 / math.sqrt(width), (width, lora.rank)).astype(np.float32)
    yield numpy_helper.from_array(a, name + A)
    yield numpy_helper.from_array(np.zeros((lora.rank, out), dtype=np.float32), name + B)
    yield numpy_helper.from_array(np.asarray(lora.scale, dtype=np.float32), name + SCALE)


def _beside(node: Any, name: str) -> list[Any]:
    """The layer, its output renamed, and what the adapter adds to it."""
    output, base = node.output[0], f"{node.output[0]}.base"
    node.output[0] = base
    return [
        node,
        helper.make_node("MatMul", [node.input[0], name + A], [f"{output}.low"]),
        helper.make_node("MatMul", [f"{output}.low", name + B], [f"{output}.high"]),
        helper.make_node("Mul", [f"{output}.high", name + SCALE], [f"{output}.change"]),
        helper.make_node("Add", [base, f"{output}.change"], [output]),
    ]
