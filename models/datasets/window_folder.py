"""A folder of windows or recordings, one file each: rows by features.

    path/<class>/<name>.npy    float or integer (rows, features), or (rows,) of one feature
    path/<class>/<name>.csv    a first line that names the columns, then numbers

Files are read in the order of their names, over all classes, so that names which begin with a date are in the
order of time. Whole files are examples of their class's group; each recording that is cut into windows is a
group.
"""

import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from models.datasets.csv_table import csv_rows
from models.datasets.rows import Row
from models.datasets.source import CsvSource, WindowsSource
from models.errors import DatasetError

Labelled = tuple[Path, int | None]
"""A file and its class."""


def folder_rows(source: WindowsSource) -> Iterator[Row]:
    """Read from the first file.

    Raises:
        DatasetError: names file, line, column and fix.
    """
    for path, target in _files(source):
        read = _recording(source, path)
        if source.window is not None:
            yield from (Row(str(path), values, target) for values in read)
            continue
        whole = list(read)
        if whole:  # all the rows of one window, or none
            values = None if any(row is None for row in whole) else whole
            yield Row(str(target), values, target)


def _files(source: WindowsSource) -> list[Labelled]:
    found: list[Labelled] = []
    if source.classes:
        _refuse_other_folders(source)
        for number, name in enumerate(source.classes):
            found += [(file, number) for file in _listed(source.path / name, missing_ok=True)]
    else:
        found += [(file, None) for file in _listed(source.path, missing_ok=False)]
    for file, _ in found:
        if file.suffix not in {".npy", ".csv"}:
            raise DatasetError(f"{file}: neither .npy nor .csv; remove it from the folder")
    return sorted(found, key=lambda one: (one[0].name, one[1] or 0))


def _listed(folder: Path, *, missing_ok: bool) -> list[Path]:
    try:
        return [one for one in folder.iterdir() if not one.name.startswith(".")]
    except FileNotFoundError as error:
        if missing_ok:  # nothing of this class on this device
            return []
        raise DatasetError(f"{folder}: no such folder; set data.path to it") from error
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read ({error.strerror})") from error


def _refuse_other_folders(source: WindowsSource) -> None:
    for one in _listed(source.path, missing_ok=False):
        if one.name not in source.classes:
            raise DatasetError(
                f"{one}: not a folder of data.classes ({', '.join(source.classes)[:200]}); add its name "
                "there, or move it elsewhere"
            )


def _recording(source: WindowsSource, path: Path) -> Iterator[Any]:
    """Its rows; None for one that was dropped."""
    if path.suffix == ".csv":
        table = CsvSource(
            path,
            features=source.features,
            mean=source.mean,
            deviation=source.deviation,
            missing=source.missing,
            delimiter=source.delimiter,
        )
        return (row.values for row in csv_rows(table))
    return _array_rows(source, path)


def _array_rows(source: WindowsSource, path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file:
            read = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: not a readable .npy of numbers ({error})") from error
    if not isinstance(read, np.ndarray) or read.dtype.kind not in "biuf" or read.ndim not in {1, 2}:
        raise DatasetError(f"{path}: not one array of numbers (rows, features); write it with numpy.save")
    rows = read.reshape(len(read), -1).astype(np.float64, copy=False)
    wanted = len(source.features) or len(source.mean)
    if wanted and rows.shape[1] != wanted:
        raise DatasetError(
            f"{path}: {rows.shape[1]} features, but data.features or data.mean has {wanted}; write one for "
            "each"
        )
    for number, values in enumerate(rows, start=1):
        if math.isfinite(values.sum()):
            yield array("d", values)
        elif source.missing == "error":
            raise DatasetError(
                f'{path}: row {number} is not finite; correct it, or set data.missing = "drop"'
            )
        else:
            yield None
