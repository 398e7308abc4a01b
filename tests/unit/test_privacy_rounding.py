import math

import numpy as np
import pytest

from privacy.errors import QuantizationError
from privacy.rounding import RETRIES, round_within, squared_length, squared_sensitivity

UP, DOWN = b"\xff", b"\x00"


class Entropy:
    """Rounds everything up or everything down, one direction a draw, and counts the draws."""

    def __init__(self, *draws: bytes) -> None:
        self.draws = [*draws]
        self.taken = 0

    def __call__(self, size: int) -> bytes:
        direction = self.draws[min(self.taken, len(self.draws) - 1)]
        self.taken += 1
        return direction * size


def test_sensitivity_follows_the_formula() -> None:
    assert squared_sensitivity(100.0, 10_000) == 100**2 + 10_000 // 4 + 100 + 50
    assert squared_sensitivity(0.5, 1) == math.floor(0.25 + 0.25 + 0.5 + 0.5)


@pytest.mark.parametrize("levels", [1e-9, 0.5, 1.0, 30.0, 1e6])
@pytest.mark.parametrize("size", [1, 2, 100, 1_000_000])
def test_the_bound_that_always_holds_is_never_the_smaller(levels: float, size: int) -> None:
    assert math.sqrt(squared_sensitivity(levels, size)) < levels + math.sqrt(size)


def test_sensitivity_grows_by_the_published_factor_when_the_scale_is_small() -> None:
    """12 bits, a thousand members of whom two thirds survive, a million parameters: 1.84 times."""
    members, size, tail, multiplier_squared = 1000, 1_000_000, 4.0, 3 / 2
    range_left = (2**11 / tail) ** 2 - members / 4
    levels = math.sqrt(range_left / (members**2 / size + multiplier_squared))

    assert math.sqrt(squared_sensitivity(levels, size)) / levels == pytest.approx(1.84, abs=0.01)


@pytest.mark.parametrize("levels", [0.0, -1.0, math.nan, math.inf, 2.0**31])
def test_a_clip_bound_outside_32_bits_is_refused(levels: float) -> None:
    with pytest.raises(QuantizationError):
        squared_sensitivity(levels, 10)


def test_rounding_that_passes_32_bits_is_refused_with_the_remedy() -> None:
    with pytest.raises(QuantizationError, match="lower the scale"):
        squared_sensitivity(2.0**31 - 4.25, 1_000_000)


def test_a_draw_that_is_short_enough_is_taken() -> None:
    entropy = Entropy(UP)

    assert round_within(np.array([0.5, 1.5]), 1.0, 5, entropy).tolist() == [1, 2]
    assert entropy.taken == 1


def test_a_draw_that_is_too_long_is_drawn_again() -> None:
    entropy = Entropy(UP, UP, DOWN)

    assert round_within(np.array([0.5, 1.5]), 1.0, 4, entropy).tolist() == [0, 1]
    assert entropy.taken == 3


def test_after_the_last_retry_the_vector_is_zero() -> None:
    entropy = Entropy(UP)

    rounded = round_within(np.array([0.5, 1.5]), 1.0, 4, entropy)

    assert rounded.tolist() == [0, 0]
    assert rounded.dtype == np.int32
    assert entropy.taken == 1 + RETRIES


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e9, -1e9])
def test_what_was_never_clipped_is_zero_at_once(value: float) -> None:
    entropy = Entropy(UP)

    assert round_within(np.array([0.5, value]), 4.0, 100, entropy).tolist() == [0, 0]
    assert entropy.taken == 0


def test_the_squared_length_is_exact_where_floats_and_64_bits_are_not() -> None:
    values = np.full(40_000, -(2**31), np.int32)
    values[:3] = (1, 2, 2**31 - 1)

    assert squared_length(values) == 39_997 * 2**62 + 1 + 4 + (2**31 - 1) ** 2
    assert squared_length(np.array([], np.int32)) == 0


@pytest.mark.parametrize("levels", [0.3, 30.0, 3000.0])
def test_an_honest_update_passes_within_the_retries(levels: float) -> None:
    """The bound's own claim is one failure in e^0.5 draws at most; 30 updates all pass."""
    generator = np.random.default_rng(1)
    limit = squared_sensitivity(levels, 2000)
    for _ in range(30):
        update = generator.standard_normal(2000)
        update /= np.linalg.norm(update)
        rounded = round_within(update, levels, limit, generator.bytes)
        assert squared_length(rounded) <= limit
        assert rounded.any() or levels < 1


def test_rounding_within_the_bound_is_unbiased() -> None:
    """The mean of 2,000 roundings is within 5.5 deviations and a level, over all coordinates together."""
    generator = np.random.default_rng(2)
    update = generator.standard_normal(400).astype(np.float32)
    update /= np.linalg.norm(update)
    limit, draws = squared_sensitivity(20.0, 400), 2000

    mean = np.mean([round_within(update, 20.0, limit, generator.bytes) for _ in range(draws)], axis=0)

    assert np.linalg.norm(mean - 20.0 * update) < 1 + 5.5 * math.sqrt(400 / 4 / draws)
    assert abs((mean - 20.0 * update).mean()) < 0.05
