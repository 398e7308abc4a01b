"""A CSV file and its column map."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.datasets.csv_table import MAX_LINE, csv_rows
from models.datasets.dataset import Bound, Dataset
from models.datasets.describe import describe
from models.datasets.load import load
from models.datasets.rows import Row
from models.datasets.source import CsvSource
from models.errors import DatasetError

MANY = Bound(1000)


def table(folder: Path, *lines: str) -> Path:
    path = folder / "data.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path, bound: Bound = MANY, **keys: Any) -> Dataset:
    return load(CsvSource(path, **keys), bound)


def refused(path: Path, **keys: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        read(path, **keys)
    told = str(caught.value)
    assert told.startswith(str(path))
    return told.removeprefix(f"{path}: ")


def numbered(count: int) -> list[str]:
    return [f"{number},{number % 2}" for number in range(count)]


def test_a_label_column_and_all_others_make_examples(tmp_path: Path) -> None:
    path = table(tmp_path, "a,label,b", "1,0,2", "3,1,4", "5,0,6", "7,1,8", "9,0,10")

    data = read(path, label="label")

    assert data.x.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert (data.x.dtype, data.y.dtype) == (np.float32, np.int64)
    assert data.y.tolist() == [0, 1, 0, 1]
    assert (data.x_test.tolist(), data.y_test.tolist()) == ([[9, 10]], [0])


def test_features_are_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    path = table(tmp_path, "a,b,c", "1,2,3", "4,5,6")

    assert read(path, features=("c", "a")).x.tolist() == [[3, 1]]


def test_names_of_classes_become_their_numbers(tmp_path: Path) -> None:
    path = table(tmp_path, "x,what", "1,walk", "2,run", "3,walk")

    assert read(path, label="what", classes=("run", "walk")).y.tolist() == [1, 0]


def test_targets_are_numbers_with_an_axis_of_their_own(tmp_path: Path) -> None:
    data = read(table(tmp_path, "x,y", "1,0.5", "2,1.5", "3,2"), targets=("y",))

    assert data.y.tolist() == [[0.5], [1.5]]
    assert data.y.dtype == np.float32


def test_without_label_and_targets_the_input_is_the_target(tmp_path: Path) -> None:
    data = read(table(tmp_path, "x,t", "1,9", "2,9", "3,9"), time="t")

    assert data.x.tolist() == data.y.tolist() == [[1], [2]]


def test_published_statistics_put_features_on_one_scale(tmp_path: Path) -> None:
    path = table(tmp_path, "a,b", "1700000000.5,10", "1700000001.5,30", "0,0")

    data = read(path, mean=(1.7e9, 20.0), deviation=(0.5, 10.0))

    assert data.x.tolist() == [[1, -1], [3, 1]], "subtracted before it loses its digits"


def test_a_file_may_have_another_delimiter_no_header_and_a_mark_of_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"\xef\xbb\xbf1;0\r\n2;1\r\n\r\n3;0\r\n")

    assert read(path, delimiter=";", columns=("a", "b"), label="b").x.tolist() == [[1], [2]]
    path.write_bytes(b"\xef\xbb\xbfa,b\n1,0\n2,1\n")
    assert read(path, label="b", features=("a",)).x.tolist() == [[1]]


# Windows and groups.


def test_windows_have_features_first_or_time_first(tmp_path: Path) -> None:
    path = table(tmp_path, "a,b", *(f"{n},{-n}" for n in range(10)))

    first = read(path, window=2, stride=3, holdout=0.3)
    other = read(path, window=2, stride=3, holdout=0.3, axes="time-first")

    assert first.x.tolist() == [[[0, 1], [0, -1]], [[3, 4], [-3, -4]]]
    assert other.x.tolist() == [[[0, 0], [1, -1]], [[3, -3], [4, -4]]]
    assert first.x_test.tolist() == [[[7, 8], [-7, -8]]]


def test_a_window_has_the_label_of_its_last_row(tmp_path: Path) -> None:
    path = table(tmp_path, "a,label", *numbered(12))

    assert read(path, window=3, stride=1, label="label", holdout=0.25).y.tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_no_window_holds_rows_of_two_groups_even_where_they_alternate(tmp_path: Path) -> None:
    rows = [f"{n},{group}" for n in range(10) for group in ("left", "right")]
    path = table(tmp_path, "a,hand", *rows)

    data = read(path, window=4, group=("hand",), holdout=0.5, stride=1)

    assert data.x[:, 0].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]]
    assert data.x_test[0, 0].tolist() == [5, 6, 7, 8], "of each group the end is held out"


def test_no_window_spans_a_row_that_was_dropped(tmp_path: Path) -> None:
    values = ["0", "1", "2", "", "4", "5", "nan", "7", "8", "9", "10", "11", "12"]
    path = table(tmp_path, "t,a", *(f"{n},{value}" for n, value in enumerate(values)))

    data = read(path, window=2, stride=1, features=("a",))

    assert data.x[:, 0].tolist() == [[0, 1], [1, 2], [4, 5], [7, 8], [8, 9], [9, 10]]
    assert describe(CsvSource(path, window=2, stride=1, features=("a",))).dropped == 2


def test_only_the_newest_or_a_sample_of_the_seed_are_kept(tmp_path: Path) -> None:
    path = table(tmp_path, "a", *map(str, range(100)))

    newest = read(path, Bound(5, "newest"), holdout=0.1)
    first, again, other = (read(path, Bound(5, seed=seed), holdout=0.1) for seed in (1, 1, 2))

    assert sorted(newest.x[:, 0]) == [85, 86, 87, 88, 89]
    assert sorted(newest.x_test[:, 0]) == [95, 96, 97, 98, 99]
    assert first.x.tolist() == again.x.tolist() != other.x.tolist()
    assert first.x.max() < 90 <= first.x_test.min()
    assert len(first.x) == len(first.x_test) == 5


def test_a_device_lowers_the_plans_bound_and_never_raises_it(tmp_path: Path) -> None:
    path = table(tmp_path, "a", *map(str, range(100)))

    assert len(read(path, Bound(7), max_examples=3).x) == 3
    assert len(read(path, Bound(7), max_examples=30).x) == 7


def test_rows_that_arrive_while_it_is_read_are_left_for_the_next_time(tmp_path: Path) -> None:
    source = CsvSource(table(tmp_path, "a", *"12345"), window=1)
    readings = []

    def growing() -> Iterator[Row]:
        readings.append(csv_rows(source))
        yield from readings[-1]
        with source.path.open("a") as file:
            file.write("6\n7\n")

    data = load(source, MANY, growing)

    assert len(readings) == 2
    assert (data.x[:, 0, 0].tolist(), data.x_test[:, 0, 0].tolist()) == ([1, 2, 3, 4], [5])
    assert len(load(source, MANY).x) == 7


# What is wrong.


LABEL: dict[str, Any] = {"label": "b"}
STRICT: dict[str, Any] = {"missing": "error"}
TIME: dict[str, Any] = {"time": "t"}


@pytest.mark.parametrize(
    ("lines", "keys", "told"),
    [
        ("a,c 1,2", LABEL, "data.label names the column \"b\", which is not there; its columns are 'a', 'c'"),
        ("speed,b 1,2", {"features": ("sped",)}, 'data.features names the column "sped"'),
        ("speed,b 1,2", {"features": ("sped",)}, "which is not there; did you mean 'speed'?"),
        ("a,a 1,2", {"features": ("a",)}, '2 columns are named "a"; rename all but one'),
        ("b 1", LABEL, "no column is left for the input; set data.features"),
        ("a,b 1,x 1,1", {}, "line 2, column 'b': 'x' is not a number; correct it, or leave the column out"),
        ("a,b 1,1 1,1.5", LABEL, "line 3, column 'b': '1.5' is not a class 0, 1, …; name the classes"),
        ("a,b 1,-1", LABEL, "line 2, column 'b': '-1' is not a class"),
        ("a,b 1,go", LABEL | {"classes": ("run",)}, "line 2, column 'b': 'go' is not in data.classes"),
        ("a,b 1,2,3", {}, "line 2: 3 cells, but 2 columns; quote cells that hold the delimiter"),
        ("a,b 1,", STRICT, "line 2, column 'b': empty or not finite; fill it in, or set data.missing"),
        ("a,b 1", STRICT, "line 2, column 'b': empty or not finite"),
        ("a,b inf,1", STRICT, "line 2, column 'a': empty or not finite"),
        ("a,b ,0", LABEL, "0 rows in 0 groups (1 more dropped) make 0 examples to train on"),
        ("a 1", {}, "1 rows in 1 groups (0 more dropped) make 1 examples to train on and 0 to hold out"),
        ("a 1 2 3 4 5 6", {"window": 2}, "make 2 examples of 2 rows to train on and 0 to hold out"),
        ("t,a 2,1 1,1", TIME, "line 3, column 't': time goes back, to '1'; sort by it, oldest first"),
        ("t,a 2024-01-02,1 2024-01-01T10:00+02:00,1", TIME, "line 3, column 't': time goes back"),
        ("t,a noon,1", TIME, "line 2, column 't': 'noon' is neither a number nor an ISO 8601 date"),
        ("a,b 1,2", {"mean": (1.0,), "deviation": (1.0,)}, "2 features, but data.mean has 1 numbers"),
        ('"a 1', {}, "line 2: not CSV (unexpected end of data)"),
        ("a \x00", {}, "line 2, column 'a': '\\x00' is not a number"),
        ("a " + "7" * 500 + "x", {}, f"line 2, column 'a': '{'7' * 38}… is not a number"),
    ],
)
def test_a_wrong_file_is_named_with_line_column_and_fix(
    tmp_path: Path, lines: str, keys: dict[str, Any], told: str
) -> None:
    assert told in refused(table(tmp_path, *lines.split(" ")), **keys)


def test_a_file_that_is_no_csv_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    assert "cannot be read (No such file or directory)" in refused(path)
    path.write_bytes(b"")
    assert "empty; its first line must name the columns" in refused(path)
    path.write_bytes(b"a\n1\n\xff\xfe\n")
    assert "not UTF-8" in refused(path)
    path.write_text("a\n" + "1" * (MAX_LINE + 1))
    assert f"line 2 has more than {MAX_LINE:,} characters" in refused(path)
    path.write_text('a\n"' + "1\n" * MAX_LINE)
    assert "not CSV (field larger than field limit" in refused(path)
    assert "cannot be read (Is a directory)" in refused(tmp_path)


def test_too_many_groups_are_no_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.datasets.rows.MAX_GROUPS", 3)
    path = table(tmp_path, "a,g", *(f"1,{n}" for n in range(4)))

    assert "more than 3 groups; set data.group to a column" in refused(path, group=("g",))
