import math

import numpy as np
import pytest

from privacy.clipping import clamp, clip_l2
from privacy.errors import NotFiniteError


def test_a_short_update_is_copied_unchanged() -> None:
    delta = np.array([3.0, 4.0], dtype=np.float32)

    kept, clipped = clip_l2(delta, 5.0)

    assert not clipped
    assert kept.tolist() == [3.0, 4.0]
    assert not np.shares_memory(kept, delta)


def test_a_long_update_is_scaled_onto_the_ball() -> None:
    delta = np.array([3.0, 4.0], dtype=np.float32)

    shortened, clipped = clip_l2(delta, 1.0)

    assert clipped
    assert shortened.dtype == np.float32
    np.testing.assert_allclose(shortened, [0.6, 0.8], rtol=1e-6)
    assert delta.tolist() == [3.0, 4.0]


def test_the_norm_of_a_huge_update_does_not_overflow() -> None:
    delta = np.full(100_000, 3e38, dtype=np.float32)

    shortened, clipped = clip_l2(delta, 1.0)

    assert clipped
    assert math.isclose(float(np.linalg.norm(shortened.astype(np.float64))), 1.0, rel_tol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused(bad: float) -> None:
    delta = np.zeros(70_000, dtype=np.float32)
    delta[69_999] = bad

    with pytest.raises(NotFiniteError, match="NaN or infinity"):
        clip_l2(delta, 1.0)


def test_coordinates_outside_the_bound_are_clamped_and_counted() -> None:
    delta = np.array([-2.0, -0.5, 0.5, 1.0], dtype=np.float32)

    clamped, saturated = clamp(delta, 1.0)

    assert clamped.tolist() == [-1.0, -0.5, 0.5, 1.0]
    assert saturated == 0.25
    assert delta[0] == -2.0


def test_a_bound_that_float32_cannot_hold_is_never_exceeded() -> None:
    limit = 0.1  # float32's nearest is above it

    clamped, _ = clamp(np.array([9.0, -9.0], dtype=np.float32), limit)

    assert float(clamped[0]) <= limit
    assert float(clamped[1]) >= -limit


def test_an_empty_update_saturates_nothing() -> None:
    assert clamp(np.zeros(0, dtype=np.float32), 1.0)[1] == 0.0
