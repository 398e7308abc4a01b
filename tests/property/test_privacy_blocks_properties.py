"""Blocks for every size, window and ring: bounds that hold whatever a member's numbers are."""

import math
from typing import Literal

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from privacy.blocks import TAIL, PlainBlock, RotatedBlock, ring_bound, rotated_scale, rotation_size
from privacy.encoding import LocalMetrics
from privacy.errors import ImpossiblePrivacyError, QuantizationError
from privacy.noise import SIGMA_PARTS
from privacy.noised_update import NoisedEncoding
from privacy.parameters import METRICS_TAIL, WIDTHS, RoundParameters, Setting, round_parameters
from privacy.rounding import squared_length
from privacy.survivors import Cohort
from secagg.ring import RingLayout, RingVector

SEEDS = st.integers(0, 2**32)


@st.composite
def rotated_blocks(draw: st.DrawFn) -> RotatedBlock:
    size = draw(st.integers(1, 300))
    kept = draw(st.integers(1, size))
    clip = draw(st.floats(1e-6, 1e6))
    levels = draw(st.floats(1e-3, 1e9))
    stream = np.random.default_rng(draw(SEEDS)).bytes(8 + 4 * 40)
    return RotatedBlock(size, kept, 32, clip, levels / clip, lambda count: stream[:count])


@st.composite
def noised_rounds(draw: st.DrawFn) -> RoundParameters:
    largest = draw(st.integers(3, 1024))
    cohort = Cohort(draw(st.integers(3, largest)), largest, draw(st.floats(0.001, 0.49)))
    mode: Literal["distributed", "central"] = draw(st.sampled_from(["distributed", "central"]))
    setting = Setting(
        mode=mode,
        noise_multiplier=draw(st.floats(0.05, 50)),
        metrics_share=draw(st.floats(1e-4, 0.5)),
        cohort=cohort,
        update_size=draw(st.integers(1, 1_000_000)),
        metrics=len(NoisedEncoding.METRICS),
        bits=draw(st.sampled_from(WIDTHS)),
        clip=draw(st.floats(1e-3, 1e3)),
        sketch=draw(st.floats(0.01, 1.0)),
    )
    try:
        return round_parameters(setting)
    except ImpossiblePrivacyError:
        assume(condition=False)
        raise


def encoding_of(made: RoundParameters) -> NoisedEncoding:
    setting = made.setting
    block = RotatedBlock(
        setting.update_size, made.update.size, setting.bits, setting.clip, made.update.scale, bytes
    )
    return NoisedEncoding(
        block=block,
        mode=setting.mode,
        sigma_parts=round(made.update.sigma * SIGMA_PARTS),
        metrics_half=int(made.metrics.scale),
        metrics_sigma_parts=round(made.metrics.sigma * SIGMA_PARTS),
        max_members=setting.cohort.largest,
        loss_ceiling=10.0,
    )


def summed(bits: int, levels: NDArray[np.int32], members: int) -> NDArray[np.int64]:
    """What a coordinator reads of as many equal vectors."""
    layout = RingLayout(levels.size, bits, 0)
    none = np.zeros(0, np.int64)
    total = RingVector.zeros(layout)
    for _ in range(members):
        total.add(RingVector.from_signed(layout, none, levels))
    return total.signed_update()


@given(
    bits=st.sampled_from(WIDTHS),
    members=st.integers(1, 200),
    limit=st.floats(1e-6, 1e6),
    byte=st.sampled_from([0x00, 0xFF]),
)
def test_a_plain_block_at_its_worst_never_wraps(bits: int, members: int, limit: float, byte: int) -> None:
    try:
        block = PlainBlock(4, bits, 1e9, limit, members)
    except QuantizationError:
        assume(condition=False)
    update = np.array([limit, -limit, 3e38, -3e38], np.float32)
    levels, _ = block.encode(update, 1.0, lambda count: bytes([byte]) * count)

    total = summed(bits, levels, members)

    np.testing.assert_array_equal(total, levels.astype(np.int64) * members)
    assert block.is_plausible(total, members, members)


@given(rotated_blocks(), st.floats(0, 2), st.floats(0, 1), SEEDS)
def test_a_rotated_block_is_never_longer_than_its_bound(
    block: RotatedBlock, length: float, weight: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    update = generator.standard_normal(block.size)
    update *= length * block.clip / np.linalg.norm(update)

    levels, saturated = block.encode(update.astype(np.float32), weight, generator.bytes)

    assert levels.shape == (block.kept,)
    assert squared_length(levels) <= block.norm_squared
    assert block.is_plausible(levels, weight, 1)
    assert saturated == 0.0


@given(rotated_blocks(), st.floats(0, 0.99), st.floats(0, 1), SEEDS)
def test_a_window_is_right_where_it_looks(
    block: RotatedBlock, length: float, weight: float, seed: int
) -> None:
    """Decoding gives the update's projection onto the window: no longer, and at a right angle to the rest."""
    generator = np.random.default_rng(seed)
    drawn = generator.standard_normal(block.size)
    update = (drawn * (length * block.clip / np.linalg.norm(drawn))).astype(np.float32)
    seen = block.decode(block.encode(update, weight, generator.bytes)[0]) * block.kept / block.size

    rounding = math.sqrt(block.kept) / block.scale + 1e-5 * block.clip
    assert np.linalg.norm(seen) <= weight * np.linalg.norm(update) + rounding
    along = float(seen @ update.astype(np.float64))
    assert abs(along * weight - seen @ seen) <= rounding * (np.linalg.norm(seen) + rounding)


@given(
    bits=st.sampled_from(WIDTHS),
    members=st.integers(1, 1024),
    size=st.integers(1, 10**7),
    noise=st.floats(0, 1e3),
    kept=st.integers(1, 10**7),
)
def test_the_bound_fills_the_ring_and_no_more(
    bits: int, members: int, size: int, noise: float, kept: int
) -> None:
    room = 2.0 ** (bits - 1) / TAIL
    bound = ring_bound(bits, members, size, noise, kept)

    def power(x: float) -> float:
        sensitivity = x**2 + x + kept / 4 + math.sqrt(kept) / 2
        return (members * x) ** 2 / rotation_size(size) + members / 4 + noise * sensitivity

    assert power(bound) <= room**2 * (1 + 1e-6) or bound == 0.0
    assert power(bound * (1 + 1e-6) + 1e-6) >= room**2 * (1 - 1e-6)


@given(members=st.integers(1, 60), sketch=st.floats(0.1, 1), bits=st.sampled_from(WIDTHS), seed=SEEDS)
def test_equal_updates_at_the_clip_do_not_wrap(members: int, sketch: float, bits: int, seed: int) -> None:
    """The likeliest to wrap; by the bound, one coordinate of 128 does in 5 * 10^5 tries, really far fewer."""
    generator = np.random.default_rng(seed)
    size = 128
    try:
        scale = rotated_scale(bits, 1.0, members, size)
    except QuantizationError:
        assume(condition=False)
    stream = generator.bytes(8 + 4 * 16)
    block = RotatedBlock(size, math.ceil(size * sketch), bits, 1.0, scale, lambda count: stream[:count])
    update = generator.standard_normal(size)
    levels, _ = block.encode((update / np.linalg.norm(update)).astype(np.float32), 1.0, generator.bytes)

    np.testing.assert_array_equal(summed(bits, levels, members), levels.astype(np.int64) * members)


@given(noised_rounds())
def test_metrics_of_all_members_at_their_worst_never_wrap(made: RoundParameters) -> None:
    """All at the end of their range, and noise of sixteen standard deviations on the same side."""
    members, half = made.setting.cohort.largest, int(made.metrics.scale)
    noises = members if made.setting.mode == "distributed" else 0
    noise = METRICS_TAIL * made.metrics.sigma * math.sqrt(noises)

    assert members * half + noise < 2**31


@given(made=noised_rounds(), correct=st.sampled_from([-(10**9), 0, 10**9]), loss=st.floats(-1e308, 1e308))
def test_no_members_metrics_are_beyond_their_half(made: RoundParameters, correct: int, loss: float) -> None:
    encoding = encoding_of(made)

    levels = encoding._encode_metrics(LocalMetrics(1, 3, loss, correct), clipped=True)

    assert np.abs(levels).max() <= encoding.metrics_half
    assert squared_length(levels.astype(np.int32)) <= made.metrics.norm_squared


# Drawing a round means finding its noise, which a busy machine takes long for.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(noised_rounds())
def test_the_encoding_costs_what_the_parameters_promise(made: RoundParameters) -> None:
    """Scale times clip may round to another last digit, and with it the whole number under the bound."""
    encoding = encoding_of(made)

    cost = encoding.rho(made.setting.noises)
    assert abs(cost - made.device_rho) <= made.device_rho * (1e-9 + 1 / made.update.norm_squared)
