"""Noise of every allowed size, and rounding that never passes its bound."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from privacy.noise import MAX_SIGMA, SIGMA_PARTS, discrete_gaussian, sigma_in_parts
from privacy.rounding import round_within, squared_length, squared_sensitivity

PARTS = st.one_of(
    st.integers(1, MAX_SIGMA * SIGMA_PARTS),
    st.builds(lambda power, off: max(2**power + off, 1), st.integers(0, 35), st.integers(-1, 1)),
)


@given(parts=PARTS, size=st.integers(0, 60), seed=st.integers(0, 2**32))
def test_noise_of_every_size_stays_within_its_tails(parts: int, size: int, seed: int) -> None:
    """Twelve sigma are passed once in 10^32."""
    noise = discrete_gaussian(size, parts, np.random.default_rng(seed).bytes)

    assert noise.shape == (size,)
    assert np.abs(noise).max(initial=0) <= 12 * parts / SIGMA_PARTS


@given(st.floats(0, MAX_SIGMA, exclude_min=True))
def test_sigma_is_rounded_up_by_less_than_a_part(sigma: float) -> None:
    parts = sigma_in_parts(sigma)

    assert parts - 1 < sigma * SIGMA_PARTS <= parts


@given(arrays(np.int32, st.integers(0, 50)))
def test_the_squared_length_is_that_of_whole_numbers(values: np.ndarray) -> None:
    assert squared_length(values) == sum(value * value for value in values.tolist())


@given(
    size=st.integers(1, 300),
    levels=st.floats(1e-3, 1e6),
    excess=st.sampled_from([0.0, 0.5, 1.0, 1.01, 2.0, 1e12]),
    seed=st.integers(0, 2**32),
)
def test_a_rounded_vector_is_never_longer_than_its_bound(
    size: int, levels: float, excess: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    update = generator.standard_normal(size)
    update *= excess / np.linalg.norm(update)
    limit = squared_sensitivity(levels, size)

    rounded = round_within(update, levels, limit, generator.bytes)

    assert squared_length(rounded) <= limit
    assert not rounded.any() or np.abs(rounded - levels * update).max() < 1 + 2**-20


@given(size=st.integers(1, 300), levels=st.floats(1e-3, 1e6), seed=st.integers(0, 2**32))
def test_a_draw_is_short_enough_as_often_as_promised(size: int, levels: float, seed: int) -> None:
    """At least 1 - exp(-1/2) = 0.39 of 40 draws; fewer than two come with probability below 10^-7."""
    generator = np.random.default_rng(seed)
    update = generator.standard_normal(size)
    update *= levels / np.linalg.norm(update)
    limit = squared_sensitivity(levels, size)

    draws = [np.floor(update + generator.random(size)).astype(np.int32) for _ in range(40)]

    assert sum(squared_length(draw) <= limit for draw in draws) >= 2
    assert math.isqrt(limit) <= levels + math.sqrt(size)
