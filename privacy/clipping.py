"""Bounding one device's update before it is quantised."""

import math

import numpy as np
from numpy.typing import NDArray

from privacy.errors import NotFiniteError

# Coordinates widened to float64 at a time: 64 KiB, which stays in a core's cache. OpenBLAS keeps a product
# this small on the calling thread; sharing it between two took 6 times as long, and 25 beside other work.
_CHUNK = 8_192

_LARGEST = float(np.finfo(np.float32).max)


def clip_l2(delta: NDArray[np.float32], limit: float) -> tuple[NDArray[np.float32], bool]:
    """Scale an update into the L2 ball: `delta * min(1, limit / ||delta||)`.

    McMahan et al. 2018 (Learning Differentially Private Recurrent Language Models), section 3. The norm is
    taken and divided in float64; the rounded result's norm exceeds `limit` by at most one part in 2^24.

    Args:
        delta: float32, shape (d,).
        limit: L2 bound, > 0, in units of the weights.

    Returns:
        A clipped copy, and whether anything was clipped.

    Raises:
        NotFiniteError: a coordinate is NaN or infinite.
    """
    norm = _norm(delta)
    if not math.isfinite(norm):
        # The square of a finite float32 is at most 1.2e77, so only NaN and infinity come here.
        raise NotFiniteError(
            "the update holds NaN or infinity; lower training.learning_rate or check the data"
        )
    if norm <= limit:
        return delta.copy(), False
    shortened = np.empty_like(delta)
    np.multiply(delta, limit / norm, out=shortened, dtype=np.float64, casting="same_kind")
    return shortened, True


def clamp(delta: NDArray[np.float32], limit: float) -> tuple[NDArray[np.float32], float]:
    """Bound every coordinate to [-limit, limit].

    Args:
        delta: float32, shape (d,), finite.
        limit: coordinate bound, > 0, in units of the weights.

    Returns:
        A clamped copy, and the fraction of coordinates that were outside, in [0, 1].
    """
    bound = _float32_toward_zero(limit)
    saturated = np.count_nonzero(np.abs(delta) > bound)
    return np.clip(delta, -bound, bound), saturated / max(delta.size, 1)


def _norm(delta: NDArray[np.float32]) -> float:
    total = 0.0
    for start in range(0, delta.size, _CHUNK):
        part = delta[start : start + _CHUNK].astype(np.float64)
        total += float(np.dot(part, part))
    return math.sqrt(total)


def _float32_toward_zero(limit: float) -> np.float32:
    """The bound as float32, never above it: the no-overflow proof of `quantization` relies on that."""
    nearest = np.float32(min(limit, _LARGEST))
    return nearest if float(nearest) <= limit else np.nextafter(nearest, np.float32(0.0))
