"""What an operator sets on a device."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from models.datasets.source import DataSource
from models.training_limits import DEFAULT_LIMITS, TrainingLimits
from protocol.ids import Name
from protocol.plan import MAX_COHORT, PrivacyMode
from runtime.config import BrokerSettings, LogSettings


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
    """When the device is free.

    Attributes:
        charging: "auto" asks the power supply; true or false say so for good.
        unmetered: "unknown" until somebody says whether its network costs nothing per byte.
        idle_load: idle below this load average per core; None is always idle.
    """

    charging: Literal["auto"] | bool = "auto"
    unmetered: Literal["unknown"] | bool = "unknown"
    idle_load: Annotated[float, Meta(gt=0.0)] | None = None


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
        conditions: when the device is free.
        training: what training may take from the device.
        upload_bytes_per_second: how fast updates may leave; None is as fast as the network.
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
    log: LogSettings = LogSettings()
