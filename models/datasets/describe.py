"""Read all of a source to say what it holds."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from models.datasets.dataset import Dataset
from models.datasets.load import input_of, open_source, read_pieces, survey_of, target_of
from models.datasets.rows import Reading
from models.datasets.schema import ArraySchema, DataSchema
from models.datasets.source import DataSource, HookSource, NpzSource
from models.engines.interface import Examples
from models.errors import DatasetError

MAX_CLASSES = 10_000
"""More different labels than this are numbers to predict, and not classes."""


class _Spread:
    """Mean and deviation of each feature, one example after the other.

    Chan, Golub and LeVeque 1983, The American Statistician 37(3).
    """

    def __init__(self) -> None:
        self._rows = 0
        self._mean: Any = np.zeros(0)
        self._squares: Any = np.zeros(0)

    def add(self, values: Any) -> None:
        """Rows of an example, or its one row: (features,) or (window, features)."""
        rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
        if not self._rows:
            self._mean, self._squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
        new, before = len(rows), self._rows
        self._rows += new
        shift = rows.mean(axis=0) - self._mean
        self._squares += ((rows - rows.mean(axis=0)) ** 2).sum(axis=0) + shift**2 * (
            before * new / self._rows
        )
        self._mean += shift * (new / self._rows)

    def means(self) -> tuple[float, ...]:
        """Empty when there was nothing."""
        return tuple(self._mean.tolist())

    def deviations(self) -> tuple[float, ...]:
        """Likewise; 1 for a feature that never changes."""
        found = np.sqrt(self._squares / max(1, self._rows))
        return tuple(np.where(found > 0, found, 1.0).tolist())


def describe(source: DataSource) -> DataSchema:
    """Read all of it once more, and say what is there.

    Raises:
        DatasetError: names file, line, array or column, and the fix.
    """
    opened = open_source(source)
    if isinstance(opened, Dataset):
        return _of_arrays(source, opened)
    return _of_rows(source, opened)


def _of_arrays(source: DataSource, data: Dataset) -> DataSchema:
    tally: Counter[int] = Counter()
    for y in (data.y, data.y_test):
        if y.dtype == np.int64:
            values, counts = np.unique(y, return_counts=True)
            _count(source, tally, zip(values.tolist(), counts.tolist(), strict=True))
    return DataSchema(
        examples=len(data.x),
        held_out=len(data.x_test),
        x=_schema_of(data.x[0]),
        y=_schema_of(data.y[0]),
        labels=dict(sorted(tally.items())),
    )


def _of_rows(source: DataSource, reading: Reading) -> DataSchema:
    survey, _ = survey_of(source, reading)
    tally: Counter[int] = Counter()
    parts = [0, 0]
    seen: tuple[ArraySchema, ArraySchema] | None = None
    spread = _Spread()
    for piece in read_pieces(source, reading, survey):
        parts[piece.held_out] += 1
        if not isinstance(source, NpzSource | HookSource) and not source.mean:
            spread.add(piece.values)
        if seen is None:
            x = input_of(source, piece.values)
            y = x if piece.target is None else target_of(source, piece.target)
            seen = _schema_of(x), _schema_of(y)
        if seen[1].dtype == "int64" and piece.target is not None:
            values = target_of(source, piece.target).reshape(-1).tolist()
            _count(source, tally, ((value, 1) for value in values))
    if seen is None:
        raise DatasetError(f"{source.path}: dropped rows left no whole example; lower data.window")
    return DataSchema(
        examples=parts[0],
        held_out=parts[1],
        dropped=survey.dropped,
        x=seen[0],
        y=seen[1],
        labels=dict(sorted(tally.items())),
        classes=() if isinstance(source, NpzSource | HookSource) else source.classes,
        mean=spread.means(),
        deviation=spread.deviations(),
    )


def _count(source: DataSource, tally: Counter[int], found: Iterable[tuple[int, int]]) -> None:
    for value, number in found:
        tally[value] += number
    if len(tally) > MAX_CLASSES:
        raise DatasetError(
            f"{source.path}: more than {MAX_CLASSES:,} different labels; numbers to predict are targets "
            "(floats in arrays, data.targets in tables)"
        )


def _schema_of(example: Examples) -> ArraySchema:
    return ArraySchema(str(example.dtype), example.shape)
