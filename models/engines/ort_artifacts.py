"""The training graphs that `models.engines.ort_training` runs; made where a run is planned."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import onnx

from models.builder import IR_VERSION
from models.bundle_scan import ORT_TRAINING_FILES
from models.engines.ort_training import training_package
from models.errors import ModelError
from models.forward import Forward
from models.installed import training_folder
from protocol.plan import Loss, Optimizer, Training

_OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW"}
_ONE_AT_A_TIME = Lock()
"""The generator keeps its state in module globals, and prints to a file descriptor of the whole process."""


_OPERATORS_WITHOUT = frozenset(
    [
        *("AveragePool", "BatchNormalization", "ConvTranspose", "Elu", "GlobalMaxPool", "GroupNormalization"),
        *("HardSwish", "InstanceNormalization", "Pad", "RNN", "Resize", "Softplus", "Softsign"),
    ]
)
"""It has no gradient for them, or one that kills the process (AveragePool) or forgets statistics."""

_LOSSES = frozenset({"cross_entropy", "mse", "bce"})
_INITIAL_H = 5
"""The input of GRU and LSTM without which their gradient cannot be built."""


def objection(forward: Forward, training: Training) -> str | None:
    """Why this engine cannot train a model; None when it can."""
    return next(_objections(forward, training), None)


def _objections(forward: Forward, training: Training) -> Iterator[str]:
    if training_folder() is None:
        yield "onnxruntime-training-cpu is not installed here"
    if forward.private or forward.frozen:
        yield "it shares every parameter"
    if training.optimizer not in _OPTIMIZERS or training.loss not in _LOSSES:
        yield f"it has no loss {training.loss} or no optimizer {training.optimizer}"
    if training.momentum or training.weight_decay or training.gradient_clip:
        yield "it has no momentum, weight decay or clip"
    for node in forward.model.graph.node:
        if node.op_type in _OPERATORS_WITHOUT:
            yield f"it has no gradient for {node.op_type}"
        if node.op_type in {"GRU", "LSTM"} and (len(node.input) <= _INITIAL_H or not node.input[_INITIAL_H]):
            yield f"its {node.op_type} needs initial_h"


def generate(forward: Forward, loss: Loss, optimizer: Optimizer) -> dict[str, bytes]:
    """Training, evaluation and optimizer graph and a checkpoint without values, by file name.

    Equal models give equal bytes, whatever the values of their weights.

    Raises:
        ModelError: the generator cannot differentiate this graph.
        EngineUnavailableError: no training build on this machine.
    """
    training_package()
    artifacts = import_module("onnxruntime.training.artifacts")
    with _ONE_AT_A_TIME, TemporaryDirectory(prefix="fedfleet-") as folder, _reproducible(), _quiet():
        try:
            artifacts.generate_artifacts(
                _copy(forward.model),
                requires_grad=[parameter.name for parameter in forward.parameters.parameters],
                loss=_loss_block(loss),
                optimizer=artifacts.OptimType[_OPTIMIZERS[optimizer]],
                artifact_directory=folder,
                additional_output_names=[forward.output.name],
                nominal_checkpoint=True,
            )
        except Exception as error:  # the extension raises RuntimeError and several classes of its own
            raise ModelError(f"no training graph can be made: {_reason(error)}") from error
        return {name: (Path(folder) / name).read_bytes() for name in ORT_TRAINING_FILES}


def _reason(error: Exception) -> str:
    """The extension's message without the C++ signature of the failed check in front."""
    return str(error).split("was false. ")[-1].strip()


@contextmanager
def _reproducible() -> Iterator[None]:
    """Generated names count up in a global, and the optimizer graph takes onnx's newest IR otherwise."""
    graph_utils = import_module("onnxruntime.training.onnxblock._graph_utils")
    newest = onnx.IR_VERSION
    vars(graph_utils)["_GRAPH_TOKEN"] = 0
    vars(onnx)["IR_VERSION"] = IR_VERSION
    try:
        yield
    finally:
        vars(onnx)["IR_VERSION"] = newest


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop some 20 lines that the generator writes to file descriptor 2 whatever its log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _copy(model: Any) -> Any:
    """The generator works in place."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _loss_block(loss: Loss) -> Any:
    if loss == "cross_entropy":
        return import_module("onnxruntime.training.onnxblock").loss.CrossEntropyLoss()
    if loss == "mse":
        return import_module("onnxruntime.training.onnxblock").loss.MSELoss()
    return _binary_cross_entropy()


def _binary_cross_entropy() -> Any:
    """Mean of max(z, 0) - z t + log(1 + exp(-|z|)) over logits z and targets t.

    The package's own block takes log(1 - sigmoid(z)), which is infinite from z = 17 on. max(z, 0) is written
    (z + |z|) / 2, so that the gradient at z = 0 is exactly 1/2 - t; the last term is -log(sigmoid(|z|)).
    """
    blocks = import_module("onnxruntime.training.onnxblock").blocks

    class BinaryCrossEntropy(blocks.Block):  # type: ignore[misc,name-defined]  # the package is untyped
        def build(self, logits: str) -> Any:
            target = blocks.InputLike(logits)("target")
            size = blocks.Abs()(logits)
            half = blocks.Constant(0.5)()
            positive = blocks.Mul()(blocks.Add()(logits, size), half)
            tail = blocks.Log()(blocks.Sigmoid()(size))
            linear = blocks.Sub()(positive, blocks.Mul()(logits, target))
            return blocks.ReduceMean(keepdims=False)(blocks.Sub()(linear, tail))

    return BinaryCrossEntropy()
