"""How an update becomes integers: as it is, rotated, and a window of the rotated."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from privacy.blocks import (
    MAX_BOUND,
    NEAR_EDGE,
    TAIL,
    PlainBlock,
    RotatedBlock,
    kept_of,
    ring_bound,
    rotated_scale,
    rotation_size,
)
from privacy.errors import QuantizationError
from privacy.rotation import rotate, sign_bytes
from privacy.rounding import squared_length

SIZE, KEPT, CLIP = 12, 5, 2.0
FINE = 1e7
SIGNS = np.random.default_rng(4).bytes(sign_bytes(SIZE))


def entropy(seed: int = 1) -> Callable[[int], bytes]:
    return np.random.default_rng(seed).bytes


def round_bytes(start: int, signs: bytes = SIGNS) -> Callable[[int], bytes]:
    """A round whose window begins here."""
    stream = start.to_bytes(8, "little") + signs
    return lambda count: stream[:count]


def window(start: int, *, kept: int = KEPT, scale: float = FINE) -> RotatedBlock:
    return RotatedBlock(SIZE, kept, 32, CLIP, scale, round_bytes(start))


def update_of(size: int = SIZE, length: float = CLIP, seed: int = 2) -> NDArray[np.float32]:
    update = np.random.default_rng(seed).normal(size=size)
    return (update * (length / np.linalg.norm(update))).astype(np.float32)


def test_a_plain_block_gives_back_what_it_was_given() -> None:
    block = PlainBlock(3, 32, clip=10.0, limit=1.0, max_members=4)
    levels, saturated = block.encode(np.array([0.5, -1.0, 0.0], np.float32), 1.0, entropy())

    assert (block.words, levels.dtype.name, saturated) == (3, "int32", 0.0)
    np.testing.assert_allclose(block.decode(levels), [0.5, -1.0, 0.0], atol=1 / block.scale)


def test_a_plain_block_cuts_what_is_beyond_its_limit_and_weighs_after() -> None:
    block = PlainBlock(4, 32, clip=10.0, limit=1.0, max_members=4)
    levels, saturated = block.encode(np.array([3.0, -3.0, 0.5, 1.0], np.float32), 0.25, entropy())

    np.testing.assert_allclose(block.decode(levels), [0.25, -0.25, 0.125, 0.25], atol=1 / block.scale)
    assert saturated == 0.5


def test_a_plain_sum_is_plausible_up_to_its_members_weight() -> None:
    block = PlainBlock(2, 32, clip=10.0, limit=1.0, max_members=4)
    edge = math.floor(2.5 * block.scale) + 4

    assert block.is_plausible(np.array([edge, -edge]), 2.5, 4)
    assert not block.is_plausible(np.array([0, -2 * edge]), 2.5, 4)
    assert block.saturated(np.array([edge, edge])) == 0.0


def test_a_rotated_block_gives_back_what_it_was_given() -> None:
    update = update_of()
    levels, saturated = window(3, kept=SIZE).encode(update, 1.0, entropy())

    assert (levels.shape, levels.dtype.name, saturated) == ((SIZE,), "int32", 0.0)
    np.testing.assert_allclose(window(3, kept=SIZE).decode(levels), update, atol=2e-6)


def test_a_weight_scales_a_rotated_update() -> None:
    update = update_of()
    levels, _ = window(0, kept=SIZE).encode(update, 0.25, entropy())

    np.testing.assert_allclose(window(0, kept=SIZE).decode(levels), update / 4, atol=2e-6)


def test_encoding_leaves_the_update_alone() -> None:
    update = update_of()
    before = update.copy()
    window(0).encode(update, 1.0, entropy())

    np.testing.assert_array_equal(update, before)


@pytest.mark.parametrize("start", [0, 1, SIZE - KEPT, SIZE - 2, SIZE - 1, SIZE, 2**64 - 1])
def test_a_window_begins_where_the_round_says_and_goes_on_at_the_front(start: int) -> None:
    rotated = update_of()
    rotate(rotated, SIGNS)
    levels, _ = window(start).encode(update_of(), 1.0, entropy())

    chosen = [(start + step) % SIZE for step in range(KEPT)]
    np.testing.assert_allclose(levels / FINE, rotated[chosen], atol=2e-6)


@pytest.mark.parametrize("kept", [1, KEPT, SIZE - 1])
def test_the_mean_over_all_windows_is_the_update(kept: int) -> None:
    blocks = [window(start, kept=kept) for start in range(SIZE)]
    decoded = [block.decode(block.encode(update_of(), 1.0, entropy())[0]) for block in blocks]

    np.testing.assert_allclose(np.mean(decoded, axis=0), update_of(), atol=2e-6)
    assert np.std(decoded, axis=0).max() > 0.1


def test_windows_of_many_rounds_begin_everywhere_as_often() -> None:
    """Chi-square of 11 degrees of freedom; 50 comes by chance once in a million."""
    generator = np.random.default_rng(5)
    blocks = (RotatedBlock(SIZE, 1, 32, CLIP, FINE, generator.bytes) for _ in range(6000))
    starts = np.bincount([block._choices()[0] for block in blocks], minlength=SIZE)

    assert ((starts - 500) ** 2 / 500).sum() < 50


@pytest.mark.parametrize("kept", [1, KEPT, SIZE])
@pytest.mark.parametrize("word", [b"\x00", b"\x7f", b"\xff"])
@pytest.mark.parametrize("length", [0.5 * CLIP, CLIP, 1.001 * CLIP, 1e9])
def test_no_entropy_and_no_update_make_the_integers_longer_than_the_bound(
    kept: int, word: bytes, length: float
) -> None:
    block = window(7, kept=kept, scale=3.0)
    levels, _ = block.encode(update_of(length=length), 1.0, lambda count: word * count)

    assert squared_length(levels) <= block.norm_squared


@pytest.mark.parametrize(("size", "bits", "members"), [(40, 24, 3), (1000, 20, 3), (100_000, 24, 3)])
def test_an_update_at_the_clip_is_not_lost_to_the_last_digits_of_float32(
    size: int, bits: int, members: int
) -> None:
    """The finer the levels, the less a rotation that lengthens may be off: one part in 10^7 to 10^9."""
    scale = rotated_scale(bits, CLIP, members, size)
    for seed in range(10):
        signs = np.random.default_rng(seed).bytes(sign_bytes(size))
        block = RotatedBlock(size, size, bits, CLIP, scale, round_bytes(0, signs))
        assert block.encode(update_of(size, seed=seed), 1.0, entropy(seed))[0].any()


@pytest.mark.parametrize("seed", range(40))
def test_an_update_at_the_clip_is_not_lost_where_a_level_is_finer_than_float32(seed: int) -> None:
    block = window(0, kept=SIZE, scale=5e8)
    integers, _ = block.encode(update_of(seed=seed), 1.0, entropy(seed))
    assert squared_length(integers) == pytest.approx((5e8 * CLIP) ** 2, rel=1e-5)


def test_coordinates_near_the_rings_edge_are_counted() -> None:
    block = replace(window(0, kept=4, scale=1.0), bits=8)
    edge = int(NEAR_EDGE * 128)

    assert block.saturated(np.array([edge, -edge, 0, 127])) == 0.25
    assert block.saturated(np.array([edge + 1, -edge - 1, 0, 127])) == 0.75


def test_a_rotated_sum_is_plausible_up_to_its_members_lengths_and_their_noise() -> None:
    block = window(0, scale=100.0)
    longest = 3 * math.sqrt(block.norm_squared)
    noise = 20 * (math.sqrt(KEPT) + 8)

    def sum_of(length: float) -> NDArray[np.int64]:
        return np.array([0, round(length), 0, 0, 0])

    assert block.is_plausible(sum_of(longest - 1), 3.0, 3)
    assert not block.is_plausible(sum_of(longest + 2), 3.0, 3)
    assert block.is_plausible(sum_of(longest + noise - 1), 3.0, 3, noise=20.0)
    assert not block.is_plausible(sum_of(longest + noise + 2), 3.0, 3, noise=20.0)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 2.0**31])
def test_a_scale_whose_integers_do_not_fit_is_refused(scale: float) -> None:
    with pytest.raises(QuantizationError):
        window(0, scale=scale)


def test_a_sketch_keeps_a_part_of_the_coordinates_rounded_up() -> None:
    assert [kept_of(10, part) for part in (1e-9, 0.1, 0.11, 0.5, 1.0)] == [1, 1, 2, 5, 10]
    assert kept_of(1, 0.01) == 1


def test_the_rotation_spreads_over_a_power_of_two() -> None:
    assert [rotation_size(size) for size in (1, 2, 3, 4, 7, 8, 1_000_000)] == [1, 2, 2, 4, 4, 8, 2**19]


@pytest.mark.parametrize(
    ("bits", "members", "noise", "kept"), [(16, 100, 0, 0), (12, 20, 30, 500), (20, 900, 3, 9)]
)
def test_at_the_bound_signal_rounding_and_noise_fill_the_ring(
    bits: int, members: int, noise: float, kept: int
) -> None:
    bound = ring_bound(bits, members, 1000, noise, kept)

    squared = bound**2 + bound + kept / 4 + math.sqrt(kept) / 2
    power = (members * bound) ** 2 / 512 + members / 4 + noise * squared
    assert math.sqrt(power) * TAIL == pytest.approx(2 ** (bits - 1), rel=1e-9)


def test_a_ring_that_rounding_or_noise_fills_has_no_room() -> None:
    assert ring_bound(8, 4 * 22**2, 1000) == 0.0
    assert ring_bound(8, 4 * 21**2, 1000) > 0.0
    assert ring_bound(16, 10, 1000, noise=1e9, kept=1000) == 0.0


def test_a_scale_leaves_the_ring_its_tail() -> None:
    assert rotated_scale(16, 0.5, 100, 1000) == pytest.approx(2 * ring_bound(16, 100, 1000))
    assert rotated_scale(32, 0.5, 1, 2**40) == 2 * MAX_BOUND


@pytest.mark.parametrize(("bits", "members", "size"), [(8, 2000, 1000), (8, 500, 1000), (8, 1000, 2**17 - 1)])
def test_a_ring_too_small_for_a_rotated_update_is_refused_with_what_would_help(
    bits: int, members: int, size: int
) -> None:
    with pytest.raises(QuantizationError, match="raise bits or invite fewer members"):
        rotated_scale(bits, 1.0, members, size)
