"""The model and how far the run has come, in one file that is there whole or not at all."""

import threading
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from coordinator.server_optimizer import ServerState
from coordinator.stopping import Outcome
from protocol.errors import FedfleetError
from protocol.ids import Hash
from runtime.files import write_synced

CHECKPOINT_FILE = "checkpoint.msgpack"
MODEL_FILE = "model.onnx"
RESULTS_FILE = "results.jsonl"


class DamagedCheckpointError(FedfleetError):
    """The checkpoint cannot be used; it is left untouched."""


class Checkpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """A run between two rounds.

    Attributes:
        bundle: hash of the training artifact that the weights belong to.
        epoch: of the coordinator; raised at every start.
        round: number of the newest round, committed or not.
        weights: global model, raw little-endian float32.
        first: server optimizer's first moment, likewise.
        second: its second moment, likewise.
        history: every round so far.
        seconds: the run has taken.
    """

    bundle: Hash
    epoch: Annotated[int, Meta(ge=0)]
    round: Annotated[int, Meta(ge=0)]
    weights: bytes
    first: bytes
    second: bytes
    history: tuple[Outcome, ...] = ()
    seconds: float = 0.0

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


class ModelStore:
    """A folder with the checkpoint, the exported model and the results.

    Args:
        folder: made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        # A save whose caller was cancelled goes on in its thread; the next one waits for it.
        self._saving = threading.Lock()

    def load(self, bundle: bytes) -> Checkpoint | None:
        """The run so far, if there is one.

        Args:
            bundle: hash of the artifact that the plan builds.

        Raises:
            DamagedCheckpointError: it cannot be read, or belongs to another model.
        """
        file = self.folder / CHECKPOINT_FILE
        if not file.exists():
            return None
        try:
            checkpoint = msgspec.msgpack.decode(file.read_bytes(), type=Checkpoint)
        except (msgspec.MsgspecError, ValueError) as error:
            raise DamagedCheckpointError(
                f"{file} is damaged ({error}); restore it from a backup or choose another state folder"
            ) from error
        if checkpoint.bundle != bundle:
            raise DamagedCheckpointError(
                f"{file} belongs to another model or loss than the plan's; choose another state folder"
            )
        return checkpoint

    def save(self, checkpoint: Checkpoint) -> None:
        """Return once the checkpoint is safe.

        Raises:
            OSError: the disk refused; the old one stands.
        """
        with self._saving:
            write_synced(self.folder / CHECKPOINT_FILE, msgspec.msgpack.encode(checkpoint))

    def export(self, model: bytes) -> None:
        """Write the inference model for users."""
        write_synced(self.folder / MODEL_FILE, model)

    def append_result(self, line: bytes) -> None:
        """Add one JSON line to the results."""
        with (self.folder / RESULTS_FILE).open("ab") as file:
            file.write(line + b"\n")
