"""Reading takes the memory of what is kept, however much is read."""

import tracemalloc
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.datasets.csv_table import csv_rows
from models.datasets.dataset import Bound
from models.datasets.load import load
from models.datasets.rows import Row
from models.datasets.source import CsvSource

ROWS = 30_000
FEATURES = 16
BOUND = Bound(100)
KEPT = 2 * BOUND.limit * FEATURES * 4
"""Bytes of what is kept: two parts of float32."""


def rows() -> Iterator[Row]:
    """As a file of 30,000 lines and 2 MB of float32 makes them, without the file."""
    for number in range(ROWS):
        yield Row("", array("d", [number] * FEATURES), number % 2)


def peak_of(source: CsvSource, bound: Bound, reading: object = rows) -> int:
    """The smallest of three: whoever else is at work in this process only adds."""
    peaks = []
    for _ in range(3):
        tracemalloc.start()
        try:
            load(source, bound, reading)  # type: ignore[arg-type]
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)


@pytest.mark.parametrize("examples", ["random", "newest"])
def test_a_sample_of_many_rows_takes_a_samples_memory(examples: str) -> None:
    bound = Bound(BOUND.limit, "newest" if examples == "newest" else "random")

    assert peak_of(CsvSource(Path("x")), bound) < KEPT + 150_000 < ROWS * FEATURES * 4 / 10


def test_windows_take_a_window_more() -> None:
    window = 32 * FEATURES * 4

    peak = peak_of(CsvSource(Path("x"), window=32, stride=1), Bound(10))

    assert peak < 2 * 10 * window + 200_000 < ROWS * window / 100


def test_a_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    line = ",".join(["0.123456789"] * FEATURES) + "\n"
    path.write_text(",".join(f"c{n}" for n in range(FEATURES)) + "\n" + line * 10_000)
    source = CsvSource(path)

    assert peak_of(source, BOUND, lambda: csv_rows(source)) < KEPT + 300_000 < path.stat().st_size / 5
