"""What rounds of Gaussian noise cost, in zero-concentrated differential privacy (zCDP) and (epsilon, delta).

Every release of a run is rho-zCDP: the Renyi divergence of order a between the outputs with and without a
device's contribution is at most rho * a, for all a > 1. The rho of releases add up, chosen adaptively or not
(Bun and Steinke 2016, Lemma 2.3), so a ledger is one number; also where earlier results decide what a release
costs, and a limit of the sum ends the run (Feldman and Zrnic 2021, arXiv 2008.11193). It becomes (epsilon,
delta) only when a person wants to read it.

Two conversions stand side by side. `epsilon` is a theorem for the discrete Gaussian. `gaussian_epsilon` reads
the same rho as the continuous Gaussian mechanism, which has a closed form (Dong, Roth, Su 2022): a tight
estimate, 1 to 10 % lower where delta is 1e-6 or less, shown beside the first and never instead of it.

No amplification by sampling is claimed: who is on offer is decided by the devices' own lives.
"""

import math
from collections.abc import Callable, Iterable

_HALVINGS = 200
"""Bisection steps: enough to reach neighbouring floats from any bracket of positive numbers."""

_SMOOTH = 0.5
"""Levels of sigma from which on Proposition 14 of Kairouz, Liu, Steinke holds."""

_BUDGET_MARGIN = 1e-6
"""Relative part of a target's rho that is not given out: covers rounding and the correction of sums."""


def sum_correction(sigma: float, noises: int) -> float:
    """How far the sum of discrete Gaussians is from one: `tau = 10 sum_k exp(-2 pi^2 sigma^2 k / (k + 1))`.

    Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), Proposition 14; k runs from 1 to `noises` - 1. It is 7e-17
    at sigma = 2 and 1e-44 at 3.24.

    Args:
        sigma: standard deviation parameter of each noise, >= 0.5, in levels.
        noises: how many are summed, >= 1.
    """
    exponent = -2 * math.pi**2 * sigma**2
    return 10 * math.fsum(math.exp(exponent * k / (k + 1)) for k in range(1, noises))


def round_rho(norm_squared: int, sigma: float, noises: int, size: int) -> float:
    """Cost of one sum: `min(D^2 / (2 m sigma^2) + tau d, (D / (sqrt(m) sigma) + tau sqrt(d))^2 / 2)`.

    Kairouz, Liu, Steinke 2021, Proposition 14. The sum of more than m noises is the sum of m plus something
    independent, so m may be any number that is certainly reached. Below half a level the proposition is not
    proven, and wrong: an odd sum of two is far less likely than an even one beside it. There m is 1.

    Args:
        norm_squared: D^2, the most a device's integer vector can have, >= 0, in levels squared.
        sigma: standard deviation parameter of each device's discrete Gaussian, > 0, in levels.
        noises: m, how many honest noises the sum holds at least, >= 1.
        size: d, coordinates of the vector.

    Returns:
        rho, at least the true one (rounded up).
    """
    noises = noises if sigma >= _SMOOTH else 1
    tau = sum_correction(sigma, noises)
    ratio = norm_squared / (noises * sigma * sigma)
    added = ratio / 2 + tau * size
    multiplied = (math.sqrt(ratio) + tau * math.sqrt(size)) ** 2 / 2
    return _up(min(added, multiplied))


def compose(costs: Iterable[float]) -> float:
    """Total rho of releases: their exact sum, rounded once, and up: at most one part in 2^51 too much."""
    return _up(math.fsum(costs))


def epsilon(rho: float, delta: float) -> float:
    """The smallest epsilon that rho-zCDP proves at this delta.

    `min over a > 1 of a rho + ln(1 - 1/a) + ln(1 / (delta a)) / (a - 1)`, Canonne, Kamath, Steinke 2020
    (arXiv 2004.00010), Proposition 12. The derivative has the sign of `(a - 1)^2 rho - ln(1 / (delta a))`,
    which grows with a, so its one root is found by bisection. Every a gives a true bound; the root's is at
    most 1e-12 (relative) above the smallest.

    Args:
        rho: >= 0.
        delta: in (0, 1).

    Returns:
        epsilon >= 0.
    """
    if rho == 0:
        return 0.0
    most = min(math.sqrt(-math.log(delta) / rho), 1 / delta)
    above_one = _last(lambda x: x * x * rho + math.log(delta) + math.log1p(x) <= 0, 0.0, most)
    log_ratio = math.log(above_one) - math.log1p(above_one)  # ln(1 - 1/a) keeps its digits near a = 1
    cost = (1 + above_one) * rho + log_ratio - (math.log(delta) + math.log1p(above_one)) / above_one
    return max(cost, 0.0)


def delta(rho: float, epsilon: float) -> float:
    """The smallest delta that rho-zCDP proves at this epsilon: the inverse of `epsilon` in delta.

    `min over a > 1 of exp((a - 1)(a rho - epsilon)) (1 - 1/a)^a / (a - 1)`, Canonne, Kamath, Steinke 2020,
    Corollary 13. The logarithm's derivative `(2 a - 1) rho - epsilon + ln(1 - 1/a)` grows with a.

    Args:
        rho: > 0.
        epsilon: >= 0.

    Returns:
        delta in [0, 1].
    """

    def log_ratio(x: float) -> float:
        return math.log(x) - math.log1p(x)

    most = (epsilon / rho + 2) + math.sqrt(1 / rho)
    x = _last(lambda x: (2 * x + 1) * rho - epsilon + log_ratio(x) <= 0, 1e-300, most)
    exponent = x * ((1 + x) * rho - epsilon) + (1 + x) * log_ratio(x) - math.log(x)
    return math.exp(min(exponent, 0.0))


def rho_for(target_epsilon: float, delta: float) -> float:
    """The largest rho whose `epsilon` at `delta` is at most the target, > 0."""
    most = target_epsilon + math.sqrt(target_epsilon) + 1  # epsilon >= rho, so the root lies below
    return _last(lambda rho: epsilon(rho, delta) <= target_epsilon, 0.0, most)


def noise_multiplier_for(target_epsilon: float, delta: float, releases: int) -> float:
    """The noise multiplier z with which `releases` rounds cost at most `target_epsilon` at `delta`.

    z is the standard deviation of the honest devices' noise over the sensitivity: a round costs 1 / (2 z^2).
    A millionth of the budget is held back, so that rounding and corrections stay within the target.
    """
    return multiplier_of(rho_for(target_epsilon, delta) * (1 - _BUDGET_MARGIN) / releases)


def rho_of(noise_multiplier: float) -> float:
    """`1 / (2 z^2)`: rho of one release with noise z times the sensitivity (Bun and Steinke 2016, 1.6)."""
    return 0.5 / noise_multiplier**2


def multiplier_of(rho: float) -> float:
    """The inverse of `rho_of`."""
    return math.sqrt(0.5 / rho)


def gaussian_delta(rho: float, epsilon: float) -> float:
    """Exact delta of continuous Gaussian noise of the same rho.

    With `mu = sqrt(2 rho)`: `Phi(-epsilon/mu + mu/2) - exp(epsilon) Phi(-epsilon/mu - mu/2)`, Dong, Roth, Su
    2022 (arXiv 1905.02383), Corollary 1. With phi the density and M(x) = Phi(-x) / phi(x) this is
    `Phi(a) - phi(a) M(b)`, a form that neither overflows nor cancels at large epsilon.

    Args:
        rho: > 0, of all releases together.
        epsilon: >= 0.

    Returns:
        delta in [0, 1).
    """
    mu = math.sqrt(2 * rho)
    near, far = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    density = math.exp(-near * near / 2) / math.sqrt(2 * math.pi)
    if near > 0:
        return density * (_mills(near) - _mills(far))
    return math.erfc(near / math.sqrt(2)) / 2 - density * _mills(far)


def gaussian_epsilon(rho: float, delta: float) -> float:
    """Exact epsilon of continuous Gaussian noise of the same rho: the inverse of `gaussian_delta`.

    Args:
        rho: >= 0, of all releases together.
        delta: in (0, 1), at least 1e-250.

    Returns:
        epsilon >= 0.
    """
    if rho == 0 or gaussian_delta(rho, 0.0) <= delta:
        return 0.0
    most = rho + 2 * math.sqrt(-rho * math.log(delta))  # Phi(-x) <= exp(-x^2 / 2) bounds the first term
    return _up(_last(lambda value: gaussian_delta(rho, value) > delta, 0.0, most))


def _mills(x: float) -> float:
    """Mills' ratio `Phi(-x) / phi(x)` for x > 0; by Laplace's continued fraction where `erfc` underflows."""
    if x < 6:  # noqa: PLR2004 (below it 100 levels of the fraction are not enough, above it they are exact)
        return math.sqrt(math.pi / 2) * math.exp(x * x / 2) * math.erfc(x / math.sqrt(2))
    tail = x
    for level in range(100, 0, -1):
        tail = x + level / tail
    return 1 / tail


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The largest number in (low, high] up to which `holds`, which is true first and false after."""
    if holds(high):
        return high
    for _ in range(_HALVINGS):
        # A geometric mean first crosses the many powers of two of a wide bracket.
        middle = math.sqrt(low) * math.sqrt(high) if low > 0 and high > 2 * low else (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _up(value: float) -> float:
    return math.nextafter(value, math.inf)
