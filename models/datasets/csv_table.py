"""One CSV file as rows, read line by line."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from models.datasets.columns import ColumnMap
from models.datasets.rows import Row
from models.datasets.source import CsvSource
from models.errors import DatasetError

MAX_LINE = 2**20
"""Characters of a line, and of a quoted cell over several lines: 65,536 columns of 16."""


def csv_rows(source: CsvSource) -> Iterator[Row]:
    """Read from the start.

    Raises:
        DatasetError: names file, line, column and fix.
    """
    with _opened(source.path) as file:
        lines = _Lines(file, source.path)
        try:
            yield from _rows(source, lines)
        except csv.Error as error:
            raise DatasetError(
                f"{source.path}: line {lines.number}: not CSV ({error}); correct it"
            ) from error
        except UnicodeDecodeError as error:
            text = f"{source.path}: after line {lines.number}: not UTF-8; convert it (iconv -t UTF-8)"
            raise DatasetError(text) from error
        except OSError as error:
            raise DatasetError(f"{source.path}: cannot be read ({error.strerror})") from error


def _opened(path: Path) -> TextIO:
    try:
        # A spreadsheet's byte order mark is not part of the first column's name.
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); set data.path to it") from error


def _rows(source: CsvSource, lines: "_Lines") -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE)
    reader = csv.reader(lines, delimiter=source.delimiter, strict=True)
    header: Iterable[str] = source.columns or next(reader, ())
    header = [name.strip() for name in header]
    if not header:
        raise DatasetError(f"{source.path}: empty; its first line must name the columns")
    columns = ColumnMap(source, header, str(source.path), "line")
    for cells in reader:
        if cells:  # an empty line is nothing
            yield columns.row(cells, lines.number)


class _Lines:
    """Lines of bounded length, and how many there were."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MAX_LINE + 1):
            self.number += 1
            if len(line) > MAX_LINE:
                raise DatasetError(
                    f"{self._path}: line {self.number} has more than {MAX_LINE:,} characters; is it CSV?"
                )
            yield line
