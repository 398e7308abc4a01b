"""The engine on `onnxruntime-training-cpu` 1.19.2, and the only way into that package.

The last release there ever was, for x86-64 and Python below 3.13. Its quirks, each found by measurement:
importing it asks for torch, which nothing we call needs; files are taken by path only; a nominal checkpoint
must receive its values before an Optimizer is built, the other order crashes; moments of AdamW live in the
checkpoint, so every `fit` loads a fresh one; `grad` and `data` are views of live memory.
"""

import sys
from collections.abc import Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from models.bundle import Bundle, BundleManifest
from models.bundle_scan import (
    CHECKPOINT_FILE,
    EVALUATION_FILE,
    OPTIMIZER_FILE,
    ORT_TRAINING_FILES,
    TRAINING_FILE,
    check_bundle,
)
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
from models.installed import ORT_TRAINING, training_folder
from models.layout import Vector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from protocol.plan import Training

_PACKAGE = "onnxruntime.training"


def training_package() -> Mapping[str, "ModuleType"]:
    """Import ONNX Runtime and its training API without torch.

    The package's own `__init__` imports torch; a bare module registered in its place, before the first
    import of onnxruntime, leads to the same submodules without running it.

    Returns:
        {"ort": onnxruntime, "api": onnxruntime.training.api}

    Raises:
        EngineUnavailableError: there is no training build here.
    """
    folder = training_folder()
    if folder is None:
        raise EngineUnavailableError(
            "onnxruntime's training API is not installed; `pip install onnxruntime-training-cpu==1.19.2`"
            " (x86-64, Python below 3.13; never beside plain onnxruntime)"
        )
    if _PACKAGE not in sys.modules:
        bare = spec_from_loader(_PACKAGE, None, is_package=True)
        if bare is None:  # pragma: no cover - typing only: a spec without loader always exists
            raise EngineUnavailableError("the import system made no spec")
        module = module_from_spec(bare)
        module.__path__ = [str(folder / "training")]
        sys.modules[_PACKAGE] = module
    return MappingProxyType({"ort": import_module("onnxruntime"), "api": import_module(f"{_PACKAGE}.api")})


class OrtTrainingEngine:
    """One bundle's model on ONNX Runtime Training, one thread.

    Args:
        bundle: its bytes already checked against a trusted hash: graphs are programs. Scanned here, before
            the library is even imported, so that no caller can forget it.

    Raises:
        EngineUnavailableError: no training build on this machine.
        BundleError: the graphs are not allowed, or cannot be loaded.
        MemoryError: loading them took more memory than this process may have.
    """

    name: str = ORT_TRAINING

    def __init__(self, bundle: Bundle) -> None:
        check_bundle(bundle, self.name)
        package = training_package()
        self._ort, self._api = package["ort"], package["api"]
        self._manifest = bundle.manifest
        self._files = {name: bundle.files[name] for name in ORT_TRAINING_FILES}
        with self._open(np.zeros(self._manifest.parameters.size, dtype=np.float32)):
            pass

    def fit(
        self,
        weights: Vector,
        x: Examples,
        y: Examples,
        settings: "Training",
        *,
        seed: int,
        private: Vector | None = None,  # noqa: ARG002 - no bundle of this engine has any
    ) -> FitResult:
        """See `TrainingEngine.fit`."""
        check_settings(self._manifest, settings)
        check_weights(self._manifest.parameters, weights)
        check_examples(self._manifest, x, y)
        random = np.random.default_rng(seed)
        chosen = sample(len(x), settings, random)
        with self._open(weights) as session:
            session.optimizer.set_learning_rate(settings.learning_rate)
            step = partial(session.step, proximal=settings.proximal)
            loss, steps = train_in_batches(step, x, y, batches(chosen, settings, random))
            trained = session.weights()
        check_trained(trained, loss)
        return FitResult(trained, len(chosen), steps, loss, np.empty(0, dtype=np.float32))

    def evaluate(
        self,
        weights: Vector,
        x: Examples,
        y: Examples,
        *,
        private: Vector | None = None,  # noqa: ARG002 - no bundle of this engine has any
    ) -> Evaluation:
        """See `TrainingEngine.evaluate`."""
        check_weights(self._manifest.parameters, weights)
        check_examples(self._manifest, x, y)
        loss_sum, correct = 0.0, 0
        with self._open(weights) as session:
            for start in range(0, len(x), EVALUATION_BATCH):
                part = slice(start, start + EVALUATION_BATCH)
                loss, output = session.evaluate(x[part], y[part])
                loss_sum += loss * len(output)
                correct += count_correct(self._manifest, output, y[part])
        return Evaluation(len(x), loss_sum, correct)

    @contextmanager
    def _open(self, weights: Vector) -> "Iterator[_Session]":
        """A session of its own for each call: 5 to 20 ms, and no state survives from the last one."""
        with TemporaryDirectory(prefix="fedfleet-") as folder:
            for name, content in self._files.items():
                (Path(folder) / name).write_bytes(content)
            with native("the training graphs cannot be loaded"):
                session = _Session(self._ort, self._api, Path(folder), weights, self._manifest)
        if (size := session.module.get_parameters_size(trainable_only=True)) != weights.size:
            raise BundleError(f"the graph has {size} parameters, its manifest {weights.size}")
        yield session


class _Session:
    """A loaded module and optimizer."""

    def __init__(self, ort: Any, api: Any, folder: Path, weights: Vector, manifest: BundleManifest) -> None:
        self._manifest = manifest
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = QUIET
        self._state = api.CheckpointState.load_checkpoint(folder / CHECKPOINT_FILE)
        self.module = api.Module(
            folder / TRAINING_FILE, self._state, folder / EVALUATION_FILE, session_options=options
        )
        buffer = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(weights))
        # A nominal checkpoint must be filled whole; every parameter of ours trains, so it comes to the same.
        self.module.copy_buffer_to_parameters(buffer._ortvalue, trainable_only=False)  # noqa: SLF001 - takes only the raw value
        self.optimizer = api.Optimizer(folder / OPTIMIZER_FILE, self.module)
        self._anchor = {name: parameter.data.copy() for name, parameter in self._state.parameters}

    def step(self, x: Examples, y: Examples, proximal: float) -> float:
        """One optimizer step; returns the batch's mean loss before it."""
        with native("a training step failed"):
            self.module.train()
            loss, output, *_ = self.module(x, y)
            check_output(self._manifest, output, len(x))
            loss = float(loss)
        if proximal > 0:
            for name, parameter in self._state.parameters:
                gradient = parameter.grad
                gradient += proximal * (parameter.data - self._anchor[name])
        with native("a step of the optimizer failed"):
            self.optimizer.step()
            self.module.lazy_reset_grad()
        return loss

    def evaluate(self, x: Examples, y: Examples) -> tuple[float, Any]:
        """Mean loss and outputs of a batch."""
        with native("an evaluation failed"):
            self.module.eval()
            loss, output = self.module(x, y)
            check_output(self._manifest, output, len(x))
            return float(loss), output

    def weights(self) -> Vector:
        """A copy of the current weights, float32 (d,)."""
        flat = self.module.get_contiguous_parameters(trainable_only=True)
        return np.array(flat.numpy(), dtype=np.float32, copy=True)
