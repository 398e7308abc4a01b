"""Who shares masks with whom, and how many shares recover a secret.

Small cohorts use the complete graph of Bonawitz et al. (2017, CCS). Larger ones use a Harary graph on a
random permutation, each member joined to the k/2 before and the k/2 after it on a ring, with degree k and
threshold t from the bounds of Bell et al. (2020, CCS). All probabilities are compared as exact integers, so
every device on every platform finds the same k and t.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, comb, perm

from secagg.errors import GraphError

COMPLETE_UP_TO = 64
"""Members up to which the complete graph is used: a sparser one would save less than a hundred milliseconds
of masking there, and the complete graph needs no assumption on how dropouts fall."""

SECURITY_BITS = 40 + 64
"""sigma: a corrupt cohort breaks the graph with probability below 2^-sigma: 40 bits of statistical
security, and 64 because whoever chooses members or keys can try that many permutations before showing
one."""

CORRECTNESS_BITS = 20
"""eta: honest dropouts at the assumed rate leave some member below the threshold with probability below
2^-eta."""


@dataclass(frozen=True)
class GraphParameters:
    """The number of neighbours of each member, and how many of their shares recover a secret.

    Attributes:
        degree: k, 1 to n - 1.
        threshold: t, 1 to k.
    """

    degree: int
    threshold: int


@lru_cache(maxsize=256)
def parameters(n: int, corrupt_fraction: float, dropout_fraction: float) -> GraphParameters:
    """Return the rule every member applies to a cohort of n.

    The complete graph up to `COMPLETE_UP_TO` members and where no sparser one is safe, else
    `harary_parameters`.

    Raises:
        GraphError: see `complete_parameters`.
    """
    if n > COMPLETE_UP_TO:
        try:
            return harary_parameters(n, corrupt_fraction, dropout_fraction)
        except GraphError:
            pass  # nothing sparser is safe; the complete graph is
    return complete_parameters(n, corrupt_fraction)


@lru_cache(maxsize=256)
def complete_parameters(n: int, corrupt_fraction: float) -> GraphParameters:
    """Return k = n - 1 and t = ⌊(k + c)/2⌋ + 1, where c = ⌈gamma·n⌉ - 1 neighbours may be corrupt.

    Two disjoint views cannot both reach t while at most c neighbours answer twice: 2t > k + c.

    Raises:
        GraphError: fewer than 2 members, gamma not in [0, 1), or too many corrupt for any threshold.
    """
    corrupt = max(_count(corrupt_fraction, n) - 1, 0)
    degree = n - 1
    threshold = (degree + corrupt) // 2 + 1
    if degree < 1 or threshold > degree:
        raise GraphError(f"no threshold is safe for {n} members of which {corrupt + 1} are corrupt")
    return GraphParameters(degree, threshold)


@lru_cache(maxsize=256)
def harary_parameters(
    n: int,
    corrupt_fraction: float,
    dropout_fraction: float,
    *,
    sigma: int = SECURITY_BITS,
    eta: int = CORRECTNESS_BITS,
    malicious: bool = True,
) -> GraphParameters:
    """Return the smallest even k < n - 1 that has a threshold, and it (Bell et al. 2020, section 4).

    With C = ⌈gamma·n⌉ corrupt and D = ⌈delta·n⌉ dropped members, B = C + D, and Hyp(n, m, k) the number of
    marked members among the k neighbours of one when m of n are marked:

    - the honest survivors stay connected: n(n-k-1)/2 · B!(n-k)! / (n!(B-k)!) < 2^-(sigma+1);
    - at most t1 neighbours are corrupt: P[Hyp(n, C, k) > t1] ≤ 2^-(sigma+1)/n;
    - at least t2 neighbours survive: P[Hyp(n, n-D, k) < t2] ≤ 2^-eta/n;
    - t ≤ t2, where t = t1 + 1, or ⌊(t1 + k)/2⌋ + 1 against a malicious coordinator, who must not find two
      disjoint sets of neighbours that each reach t.

    Args:
        n: members.
        corrupt_fraction: gamma, assumed to collude with the coordinator, in [0, 1).
        dropout_fraction: delta, assumed to vanish independently of the graph, in [0, 1).
        sigma: sigma, bits of security.
        eta: eta, bits of correctness.
        malicious: whether the coordinator may lie about who survived.

    Raises:
        GraphError: no even k below n - 1 will do, or a fraction is not in [0, 1).
    """
    corrupt, dropped = _count(corrupt_fraction, n), _count(dropout_fraction, n)
    for degree in range(2, n - 1, 2):
        if not _stays_connected(n, corrupt + dropped, degree, sigma):
            continue
        corrupt_near = _upper_quantile(n, corrupt, degree, n << (sigma + 1))
        surviving_near = degree - _upper_quantile(n, dropped, degree, n << eta)
        threshold = (corrupt_near + degree) // 2 + 1 if malicious else corrupt_near + 1
        if threshold <= surviving_near:
            return GraphParameters(degree, threshold)
    raise GraphError(f"no sparse graph of {n} members stands {corrupt} corrupt and {dropped} dropped ones")


def neighbours(members: Sequence[str], degree: int, transcript: bytes) -> dict[str, frozenset[str]]:
    """Return each member's neighbours; being a neighbour is mutual.

    Args:
        members: distinct ids, in any order.
        degree: n - 1, or an even number below.
        transcript: hash over the cohort, from which the permutation is drawn: nobody chooses it.

    Raises:
        GraphError: ids repeat, or no regular graph of this kind has this degree.
    """
    ring = _ring(members, degree, transcript)
    return {member: _around(ring, place, degree) for place, member in enumerate(ring)}


def neighbours_of(member: str, members: Sequence[str], degree: int, transcript: bytes) -> frozenset[str]:
    """Return one member's neighbours, as `neighbours` would.

    Raises:
        GraphError: as `neighbours`, or the member is not one.
    """
    ring = _ring(members, degree, transcript)
    if member not in ring:
        raise GraphError(f"{member} is not a member")
    return _around(ring, ring.index(member), degree)


def _count(fraction: float, n: int) -> int:
    """Return ⌈fraction · n⌉ of the decimal number that was written, so that 0.07 of 100 is 7 and not 8."""
    if not 0 <= fraction < 1:
        raise GraphError(f"a fraction of members is in [0, 1), not {fraction}")
    return ceil(Fraction(repr(float(fraction))) * n)


def _stays_connected(n: int, lost: int, degree: int, sigma: int) -> bool:
    """Compare the union bound over the ways a ring falls apart with 2^-(sigma+1)."""
    return n * (n - degree - 1) * perm(lost, degree) << sigma < perm(n, degree)


def _upper_quantile(n: int, marked: int, drawn: int, odds: int) -> int:
    """Return the smallest t with P[Hyp(n, marked, drawn) > t] ≤ 1/odds, summing the tail from its end."""
    most, least = min(marked, drawn), max(0, drawn + marked - n)
    allowed = comb(n, drawn)
    ways = comb(marked, most) * comb(n - marked, drawn - most)
    tail = ways
    while most > least and tail * odds <= allowed:
        ways = ways * most * (n - marked - drawn + most) // ((marked - most + 1) * (drawn - most + 1))
        most -= 1
        tail += ways
    return most


def _ring(members: Sequence[str], degree: int, transcript: bytes) -> list[str]:
    """Put the members in the order of a pseudo-random function of their ids under the transcript.

    The complete graph is the same in every order.
    """
    n = len(members)
    if len(set(members)) != n:
        raise GraphError("ids of members repeat")
    if not (degree == n - 1 or (degree % 2 == 0 and 0 < degree < n)):
        raise GraphError(f"{n} members cannot have {degree} neighbours each")
    if degree == n - 1:
        return list(members)
    label = b"fedfleet/1/ring"
    return sorted(members, key=lambda member: hmac.digest(transcript, label + member.encode(), "sha256"))


def _around(ring: Sequence[str], place: int, degree: int) -> frozenset[str]:
    if degree == len(ring) - 1:
        return frozenset(ring) - {ring[place]}
    reach = range(1, degree // 2 + 1)
    return frozenset(ring[(place + side * step) % len(ring)] for step in reach for side in (-1, 1))
