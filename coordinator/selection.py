"""Which devices are invited to a round: uniformly at random among the eligible ones."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocol.ids import DeviceId
from protocol.plan import MAX_COHORT, Eligibility, Selection


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device on offer.

    Attributes:
        device: its name.
        idle: its load is below its own limit.
        charging: on mains power or charging; None when it does not know.
        unmetered: its network costs nothing per byte; None when it does not know.
    """

    device: DeviceId
    idle: bool = True
    charging: bool | None = None
    unmetered: bool | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Who is invited.

    Attributes:
        invited: devices, sorted, each once.
        wanted: members at which the cohort is full.
    """

    invited: tuple[DeviceId, ...]
    wanted: int


@dataclass(frozen=True, slots=True)
class NotEnough:
    """No round can start now.

    Attributes:
        reason: for the status page.
    """

    reason: str


def select(
    offers: Sequence[Candidate], selection: Selection, chance: Callable[[], float]
) -> Choice | NotEnough:
    """Choose a round's devices.

    wanted = count, or ceil(fraction * eligible), within [min_cohort, eligible]; invited = ceil(wanted *
    over_selection), within [wanted, eligible], and never above the largest cohort.

    Sampling is uniform and looks at nothing but eligibility, so that the mean estimates the eligible fleet's
    (Li et al. 2020, On the Convergence of FedAvg on Non-IID Data, section 3.2).

    Args:
        offers: devices on offer, each once.
        selection: the plan's table.
        chance: gives independent uniform numbers in [0, 1), such as `Entropy.uniform`.
    """
    eligible = sorted(one.device for one in offers if _is_eligible(one, selection.eligibility))
    if len(eligible) < selection.min_cohort:
        return NotEnough(
            f"{len(eligible)} of {len(offers)} devices on offer are eligible; "
            f"the plan wants {selection.min_cohort}"
        )
    most = min(len(eligible), MAX_COHORT)
    wanted = min(max(_wanted(selection, len(eligible)), selection.min_cohort), most)
    invited = min(math.ceil(wanted * selection.over_selection), most)
    shuffled = sorted(eligible, key=lambda _: chance())
    return Choice(tuple(sorted(shuffled[:invited])), wanted)


def _is_eligible(one: Candidate, rules: Eligibility) -> bool:
    """A device that does not know does not fulfil a condition; it counts its examples itself."""
    return (
        (one.idle or not rules.idle)
        and (one.charging is True or not rules.charging)
        and (one.unmetered is True or not rules.unmetered)
    )


def _wanted(selection: Selection, eligible: int) -> int:
    if selection.count is not None:
        return selection.count
    return math.ceil((selection.fraction or 1.0) * eligible)
