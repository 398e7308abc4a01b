from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.datasets.npz import load_npz
from models.errors import DatasetError


def save(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def test_the_last_part_is_held_out(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.arange(20).reshape(10, 2), y=np.arange(10, dtype=np.uint8))

    data = load_npz(path, holdout=0.3)

    assert (str(data.x.dtype), str(data.y.dtype)) == ("float32", "int64")
    assert data.y.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert data.y_test.tolist() == [7, 8, 9]
    assert data.x_test[0].tolist() == [14, 15]


def test_a_test_set_of_its_own_is_used_as_it_is(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.zeros((4, 2)), y=np.zeros(4), x_test=np.ones((2, 2)), y_test=np.ones(2))

    data = load_npz(path)

    assert (len(data.x), len(data.x_test)) == (4, 2)
    assert data.y.dtype == np.float32, "float labels are targets"


def test_without_labels_the_input_is_the_target(tmp_path: Path) -> None:
    data = load_npz(save(tmp_path, x=np.arange(10.0).reshape(5, 2)))

    assert np.array_equal(data.x, data.y)
    assert np.array_equal(data.x_test, data.y_test)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"y": np.zeros(3)}, "no array 'x'"),
        ({"x": np.zeros((3, 2)), "labels": np.zeros(3)}, r"unknown arrays \['labels'\]"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, r"x has shape \(3, 2\), y \(4,\)"),
        ({"x": np.array(["a", "b"])}, "x is <U1"),
        ({"x": np.zeros((0, 2))}, r"\(0, 2\)"),
        ({"x": np.zeros((1, 2))}, "at least 2 examples"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(3), "x_test": np.zeros((3, 2))}, "both or neither"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(3), "y_test": np.zeros(3)}, "without 'x_test'"),
        ({"x": np.array([{}, {}], dtype=object)}, "not a readable"),
    ],
)
def test_a_wrong_file_is_named_with_its_array_and_the_fix(
    tmp_path: Path, arrays: dict[str, Any], text: str
) -> None:
    path = save(tmp_path, **arrays)

    with pytest.raises(DatasetError, match=text) as caught:
        load_npz(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)

    with pytest.raises(DatasetError, match=r"data\.npz"):
        load_npz(path)


def test_a_missing_file_and_a_bare_array_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))

    with pytest.raises(DatasetError, match="no such file"):
        load_npz(tmp_path / "none.npz")
    with pytest.raises(DatasetError, match="a single array"):
        load_npz(tmp_path / "one.npy")
