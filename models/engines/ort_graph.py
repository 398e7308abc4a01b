"""The engine on any ONNX Runtime: one graph is one step, and the loop around it is here.

Needs nothing but `InferenceSession`: every onnxruntime will do, that of the training build, too. Graphs are
loaded from bytes; the interpreter's lock is free while they run.
"""

import math
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle, BundleManifest
from models.bundle_scan import EVALUATE_STEP_FILE, TRAIN_STEP_FILE, check_bundle
from models.engines.interface import (
    EVALUATION_BATCH,
    QUIET,
    Evaluation,
    Examples,
    FitResult,
    batches,
    check_examples,
    check_output,
    check_settings,
    check_trained,
    check_weights,
    count_correct,
    native,
    sample,
    train_in_batches,
)
from models.errors import BundleError, EngineUnavailableError
from models.installed import ORT_GRAPH, available_engines
from models.layout import ParameterTable, Vector
from models.step_inputs import (
    ANCHOR,
    BETAS,
    CORRECTED_RATE,
    EXAMPLE_WEIGHTS,
    GRADIENT_WEIGHTS,
    LOSS,
    MOMENTS,
    NEW,
    NOISE,
    RATE,
)

if TYPE_CHECKING:
    from protocol.plan import Training

Tensors = dict[str, NDArray[np.float32]]


class OrtGraphEngine:
    """One bundle's model on plain ONNX Runtime, one thread.

    Args:
        bundle: its bytes already checked against a trusted hash: graphs are programs. Scanned here, before
            the library is even imported, so that no caller can forget it.

    Raises:
        EngineUnavailableError: no ONNX Runtime on this machine.
        BundleError: the graphs are not allowed, or cannot be loaded.
        MemoryError: loading them took more memory than this process may have.
    """

    name: str = ORT_GRAPH

    def __init__(self, bundle: Bundle) -> None:
        check_bundle(bundle, self.name)
        if not available_engines():
            raise EngineUnavailableError("onnxruntime is not installed; `pip install onnxruntime`")
        self._ort = import_module("onnxruntime")
        self._manifest = bundle.manifest
        self._frozen = dict(bundle.frozen())
        self._first_private = bundle.first_private()
        self._step = self._load(bundle.files[TRAIN_STEP_FILE])
        self._judge = self._load(bundle.files[EVALUATE_STEP_FILE])

    def fit(
        self,
        weights: Vector,
        x: Examples,
        y: Examples,
        settings: "Training",
        *,
        seed: int,
        private: Vector | None = None,
    ) -> FitResult:
        """See `TrainingEngine.fit`."""
        check_settings(self._manifest, settings)
        check_weights(self._manifest.parameters, weights)
        check_examples(self._manifest, x, y)
        random = np.random.default_rng(seed)
        chosen = sample(len(x), settings, random)
        training = _Training(self._step, self._manifest, settings, random, self._tensors(weights, private))
        loss, steps = train_in_batches(training.step, x, y, batches(chosen, settings, random))
        tensors = training.tensors
        trained = _flat(self._manifest.parameters, tensors)
        kept = _flat(self._manifest.private, tensors)
        check_trained(trained, loss)
        check_trained(kept, loss)
        return FitResult(trained, len(chosen), steps, loss, kept)

    def evaluate(
        self, weights: Vector, x: Examples, y: Examples, *, private: Vector | None = None
    ) -> Evaluation:
        """See `TrainingEngine.evaluate`."""
        manifest = self._manifest
        check_weights(manifest.parameters, weights)
        check_examples(manifest, x, y)
        tensors = self._tensors(weights, private)
        loss_sum, correct = 0.0, 0
        for start in range(0, len(x), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            feeds = {
                **tensors,
                manifest.input.name: x[part],
                manifest.label.name: y[part],
                EXAMPLE_WEIGHTS: _example_weights(manifest, len(x[part]), 1.0),
            }
            with native("an evaluation failed"):
                loss, output = self._judge.run([LOSS, manifest.output.name], feeds)
            loss_sum += _number(loss)
            check_output(manifest, output, len(x[part]))
            correct += count_correct(manifest, output, y[part])
        return Evaluation(len(x), loss_sum, correct)

    def _load(self, graph: bytes) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = QUIET
        # The planner of 1.19 takes seconds for the thousand nodes of a recurrent layer, and wins nothing.
        options.enable_mem_reuse = False
        with native("a graph cannot be loaded"):
            return self._ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def _tensors(self, weights: Vector, private: Vector | None) -> Tensors:
        manifest = self._manifest
        tensors = {**manifest.parameters.unflatten(weights), **self._frozen}
        if manifest.private:
            own = self._first_private if private is None else private
            check_weights(manifest.private, own)
            tensors |= manifest.private.unflatten(own)
        return tensors


class _Training:
    """The inputs of one training, renewed by every step."""

    def __init__(
        self,
        session: Any,
        manifest: BundleManifest,
        settings: "Training",
        random: np.random.Generator,
        tensors: Tensors,
    ) -> None:
        self._session = session
        self._manifest = manifest
        self._settings = settings
        self._random = random
        self._outputs = [output.name for output in session.get_outputs()]
        inputs = session.get_inputs()
        self._names = {value.name for value in inputs}
        self._noises = {
            value.name: tuple(value.shape[1:]) for value in inputs if value.name.startswith(NOISE)
        }
        anchors = {ANCHOR + name: values for name, values in tensors.items() if ANCHOR + name in self._names}
        moments = {
            prefix + name: np.zeros_like(values)
            for name, values in tensors.items()
            for prefix in MOMENTS
            if prefix + name in self._names
        }
        self.tensors: Tensors = {**tensors, **anchors, **moments}
        self._weights: dict[int, Tensors] = {}
        self._steps = 0

    def step(self, x: Examples, y: Examples) -> float:
        """One optimizer step; returns the batch's mean loss before it."""
        self._steps += 1
        feeds = {
            **self.tensors,
            self._manifest.input.name: x,
            self._manifest.label.name: y,
            **self._weights_of(len(x)),
            **self._rates(),
        }
        for name, sizes in self._noises.items():
            feeds[name] = self._random.random((len(x), *sizes), dtype=np.float32)
        with native("a training step failed"):
            loss, *renewed = self._session.run(self._outputs, feeds)
        for name, values in zip(self._outputs[1:], renewed, strict=True):
            own = name.removeprefix(NEW)
            if values.shape != self.tensors[own].shape:
                raise BundleError(f"a step gave {own!r} the shape {values.shape}")
            self.tensors[own] = values
        return _number(loss)

    def _weights_of(self, count: int) -> Tensors:
        if count not in self._weights:
            # A step that is nothing but a rate times a gradient has the rate where the gradient begins.
            factor = 1.0 if RATE in self._names else -self._settings.learning_rate
            self._weights[count] = {
                EXAMPLE_WEIGHTS: _example_weights(self._manifest, count, 1 / count),
                GRADIENT_WEIGHTS: _example_weights(self._manifest, count, factor / count),
            }
        return self._weights[count]

    def _rates(self) -> Mapping[str, NDArray[np.float32]]:
        if RATE not in self._names:
            return {}
        rates = {RATE: self._settings.learning_rate}
        if CORRECTED_RATE in self._names:
            first, second = (1 - beta**self._steps for beta in BETAS)
            rates[CORRECTED_RATE] = self._settings.learning_rate * math.sqrt(second) / first
        return {name: np.asarray(value, dtype=np.float32) for name, value in rates.items()}


def _example_weights(manifest: BundleManifest, count: int, value: float) -> NDArray[np.float32]:
    return np.full((count, *(1,) * len(manifest.output.shape)), value, dtype=np.float32)


def _number(loss: NDArray[np.float32]) -> float:
    if loss.shape != ():
        raise BundleError(f"the loss has the shape {loss.shape}, not that of a number")
    return float(loss)


def _flat(table: ParameterTable | None, tensors: Tensors) -> Vector:
    if table is None:
        return np.empty(0, dtype=np.float32)
    return table.flatten({parameter.name: tensors[parameter.name] for parameter in table.parameters})
