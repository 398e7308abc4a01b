"""Three real steps of a plan on this machine, with made-up examples: what a round would cost a device."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from coordinator.artifact import Artifact
from models.bundle import BundleManifest
from models.datasets.source import NpzSource
from models.installed import available_engines
from models.training_limits import TrainingLimits
from models.training_process import TrainingWorker
from protocol.plan import Plan, Training

STEPS = 3
LIMITS = TrainingLimits(memory_limit_mb=4096)
"""More than a device has: a plan that needs it is told in numbers, not by a crash."""

DEADLINE = 120.0


class Rehearsal(Struct, frozen=True):
    """One engine's steps.

    Attributes:
        engine: which.
        step_seconds: of one optimizer step with a whole batch, one thread.
        epoch_seconds: of one pass over as many examples as the plan lets a device use.
        memory_bytes: the most that the training process had, without the device's data.
    """

    engine: str
    step_seconds: float
    epoch_seconds: float
    memory_bytes: int


def rehearse(plan: Plan, artifact: Artifact) -> Sequence[Rehearsal]:
    """Train three steps with every engine that bundle and machine have.

    Raises:
        TrainingFailedError: a step fails: so it would on every device.
    """
    engines = [name for name in available_engines() if name in artifact.bundle.manifest.engines]
    return [asyncio.run(_rehearsed(plan, artifact, engine)) for engine in engines]


async def _rehearsed(plan: Plan, artifact: Artifact, engine: str) -> Rehearsal:
    size = plan.training.batch_size
    once = replace(plan.training, local_epochs=1, max_examples=STEPS * size)
    worker = TrainingWorker(LIMITS)
    with TemporaryDirectory(prefix="fedfleet-") as folder:
        data = Path(folder) / "examples.npz"
        _write_examples(data, artifact.bundle.manifest, once)
        try:
            for _ in range(2):  # the first loads the graphs and asks for memory
                result = await worker.train(
                    artifact.bundle.only(engine).encode(),
                    artifact.weights,
                    once,
                    NpzSource(data),
                    seed=0,
                    deadline=DEADLINE,
                    engine=engine,
                )
        finally:
            await worker.close()
    step = result.fit_seconds / result.steps
    most = -(-plan.training.max_examples // size)
    return Rehearsal(engine, step, step * most, result.peak_bytes)


def _write_examples(file: Path, manifest: BundleManifest, training: Training) -> None:
    """Normal inputs and targets that the loss accepts, some of them to be held out."""
    count, random = training.max_examples, np.random.default_rng(0)
    shape, label = manifest.input.shape, manifest.label
    x = random.normal(size=(count, *shape)).astype(np.float32)
    if label.dtype == "int64":
        y = random.integers(0, manifest.output.shape[-1], count)
    else:
        y = random.uniform(size=(count, *label.shape)).astype(np.float32)
    few = slice(0, 2)
    np.savez(file, x=x, y=y, x_test=x[few], y_test=y[few])
