"""The adversary: it learns from runs whose coin it is told, then guesses those of others.

For a sum that is the canary's known signal plus independent noise the best statistic is the likelihood ratio.
What a bug changes, the adversary cannot know beforehand, so it learns it: how much of the signal arrives in
each block, and the noise of each rotated coordinate and each metric. Noise that is missing from one of them
has no variance there, and decides alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from audit.game import Reals, Seen
from privacy.noised_update import NoisedEncoding

_FLOOR = 1e-9
"""Least variance, in units of the sensitivity: where there is no noise at all."""

_METRICS = len(NoisedEncoding.METRICS)


@dataclass(frozen=True)
class Adversary:
    """What was learned.

    Attributes:
        gain: shape (coordinates,): how much of the signal arrives.
        variance: shape (coordinates,): of the noise.
    """

    gain: Reals
    variance: Reals

    @classmethod
    def taught(cls, lessons: Sequence[Seen], coins: Sequence[bool]) -> Self:
        """Learn from runs whose coin is known: least squares for the gain, then what is left over."""
        values = np.stack([seen.values for seen in lessons])
        present = np.stack([seen.signal for seen in lessons]) * np.asarray(coins)[:, None, None]
        products, squares = (values * present).sum(axis=(0, 1)), (present**2).sum(axis=(0, 1))
        gain = np.empty(products.size)
        for block in (slice(None, -_METRICS), slice(-_METRICS, None)):
            gain[block] = products[block].sum() / squares[block].sum()
        rest = values - gain * present
        return cls(gain, (rest**2).mean(axis=(0, 1)) + _FLOOR)

    def log_odds(self, seen: Seen) -> float:
        """That the canary is in, against that it is out."""
        signal = self.gain * seen.signal
        return float((signal * (seen.values - signal / 2) / self.variance).sum())

    def separation(self, lessons: Sequence[Seen]) -> float:
        """mu: how far the log odds of the two worlds are apart, in their standard deviations."""
        signals = self.gain * np.stack([seen.signal for seen in lessons])
        return float(np.sqrt((signals**2 / self.variance).sum(axis=(1, 2)).mean()))
