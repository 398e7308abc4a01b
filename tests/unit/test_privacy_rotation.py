"""The rotation against vectors; `vectors/make_rotation.py` made them without our code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy.rotation import rotate, sign_bytes, unrotate

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "rotation.json").read_text())


@pytest.mark.parametrize("case", VECTORS["rotation"], ids=lambda case: f"d={len(case['values'])}")
def test_the_vectors_agree(case: dict[str, Any]) -> None:
    values, signs = np.array(case["values"]), bytes.fromhex(case["signs"])

    rotate(values, signs)
    np.testing.assert_allclose(values, case["rotated"], rtol=0, atol=1e-13)

    unrotate(values, signs)
    np.testing.assert_allclose(values, case["values"], rtol=0, atol=1e-13)


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["why"])
def test_wrong_vectors_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"bytes of signs|one contiguous row"):
        rotate(np.array(case["values"]), bytes.fromhex(case["signs"]))


@pytest.mark.parametrize(
    "values",
    [np.zeros(16)[::2], np.zeros((2, 4)), np.zeros(8, np.int64), np.zeros(8, np.float16), np.zeros(8, ">f8")],
    ids=["strided", "matrix", "integers", "half precision", "big-endian"],
)
def test_what_cannot_be_rotated_in_place_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one contiguous row"):
        unrotate(values, bytes(4))


def test_bits_after_the_last_coordinate_mean_nothing() -> None:
    low, high = np.arange(3.0), np.arange(3.0)

    rotate(low, bytes([0b101] * 4))
    rotate(high, bytes([0b11111101] * 4))

    np.testing.assert_array_equal(low, high)


@pytest.mark.parametrize("size", [100_000, 2**17 - 1, 2**17, 2**17 + 1])
@pytest.mark.parametrize(("dtype", "accuracy"), [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_a_large_vector_keeps_its_length_and_comes_back(
    size: int, dtype: type[np.floating], accuracy: float
) -> None:
    generator = np.random.default_rng(size)
    original, signs = generator.standard_normal(size).astype(dtype), generator.bytes(sign_bytes(size))
    length = np.linalg.norm(original.astype(np.float64))

    values = original.copy()
    rotate(values, signs)
    assert np.linalg.norm(values.astype(np.float64)) == pytest.approx(length, rel=accuracy)

    unrotate(values, signs)
    assert np.linalg.norm(values.astype(np.float64) - original) < 2 * accuracy * length


def test_float32_is_as_near_to_float64_as_said() -> None:
    generator = np.random.default_rng(5)
    single, signs = generator.standard_normal(2**18).astype(np.float32), generator.bytes(2**17)
    double = single.astype(np.float64)

    rotate(single, signs)
    rotate(double, signs)

    assert np.linalg.norm(single - double) < 1e-6 * np.linalg.norm(double)


@pytest.mark.parametrize("size", [1000, 1024, 1025, 1500, 2047])
@pytest.mark.parametrize("shape", ["first spike", "last spike", "constant"])
def test_the_worst_vectors_are_spread_over_all_coordinates(size: int, shape: str) -> None:
    """No coordinate passes the tail of a variance of |x|²/D: a false alarm once in 10^6."""
    generator = np.random.default_rng(11)
    start = np.zeros(size)
    start[{"first spike": slice(1), "last spike": slice(-1, None), "constant": slice(None)}[shape]] = 1.0
    start /= np.linalg.norm(start)
    trials, width = 50, 2 ** (size.bit_length() - 1)
    allowed = np.sqrt(2 * np.log(2 * trials * size * 1e6) / width)

    for _ in range(trials):
        values = start.copy()
        rotate(values, generator.bytes(sign_bytes(size)))
        assert np.abs(values).max() < allowed
