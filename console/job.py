"""`fedfleet init` and `fedfleet try`: a job of one's own, and a run of it on this machine."""

import asyncio
import shutil
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from console.data_check import described, faults
from console.fleet_view import FleetView, accuracy, loss
from console.identities import device_names, issue
from console.local_run import EXIT_NOTHING, EXIT_OK, EXIT_TERMINATED, LocalRun, until_terminated
from console.outputs import choose
from console.plan_check import check_plan
from console.run_files import RunFiles, fresh
from console.text import decimal, percent, size
from device_agent.settings import AgentSettings
from models.datasets.source import HookSource
from protocol.errors import FedfleetError
from runtime.config import load_settings
from runtime.identity import write_identity
from runtime.plan_file import load_plan

FLEET = "try"
PLAN, SETTINGS = "plan.toml", "settings.toml"
DEFAULT_DEVICES = 5

_TEMPLATES = {
    "README.md": "README.md",
    PLAN: PLAN,
    SETTINGS: SETTINGS,
    "data.py": "data.py.template",
    "make_model.py": "make_model.py.template",
}


class JobError(FedfleetError):
    """The job cannot be made, or not be run as asked."""


class JobFiles(RunFiles, frozen=True):
    """Where everything of a run is.

    Attributes:
        job: the folder of plan and settings.
        data: what each agent reads.
    """

    job: Path
    data: tuple[Path, ...]

    @property
    def plan_file(self) -> Path:
        """The job's own."""
        return self.job / PLAN

    @property
    def settings(self) -> Path:
        """The agents'."""
        return self.job / SETTINGS


class Summary(Struct, frozen=True):
    """What came of a run.

    Attributes:
        rounds_committed: whose updates are in the model.
        rounds_aborted: without effect.
        accuracy: of the model on what devices hold out, as the last round measured it; None without classes.
        loss: likewise.
        bytes_up_per_device: masked updates of one device that took part in every committed round.
        seconds: from the command to here.
        model: path of the inference model; None without a committed round.
    """

    rounds_committed: int
    rounds_aborted: int
    accuracy: float | None
    loss: float | None
    bytes_up_per_device: int
    seconds: float
    model: str | None


def make_job(folder: Path) -> Sequence[Path]:
    """Write a job that works as it stands; returns its files.

    Raises:
        JobError: the folder is there and not empty, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise JobError(f"{folder} is not empty; give a new folder")
        for name, template in _TEMPLATES.items():
            text = (files("console") / "job_template" / template).read_text(encoding="utf-8")
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise JobError(f"{folder} cannot be written: {error.strerror}; give another folder") from error
    return [folder / name for name in _TEMPLATES]


def try_job(job: Path, devices: int | None, shared_out: Path | None, *, json: bool) -> int:
    """Run a job on this machine; returns the exit code.

    Args:
        job: its folder.
        devices: agents to start; None is one for each file of `shared_out`, or else five.
        shared_out: folder with each agent's data; None where a hook makes them.
        json: one object a line.

    Raises:
        FedfleetError: the job is wrong, or something did not start or ended; the logs are kept.
        KeyboardInterrupt: Ctrl-C; every process has ended.
    """
    began = time.monotonic()
    made = _make_files(job, devices, shared_out)
    view = FleetView()
    try:
        with choose(Console(), view, f"fedfleet try {job}, {len(made.devices)} devices", json=json) as output:
            asyncio.run(until_terminated(_JobRun(FLEET, made, view, output).run()))
            summary = _summary(made, view, time.monotonic() - began)
            results = {"summary": summary, "rounds": list(view.results.values())}
            made.results.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
            output.event("finished", "done", msgspec.to_builtins(summary))
    except asyncio.CancelledError:
        shutil.rmtree(made.folder)
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        shutil.rmtree(made.folder)
        raise
    if summary.rounds_committed:
        shutil.rmtree(made.work)
    if not json:
        Console().print(_table(summary, made), highlight=False)
    return EXIT_OK if summary.rounds_committed else EXIT_NOTHING


class _JobRun(LocalRun):
    """Agents with the job's own settings and each its own data."""

    _files: JobFiles

    def agent_options(self, name: str) -> Sequence[str]:
        """See `LocalRun`."""
        data = self._files.data[self._files.devices.index(name)]
        return "--config", str(self._files.settings), "--data", str(data)


def _make_files(job: Path, wanted: int | None, shared_out: Path | None) -> JobFiles:
    settings = load_settings(AgentSettings, file=job / SETTINGS, environment={}, overrides={})
    plan = load_plan(job / PLAN)
    data = () if shared_out is None else _each(shared_out, wanted)
    devices = len(data) or wanted or max(DEFAULT_DEVICES, plan.selection.min_cohort)
    if devices < settings.floors.min_cohort:
        raise JobError(
            f"{devices} devices are fewer than each insists on; start {settings.floors.min_cohort}, or lower "
            f"floors.min_cohort in {job / SETTINGS} (at least 3)"
        )
    check_plan(job / PLAN, devices)
    if not data and not isinstance(settings.data, HookSource):
        raise JobError(
            f"each agent needs data of its own, and {job / SETTINGS} names one; put a file for each into a "
            "folder, and add --data FOLDER"
        )
    source = msgspec.structs.replace(settings.data, path=data[0]) if data else settings.data
    if found := faults(described(source, settings.training), job / PLAN):
        raise JobError("\n".join(f"{source.path}: {one}" for one in found))
    folder = fresh(job / "try")
    (folder / "work" / "logs").mkdir(parents=True)
    made = JobFiles(folder, tuple(device_names(devices, "device-")), plan, job, tuple(data))
    for identity in issue(FLEET, made.devices):
        write_identity(made.of(identity.name) / "identity", identity)
    if data:
        return made
    return msgspec.structs.replace(
        made, data=tuple(_linked(made, name, source.path) for name in made.devices)
    )


def _each(folder: Path, wanted: int | None) -> Sequence[Path]:
    """The agents' data, by name."""
    found = sorted(each for each in folder.glob("*") if not each.name.startswith("."))
    if not found or len(found) < (wanted or 0):
        raise JobError(f"{folder} holds {len(found)} files; write one for each agent there")
    return found[:wanted]


def _linked(made: JobFiles, name: str, hook: Path) -> Path:
    """The hook under a path that is this device's alone: by it the hook may tell devices apart."""
    link = made.of(name) / hook.name
    link.symlink_to(hook.absolute())
    return link


def _summary(made: JobFiles, view: FleetView, seconds: float) -> Summary:
    committed = view.committed
    last = committed[-1] if committed else None
    classes = made.plan.training.loss == "cross_entropy"
    return Summary(
        rounds_committed=len(committed),
        rounds_aborted=len(view.aborted),
        accuracy=accuracy(last) if last and classes else None,
        loss=loss(last) if last else None,
        bytes_up_per_device=sum(one.bytes_up for one in committed),
        seconds=round(seconds, 1),
        model=str(made.model) if last else None,
    )


def _table(one: Summary, made: JobFiles) -> Table:
    rows = {
        "rounds": f"{one.rounds_committed} committed, {one.rounds_aborted} aborted",
        "accuracy": f"{percent(one.accuracy)} on what devices hold out, before the last round's update",
        "loss": decimal(one.loss),
        "sent by a device": f"{size(one.bytes_up_per_device)} of masked updates",
        "time": f"{one.seconds:.1f} s",
        "model": one.model or f"none: no round was committed; logs in {made.logs}",
        "results": str(made.results),
    }
    if one.accuracy is None:
        del rows["accuracy"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/bold]", value)
    return table
