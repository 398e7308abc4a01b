"""What is said between a program and its training worker: length-prefixed MessagePack, both ways.

    frame = length (4 bytes, big-endian) ‖ MessagePack of one Call, or of one Answer

One call, one answer, in turn.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from models.bounds import MAX_BUNDLE_BYTES, MAX_PARAMETERS
from protocol.ids import Hash
from protocol.plan import Training

LENGTH = 4
"""Bytes of a frame's length prefix."""

MAX_FRAME_BYTES = 8 * MAX_PARAMETERS + MAX_BUNDLE_BYTES + 65_536
"""A call holds the weights, shared and private, one bundle and little else."""

OUT_OF_MEMORY_EXIT = 12
"""Exit code of a worker that had no memory left to answer with; the number of ENOMEM."""

Weights = Annotated[bytes, Meta(max_length=4 * MAX_PARAMETERS)]
"""Raw little-endian float32."""


class Job(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both calls need.

    Attributes:
        bundle_id: SHA-256 that `bundle` must have.
        bundle: the encoded bundle with the engine's files; None when this worker was sent it before.
        engine: which one is to load it.
        weights: of the global model.
        private: the device's own parameters; None begins with the bundle's.
        dataset: path of the data file.
        holdout: as for `load_dataset`.
    """

    bundle_id: Hash
    bundle: Annotated[bytes, Meta(max_length=MAX_BUNDLE_BYTES)] | None
    engine: str
    weights: Weights
    private: Weights | None
    dataset: str
    holdout: Annotated[float, Meta(gt=0.0, le=1.0)]


class Train(Job, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Evaluate the weights on the held-out part, then train them on the rest.

    Attributes:
        training: settings of the local training.
        seed: of sampling and shuffling.
    """

    training: Training
    seed: Annotated[int, Meta(ge=0)]


class Evaluate(Job, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Evaluate the weights on the held-out part."""


class EvaluateResult(Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """How good the received weights are on the held-out part.

    Attributes:
        evaluated: number of held-out examples.
        loss_sum: sum of their losses.
        correct: how many were predicted right.
        seconds: time the worker took.
    """

    evaluated: int
    loss_sum: float
    correct: int
    seconds: float


class TrainResult(Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """A local model, and how good the *received* weights were on the held-out part before training.

    Attributes:
        weights: the local model.
        private: the device's own parameters after training; empty when the model has none.
        examples: distinct examples trained on.
        training_loss: mean over all steps.
        evaluated: number of held-out examples.
        loss_sum: sum of their losses under the received weights.
        correct: how many the received weights predicted right.
        seconds: time the worker took.
    """

    weights: Weights
    private: Weights
    examples: int
    training_loss: float
    evaluated: int
    loss_sum: float
    correct: int
    seconds: float


class WorkerFailure(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The call failed; the worker lives on.

    Attributes:
        kind: as in `TrainingFailedError`.
        message: cause and fix, for people.
    """

    kind: str
    message: str


Call = Train | Evaluate
Answer = TrainResult | EvaluateResult | WorkerFailure

CALLS: msgspec.msgpack.Decoder[Call] = msgspec.msgpack.Decoder(Call)
ANSWERS: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_ENCODER = msgspec.msgpack.Encoder()


def encode_frame(message: Call | Answer) -> bytes:
    """One frame, length first."""
    buffer = bytearray()
    _ENCODER.encode_into(message, buffer, LENGTH)
    buffer[:LENGTH] = (len(buffer) - LENGTH).to_bytes(LENGTH, "big")
    return bytes(buffer)
