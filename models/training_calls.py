"""What is said between a program and its training worker: length-prefixed MessagePack, both ways.

    frame = length (4 bytes, big-endian) ‖ MessagePack of one Call, or of one Answer

One call, one answer, in turn.
"""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from models.bounds import MAX_BUNDLE_BYTES, MAX_PARAMETERS
from models.datasets.schema import DataSchema
from models.datasets.source import DataSource
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
    """What training and evaluating need.

    Attributes:
        bundle_id: SHA-256 that `bundle` must have.
        bundle: the encoded bundle with the engine's files; None when this worker was sent it before.
        engine: which one is to load it.
        weights: of the global model.
        private: the device's own parameters; None begins with the bundle's.
        source: where the examples are.
    """

    bundle_id: Hash
    bundle: Annotated[bytes, Meta(max_length=MAX_BUNDLE_BYTES)] | None
    engine: str
    weights: Weights
    private: Weights | None
    source: DataSource


class Train(Job, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Evaluate the weights on the held-out part, then train them on the rest.

    Attributes:
        training: settings of the local training.
        seed: of sampling and shuffling.
    """

    training: Training
    seed: Annotated[int, Meta(ge=0)]


class Evaluate(Job, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Evaluate the weights on the held-out part, on as many examples of it as a plan uses by default.

    Attributes:
        whole: on all of an `.npz` file instead, as nobody trains on it.
    """

    whole: bool = False


class Describe(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Read all the data, and say what is there.

    Attributes:
        source: where the examples are.
    """

    source: DataSource


class DescribeResult(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """What is there.

    Attributes:
        schema: counts and shapes.
    """

    schema: DataSchema


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
        steps: of the optimizer.
        fit_seconds: of `seconds`, those of the steps.
        peak_bytes: the most memory that the worker ever had, its own and shared.
    """

    weights: Weights
    private: Weights = b""
    examples: int
    training_loss: float
    evaluated: int
    loss_sum: float
    correct: int
    seconds: float
    steps: int = 0
    fit_seconds: float = 0.0
    peak_bytes: int = 0


class WorkerFailure(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The call failed; the worker lives on.

    Attributes:
        kind: as in `TrainingFailedError`.
        message: cause and fix, for people.
    """

    kind: str
    message: str


Call = Train | Evaluate | Describe
Answer = TrainResult | EvaluateResult | DescribeResult | WorkerFailure


def _decode_path(wanted: type, value: object) -> object:
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"expected a path, not {type(value).__name__}")


def _encode_path(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} is not said to a worker")


CALLS: msgspec.msgpack.Decoder[Call] = msgspec.msgpack.Decoder(Call, dec_hook=_decode_path)
ANSWERS: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_path)


def encode_frame(message: Call | Answer) -> bytes:
    """One frame, length first."""
    buffer = bytearray()
    _ENCODER.encode_into(message, buffer, LENGTH)
    buffer[:LENGTH] = (len(buffer) - LENGTH).to_bytes(LENGTH, "big")
    return bytes(buffer)
