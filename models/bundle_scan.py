"""Whether a bundle's graphs are what its manifest says, found before ONNX Runtime sees a byte of them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from models.bundle import FORWARD_FILE, Bundle, BundleManifest, Tensor
from models.errors import BundleError
from models.graph_scan import ScannedGraph, Shape, Value, scan_graph
from models.installed import ORT_GRAPH, ORT_TRAINING
from models.layout import Parameter
from models.onnx_schema import MICROSOFT, STANDARD, ElementType
from models.step_inputs import (
    ANCHOR,
    CORRECTED_RATE,
    EXAMPLE_WEIGHTS,
    GRADIENT_WEIGHTS,
    LOSS,
    MOMENTS,
    NEW,
    NOISE,
    RATE,
    STEP_OPSET,
)

TRAINING_FILE = "training_model.onnx"
EVALUATION_FILE = "eval_model.onnx"
OPTIMIZER_FILE = "optimizer_model.onnx"
CHECKPOINT_FILE = "nominal_checkpoint"
ORT_TRAINING_FILES = (TRAINING_FILE, EVALUATION_FILE, OPTIMIZER_FILE, CHECKPOINT_FILE)
"""What the engine on ONNX Runtime Training reads."""

TRAIN_STEP_FILE, EVALUATE_STEP_FILE = "train_step.onnx", "evaluate_step.onnx"
ORT_GRAPH_FILES = TRAIN_STEP_FILE, EVALUATE_STEP_FILE
"""What the engine on any ONNX Runtime reads."""

_DTYPES = {"float32": ElementType.FLOAT, "int64": ElementType.INT64}
_OPTIMIZERS = {"sgd": "SGDOptimizerV2", "adamw": "AdamWOptimizer"}
_GRADIENT_ONLY = frozenset({"MaxPoolGrad"})

_UNCHECKED = frozenset({"MaxUnpool", "SoftmaxCrossEntropyLoss"})
"""Standard, but their native code reads or writes wherever their indices say; no step needs them."""

MAX_NOISE = 2**20
"""Random numbers for one example that a step may ask for, in one input."""

_CHECKPOINT_MARK = slice(4, 8), b"ODTC"
"""Where a flatbuffer says of which kind it is, and what it says."""

_CHECKPOINT_BYTES = 1_024, 128
"""Most of a checkpoint without values: once, and for each parameter beside its name. 100 and 48 are used."""


def check_bundle(bundle: Bundle, engine: str) -> None:
    """Refuse a bundle that an engine should not load.

    Args:
        bundle: with the engine's files.
        engine: `ORT_TRAINING` or `ORT_GRAPH`.

    Raises:
        BundleError: names file, node and cause.
    """
    bundle.require({*bundle.manifest.needed(engine), *_FILES[engine]})
    _check_manifest(bundle.manifest)
    _CHECKS[engine](bundle)


def check_forward(bundle: Bundle) -> None:
    """Refuse a bundle whose forward graph is not what its manifest says; for those who export models.

    Raises:
        BundleError: names file, node and cause.
    """
    bundle.require([FORWARD_FILE])
    _check_manifest(bundle.manifest)
    _Interface(bundle, FORWARD_FILE, bundle.manifest.opset).is_forward()


def _check_ort_training(bundle: Bundle) -> None:
    manifest = bundle.manifest
    if manifest.private or manifest.frozen:
        raise BundleError("private and frozen parameters are not for the engine ort-training")
    opset = manifest.opset
    _Interface(bundle, EVALUATION_FILE, opset).is_evaluation()
    _Interface(bundle, TRAINING_FILE, opset).is_training()
    _Interface(bundle, OPTIMIZER_FILE, opset).is_optimizer()
    _check_checkpoint(manifest, bundle.files[CHECKPOINT_FILE])


def _check_ort_graph(bundle: Bundle) -> None:
    _Interface(bundle, TRAIN_STEP_FILE, STEP_OPSET).is_train_step()
    _Interface(bundle, EVALUATE_STEP_FILE, STEP_OPSET).is_evaluate_step()
    bundle.frozen()
    bundle.first_private()


_FILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {ORT_TRAINING: ORT_TRAINING_FILES, ORT_GRAPH: ORT_GRAPH_FILES}
)
_CHECKS: Mapping[str, Callable[[Bundle], None]] = MappingProxyType(
    {ORT_TRAINING: _check_ort_training, ORT_GRAPH: _check_ort_graph}
)


def _check_manifest(manifest: BundleManifest) -> None:
    """The label must be what the loss reads: class numbers out of range would read foreign memory."""
    output, label = manifest.output, manifest.label
    if manifest.input.dtype != "float32" or output.dtype != "float32":
        raise BundleError(f"the manifest's input is {manifest.input.dtype} and its output {output.dtype}")
    classes = manifest.loss == "cross_entropy"
    expected = ("int64", ()) if classes else ("float32", output.shape)
    if (label.dtype, label.shape) != expected or (classes and len(output.shape) != 1):
        raise BundleError(
            f"loss {manifest.loss} of an output {output.shape} takes a label {expected},"
            f" the manifest's is {(label.dtype, label.shape)}"
        )


class _Interface:
    """One scanned graph, held to what the manifest says of it."""

    def __init__(self, bundle: Bundle, file: str, opset: int) -> None:
        self._file = file
        self._manifest = bundle.manifest
        self._graph: ScannedGraph = scan_graph(file, bundle.files[file], opset=opset, ir=bundle.manifest.ir)

    def is_forward(self) -> None:
        self._takes([_batch(self._manifest.input), *_values(everything(self._manifest))])
        self._gives([_batch(self._manifest.output)])
        self._uses_only_standard_operators()

    def is_evaluation(self) -> None:
        self._takes([_batch(self._manifest.input), _batch(self._manifest.label), *self._parameters()])
        self._gives([_LOSS, _batch(self._manifest.output)])
        self._judges_its_output()
        self._uses_only_standard_operators()

    def is_training(self) -> None:
        """Behind the inputs of the evaluation: an accumulated gradient for each parameter, and its reset."""
        parameters = self._parameters()
        gradients = [Value("", each.dtype, each.shape) for each in parameters]
        batch = [_batch(self._manifest.input), _batch(self._manifest.label)]
        self._takes([*batch, *parameters, *gradients, _FLAG])
        self._gives([_LOSS, _batch(self._manifest.output), *[_FLAG] * len(parameters)])
        self._judges_its_output()

    def is_optimizer(self) -> None:
        """One node; what flows in are the parameters, their gradients and the optimizer's own state."""
        expected = (MICROSOFT, _OPTIMIZERS[self._manifest.step.optimizer])
        if [(node.domain, node.operator) for node in self._graph.nodes] != [expected]:
            raise self._error(f"is not the optimizer {self._manifest.step.optimizer}")
        if self._graph.inputs[:2] != (_RATE, _STEP):
            raise self._error("does not take learning_rate and step")
        if not all(value.sequence and value.dtype == ElementType.FLOAT for value in self._graph.inputs[2:]):
            raise self._error("takes something else than parameters, gradients and moments")

    def is_evaluate_step(self) -> None:
        manifest = self._manifest
        batch = [_batch(manifest.input), _batch(manifest.label), _example_weights(manifest, EXAMPLE_WEIGHTS)]
        self._takes([*batch, *_values(everything(manifest))])
        self._gives([_LOSS, _batch(manifest.output)])
        self._uses_only_checked_operators()

    def is_train_step(self) -> None:
        """Everything it takes has a meaning, and its outputs are the loss and what becomes of its inputs."""
        manifest, inputs = self._manifest, self._graph.inputs
        expected = _step_inputs(manifest)
        for value in inputs:
            if value.name.startswith(NOISE):
                self._is_noise(value)
            elif value != expected.get(value.name):
                raise self._error(f"takes {_in_words(value)}, which no step of its manifest has")
        parameters = {each.name for each in everything(manifest)}
        needed = {manifest.input.name, manifest.label.name, EXAMPLE_WEIGHTS, GRADIENT_WEIGHTS, *parameters}
        given = {value.name for value in inputs}
        if not needed <= given:
            raise self._error(f"does not take {sorted(needed - given)}")
        trained = {NEW + each.name for each in trained_parameters(manifest)}
        moments = {NEW + name for name in given if name.startswith(MOMENTS)}
        names = [value.name for value in self._graph.outputs]
        if names[:1] != [LOSS] or set(names[1:]) != trained | moments:
            raise self._error(f"gives {names[:5]} …, not the loss and every trained parameter")
        for value in self._graph.outputs[1:]:
            if value._replace(name=value.name.removeprefix(NEW)) != expected[value.name.removeprefix(NEW)]:
                raise self._error(f"gives {_in_words(value)}, of another shape than it takes")
        self._uses_only_checked_operators()

    def _is_noise(self, value: Value) -> None:
        if (
            value.sequence
            or value.dtype != ElementType.FLOAT
            or not value.shape
            or value.shape[0] is not None
        ):
            raise self._error(f"takes {_in_words(value)} as noise")
        sizes = [size or MAX_NOISE + 1 for size in value.shape[1:]]
        if math.prod(sizes) > MAX_NOISE:
            raise self._error(f"takes {_in_words(value)} as noise, at most {MAX_NOISE:,} numbers an example")

    def _parameters(self) -> list[Value]:
        return _values(self._manifest.parameters.parameters)

    def _takes(self, expected: Sequence[Value]) -> None:
        self._are("inputs", self._graph.inputs, expected)

    def _gives(self, expected: Sequence[Value]) -> None:
        self._are("outputs", self._graph.outputs, expected)

    def _are(self, what: str, found: Sequence[Value], expected: Sequence[Value]) -> None:
        if len(found) != len(expected):
            raise self._error(f"has {len(found)} {what}, by its manifest there are {len(expected)}")
        for one, other in zip(found, expected, strict=True):
            named = other._replace(name=other.name or one.name)
            if one != named:
                raise self._error(
                    f"one of its {what} is {_in_words(one)}, its manifest says {_in_words(named)}"
                )

    def _uses_only_standard_operators(self) -> None:
        for node in self._graph.nodes:
            if node.domain != STANDARD or node.operator in _GRADIENT_ONLY:
                raise self._error(f"holds {node.operator}, which belongs into a training graph")

    def _uses_only_checked_operators(self) -> None:
        self._uses_only_standard_operators()
        if used := next((node.operator for node in self._graph.nodes if node.operator in _UNCHECKED), None):
            raise self._error(f"holds {used}, whose indices nobody checks; no step needs it")

    def _judges_its_output(self) -> None:
        """This loss looks a label up among the classes without asking whether there are so many."""
        expected = (self._manifest.output.name, self._manifest.label.name)
        for node in self._graph.nodes:
            if node.operator == "SoftmaxCrossEntropyLoss" and node.inputs != expected:
                raise self._error(f"the loss judges {node.inputs}, not {expected}")

    def _error(self, gist: str) -> BundleError:
        return BundleError(f"{self._file}: {gist}")


def trained_parameters(manifest: BundleManifest) -> tuple[Parameter, ...]:
    """Shared and private parameters, in order."""
    return manifest.parameters.parameters + (manifest.private.parameters if manifest.private else ())


def everything(manifest: BundleManifest) -> tuple[Parameter, ...]:
    """Shared, private and frozen parameters, in order."""
    return trained_parameters(manifest) + (manifest.frozen.parameters if manifest.frozen else ())


def _values(parameters: Iterable[Parameter]) -> list[Value]:
    return [Value(each.name, ElementType.FLOAT, each.shape) for each in parameters]


def _example_weights(manifest: BundleManifest, name: str) -> Value:
    return Value(name, ElementType.FLOAT, (None, *(1,) * len(manifest.output.shape)))


def _step_inputs(manifest: BundleManifest) -> dict[str, Value]:
    values = [
        _batch(manifest.input),
        _batch(manifest.label),
        _example_weights(manifest, EXAMPLE_WEIGHTS),
        _example_weights(manifest, GRADIENT_WEIGHTS),
        *(Value(name, ElementType.FLOAT, ()) for name in (RATE, CORRECTED_RATE)),
        *_values(everything(manifest)),
    ]
    values += [
        Value(prefix + each.name, ElementType.FLOAT, each.shape)
        for each in trained_parameters(manifest)
        for prefix in (ANCHOR, *MOMENTS)
    ]
    return {value.name: value for value in values}


_LOSS = Value("", ElementType.FLOAT, ())
_FLAG = Value("", ElementType.BOOL, (1,))
_RATE = Value("learning_rate", ElementType.FLOAT, (1,))
_STEP = Value("step", ElementType.INT64, (1,))


def _batch(tensor: Tensor) -> Value:
    return Value(tensor.name, _DTYPES[tensor.dtype], (None, *tensor.shape))


def _in_words(value: Value) -> str:
    def axes(shape: Shape) -> Iterable[str]:
        return ("batch" if size is None else str(size) for size in shape)

    shape = "of any rank" if value.shape is None else f"({', '.join(axes(value.shape))})"
    kind = f"{ElementType(value.dtype).name.lower()} {shape}"
    return f"{value.name!r}, {'a sequence of ' if value.sequence else ''}{kind}"


def _check_checkpoint(manifest: BundleManifest, content: bytes) -> None:
    """What can be said without reading flatbuffers: a checkpoint by its mark, without room for values.

    The format has no way to name another file: values kept apart lie in a file whose name the library makes.
    """
    where, mark = _CHECKPOINT_MARK
    if content[where] != mark:
        raise BundleError(f"{CHECKPOINT_FILE}: is not a checkpoint")
    base, each = _CHECKPOINT_BYTES
    names = [parameter.name.encode() for parameter in manifest.parameters.parameters]
    if len(content) > base + sum(len(name) + each for name in names):
        raise BundleError(f"{CHECKPOINT_FILE}: {len(content):,} bytes are too many for one without values")
    if lost := next((name for name in names if name not in content), None):
        raise BundleError(f"{CHECKPOINT_FILE}: lacks the parameter {lost.decode()!r}")
