"""Degrees and thresholds against the published rule, and the ring that devices recompute."""

import pytest

from secagg.errors import GraphError
from secagg.graph import (
    COMPLETE_UP_TO,
    GraphParameters,
    complete_parameters,
    harary_parameters,
    neighbours,
    neighbours_of,
    parameters,
)

# (n, corrupt, dropout): semi-honest (k, t), malicious (k, t), at sigma = 40.
SIGMA_40 = {
    (100, 0.05, 0.05): ((12, 6), (16, 11)),
    (100, 0.05, 0.1): ((16, 6), (26, 16)),
    (100, 0.05, 0.3): ((26, 6), (66, 36)),
    (100, 0.1, 0.05): ((16, 11), (22, 17)),
    (100, 0.1, 0.1): ((22, 11), (32, 22)),
    (100, 0.1, 0.3): ((34, 11), (72, 42)),
    (300, 0.1, 0.05): ((30, 20), (48, 36)),
    (300, 0.1, 0.1): ((36, 21), (66, 46)),
    (300, 0.1, 0.3): ((66, 26), (186, 109)),
    (1000, 0.05, 0.05): ((30, 17), (52, 37)),
    (1000, 0.05, 0.1): ((36, 19), (78, 52)),
    (1000, 0.05, 0.3): ((66, 23), (314, 179)),
    (1000, 0.1, 0.05): ((38, 24), (66, 49)),
    (1000, 0.1, 0.1): ((48, 27), (96, 67)),
    (1000, 0.1, 0.3): ((88, 36), (414, 247)),
    (1000, 0.2, 0.05): ((52, 37), (90, 71)),
    (1000, 0.2, 0.1): ((68, 44), (140, 104)),
    (1000, 0.2, 0.3): ((140, 67), (642, 409)),
    (10_000, 0.05, 0.05): ((34, 20), (62, 44)),
    (10_000, 0.05, 0.1): ((42, 22), (96, 64)),
    (10_000, 0.05, 0.3): ((80, 29), (522, 299)),
    (10_000, 0.1, 0.05): ((42, 27), (80, 59)),
    (10_000, 0.1, 0.1): ((54, 31), (122, 85)),
    (10_000, 0.1, 0.3): ((108, 44), (778, 465)),
    # The test points of Google's implementation.
    (1000, 0.05, 0.33): ((72, 24), (398, 223)),
}
MEMBERS = [f"d{index}" for index in range(20)]
T1 = b"\x01" * 32


@pytest.mark.parametrize("case", SIGMA_40, ids=str)
def test_the_rule_gives_the_published_degrees(case: tuple[int, float, float]) -> None:
    for malicious, expected in zip((False, True), SIGMA_40[case], strict=True):
        assert harary_parameters(*case, sigma=40, malicious=malicious) == GraphParameters(*expected)


@pytest.mark.parametrize(("dropout", "degree", "threshold"), [(0.05, 94, 74), (0.1, 132, 97)])
def test_grinding_is_paid_for(dropout: float, degree: int, threshold: int) -> None:
    assert parameters(1000, 0.1, dropout) == GraphParameters(degree, threshold)


@pytest.mark.parametrize(("n", "dropouts"), [(10, 2), (32, 10), (64, 20)])
def test_a_complete_graph_tolerates_what_the_design_says(n: int, dropouts: int) -> None:
    found = parameters(n, 1 / 3, 0.9)
    assert found.degree == n - 1
    assert n - 1 - dropouts == found.threshold


@pytest.mark.parametrize("n", range(2, 200))
def test_no_two_disjoint_views_reach_the_threshold(n: int) -> None:
    for corrupt_fraction in (0.0, 0.1, 1 / 3, 0.45):
        found = complete_parameters(n, corrupt_fraction)
        assert 2 * found.threshold > found.degree + corrupt_fraction * n - 1
        assert 1 <= found.threshold <= found.degree == n - 1


def test_where_nothing_sparser_is_safe_the_graph_is_complete() -> None:
    assert parameters(65, 1 / 3, 0.3) == complete_parameters(65, 1 / 3)
    with pytest.raises(GraphError):
        harary_parameters(65, 1 / 3, 0.3)


def test_the_sparse_graph_starts_above_the_limit() -> None:
    assert parameters(COMPLETE_UP_TO, 1 / 3, 0.1).degree == COMPLETE_UP_TO - 1
    assert parameters(COMPLETE_UP_TO + 1, 1 / 3, 0.1) == GraphParameters(38, 31)


def test_a_fraction_is_the_number_that_was_written() -> None:
    """0.07 · 100 is above 7 in binary; seven are meant."""
    assert complete_parameters(100, 0.07) == GraphParameters(99, (99 + 6) // 2 + 1)


@pytest.mark.parametrize(("n", "corrupt"), [(0, 0.0), (1, 0.0), (3, 0.99), (10, 1.0), (10, -0.1)])
def test_impossible_cohorts_are_refused(n: int, corrupt: float) -> None:
    with pytest.raises(GraphError):
        complete_parameters(n, corrupt)
    with pytest.raises(GraphError):
        parameters(n, corrupt, 0.0)


@pytest.mark.parametrize("degree", [2, 8, 18, 19])
def test_neighbours_are_mutual_and_each_has_as_many(degree: int) -> None:
    found = neighbours(MEMBERS, degree, T1)
    assert set(found) == set(MEMBERS)
    for member, near in found.items():
        assert len(near) == degree
        assert member not in near
        assert all(member in found[other] for other in near)
        assert neighbours_of(member, MEMBERS[::-1], degree, T1) == near


def test_the_transcript_moves_everyone() -> None:
    assert neighbours(MEMBERS, 4, T1) != neighbours(MEMBERS, 4, b"\x02" * 32)
    assert neighbours(MEMBERS, 4, T1) == neighbours(sorted(MEMBERS), 4, T1)


@pytest.mark.parametrize("degree", [-2, 0, 3, 20, 22])
def test_a_degree_that_no_ring_has_is_refused(degree: int) -> None:
    with pytest.raises(GraphError):
        neighbours(MEMBERS, degree, T1)


def test_repeated_and_unknown_members_are_refused() -> None:
    with pytest.raises(GraphError, match="repeat"):
        neighbours([*MEMBERS, "d0"], 4, T1)
    with pytest.raises(GraphError, match="not a member"):
        neighbours_of("stranger", MEMBERS, 4, T1)
