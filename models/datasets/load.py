"""From a source to examples in memory.

`.npz` files and a hook's arrays are in memory as a whole. Everything else is read twice from its start to its
end, anew in each round, and only the examples of one round are ever held: a reservoir drawn from the round's
seed, or the newest. So the same seed and the same file give the same examples.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.datasets.csv_table import csv_rows
from models.datasets.dataset import Bound, Dataset
from models.datasets.hook import call_hook
from models.datasets.npz import load_npz
from models.datasets.rows import Piece, Reading, Survey, count, pieces, trained_rows, windows_in
from models.datasets.sampling import Newest, Reservoir, Sampler
from models.datasets.source import CsvSource, DataSource, HookSource, NpzSource, SqliteSource, WindowsSource
from models.datasets.sqlite_table import sqlite_rows
from models.datasets.window_folder import folder_rows
from models.engines.interface import Examples
from models.errors import DatasetError

Opened = Dataset | Reading
"""What is in memory, or what can be read again and again."""


def open_source(source: DataSource) -> Opened:
    """Read what is small enough to be held; begin with nothing else.

    Raises:
        DatasetError: names file, line, array or column, and the fix.
    """
    match source:
        case NpzSource(path, holdout):
            return load_npz(path, holdout=holdout)
        case CsvSource():
            return lambda: csv_rows(source)
        case SqliteSource():
            return lambda: sqlite_rows(source)
        case WindowsSource():
            return lambda: folder_rows(source)
        case HookSource():
            return call_hook(source)


def load(source: DataSource, bound: Bound, opened: Opened | None = None) -> Dataset:
    """The examples of one round.

    Args:
        source: where they are; its own `max_examples` lowers the bound.
        bound: how many of each part, and which.
        opened: of `open_source`, if that was done before.

    Raises:
        DatasetError: names file, line, array or column, and the fix.
    """
    limit = min(bound.limit, source.max_examples or bound.limit)
    bound = Bound(limit, bound.examples, bound.seed)
    opened = open_source(source) if opened is None else opened
    return opened.bounded(bound) if isinstance(opened, Dataset) else _gather(source, opened, bound)


def survey_of(source: DataSource, reading: Reading) -> tuple[Survey, tuple[int, int]]:
    """Count the rows.

    Returns:
        The counts, and the most examples there may be in the training part and in the held-out one.

    Raises:
        DatasetError: too few for either part.
    """
    where = str(source.path)
    survey = count(reading(), where)
    window, stride = windows_of(source)
    held = [(trained_rows(rows, source.holdout), rows) for rows in survey.rows.values()]
    trained = sum(windows_in(cut, window, stride) for cut, _ in held)
    held_out = sum(windows_in(rows - cut, window, stride) for cut, rows in held)
    if not trained or not held_out:
        rows, groups = sum(survey.rows.values()), len(survey.rows)
        windows = "" if window is None else f" of {window} rows"
        raise DatasetError(
            f"{where}: {rows} rows in {groups} groups ({survey.dropped} more dropped) make {trained} examples"
            f"{windows} to train on and {held_out} to hold out; collect more, or change data.window or "
            "data.holdout"
        )
    return survey, (trained, held_out)


def windows_of(source: DataSource) -> tuple[int | None, int | None]:
    """Window and stride."""
    match source:
        case CsvSource() | SqliteSource() | WindowsSource():
            return source.window, source.stride
        case _:
            return None, None


def read_pieces(source: DataSource, reading: Reading, survey: Survey) -> Iterator[Piece]:
    """Read the rows a second time, as examples; see `rows.pieces`."""
    window, stride = windows_of(source)
    return pieces(reading(), survey, holdout=source.holdout, window=window, stride=stride)


def input_of(source: DataSource, values: Any) -> NDArray[np.float32]:
    """What the model reads of one example: standardised in double precision, its axes in the wanted order."""
    if isinstance(source, NpzSource | HookSource):
        return numbers(str(source.path), values).astype(np.float32)
    made = np.asarray(values, dtype=np.float64)
    if source.mean:
        made = (made - np.array(source.mean)) / np.array(source.deviation)
    if made.ndim > 1 and source.axes == "features-first":
        made = made.T
    with np.errstate(over="ignore"):  # infinity is refused with the whole data set
        return made.astype(np.float32)


def numbers(where: str, value: Any) -> NDArray[Any]:
    """An example's own array, as a hook gave it.

    Raises:
        DatasetError: it is none.
    """
    try:
        made = np.asarray(value)
    except ValueError as error:  # rows of unequal length
        raise DatasetError(f"{where}: an example is not one array of numbers") from error
    if made.dtype.kind not in "biuf":
        raise DatasetError(f"{where}: an example holds {made.dtype}; it must be numbers")
    return made


def target_of(source: DataSource, target: Any) -> NDArray[Any]:
    """What the loss compares with: int64 classes, or float32 numbers."""
    made = numbers(str(source.path), target)
    return made.astype(np.float32 if made.dtype.kind == "f" else np.int64)


def _gather(source: DataSource, reading: Reading, bound: Bound) -> Dataset:
    survey, most = survey_of(source, reading)
    parts = [_Kept(source, min(total, bound.limit), bound, part) for part, total in enumerate(most)]
    for piece in read_pieces(source, reading, survey):
        parts[piece.held_out].take(piece)
    return Dataset(*parts[False].arrays(), *parts[True].arrays())


class _Kept:
    """The examples of one part, in arrays of their final size."""

    def __init__(self, source: DataSource, capacity: int, bound: Bound, part: int) -> None:
        self._source, self._capacity, self._seen = source, capacity, 0
        self._sampler: Sampler = (
            Newest(capacity) if bound.examples == "newest" else Reservoir(capacity, [bound.seed, part])
        )
        self._x: Examples | None = None
        self._y: Examples | None = None

    def take(self, piece: Piece) -> None:
        """Keep this example, or leave it out."""
        self._seen += 1
        place = self._sampler.place()
        if place is None:
            return
        self._x = self._put(self._x, "x", place, input_of(self._source, piece.values))
        if piece.target is not None:
            self._y = self._put(self._y, "y", place, target_of(self._source, piece.target))

    def arrays(self) -> tuple[Examples, Examples]:
        """Of inputs and targets; the inputs themselves where there is no other target."""
        filled = min(self._seen, self._capacity)
        if self._x is None:
            raise DatasetError(
                f"{self._source.path}: dropped rows, or a change while it was read, left no whole example in "
                "one part; lower data.window, or try again"
            )
        x = self._x[:filled]
        return x, x if self._y is None else self._y[:filled]

    def _put(self, kept: Examples | None, name: str, place: int, value: NDArray[Any]) -> Examples:
        if kept is None:
            kept = np.zeros((self._capacity, *value.shape), dtype=value.dtype)
        if kept.shape[1:] != value.shape or kept.dtype != value.dtype:
            raise DatasetError(
                f"{self._source.path}: {name} of one example is {value.dtype} {value.shape}, of those before "
                f"{kept.dtype} {kept.shape[1:]}; all must be alike"
            )
        kept[place] = value
        return kept
