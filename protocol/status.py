"""What people and tools may read: retained JSON on the status topics, one frozen type per topic.

Information only; devices act on signed frames alone. Numbers are of the whole cohort, never of one device.
"""

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from protocol.errors import MAX_CAUSE, FrameError
from protocol.ids import DeviceId
from protocol.messages import MAX_REASON
from protocol.plan import PrivacyMode

MAX_STATUS = 65_536
"""Bytes of one status."""

CoordinatorState = Literal["online", "finished", "offline", "lost"]
BrokerState = Literal["online", "offline", "lost"]
DeviceState = Literal["idle", "training", "uploading", "sleeping", "offline", "lost"]
Why = Annotated[str, Meta(max_length=MAX_REASON)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
"""JSON knows numbers of thousands of digits, and the programs remember these."""


class CoordinatorStatus(Struct, frozen=True):
    """Presence of the coordinator, on `…/coordinator`.

    Attributes:
        state: "finished" after the plan's stopping rule, "lost" by its last will.
        version: of the program.
        epoch: raised when its state was found to be a copy or old.
        devices: on offer now.
        why: what it waits for, or why it finished.
    """

    state: CoordinatorState
    version: str = ""
    epoch: Count = 0
    devices: int = 0
    why: Why = ""


class RoundStatus(Struct, frozen=True):
    """The round that is open now, on `…/round`.

    Attributes:
        round: its number.
        phase: as in `protocol.phases.Phase`.
        invited: devices invited; then how many accepted, trained, shared, uploaded, confirmed, revealed.
        needed: fewest answers with which the round can go on.
        privacy: who adds noise to the sum.
        deadline_s: seconds until the phase ends at the latest; None while the model is stored.
        reason: why it was aborted.
    """

    round: int
    phase: str
    invited: int
    accepted: int
    trained: int
    shared: int
    uploaded: int
    confirmed: int
    revealed: int
    needed: int
    deadline_s: float | None
    privacy: PrivacyMode = "none"
    reason: Why = ""


class RoundResult(Struct, frozen=True):
    """How a round ended, on `…/rounds/<n>`.

    Attributes:
        round: its number.
        result: committed or aborted.
        survivors: updates in the sum.
        dropouts: members that vanished after sharing, whose masks were recovered.
        loss: of the model that the devices received, on their own held-out data, from the masked sums.
        accuracy: likewise.
        metrics_noise: standard deviation of the noise on accuracy and on loss / loss_ceiling; None without.
        evaluated_loss: of the new model, on the coordinator's own data, if it has any.
        evaluated_accuracy: likewise.
        privacy: who added noise to the sum; all figures from it, loss and accuracy too, carry it then.
        epsilon: what the run has cost so far the device that it cost most, at `delta`; None without privacy,
            and where a sum of the run was released without noise.
        delta: see `epsilon`.
        clip: L2 bound of an update in this round, in units of the weights.
        clipped: part of the survivors whose update the L2 bound cut.
        saturated: mean part of coordinates that the coordinate limit cut; of a rotated sum, the part of its
            coordinates near the ring's edge.
        seconds: how long the round took.
        bytes_up: of one device's masked update.
        model: "sha256:…" of the new weights; empty when aborted.
        reason: why it was aborted.
    """

    round: int
    result: Literal["committed", "aborted"]
    survivors: int = 0
    dropouts: int = 0
    loss: float | None = None
    accuracy: float | None = None
    metrics_noise: float | None = None
    evaluated_loss: float | None = None
    evaluated_accuracy: float | None = None
    privacy: PrivacyMode = "none"
    epsilon: float | None = None
    delta: float | None = None
    clip: float | None = None
    clipped: float | None = None
    saturated: float | None = None
    seconds: float = 0.0
    bytes_up: int = 0
    model: str = ""
    reason: Why = ""


class ModelStatus(Struct, frozen=True):
    """The newest model, on `…/model`.

    Attributes:
        round: that made it, 0 for the initial model.
        sha256: of its flat float32 weights, hexadecimal.
        parameters: how many.
    """

    round: int
    sha256: str
    parameters: int


class DeviceStatus(Struct, frozen=True):
    """Presence of one device, on `…/devices/<id>`.

    Attributes:
        state: "idle" means on offer; "sleeping" that it takes part in nothing now; "lost" by its last will.
        why: in words; why it sleeps; of an idle device why it declined its last round ("declined: …") or how
            that was aborted, else what is not as free as it could be.
        boot: how often its agent has started; a will of an earlier boot says nothing of this one.
    """

    state: DeviceState
    why: Why = ""
    boot: Count = 0


class BrokerStatus(Struct, frozen=True):
    """What a broker's guard says of it, on `…/broker`.

    Attributes:
        state: of the guard; "lost" by its last will.
        revocations: number of the revocation list that the broker goes by; 0 for none.
        why: what keeps it from a newer list.
    """

    state: BrokerState
    revocations: Count = 0
    why: Why = ""


Status = CoordinatorStatus | RoundStatus | RoundResult | ModelStatus | DeviceStatus | BrokerStatus
StatusT = TypeVar("StatusT", bound=Status)

_KINDS: dict[str, type[Status]] = {
    "coordinator": CoordinatorStatus,
    "round": RoundStatus,
    "rounds": RoundResult,
    "model": ModelStatus,
    "devices": DeviceStatus,
    "broker": BrokerStatus,
}


def encode_status(status: Status) -> bytes:
    """UTF-8 JSON."""
    return msgspec.json.encode(status)


def decode_status(payload: bytes, kind: type[StatusT]) -> StatusT:
    """Read a status.

    Raises:
        FrameError: too long, or not this kind of status.
    """
    if len(payload) > MAX_STATUS:
        raise FrameError(f"a status of {len(payload)} bytes is longer than {MAX_STATUS}")
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError(f"not a {kind.__name__}: {str(error)[:MAX_CAUSE]}") from error


def read_status(topic: str, payload: bytes) -> Status:
    """Read whatever a status topic `fl/1/<fleet>/<kind>[/…]` carries.

    Raises:
        FrameError: an unknown topic, or not the status that belongs there.
    """
    level = topic.split("/")[3:4]
    kind = _KINDS.get(level[0]) if level else None
    if kind is None:
        raise FrameError(f"{topic} is no status topic")
    return decode_status(payload, kind)


def device_of(topic: str) -> DeviceId:
    """The device a presence topic is about."""
    return DeviceId(topic.rpartition("/")[2])
