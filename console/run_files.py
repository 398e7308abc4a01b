"""The folder of a run on this machine."""

from pathlib import Path

from msgspec import Struct

from protocol.plan import Plan


class RunFiles(Struct, frozen=True):
    """Where everything is.

    Attributes:
        folder: what the user finds afterwards.
        devices: their names, in order.
        plan: as read from `plan_file`.
    """

    folder: Path
    devices: tuple[str, ...]
    plan: Plan

    @property
    def work(self) -> Path:
        """What the programs need while they run."""
        return self.folder / "work"

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.work / "logs"

    @property
    def plan_file(self) -> Path:
        """The plan of this run."""
        return self.work / "plan.toml"

    @property
    def model(self) -> Path:
        """The inference model."""
        return self.folder / "model.onnx"

    @property
    def results(self) -> Path:
        """Every round, and the summary, as JSON."""
        return self.folder / "results.json"

    def of(self, name: str) -> Path:
        """The coordinator's or a device's own folder."""
        return self.work / name


def fresh(wanted: Path) -> Path:
    """Make a folder that was not there: `wanted`, or with -2, -3, … behind."""
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder
