"""What users take away: the inference model and a line for each round."""

from collections.abc import Sequence
from pathlib import Path

from runtime.files import write_synced

MODEL_FILE = "model.onnx"
RESULTS_FILE = "results.jsonl"


class ModelStore:
    """A folder of files that follow from the state and are written from it at the start and after each round.

    Args:
        folder: made if it does not exist.

    Raises:
        OSError: the disk refused, here and in every method; the old file stands.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder

    def export(self, model: bytes, results: Sequence[str]) -> None:
        """Write the inference model, and all results so far, one JSON line each."""
        write_synced(self.folder / RESULTS_FILE, "".join(f"{line}\n" for line in results).encode())
        write_synced(self.folder / MODEL_FILE, model)
