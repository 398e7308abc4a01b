"""What the device measures of itself, from files of the kernel; no more of each than a decision needs.

Any file may be missing, empty or hold nonsense: then what it says is not known, and None.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COLDEST, HOTTEST = -40, 125
"""Degrees Celsius that a thermal zone may say: beyond them silicon does not work, and the zone lies."""

_AVERAGE = re.compile(r"^some avg10=([0-9]{1,3}\.[0-9]+) ", re.MULTILINE)
_AVAILABLE = re.compile(r"^MemAvailable:\s+([0-9]{1,15}) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Readings:
    """The device now; None is what it does not know.

    Attributes:
        charging: on mains power, or its battery is being charged or full.
        battery: percent of charge that is left; None without a battery, too.
        load: programs that want to run, per core, over the last minute.
        pressure: percent of the last ten seconds in which some program had to wait for the processor or for
            memory, whichever is more.
        unmetered: its network costs nothing per byte.
        temperature: of the hottest thermal zone, in degrees Celsius.
        free_memory_mb: what programs could take without swapping, in MiB.
        free_disk_mb: what is left where the agent keeps its state, in MiB.
    """

    charging: bool | None = None
    battery: int | None = None
    load: float | None = None
    pressure: float | None = None
    unmetered: bool | None = None
    temperature: int | None = None
    free_memory_mb: int | None = None
    free_disk_mb: int | None = None


def read_files(sys: Path, proc: Path, state: Path, cores: int) -> Readings:
    """Read everything but the network, blocking: a battery's own controller may take tenths of a second.

    Args:
        sys: where sysfs is mounted.
        proc: where procfs is mounted.
        state: the agent's folder.
        cores: of the processor.
    """
    supplies = _supplies(sys / "class/power_supply")
    return Readings(
        charging=_charging(supplies),
        battery=_battery(supplies),
        load=_load(proc / "loadavg", cores),
        pressure=_pressure(proc / "pressure"),
        temperature=_temperature(sys / "class/thermal"),
        free_memory_mb=_free_memory_mb(proc / "meminfo"),
        free_disk_mb=_free_disk_mb(state),
    )


def _supplies(folder: Path) -> list[Path]:
    """The device's own: a mouse's battery is listed beside them."""
    return [one for one in _entries(folder, "*") if _text(one / "scope").lower() != "device"]


def _charging(supplies: list[Path]) -> bool | None:
    """A device without a battery is on mains; one with a battery says so itself."""
    batteries = _batteries(supplies)
    if any(_text(one / "online") in {"1", "2"} for one in supplies if one not in batteries):
        return True
    says = {"charging": True, "full": True, "not charging": True, "discharging": False}
    states = [says.get(_text(battery / "status").lower()) for battery in batteries]
    if False in states:
        return False
    return None if None in states else True


def _battery(supplies: list[Path]) -> int | None:
    """Of the emptiest battery."""
    levels = [_level(battery) for battery in _batteries(supplies)]
    return min((level for level in levels if level is not None), default=None)


def _batteries(supplies: list[Path]) -> list[Path]:
    return [one for one in supplies if _text(one / "type").lower() == "battery"]


def _level(battery: Path) -> int | None:
    percent = _number(battery / "capacity")
    for unit in ("energy", "charge"):
        now, full = _number(battery / f"{unit}_now"), _number(battery / f"{unit}_full")
        if percent is None and now is not None and full:
            percent = 100 * now // full
    return percent if percent in range(101) else None


def _load(file: Path, cores: int) -> float | None:
    word = _text(file).partition(" ")[0]
    return float(word) / cores if re.fullmatch(r"[0-9]{1,6}\.[0-9]{1,6}", word) else None


def _pressure(folder: Path) -> float | None:
    """Pressure stall information (the kernel's `accounting/psi`); a kernel may be built without it."""
    found = [_AVERAGE.search(_text(folder / name) + "\n") for name in ("cpu", "memory")]
    return max((float(one[1]) for one in found if one), default=None)


def _temperature(folder: Path) -> int | None:
    zones = [_number(zone / "temp") for zone in _entries(folder, "thermal_zone*")]
    degrees = [round(milli / 1000) for milli in zones if milli is not None]
    return max((one for one in degrees if COLDEST <= one <= HOTTEST), default=None)


def _free_memory_mb(file: Path) -> int | None:
    found = _AVAILABLE.search(_text(file))
    return int(found[1]) // 1024 if found else None


def _free_disk_mb(folder: Path) -> int | None:
    """For users without rights of their own."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return None
    return room.f_bavail * room.f_frsize // 2**20


def _entries(folder: Path, pattern: str) -> Iterator[Path]:
    try:
        yield from sorted(folder.glob(pattern))
    except OSError:
        return


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if re.fullmatch(r"-?[0-9]{1,15}", text) else None


def _text(file: Path) -> str:
    """At most a page, which is what the kernel gives: somebody may have linked something endless."""
    try:
        with file.open("rb") as stream:
            return stream.read(4096).decode(errors="replace").strip()
    except OSError:
        return ""
