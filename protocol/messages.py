"""Everything that is said, one frozen type per message.

A message is MessagePack: an array whose first element is the type's tag. Its types carry the limits, so
that hostile bytes become one of these or are refused. Lists of devices are sorted and without repeats
where a rule says so; that is checked by the round, not here.

Device to coordinator: Offer, Accept, Decline, RoundKeys, SealedShares, UploadOffer, Confirmation, Reveal.
Coordinator to one device: Manifest, ShareDelivery, Grant, Stored.
Coordinator to all (decisions): Cohort, ShareSet, SurvivorSet, Confirmations, Extension, RoundEnded.
Coordinator to all, and to a later self: Pace. To a later self alone: HighWater.
"""

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from privacy.mode import Mode
from protocol.chunks import BlobRef
from protocol.eligibility import Facts
from protocol.errors import MAX_CAUSE, FrameError
from protocol.ids import Hash, Name, Order
from protocol.pace import Interval
from protocol.plan import MAX_COHORT, Deadlines, Delta, Duration, Eligibility, SecureAggregation, Training

MAX_FRAME = 1_048_576
"""Bytes of one signed frame: below every default packet limit we met (Mosquitto 2.1: 2,000,000)."""

MAX_REASON = 200
"""Characters of a reason: enough for a sentence, too few to fill a log."""

MAX_ENTRY = 4096
"""Bytes of one member's frame in a cohort: the largest certificate, two keys, and room."""

PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Share = Annotated[bytes, Meta(min_length=36, max_length=36)]
SealedPair = Annotated[bytes, Meta(min_length=88, max_length=88)]
"""AES-GCM of two shares: 2 * 36 bytes and a tag of 16."""
Reason = Annotated[str, Meta(max_length=MAX_REASON)]
SigmaParts = Annotated[int, Meta(ge=1, le=2**36)]
"""A standard deviation in parts of 2^-16 level, up to 2^20 levels: what can be drawn exactly."""
Members = Annotated[tuple[Name, ...], Meta(max_length=MAX_COHORT)]


class Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The base of all messages."""


class RoundMessage(Message, frozen=True):
    """A message of one round.

    Attributes:
        order: the round.
        transcript: the newest link of the transcript that its sender knew: T0 … T3.
    """

    order: Order
    transcript: Hash


# Device to coordinator.


class Offer(Message, frozen=True, tag="offer"):
    """A device is free to take part.

    Attributes:
        boot: how often its agent has started; ties a last will to its birth.
        seen: the newest round it knows of; the coordinator must go beyond it.
        facts: what the device knows of itself.
        engines: training engines it can run.
    """

    boot: Annotated[int, Meta(ge=0, lt=2**53)]
    seen: Order
    facts: Facts
    engines: Annotated[tuple[Name, ...], Meta(max_length=8)]


class Accept(RoundMessage, frozen=True, tag="accept"):
    """The device takes part; it fetches the artifact and trains. Bound to T0."""


class Decline(RoundMessage, frozen=True, tag="decline"):
    """The device does not take part, or no longer. Bound to T0."""

    reason: Reason


class RoundKeys(RoundMessage, frozen=True, tag="round-keys"):
    """The device has trained and joins with two fresh X25519 public keys. Bound to T0."""

    mask_key: PublicKey
    seal_key: PublicKey


class SealedShares(RoundMessage, frozen=True, tag="sealed-shares"):
    """One sealed pair of shares for each neighbour. Bound to T1.

    Attributes:
        commitment: hash of (T1, device, self-mask seed), so that a recovered seed can be checked.
        shares: (receiver, sealed pair), sorted by receiver.
    """

    commitment: Hash
    shares: Annotated[tuple[tuple[Name, SealedPair], ...], Meta(max_length=MAX_COHORT)]


class UploadOffer(RoundMessage, frozen=True, tag="upload-offer"):
    """The masked update is ready to be fetched, chunk by granted chunk. Bound to T2."""

    blob: BlobRef


class Confirmation(RoundMessage, frozen=True, tag="confirmation"):
    """The device saw this survivor set. Bound to T3; others verify its frame signature."""


class Reveal(RoundMessage, frozen=True, tag="reveal"):
    """One share for each neighbour in the share set. Bound to T3.

    The kind of each share follows from the survivor set alone: the neighbour's self-mask seed if it
    survived, its mask key if not. Asking for both kinds cannot be expressed.
    """

    shares: Annotated[tuple[tuple[Name, Share], ...], Meta(max_length=MAX_COHORT)]


# Coordinator to one device.


class Noise(Struct, frozen=True, forbid_unknown_fields=True):
    """What keeps the sum of a round from telling of one device, in the numbers that its cost follows from.

    Attributes:
        mode: who adds the noise: each device its part, or the coordinator.
        scale: levels per unit of the weights in the rotated update.
        sigma_parts: of the noise on each coordinate, in 2^-16 levels: a device's, or the coordinator's.
        metrics_half: the integer that stands for half of a metric's range.
        metrics_sigma_parts: as `sigma_parts`, on each metric.
        spacing: a device takes part at most once in so many rounds.
        participations: the most rounds of the run in which that lets one device take part.
        epsilon: what so many rounds cost a device at most, at `delta`, >= 0; devices hold the numbers to it.
        delta: see `epsilon`.
    """

    mode: Mode
    scale: Annotated[float, Meta(gt=0.0, le=1e300)]
    sigma_parts: SigmaParts
    metrics_half: Annotated[int, Meta(ge=1, lt=2**31)]
    metrics_sigma_parts: SigmaParts
    spacing: Annotated[int, Meta(ge=1, lt=2**32)]
    participations: Annotated[int, Meta(ge=1, lt=2**32)]
    epsilon: Annotated[float, Meta(ge=0.0, le=1e300)]
    delta: Delta


class Manifest(Message, frozen=True, tag="manifest"):
    """What one round is. Its hash is T0, to which everything later in the round is bound.

    Attributes:
        fleet: the fleet's name.
        order: the round.
        protocol: which secure aggregation; later protocols add their own parameters.
        plan: hash of the whole plan.
        revocations: number of the newest revocation list that the coordinator has; 0 is none.
        bundle: the training artifact.
        weights: the global model, flat little-endian float32.
        training: what to do on the device.
        eligibility: what the device must be.
        secure_aggregation: parameters of masking; its clip is that of this round.
        noise: of differential privacy; None without.
        min_cohort: fewer members or survivors than this and there is no sum.
        max_cohort: no more members than this; fixes the fixed-point scale.
        deadlines: phase durations.
        shard: where uploads of this round go.
    """

    fleet: Name
    order: Order
    protocol: Literal["pairwise"]
    plan: Hash
    revocations: Annotated[int, Meta(ge=0, lt=2**53)]
    bundle: BlobRef
    weights: BlobRef
    training: Training
    eligibility: Eligibility
    secure_aggregation: SecureAggregation
    noise: Noise | None
    min_cohort: Annotated[int, Meta(ge=3, le=MAX_COHORT)]
    max_cohort: Annotated[int, Meta(ge=3, le=MAX_COHORT)]
    deadlines: Deadlines
    shard: Name


class ShareDelivery(RoundMessage, frozen=True, tag="share-delivery"):
    """The sealed shares that a device's neighbours in the share set made for it. Bound to T2."""

    shares: Annotated[tuple[tuple[Name, SealedPair], ...], Meta(max_length=MAX_COHORT)]


class Grant(Message, frozen=True, tag="grant"):
    """Credit to send these chunks of an offered upload; also acknowledges the ones before."""

    order: Order
    blob: Hash
    chunks: Annotated[tuple[Annotated[int, Meta(ge=0, lt=2**32)], ...], Meta(max_length=64)]


class Stored(Message, frozen=True, tag="stored"):
    """The upload with this hash is in the sum."""

    order: Order
    blob: Hash


# Coordinator to all.


class Cohort(RoundMessage, frozen=True, tag="cohort"):
    """U1: the signed `RoundKeys` frames of all members, sorted by device. Bound to T0; chains to T1."""

    members: Annotated[tuple[Annotated[bytes, Meta(max_length=MAX_ENTRY)], ...], Meta(max_length=MAX_COHORT)]


class ShareSet(RoundMessage, frozen=True, tag="share-set"):
    """U2: members whose shares arrived, sorted. Bound to T1; chains to T2."""

    members: Members


class SurvivorSet(RoundMessage, frozen=True, tag="survivor-set"):
    """U3: members whose masked update is in the sum, sorted. Bound to T2; chains to T3."""

    members: Members


class Confirmations(RoundMessage, frozen=True, tag="confirmations"):
    """(device, signature of its `Confirmation` frame), sorted. Bound to T3."""

    signatures: Annotated[tuple[tuple[Name, Signature], ...], Meta(max_length=MAX_COHORT)]


class Extension(RoundMessage, frozen=True, tag="extension"):
    """The coordinator was away and is back in the same phase, whose end moves by as long. Bound to T0.

    Attributes:
        seconds: by which the round's phases have been extended, in all; never beyond `max_lifetime`.
    """

    seconds: Duration


class RoundEnded(Message, frozen=True, tag="round-ended"):
    """The round is over; devices erase its secrets.

    Attributes:
        order: the round.
        result: how it ended.
        reason: why it was aborted; empty when committed.
        retry_after: seconds until a device may offer itself again.
    """

    order: Order
    result: Literal["committed", "aborted"]
    reason: Reason
    retry_after: Annotated[float, Meta(ge=0.0, le=86_400.0)]


# Coordinator to a later self.


class Pace(Message, frozen=True, tag="pace"):
    """How often devices offer themselves. See `protocol.pace`.

    Attributes:
        order: the newest round that was opened; an older one's pace is not believed any more.
        interval: seconds between the offers of one device.
    """

    order: Order
    interval: Interval


class HighWater(Message, frozen=True, tag="high-water"):
    """How far the coordinator has come. One that starts on older state finds out by it.

    Attributes:
        order: the newest round that was opened.
        decisions: announced in it so far.
    """

    order: Order
    decisions: Annotated[int, Meta(ge=0, lt=2**32)]


FromDevice = Offer | Accept | Decline | RoundKeys | SealedShares | UploadOffer | Confirmation | Reveal
ToDevice = Manifest | ShareDelivery | Grant | Stored
Decision = Cohort | ShareSet | SurvivorSet | Confirmations | Extension | RoundEnded
FromCoordinator = ToDevice | Decision | Pace | HighWater

DECISION_TOPICS: dict[type[Message], str] = {
    Cohort: "cohort",
    ShareSet: "share-set",
    SurvivorSet: "survivor-set",
    Confirmations: "confirmations",
    Extension: "extension",
    RoundEnded: "ended",
}
"""The last topic level of each decision."""

_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()
_from_device: msgspec.msgpack.Decoder[FromDevice] = msgspec.msgpack.Decoder(FromDevice)
_from_coordinator: msgspec.msgpack.Decoder[FromCoordinator] = msgspec.msgpack.Decoder(FromCoordinator)


def encode(message: Message) -> bytes:
    """Encode a message; equal messages give equal bytes."""
    return _encoder.encode(message)


def decode_from_device(body: bytes) -> FromDevice:
    """Decode what a device said.

    Raises:
        FrameError: the bytes are no such message or exceed a limit.
    """
    return _decode(_from_device, body)


def decode_from_coordinator(body: bytes) -> FromCoordinator:
    """Decode what a coordinator said.

    Raises:
        FrameError: the bytes are no such message or exceed a limit.
    """
    return _decode(_from_coordinator, body)


def _decode(decoder: msgspec.msgpack.Decoder[_T], body: bytes) -> _T:
    try:
        return decoder.decode(body)
    # msgspec raises plain UnicodeDecodeError (a ValueError) for some bad strings.
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        raise FrameError(f"not a message of this protocol: {str(error)[:MAX_CAUSE]}") from error
