"""A device's own data: one `.npz` file that never leaves it.

    x        (n, …)  anything that converts to float32
    y        (n, …)  integer classes, or float targets; absent for an autoencoder, whose target is x
    x_test, y_test   optional; otherwise the last `holdout` part of x and y is held out

Never pickle: an object array could run code.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models.bundle import BundleManifest
from models.engines.interface import Examples, check_examples
from models.errors import DatasetError

_NAMES = {"x", "y", "x_test", "y_test"}


class Dataset(Struct, frozen=True):
    """Examples to train on and examples held out.

    Attributes:
        x: float32 (n, …), n >= 1.
        y: int64 or float32 (n, …).
        x_test: float32 (m, …), m >= 1.
        y_test: int64 or float32 (m, …).
    """

    x: Examples
    y: Examples
    x_test: Examples
    y_test: Examples

    def check(self, manifest: BundleManifest, path: Path) -> None:
        """Refuse data that this model cannot read.

        Raises:
            DatasetError: names file, array, shape and fix.
        """
        for part, x, y in (("training", self.x, self.y), ("held-out", self.x_test, self.y_test)):
            try:
                check_examples(manifest, x, y)
            except DatasetError as error:
                raise DatasetError(f"{path} ({part} part): {error}") from error


def load_dataset(path: Path, *, holdout: float = 0.2) -> Dataset:
    """Read a data file.

    Args:
        path: of the `.npz` file.
        holdout: part of the examples, from the end, that is evaluated on and never trained on, in (0, 1];
            unused when the file has x_test. Time series overlap, so the cut is by order, not at random.
            1 evaluates on all of it: for a coordinator's data, on which nobody trains.

    Raises:
        DatasetError: names file, array, shape and fix.
    """
    arrays = _read(path)
    if "x" not in arrays:
        raise DatasetError(f"{path}: no array 'x'; write it with numpy.savez(path, x=…, y=…)")
    if unknown := arrays.keys() - _NAMES:
        raise DatasetError(f"{path}: unknown arrays {sorted(unknown)}; the names are {sorted(_NAMES)}")
    x = _inputs(path, "x", arrays["x"])
    y = _labels(path, "y", arrays["y"]) if "y" in arrays else x
    _check_length(path, "x", x, "y", y)
    if "x_test" in arrays:
        return _with_test(path, arrays, x, y)
    if "y_test" in arrays:
        raise DatasetError(f"{path}: 'y_test' without 'x_test'; add it, or leave both out")
    if holdout == 1.0:
        return Dataset(x, y, x, y)
    cut = len(x) - max(1, round(holdout * len(x)))
    if cut < 1:
        raise DatasetError(f"{path}: x has shape {x.shape}; at least 2 examples are needed, 1 to hold out")
    return Dataset(x[:cut], y[:cut], x[cut:], y[cut:])


def _with_test(path: Path, arrays: dict[str, NDArray[Any]], x: Examples, y: Examples) -> Dataset:
    x_test = _inputs(path, "x_test", arrays["x_test"])
    if ("y_test" in arrays) != ("y" in arrays):
        raise DatasetError(f"{path}: 'y' and 'y_test' must be given both or neither")
    y_test = _labels(path, "y_test", arrays["y_test"]) if "y_test" in arrays else x_test
    _check_length(path, "x_test", x_test, "y_test", y_test)
    return Dataset(x, y, x_test, y_test)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DatasetError(f"{path}: a single array; write it with numpy.savez(path, x=…, y=…)")
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: not a readable .npz of plain arrays ({error})") from error


def _inputs(path: Path, name: str, array: NDArray[Any]) -> Examples:
    if array.dtype.kind not in "biuf" or array.ndim < 1 or len(array) == 0:
        raise DatasetError(
            f"{path}: {name} is {array.dtype} {array.shape}; it must be numbers (n, …), n >= 1"
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def _labels(path: Path, name: str, array: NDArray[Any]) -> Examples:
    """Integers are classes, floats are targets: the file says which by its dtype."""
    if array.dtype.kind not in "biuf" or array.ndim < 1:
        raise DatasetError(f"{path}: {name} is {array.dtype} {array.shape}; it must be numbers (n, …)")
    return np.ascontiguousarray(array, dtype=np.float32 if array.dtype.kind == "f" else np.int64)


def _check_length(path: Path, name_x: str, x: Examples, name_y: str, y: Examples) -> None:
    if len(x) != len(y):
        raise DatasetError(
            f"{path}: {name_x} has shape {x.shape}, {name_y} {y.shape}; the first axes must agree"
        )
