"""The files of a demo: a folder of its own, every device's data, and the plan."""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np

from console.identities import issue
from console.run_files import RunFiles, fresh
from models.watch import DeviceData, load_watch
from protocol.errors import MisuseError
from runtime.identity import write_identity
from runtime.plan_file import load_plan

FLEET = "demo"

_ROUNDS = re.compile(r"(?m)^rounds = \d+")


class DemoFiles(RunFiles, frozen=True):
    """Where everything of a demo is; `work` goes away again unless it is to be kept."""

    @property
    def evaluation_data(self) -> Path:
        """Everybody's test data, by which the coordinator judges models."""
        return self.work / "coordinator" / "evaluation.npz"

    @property
    def plot(self) -> Path:
        """Accuracy by round."""
        return self.folder / "accuracy.png"


def make_files(wanted: Path, devices: int, rounds: int | None) -> DemoFiles:
    """Make the folder with all that the programs need.

    Args:
        wanted: the folder; `-2`, `-3`, … is appended when it is there already.
        devices: how many; each gets its own part of the watch data.
        rounds: instead of the plan's.

    Raises:
        FedfleetError: the data cannot be split over so many.
    """
    data = load_watch(devices)
    folder = fresh(wanted)
    work = folder / "work"
    plan_file = work / "plan.toml"
    (work / "logs").mkdir(parents=True)
    plan_file.write_text(_plan_text(rounds), encoding="utf-8")
    made = DemoFiles(folder, tuple(each.name for each in data), load_plan(plan_file))
    for identity in issue(FLEET, made.devices):
        write_identity(made.of(identity.name) / "identity", identity)
    for each in data:
        _write(made.of(each.name) / "data.npz", _own(each))
    _write(made.evaluation_data, _pooled(data))
    return made


def bundled_plan() -> str:
    """The commented example, which is the demo's plan."""
    return (files("console") / "plan.toml").read_text(encoding="utf-8")


def _plan_text(rounds: int | None) -> str:
    text = bundled_plan()
    if rounds is None:
        return text
    text, found = _ROUNDS.subn(f"rounds = {rounds}", text)
    if found != 1:
        raise MisuseError("the demo's plan does not say `rounds` once, so it cannot be changed")
    return text


def _own(device: DeviceData) -> Mapping[str, np.ndarray]:
    return {"x": device.x_train, "y": device.y_train, "x_test": device.x_test, "y_test": device.y_test}


def _pooled(devices: list[DeviceData]) -> Mapping[str, np.ndarray]:
    return {
        "x": np.concatenate([device.x_test for device in devices]),
        "y": np.concatenate([device.y_test for device in devices]),
    }


def _write(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with file.open("wb") as opened:
        np.savez(opened, allow_pickle=False, **arrays)
