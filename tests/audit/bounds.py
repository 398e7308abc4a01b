"""From how often an adversary guessed right to lower bounds on rho and epsilon.

Each is a bound that holds with the given confidence, whatever the truth is:

* `accuracy`: the exact (Clopper and Pearson 1934) bound on the probability of a right guess.
* `gaussian_rho`: what that accuracy proves of Gaussian noise. No test of N(0, 1) against N(mu, 1) with a fair
  coin is right with a probability above Phi(mu / 2) (Dong, Roth, Su 2022, arXiv 1905.02383), and rho is
  mu^2 / 2. The sharpest of the three; it takes the shape of the noise for granted.
* `zcdp_rho`: what it proves of any mechanism. Under rho-zCDP the two worlds' Kullback-Leibler divergence is
  at most rho, both ways; guessing does not raise it, and by convexity neither does averaging over the coin:
  KL(Bern(a) || Bern(1 - a)) <= rho.
* `one_run_epsilon`: what right guesses with abstentions prove of any mechanism, at the claim's own delta:
  Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846), Corollary 5.4 and Appendix D. Canaries may share a run
  there; here each has a run of its own, which is a special case. It cannot prove more than about ln(runs).
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NORMAL = NormalDist()

_HALVINGS = 60
_MOST_EPSILON = 60.0


def accuracy(right: int, guesses: int, confidence: float) -> float:
    """The lower bound on the probability of a right guess, 0 to 1."""
    if not right:
        return 0.0
    return largest(lambda p: tail(right, guesses, p) < 1 - confidence, 0.0, 1.0)


def gaussian_rho(accuracy: float) -> float:
    """See above; 0 for what a coin could do."""
    if accuracy <= 1 / 2:
        return 0.0
    return (2 * NORMAL.inv_cdf(accuracy)) ** 2 / 2


def zcdp_rho(accuracy: float) -> float:
    """See above; 0 for what a coin could do."""
    if accuracy <= 1 / 2:
        return 0.0
    return (2 * accuracy - 1) * math.log(accuracy / (1 - accuracy))


def one_run_epsilon(canaries: int, guesses: int, right: int, delta: float, confidence: float) -> float:
    """The largest epsilon that so many right guesses refute.

    Args:
        canaries: each in or out by its own fair coin.
        guesses: of them that the adversary did not abstain from.
        right: of the guesses.
        delta: of the claim.
        confidence: in (0, 1).
    """
    return largest(
        lambda epsilon: one_run_p_value(canaries, guesses, right, epsilon, delta) < 1 - confidence,
        0.0,
        _MOST_EPSILON,
    )


def one_run_p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """How likely so many right guesses are at most, under (epsilon, delta)-DP.

    With X the right guesses of as many answers of epsilon-DP randomized response, Bin(guesses,
    1 / (1 + exp(-epsilon))): `P[X >= v] + 2 m delta max over i = 1..v of P[v > X >= v - i] / i`.
    """
    mass = binomial(guesses, 1 / (1 + math.exp(-epsilon)))
    below = np.cumsum(mass[:right][::-1])
    steepest = float((below / np.arange(1, right + 1)).max(initial=0.0))
    return min(1.0, float(mass[right:].sum()) + 2 * canaries * delta * steepest)


def tail(least: int, trials: int, probability: float) -> float:
    """P[Bin(trials, probability) >= least]."""
    return float(binomial(trials, probability)[least:].sum())


def binomial(trials: int, probability: float) -> NDArray[np.float64]:
    """The probabilities of 0 to `trials` successes."""
    if probability in {0.0, 1.0}:
        certain = np.zeros(trials + 1)
        certain[round(trials * probability)] = 1.0
        return certain
    counts = np.arange(trials + 1)
    logs = np.concatenate(([0.0], np.cumsum(np.log(counts[1:]))))
    chances = logs[-1] - logs - logs[::-1]
    chances += counts * math.log(probability) + counts[::-1] * math.log1p(-probability)
    mass: NDArray[np.float64] = np.exp(chances)
    return mass


def largest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The end, from below, of the interval from `low` on in which it holds; `low` if it never does."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
