"""What the plan's privacy table means for the run: who may take part, what is told, the next clip."""

from dataclasses import replace
from typing import TypedDict

from coordinator.ledger import UNLIMITED, Limits, PrivacyLedger, Release, release_of
from coordinator.state import CoordinatorState
from coordinator.stored import NewestRound, stored_message
from privacy.accounting import epsilon
from privacy.adaptive_clipping import ClipRule
from protocol.messages import Confirmations, Manifest, Message
from protocol.noise import budget_of
from protocol.plan import Plan, PrivacyMode


class Spent(TypedDict, total=False):
    """What people are told with a result; attributes of `RoundResult`."""

    privacy: PrivacyMode
    epsilon: float
    delta: float


def next_rounds(limits: Limits) -> list[int]:
    """Numbers that the next round may have: the one that follows, and each at which a device has rested.

    Rest is counted in rounds: where all devices on offer rest, numbers are left out, or nothing would go on.

    Args:
        limits: of the round that follows.
    """
    rested = {account.last + limits.spacing for account in limits.ledger.accounts.values()}
    return [limits.round, *sorted(number for number in rested if number > limits.round)]


def limits_of(plan: Plan, ledger: PrivacyLedger, number: int) -> Limits:
    """Who may take part in a round of this number."""
    privacy = plan.privacy
    if privacy.mode == "none":
        return replace(UNLIMITED, round=number)
    budget = budget_of(privacy, plan.stopping.rounds)
    return Limits(ledger, budget.round, budget.run, number, privacy.spacing)


def spent_after(plan: Plan, state: CoordinatorState, release: Release | None) -> Spent:
    """What the run has cost once its newest round is over.

    Nothing is said without privacy, and no epsilon where a sum of this run was once released without noise.
    """
    privacy = plan.privacy
    if privacy.mode == "none":
        return {}
    if state.noiseless:
        return {"privacy": privacy.mode, "delta": privacy.delta}
    after = state.ledger if release is None else state.ledger.charged(release, state.round)
    return {"privacy": privacy.mode, "epsilon": epsilon(after.worst, privacy.delta), "delta": privacy.delta}


def clip_now(plan: Plan, kept: float | None) -> float | None:
    """The clip that the last round left, where it follows the updates; None where it is the plan's."""
    return None if plan.privacy.adaptive_clipping.quantile is None else kept


def next_clip(plan: Plan, clip: float, clipped_rate: float) -> float | None:
    """The clip of the next round, where it follows the updates; None where it stays the plan's."""
    rule = plan.privacy.adaptive_clipping
    if rule.quantile is None:
        return None
    return ClipRule(rule.quantile, rule.learning_rate).next_clip(clip, clipped_rate)


def release_of_kept(kept: NewestRound) -> Release | None:
    """What an open round without a half cost: where shares were asked for, some may have come."""
    decisions = [stored_message(frame, Message) for frame in kept.decisions]
    asked = any(isinstance(decision, Confirmations) for decision in decisions)
    return release_of(stored_message(kept.opening.manifest, Manifest), decisions, unmasked=asked)
