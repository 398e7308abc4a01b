"""What the columns of a table mean: cells in, rows of numbers out."""

import difflib
import math
from array import array
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from models.datasets.rows import Row
from models.datasets.source import CsvSource, SqliteSource
from models.errors import DatasetError

SHOWN = 40
"""Characters of a cell that a message quotes at most: it is somebody's data."""

REMEMBERED = 1000
"""Cells whose class is not worked out again."""

NAMED = 12
"""Columns that a message names at most."""


def shown(cell: object) -> str:
    """A cell, for messages."""
    text = repr(cell)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


class ColumnMap:
    """One reading of a table.

    Args:
        source: says which column means what.
        header: names of the columns.
        where: of the file, for messages.
        unit: what a row's number counts, for messages: "line" or "row".

    Raises:
        DatasetError: a column is missing, or there twice.
    """

    def __init__(
        self, source: CsvSource | SqliteSource, header: Sequence[str], where: str, unit: str
    ) -> None:
        self._header, self._where, self._unit = list(header), where, unit
        self._strict = source.missing == "error"
        self._named = bool(source.classes)
        self._classes: dict[object, int] = {name: number for number, name in enumerate(source.classes)}
        self._label = None if source.label is None else self._find(source.label, "label")
        self._targets = [self._find(name, "targets") for name in source.targets]
        self._time = None if source.time is None else self._find(source.time, "time")
        self._group = [self._find(name, "group") for name in source.group]
        self._features = self._find_features(source)
        self._latest = -math.inf

    def row(self, cells: Sequence[Any], number: int) -> Row:
        """The meaning of one row.

        Args:
            cells: text, numbers or None; cells that are not there are missing.
            number: of the row, for messages.

        Raises:
            DatasetError: too many cells, one that is not what its column should hold, time that goes back,
                or a missing one where that is an error.
        """
        width = len(self._header)
        if len(cells) > width:
            raise DatasetError(
                f"{self._at(number)}: {len(cells)} cells, but {width} columns; quote cells that hold the "
                "delimiter, or set data.delimiter"
            )
        if len(cells) < width:
            cells = [*cells, *[None] * (width - len(cells))]
        group = self._group_of(cells) if self._group else ""
        try:
            if self._time is not None:
                self._check_time(cells[self._time], self._time, number)
            return Row(group, self._numbers(self._features, cells, number), self._target(cells, number))
        except _MissingCell as missing:
            if self._strict:
                raise DatasetError(
                    f"{self._at(number, missing.column)}: empty or not finite; fill it in, or set "
                    'data.missing = "drop"'
                ) from None
            return Row(group, None, None)

    def _find(self, name: str, key: str) -> int:
        found = self._header.count(name)
        if found == 1:
            return self._header.index(name)
        if found:
            raise DatasetError(f'{self._where}: {found} columns are named "{name}"; rename all but one')
        close = difflib.get_close_matches(name, self._header, n=1)
        names = ", ".join(shown(one) for one in self._header[:NAMED])
        hint = f"did you mean {shown(close[0])}?" if close else f"its columns are {names}"
        raise DatasetError(f'{self._where}: data.{key} names the column "{name}", which is not there; {hint}')

    def _find_features(self, source: CsvSource | SqliteSource) -> list[int]:
        meant = {self._label, self._time, *self._targets, *self._group}
        columns = (
            [self._find(name, "features") for name in source.features]
            if source.features
            else [column for column in range(len(self._header)) if column not in meant]
        )
        if not columns:
            raise DatasetError(f"{self._where}: no column is left for the input; set data.features")
        if source.mean and len(source.mean) != len(columns):
            raise DatasetError(
                f"{self._where}: {len(columns)} features, but data.mean has {len(source.mean)} numbers; "
                "write one for each, and list data.features"
            )
        return columns

    def _numbers(self, columns: list[int], cells: Sequence[Any], number: int) -> "array[float]":
        try:
            values = array("d", [float(cells[column]) for column in columns])
        except (ValueError, TypeError):
            pass
        else:
            if math.isfinite(sum(values)):
                return values
        return array("d", [self._number(column, cells, number) for column in columns])

    def _number(self, column: int, cells: Sequence[Any], number: int) -> float:
        cell = cells[column]
        if cell is None or cell == "" or (isinstance(cell, str) and cell.isspace()):
            raise _MissingCell(column)
        try:
            value = float(cell)
        except (ValueError, TypeError):
            raise DatasetError(
                f"{self._at(number, column)}: {shown(cell)} is not a number; correct it, or leave the column "
                "out of data.features"
            ) from None
        if not math.isfinite(value):
            raise _MissingCell(column)
        return value

    def _target(self, cells: Sequence[Any], number: int) -> Any:
        if self._label is None:
            return self._numbers(self._targets, cells, number) if self._targets else None
        cell = cells[self._label]
        known = self._classes.get(cell)
        return self._class(cell, self._label, number) if known is None else known

    def _class(self, cell: Any, column: int, number: int) -> int:
        """Of a cell that was not seen before."""
        if cell is None or cell == "":
            raise _MissingCell(column)
        if self._named:
            known = self._classes.get(str(cell))
            if known is None:
                raise DatasetError(
                    f"{self._at(number, column)}: {shown(cell)} is not in data.classes; add it there, in the "
                    "model's order, or correct it"
                )
            return known
        value = _parsed(cell)
        if value is None or not value.is_integer() or value < 0:
            raise DatasetError(
                f"{self._at(number, column)}: {shown(cell)} is not a class 0, 1, …; name the classes in "
                "data.classes, or write the column into data.targets if it is a number to predict"
            )
        if len(self._classes) < REMEMBERED:
            self._classes[cell] = int(value)
        return int(value)

    def _group_of(self, cells: Sequence[Any]) -> str:
        return "\x1f".join(["" if cells[column] is None else str(cells[column]) for column in self._group])

    def _check_time(self, cell: Any, column: int, number: int) -> None:
        if cell is None or cell == "":
            raise _MissingCell(column)
        time = _parsed(cell)
        time = _date(cell) if time is None else time
        if time is None or math.isnan(time):
            raise DatasetError(
                f"{self._at(number, column)}: {shown(cell)} is neither a number nor an ISO 8601 date; "
                "correct it"
            )
        if time < self._latest:
            raise DatasetError(
                f"{self._at(number, column)}: time goes back, to {shown(cell)}; sort by it, oldest first"
            )
        self._latest = time

    def _at(self, number: int, column: int | None = None) -> str:
        place = f"{self._where}: {self._unit} {number}"
        return place if column is None else f"{place}, column {shown(self._header[column])}"


class _MissingCell(Exception):  # noqa: N818 - no error until the setting says so
    """A row lacks this column."""

    def __init__(self, column: int) -> None:
        super().__init__(column)
        self.column = column


def _parsed(cell: Any) -> float | None:
    try:
        return float(cell)
    except (ValueError, TypeError):
        return None


def _date(cell: Any) -> float | None:
    """Seconds; a date without a zone is taken as UTC, and only differences count."""
    try:
        date = datetime.fromisoformat(str(cell).strip())
    except ValueError:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
