"""How much memory a real agent and its training process take: idle, in a round, and idle again.

The bundled watch data and plan, a broker with the production settings, three agents, two rounds; the first
agent is looked at. A worker is idle for two seconds before it ends.
"""

import asyncio
import contextlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from real_fleet import PATIENCE, Program
from secure_fleet import SecureFleet

from console.demo_files import bundled_plan
from models.watch import load_watch
from protocol.certificates import Role
from runtime.identity import write_identity

IDLE_LIMIT = 45.0
TRAINING_LIMIT = 130.0
"""MiB of resident memory; the latter for agent and worker, libraries that both use counted once, beside model
and data, which are 13 KB and 1 MB here."""

USED_LIMIT = 75.0
"""MiB of an agent after a round, before it begins anew: what a round needs is loaded, numpy above all."""

MEGABYTE = 2**20
DEVICES = ("wrist-1", "wrist-2", "wrist-3")
IDLE_SECONDS, RENEW_SECONDS = 2, 10
_EVERY = 0.05
"""Seconds between two looks; a round takes about a second."""

_FIELDS = {"Rss": "rss", "Pss": "pss", "Private_Clean": "private", "Private_Dirty": "private"}


@dataclass(frozen=True)
class Footprint:
    """Of one process, in MiB.

    Attributes:
        rss: pages in memory, shared ones in full.
        pss: the same, a page that n processes share counting 1/n.
        private: pages that nobody shares.
    files: pages of libraries and other files, by path: a part of `rss`. How many depends on the kernel's
        cache, too: with a page it maps those of its neighbours that are there.
    """

    rss: float
    pss: float
    private: float
    files: Mapping[str, float]

    def beside(self, other: "Footprint") -> "Footprint":
        """Both; files that both have mapped count once in `rss`."""
        files = {
            path: max(part.files.get(path, 0.0) for part in (self, other))
            for path in {*self.files, *other.files}
        }
        own = self.rss - sum(self.files.values()) + other.rss - sum(other.files.values())
        return Footprint(own + sum(files.values()), self.pss + other.pss, self.private + other.private, files)


@dataclass(frozen=True)
class Moment:
    """An agent and its training process at one time."""

    name: str
    agent: Footprint
    worker: Footprint | None

    @property
    def together(self) -> Footprint:
        """Both."""
        return self.agent.beside(self.worker) if self.worker else self.agent


def footprint(pid: int) -> Footprint:
    """What the kernel says of a process now."""
    found = dict.fromkeys(_FIELDS.values(), 0.0)
    files = defaultdict[str, float](float)
    path = ""
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        if "-" in name:  # the head of a mapping: addresses, rights, offset, device, inode, path
            path = line[line.find("/") :] if "/" in line else ""
            continue
        if name in _FIELDS:
            found[_FIELDS[name]] += _mebibytes(rest)
        if name == "Rss" and path:
            files[path] += _mebibytes(rest)
        if name == "Anonymous" and path:  # pages of the file that were written to are the process's own
            files[path] -= _mebibytes(rest)
    return Footprint(**found, files=dict(files))


def _mebibytes(kibibytes: str) -> float:
    return int(kibibytes.split(maxsplit=1)[0]) * 1024 / MEGABYTE


def workers_of(pid: int) -> list[int]:
    """Its children; an agent has no others."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def moment(name: str, pid: int) -> Moment:
    """How an agent is now."""
    agent, worker = footprint(pid), None
    for child in workers_of(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended just now
            worker = footprint(child)
    return Moment(name, agent, worker)


class WatchFleet(SecureFleet):
    """Devices with the demo's data.

    Args:
        folder: an empty one.
        python: of the agents; another one than this has Fedfleet installed.
    """

    def __init__(self, folder: Path, python: str) -> None:
        super().__init__(folder, plan())
        self._python = python

    def command(self, module: str) -> Sequence[str]:
        """Agents come from their own installation."""
        if module != "device_agent" or self._python == sys.executable:
            return super().command(module)
        return ("env", "--unset=PYTHONPATH", self._python, "-P", "-m", module)

    def enrol(self, name: str, count: int = 20, features: int = 4) -> Path:
        """The device's own part of the recordings; `count` and `features` are what they are."""
        del count, features
        folder = self.folder / name
        if not folder.exists():
            write_identity(folder / "identity", self.issue(name, Role.DEVICE))
            own = load_watch(10)[DEVICES.index(name)]
            np.savez(folder / "data.npz", x=own.x_train, y=own.y_train, x_test=own.x_test, y_test=own.y_test)
        return folder


def plan() -> str:
    """The demo's, for three devices and two rounds that are long enough to be looked at."""
    text = bundled_plan()
    for before, after in (
        ("rounds = 20", "rounds = 2"),
        ("min_cohort = 5", "min_cohort = 3"),
        ("local_epochs = 2", "local_epochs = 8"),
    ):
        assert before in text
        text = text.replace(before, after, 1)
    return text


async def look(folder: Path, python: str = sys.executable) -> list[Moment]:
    """Run the fleet; the agent at five moments, the second of them the largest of its rounds.

    Args:
        folder: an empty one.
        python: of the agents.
    """
    async with WatchFleet(folder, python) as fleet:
        seconds = {"TRAINING__IDLE_SECONDS": str(IDLE_SECONDS), "RENEW_SECONDS": str(RENEW_SECONDS)}
        agents = await fleet.start_agents(*DEVICES, **seconds)
        for name in DEVICES:
            await fleet.sees_device(name, "idle")
        pid = _pid(agents[DEVICES[0]])
        before = moment("idle, before its first round", pid)
        await fleet.start_coordinator(start_when=len(DEVICES))
        over = asyncio.create_task(fleet.sees_result(2))
        rounds = await _largest("in a round, at most", pid, over.done)
        assert (await over).result == "committed"
        await fleet.sees_device(DEVICES[0], "idle")
        after = moment("idle after two rounds", pid)
        await _until(lambda: not workers_of(pid))
        ended = moment("the same, when the worker has ended", pid)
        await _until(lambda: not any("numpy" in file for file in footprint(pid).files))
        await fleet.sees_device(DEVICES[0], "idle")
        return [before, rounds, after, ended, moment("idle, when it has begun anew", pid)]


def _pid(program: Program) -> int:
    return program.process.pid


async def _largest(name: str, pid: int, over: Callable[[], bool]) -> Moment:
    largest = moment(name, pid)
    while not over():
        await asyncio.sleep(_EVERY)
        largest = max(largest, moment(name, pid), key=lambda one: one.together.rss)
    return largest


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a process of another parent sends us no event
            await asyncio.sleep(_EVERY)


@dataclass(frozen=True)
class Row:
    """One process at one moment, in MiB."""

    moment: str
    process: str
    rss: float
    pss: float
    private: float


def rows(moments: list[Moment]) -> Iterator[Row]:
    """The table, line by line."""
    for one in moments:
        yield _row(one, "agent", one.agent)
        if one.worker is not None:
            yield _row(one, "worker", one.worker)
            yield _row(one, "together, libraries once", one.together)


def _row(moment: Moment, process: str, taken: Footprint) -> Row:
    return Row(moment.name, process, *(round(each, 1) for each in (taken.rss, taken.pss, taken.private)))


def table(moments: list[Moment]) -> str:
    """Markdown."""
    lines = ["| | process | RSS | PSS | private |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.moment} | {row.process} | {row.rss} | {row.pss} | {row.private} |" for row in rows(moments)
    ]
    return "\n".join(lines)
