"""The manifest of a round as a plan wants it, and what its noise says."""

import msgspec
import pytest

from privacy.accounting import epsilon
from privacy.errors import ImpossiblePrivacyError
from protocol.chunks import describe
from protocol.device_privacy import check_noise
from protocol.ids import Order
from protocol.messages import FromCoordinator, Manifest, Noise, decode_from_coordinator, encode
from protocol.noise import noise_of
from protocol.noise_cost import promised_cost
from protocol.plan import Model, Plan, Privacy, SecureAggregation, Selection, Stopping, Training, plan_hash
from protocol.planned_round import planned_manifest
from protocol.vector import encoding_of, layout_of

PARAMETERS = 50_000
WEIGHTS = describe(bytes(4 * PARAMETERS))
MASKING = SecureAggregation(clip=0.5, corrupt_fraction=0.1)
PRIVATE = Privacy(mode="distributed", target_epsilon=4.0, delta=1e-5, spacing=3)


def plan_of(privacy: Privacy = PRIVATE, masking: SecureAggregation = MASKING) -> Plan:
    return Plan(
        Model("mlp"),
        training=Training(max_examples=70),
        selection=Selection(min_cohort=70),
        secure_aggregation=masking,
        privacy=privacy,
        stopping=Stopping(rounds=60),
    )


def manifest_of(plan: Plan, *, members: int = 100, clip: float | None = None) -> Manifest:
    return planned_manifest(
        plan,
        fleet="wrist",
        order=Order(1, 2, 3),
        bundle=describe(b"bundle"),
        weights=WEIGHTS,
        members=members,
        clip=clip,
        shard="main",
    )


def as_heard(manifest: Manifest) -> FromCoordinator:
    return decode_from_coordinator(encode(manifest))


def noise_in(manifest: Manifest) -> Noise:
    assert manifest.noise is not None
    return manifest.noise


def test_a_plan_without_privacy_has_no_noise_and_wide_words() -> None:
    manifest = manifest_of(plan_of(Privacy()))

    assert manifest.noise is None
    assert manifest.secure_aggregation.bits == 32
    assert layout_of(encoding_of(manifest)).packed_size == 4 * (PARAMETERS + 4) + 4 * 10


def test_a_plan_with_privacy_has_words_of_half_a_float() -> None:
    manifest = manifest_of(plan_of())

    assert manifest.secure_aggregation.bits == 16
    assert layout_of(encoding_of(manifest)).packed_size == 2 * (PARAMETERS + 4) + 4 * 7


@pytest.mark.parametrize("privacy", [PRIVATE, Privacy()])
def test_words_that_the_plan_asks_for_are_its_own(privacy: Privacy) -> None:
    manifest = manifest_of(plan_of(privacy, SecureAggregation(bits=20, clip=0.5, corrupt_fraction=0.1)))

    assert manifest.secure_aggregation.bits == 20
    assert encoding_of(manifest).block.bits == 20


def test_a_manifest_says_what_the_plan_says() -> None:
    plan = plan_of()
    manifest = manifest_of(plan)

    assert (manifest.fleet, manifest.order, manifest.shard) == ("wrist", Order(1, 2, 3), "main")
    assert manifest.plan == plan_hash(plan)
    assert (manifest.training, manifest.deadlines) == (plan.training, plan.deadlines)
    assert (manifest.min_cohort, manifest.max_cohort) == (70, 100)
    assert as_heard(manifest) == manifest


def test_the_noise_says_who_adds_it_how_often_and_what_that_costs() -> None:
    noise = noise_in(manifest_of(plan_of()))

    assert (noise.mode, noise.spacing, noise.participations, noise.delta) == ("distributed", 3, 20, 1e-5)
    assert 3.999 < noise.epsilon <= 4.0
    assert noise.epsilon == pytest.approx(epsilon(20 * promised_cost(manifest_of(plan_of())), 1e-5), rel=1e-9)


def test_a_clip_that_adapts_changes_the_scale_and_no_promise() -> None:
    narrow, wide = (manifest_of(plan_of(), clip=clip) for clip in (None, 2.0))

    assert (narrow.secure_aggregation.clip, wide.secure_aggregation.clip) == (0.5, 2.0)
    assert noise_in(narrow).scale == pytest.approx(4 * noise_in(wide).scale)
    assert noise_in(narrow).sigma_parts == pytest.approx(noise_in(wide).sigma_parts, rel=1e-6)
    assert promised_cost(narrow) == pytest.approx(promised_cost(wide), rel=1e-9)


def test_a_sketch_sends_a_part() -> None:
    masking = SecureAggregation(clip=0.5, corrupt_fraction=0.1, sketch=0.25)
    manifest = manifest_of(plan_of(masking=masking))

    assert encoding_of(manifest).block.words == PARAMETERS // 4
    check_noise(manifest)


@pytest.mark.parametrize("mode", ["distributed", "central"])
@pytest.mark.parametrize("multiplier", [0.5, 5.0, 100.0])
def test_devices_can_read_every_planned_manifest_and_agree_with_its_label(
    mode: str, multiplier: float
) -> None:
    """With delta = 0.01 a multiplier of 100 needs no epsilon at all: it is 0."""
    privacy = msgspec.convert({"mode": mode, "noise_multiplier": multiplier, "delta": 0.01}, Privacy)
    masking = SecureAggregation(clip=0.5, corrupt_fraction=0.1, bits=20)
    plan = msgspec.structs.replace(plan_of(privacy, masking), stopping=Stopping(rounds=1))
    manifest = manifest_of(plan)

    assert as_heard(manifest) == manifest
    check_noise(manifest)


def test_a_round_that_cannot_be_so_private_is_refused_with_what_would_help() -> None:
    with pytest.raises(ImpossiblePrivacyError, match=r"raise secure_aggregation\.bits to"):
        manifest_of(plan_of(masking=SecureAggregation(bits=8, clip=0.5, corrupt_fraction=0.1)))


def test_without_privacy_nothing_is_computed() -> None:
    assert noise_of(Privacy(), MASKING, PARAMETERS, (70, 100), rounds=60) is None
