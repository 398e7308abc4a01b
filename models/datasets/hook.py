"""A Python file of the device's owner, loaded by its path and never sent.

    def load():
        return x, y            # arrays: x (n, …), y integer classes or float targets; or x alone
        # or an iterator of examples (x_i, y_i) or x_i, in the order of time: it is asked for twice, once to
        # count them, and has to yield the same again; more at the end are left for the next time

It runs with the agent's rights, in the training process, within that process's memory and processor time.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from models.datasets.dataset import Dataset, cut, examples_of
from models.datasets.rows import Reading, Row
from models.datasets.source import HookSource
from models.errors import DatasetError

FUNCTION = "load"

PAIR = 2
"""Of x and y."""


def call_hook(source: HookSource) -> Dataset | Reading:
    """Run the file and its function.

    Returns:
        Arrays that were cut, or what iterates over the examples.

    Raises:
        DatasetError: names the file and, of an error in it, line and kind; never its text, which may hold
            data.
    """
    load = _function(source.path)
    with _named(source.path):
        made = load()
    where = str(source.path)
    if isinstance(made, np.ndarray):
        return cut(where, *examples_of(where, made, None), source.holdout)
    if isinstance(made, tuple):
        if len(made) != PAIR:
            raise DatasetError(f"{where}: {FUNCTION}() returned {len(made)} things; return x, y")
        with _named(source.path):
            arrays = np.asarray(made[0]), np.asarray(made[1])
        return cut(where, *examples_of(where, *arrays), source.holdout)
    return _twice(source.path, made, load)


def _function(path: Path) -> Callable[[], Any]:
    module = ModuleType("fedfleet_data_hook")
    module.__file__ = str(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); set data.path to it") from error
    with _named(path):
        # Anew each time, and nothing is written beside it, as importing would.
        exec(compile(text, str(path), "exec"), module.__dict__)  # noqa: S102 - it is the owner's own code
    load = getattr(module, FUNCTION, None)
    if not callable(load):
        raise DatasetError(f"{path}: no function {FUNCTION}(); write one that returns x, y")
    return load  # type: ignore[no-any-return]


def _twice(path: Path, first: Any, load: Callable[[], Any]) -> Reading:
    made = [first]

    def read() -> Iterator[Row]:
        with _named(path):
            examples = iter(made.pop() if made else load())
        while True:
            with _named(path):
                try:
                    example = next(examples)
                except StopIteration:
                    return
            pair = example if isinstance(example, tuple) else (example, None)
            if len(pair) != PAIR:
                raise DatasetError(f"{path}: {FUNCTION}() yielded {len(pair)} things at once; yield x, y")
            yield Row("", *pair)

    return read


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of somebody else's code, by file and line; a lack of memory is told by others."""
    try:
        yield
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - raised again under a name of ours
        line = _line(error, path)
        place = str(path) if line is None else f"{path}, line {line}"
        raise DatasetError(
            f"{place}: {type(error).__name__}; call {FUNCTION}() by hand to see more"
        ) from None


def _line(error: BaseException, path: Path) -> int | None:
    """Where in the file it came from."""
    if isinstance(error, SyntaxError):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
