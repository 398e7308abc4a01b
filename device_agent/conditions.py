"""Whether the device is free to train: power, load, network. What cannot be known counts as not free."""

import os
from dataclasses import dataclass
from pathlib import Path

from device_agent.settings import ConditionSettings

POWER_SUPPLIES = Path("/sys/class/power_supply")


@dataclass(frozen=True)
class Conditions:
    """The device now.

    Attributes:
        idle: its load is below the limit of its settings.
        charging: on mains power, or its battery is being charged or full.
        unmetered: its network costs nothing per byte.
    """

    idle: bool
    charging: bool
    unmetered: bool

    @property
    def why(self) -> str:
        """What is not as free as it could be, in words."""
        reasons = {"busy": self.idle, "on battery": self.charging, "network may be metered": self.unmetered}
        return ", ".join(reason for reason, good in reasons.items() if not good)


def read_conditions(settings: ConditionSettings, supplies: Path = POWER_SUPPLIES) -> Conditions:
    """Look at the device.

    Args:
        settings: what the operator says of it.
        supplies: the kernel's folder of power supplies.
    """
    return Conditions(
        idle=settings.idle_load is None or _load_per_core() < settings.idle_load,
        charging=_on_power(supplies) if settings.charging == "auto" else settings.charging,
        unmetered=settings.unmetered is True,
    )


def _load_per_core() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _on_power(supplies: Path) -> bool:
    """A device without a battery is on mains; one with a battery says so itself."""
    kinds = {supply: _word(supply / "type") for supply in supplies.glob("*")}
    if any(_word(supply / "online") == "1" for supply in kinds):
        return True
    batteries = [supply for supply, kind in kinds.items() if kind == "battery"]
    return all(_word(battery / "status") in {"charging", "full", "not charging"} for battery in batteries)


def _word(file: Path) -> str:
    try:
        return file.read_text().strip().lower()
    except OSError:
        return ""
