"""What rows and files of the coordinator's state hold, and how it is read again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from coordinator.server_optimizer import ServerState
from protocol.errors import MAX_CAUSE, FedfleetError, FrameError
from protocol.frames import Frame
from protocol.ids import Name, Order, UnixTime
from protocol.messages import Message, decode_from_coordinator
from protocol.plan import MAX_COHORT

_M = TypeVar("_M", bound=Message)
_S = TypeVar("_S")


class DamagedStateError(FedfleetError):
    """What was stored cannot be read again."""


class Opening(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How a round began: all that its half is made of.

    Attributes:
        manifest: the signed frame.
        invited: devices.
        wanted: cohort size at which keying ends early.
        workers: into how many parts unmasking is cut.
        started: wall clock, for certificate validity.
    """

    manifest: bytes
    invited: Annotated[tuple[Name, ...], Meta(max_length=MAX_COHORT)]
    wanted: int
    workers: int
    started: float


@dataclass(frozen=True)
class Recorded:
    """One event of the open round.

    Attributes:
        time: seconds of the round's own time.
        unix: wall clock.
        entry: the event, see `coordinator.round_journal`.
    """

    time: float
    unix: UnixTime
    entry: bytes = field(repr=False)


@dataclass(frozen=True)
class NewestRound:
    """The newest round that was opened.

    Attributes:
        order: its place in history.
        opening: how it began.
        over: whether it was closed.
        events: all that it was told; empty when it is over.
        decisions: signed frames that it announced, in order.
    """

    order: Order
    opening: Opening
    over: bool
    events: Sequence[Recorded]
    decisions: Sequence[bytes]


class Model(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The global model and the server optimizer's moments, each raw little-endian float32."""

    weights: bytes
    first: bytes
    second: bytes

    @classmethod
    def of(cls, weights: NDArray[np.float32], state: ServerState) -> "Model":
        """From float32 vectors (d,)."""
        return cls(raw(weights), raw(state.first), raw(state.second))

    @property
    def vector(self) -> NDArray[np.float32]:
        """The weights, float32 (d,)."""
        return np.frombuffer(self.weights, "<f4")

    @property
    def server_state(self) -> ServerState:
        """The server optimizer's state."""
        return ServerState(np.frombuffer(self.first, "<f4"), np.frombuffer(self.second, "<f4"))


def raw(vector: NDArray[np.float32]) -> bytes:
    """A vector as it is stored and sent: little-endian float32."""
    return np.ascontiguousarray(vector, "<f4").tobytes()


def decode_stored(data: bytes, kind: type[_S]) -> _S:
    """Read what we stored.

    Raises:
        DamagedStateError: see there.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        raise DamagedStateError(
            f"a stored {kind.__name__} is damaged ({str(error)[:MAX_CAUSE]}); restore the state folder from "
            "a backup"
        ) from error


def stored_message(frame: bytes, kind: type[_M]) -> _M:
    """What one of our own stored frames says.

    Raises:
        DamagedStateError: it is damaged, of another kind, or of a release that said it otherwise.
    """
    try:
        message = decode_from_coordinator(decode_stored(frame, Frame).body)
    except FrameError as error:
        raise DamagedStateError(
            f"a stored {kind.__name__} cannot be read ({error}); start the release that wrote it, or choose "
            "another state folder"
        ) from error
    if not isinstance(message, kind):
        raise DamagedStateError(f"the state holds a {type(message).__name__} for a {kind.__name__}")
    return message
