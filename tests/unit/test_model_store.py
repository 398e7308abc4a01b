"""What users take away is there whole or not at all, and follows from the state."""

from pathlib import Path

import pytest

from coordinator.model_store import MODEL_FILE, RESULTS_FILE, ModelStore


def test_a_new_folder_is_the_owners_alone(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "deep" / "state")
    assert store.folder.stat().st_mode & 0o077 == 0


def test_results_are_lines_and_each_export_writes_all_of_them(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.export(b"model", ['{"round":1}'])
    store.export(b"newer", ['{"round":1}', '{"round":2}'])
    assert (tmp_path / RESULTS_FILE).read_text() == '{"round":1}\n{"round":2}\n'
    assert (tmp_path / MODEL_FILE).read_bytes() == b"newer"


def test_a_refused_write_leaves_the_old_model(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.export(b"old", [])
    (tmp_path / f".{MODEL_FILE}.new").mkdir()  # where the new one would be written
    with pytest.raises(OSError, match="directory"):
        store.export(b"new", [])
    assert (tmp_path / MODEL_FILE).read_bytes() == b"old"
