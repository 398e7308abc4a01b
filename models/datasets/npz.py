"""One `.npz` file.

    x        (n, …)  anything that converts to float32
    y        (n, …)  integer classes, or float targets; absent for an autoencoder, whose target is x
    x_test, y_test   optional; otherwise the last `holdout` part of x and y is held out

Never pickle: an object array could run code.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.datasets.dataset import Dataset, cut, examples_of
from models.datasets.source import DEFAULT_HOLDOUT
from models.errors import DatasetError

_NAMES = {"x", "y", "x_test", "y_test"}


def load_npz(path: Path, *, holdout: float | None = DEFAULT_HOLDOUT) -> Dataset:
    """Read a data file, all of it.

    Args:
        path: of the file.
        holdout: part of the examples, from the end, that is held out; unused when the file has x_test. None
            evaluates on all of them: for a coordinator's data, on which nobody trains.

    Raises:
        DatasetError: names file, array, shape and fix.
    """
    where, arrays = str(path), _read(path)
    if "y_test" in arrays and "x_test" not in arrays:
        raise DatasetError(f"{where}: 'y_test' without 'x_test'; add it, or leave both out")
    if "x_test" in arrays and ("y_test" in arrays) != ("y" in arrays):
        raise DatasetError(f"{where}: 'y' and 'y_test' must be given both or neither")
    x, y = examples_of(where, arrays["x"], arrays.get("y"))
    if "x_test" in arrays:
        test = examples_of(where, arrays["x_test"], arrays.get("y_test"), ("x_test", "y_test"))
        return Dataset(x, y, *test)
    return Dataset(x, y, x, y) if holdout is None else cut(where, x, y, holdout)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DatasetError(f"{path}: a single array; write it with numpy.savez(path, x=…, y=…)")
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{path}: not a readable .npz of plain arrays ({error}); set data.source for other kinds"
        ) from error
    if "x" not in arrays:
        raise DatasetError(f"{path}: no array 'x'; write it with numpy.savez(path, x=…, y=…)")
    if unknown := arrays.keys() - _NAMES:
        raise DatasetError(f"{path}: unknown arrays {sorted(unknown)}; the names are {sorted(_NAMES)}")
    return arrays
