"""What an operator sets for the coordinator."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from protocol.ids import Name
from runtime.config import BrokerSettings, LogSettings


class EvaluationSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the coordinator judges a model itself.

    Attributes:
        data: held-out examples; None leaves judging to the devices.
    """

    data: Path | None = None


class CoordinatorSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a coordinator is told.

    Attributes:
        fleet: name of the fleet.
        broker: how to reach the broker.
        identity: folder with the fleet's root certificate and the coordinator's certificate and key.
        state: folder for models, results and what must survive a restart.
        plan: path of the plan file.
        name: which identity of the folder; None when it holds one.
        evaluation: how models are judged.
        shard: the part of the fleet's uploads that comes here.
        workers: processes that unmask; 0 is one per core.
        seed: of a catalog model's first weights and of the choice of devices; None is chance.
        start_when: devices on offer before the first round; None is the plan's minimum cohort.
        log: what is logged.
    """

    fleet: Name
    broker: BrokerSettings
    identity: Path
    state: Path
    plan: Path
    name: Name | None = None
    evaluation: EvaluationSettings = EvaluationSettings()
    shard: Name = "main"
    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    seed: Annotated[int, Meta(ge=0)] | None = None
    start_when: Annotated[int, Meta(ge=1)] | None = None
    log: LogSettings = LogSettings()
