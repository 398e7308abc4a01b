"""What the oracle is shown of the disks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coordinator.ledger import Account
from device_agent.ledger import Charge
from protocol.ids import Order


@dataclass(frozen=True)
class Durable:
    """What the coordinator's disk says of its run.

    Attributes:
        weights: of the newest model, float32 (d,).
        committed: rounds in its history that were committed.
        results: committed rounds in its results.
        clip: of the next round; None is the plan's.
        accounts: what each device has paid.
        closed: rounds that are over, and whether they were committed.
    """

    weights: NDArray[np.float32]
    committed: int = 0
    results: int = 0
    clip: float | None = None
    accounts: Mapping[str, Account] = field(default_factory=dict)
    closed: Mapping[Order, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Disks:
    """What is durable at the moment it is asked.

    Attributes:
        records: whether a frame of the coordinator is.
        holds: whether an update is at the coordinator, by its hash.
        entered: the newest round that a device remembers.
        ledger: what a device has been charged with.
        revoked: of whom the coordinator knows that they were revoked.
    """

    records: Callable[[bytes], bool]
    holds: Callable[[bytes], bool]
    entered: Callable[[str], Order]
    ledger: Callable[[str], Sequence[Charge]]
    revoked: Callable[[], frozenset[str]]
