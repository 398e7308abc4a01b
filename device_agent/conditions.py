"""Whether the device takes part at all, by its owner's rules, and what it says of itself to a plan's."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from device_agent.network import BUS, read_unmetered
from device_agent.sensors import Readings, read_files
from device_agent.settings import ConditionSettings
from protocol.eligibility import NEVER, Facts, Lack, in_words, lacks, while_training
from protocol.ids import UnixTime
from protocol.plan import Eligibility
from runtime.clock import Clock

_BEST = Eligibility(idle=True, charging=True, unmetered=True)


@dataclass(frozen=True)
class Conditions:
    """The device now, as its owner's rules see it.

    Attributes:
        facts: what it tells the coordinator.
        lacking: what it would have to be to offer itself.
        lacking_in_training: the part of it that also ends a training which is under way.
    """

    facts: Facts
    lacking: tuple[Lack, ...] = ()
    lacking_in_training: tuple[Lack, ...] = ()

    @property
    def asleep(self) -> str:
        """Why it takes part in nothing now, in words; empty when it does."""
        return in_words(self.lacking)

    @property
    def remarks(self) -> str:
        """What is not as free as a plan may ask for, in words."""
        return ", ".join(lack.what for lack in lacks(self.facts, _BEST))

    def ends_training(self, rules: Eligibility) -> str:
        """Why a training that is under way has to stop, by its owner's rules or the plan's; empty if not."""
        return in_words(
            tuple(dict.fromkeys(self.lacking_in_training + lacks(self.facts, while_training(rules))))
        )


@dataclass(frozen=True)
class Sensors:
    """Reads this machine.

    Attributes:
        state: the agent's folder.
        ask_network: whether NetworkManager is asked.
        sys: where sysfs is mounted.
        proc: where procfs is mounted.
        bus: the socket of the system bus.
        cores: of the processor.
    """

    state: Path
    ask_network: bool = True
    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    bus: Path = BUS
    cores: int = os.cpu_count() or 1

    async def read(self) -> Readings:
        """Everything, without ever holding up the event loop."""
        files = await asyncio.to_thread(read_files, self.sys, self.proc, self.state, self.cores)
        unmetered = await read_unmetered(self.bus) if self.ask_network else None
        return replace(files, unmetered=unmetered)


class ConditionReader:
    """Looks at the device and judges it.

    Args:
        settings: the owner's rules.
        read: takes the readings.
        last: when the device last entered a round; None for never.
        clock: the time.
    """

    def __init__(
        self,
        settings: ConditionSettings,
        read: Callable[[], Awaitable[Readings]],
        last: Callable[[], float | None],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._read = read
        self._last = last
        self._clock = clock
        self._version = version("fedfleet")[:32]
        self._readings = Readings()

    async def look(self) -> Conditions:
        """Take the readings again."""
        self._readings = await self._read()
        return self.newest

    @property
    def newest(self) -> Conditions:
        """By the readings of the last look, at this time; before the first look nothing is known."""
        now = self._clock.unix()
        return judged(
            self._settings,
            self._readings,
            rest=rested(self._last(), now),
            minute=minute_of_day(now),
            agent=self._version,
        )


def judged(
    settings: ConditionSettings, readings: Readings, *, rest: int, minute: int, agent: str
) -> Conditions:
    """What follows from readings.

    Args:
        settings: the owner's rules.
        readings: of the device.
        rest: seconds since it entered a round, at most `NEVER`.
        minute: of the day, by the device's local time, from 0.
        agent: its version.
    """
    facts = Facts(
        idle=_idle(settings.idle_load, readings.load),
        charging=readings.charging if settings.charging == "auto" else settings.charging,
        unmetered=readings.unmetered if settings.unmetered == "auto" else settings.unmetered,
        battery=readings.battery,
        temperature=readings.temperature,
        free_memory_mb=readings.free_memory_mb,
        free_disk_mb=readings.free_disk_mb,
        rested=rest,
        tags=settings.tags,
        version=agent,
    )
    window, rules = tuple(_window(settings.windows, minute)), settings.rules
    return Conditions(
        facts,
        (*window, *_busy(settings, readings), *lacks(facts, rules)),
        (*window, *lacks(facts, while_training(rules))),
    )


def rested(last: float | None, now: UnixTime) -> int:
    """Seconds since the device entered a round.

    A round in the future means that a clock was turned back: nobody knows, and nobody shall wait for years.
    """
    return NEVER if last is None or last > now else min(int(now - last), NEVER)


def minute_of_day(now: UnixTime) -> int:
    """By the device's local time, from 0."""
    local = time.localtime(now)
    return 60 * local.tm_hour + local.tm_min


def within(window: str, minute: int) -> bool:
    """Whether a minute of the day lies in "22:00-06:00"; the end does not, and an empty window is all day."""
    begin, end = (60 * int(one[:2]) + int(one[3:]) for one in window.split("-"))
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def _window(windows: tuple[str, ...], minute: int) -> Iterator[Lack]:
    if windows and not any(within(one, minute) for one in windows):
        now = f"{minute // 60:02}:{minute % 60:02}"
        yield Lack("outside its hours", f"{now}, takes part {' and '.join(windows)}")


def _idle(limit: float | None, load: float | None) -> bool | None:
    if limit is None:
        return True
    return None if load is None else load < limit


def _busy(settings: ConditionSettings, readings: Readings) -> Iterator[Lack]:
    """Load and pressure, which only the device itself knows by their numbers."""
    load, limit = readings.load, settings.idle_load
    if "idle" in settings.requires and limit is not None and not _idle(limit, load):
        measured = "unknown" if load is None else f"{load:.2f}"
        yield Lack("busy", f"load per core {measured}, needs below {limit:g}")
    pressure, most = readings.pressure, settings.max_pressure
    if most is not None and (pressure is None or pressure > most):
        measured = "unknown" if pressure is None else f"{pressure:.0f} %"
        yield Lack("under pressure", f"{measured} of the time, needs at most {most:g} %")
