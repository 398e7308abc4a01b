"""Rotation, rounding, exact noise and ring together give the mean the noise that the parameters promise."""

import math
from dataclasses import replace

import numpy as np
import pytest

from privacy.noise import SIGMA_PARTS, discrete_gaussian
from privacy.parameters import RoundParameters, Setting, round_parameters
from privacy.rotation import rotate, sign_bytes, unrotate
from privacy.rounding import round_within, squared_length
from privacy.survivors import Cohort


def masked_sum(made: RoundParameters, updates: np.ndarray, seed: int) -> np.ndarray:
    """What remains of the devices' vectors after unmasking: their sum modulo 2^bits, read as signed."""
    generator = np.random.default_rng(seed)
    signs = generator.bytes(sign_bytes(updates.shape[1]))
    total = np.zeros(updates.shape[1], np.int64)
    for update in updates:
        rotated = update.copy()
        rotate(rotated, signs)
        rounded = round_within(rotated, made.update.scale, made.update.norm_squared, generator.bytes)
        assert 0 < squared_length(rounded) <= made.update.norm_squared
        total += rounded
        total += discrete_gaussian(rounded.size, round(made.update.sigma * SIGMA_PARTS), generator.bytes)
    half = 1 << (made.setting.bits - 1)
    mean = (((total + half) % (2 * half)) - half) / made.update.scale / len(updates)
    unrotate(mean, signs)
    return mean


@pytest.mark.parametrize(
    ("members", "survivors", "size", "multiplier", "bits"),
    [(10, 10, 9000, 1.0, 16), (10, 7, 9000, 1.0, 16), (20, 14, 5000, 4.0, 16), (8, 8, 6000, 2.0, 12)],
)
def test_the_mean_carries_the_promised_noise(
    *, members: int, survivors: int, size: int, multiplier: float, bits: int
) -> None:
    made = round_parameters(
        Setting("distributed", multiplier, 0.02, Cohort(survivors, members, 0.1), size, 3, bits, clip=0.5)
    )
    # The worst for the ring: all at the clip and all the same.
    update = np.random.default_rng(1).normal(size=size)
    update *= 0.5 / np.linalg.norm(update)

    mean = masked_sum(made, np.tile(update, (survivors, 1)), seed=2)

    rmse = math.sqrt(np.mean((mean - update) ** 2))
    assert rmse == pytest.approx(made.expected_noise(survivors).rmse, rel=0.03)


def test_at_the_rings_edge_nothing_wraps() -> None:
    """Signal fills this ring: what fits 16 bits with room for six deviations wraps in 12."""
    setting = Setting("distributed", 0.05, 0.02, Cohort(10, 10, 0.1), 4096, 3, 16, clip=0.5)
    made = round_parameters(setting)
    update = np.random.default_rng(1).normal(size=4096)
    update *= 0.5 / np.linalg.norm(update)
    expected = made.expected_noise(10).rmse

    def rmse(parameters: RoundParameters) -> float:
        mean = masked_sum(parameters, np.tile(update, (10, 1)), seed=3)
        return math.sqrt(np.mean((mean - update) ** 2))

    assert rmse(made) == pytest.approx(expected, rel=0.05)
    assert rmse(replace(made, setting=replace(setting, bits=12))) > 2 * expected
