"""Sensitivity, ring and noise of a round: known figures, and what is refused with which remedy."""

import math
from dataclasses import replace

import numpy as np
import pytest

from privacy.accounting import epsilon, rho_of, sum_correction
from privacy.blocks import TAIL, rotation_size
from privacy.errors import ImpossiblePrivacyError
from privacy.noise import MAX_SIGMA, SIGMA_PARTS
from privacy.parameters import MAX_INFLATION, MIN_SIGMA, Setting, inflation, round_parameters
from privacy.rounding import squared_sensitivity
from privacy.survivors import Cohort

MNIST = Setting("distributed", 2.0, 0.01, Cohort(700, 1000, 0.1), 199_210, 3, 16, 0.5)
MILLION = replace(MNIST, noise_multiplier=1.0, update_size=1_000_000)


def usual_bound(bits: int, members: int, size: int, z: float) -> float:
    """s C by the usual rule: noise z times the clip, not the sensitivity; 70 % of it honest; a tail of 4."""
    room = (2 ** (bits - 1) / 4) ** 2 - members / 4
    return math.sqrt(room / (members**2 / size + z * z / 0.7))


@pytest.mark.parametrize(
    ("bits", "members", "z", "inflated"),
    [
        (16, 1000, 1, 1.005),
        (16, 1000, 4, 1.046),
        (16, 10_000, 1, 1.175),
        (16, 10_000, 4, 1.210),
        (12, 1000, 1, 1.842),
        (8, 1000, 1, 28.45),
    ],
)
def test_the_known_table_of_inflation(bits: int, members: int, z: float, inflated: float) -> None:
    size = 2**20
    bound = usual_bound(bits, members, size, z)

    assert inflation(bound, size) == pytest.approx(inflated, abs=0.005)


def test_a_round_fits_its_ring_exactly() -> None:
    made = round_parameters(MNIST)
    bound = made.update.scale * MNIST.clip
    power = (1000 * bound) ** 2 / rotation_size(199_210) + 1000 / 4 + 1000 * made.update.sigma**2

    assert math.sqrt(power) * TAIL == pytest.approx(2**15, rel=1e-4)
    assert made.update.norm_squared == squared_sensitivity(bound, 199_210)
    assert 1 < made.inflation <= MAX_INFLATION


def test_noise_is_what_the_multiplier_says() -> None:
    made = round_parameters(MNIST)

    assert made.device_rho == pytest.approx(rho_of(2.0), rel=1e-4)
    assert made.device_rho <= rho_of(2.0)
    certain = made.update.sigma * math.sqrt(630)
    update_multiplier = certain / math.sqrt(made.update.norm_squared)
    assert update_multiplier == pytest.approx(2 / math.sqrt(1 - 0.01), rel=1e-4)


def test_the_metrics_block_takes_its_share() -> None:
    block = round_parameters(MNIST).metrics
    rho = block.norm_squared / (2 * 630 * block.sigma**2)

    assert block.norm_squared == 3 * int(block.scale) ** 2
    assert rho == pytest.approx(0.01 * rho_of(2.0), rel=1e-6)


def test_sigma_is_an_exact_fraction() -> None:
    made = round_parameters(MNIST)

    assert (made.update.sigma * SIGMA_PARTS).is_integer()
    assert (made.metrics.sigma * SIGMA_PARTS).is_integer()


def test_wide_rings_use_no_more_levels_than_noise_can_be_drawn_for() -> None:
    made = round_parameters(replace(MNIST, bits=32, noise_multiplier=100.0))

    assert MAX_SIGMA - 2 < made.update.sigma <= MAX_SIGMA
    assert MAX_SIGMA - 40 < made.metrics.sigma <= MAX_SIGMA
    assert made.inflation < 1.01


def test_the_clip_moves_only_the_scale() -> None:
    one, other = round_parameters(MNIST), round_parameters(replace(MNIST, clip=0.005))

    assert other.update.scale == pytest.approx(100 * one.update.scale)
    assert (other.update.norm_squared, other.update.sigma) == (one.update.norm_squared, one.update.sigma)
    assert other.expected_noise(800).of_clip == pytest.approx(one.expected_noise(800).of_clip)


def test_the_coordinator_counts_the_noise_that_was_there() -> None:
    made = round_parameters(MNIST)

    assert made.coordinator_rho(survivors=1000, members=1000) == pytest.approx(
        made.device_rho * 630 / 900, rel=1e-6
    )
    assert made.coordinator_rho(survivors=700, members=700) == made.device_rho


def test_a_large_cohort_must_keep_more_than_the_fewest() -> None:
    cohort = Cohort(fewest=700, largest=1000, corrupt_fraction=0.1)

    assert cohort.honest == 630
    assert cohort.survivors_needed(700) == 700
    assert cohort.survivors_needed(1000) == 730
    assert cohort.honest_of(730, 1000) == 630


def test_the_part_that_may_be_corrupt_is_the_decimal_number_written() -> None:
    assert Cohort(100, 100, 0.07).honest == 93
    assert Cohort(100, 100, 0.29).honest == 71


def test_central_noise_is_added_once_and_needs_no_ring() -> None:
    central = round_parameters(replace(MNIST, mode="central"))
    z = central.update.sigma / math.sqrt(central.update.norm_squared)

    assert z == pytest.approx(2 / math.sqrt(1 - 0.01), rel=1e-4)
    assert central.device_rho == central.coordinator_rho(900, 1000) <= rho_of(2.0)
    assert central.inflation < round_parameters(MNIST).inflation
    assert central.expected_noise(1000).of_clip < round_parameters(MNIST).expected_noise(1000).of_clip


def test_expected_noise_is_what_a_simulated_sum_carries() -> None:
    generator = np.random.default_rng(1)
    made = round_parameters(replace(MNIST, cohort=Cohort(40, 50, 0.1), update_size=2000))
    exact = generator.normal(0, made.update.scale * 0.5 / math.sqrt(2000), (45, 2000))
    # At this many levels a rounded Gaussian is a discrete one.
    noised = np.floor(exact + generator.random(exact.shape))
    noised += np.rint(generator.normal(0, made.update.sigma, exact.shape))
    error = (noised - exact).sum(axis=0) / 45 / made.update.scale

    expected = made.expected_noise(45)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(expected.rmse, rel=0.05)
    assert expected.of_clip == pytest.approx(expected.rmse * math.sqrt(2000) / 0.5)


def refusal(setting: Setting) -> ImpossiblePrivacyError:
    with pytest.raises(ImpossiblePrivacyError) as caught:
        round_parameters(setting)
    return caught.value


def test_twelve_bits_for_a_million_parameters_are_refused_with_a_width() -> None:
    error = refusal(replace(MILLION, bits=12))

    assert error.remedies == ("raise secure_aggregation.bits to 16",)
    assert "12 bits at 1,000,000 parameters and up to 1,000 members" in str(error)
    assert round_parameters(replace(MILLION, bits=16)).inflation == pytest.approx(1.015, abs=0.001)


def test_too_much_inflation_is_said_in_figures() -> None:
    error = refusal(replace(MNIST, noise_multiplier=0.8, bits=12))

    assert "inflate the sensitivity" in error.reason
    assert "raise secure_aggregation.bits to 16" in error.remedies


def test_a_large_cohort_may_be_made_smaller() -> None:
    setting = replace(MNIST, noise_multiplier=0.1, bits=12)
    error = refusal(setting)

    assert (
        error.remedies[1]
        == "invite at most 402 devices (selection.count) and lower selection.min_cohort to 402"
    )
    assert round_parameters(replace(setting, cohort=Cohort(402, 402, 0.1)))
    assert refusal(replace(setting, cohort=Cohort(403, 403, 0.1)))


def test_too_little_noise_for_integers_is_refused() -> None:
    setting = Setting("distributed", 0.0001, 0.01, Cohort(8, 10, 0.25), 3217, 3, 16, 4.0)
    error = refusal(setting)

    assert f"below {MIN_SIGMA:g}" in error.reason
    assert error.noise_multiplier is not None
    assert round_parameters(replace(setting, noise_multiplier=error.noise_multiplier))


def test_too_much_noise_for_the_ring_names_a_possible_multiplier() -> None:
    setting = replace(MILLION, noise_multiplier=30.0)
    error = refusal(setting)

    assert error.remedies == ("raise secure_aggregation.bits to 20",)
    assert error.noise_multiplier is not None
    assert 0 < error.noise_multiplier < 30
    assert round_parameters(replace(setting, noise_multiplier=error.noise_multiplier))


def test_however_far_away_a_possible_multiplier_is_named() -> None:
    setting = replace(MNIST, noise_multiplier=1e9, bits=32)
    error = refusal(setting)

    assert error.noise_multiplier is not None
    assert round_parameters(replace(setting, noise_multiplier=error.noise_multiplier))


def test_what_nothing_helps_says_so() -> None:
    assert "use a smaller model" in str(ImpossiblePrivacyError("it does not fit", (), None))


def test_at_the_least_noise_a_sum_is_as_good_as_one_gaussian() -> None:
    assert 2**24 * sum_correction(MIN_SIGMA, 1000) < 1e-8


def test_the_tail_lets_practically_nothing_wrap() -> None:
    def wrapped_of_a_million(tail: float) -> float:
        return 2**20 * math.erfc(tail / math.sqrt(2))

    assert wrapped_of_a_million(4) == pytest.approx(66, abs=1)
    assert wrapped_of_a_million(TAIL) < 1 / 400


def test_a_run_ends_within_its_epsilon() -> None:
    made = round_parameters(replace(MNIST, noise_multiplier=10.0))

    assert epsilon(100 * made.device_rho, 1e-6) <= epsilon(100 * rho_of(10.0), 1e-6)
