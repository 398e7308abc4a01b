"""Real numbers to ring elements and back: fixed point with stochastic rounding."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.errors import QuantizationError

RandomBytes: TypeAlias = Callable[[int], bytes]
"""Called with a number of bytes; answers that many fresh, uniform, unpredictable ones."""

Integers: TypeAlias = NDArray[np.signedinteger[Any]]

# Fewer levels than this on each side of zero and rounding noise drowns the update.
MIN_LEVELS = 8.0

# What the proof in `scale_for` covers.
_BITS = range(2, 33)
_MEMBERS = range(1, 2**20)

# Coordinates rounded at a time: the float64 scratch of one chunk stays in a core's cache.
_CHUNK = 16_384
_WORD = 2.0**-32


def scale_for(bits: int, limit: float, max_members: int) -> float:
    """The largest scale at which a sum over `max_members` cannot leave the signed range of the ring.

    `s = ((2^(b-1) - 1) / n - 1) / limit`.

    No overflow: `|x| <= limit` gives `|s x| <= L` with `L + 1 = (2^(b-1) - 1) / n`. Stochastic rounding moves
    a value by less than 1, and float64 rounding of `s x + u` by less than 2^-20 (as |s x| < 2^31), so the
    integer result q satisfies `|q| < L + 1 + 2^-20`. The fractional part of L + 1 is at most 1 - 1/n, so for
    n < 2^20 no integer lies strictly between L + 1 and L + 1 + 2^-20; hence `|q| <= L + 1`, and a sum of n
    such values is at most 2^(b-1) - 1 in magnitude.

    Args:
        bits: ring width b, 2 to 32.
        limit: bound of one coordinate, > 0, finite, in units of the weights.
        max_members: most updates that are ever summed, 1 to 2^20 - 1.

    Returns:
        Levels per unit of the weights, > 0.

    Raises:
        QuantizationError: fewer than 8 levels remain on each side of zero, an argument is out of range, or
            the limit is so small that the scale is infinite.
    """
    if bits not in _BITS or max_members not in _MEMBERS or not (limit > 0 and math.isfinite(limit)):
        raise QuantizationError(
            f"bits {bits}, limit {limit}, members {max_members}: bits must be 2 to 32, the limit positive "
            "and finite, members 1 to 2^20 - 1"
        )
    levels = ((1 << (bits - 1)) - 1) / max_members - 1
    if levels < MIN_LEVELS:
        raise QuantizationError(
            f"{bits} bits shared by {max_members} members leave {max(levels, 0):.1f} levels on each side of "
            f"zero, below {MIN_LEVELS:.0f}; raise bits or invite fewer members (limit {limit} plays no part)"
        )
    scale = levels / limit
    if not math.isfinite(scale):
        raise QuantizationError(f"limit {limit} is too small: the scale is infinite; raise limit or clip")
    return scale


def quantize(
    values: NDArray[np.float32] | NDArray[np.float64], scale: float, rounding_bits: RandomBytes
) -> NDArray[np.int32]:
    """Round `values * scale` up or down at random so that the expectation is exact: `floor(s x + u)`.

    Gupta et al. 2015 (Deep Learning with Limited Numerical Precision), section 3.1. u is uniform on the
    multiples of 2^-32 in [0, 1), so the bias is below 2^-32 of a level.

    Args:
        values: shape (d,), finite, |values * scale| < 2^31 - 1 (see `scale_for`).
        scale: levels per unit.
        rounding_bits: entropy; 4 bytes a value are taken, in order, as little-endian words.

    Returns:
        int32, shape (d,).
    """
    rounded = np.empty(values.size, dtype=np.int32)
    scratch = np.empty((2, min(_CHUNK, values.size)))
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK]
        levels, uniform = scratch[:, : part.size]
        # Widened by assignment: a ufunc that widens an operand as it goes takes longer.
        levels[:] = part
        levels *= scale
        uniform[:] = np.frombuffer(rounding_bits(4 * part.size), dtype="<u4")
        uniform *= _WORD
        levels += uniform
        np.floor(levels, out=levels)
        rounded[start : start + part.size] = levels
    return rounded


def dequantize(total: NDArray[np.int64], scale: float) -> NDArray[np.float64]:
    """Undo `quantize` on a sum: `total / scale`.

    Args:
        total: int64, shape (d,): signed sum of quantised values.
        scale: the scale they were quantised with.

    Returns:
        float64, shape (d,). Each summand contributes an error below 1 / scale.
    """
    return total / scale
