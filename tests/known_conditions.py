"""A device whose sensors say what the test wants."""

from dataclasses import dataclass, field

from device_agent.conditions import ConditionReader
from device_agent.memory import AgentMemory
from device_agent.sensors import Readings
from device_agent.settings import ConditionSettings
from runtime.clock import Clock

WELL = Readings(
    charging=True,
    battery=100,
    load=0.1,
    pressure=0.0,
    unmetered=True,
    temperature=40,
    free_memory_mb=500,
    free_disk_mb=5000,
)


@dataclass
class Sensed:
    """What the sensors say now."""

    readings: Readings = field(default=WELL)

    async def read(self) -> Readings:
        return self.readings


def conditions(
    memory: AgentMemory,
    clock: Clock,
    settings: ConditionSettings = ConditionSettings(),  # noqa: B008 - it is frozen
    sensed: Sensed | None = None,
) -> ConditionReader:
    """Of a device that lacks nothing, unless the test has it."""
    return ConditionReader(settings, (sensed or Sensed()).read, lambda: memory.entered, clock)
