"""`fedfleet data check`: what a device would train on, for its owner's eyes."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from rich.table import Table

from coordinator.artifact import build_artifact
from device_agent.settings import AgentSettings
from models.datasets.schema import DataSchema, mismatches
from models.datasets.source import DataSource
from models.training_limits import TrainingLimits
from models.training_process import TrainingWorker
from runtime.config import load_settings
from runtime.plan_file import load_plan

READING_SECONDS = 600.0
"""Data that take longer to be read twice would leave a round no time for training."""

SHOWN_CLASSES = 50

SCALE_HINT = (
    "features are far from 0 and 1, so training will hardly learn; write below \\[data], the same numbers on "
    "every device:"
)


class Examined(Struct, frozen=True):
    """A device's data, seen.

    Attributes:
        path: where they are.
        schema: what is there.
        mismatches: why a plan's model cannot train on them.
    """

    path: Path
    schema: DataSchema
    mismatches: Sequence[str]


def examined(settings_file: Path, plan_file: Path | None) -> Examined:
    """Read the data of an agent's settings, and compare them with a plan's model.

    Raises:
        FedfleetError: settings, data or plan are wrong.
    """
    settings = load_settings(AgentSettings, file=settings_file, environment=os.environ, overrides={})
    schema = described(settings.data, settings.training)
    return Examined(settings.data.path, schema, () if plan_file is None else faults(schema, plan_file))


def described(source: DataSource, limits: TrainingLimits) -> DataSchema:
    """What a source holds, read in a process of its own under the limits of training.

    Raises:
        TrainingFailedError: the data cannot be used; says why and what to change.
    """
    return asyncio.run(_described(source, limits))


def faults(schema: DataSchema, plan_file: Path) -> Sequence[str]:
    """Why the plan's model cannot train on such data; empty when it can.

    Raises:
        FedfleetError: the plan is wrong, or its model cannot be trained at all.
    """
    plan = load_plan(plan_file)
    found = mismatches(schema, build_artifact(plan, plan_file.parent, seed=0).bundle.manifest)
    least = plan.selection.eligibility.min_examples
    if schema.examples < least:
        found.append(
            f"{schema.examples} examples to train on; selection.eligibility.min_examples is {least}: collect "
            "more, or lower it"
        )
    return found


def table(path: Path, schema: DataSchema) -> Table:
    """The schema, for people."""
    made = Table(title=f"data of {path}", title_justify="left", show_header=False, box=None)
    made.add_row("examples", f"{schema.examples:,} to train on, {schema.held_out:,} held out")
    made.add_row("dropped", f"{schema.dropped:,} rows with something missing")
    made.add_row("x", str(schema.x))
    made.add_row("y", str(schema.y))
    if schema.unscaled:
        made.add_row("scale", SCALE_HINT)
        made.add_row("", f"mean = {_list(schema.mean)}")
        made.add_row("", f"deviation = {_list(schema.deviation)}")
    for number, (label, examples) in enumerate(schema.labels.items()):
        if number == SHOWN_CLASSES:
            made.add_row("", f"… {len(schema.labels) - number} classes more")
            break
        name = schema.classes[label] if label < len(schema.classes) else ""
        made.add_row(f"class {label}", f"{examples:,} {name}".rstrip())
    return made


def _list(numbers: Sequence[float]) -> str:
    return f"\\[{', '.join(f'{number:.4g}' for number in numbers)}]"  # rich reads [ as its own


async def _described(source: DataSource, limits: TrainingLimits) -> DataSchema:
    worker = TrainingWorker(limits)
    try:
        return await worker.describe(source, deadline=READING_SECONDS)
    finally:
        await worker.close()
