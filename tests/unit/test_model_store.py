"""The checkpoint is there whole or not at all, and a damaged one is refused and left as it is."""

from pathlib import Path

import numpy as np
import pytest

from coordinator.model_store import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    Checkpoint,
    DamagedCheckpointError,
    ModelStore,
    raw,
)
from coordinator.stopping import Outcome

BUNDLE = bytes(range(32))
WEIGHTS = np.linspace(-1, 1, 7, dtype=np.float32)
CHECKPOINT = Checkpoint(
    BUNDLE, epoch=2, round=5, weights=raw(WEIGHTS), first=raw(WEIGHTS + 1), second=raw(WEIGHTS + 2),
    history=(Outcome(committed=True, accuracy=0.5), Outcome(committed=False)), seconds=12.5,
)  # fmt: skip


def test_a_new_folder_holds_no_run_and_is_the_owners_alone(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "deep" / "state")
    assert store.load(BUNDLE) is None
    assert store.folder.stat().st_mode & 0o077 == 0


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    ModelStore(tmp_path).save(CHECKPOINT)
    loaded = ModelStore(tmp_path).load(BUNDLE)
    assert loaded == CHECKPOINT
    assert loaded is not None
    np.testing.assert_array_equal(loaded.vector, WEIGHTS)
    np.testing.assert_array_equal(loaded.server_state.first, WEIGHTS + 1)
    np.testing.assert_array_equal(loaded.server_state.second, WEIGHTS + 2)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xc1", None], ids=["empty", "text", "invalid", "cut"])
def test_a_damaged_checkpoint_is_refused_and_untouched(tmp_path: Path, damage: bytes | None) -> None:
    store = ModelStore(tmp_path)
    store.save(CHECKPOINT)
    file = tmp_path / CHECKPOINT_FILE
    content = file.read_bytes()[:-3] if damage is None else damage
    file.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=r"is damaged \(.*\); restore it from a backup"):
        store.load(BUNDLE)
    assert file.read_bytes() == content


def test_a_checkpoint_of_another_model_is_refused_and_untouched(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.save(CHECKPOINT)
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    with pytest.raises(DamagedCheckpointError, match="belongs to another model"):
        store.load(bytes(32))
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == before


def test_model_and_results_are_written_for_users(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.export(b"onnx")
    store.append_result(b'{"round":1}')
    store.append_result(b'{"round":2}')
    assert (tmp_path / MODEL_FILE).read_bytes() == b"onnx"
    assert (tmp_path / "results.jsonl").read_bytes() == b'{"round":1}\n{"round":2}\n'


def test_a_refused_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.save(CHECKPOINT)
    (tmp_path / f".{CHECKPOINT_FILE}.new").mkdir()  # where the new one would be written
    with pytest.raises(OSError, match="directory"):
        store.save(CHECKPOINT)
    assert store.load(BUNDLE) == CHECKPOINT
