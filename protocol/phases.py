"""The legal moves of a round, as two tables; the diagrams in PROTOCOL.md are drawn from them.

Theory of operation. The coordinator's round goes through seven phases; each has a deadline and a quorum
and ends in the next phase or in `aborted`. A device's round follows the coordinator's decisions; whatever
is missing or wrong ends in `left`, which costs the others at most one recovery.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar


class Phase(StrEnum):
    """The coordinator's phases."""

    INVITING = "inviting"
    KEYING = "keying"
    SHARING = "sharing"
    COLLECTING = "collecting"
    CONFIRMING = "confirming"
    RECOVERING = "recovering"
    COMMITTING = "committing"
    COMMITTED = "committed"
    ABORTED = "aborted"


class Move(StrEnum):
    """Why the coordinator leaves a phase."""

    QUORUM = "quorum reached"
    TOO_FEW = "too few"
    FAILED = "failed"


COORDINATOR_MOVES: Mapping[tuple[Phase, Move], Phase] = {
    (Phase.INVITING, Move.QUORUM): Phase.KEYING,
    (Phase.INVITING, Move.TOO_FEW): Phase.ABORTED,
    (Phase.INVITING, Move.FAILED): Phase.ABORTED,
    (Phase.KEYING, Move.QUORUM): Phase.SHARING,
    (Phase.KEYING, Move.TOO_FEW): Phase.ABORTED,
    (Phase.KEYING, Move.FAILED): Phase.ABORTED,
    (Phase.SHARING, Move.QUORUM): Phase.COLLECTING,
    (Phase.SHARING, Move.TOO_FEW): Phase.ABORTED,
    (Phase.SHARING, Move.FAILED): Phase.ABORTED,
    (Phase.COLLECTING, Move.QUORUM): Phase.CONFIRMING,
    (Phase.COLLECTING, Move.TOO_FEW): Phase.ABORTED,
    (Phase.COLLECTING, Move.FAILED): Phase.ABORTED,
    (Phase.CONFIRMING, Move.QUORUM): Phase.RECOVERING,
    (Phase.CONFIRMING, Move.TOO_FEW): Phase.ABORTED,
    (Phase.CONFIRMING, Move.FAILED): Phase.ABORTED,
    (Phase.RECOVERING, Move.QUORUM): Phase.COMMITTING,
    (Phase.RECOVERING, Move.TOO_FEW): Phase.ABORTED,
    (Phase.RECOVERING, Move.FAILED): Phase.ABORTED,
    (Phase.COMMITTING, Move.QUORUM): Phase.COMMITTED,
    (Phase.COMMITTING, Move.FAILED): Phase.ABORTED,
}


class Stage(StrEnum):
    """A device's place in the round."""

    INVITED = "invited"
    TRAINING = "training"
    KEYED = "keyed"
    SHARED = "shared"
    UPLOADING = "uploading"
    CONFIRMED = "confirmed"
    REVEALED = "revealed"
    DONE = "done"
    LEFT = "left"


class Step(StrEnum):
    """Why a device goes on."""

    ACCEPT = "accepts"
    TRAINED = "has trained"
    COHORT = "valid cohort"
    SHARE_SET = "valid share set"
    SURVIVOR_SET = "valid survivor set"
    CONFIRMATIONS = "enough confirmations"
    ENDED = "round ended"
    LEAVE = "leaves"


DEVICE_MOVES: Mapping[tuple[Stage, Step], Stage] = {
    (Stage.INVITED, Step.ACCEPT): Stage.TRAINING,
    (Stage.INVITED, Step.LEAVE): Stage.LEFT,
    (Stage.TRAINING, Step.TRAINED): Stage.KEYED,
    (Stage.TRAINING, Step.ENDED): Stage.DONE,
    (Stage.TRAINING, Step.LEAVE): Stage.LEFT,
    (Stage.KEYED, Step.COHORT): Stage.SHARED,
    (Stage.KEYED, Step.ENDED): Stage.DONE,
    (Stage.KEYED, Step.LEAVE): Stage.LEFT,
    (Stage.SHARED, Step.SHARE_SET): Stage.UPLOADING,
    (Stage.SHARED, Step.ENDED): Stage.DONE,
    (Stage.SHARED, Step.LEAVE): Stage.LEFT,
    (Stage.UPLOADING, Step.SURVIVOR_SET): Stage.CONFIRMED,
    (Stage.UPLOADING, Step.ENDED): Stage.DONE,
    (Stage.UPLOADING, Step.LEAVE): Stage.LEFT,
    (Stage.CONFIRMED, Step.CONFIRMATIONS): Stage.REVEALED,
    (Stage.CONFIRMED, Step.ENDED): Stage.DONE,
    (Stage.CONFIRMED, Step.LEAVE): Stage.LEFT,
    (Stage.REVEALED, Step.ENDED): Stage.DONE,
    (Stage.REVEALED, Step.LEAVE): Stage.LEFT,
}


PlaceT = TypeVar("PlaceT", bound=StrEnum)
WhyT = TypeVar("WhyT", bound=StrEnum)


def mermaid(moves: Mapping[tuple[PlaceT, WhyT], PlaceT], start: PlaceT) -> str:
    """A Mermaid state diagram of a table, one line per move."""
    arrows = [f"    {here} --> {there}: {why}" for (here, why), there in moves.items()]
    ends: list[str] = sorted(set(moves.values()) - {here for here, _ in moves})
    return "\n".join(
        ["stateDiagram-v2", f"    [*] --> {start}", *arrows, *(f"    {end} --> [*]" for end in ends)]
    )
