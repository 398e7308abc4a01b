"""What `fedfleet plan check` tells a person about privacy."""

import pytest

from console.privacy_report import privacy_lines
from privacy.errors import ImpossiblePrivacyError
from protocol.plan import Model, Plan, Privacy, SecureAggregation, Selection, Stopping

MASKING = SecureAggregation(bits=16, clip=0.5, corrupt_fraction=0.1)


def plan_of(
    privacy: Privacy, fewest: int, *, rounds: int = 100, masking: SecureAggregation = MASKING
) -> Plan:
    return Plan(
        Model("mlp"),
        selection=Selection(min_cohort=fewest),
        secure_aggregation=masking,
        privacy=privacy,
        stopping=Stopping(rounds),
    )


def lines(privacy: Privacy, cohort: tuple[int, int] = (700, 1000), parameters: int = 199_210) -> str:
    return "\n".join(
        ": ".join(line) for line in privacy_lines(plan_of(privacy, cohort[0]), parameters, cohort[1])
    )


def test_a_sound_plan_says_cost_bytes_and_noise() -> None:
    report = lines(Privacy(mode="distributed", target_epsilon=8.0))

    assert "each device adds its part of the noise, 630 honest survivors are enough" in report
    assert "a device with all its data, against one that sends zeros" in report
    assert "no amplification by sampling" in report
    assert (
        "epsilon: after round 1: 0.639, 5: 1.51, 10: 2.2, 20: 3.22, 50: 5.37, 100: 8 (delta 1e-06)" in report
    )
    assert "in the end 8 as devices count" in report
    assert "6.511 as the coordinator counts when all 1000 stay" in report
    assert "16 bits for each of 199,210 coordinates, 398.5 kB up for a device (50 % of float32)" in report
    assert "mean of 1000: " in report
    assert "mean of 700: " in report


def test_a_small_fleet_is_told_what_would_help() -> None:
    report = lines(Privacy(mode="distributed", target_epsilon=2.0), cohort=(8, 10), parameters=3217)

    assert "warning: the noise drowns the signal" in report
    assert "devices in a round" in report
    assert "warning: accuracy, loss and the clipped rate are published with noise" in report


def test_noise_that_many_rounds_average_away_is_a_milder_warning() -> None:
    report = lines(Privacy(mode="distributed", target_epsilon=8.0))

    assert "drowns" not in report
    assert "warning: a round's noise is 4.3 times as long as its mean update can be" in report


def test_the_more_devices_the_fewer_warnings() -> None:
    report = lines(Privacy(mode="distributed", target_epsilon=8.0), parameters=3217)

    assert "warning" not in report


def test_weak_promises_are_named() -> None:
    report = lines(Privacy(mode="distributed", target_epsilon=50.0, delta=1e-2), parameters=3217)

    assert "warning: epsilon 50 promises little" in report
    assert (
        "warning: delta 0.01 allows to reveal one of 1000 devices outright; write privacy.delta = 1e-05"
        in report
    )


def test_trust_in_the_coordinator_is_said() -> None:
    report = lines(Privacy(mode="central", target_epsilon=8.0), parameters=3217)

    assert "privacy: central; the coordinator adds the noise" in report
    assert "warning: devices trust the coordinator" in report


def test_narrow_words_are_told_what_they_cost() -> None:
    report = lines(Privacy(mode="distributed", noise_multiplier=6.0), parameters=1_000_000)

    assert "warning: rounding to 16 bits multiplies the noise by 1.42" in report


def test_no_privacy_is_said_too() -> None:
    report = lines(Privacy())

    assert "privacy: none" in report
    assert "nothing is promised" in report


def test_an_impossible_plan_names_width_and_epsilon() -> None:
    privacy = Privacy(mode="distributed", target_epsilon=0.05)

    with pytest.raises(ImpossiblePrivacyError) as caught:
        privacy_lines(plan_of(privacy, 7), 1_000_000, 10)

    assert "raise secure_aggregation.bits to 24; or set privacy.target_epsilon to 7" in str(caught.value)
    wide = SecureAggregation(bits=24, clip=0.5, corrupt_fraction=0.1)
    assert privacy_lines(plan_of(privacy, 7, masking=wide), 1_000_000, 10)


def test_a_suggested_epsilon_works() -> None:
    with pytest.raises(ImpossiblePrivacyError) as caught:
        lines(Privacy(mode="distributed", target_epsilon=0.05), cohort=(7, 10), parameters=1_000_000)
    suggested = float(str(caught.value).rsplit(" ", 1)[-1])

    assert lines(Privacy(mode="distributed", target_epsilon=suggested), cohort=(7, 10), parameters=1_000_000)


def test_the_first_and_the_last_round_are_always_shown() -> None:
    privacy = Privacy(mode="distributed", noise_multiplier=4.0, spacing=3)
    one = privacy_lines(plan_of(privacy, 700, rounds=1), 3217, 1000)
    many = privacy_lines(plan_of(privacy, 700, rounds=7), 3217, 1000)

    assert any(line[1].startswith("after round 1: 1.14 (delta") for line in one)
    assert any(line[1].startswith("after round 1: 1.14, 2: 1.14, 5: 1.66, 7: 2.07 (delta") for line in many)
