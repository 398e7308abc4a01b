"""Stochastic rounding whose result is short enough: the sensitivity of what is masked and noised.

Rounding a vector at random can lengthen it. Kairouz, Liu, Steinke 2021 (arXiv 2102.06387) draw again until
the integer vector is no longer than Δ, which a draw is with probability at least 1 - β. Here the bound is the
whole number ⌊Δ²⌋, held against an exact integer norm: whatever rotation, scaling or a float did before, the
sensitivity is what the accountant was told.
"""

import math

import numpy as np
from numpy.typing import NDArray

from privacy.errors import QuantizationError
from privacy.quantization import RandomBytes, quantize

RETRIES = 64
"""Draws after the first. An honest vector fails them all with probability at most β^65 = exp(-32.5)."""

# Longest integer vector: coordinates then fit the int32 of `quantize`.
_MAX_LENGTH = 2.0**31 - 4

# Coordinates squared at a time: their int64 squares stay in a core's cache.
_CHUNK = 16_384
_LOW = 2**32 - 1


def squared_sensitivity(scaled_clip: float, size: int) -> int:
    """Return ⌊Δ²⌋, the largest squared length of an integer vector that `round_within` lets through.

    Δ = min{ c + √d, sqrt(c² + d/4 + sqrt(2 ln(1/β)) (c + √d/2)) }, with c the scaled clip bound and
    β = exp(-1/2). The inner root is then 1, so the second is the smaller for every c > 0 and d >= 1:
    Δ² = c² + d/4 + c + √d/2.

    Args:
        scaled_clip: c = s C, levels: scale times clip bound, > 0.
        size: coordinates d, >= 1; the rotation adds none.

    Raises:
        QuantizationError: an argument is out of range, or a vector that long has coordinates beyond 32 bits.
    """
    if not 0 < scaled_clip <= _MAX_LENGTH or size < 1:
        raise QuantizationError(
            f"a clip bound of {scaled_clip} levels on {size} coordinates: it must be above 0 and below 2^31"
        )
    squared = math.floor(scaled_clip**2 + size / 4 + scaled_clip + math.sqrt(size) / 2)
    if squared > _MAX_LENGTH**2:
        raise QuantizationError(
            f"{math.sqrt(squared):.0f} levels of sensitivity do not fit 32 bits: lower the scale"
        )
    return squared


def round_within(
    values: NDArray[np.float32] | NDArray[np.float64],
    scale: float,
    max_squared: int,
    rounding_bits: RandomBytes,
) -> NDArray[np.int32]:
    """Round `values * scale` stochastically, drawing again while the result is too long.

    Each draw is unbiased. Drawing again adds a bias of length at most √β / (2 (1 - β)) < 1 level, over all
    coordinates together (Cauchy and Schwarz: in no direction does a draw's variance pass 1/4).

    Args:
        values: shape (d,), finite, of L2 norm at most the clip bound, in units of the weights.
        scale: s, levels per unit.
        max_squared: `squared_sensitivity(s C, d)`.
        rounding_bits: entropy, 4 d bytes a draw.

    Returns:
        int32, shape (d,), squared length at most `max_squared`: zeros after 64 retries, or at once when the
        vector was not clipped as said.
    """
    if not _within_reach(values, scale, max_squared):
        return np.zeros(values.size, np.int32)
    for _ in range(1 + RETRIES):
        rounded = quantize(values, scale, rounding_bits)
        if squared_length(rounded) <= max_squared:
            return rounded
    return np.zeros(values.size, np.int32)


def _within_reach(values: NDArray[np.float32] | NDArray[np.float64], scale: float, max_squared: int) -> bool:
    """Whether a draw could be short enough: one coordinate that is too large, or no number, is too much.

    What passes fits the int32 of `quantize`.
    """
    largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    return largest * scale <= math.sqrt(max_squared) + 1


def squared_length(values: NDArray[np.int32]) -> int:
    """Return the sum of squares, exactly.

    A square is at most 2^62. Its upper and lower 32 bits are summed apart, each sum below 2^32 d < 2^63.

    Args:
        values: int32, shape (d,), d < 2^31.
    """
    upper, lower = 0, 0
    for start in range(0, values.size, _CHUNK):
        squares = values[start : start + _CHUNK].astype(np.int64)
        squares *= squares
        lower += int((squares & _LOW).sum())
        squares >>= 32
        upper += int(squares.sum())
    return (upper << 32) + lower
