"""Which devices are invited to a round: uniformly at random among the eligible ones that privacy lets in."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from coordinator.ledger import UNLIMITED, Limits
from protocol.eligibility import Facts, Lack, lacks
from protocol.ids import DeviceId
from protocol.messages import MAX_REASON
from protocol.plan import MAX_COHORT, Selection

NOTHING_KNOWN = Facts()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device on offer.

    Attributes:
        device: its name.
        facts: what it knows of itself.
        enrolled: for how long it has been, in seconds.
    """

    device: DeviceId
    facts: Facts = NOTHING_KNOWN
    enrolled: float = math.inf


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
        reason: for the status page, at most `MAX_REASON` characters.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class BudgetSpent(NotEnough):
    """No round can start with any devices that are known: too few can pay for one. Waiting does not help."""


def select(
    offers: Sequence[Candidate],
    selection: Selection,
    chance: Callable[[], float],
    limits: Limits = UNLIMITED,
) -> Choice | NotEnough:
    """Choose a round's devices.

    free = eligible devices that can pay for the round and do not rest; wanted = count, or ceil(fraction *
    free), within [min_cohort, free]; invited = ceil(wanted * over_selection), within [wanted, free], and
    never above the largest cohort.

    A cohort of everybody would leave nobody rested for the next round, and rest is counted in rounds: the run
    would stand still. So wanted is at most 1 / spacing of those that can pay, and never below min_cohort.

    Sampling is uniform and looks at nothing else, so that the mean estimates the eligible fleet's (Li et al.
    2020, On the Convergence of FedAvg on Non-IID Data, section 3.2).

    Args:
        offers: devices on offer, each once.
        selection: the plan's table.
        chance: gives independent uniform numbers in [0, 1), such as `Entropy.uniform`.
        limits: what privacy asks.
    """
    needed = selection.min_cohort
    lacking = {one.device: _lacks(one, selection) for one in offers}
    eligible = [device for device, found in lacking.items() if not found]
    if len(eligible) < needed:
        text = f"{len(eligible)} of {len(offers)} devices on offer are eligible; the plan wants {needed}"
        return NotEnough((text + _counted(lacking.values()))[:MAX_REASON])
    solvent = [device for device in eligible if limits.affords(device)]
    if len(solvent) < needed:
        return _too_few_pay(offers, len(solvent), needed, limits)
    free = sorted(device for device in solvent if not limits.rests(device))
    if len(free) < needed:
        return _too_many_rest(len(solvent) - len(free), len(solvent), needed, limits.spacing)
    most = min(len(free), MAX_COHORT)
    wanted = min(_wanted(selection, len(free)), len(solvent) // limits.spacing)
    wanted = min(max(wanted, needed), most)
    invited = min(math.ceil(wanted * selection.over_selection), most)
    shuffled = sorted(free, key=lambda _: chance())
    return Choice(tuple(sorted(shuffled[:invited])), wanted)


def _too_few_pay(offers: Sequence[Candidate], solvent: int, needed: int, limits: Limits) -> NotEnough:
    """Devices that are away may have budget left; only when they would not do either, it is over."""
    known = {one.device for one in offers} | limits.ledger.accounts.keys()
    payers = sum(map(limits.affords, known))
    if payers >= needed:
        return NotEnough(
            f"{solvent} of the eligible devices on offer have privacy budget left; the plan wants {needed}"
        )
    return BudgetSpent(
        f"the privacy budget is spent: {payers} of {len(known)} known devices have enough left for a round; "
        f"the plan wants {needed}"
    )


def _too_many_rest(resting: int, solvent: int, needed: int, spacing: int) -> NotEnough:
    return NotEnough(
        f"{resting} of {solvent} eligible devices rest, because a device takes part in one of {spacing} "
        f"rounds (privacy.spacing); the plan wants {needed} that do not, so it needs "
        f"{spacing * needed} devices on offer"
    )


def _lacks(one: Candidate, selection: Selection) -> tuple[Lack, ...]:
    found = lacks(one.facts, selection.eligibility)
    return found if one.enrolled >= selection.min_enrolled_age else (*found, Lack("enrolled lately"))


def _counted(lacking: Iterable[tuple[Lack, ...]]) -> str:
    """How many devices each condition keeps out, most first; one that lacks two things counts in both."""
    counts = Counter(lack.what for found in lacking for lack in found)
    said = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    return f" ({said})" if said else ""


def _wanted(selection: Selection, eligible: int) -> int:
    if selection.count is not None:
        return selection.count
    return math.ceil((selection.fraction or 1.0) * eligible)
