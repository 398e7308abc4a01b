"""Secret sharing (Shamir 1979) over the field of p = 2^31 - 1 elements, vectorised.

A secret of 32 bytes is nine limbs of 30 bits, each the constant term of a polynomial of its own with
uniformly random other coefficients. Fewer than t shares are independent of the secret, limb by limb. A
share is the nine values at one point, 36 bytes.

Products of two field elements fit in 62 bits, so uint64 is enough; p = 2^31 - 1 makes reduction a shift and
an addition.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray

from secagg.errors import ShareError
from secagg.keys import SECRET_SIZE, Secret
from secagg.prg import keystream

PRIME = 2**31 - 1
LIMBS = 9
LIMB_BITS = 30
SHARE_SIZE = 4 * LIMBS
"""Bytes of a share: nine little-endian words, each below p."""

SUBSETS_TRIED = 512
"""How many t-subsets `recover` looks at. The cyclic windows over the shares come first and always find the
secret when the liars leave t honest shares in a row; beyond some hundreds a search is hopeless, and it must
end."""

_BATCH_ELEMENTS = 2**14  # points of all secrets combined at once: their arrays stay in the second-level cache
_SUBSETS_AT_ONCE = 16  # mostly the first subset is right, and batching pays from a few
_EXCESS_BITS = LIMBS * LIMB_BITS - 8 * SECRET_SIZE

Elements = NDArray[np.uint64]


def split(secret: Secret, *, threshold: int, points: Sequence[int], stream_key: Secret) -> dict[int, bytes]:
    """Share one secret as `split_many` does; return the 36-byte share for each point."""
    return split_many([(secret, stream_key)], threshold=threshold, points=points)


def split_many(
    secrets: Sequence[tuple[Secret, Secret]], *, threshold: int, points: Sequence[int]
) -> dict[int, bytes]:
    """Share each secret so that any `threshold` of its shares give it back and fewer say nothing.

    Args:
        secrets: one or more, each with its stream key: 32 bytes, and 16 or 32 that give the coefficients.
            Never split two secrets with one stream key: the difference of two shares would be the
            difference of the secrets.
        threshold: t, 1 to the number of points.
        points: where the polynomials are evaluated, distinct, 1 to p - 1; one for each receiver.

    Returns:
        For each point the 36-byte shares of the secrets, one after the other.

    Raises:
        ShareError: an argument is out of range.
    """
    if not 1 <= threshold <= len(points) or any(len(secret) != SECRET_SIZE for secret, _ in secrets):
        raise ShareError(f"cannot split {secrets} among {len(points)} with threshold {threshold}")
    if len(set(points)) != len(points):
        raise ShareError("points repeat")
    _check_range(min(points), max(points))
    coefficients = np.hstack([_coefficients(secret, key, threshold) for secret, key in secrets])
    values = _product(_powers(np.array(points, np.uint64)[:, None], threshold), coefficients)
    return {point: row.tobytes() for point, row in zip(points, values.astype("<u4"), strict=True)}


def combine(shares: Mapping[int, bytes], threshold: int) -> Secret:
    """Recover a secret from the first `threshold` shares given.

    Raises:
        ShareError: too few shares, a malformed one, or they do not give 32 bytes. Wrong shares may also
            give wrong bytes: the caller checks them.
    """
    [secret] = combine_many([shares], threshold)
    if secret is None:
        raise ShareError("the shares do not combine to a secret of 32 bytes")
    return secret


def combine_many(shares: Sequence[Mapping[int, bytes]], threshold: int) -> list[Secret | None]:
    """Recover many secrets, each from the first `threshold` of its shares.

    Returns:
        The secrets in order; None where a share is malformed or the shares do not give 32 bytes, so that
        one liar does not spoil the others.

    Raises:
        ShareError: somewhere there are too few shares, or a point is out of range.
    """
    secrets: list[Secret | None] = []
    step = max(1, _BATCH_ELEMENTS // max(1, threshold))
    for start in range(0, len(shares), step):
        secrets += _combine_batch(shares[start : start + step], threshold)
    return secrets


def evaluate(shares: Mapping[int, bytes], threshold: int, point: int) -> bytes:
    """Return the share that the first `threshold` shares imply for another point: a liar's differs.

    Raises:
        ShareError: too few shares, a malformed one, or the point is out of range.
    """
    if point in islice(shares, threshold):
        return shares[point]
    [share] = _evaluate_all(shares, threshold, [point])
    return share


def recover(
    shares: Mapping[int, bytes], threshold: int, is_valid: Callable[[Secret], bool]
) -> tuple[Secret, frozenset[int]]:
    """Recover a secret although some shares lie.

    Liars who act together can choose lies that give the right secret in one subset, where honest shares
    then look wrong. So the subset that the fewest shares contradict is taken: of n shares, two polynomials
    that each agree with all but (n - t)/2 agree with one another, and the search ends at such a one.

    Args:
        shares: 36 bytes for each point.
        threshold: t.
        is_valid: tells the true secret from any other, by its commitment or its public key.

    Returns:
        The secret, and the points whose shares contradict it: exactly the liars if they are at most (n -
        t)/2.

    Raises:
        ShareError: too few well-formed shares, or none of the `SUBSETS_TRIED` subsets gives a valid secret.
    """
    sound = {point: share for point, share in shares.items() if _is_well_formed(share)}
    best: tuple[Secret, frozenset[int]] | None = None
    for subset, secret in _candidates(sound, threshold):
        if not is_valid(secret):
            continue
        liars = _contradicting(subset, shares, threshold)
        if best is None or len(liars) < len(best[1]):
            best = secret, liars
        if 2 * len(liars) <= len(shares) - threshold:
            return best
    if best is None:
        raise ShareError(f"no valid secret among {len(sound)} well-formed shares with threshold {threshold}")
    return best


def _candidates(shares: Mapping[int, bytes], threshold: int) -> Iterator[tuple[dict[int, bytes], Secret]]:
    """Yield subsets of t shares with the secret each gives, at most `SUBSETS_TRIED`."""
    subsets = islice(_subsets(list(shares), threshold), SUBSETS_TRIED)
    while batch := [{point: shares[point] for point in each} for each in islice(subsets, _SUBSETS_AT_ONCE)]:
        for subset, secret in zip(batch, combine_many(batch, threshold), strict=True):
            if secret is not None:
                yield subset, secret


def _contradicting(
    subset: Mapping[int, bytes], shares: Mapping[int, bytes], threshold: int
) -> frozenset[int]:
    others = sorted(shares.keys() - subset.keys())
    implied = _evaluate_all(subset, threshold, others)
    return frozenset(point for point, share in zip(others, implied, strict=True) if shares[point] != share)


def _evaluate_all(shares: Mapping[int, bytes], threshold: int, others: Sequence[int]) -> list[bytes]:
    """Return what the first t shares imply for each of other points."""
    points, values, sound = _stack([shares], threshold)
    if not sound.all():
        raise ShareError("a share is malformed")
    if not others:
        return []
    _check_range(min(others), max(others))
    at = np.array(others, np.uint64)[:, None]
    implied = _interpolate(np.broadcast_to(points, (len(others), threshold)), values, at)
    return [row.tobytes() for row in implied.astype("<u4")]


def _subsets(points: Sequence[int], threshold: int) -> Iterator[tuple[int, ...]]:
    """Yield the windows of the circle of points, then all subsets in lexicographic order."""
    if threshold > len(points):
        return
    circle = (*points, *points)
    yield from (circle[start : start + threshold] for start in range(len(points)))
    yield from combinations(points, threshold)


def _combine_batch(shares: Sequence[Mapping[int, bytes]], threshold: int) -> list[Secret | None]:
    points, values, sound = _stack(shares, threshold)
    limbs = _interpolate(points, values, np.zeros((1, 1), np.uint64))
    sound &= (limbs < 1 << LIMB_BITS).all(axis=1) & (limbs[:, -1] < 1 << (LIMB_BITS - _EXCESS_BITS))
    return [_secret(row) if good else None for row, good in zip(limbs, sound, strict=True)]


def _stack(
    shares: Sequence[Mapping[int, bytes]], threshold: int
) -> tuple[Elements, Elements, NDArray[np.bool_]]:
    """Put the first t shares of each secret into arrays, ordered by point.

    Returns:
        Points (S, t), values (S, t, 9), and which of the S have only well-formed shares; the values of the
        others mean nothing.

    Raises:
        ShareError: too few shares, or a point out of range.
    """
    chosen = [sorted(islice(each.items(), threshold)) for each in shares]
    if threshold < 1 or any(len(each) < threshold for each in chosen):
        raise ShareError(f"fewer shares than the threshold {threshold}")
    for each in chosen:
        _check_range(each[0][0], each[-1][0])
    points = np.array([[point for point, _ in each] for each in chosen], np.uint64)
    sized = [all(len(share) == SHARE_SIZE for _, share in each) for each in chosen]
    blank = [bytes(SHARE_SIZE)] * threshold
    rows = (
        [share for _, share in each] if whole else blank for each, whole in zip(chosen, sized, strict=True)
    )
    words = np.frombuffer(b"".join(share for row in rows for share in row), "<u4")
    values = words.reshape(*points.shape, LIMBS).astype(np.uint64)
    return points, values, np.array(sized) & (values < PRIME).all(axis=(1, 2))


def _interpolate(points: Elements, values: Elements, at: Elements) -> Elements:
    """Evaluate the polynomials through given values, by Lagrange's formula.

    Args:
        points: (S, t), ascending in each row.
        values: (S, t, 9) or (1, t, 9).
        at: (S, 1) or (1, 1), 0 to p - 1, in each row not one of the points.

    Returns:
        (S, 9): Σ_i y_i · Π_{j≠i} (x_j - at) / (x_j - x_i), that is Π_j (x_j - at) · Σ_i y_i / ((x_i - at) ·
        d_i) with d_i = Π_{j≠i} (x_j - x_i).
    """
    offsets = _reduce(points + (np.uint64(PRIME) - at))
    whole = offsets[:, :1]
    for column in offsets.T[1:, :, None]:
        whole = _reduce(whole * column)
    weights = _reduce(whole * _inverse(_reduce(offsets * _spread(points))))
    terms = _reduce(weights[:, :, None] * values)
    total: Elements = terms.sum(axis=1)  # fewer than 2^31 terms below 2^31
    return total % np.uint64(PRIME)


def _spread(points: Elements) -> Elements:
    """Return d_i = Π_{j≠i} (x_j - x_i) modulo p for each of (S, t) points that ascend in each row."""
    product = np.ones_like(points)
    for j in range(points.shape[1]):
        distance = np.maximum(points, points[:, j : j + 1])
        distance -= np.minimum(points, points[:, j : j + 1])
        distance[:, j] = 1
        product = _reduce(product * distance)
    product[:, 1::2] = PRIME - product[:, 1::2]  # point i has i smaller ones: as many negative factors
    return product


def _inverse(elements: Elements) -> Elements:
    """Raise to the power p - 2 (Fermat's little theorem), by squaring and multiplying."""
    result = elements
    for bit in bin(PRIME - 2)[3:]:
        result = _reduce(result * result)
        if bit == "1":
            result = _reduce(result * elements)
    return result


def _powers(points: Elements, count: int) -> Elements:
    """Return (n, count): the powers of (n, 1) points, the highest first, `count` doubled at each step."""
    powers, factor = np.ones_like(points), points
    while powers.shape[1] < count:
        powers = np.hstack([powers * factor % np.uint64(PRIME), powers])
        factor = factor * factor % np.uint64(PRIME)
    return powers[:, -count:]


def _product(left: Elements, right: Elements) -> Elements:
    """Multiply matrices, (n, t) by (t, m) with t ≤ 2^16: 16 bits of `right` at a time, so that sums fit."""
    high = (left @ (right >> np.uint64(16))) % np.uint64(PRIME)
    low = left @ (right & np.uint64(2**16 - 1))
    total: Elements = ((high << np.uint64(16)) + low) % np.uint64(PRIME)
    return total


def _reduce(values: Elements) -> Elements:
    """Reduce values up to p² - p modulo p = 2^31 - 1; as 2^31 ≡ 1, the high part is added to the low one."""
    folded = values >> np.uint64(31)
    folded += values & np.uint64(PRIME)
    # At most 2p - 2. Subtracting p wraps around, and is the larger, just where nothing is to be subtracted.
    reduced: Elements = np.minimum(folded, folded - np.uint64(PRIME))
    return reduced


def _check_range(least: int, most: int) -> None:
    if not 1 <= least <= most < PRIME:
        raise ShareError(f"points are from 1 to p - 1, not {least} to {most}")


def _coefficients(secret: Secret, stream_key: Secret, threshold: int) -> Elements:
    """Return (t, 9): each limb's polynomial in a column, the secret in the last row."""
    random = _uniform_elements(stream_key, (threshold - 1) * LIMBS)
    return np.append(random, _limbs(secret)).reshape(threshold, LIMBS)


def _uniform_elements(stream_key: Secret, count: int) -> Elements:
    """Draw exactly uniform elements: the low 31 bits of each stream word, skipping the value p."""
    spare = 64  # one word in 2^31 is skipped, so that 64 are has probability far below 2^-1000
    words = np.frombuffer(keystream(stream_key, 4 * (count + spare)), "<u4")
    return _below_prime(words)[:count]


def _below_prime(words: NDArray[np.uint32]) -> Elements:
    candidates = words & np.uint32(PRIME)
    elements: Elements = candidates[candidates != PRIME].astype(np.uint64)
    return elements


def _is_well_formed(share: bytes) -> bool:
    return len(share) == SHARE_SIZE and bool((np.frombuffer(share, "<u4") < PRIME).all())


def _limbs(secret: Secret) -> Elements:
    number = int.from_bytes(secret.reveal(), "little")
    mask = (1 << LIMB_BITS) - 1
    return np.array([number >> (LIMB_BITS * limb) & mask for limb in range(LIMBS)], np.uint64)


def _secret(limbs: Elements) -> Secret:
    number = sum(int(limb) << (LIMB_BITS * index) for index, limb in enumerate(limbs))
    return Secret(number.to_bytes(SECRET_SIZE, "little"))
