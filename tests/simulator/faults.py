"""How each operation is carried out: what happens when it begins, and when it is over."""

import random
import shutil
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING

from simulator import disk
from simulator.liars import MaliciousDevice
from simulator.operations import (
    COORDINATOR,
    AnyOperation,
    BrokerRestart,
    ClockJump,
    Clone,
    Crash,
    Cut,
    DiskFull,
    Lie,
    Malice,
    Noise,
    Replay,
    Restore,
    Revoke,
    Slow,
)

if TYPE_CHECKING:
    from simulator.world import World


def plan(world: "World") -> None:
    """Set every operation of the schedule on its time or its step."""
    for place, operation in enumerate(world.schedule.operations):
        match operation:
            case Crash(actor=actor, step=int(step)):
                world.actors[actor].crashes[step] = operation
            case Restore(copied=copied):
                folder = world.folder / f"copy.{place}"
                copy = _Copy(folder)
                _at(world, copied, copy.make, world)
                _at(world, operation.start, copy.restore, world, operation)
            case Noise(salt=salt):
                world.network.noises.append((operation, random.Random(salt)))
            case _:
                _at(world, operation.start, _begin, world, operation)
                _at(world, operation.end, _end, world, operation)


def _at(world: "World", time: float, act: Callable[..., None], *details: object) -> None:
    world.loop.call_at(time, act, *details, context=Context())


def _begin(world: "World", operation: AnyOperation) -> None:  # noqa: C901 - one line an operation
    world.fault("begins", type(operation).__name__)
    match operation:
        case Replay(client=client, count=count, salt=salt):
            world.network.replay(client, count, random.Random(salt))
        case Cut(client=client, half_open=half_open):
            world.network.cut(client, half_open=half_open)
        case BrokerRestart():
            world.network.kill()
        case Crash(actor=actor):
            world.crash(world.actors[actor], operation)
        case DiskFull(actor=actor):
            disk.FULL.add(actor)
        case Slow(device=device, by=by):
            world.actors[device].slow += by
        case ClockJump(actor=actor, by=by):
            world.actors[actor].wall.by += by
        case Clone(device=device):
            world.clone(device)
        case Malice(device=device):
            world.actors[device].malice = MaliciousDevice(operation, world.oracle)
        case Lie():
            world.liar.lies.append(operation)
        case Revoke(device=device):
            world.office.revoked.append(device)


def _end(world: "World", operation: AnyOperation) -> None:
    match operation:
        case Cut(client=client):
            world.network.heal(client)
        case BrokerRestart(keep_state=keep_state):
            world.network.revive(keep_state=keep_state)
        case DiskFull(actor=actor):
            disk.FULL.discard(actor)
        case Slow(device=device, by=by):
            world.actors[device].slow -= by
        case ClockJump(actor=actor, by=by):
            world.actors[actor].wall.by -= by
        case Clone(device=device):
            world.end_clone(device)
        case Malice(device=device):
            world.actors[device].malice = None
        case Lie():
            world.liar.lies.remove(operation)


class _Copy:
    """A backup of the coordinator's disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = 0

    def make(self, world: "World") -> None:
        """Copy the disk as it is."""
        disk.copy(world.actors[COORDINATOR].folder, self._folder)
        self._known = world.oracle.copies()

    def restore(self, world: "World", operation: Restore) -> None:
        """Kill the coordinator, and begin its next life on the copy."""
        actor = world.actors[COORDINATOR]
        world.fault("restores", actor.name)
        world.kill(actor)
        if operation.announced:
            shutil.rmtree(actor.folder)
            disk.copy(self._folder, actor.folder)
        else:
            disk.roll_back(actor.folder, self._folder)
        world.oracle.forgets(self._known)
        _at(world, operation.start + operation.seconds, world.start, actor)
