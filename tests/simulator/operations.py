"""What goes wrong, as data: one frozen struct for each kind of fault, and the schedule that holds them.

Times are virtual seconds since the beginning. A window is [start, start + seconds). A schedule is written and
read as JSON, and the same schedule gives the same run, byte for byte.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

COORDINATOR = "coordinator"
REGISTRAR = "registrar"

FLOOR = 3
"""Every device's own minimum cohort, and most plans'."""


class Operation(
    Struct, frozen=True, tag=True, tag_field="operation", kw_only=True, forbid_unknown_fields=True
):
    """The base of all faults.

    Attributes:
        start: when it begins.
        seconds: how long it lasts, or how long the actor is down.
    """

    start: float
    seconds: float = 0.0

    @property
    def end(self) -> float:
        """When its cause is over."""
        return self.start + self.seconds


class Noise(Operation, frozen=True, kw_only=True):
    """Messages to or from one client, or all, meet a fault.

    Attributes:
        kind: what happens to a message. "delay" holds it and all after it back, "reorder" lets later ones
            overtake it, "lost_ack" tells its sender that it was lost, "false_ack" loses it and tells nobody.
        client: whose; empty is everybody.
        rate: part of the messages, 0 to 1.
        salt: seeds the choice.
    """

    kind: Literal["drop", "duplicate", "delay", "reorder", "corrupt", "lost_ack", "false_ack"]
    client: str = ""
    rate: float = 0.2
    salt: int = 0


class Replay(Operation, frozen=True, kw_only=True):
    """Earlier messages are delivered again.

    Attributes:
        client: to whom.
        count: how many.
        salt: seeds the choice.
    """

    client: str
    count: int = 3
    salt: int = 0


class Cut(Operation, frozen=True, kw_only=True):
    """A client's connection breaks.

    Attributes:
        client: whose.
        half_open: nobody notices until the keepalives have run out.
    """

    client: str
    half_open: bool = False


class BrokerRestart(Operation, frozen=True, kw_only=True):
    """The broker is killed and comes back.

    Attributes:
        keep_state: retained messages and sessions survive.
    """

    keep_state: bool = True


class Crash(Operation, frozen=True, kw_only=True):
    """An actor is killed and restarted `seconds` later.

    Attributes:
        actor: who.
        step: before which of its steps since the beginning, from 1, if it comes to it before the time
            `start`; None is at that time.
        torn: the write under way leaves half a temporary file, and garbage behind append-only files.
        silent: its connection stays half open, as when the machine loses power.
    """

    actor: str
    step: int | None = None
    torn: bool = False
    silent: bool = False


class DiskFull(Operation, frozen=True, kw_only=True):
    """An actor's disk refuses what is written."""

    actor: str


class Slow(Operation, frozen=True, kw_only=True):
    """A device trains for this much longer.

    Attributes:
        device: who.
        by: virtual seconds.
    """

    device: str
    by: float


class ClockJump(Operation, frozen=True, kw_only=True):
    """An actor's wall clock is wrong by so many seconds; its monotonic clock is not.

    Attributes:
        actor: who.
        by: seconds, either way.
    """

    actor: str
    by: float


class Restore(Operation, frozen=True, kw_only=True):
    """The coordinator is killed, its state replaced by an older copy, and restarted.

    Attributes:
        copied: when the copy was made, before `start`.
        announced: the files are new ones, as a backup's are; else the old ones are rolled back, as a virtual
            machine's disk is.
    """

    copied: float
    announced: bool = False


class Clone(Operation, frozen=True, kw_only=True):
    """A second agent runs with a copy of a device's identity and state."""

    device: str


class Revoke(Operation, frozen=True, kw_only=True):
    """The registrar takes a device's certificate back; it goes on as if nothing were."""

    device: str


class Malice(Operation, frozen=True, kw_only=True):
    """A device lies, properly signed.

    Attributes:
        device: who.
        kind: about what.
        salt: seeds the garbage.
    """

    device: str
    kind: Literal[
        "second_keys", "garbage_shares", "garbage_upload", "second_upload", "garbage_reveal",
        "wrong_transcript", "not_finite", "silent", "high_order",
    ]  # fmt: skip
    salt: int = 0


class Lie(Operation, frozen=True, kw_only=True):
    """Whoever holds the coordinator's key tells some devices something else.

    Attributes:
        kind: about which decision.
        victims: which devices hear the lie.
        instead: they do not hear the truth; otherwise both, the lie first.
    """

    kind: Literal["manifest", "cohort", "share_set", "survivor_set", "second_survivor_set"]
    victims: tuple[str, ...]
    instead: bool = False


BRIEF = 6.0
"""Seconds of faults that every phase outlasts: the shortest has 10, and says everything again after 7."""

COMING_BACK = 3.1
"""Seconds after which the last client is back at a broker that was restarted."""

LONGEST_CRASH = 60.0
"""Seconds for which a coordinator may be away, and nobody be left out of its round."""

AnyOperation = (
    Noise
    | Replay
    | Cut
    | BrokerRestart
    | Crash
    | DiskFull
    | Slow
    | ClockJump
    | Restore
    | Clone
    | Revoke
    | Malice
    | Lie
)


class Private(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a plan's updates are written, where they are not written as they are.

    Attributes:
        mode: who adds noise.
        multiplier: the plan's noise multiplier; of no meaning in mode "none".
        spacing: a device takes part at most once in so many rounds.
        rounds: committed rounds after which the run is over, which its budget pays for.
        quantile: of adaptive clipping; None keeps the clip.
        bits: of a word.
        sketch: part of the coordinates that travels.
        min_cohort: fewest members of a round.
    """

    mode: Literal["none", "distributed", "central"] = "distributed"
    multiplier: float = 0.1
    spacing: int = 1
    rounds: int = 1000
    quantile: float | None = None
    bits: Literal[12, 16, 20, 24, 32] = 16
    sketch: float = 1.0
    min_cohort: int = FLOOR


class Schedule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One simulation.

    Attributes:
        seed: of everything that is not said here.
        devices: how many, 4 to 7.
        corrupt_fraction: the plan's gamma.
        latency: typical virtual seconds of one hop.
        training: typical virtual seconds of training.
        privacy: None is updates as they are, in a run without end.
        operations: the faults.
    """

    seed: int
    devices: int = 5
    corrupt_fraction: float = 1 / 3
    latency: float = 0.05
    training: float = 3.0
    privacy: Private | None = None
    operations: tuple[AnyOperation, ...] = ()

    @property
    def healed(self) -> float:
        """When the last fault that has a time is over."""
        timed = (one.end for one in self.operations if not isinstance(one, Crash) or one.step is None)
        return max(timed, default=0.0)

    @property
    def names(self) -> list[str]:
        """The devices."""
        return [f"d{index}" for index in range(1, self.devices + 1)]

    @property
    def revoked(self) -> list[str]:
        """Devices that are thrown out. With none there is no registrar; everybody keeps the list it has."""
        return [one.device for one in self.operations if isinstance(one, Revoke)]

    @property
    def is_honest(self) -> bool:
        """Whether no device lies, or speaks with two voices."""
        return not any(isinstance(one, Malice | Clone) for one in self.operations)

    @property
    def is_brief(self) -> bool:
        """Whether messages that are said again must bring every invited device into every sum."""
        timed = [one for one in self.operations if not isinstance(one, Crash)]
        ends = (one.end + (COMING_BACK if isinstance(one, BrokerRestart) else 0.0) for one in timed)
        span = max(ends, default=0.0) - min((one.start for one in timed), default=0.0)
        return span <= BRIEF and all(_harmless(one) for one in self.operations)

    def with_operations(self, operations: Sequence[AnyOperation]) -> "Schedule":
        """The same fleet with other faults."""
        return msgspec.structs.replace(self, operations=tuple(operations))

    def to_json(self) -> bytes:
        """For people and for `from_json`."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> "Schedule":
        """Read what `to_json` wrote.

        Raises:
            msgspec.ValidationError: it is something else.
        """
        return msgspec.json.decode(data, type=cls)


def _harmless(operation: AnyOperation) -> bool:
    match operation:
        case Noise(kind=kind):
            return kind != "delay"
        case Crash(actor=actor, seconds=seconds):
            return actor == COORDINATOR and seconds <= LONGEST_CRASH + 1.0
        case _:
            return isinstance(operation, Replay | BrokerRestart)
