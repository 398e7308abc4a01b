"""The rotation is linear and orthogonal at every size, whatever the signs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from privacy.rotation import rotate, sign_bytes, unrotate

NEAR_POWERS = st.builds(lambda power, off: max(2**power + off, 1), st.integers(0, 12), st.integers(-1, 1))
SIZES = st.one_of(st.integers(1, 200), NEAR_POWERS)


def matrix_of(size: int, signs: bytes) -> np.ndarray:
    columns = np.eye(size)
    for column in columns:
        rotate(column, signs)
    return columns.T


@given(size=SIZES, seed=st.integers(0, 2**32))
def test_unrotating_gives_back_what_was_rotated(size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    original, signs = generator.standard_normal(size), generator.bytes(sign_bytes(size))
    values = original.copy()

    rotate(values, signs)
    np.testing.assert_allclose(np.linalg.norm(values), np.linalg.norm(original), rtol=1e-13)

    unrotate(values, signs)
    np.testing.assert_allclose(values, original, rtol=0, atol=1e-13 * float(np.linalg.norm(original)))


@given(size=st.integers(1, 70), seed=st.integers(0, 2**32))
def test_the_matrix_is_orthogonal(size: int, seed: int) -> None:
    matrix = matrix_of(size, np.random.default_rng(seed).bytes(sign_bytes(size)))

    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-13)


@given(size=SIZES, members=st.integers(2, 5), seed=st.integers(0, 2**32))
def test_the_sum_of_rotated_updates_is_the_rotated_sum(size: int, members: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    updates, signs = generator.standard_normal((members, size)), generator.bytes(sign_bytes(size))
    plain = updates.sum(axis=0)

    for update in updates:
        rotate(update, signs)
    total = updates.sum(axis=0)
    unrotate(total, signs)

    np.testing.assert_allclose(total, plain, rtol=0, atol=1e-12 * float(np.linalg.norm(updates)))
