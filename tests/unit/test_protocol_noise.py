"""A plan's privacy table becomes the setting that all noise follows from."""

import pytest

from privacy.accounting import epsilon, rho_of
from privacy.errors import ImpossiblePrivacyError
from privacy.parameters import round_parameters
from privacy.survivors import Cohort
from protocol.noise import noise_multiplier, participations, setting_of
from protocol.plan import Privacy, SecureAggregation

MASKING = SecureAggregation(bits=16, clip=0.5, corrupt_fraction=0.1)


def test_a_target_is_spent_by_the_last_participation() -> None:
    privacy = Privacy(mode="distributed", target_epsilon=4.0, delta=1e-5)
    made = round_parameters(setting_of(privacy, MASKING, 50_000, (700, 1000), rounds=60))

    assert 3.999 < epsilon(60 * made.device_rho, 1e-5) <= 4.0


def test_spacing_limits_participations_and_so_the_noise() -> None:
    every, fifth = (Privacy(mode="distributed", target_epsilon=4.0, spacing=space) for space in (1, 5))

    assert [participations(fifth, rounds) for rounds in (1, 5, 6, 20)] == [1, 1, 2, 4]
    assert noise_multiplier(every, 20) == pytest.approx(noise_multiplier(fifth, 20) * 5**0.5)


def test_a_multiplier_is_taken_as_it_is() -> None:
    privacy = Privacy(mode="central", noise_multiplier=1.5, metrics_share=0.2)
    setting = setting_of(privacy, MASKING, 50_000, (70, 100), rounds=60)

    assert (setting.mode, setting.noise_multiplier, setting.metrics_share) == ("central", 1.5, 0.2)
    assert setting.cohort == Cohort(70, 100, 0.1)
    assert (setting.update_size, setting.bits, setting.clip) == (50_000, 16, 0.5)


@pytest.mark.parametrize(("fewest", "points"), [(700, 0.047), (70, 0.082)])
def test_metrics_take_as_little_as_is_useful(fewest: int, points: float) -> None:
    privacy = Privacy(mode="distributed", noise_multiplier=2.0)
    setting = setting_of(privacy, MASKING, 50_000, (fewest, fewest), rounds=60)
    noise = round_parameters(setting).expected_noise(fewest).metric

    assert noise == pytest.approx(points, rel=0.02)
    assert setting.metrics_share <= 0.1


@pytest.mark.parametrize(("target", "multiplier"), [(None, None), (1.0, 1.0)])
def test_the_amount_of_noise_is_said_once(target: float | None, multiplier: float | None) -> None:
    privacy = Privacy(mode="distributed", target_epsilon=target, noise_multiplier=multiplier)

    with pytest.raises(ImpossiblePrivacyError, match="give exactly one of them"):
        noise_multiplier(privacy, 10)


def test_no_privacy_has_no_noise() -> None:
    with pytest.raises(ImpossiblePrivacyError, match=r"privacy\.mode is \"none\""):
        setting_of(Privacy(), MASKING, 10, (5, 5), rounds=1)


def test_a_round_costs_what_its_multiplier_says() -> None:
    privacy = Privacy(mode="distributed", noise_multiplier=1.5)
    made = round_parameters(setting_of(privacy, MASKING, 50_000, (70, 100), rounds=60))

    assert made.device_rho == pytest.approx(rho_of(1.5), rel=1e-4)
