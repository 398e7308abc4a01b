"""What users take away: the inference model and a line for each round."""

from collections.abc import Sequence
from pathlib import Path

from runtime.files import write_synced

MODEL_FILE = "model.onnx"
RESULTS_FILE = "results.jsonl"


class ModelStore:
    """A folder of files that follow from the state, and are written again from it at every start.

    Args:
        folder: made if it does not exist.

    Raises:
        OSError: the disk refused, here and in every method; the old file stands.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder

    def export(self, model: bytes) -> None:
        """Write the inference model."""
        write_synced(self.folder / MODEL_FILE, model)

    def export_results(self, lines: Sequence[str]) -> None:
        """Write all results so far, one JSON line each."""
        write_synced(self.folder / RESULTS_FILE, "".join(f"{line}\n" for line in lines).encode())

    def append_result(self, line: str) -> None:
        """Add one result."""
        with (self.folder / RESULTS_FILE).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
