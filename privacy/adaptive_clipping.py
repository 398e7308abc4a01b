"""The clip follows the updates: Andrew, Thakkar, McMahan, Ramaswamy 2021 (arXiv 1905.03871).

Each device reports one bit, whether it was clipped, in the metrics block and under its noise. Nothing else
about the lengths of updates is seen, and the next clip is a function of what was published anyway, so it
costs no privacy beyond that block's.
"""

import math
from dataclasses import dataclass

COUNT_NOISE = 1 / 20
"""Standard deviation of the clipped count as a part of the members, as the paper advises."""


@dataclass(frozen=True, slots=True)
class ClipRule:
    """How the clip moves.

    Attributes:
        quantile: part of the updates that should not be clipped, in (0, 1).
        learning_rate: eta, > 0; the paper uses 0.2.
    """

    quantile: float
    learning_rate: float

    def next_clip(self, clip: float, clipped_fraction: float) -> float:
        """`C exp(-eta (unclipped - quantile))`: Andrew et al. 2021, section 2.1, the geometric update.

        Args:
            clip: C of the round that ended, > 0, in units of the weights.
            clipped_fraction: noised part of the survivors that were clipped. Noise may carry it out of
                [0, 1]; it is brought back, so that one round changes the clip by exp(eta) at most.

        Returns:
            The next round's clip, > 0.
        """
        unclipped = 1 - min(max(clipped_fraction, 0.0), 1.0)
        return clip * math.exp(-self.learning_rate * (unclipped - self.quantile))


def share_for(count_noise: float, noise_multiplier: float, metrics: int) -> float:
    """The part of a round's cost that gives every metric's sum this noise: `metrics (z / (2 sigma_b))^2`.

    For one metric it is Andrew et al. 2021, Theorem 1 said otherwise: their update's multiplier
    `(z^-2 - (2 sigma_b)^-2)^(-1/2)` is `z / sqrt(1 - share)`. A centred bit has a sensitivity of 1/2.

    Args:
        count_noise: sigma_b, standard deviation of the certain noise on the count, > 0, in devices.
        noise_multiplier: z of the whole round, > 0.
        metrics: values in the metrics block, >= 1.

    Returns:
        The share, > 0; 1 or more cannot be had.
    """
    return metrics * (noise_multiplier / (2 * count_noise)) ** 2
