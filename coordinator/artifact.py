"""From the plan to what is trained: forward model → training bundle and first weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.artifact import build_bundle, initial_weights
from models.bundle import Bundle
from models.catalog import build_model
from models.errors import ModelError
from models.exporters import Activation, import_model
from models.forward import Roles
from models.installed import choose_engine
from models.lora import add_adapters
from protocol.chunks import BlobRef, describe
from protocol.plan import Plan


@dataclass(frozen=True)
class Artifact:
    """What a run trains.

    Attributes:
        bundle: with all its files.
        weights: the first global model, float32 (d,).
        activation: what was cut off the model's end for training; the exported model has it again.
    """

    bundle: Bundle
    weights: NDArray[np.float32]
    activation: Activation | None = None

    @property
    def manifest(self) -> tuple[bytes, BlobRef]:
        """The bundle's manifest as devices fetch it, and what a round's manifest calls it."""
        encoded = self.bundle.manifest.encode()
        return encoded, describe(encoded)

    def contents(self) -> Iterator[tuple[bytes, BlobRef]]:
        """All that devices fetch beside the weights: the bundle's manifest, and the files of its engines."""
        yield self.manifest
        manifest = self.bundle.manifest
        for name in sorted({file for engine in manifest.engines for file in manifest.needed(engine)}):
            yield self.bundle.files[name], manifest.files[name]

    def evaluated_by(self) -> tuple[str, bytes]:
        """The engine that judges models on this machine, and the part of the bundle that it reads.

        Raises:
            EngineUnavailableError: no engine runs here.
        """
        engine = choose_engine(self.bundle.manifest.engines)
        return engine, self.bundle.only(engine).encode()


def build_artifact(plan: Plan, folder: Path, seed: int) -> Artifact:
    """Build the artifact of a plan. Takes about 0.1 s; call it before anything else logs.

    Args:
        plan: names the model, loss and optimizer.
        folder: of the plan file, to which a model's path is relative.
        seed: of a catalog model's first weights.

    Raises:
        ModelError: the model cannot be read or trained; says why.
    """
    try:
        return _built(plan, folder, seed)
    except ModelError as error:
        if plan.model.onnx is None:
            raise
        raise ModelError(f"{folder / plan.model.onnx}: {error}") from error


def _built(plan: Plan, folder: Path, seed: int) -> Artifact:
    model, activation = _model(plan, folder, seed)
    roles = Roles(frozen=plan.model.frozen, private=plan.model.private)
    if plan.model.lora.rank:
        model, roles = add_adapters(model, roles, plan.model.lora, seed)
    return Artifact(
        build_bundle(model, plan.training, roles=roles), initial_weights(model, roles), activation
    )


def _model(plan: Plan, folder: Path, seed: int) -> tuple[bytes, Activation | None]:
    if plan.model.catalog is not None:
        return bytes(build_model(plan.model.catalog, plan.model.parameters, seed).SerializeToString()), None
    path = folder / (plan.model.onnx or "")
    return import_model(_read(path), plan.training.loss, output=plan.model.output, folder=path.parent)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot be read: {error.strerror}; give another path as model.onnx in the plan"
        ) from error
