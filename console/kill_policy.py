"""When the demo kills an agent: a pure choice from what the status topics say.

The moment that exercises recovery is after the device's shares have reached the others and before its update
is whole at the coordinator: the round collects, and the device says that it uploads.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from console.fleet_view import FleetView
from protocol.ids import DeviceId
from protocol.phases import Phase

FIRST_ROUND = 3
"""Late enough to be seen as an interruption, early enough that the slow links cost little time."""

_AT_LAST = frozenset({Phase.COLLECTING, Phase.CONFIRMING, Phase.RECOVERING})


@dataclass(frozen=True, slots=True)
class Kill:
    """One agent that is to vanish.

    Attributes:
        device: which.
        round: the first round in which it may.
    """

    device: DeviceId
    round: int


def schedule(devices: Sequence[DeviceId], drop: int, rounds: int, seed: int) -> list[Kill]:
    """Who is killed, each in a round of its own.

    Args:
        devices: of the fleet.
        drop: how many to kill; all of them at most.
        rounds: that are wanted; a short run starts to kill sooner.
        seed: of the choice.
    """
    victims = random.Random(seed).sample(list(devices), min(drop, len(devices)))  # noqa: S311 (repeatable)
    first = max(1, min(FIRST_ROUND, rounds - len(victims) + 1))
    return [Kill(device, first + index) for index, device in enumerate(victims)]


def is_moment(kill: Kill, view: FleetView, last_killed: int) -> bool:
    """Whether to kill now.

    Args:
        kill: the next one.
        view: what the status topics say.
        last_killed: the round in which an agent was killed last, 0 for none.
    """
    status = view.round
    if status is None or status.round < kill.round or status.round <= last_killed:
        return False
    device = view.devices.get(kill.device)
    if status.phase == Phase.COLLECTING and device is not None and device.state == "uploading":
        return True
    # It was missed in its own round: any moment after its shares were handed out will do.
    return status.round > kill.round and status.phase in _AT_LAST
