"""Which of many examples are kept, when only so many may be."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

_BLOCK = 1024
"""Random numbers drawn at a time: one by one, drawing takes longer than reading."""


class Sampler(Protocol):
    """Decides for one example after another."""

    def place(self) -> int | None:
        """Where the next example goes, 0 to capacity - 1, over whatever is there; None leaves it out."""
        ...


class Reservoir:
    """A uniform sample without replacement of however many come.

    Algorithm R (Vitter 1985, "Random sampling with a reservoir", section 2): example number i, from 0, goes
    to a place drawn from 0 to i, and is left out when that is beyond the capacity.

    Args:
        capacity: examples kept, >= 1.
        seed: numbers >= 0; the same give the same sample.
    """

    def __init__(self, capacity: int, seed: Sequence[int]) -> None:
        self._capacity = capacity
        self._filled = 0
        self._drawn = _draws(capacity, np.random.default_rng(seed))

    def place(self) -> int | None:
        """See `Sampler`."""
        if self._filled < self._capacity:
            self._filled += 1
            return self._filled - 1
        drawn = next(self._drawn)
        return drawn if drawn < self._capacity else None


class Newest:
    """The last ones, in a ring.

    Args:
        capacity: examples kept, >= 1.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._seen = 0

    def place(self) -> int | None:
        """See `Sampler`."""
        self._seen += 1
        return (self._seen - 1) % self._capacity


def _draws(first: int, random: np.random.Generator) -> Iterator[int]:
    """For i = first, first + 1, …: a number from 0 to i."""
    while True:
        yield from random.integers(0, np.arange(first, first + _BLOCK), endpoint=True).tolist()
        first += _BLOCK
