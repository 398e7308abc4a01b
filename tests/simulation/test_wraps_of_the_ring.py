"""How often coordinates of a rotated sum leave the ring, and what that does to the mean.

The worst honest case: all updates at the clip and all the same. Each coordinate of the sum is then close to
normal with exactly the deviation that the ring has room for, so it wraps with probability 2 Phi(-k), k the
room in deviations, and is then off by the whole ring of 2^b. As a part of the sum's power that is
`2 Phi(-k) (2 k)^2`: 10 % for k = 3, 0.4 % for the usual k = 4, and 3e-7 for the `TAIL` of 6 that rounds have.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from privacy import blocks
from privacy.blocks import RotatedBlock, rotated_scale
from privacy.noise import SIGMA_PARTS, discrete_gaussian
from privacy.parameters import Setting, round_parameters
from privacy.survivors import Cohort
from secagg.ring import RingLayout, RingVector

SIZE, BITS, CLIP = 2**20, 16, 1.0
ROUNDS, MEMBERS = 8, 4
DEVIATIONS = 5.5


def wrapped_part(tail: float) -> float:
    """2 Phi(-k)."""
    return math.erfc(tail / math.sqrt(2))


@dataclass(frozen=True)
class Wraps:
    """Of one sum: how many coordinates wrapped, and the error's power over the sum's."""

    count: int
    error: float


def in_the_ring(total: NDArray[np.int64]) -> Wraps:
    """A sum as a coordinate has it, beside the sum of whole numbers."""
    layout = RingLayout(SIZE, BITS, 0)
    read = RingVector.from_signed(layout, np.zeros(0, np.int64), total).signed_update().astype(np.int64)
    error = (read - total).astype(np.float64)
    return Wraps(
        int(np.count_nonzero(error)), float((error**2).sum() / (total.astype(np.float64) ** 2).sum())
    )


def update_of(generator: np.random.Generator) -> NDArray[np.float32]:
    """One that is far from normal before it is rotated: a few coordinates hold everything."""
    update = np.zeros(SIZE, np.float32)
    update[generator.integers(SIZE, size=50)] = generator.exponential(size=50)
    return update * np.float32(CLIP / np.linalg.norm(update))


def round_without_noise(seed: int) -> Wraps:
    generator = np.random.default_rng(seed)
    stream = generator.bytes(8 + SIZE // 2)
    scale = rotated_scale(BITS, CLIP, MEMBERS, SIZE)
    block = RotatedBlock(SIZE, SIZE, BITS, CLIP, scale, lambda count: stream[:count])
    update = update_of(generator)
    levels = [block.encode(update, 1.0, generator.bytes)[0] for _ in range(MEMBERS)]
    return in_the_ring(np.sum(levels, axis=0, dtype=np.int64))


def round_with_noise(seed: int) -> Wraps:
    generator = np.random.default_rng(seed)
    made = round_parameters(
        Setting("distributed", 0.01, 0.02, Cohort(MEMBERS, MEMBERS, 0.1), SIZE, 3, BITS, CLIP)
    )
    stream = generator.bytes(8 + SIZE // 2)
    block = RotatedBlock(SIZE, SIZE, BITS, CLIP, made.update.scale, lambda count: stream[:count])
    update = update_of(generator)
    total = np.zeros(SIZE, np.int64)
    for _ in range(MEMBERS):
        total += block.encode(update, 1.0, generator.bytes)[0]
        total += discrete_gaussian(SIZE, round(made.update.sigma * SIGMA_PARTS), generator.bytes)
    return in_the_ring(total)


@pytest.mark.parametrize("tail", [3.0, 4.0])
def test_with_less_room_coordinates_wrap_as_often_as_predicted_and_cost_as_much(
    tail: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "TAIL", tail)
    rounds = [round_without_noise(seed) for seed in range(ROUNDS)]

    predicted = ROUNDS * SIZE * wrapped_part(tail)
    assert abs(sum(wraps.count for wraps in rounds) - predicted) < DEVIATIONS * math.sqrt(predicted)
    error = np.mean([wraps.error for wraps in rounds])
    assert error == pytest.approx(wrapped_part(tail) * (2 * tail) ** 2, rel=DEVIATIONS / math.sqrt(predicted))


def test_noise_takes_its_part_of_the_room_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "TAIL", 4.0)
    predicted = SIZE * wrapped_part(4.0)

    assert abs(round_with_noise(seed=1).count - predicted) < DEVIATIONS * math.sqrt(predicted)


def test_with_the_room_that_rounds_have_nothing_wraps() -> None:
    """Eight rounds and one with noise, of a million coordinates each: 0.02 wraps are predicted."""
    rounds = [*(round_without_noise(seed) for seed in range(ROUNDS)), round_with_noise(seed=1)]

    assert len(rounds) * SIZE * wrapped_part(blocks.TAIL) < 0.02
    assert {(wraps.count, wraps.error) for wraps in rounds} == {(0, 0.0)}
