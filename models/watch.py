"""The bundled demo data: smart-watch motion of ten people doing seven shoulder exercises.

Source: D. M. Burns et al. 2018, "Shoulder physiotherapy exercise recognition" (Physiological Measurement),
as packed in PyPI's `seglearn` 1.2.5 under the BSD-3-Clause licence beside the data; here at 25 Hz, int8 with
a scale for each channel (`scripts/rebuild_watch_data.py` makes the file). 140 recordings of 19 to 52 s:
accelerometer (3 channels) and gyroscope (3), each exercise with each arm of each person.
"""

from importlib.resources import files
from itertools import pairwise
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models.errors import DatasetError
from models.layout import Vector

CHANNELS = 6
WINDOW = 128
"""Samples of a window: 5.12 s at 25 Hz, one repetition of the slowest exercise."""
STRIDE = 32
CLASSES = 7
MAX_DEVICES = 50
"""Spread over 53, some device's recordings are all too short for a test window."""

MEAN = np.array([-0.3, 24.2, -6.3, 0.6, -0.1, 0.3], dtype=np.float32)
DEVIATION = np.array([33.1, 31.3, 22.3, 21.2, 36.8, 28.7], dtype=np.float32)
"""Of each channel's int8 steps over the training parts of all recordings; published once, so that no device
needs another's data to standardise its own. They replace the file's `scale`, which would cancel."""

_TEST_PART = 0.25


class DeviceData(Struct, frozen=True):
    """What one device holds.

    Attributes:
        name: "wrist-01" and so on, in the order person, arm, exercise.
        x_train: windows, float32 (n, 6, 128).
        y_train: exercise 0 to 6, int64 (n,).
        x_test: windows from the last quarter of every recording, float32 (m, 6, 128).
        y_test: int64 (m,).
    """

    name: str
    x_train: Vector
    y_train: NDArray[np.int64]
    x_test: Vector
    y_test: NDArray[np.int64]


class _Recording(Struct, frozen=True):
    owner: tuple[int, int]  # person, side
    exercise: int
    signal: Vector  # float32 (samples, 6)


def load_watch(split: Literal["subject", "subject-side"] | int = "subject") -> list[DeviceData]:
    """Spread the recordings over devices.

    Args:
        split: "subject" is one device a person (10), "subject-side" one a person and arm (20). A number of
            devices from 1 to 50 takes the order person, arm, exercise and cuts the 140 recordings into that
            many runs of equal length (one more or less): 10 and 20 are exactly the two named splits, fewer
            devices hold several people, more devices hold some of a person's exercises.

    Raises:
        DatasetError: another number.
    """
    count = {"subject": 10, "subject-side": 20}.get(split, split) if isinstance(split, str) else split
    if not isinstance(count, int) or not 1 <= count <= MAX_DEVICES:
        raise DatasetError(f"the watch data can be split over 1 to {MAX_DEVICES} devices, not {split!r}")
    recordings = sorted(_read(), key=lambda each: (each.owner, each.exercise))
    bounds = np.linspace(0, len(recordings), count + 1).round().astype(int)
    width = len(str(count))
    return [
        _device(f"wrist-{index:0{width}}", recordings[start:end])
        for index, (start, end) in enumerate(pairwise(bounds), start=1)
    ]


def _read() -> list[_Recording]:
    with (
        (files("models") / "data" / "watch25_int8.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as data,
    ):
        signals = (data["x"] - MEAN) / DEVIATION
        ends = np.cumsum(data["length"].astype(int))
        parts = np.split(signals, ends[:-1])
        owners = zip(data["subject"].tolist(), data["side"].tolist(), strict=True)
        return [
            _Recording(owner, int(exercise), part)
            for owner, exercise, part in zip(owners, data["y"], parts, strict=True)
        ]


def _device(name: str, recordings: list[_Recording]) -> DeviceData:
    cuts = [len(each.signal) - round(_TEST_PART * len(each.signal)) for each in recordings]
    train = [_windows(each.signal[:cut]) for each, cut in zip(recordings, cuts, strict=True)]
    test = [_windows(each.signal[cut:]) for each, cut in zip(recordings, cuts, strict=True)]
    return DeviceData(
        name,
        np.concatenate(train),
        _labels(recordings, train),
        np.concatenate(test),
        _labels(recordings, test),
    )


def _windows(signal: Vector) -> Vector:
    """(samples, 6) to (n, 6, 128); n is 0 for fewer than 128 samples."""
    if len(signal) < WINDOW:
        return np.empty((0, CHANNELS, WINDOW), dtype=np.float32)
    return np.lib.stride_tricks.sliding_window_view(signal, WINDOW, axis=0)[::STRIDE].copy()


def _labels(recordings: list[_Recording], windows: list[Vector]) -> NDArray[np.int64]:
    counts = [len(each) for each in windows]
    return np.repeat(np.array([each.exercise for each in recordings], dtype=np.int64), counts)
