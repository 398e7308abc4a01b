"""Examples, and who holds them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Inputs = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Inputs, float32 (..., n, *shape), and their classes, int64 (..., n)."""

    x: Inputs
    y: Labels

    def __len__(self) -> int:
        return len(self.y)

    def part(self, start: int, end: int) -> "Examples":
        """Some of the first axis."""
        return Examples(self.x[start:end], self.y[start:end])

    def take(self, rows: Labels) -> "Examples":
        """Those of the first axis, in that order and shape."""
        return Examples(self.x[rows], self.y[rows])


@dataclass(frozen=True)
class Fleet:
    """What each device trains on, and the examples that the shared model is judged by."""

    clients: tuple[Examples, ...]
    test: Examples


def joined(parts: "list[Examples]") -> Examples:
    """All examples of several parts."""
    return Examples(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))
