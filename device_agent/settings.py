"""What an operator sets on a device."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from models.datasets.source import DataSource
from models.training_limits import DEFAULT_LIMITS, TrainingLimits
from protocol.ids import Name
from protocol.plan import (
    MAX_COHORT,
    MAX_RECENT,
    Celsius,
    Eligibility,
    MegabytesAsked,
    Percent,
    PrivacyMode,
    Tags,
)
from runtime.config import BrokerSettings, LogSettings

Window = Annotated[
    str,
    Meta(
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$",
        description='hours such as "22:00-06:00"',
    ),
]


class Floors(Struct, frozen=True, forbid_unknown_fields=True):
    """What this device insists on, whatever the plan says.

    Attributes:
        min_cohort: it reveals nothing in a round of fewer devices.
        corrupt_fraction: it declines a plan that assumes fewer corrupt devices than this part.
        min_enrolled_age: seconds for which the other members must have been enrolled: a registrar that works
            with the coordinator then has to prepare the devices that it invents.
    """

    min_cohort: Annotated[int, Meta(ge=3, le=MAX_COHORT)] = 5
    corrupt_fraction: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.3
    min_enrolled_age: Annotated[float, Meta(ge=0.0, le=1e9)] = 0.0


class PrivacySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What the privacy of this device's data may cost, whatever the plan says.

    Attributes:
        weakest: promise with which it takes part. "none": any; "central": there is noise, be it the trusted
            coordinator's; "distributed": devices add it themselves.
        epsilon: all it spends in its whole life; None is no limit.
        delta: at which epsilon is read.
    """

    weakest: PrivacyMode = "none"
    epsilon: Annotated[float, Meta(gt=0.0, le=1e6)] | None = None
    delta: Annotated[float, Meta(ge=1e-100, le=1e-2)] = 1e-6

    def __post_init__(self) -> None:
        if self.epsilon is not None and self.weakest == "none":
            raise ValueError(
                "epsilon is a limit that rounds without noise would pass by; "
                'write weakest = "central" or "distributed" too'
            )


class ConditionSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """When the device takes part, whatever the plan says; while one of these fails it sleeps.

    Attributes:
        charging: "auto" asks the power supply; true or false say so for good.
        unmetered: whether its network costs nothing per byte; "auto" asks NetworkManager.
        idle_load: idle below this load average per core; None is always idle.
        tags: what plans may select it by.
        requires: it sleeps unless it is all of these; a network that nobody knows counts as metered.
        min_battery: percent of charge that it has left at least, unless it is charging.
        max_temperature: of its hottest part, in degrees Celsius.
        max_pressure: percent of the time in which programs wait for the processor or memory, at most.
        min_free_memory_mb: memory that programs could take, in MiB, at least.
        min_free_disk_mb: room where its state is, in MiB, at least.
        min_rest: seconds since it entered a round, at least.
        windows: hours of its local time in which it takes part, "22:00-06:00"; none is always.
    """

    charging: Literal["auto"] | bool = "auto"
    unmetered: Literal["auto"] | bool = "auto"
    idle_load: Annotated[float, Meta(gt=0.0)] | None = None
    tags: Tags = ()
    requires: tuple[Literal["idle", "charging", "unmetered"], ...] = ()
    min_battery: Percent | None = None
    max_temperature: Celsius | None = None
    max_pressure: Annotated[float, Meta(ge=0.0, le=100.0)] | None = None
    min_free_memory_mb: MegabytesAsked | None = None
    min_free_disk_mb: MegabytesAsked | None = None
    min_rest: Annotated[int, Meta(ge=0, le=MAX_RECENT)] = 0
    windows: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        if "idle" in self.requires and self.idle_load is None:
            raise ValueError(
                'requires holds "idle", which a device always is without idle_load; write idle_load = 0.5 too'
            )

    @property
    def rules(self) -> Eligibility:
        """Those that a plan could have, too; but for `idle`, of which the device itself knows the numbers."""
        return Eligibility(
            charging="charging" in self.requires,
            unmetered="unmetered" in self.requires,
            min_battery=self.min_battery,
            max_temperature=self.max_temperature,
            min_free_memory_mb=self.min_free_memory_mb,
            min_free_disk_mb=self.min_free_disk_mb,
            min_rest=self.min_rest,
        )


class AgentSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything an agent is told.

    Attributes:
        fleet: name of the fleet.
        broker: how to reach the broker.
        identity: folder with the fleet's root certificate and the device's certificate and key.
        state: folder for what must survive a restart.
        data: where the examples are.
        name: which identity of the folder; None when it holds one.
        floors: what the device insists on.
        privacy: what its privacy may cost.
        conditions: when the device takes part.
        training: what training may take from the device.
        upload_bytes_per_second: how fast updates may leave; None is as fast as the network.
        renew_seconds: how long after its last round the agent begins anew, in the same process, to give back
            what a round's libraries took; 0 is never.
        log: what is logged.
    """

    fleet: Name
    broker: BrokerSettings
    identity: Path
    state: Path
    data: DataSource
    name: Name | None = None
    floors: Floors = Floors()
    privacy: PrivacySettings = PrivacySettings()
    conditions: ConditionSettings = ConditionSettings()
    training: TrainingLimits = DEFAULT_LIMITS
    upload_bytes_per_second: Annotated[float, Meta(gt=0.0)] | None = None
    renew_seconds: Annotated[float, Meta(ge=0.0, le=1e9)] = 300.0
    log: LogSettings = LogSettings()
