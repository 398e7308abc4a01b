"""Shares against plain integers, liars found, and what too few shares can say."""

from collections.abc import Callable
from hashlib import sha256

import numpy as np
import pytest

from secagg import shamir
from secagg.errors import ShareError
from secagg.keys import Secret

SECRET = Secret(sha256(b"secret").digest())
STREAM_KEY = Secret(sha256(b"stream").digest())


def is_secret(candidate: Secret) -> bool:
    return candidate == SECRET


def split(threshold: int, count: int) -> dict[int, bytes]:
    return shamir.split(SECRET, threshold=threshold, points=range(1, count + 1), stream_key=STREAM_KEY)


def limbs(share: bytes) -> list[int]:
    return [int(limb) for limb in np.frombuffer(share, "<u4")]


def plain_weight(point: int, points: list[int], at: int) -> int:
    """Lagrange's weight in plain integers."""
    above, below = 1, 1
    for other in points:
        if other != point:
            above = above * (other - at) % shamir.PRIME
            below = below * (other - point) % shamir.PRIME
    return above * pow(below, -1, shamir.PRIME) % shamir.PRIME


def test_interpolation_agrees_with_plain_integers_at_large_points() -> None:
    points = [1, 77, 2**16, 2**30 + 1, shamir.PRIME - 2, shamir.PRIME - 1]
    shares = shamir.split(SECRET, threshold=4, points=points, stream_key=STREAM_KEY)
    for left_out in (points[:2], points[4:], points[1:3]):
        chosen = [point for point in points if point not in left_out]
        assert shamir.combine({point: shares[point] for point in chosen}, 4) == SECRET
        for asked in left_out:
            weights = {point: plain_weight(point, chosen, asked) for point in chosen}
            expected = [
                sum(weights[point] * limbs(shares[point])[limb] for point in chosen) % shamir.PRIME
                for limb in range(shamir.LIMBS)
            ]
            assert limbs(shares[asked]) == expected
            assert shamir.evaluate({point: shares[point] for point in chosen}, 4, asked) == shares[asked]


def test_evaluating_at_a_given_point_returns_the_given_share() -> None:
    shares = split(3, 5)
    assert shamir.evaluate(shares, 3, 2) == shares[2]


def test_all_secrets_of_the_range_survive() -> None:
    for secret in (Secret(bytes(32)), Secret(b"\xff" * 32), Secret(b"\x01" + bytes(31))):
        shares = shamir.split(secret, threshold=2, points=[9, 4], stream_key=STREAM_KEY)
        assert shamir.combine(shares, 2) == secret


def test_a_threshold_of_one_is_the_secret_itself_at_every_point() -> None:
    shares = split(1, 3)
    assert len(set(shares.values())) == 1
    assert shamir.combine(shares, 1) == SECRET


def test_many_secrets_with_different_subsets() -> None:
    secrets = [Secret(sha256(bytes([index])).digest()) for index in range(150)]
    given = []
    for index, secret in enumerate(secrets):
        key = Secret(sha256(bytes([index, 1])).digest())
        shares = shamir.split(secret, threshold=30, points=range(1, 51), stream_key=key)
        given.append(
            {point: shares[point] for point in sorted(shares, key=lambda p: (p * (index + 3)) % 53)[:33]}
        )
    assert shamir.combine_many(given, 30) == secrets
    assert shamir.combine_many([], 30) == []


def test_one_bad_share_spoils_only_its_own_secret() -> None:
    good = split(3, 5)
    short, not_below_prime = {**good, 2: good[2][:-1]}, {**good, 1: b"\xff\xff\xff\x7f" + good[1][4:]}
    assert shamir.combine_many([good, short, not_below_prime, good], 3) == [SECRET, None, None, SECRET]


def test_more_than_256_bits_is_no_secret() -> None:
    too_large = (2**16).to_bytes(4, "little")
    limb_too_large = (2**30).to_bytes(4, "little")
    assert shamir.combine_many([{1: bytes(32) + too_large}, {1: limb_too_large + bytes(32)}], 1) == [
        None,
        None,
    ]
    top = shamir.combine({1: bytes(32) + (2**16 - 1).to_bytes(4, "little")}, 1)
    assert top == Secret(bytes(30) + b"\xff\xff")


@pytest.mark.parametrize("liars", [{1}, {4}, {9}, {1, 2}, {1, 5}, {2, 4, 6, 8}])
def test_liars_are_found_while_enough_tell_the_truth(liars: set[int]) -> None:
    shares = split(5, 9)
    given = {point: shares[1 + point % 9] if point in liars else share for point, share in shares.items()}
    assert shamir.recover(given, 5, is_secret) == (SECRET, frozenset(liars))


def shifted(share: bytes, offset: int) -> bytes:
    return np.array([(limb + offset) % shamir.PRIME for limb in limbs(share)], "<u4").tobytes()


def test_liars_cannot_frame_the_honest() -> None:
    """Two lies that cancel in the first subset tried give the right secret there, and make honest shares
    look wrong."""
    shares, first = split(5, 9), [1, 2, 3, 4, 5]
    second_lie = -plain_weight(1, first, 0) * pow(plain_weight(2, first, 0), -1, shamir.PRIME)
    given = {**shares, 1: shifted(shares[1], 1), 2: shifted(shares[2], second_lie)}
    assert shamir.combine(given, 5) == SECRET
    assert shamir.evaluate(given, 5, 9) != shares[9]
    assert shamir.recover(given, 5, is_secret) == (SECRET, frozenset({1, 2}))


def test_just_enough_shares_suffice() -> None:
    assert shamir.recover(split(3, 3), 3, is_secret) == (SECRET, frozenset())


def test_a_liar_without_redundancy_to_spare_is_still_the_least_agreed_with() -> None:
    given = split(3, 4) | {2: bytes(36)}
    assert shamir.recover(given, 3, is_secret) == (SECRET, frozenset({2}))


def test_malformed_shares_are_lies() -> None:
    shares = {**split(3, 5), 1: b"", 3: b"\xff" * 36}
    assert shamir.recover(shares, 3, is_secret) == (SECRET, frozenset({1, 3}))


@pytest.mark.parametrize(
    "shares",
    [
        {},
        split(3, 2 + 1) | {3: b"short"},
        {point: bytes(36) for point in range(1, 30)},
    ],
    ids=["none", "too few well-formed", "all lie"],
)
def test_recovery_ends_when_there_is_nothing_to_find(shares: dict[int, bytes]) -> None:
    with pytest.raises(ShareError):
        shamir.recover(shares, 3, is_secret)


@pytest.mark.parametrize(
    "call",
    [
        lambda: shamir.split(Secret(bytes(31)), threshold=1, points=[1], stream_key=STREAM_KEY),
        lambda: split(0, 3),
        lambda: split(4, 3),
        lambda: shamir.split(SECRET, threshold=2, points=[1, 1], stream_key=STREAM_KEY),
        lambda: shamir.split(SECRET, threshold=2, points=[0, 1], stream_key=STREAM_KEY),
        lambda: shamir.split(SECRET, threshold=2, points=[1, shamir.PRIME], stream_key=STREAM_KEY),
        lambda: shamir.combine(split(3, 5), 0),
        lambda: shamir.combine({1: bytes(36)}, 2),
        lambda: shamir.evaluate(split(3, 5), 3, 0),
        lambda: shamir.evaluate({1: b""}, 1, 2),
    ],
)
def test_arguments_out_of_range_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ShareError):
        call()


def test_fewer_shares_fit_every_secret_equally_well() -> None:
    """Two of three shares and any secret whatever determine exactly one third share."""
    shares = split(3, 3)
    for name in (b"one", b"another"):
        target = sha256(name).digest()
        wanted = limbs(shamir.split(Secret(target), threshold=1, points=[1], stream_key=STREAM_KEY)[1])
        weights = {point: plain_weight(point, [1, 2, 3], 0) for point in (1, 2, 3)}
        third = [
            (want - weights[1] * first - weights[2] * second)
            * pow(weights[3], -1, shamir.PRIME)
            % shamir.PRIME
            for want, first, second in zip(wanted, limbs(shares[1]), limbs(shares[2]), strict=True)
        ]
        forged = {**shares, 3: np.array(third, "<u4").tobytes()}
        assert shamir.combine(forged, 3) == Secret(target)


def test_a_share_is_uniform_whatever_the_secret() -> None:
    """Chi-square over 16 cells, 15 degrees of freedom: 60 is exceeded once in 4 million."""
    for secret in (Secret(bytes(32)), Secret(b"\xff" * 32)):
        seen = np.array(
            [
                limbs(
                    shamir.split(secret, threshold=2, points=[1, 2], stream_key=Secret(bytes(14) + seed))[1]
                )
                for seed in (index.to_bytes(2, "big") for index in range(1000))
            ],
            np.int64,
        )
        cells = np.bincount((seen >> 27).reshape(-1), minlength=16)
        assert float(((cells - seen.size / 16) ** 2 / (seen.size / 16)).sum()) < 60


def test_coefficients_skip_the_value_that_is_no_element() -> None:
    words = np.array([5, shamir.PRIME, 2**31 + 6, 2**32 - 1, 0], np.uint32)
    assert shamir._below_prime(words).tolist() == [5, 6, 0]
