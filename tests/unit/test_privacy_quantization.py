import numpy as np
import pytest

from privacy.errors import QuantizationError
from privacy.quantization import dequantize, quantize, scale_for


def words(*values: int) -> bytes:
    return np.array(values, dtype="<u4").tobytes()


def test_the_scale_is_the_largest_that_cannot_overflow() -> None:
    scale = scale_for(bits=16, limit=2.0, max_members=10)

    assert 10 * (scale * 2.0 + 1) == pytest.approx(2**15 - 1, abs=1e-9)


def test_rounding_goes_up_with_the_probability_of_the_fraction() -> None:
    half, almost_half = 2**31, 2**31 - 1

    rounded = quantize(
        np.array([0.5, 0.5, -0.5, -0.5]), 1.0, lambda _: words(half, almost_half, half, almost_half)
    )

    assert rounded.dtype == np.int32
    assert rounded.tolist() == [1, 0, 0, -1]


def test_entropy_is_taken_four_bytes_a_value_in_order() -> None:
    asked: list[int] = []

    def entropy(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    quantize(np.zeros(40_000, dtype=np.float32), 1.0, entropy)

    assert sum(asked) == 160_000


def test_rounding_is_unbiased() -> None:
    generator = np.random.default_rng(1)
    rounded = quantize(np.full(200_000, 0.3), 1.0, generator.bytes)

    assert set(rounded.tolist()) == {0, 1}
    assert abs(rounded.mean() - 0.3) < 5 * np.sqrt(0.21 / 200_000)


def test_dequantize_undoes_the_scale() -> None:
    assert dequantize(np.array([-6, 0, 9], dtype=np.int64), 3.0).tolist() == [-2.0, 0.0, 3.0]


def test_too_few_levels_name_what_to_change() -> None:
    with pytest.raises(QuantizationError, match="raise bits or invite fewer members"):
        scale_for(bits=8, limit=1.0, max_members=100)


@pytest.mark.parametrize(
    ("bits", "limit", "members"),
    [(1, 1.0, 1), (33, 1.0, 1), (32, 0.0, 1), (32, np.inf, 1), (32, 1.0, 0), (32, 1.0, 2**20)],
)
def test_arguments_outside_the_proof_are_refused(bits: int, limit: float, members: int) -> None:
    with pytest.raises(QuantizationError, match="must be"):
        scale_for(bits, limit, members)
