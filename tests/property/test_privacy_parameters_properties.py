"""Whatever a plan says: noise pays for the sensitivity, and nothing certain leaves the ring."""

import math
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from privacy.accounting import delta, epsilon, gaussian_delta, gaussian_epsilon, rho_for, rho_of
from privacy.blocks import rotation_size
from privacy.errors import ImpossiblePrivacyError
from privacy.noise import MAX_SIGMA
from privacy.parameters import (
    MAX_INFLATION,
    METRICS_TAIL,
    MIN_SIGMA,
    WIDTHS,
    RoundParameters,
    Setting,
    round_parameters,
)
from privacy.survivors import Cohort

RHOS = st.floats(1e-6, 1e4)
DELTAS = st.floats(-30, -2).map(math.exp)


@st.composite
def settings(draw: st.DrawFn) -> Setting:
    fewest = draw(st.integers(3, 1024))
    return Setting(
        mode=draw(st.sampled_from(["distributed", "central"])),
        noise_multiplier=math.exp(draw(st.floats(-7, 7))),
        metrics_share=draw(st.floats(1e-6, 0.5)),
        cohort=Cohort(fewest, draw(st.integers(fewest, 1024)), draw(st.floats(0, 0.49))),
        update_size=draw(st.integers(1, 2**24)),
        metrics=draw(st.integers(1, 8)),
        bits=draw(st.sampled_from(WIDTHS)),
        clip=math.exp(draw(st.floats(-9, 9))),
    )


def possible(setting: Setting) -> RoundParameters:
    made = outcome(setting)
    assume(isinstance(made, RoundParameters))
    assert isinstance(made, RoundParameters)
    return made


def outcome(setting: Setting) -> RoundParameters | ImpossiblePrivacyError:
    try:
        return round_parameters(setting)
    except ImpossiblePrivacyError as error:
        return error


@given(settings())
def test_a_device_never_pays_more_than_its_multiplier_says(setting: Setting) -> None:
    made = possible(setting)

    assert made.device_rho <= rho_of(setting.noise_multiplier) * (1 + 1e-6)
    assert made.device_rho >= rho_of(setting.noise_multiplier) * (1 - 1e-2)


@given(settings(), st.integers(0, 1024))
def test_the_coordinator_never_counts_more_than_the_devices(setting: Setting, more: int) -> None:
    made, cohort = possible(setting), setting.cohort
    members = min(cohort.fewest + more, cohort.largest)
    needed = cohort.survivors_needed(members)
    assume(needed <= members)

    assert made.coordinator_rho(needed, members) <= made.device_rho
    assert made.coordinator_rho(members, members) <= made.coordinator_rho(needed, members)
    assert cohort.honest >= (1 - cohort.corrupt_fraction) * cohort.fewest - 1e-9


@given(settings())
def test_metrics_at_their_worst_with_their_noise_never_wrap(setting: Setting) -> None:
    block, members = possible(setting).metrics, setting.cohort.largest
    noise = METRICS_TAIL * math.sqrt(members) * block.sigma if setting.mode == "distributed" else 0.0

    assert members * block.scale + noise <= 2**31 - 1
    assert block.scale >= 1


@given(settings())
def test_what_is_possible_is_worth_it(setting: Setting) -> None:
    made = possible(setting)
    bound = made.update.scale * setting.clip

    assert 1 - 1e-9 <= made.inflation <= MAX_INFLATION
    assert made.update.sigma >= MIN_SIGMA or setting.mode == "central"
    assert max(made.update.sigma, made.metrics.sigma) <= MAX_SIGMA
    assert setting.cohort.largest * bound / math.sqrt(rotation_size(setting.update_size)) < 2 ** (
        setting.bits - 1
    )
    assert made.update.norm_squared < 2**62


@given(settings())
def test_a_remedy_is_one(setting: Setting) -> None:
    error = outcome(setting)
    assume(isinstance(error, ImpossiblePrivacyError))
    assert isinstance(error, ImpossiblePrivacyError)
    for remedy in error.remedies:
        *_, number = (int(word) for word in remedy.split() if word.isdigit())
        if "bits" in remedy:
            assert round_parameters(replace(setting, bits=number))
        else:
            assert round_parameters(replace(setting, cohort=setting.cohort.at_most(number)))
    if error.noise_multiplier is not None:
        assert round_parameters(replace(setting, noise_multiplier=error.noise_multiplier))


@given(RHOS, DELTAS)
def test_the_conversions_undo_each_other(rho: float, chance: float) -> None:
    cost, estimate = epsilon(rho, chance), gaussian_epsilon(rho, chance)

    assert 0 <= estimate <= cost
    if cost > 0:
        assert delta(rho, cost) <= chance * (1 + 1e-6)
        assert abs(rho_for(cost, chance) / rho - 1) < 1e-6
    if estimate > 0:
        assert gaussian_delta(rho, estimate) <= chance * (1 + 1e-9)


@given(RHOS, RHOS, DELTAS)
def test_more_rounds_cost_more(one: float, other: float, chance: float) -> None:
    assert epsilon(one + other, chance) >= max(epsilon(one, chance), epsilon(other, chance))
