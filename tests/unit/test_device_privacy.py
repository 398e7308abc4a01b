"""What a device asks of a round's noise, and what it pays."""

from typing import Literal

import pytest
from msgspec.structs import replace
from virtual_fleet import manifest_for

from privacy.accounting import compose, epsilon
from privacy.errors import QuantizationError
from privacy.parameters import round_parameters
from protocol.device_privacy import PrivacyStance, charge_for, check_noise, privacy_objection
from protocol.errors import ManifestError
from protocol.ids import Order
from protocol.messages import Manifest, Noise
from protocol.noise import setting_of
from protocol.noise_cost import actual_cost, promised_cost, survivors_needed
from protocol.plan import Privacy

Mode = Literal["none", "central", "distributed"]

FIRST = Order(1, 1, 1)
PARAMETERS, FEWEST, MEMBERS, ROUNDS = 2000, 70, 100, 10


def privacy_of(mode: Mode, *, spacing: int = 1) -> Privacy:
    if mode == "none":
        return Privacy()
    return Privacy(mode=mode, noise_multiplier=4.0, spacing=spacing)


def manifest_of(
    mode: Mode = "distributed", *, order: Order = FIRST, spacing: int = 1, sketch: float = 1.0, bits: int = 16
) -> Manifest:
    return manifest_for(
        PARAMETERS,
        members=MEMBERS,
        order=order,
        min_cohort=FEWEST,
        bits=bits,
        corrupt_fraction=0.1,
        sketch=sketch,
        privacy=privacy_of(mode, spacing=spacing),
        rounds=ROUNDS,
    )


def noise_in(manifest: Manifest) -> Noise:
    assert manifest.noise is not None
    return manifest.noise


def with_noise(manifest: Manifest, **changes: object) -> Manifest:
    return replace(manifest, noise=replace(noise_in(manifest), **changes))


@pytest.mark.parametrize("mode", ["distributed", "central"])
@pytest.mark.parametrize("sketch", [1.0, 0.3])
@pytest.mark.parametrize("bits", [16, 24])
def test_a_device_counts_what_the_plan_counted(mode: Mode, sketch: float, bits: int) -> None:
    manifest = manifest_of(mode, sketch=sketch, bits=bits)
    setting = setting_of(privacy_of(mode), manifest.secure_aggregation, PARAMETERS, (FEWEST, MEMBERS), ROUNDS)

    assert promised_cost(manifest) == pytest.approx(round_parameters(setting).device_rho, rel=1e-9)


@pytest.mark.parametrize("mode", ["distributed", "central"])
def test_a_sum_never_costs_more_than_was_promised(mode: Mode) -> None:
    """Whatever the cohort, and however many of it stay that may be unmasked; all 100 stay for less."""
    manifest = manifest_of(mode)
    promised = promised_cost(manifest)
    for members in range(FEWEST, MEMBERS + 1):
        for survivors in range(survivors_needed(manifest, members), members + 1):
            assert actual_cost(manifest, survivors, members) <= promised

    part = 63 / 90 if mode == "distributed" else 1
    assert actual_cost(manifest, MEMBERS, MEMBERS) == pytest.approx(part * promised, rel=1e-6)


def test_without_noise_nothing_is_promised_counted_or_charged() -> None:
    manifest = manifest_of("none")

    check_noise(manifest)
    assert promised_cost(manifest) == actual_cost(manifest, MEMBERS, MEMBERS) == 0.0
    assert charge_for(manifest) == ()
    assert privacy_objection(manifest, PrivacyStance(budget=0.0, spent=1.0, last=FIRST)) == ""


def test_what_leaves_is_charged_with_the_round_and_its_promise() -> None:
    manifest = manifest_of("central")
    (charge,) = charge_for(manifest)

    assert (charge.order, charge.mode, charge.rho) == (FIRST, "central", promised_cost(manifest))


@pytest.mark.parametrize("mode", ["distributed", "central"])
def test_an_honest_label_is_believed(mode: Mode) -> None:
    check_noise(manifest_of(mode))
    check_noise(manifest_of(mode, sketch=0.1))


@pytest.mark.parametrize("mode", ["distributed", "central"])
@pytest.mark.parametrize(
    "lie",
    [
        {"epsilon": 0.99},
        {"delta": 0.9},
        {"sigma_parts": 0.99},
        {"metrics_sigma_parts": 0.9},
        {"metrics_half": 1.1},
        {"scale": 1.01},
        {"participations": 1.1},
    ],
)
def test_a_label_that_promises_too_much_is_refused(mode: Mode, lie: dict[str, float]) -> None:
    manifest = manifest_of(mode)
    (key, factor) = next(iter(lie.items()))
    honest = getattr(noise_in(manifest), key)

    with pytest.raises(ManifestError, match="it promises epsilon"):
        check_noise(with_noise(manifest, **{key: type(honest)(honest * factor)}))


def test_the_same_noise_from_fewer_certain_devices_is_refused() -> None:
    manifest = manifest_of()
    corrupt = replace(manifest.secure_aggregation, corrupt_fraction=0.3)

    for liar in (replace(manifest, min_cohort=50), replace(manifest, secure_aggregation=corrupt)):
        with pytest.raises(ManifestError, match="it promises epsilon"):
            check_noise(liar)


def test_a_longer_clip_at_the_same_scale_is_refused() -> None:
    manifest = manifest_of()
    longer = replace(manifest.secure_aggregation, clip=2 * manifest.secure_aggregation.clip)

    with pytest.raises(ManifestError, match="it promises epsilon"):
        check_noise(replace(manifest, secure_aggregation=longer))


def test_the_last_digits_of_a_label_do_not_matter() -> None:
    manifest = manifest_of()
    check_noise(with_noise(manifest, epsilon=noise_in(manifest).epsilon * (1 - 1e-9)))


def test_noise_that_no_integers_fit_is_refused() -> None:
    with pytest.raises(QuantizationError):
        check_noise(with_noise(manifest_of(), scale=1e300))


@pytest.mark.parametrize(
    ("weakest", "accepted"),
    [
        ("none", {"none", "central", "distributed"}),
        ("central", {"central", "distributed"}),
        ("distributed", {"distributed"}),
    ],
)
def test_a_device_takes_no_weaker_promise_than_it_asks_for(weakest: Mode, accepted: set[Mode]) -> None:
    modes: tuple[Mode, ...] = ("none", "central", "distributed")
    for mode in modes:
        objection = privacy_objection(manifest_of(mode), PrivacyStance(weakest=weakest))
        assert objection == ("" if mode in accepted else f"privacy is {mode}; this device asks for {weakest}")


@pytest.mark.parametrize(
    ("spacing", "last", "rests"),
    [
        (1, 9, False),
        (3, 9, True),
        (3, 8, True),
        (3, 7, False),
        (3, None, False),
    ],
)
def test_a_device_takes_part_once_in_so_many_rounds(spacing: int, last: int | None, rests: bool) -> None:  # noqa: FBT001 - a table
    manifest = manifest_of(order=Order(1, 1, 10), spacing=spacing)
    stance = PrivacyStance(last=None if last is None else Order(1, 1, last))

    expected = f"this device rests: it takes part once in {spacing} rounds" if rests else ""
    assert privacy_objection(manifest, stance) == expected


@pytest.mark.parametrize("last", [Order(1, 1, 9), Order(1, 2, 9), Order(2, 1, 9)])
def test_rounds_of_another_epoch_or_generation_do_not_count_for_rest(last: Order) -> None:
    manifest = manifest_of(order=Order(2, 2, 10), spacing=5)

    assert privacy_objection(manifest, PrivacyStance(last=last)) == ""
    assert "rests" in privacy_objection(manifest, PrivacyStance(last=Order(2, 2, 9)))


def test_a_budget_may_be_spent_to_the_last_digit_and_not_beyond() -> None:
    manifest = manifest_of()
    spent = compose([promised_cost(manifest)] * 3)
    after = epsilon(compose((spent, promised_cost(manifest))), 1e-6)

    assert privacy_objection(manifest, PrivacyStance(budget=after, spent=spent)) == ""
    short = PrivacyStance(budget=after * (1 - 1e-12), spent=spent)
    assert privacy_objection(manifest, short) == "the privacy budget of this device is spent"


def test_a_budget_of_the_plans_target_lasts_for_the_plans_rounds() -> None:
    """A device that is charged round by round rounds up each time; the target has room for that."""
    privacy = Privacy(mode="distributed", target_epsilon=4.0)
    manifest = manifest_for(
        PARAMETERS,
        members=MEMBERS,
        min_cohort=FEWEST,
        bits=16,
        corrupt_fraction=0.1,
        privacy=privacy,
        rounds=200,
    )
    spent = 0.0
    for _ in range(200):
        assert privacy_objection(manifest, PrivacyStance(budget=4.0, spent=spent)) == ""
        spent = compose((spent, charge_for(manifest)[0].rho))

    assert "budget" in privacy_objection(manifest, PrivacyStance(budget=4.0, spent=spent))


def test_the_budget_is_read_at_the_devices_own_delta() -> None:
    manifest = manifest_of()
    budget = epsilon(promised_cost(manifest), 1e-6)

    assert privacy_objection(manifest, PrivacyStance(budget=budget)) == ""
    assert "budget" in privacy_objection(manifest, PrivacyStance(budget=budget, delta=1e-9))


def test_without_a_budget_nothing_is_ever_spent() -> None:
    assert privacy_objection(manifest_of(), PrivacyStance(spent=1e9)) == ""


@pytest.mark.parametrize(("members", "needed"), [(70, 70), (77, 70), (80, 71), (99, 72), (100, 73)])
def test_a_larger_cohort_needs_more_survivors_for_the_same_honest_noise(members: int, needed: int) -> None:
    """63 of 70 are honest; a tenth of the members may be corrupt and all of those stay."""
    assert survivors_needed(manifest_of("distributed"), members) == needed
    assert survivors_needed(manifest_of("central"), members) == FEWEST
    assert survivors_needed(manifest_of("none"), members) == FEWEST
