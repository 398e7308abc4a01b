"""The masks' low bits obey no short linear recurrence, as those of a Mersenne Twister do.

The low bits of a sum of masks decide what an observer learns about the low bits of the sum of updates. If
each mask comes from one public linear generator, every sum obeys its recurrence, whoever holds the keys.
"""

from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from secagg.keys import Secret
from secagg.pairwise import Expansion, apply
from secagg.ring import RingLayout, RingVector

MASKS = 3


def linear_complexity(bits: NDArray[np.uint8]) -> int:
    """Return the length of the shortest recurrence over GF(2) that gives the bits (Massey 1969).

    Polynomials are integers whose bit i is the coefficient of x^i; `recent` holds the latest bit lowest.
    """
    connection, previous, shift, length, recent = 1, 1, 1, 0, 0
    for place, bit in enumerate(bits.tolist()):
        recent = recent << 1 | bit
        if (connection & recent).bit_count() % 2 == 0:
            shift += 1
            continue
        corrected = connection ^ previous << shift
        if 2 * length <= place:
            length, previous, shift = place + 1 - length, connection, 0
        connection = corrected
        shift += 1
    return length


def looks_random(bits: NDArray[np.uint8]) -> bool:
    """Tell whether the complexity is that of random bits: n/2, and 40 away with probability 2^-80 (Rueppel
    1986)."""
    return abs(linear_complexity(bits) - bits.size / 2) < 40


def low_bits(words: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    return (words & 1).astype(np.uint8)


def register(taps: Iterable[int], order: int, count: int) -> NDArray[np.uint8]:
    bits = [1] + [0] * (order - 1)
    while len(bits) < count:
        bits.append(sum(bits[-tap] for tap in taps) % 2)
    return np.array(bits[:count], np.uint8)


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 32])
def test_the_low_bits_of_summed_masks_obey_no_short_recurrence(bits: int) -> None:
    vector = RingVector.zeros(RingLayout(5000, bits, 0))
    apply(vector, [Expansion(Secret(bytes([index] * 16)), (-1) ** index) for index in range(MASKS)])
    assert looks_random(low_bits(vector.update))


def test_the_same_test_catches_a_shift_register() -> None:
    assert linear_complexity(register((31, 3), 31, 5000)) == 31
    assert not looks_random(register((31, 3), 31, 5000))


def test_the_same_test_catches_the_mersenne_twister_in_a_sum_of_masks() -> None:
    total = np.zeros(41_000, np.uint32)
    for seed in range(MASKS):
        total += np.random.RandomState(seed).randint(0, 2**32, total.size, np.uint32)
    assert linear_complexity(low_bits(total)) == 19_937
    assert not looks_random(low_bits(total))


def test_each_residue_of_a_mask_is_equally_likely() -> None:
    """Chi-square over 256 cells, 255 degrees of freedom: 400 is exceeded once in 10^8."""
    vector = RingVector.zeros(RingLayout(1_000_000, 8, 0))
    apply(vector, [Expansion(Secret(bytes(16)), 1)])
    cells, expected = np.bincount(vector.update, minlength=256), vector.update.size / 256
    assert float(((cells - expected) ** 2 / expected).sum()) < 400
