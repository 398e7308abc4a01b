"""Discrete Gaussian noise, exact: no floating-point number takes part in any decision.

Canonne, Kamath, Steinke 2020 (arXiv 2004.00010): a discrete Laplace candidate (Algorithm 2) is kept with the
probability that makes it Gaussian (Algorithm 3); every decision is true with probability exp(-g), g rational,
and is taken with uniform words (Algorithm 1). Candidates are drawn a block at a time, each step for those
still alive.

Sigma is S / R with R = `SIGMA_PARTS`. The Laplace scale is sigma itself; the paper rounds it up to an
integer, but its proof holds for every scale: with q = |y| / sigma, exp(-q²/2) = exp(-q) exp(-(q - 1)²/2) √e.
A candidate is X = U + S V, with U uniform below S and kept with probability exp(-U/S), and V geometric,
P(V >= v) = exp(-v). Its magnitude Y = ⌊X / R⌋ survives with probability exp(-z²/2), where
z = |Y R / S - 1| = k + f/S with integers k >= 0 and 0 <= f < S. No number of more bits than S and a small
factor is needed, because

    exp(-z²/2) = exp(-(f/S) (f/2S)) · exp(-1/2)^(k²) · exp(-f/S)^k.

No overflow: S <= 2^36 (`MAX_SIGMA`). V, and the index j of Algorithm 1, grow by one with each read of
entropy: V with probability 1/e, j with probability at most 1/j. Below 2^26, X < S (V + 1) <= 2^62; as
Y R <= X, also k <= V and k² < 2^52; and the largest denominator, 2 S j, is below 2^63. One candidate leaves
that range with probability below exp(-2^26).

How long a draw takes depends on the candidates, so a clock near the device may learn a little of the noise.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.errors import NoiseError
from privacy.quantization import RandomBytes

Integers: TypeAlias = NDArray[np.int64]
Words: TypeAlias = NDArray[np.uint64]
Indices: TypeAlias = NDArray[np.intp]

SIGMA_PARTS = 2**16
"""R: sigma is a whole number of these parts of one level."""

MAX_SIGMA = 2**20
"""In levels; the proof above needs it."""

# Candidates at a time: a fifth to a half of them become noise. Larger blocks left the second-level cache.
_BLOCK = 65_536

_TOP = 2**64 - 1


def sigma_in_parts(sigma: float) -> int:
    """Return S, sigma in parts of 1 / `SIGMA_PARTS`, rounded up: never less noise than asked for.

    Raises:
        NoiseError: sigma is not positive or above `MAX_SIGMA`.
    """
    if not 0 < sigma <= MAX_SIGMA:
        raise NoiseError(f"sigma is {sigma} levels; it must be above 0 and at most {MAX_SIGMA}")
    return math.ceil(sigma * SIGMA_PARTS)


def discrete_gaussian(size: int, parts: int, random_bytes: RandomBytes) -> Integers:
    """Draw integers x, independently, with P(x) proportional to `exp(-x² / (2 sigma²))`.

    Args:
        size: how many, >= 0.
        parts: S = sigma * `SIGMA_PARTS`, 1 to `MAX_SIGMA` * `SIGMA_PARTS`.
        random_bytes: entropy; about 120 bytes a number are taken for sigma >= 10, 270 for sigma = 0.1.

    Returns:
        int64, shape (size,).

    Raises:
        NoiseError: `parts` is out of range.
    """
    if not 1 <= parts <= MAX_SIGMA * SIGMA_PARTS:
        raise NoiseError(f"sigma is {parts} parts; it must be 1 to {MAX_SIGMA * SIGMA_PARTS}")
    decisions = _Decisions(random_bytes)
    noise = np.empty(size, np.int64)
    filled = 0
    while filled < size:
        drawn = _draw(min(_BLOCK, 3 * (size - filled) + 64), parts, decisions)[: size - filled]
        noise[filled : filled + drawn.size] = drawn
        filled += drawn.size
    return noise


def _draw(candidates: int, parts: int, decisions: "_Decisions") -> Integers:
    """Algorithm 3 for a block; return the candidates that survive, in order."""
    laplace = _draw_laplace(candidates, parts, decisions)
    distances = np.abs(np.abs(laplace) * SIGMA_PARTS - parts)
    wholes = distances // parts
    fractions = (distances - wholes * parts).astype(np.uint64)
    alive = decisions.exp_of_product(fractions, parts, 2 * parts)
    halves = np.ones(alive.size, np.uint64)
    alive = alive[decisions.exp_repeated(wholes[alive] ** 2, halves, 2)]
    alive = alive[decisions.exp_repeated(wholes[alive], fractions[alive], parts)]
    survivors: Integers = laplace[alive]
    return survivors


def _draw_laplace(candidates: int, parts: int, decisions: "_Decisions") -> Integers:
    """Algorithm 2 for a block: P(y) proportional to `exp(-|y| / sigma)`."""
    steps = decisions.below(parts, candidates)
    steps = steps[decisions.exp_of(steps, parts)]
    magnitudes = (steps.astype(np.int64) + parts * decisions.geometric(steps.size)) // SIGMA_PARTS
    negative = decisions.coins(steps.size)
    signed: Integers = np.where(negative, -magnitudes, magnitudes)
    once = np.flatnonzero(~negative | (magnitudes != 0))  # or zero would come up twice as often
    laplace: Integers = signed[once]
    return laplace


@dataclass(frozen=True)
class _Decisions:
    """Exact random decisions for many candidates at once, each from uniform 64-bit words.

    Fractions are numerators (uint64 arrays) over one denominator below 2^64. A decision's result is the
    ascending indices for which it came true: numpy picks by indices five times faster than by a mask.
    """

    random_bytes: RandomBytes

    def below(self, end: int, count: int) -> Words:
        """Return uniform integers in [0, end)."""
        width = _TOP // end
        return self._words(width * end, count) // np.uint64(width)

    def coins(self, count: int) -> NDArray[np.bool_]:
        """Return fair coins."""
        packed = np.frombuffer(self.random_bytes(-(-count // 8)), np.uint8)
        return np.unpackbits(packed, count=count).view(np.bool_)

    def bernoulli(self, numerators: Words, denominator: int) -> Indices:
        """Come true with probability numerator / denominator, which is at most 1.

        A word below `denominator * width` is uniform there; exactly `numerator * width` of these values are
        below the threshold. Neither product passes 2^64 - 1.
        """
        width = _TOP // denominator
        words = self._words(width * denominator, numerators.size)
        return np.flatnonzero(words < numerators * np.uint64(width))

    def exp_of(self, numerators: Words, denominator: int) -> Indices:
        """Come true with probability exp(-g) where g = numerator / denominator, 0 to 1."""
        return self.exp_of_product(numerators, denominator)

    def exp_of_product(self, numerators: Words, *denominators: int) -> Indices:
        """Come true with probability exp(-g), g the product of numerator / denominator over these.

        Algorithm 1: count up j from 1 while Bernoulli(g / j) succeeds; true when it first fails at an odd j.
        """
        *others, last = denominators
        odd = np.ones(numerators.size, np.bool_)
        alive = np.arange(numerators.size)
        j = 1
        while alive.size:
            for denominator in others:
                alive = alive[self.bernoulli(numerators[alive], denominator)]
            alive = alive[self.bernoulli(numerators[alive], last * j)]
            j += 1
            odd[alive] = j % 2 == 1
        return np.flatnonzero(odd)

    def exp_repeated(self, times: Integers, numerators: Words, denominator: int) -> Indices:
        """Come true with probability exp(-g)^times: that many decisions, all true."""
        kept = np.ones(times.size, np.bool_)
        alive = np.flatnonzero(times)
        done = 0
        while alive.size:
            kept[alive] = False
            alive = alive[self.exp_of(numerators[alive], denominator)]
            kept[alive] = True
            done += 1
            alive = alive[np.flatnonzero(times[alive] > done)]
        return np.flatnonzero(kept)

    def geometric(self, count: int) -> Integers:
        """Return v with P(v or more) = exp(-v)."""
        successes = np.zeros(count, np.int64)
        alive = np.arange(count)
        while alive.size:
            alive = alive[self.exp_of(np.ones(alive.size, np.uint64), 1)]
            successes[alive] += 1
        return successes

    def _words(self, end: int, count: int) -> Words:
        """Return uniform 64-bit words below `end`; those at or above it, less than half, are drawn again."""
        words = np.frombuffer(self.random_bytes(8 * count), "<u8")
        wrong = np.flatnonzero(words >= np.uint64(end))
        if wrong.size:
            words = words.copy()
            words[wrong] = self._words(end, wrong.size)
        return words
