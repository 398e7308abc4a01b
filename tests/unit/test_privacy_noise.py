"""The sampler against the exact distribution.

Seeds are fixed, so these tests are deterministic. Were they not, each comparison would fail by chance with
probability below 10^-7: chi-square by the bound of Laurent and Massart 2000 (lemma 1), the rest by normal
deviations of 5.5.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from privacy.errors import NoiseError
from privacy.noise import MAX_SIGMA, SIGMA_PARTS, _Decisions, discrete_gaussian, sigma_in_parts

DRAWS = 100_000
MANY = 2_000_000
"""Enough for chi-square to see a sigma that is wrong by one percent; a few seconds in all."""
FALSE_ALARM = 1e-7
DEVIATIONS = 5.5
SIGMAS = [0.1, 0.5, 1.0, 3.24, 17.3, 1000.0, 2.0**20]


def sample(sigma: float, draws: int = DRAWS) -> NDArray[np.int64]:
    return drawn(sigma_in_parts(sigma), draws)


@cache
def drawn(parts: int, draws: int) -> NDArray[np.int64]:
    noise = discrete_gaussian(draws, parts, np.random.default_rng(parts).bytes)
    noise.flags.writeable = False
    return noise


def exact(parts: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Integers up to 12 sigma away, in steps when there are many, and their probabilities.

    Steps are at most sigma/16384; the sum over a step is then that of its middle to one part in 10^9.
    """
    sigma = parts / SIGMA_PARTS
    step = 2 * int(sigma / 40_000) + 1
    reach = math.ceil(12 * sigma / step) + 1
    middles = step * np.arange(-reach, reach + 1)
    weights = np.exp(-(middles.astype(np.float64) ** 2) / (2 * sigma**2))
    return middles, weights / weights.sum()


def bins(parts: int, draws: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges between integers, and expected counts: about 40 bins, none below 10."""
    middles, probabilities = exact(parts)
    half_step = (middles[1] - middles[0]) / 2
    edges, expected, gathered = [-math.inf], [], 0.0
    for middle, probability in zip(middles.tolist(), probabilities.tolist(), strict=True):
        gathered += draws * probability
        if gathered >= (10 if len(edges) < 3 else draws / 40):
            edges.append(middle + half_step)
            expected.append(gathered)
            gathered = 0.0
    edges[-1] = math.inf
    expected[-1] += gathered
    return np.array(edges), np.array(expected)


def chi_square_excess(noise: NDArray[np.int64], parts: int) -> float:
    """Chi-square over its critical value at FALSE_ALARM: above 1 is an alarm."""
    edges, expected = bins(parts, noise.size)
    counts = np.histogram(noise, edges)[0]
    freedom, log = expected.size - 1, math.log(1 / FALSE_ALARM)
    critical = freedom + 2 * math.sqrt(freedom * log) + 2 * log
    return float(((counts - expected) ** 2 / expected).sum()) / critical


@pytest.mark.parametrize("sigma", [0.3, *SIGMAS[1:-1], 2.0**19])
def test_the_sample_fits_the_exact_distribution_and_no_sigma_one_percent_off(sigma: float) -> None:
    noise = sample(sigma, MANY)

    assert chi_square_excess(noise, sigma_in_parts(sigma)) < 1
    for wrong in (0.99, 1.01):
        assert chi_square_excess(noise, sigma_in_parts(sigma * wrong)) > 1


def test_the_largest_sigma_fits_too_and_the_smallest_draws_nothing_but_zero() -> None:
    """At sigma = 0.1 another number comes once in 10^21."""
    assert chi_square_excess(sample(SIGMAS[-1]), sigma_in_parts(SIGMAS[-1])) < 1
    assert not sample(SIGMAS[0]).any()


@pytest.mark.parametrize("sigma", [1.0, 17.3, 1000.0])
def test_a_mean_that_is_off_or_zeros_that_are_too_frequent_would_be_seen(sigma: float) -> None:
    generator = np.random.default_rng(8)
    right, parts = sample(sigma, MANY), sigma_in_parts(sigma)
    moved = right + generator.poisson(sigma / 100, MANY)
    silenced = np.where(generator.random(MANY) < 1 / 50, 0, right)

    assert chi_square_excess(moved, parts) > 1
    assert chi_square_excess(silenced, parts) > 1


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_rounded_continuous_noise_would_be_seen_where_it_differs(sigma: float) -> None:
    rounded = np.rint(np.random.default_rng(8).normal(0, sigma, MANY)).astype(np.int64)

    assert chi_square_excess(rounded, sigma_in_parts(sigma)) > 1


@pytest.mark.parametrize("sigma", SIGMAS)
def test_mean_variance_and_fourth_moment_are_exact(sigma: float) -> None:
    middles, probabilities = exact(sigma_in_parts(sigma))
    noise = sample(sigma).astype(np.float64)
    for power in (1, 2, 4):
        moment, second = ((probabilities * middles.astype(np.float64) ** p).sum() for p in (power, 2 * power))
        error = math.sqrt((second - moment**2) / DRAWS)
        assert abs((noise**power).mean() - moment) <= DEVIATIONS * error


@pytest.mark.parametrize("sigma", SIGMAS[1:])
def test_both_signs_are_as_frequent(sigma: float) -> None:
    noise = sample(sigma)
    above, below = np.count_nonzero(noise > 0), np.count_nonzero(noise < 0)

    assert abs(above - below) < DEVIATIONS * math.sqrt(above + below)


@pytest.mark.parametrize("sigma", SIGMAS[2:])
@pytest.mark.parametrize("distance", [2, 3, 4])
def test_the_tails_are_as_heavy_as_they_should_be(sigma: float, distance: int) -> None:
    """The share that `distance` sigmas leave out; 4 leave out 6 in 100,000."""
    middles, probabilities = exact(sigma_in_parts(sigma))
    step = middles[1] - middles[0]
    edge = step * math.ceil(distance * sigma / step) - step / 2
    expected = DRAWS * probabilities[np.abs(middles) > edge].sum()
    found = np.count_nonzero(np.abs(sample(sigma)) > edge)

    assert abs(found - expected) < DEVIATIONS * math.sqrt(expected) + DEVIATIONS**2 / 3


def test_neighbours_in_a_sample_are_independent() -> None:
    noise = sample(1000.0).astype(np.float64)
    for lag in (1, 2, 64):
        correlation = (noise[lag:] * noise[:-lag]).mean() / noise.var()
        assert abs(correlation) < DEVIATIONS / math.sqrt(noise.size)


def test_the_smallest_sigma_is_all_but_silent_and_a_sample_may_be_empty() -> None:
    assert not drawn(1, 1000).any()
    assert drawn(SIGMA_PARTS, 0).shape == (0,)


def test_the_same_entropy_draws_the_same_noise_and_other_entropy_other_noise() -> None:
    first, again, other = (
        discrete_gaussian(100, sigma_in_parts(50.0), np.random.default_rng(seed).bytes) for seed in (1, 1, 2)
    )

    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_sigma_in_parts_never_understates() -> None:
    assert sigma_in_parts(0.1) == 6554
    assert sigma_in_parts(math.nextafter(2.0, 3.0)) == 2 * SIGMA_PARTS + 1
    assert sigma_in_parts(MAX_SIGMA) == 2**36


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, math.nextafter(MAX_SIGMA, math.inf)])
def test_a_sigma_outside_the_proof_is_refused(sigma: float) -> None:
    with pytest.raises(NoiseError):
        sigma_in_parts(sigma)


@pytest.mark.parametrize("parts", [0, -5, MAX_SIGMA * SIGMA_PARTS + 1])
def test_parts_outside_the_proof_are_refused(parts: int) -> None:
    with pytest.raises(NoiseError):
        discrete_gaussian(1, parts, bytes)


def script(*words: int) -> Callable[[int], bytes]:
    """Entropy that says these 64-bit words, and nothing more."""
    waiting = b"".join(word.to_bytes(8, "little") for word in words)
    pieces: Iterator[int] = iter(range(0, len(waiting), 8))
    return lambda size: b"".join(waiting[(place := next(pieces)) : place + 8] for _ in range(size // 8))


@pytest.mark.parametrize(
    ("numerator", "denominator"),
    [(1, 3), (2, 3), (0, 7), (7, 7), (2**36 - 1, 2**36), (1, 2**63), (2**63, 2**63)],
)
def test_a_decision_has_exactly_its_share_of_the_words(numerator: int, denominator: int) -> None:
    width = (2**64 - 1) // denominator
    first_false, first_void = numerator * width, denominator * width
    given = np.array([numerator], np.uint64)

    if numerator:
        assert _Decisions(script(first_false - 1)).bernoulli(given, denominator).size
    if numerator < denominator:
        assert not _Decisions(script(first_false)).bernoulli(given, denominator).size
        assert not _Decisions(script(first_void, first_void - 1)).bernoulli(given, denominator).size
    assert _Decisions(script(2**64 - 1, 0)).bernoulli(given, denominator).size == (numerator > 0)


def test_an_integer_has_exactly_its_share_of_the_words() -> None:
    width = (2**64 - 1) // 3
    words = (0, width - 1, width, 2 * width, 3 * width - 1, 2**64 - 1, width)

    assert _Decisions(script(*words)).below(3, 6).tolist() == [0, 0, 1, 2, 2, 1]


@pytest.mark.parametrize(
    ("numerator", "denominators"),
    [(0, (5,)), (1, (3,)), (1, (1,)), (2**36 - 1, (2**36,)), (2**35, (2**36, 2**37))],
)
def test_the_exponential_of_a_fraction_comes_true_that_often(
    numerator: int, denominators: tuple[int, ...]
) -> None:
    expected = math.exp(-math.prod(numerator / denominator for denominator in denominators))
    decisions = _Decisions(np.random.default_rng(9).bytes)
    given = np.full(DRAWS, numerator, np.uint64)

    share = decisions.exp_of_product(given, *denominators).size / DRAWS

    assert abs(share - expected) <= DEVIATIONS * math.sqrt(expected * (1 - expected) / DRAWS)


def test_repeated_exponentials_multiply() -> None:
    decisions = _Decisions(np.random.default_rng(10).bytes)
    thirds = np.ones(DRAWS, np.uint64)
    for times in (0, 1, 5):
        share = decisions.exp_repeated(np.full(DRAWS, times), thirds, 3).size / DRAWS
        expected = math.exp(-times / 3)
        assert abs(share - expected) <= DEVIATIONS * math.sqrt(expected * (1 - expected) / DRAWS)
