"""A folder with a file for each window or recording."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.datasets.dataset import Bound, Dataset
from models.datasets.load import load
from models.datasets.source import WindowsSource
from models.errors import DatasetError

CLASSES = ("idle", "run")


def put(path: Path, array: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    np.save(path, array)


def read(folder: Path, bound: Bound | None = None, **keys: Any) -> Dataset:
    return load(WindowsSource(folder, **keys), bound or Bound(1000))


def refused(folder: Path, **keys: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        read(folder, **keys)
    return str(caught.value)


def test_each_file_is_a_window_and_its_folder_its_class(tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path / "idle" / f"{number}.npy", np.full((3, 2), number))
        put(tmp_path / "run" / f"{number}.npy", np.full((3, 2), 10 + number))

    data = read(tmp_path, classes=CLASSES, axes="time-first")

    assert data.x.shape == (8, 3, 2)
    assert data.y.tolist() == [0, 1] * 4, "in the order of their names"
    assert (data.x_test[:, 0, 0].tolist(), data.y_test.tolist()) == ([4, 14], [0, 1]), "the end of each class"
    assert read(tmp_path, classes=CLASSES).x.shape == (8, 2, 3)
    newest = read(tmp_path, Bound(2, "newest"), classes=CLASSES)
    assert sorted(newest.x[:, 0, 0]) == [3, 13]


def test_recordings_are_cut_into_windows_each_for_itself(tmp_path: Path) -> None:
    put(tmp_path / "idle" / "a.npy", np.arange(10))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "b.csv").write_text("v\n" + "\n".join(str(100 + n) for n in range(10)))

    data = read(tmp_path, classes=CLASSES, window=2, holdout=0.2, mean=(100.0,), deviation=(10.0,))

    assert data.x.shape == (8, 1, 2)
    assert data.y.tolist() == [0] * 4 + [1] * 4
    assert data.x_test[:, 0].tolist() == pytest.approx(np.array([[-9.2, -9.1], [0.8, 0.9]]), rel=1e-6)


def test_without_classes_the_files_are_inputs_and_targets(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / f"{number}.npy", np.full((2, 2), number, dtype=np.int16))
    (tmp_path / ".hidden").write_text("left alone")

    data = read(tmp_path)

    assert data.x.tolist() == data.y.tolist()
    assert len(data.x) == 2


def test_a_window_with_something_missing_is_dropped_whole(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path / f"{number}.npy", [[number], [np.nan if number == 1 else 0.0]])

    assert read(tmp_path, holdout=0.3).x[:, 0, 0].tolist() == [0, 2]
    assert '1.npy: row 2 is not finite; correct it, or set data.missing = "drop"' in refused(
        tmp_path, missing="error"
    )


def test_a_wrong_folder_is_named_with_the_fix(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "none")
    put(tmp_path / "jump" / "a.npy", np.zeros((2, 2)))
    assert "jump: not a folder of data.classes (idle, run); add its name there" in refused(
        tmp_path, classes=CLASSES
    )
    assert "jump: neither .npy nor .csv; remove it" in refused(tmp_path)


@pytest.mark.parametrize(
    ("array", "keys", "told"),
    [
        (np.array([{}]), {}, "not a readable .npy of numbers (Object arrays cannot be loaded"),
        (np.zeros((2, 2, 2)), {}, "not one array of numbers (rows, features)"),
        (np.array(["a"]), {}, "not one array of numbers"),
        (np.zeros((2, 3)), {"mean": (0.0,), "deviation": (1.0,)}, "3 features, but data.features or data.m"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_the_fix(
    tmp_path: Path, array: Any, keys: dict[str, Any], told: str
) -> None:
    put(tmp_path / "a.npy", array)

    assert refused(tmp_path, **keys).startswith(f"{tmp_path / 'a.npy'}: {told}")


def test_windows_of_unequal_size_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.npy", np.zeros((2, 2)))
    put(tmp_path / "b.npy", np.zeros((3, 2)))
    put(tmp_path / "c.npy", np.zeros((3, 2)))

    assert "x of one example is float32 (2, 3), of those before float32 (2, 2)" in refused(tmp_path)
