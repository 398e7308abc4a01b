"""The coordinator's phases, one class each: what is known in it, whom it awaits, what it makes of an answer.

A phase never decides that it is over; `protocol.coordinator_round` does, asking it `silent` and `shortage`.
"""

from protocol.coordinator_phases.collecting import SUM_INTERVAL, Collecting
from protocol.coordinator_phases.joining import Inviting, Keying, Sharing
from protocol.coordinator_phases.phase import LAST_AWAITED, PhaseState
from protocol.coordinator_phases.unmasking import Committing, Confirming, Recovering

__all__ = [
    "LAST_AWAITED",
    "SUM_INTERVAL",
    "Collecting",
    "Committing",
    "Confirming",
    "Inviting",
    "Keying",
    "PhaseState",
    "Recovering",
    "Sharing",
]
