"""What must survive a restart, and what is trained on."""

import os
from pathlib import Path
from typing import cast

from console.data_check import described
from console.doctor.examination import Examination
from console.doctor.findings import Findings, failure, ok, told, warning
from console.plan_check import check_plan
from console.text import size
from coordinator.settings import CoordinatorSettings
from device_agent.settings import AgentSettings
from models.datasets.npz import load_npz
from models.errors import DatasetError, TrainingFailedError
from protocol.chunks import MAX_BLOB_SIZE
from protocol.errors import FedfleetError
from runtime.files import write_synced

LITTLE = 64 * 1024 * 1024
"""Bytes below which a state folder is as good as full: the journals and ledgers of a long life."""

UNSUMMED = 32
"""Masked updates that wait on a coordinator's disk: twice as many as are summed up at a time."""

MODELS = 8
"""Copies of the weights beside them: sums, the model, the optimizer's state, and what replaces them."""

_FORGETS = frozenset({"tmpfs", "ramfs"})
_NO_PROMISE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "vfat", "exfat"})


def folder(examination: Examination) -> Findings:
    """That the program can write there, durably."""
    state = examination.settings.state
    fix = f"have the program's user own {state}, or set another state folder"
    try:
        if state.exists():
            probe = state / ".doctor"
            write_synced(probe, b"")
            probe.unlink()
            yield ok(f"{state} is written to, synced")
        elif os.access(_nearest(state), os.W_OK | os.X_OK):
            yield ok(f"{state} is made at the first start")
        else:
            yield failure(f"{state} cannot be made: no right to write into {_nearest(state)}", fix)
    except OSError as error:
        yield failure(f"{state} cannot be written to ({error.strerror})", fix)


def file_system(examination: Examination) -> Findings:
    """That it keeps what was synced."""
    state = examination.settings.state
    kind = _file_system(_nearest(state).resolve(), examination.machine.mounts)
    if kind in _FORGETS:
        yield failure(
            f"{state} is on {kind}, which forgets everything at a restart of the machine",
            "set a state folder on a disk",
        )
    elif kind == "overlay":
        yield warning(f"{state} goes with its container", "mount a volume there")
    elif kind in _NO_PROMISE:
        yield warning(
            f"{state} is on {kind}, which does not keep a database's promises",
            "set a state folder on a local disk",
        )
    else:
        yield ok(kind or "of unknown kind")


def room_of_agent(examination: Examination) -> Findings:
    """Disk for a model of the largest size."""
    yield from _room(examination, MAX_BLOB_SIZE, "the largest model that a round may bring")


def room_of_coordinator(examination: Examination) -> Findings:
    """Disk for the plan's models and updates."""
    try:
        figures = check_plan(_coordinator(examination).plan, None)
    except FedfleetError:
        return  # told by the check of the plan
    wanted = LITTLE + figures.bundle_bytes + UNSUMMED * figures.bytes_up + MODELS * figures.bytes_down
    yield from _room(examination, wanted, "this plan's models and updates")


def room(examination: Examination) -> Findings:
    """Disk for a database."""
    yield from _room(examination, LITTLE, "its database")


def data(examination: Examination) -> Findings:
    """The examples of a device."""
    settings = cast("AgentSettings", examination.settings)
    try:
        found = described(settings.data, settings.training)
    except TrainingFailedError as error:
        yield told(error, "`fedfleet data check` says what is read, and how")
        return
    text = f"{found.examples} examples of shape {found.x.shape}, {found.held_out} held out"
    if found.dropped:
        yield warning(
            f"{text}; {found.dropped} rows dropped", "fill in what is empty in them, or leave them out"
        )
    else:
        yield ok(text)


def plan(examination: Examination) -> Findings:
    """What is to be trained."""
    try:
        figures = check_plan(_coordinator(examination).plan, None)
    except FedfleetError as error:
        yield told(error, "correct it; `fedfleet plan check` says the rest")
        return
    yield ok(f"{figures.parameters:,} parameters, cohorts of {figures.cohort}")


def evaluation(examination: Examination) -> Findings:
    """The coordinator's own examples."""
    path = _coordinator(examination).evaluation.data
    if path is None:
        yield ok("none: the devices judge")
        return
    try:
        read = load_npz(path, holdout=None)
    except DatasetError as error:
        yield told(error, "write it with numpy.savez(path, x=…, y=…) and set evaluation.data to it")
        return
    yield ok(f"{len(read.x)} examples of shape {read.x.shape[1:]}")


def _room(examination: Examination, wanted: int, what: str) -> Findings:
    state = examination.settings.state
    free = examination.machine.free(_nearest(state))
    fix = f"make room, or set a state folder with {size(wanted)} free"
    if free < min(wanted, LITTLE):
        yield failure(f"{size(free)} free at {state}", fix)
    elif free < wanted:
        yield warning(f"{size(free)} free at {state}, less than {what} may take", fix)
    else:
        yield ok(f"{size(free)} free at {state}; {what} may take {size(wanted)}")


def _nearest(path: Path) -> Path:
    """The folder, or the first one above it that is there."""
    absolute = path.absolute()
    return next(one for one in (absolute, *absolute.parents) if one.exists())


def _file_system(path: Path, mounts: str) -> str:
    """Of the mount that holds a path; the last one that is listed covers the others."""
    found, kind = Path(), ""
    for line in mounts.splitlines():
        _, where, type_, *_ = line.split()
        # proc(5): spaces and the like are written in octal.
        point = Path(where.encode().decode("unicode_escape"))
        if path.is_relative_to(point) and len(point.parts) >= len(found.parts):
            found, kind = point, type_
    return kind


def _coordinator(examination: Examination) -> CoordinatorSettings:
    return cast("CoordinatorSettings", examination.settings)
