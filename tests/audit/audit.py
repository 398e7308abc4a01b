"""One audit: play, learn, guess, and hold what the guesses prove against what the manifest claims."""

import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from audit import bounds
from audit.adversary import Adversary
from audit.bounds import NORMAL
from audit.game import Game, Seen, Setting
from privacy.accounting import epsilon, gaussian_epsilon, rho_for

CONFIDENCE = 0.999
"""Of a verdict: each of the three bounds of a right program passes its claim once in a thousand audits."""

REPORTED = 0.95
"""Of the bounds that are shown."""

LESSONS = 200
"""Releases that the adversary learns from. They prove nothing: their coins are told."""

SEES = 0.5
"""Part of the canary's signal that must arrive in either block, or the audit proves nothing. So many lessons
measure it with a standard deviation of 0.06 at z = 0.4, and 0.14 at z = 1."""

_CUTS = tuple(step / 4 for step in range(13))


class Verdict(Enum):
    """What an audit says of a program."""

    WITHIN = "within the claim"
    ABOVE = "ABOVE THE CLAIM"
    DEAF = "CANARY NOT SEEN"


@dataclass(frozen=True)
class Bounds:
    """Lower bounds on epsilon at the label's delta; see `audit.bounds`.

    Attributes:
        gaussian: from the accuracy, for noise of a Gaussian's shape.
        zcdp: from the accuracy, for any mechanism: what the rho that is proven costs.
        one_run: from guesses with abstentions, for any mechanism.
    """

    gaussian: float
    zcdp: float
    one_run: float

    @property
    def highest(self) -> float:
        """Of the three."""
        return max(self.gaussian, self.zcdp, self.one_run)


@dataclass(frozen=True)
class Claim:
    """What a manifest promises for a run, as its devices read it.

    Attributes:
        epsilon: of the label.
        delta: of the label.
        rho: by the device's own count.
    """

    epsilon: float
    delta: float
    rho: float

    @property
    def gaussian_epsilon(self) -> float:
        """The estimate that is published beside the label."""
        return gaussian_epsilon(self.rho, self.delta)

    @property
    def mu(self) -> float:
        """Of the Gaussian noise that costs the label's epsilon: what `Bounds.gaussian` is held against."""
        return bounds.largest(
            lambda mu: gaussian_epsilon(mu**2 / 2, self.delta) <= self.epsilon,
            0.0,
            math.sqrt(2 * self.epsilon),
        )

    @cached_property
    def accuracies(self) -> tuple[float, float]:
        """Above which accuracy the label is refuted: for Gaussian noise, and for any mechanism."""
        rho = rho_for(self.epsilon, self.delta)
        whatever = bounds.largest(lambda accuracy: bounds.zcdp_rho(accuracy) <= rho, 1 / 2, 1.0)
        return NORMAL.cdf(self.mu / 2), whatever


@dataclass(frozen=True)
class Tally:
    """How the adversary did.

    Attributes:
        runs: whose coin it guessed.
        right: of them.
        sure: runs in which it did not abstain.
        sure_right: of those.
    """

    runs: int
    right: int
    sure: int
    sure_right: int

    def bounds(self, delta: float, confidence: float) -> Bounds:
        """What it proves."""
        accuracy = bounds.accuracy(self.right, self.runs, confidence)
        return Bounds(
            gaussian_epsilon(bounds.gaussian_rho(accuracy), delta),
            epsilon(bounds.zcdp_rho(accuracy), delta),
            bounds.one_run_epsilon(self.runs, self.sure, self.sure_right, delta, confidence),
        )


@dataclass(frozen=True)
class Audit:
    """One audit's result.

    Attributes:
        claim: of the manifest.
        tally: of the guesses.
        arrives: part of the canary's signal that arrives, in the block where it is less.
    """

    claim: Claim
    tally: Tally
    arrives: float

    @property
    def verdict(self) -> Verdict:
        """At `CONFIDENCE`."""
        if self.tally.bounds(self.claim.delta, CONFIDENCE).highest > self.claim.epsilon:
            return Verdict.ABOVE
        return Verdict.WITHIN if self.arrives > SEES else Verdict.DEAF


def audit(setting: Setting, runs: int, seed: int, *, masked: int = 0) -> Audit:
    """Audit the programs as they are now.

    Args:
        setting: what to play.
        runs: to guess, after the lessons.
        seed: the same gives the same audit.
        masked: of the runs that go through the whole protocol.
    """
    game, claim = Game(setting, seed), claim_of(setting)
    taught = LESSONS // setting.rounds
    coins = (np.random.default_rng(seed).random(taught + runs) < 1 / 2).tolist()
    lessons = [game.run(inside=coin) for coin in coins[:taught]]
    adversary = Adversary.taught(lessons, coins[:taught])
    exam = [game.run(inside=coin, masked=number < masked) for number, coin in enumerate(coins[taught:])]
    cut = best_cut(adversary.separation(lessons), runs, claim.delta)
    return Audit(claim, _tally(adversary, exam, coins[taught:], cut), float(adversary.gain.min()))


def claim_of(setting: Setting) -> Claim:
    """What the programs claim now."""
    game = Game(setting, seed=0)
    return Claim(game.noise.epsilon, game.noise.delta, game.rho)


def _tally(adversary: Adversary, exam: list[Seen], coins: list[bool], cut: float) -> Tally:
    odds = np.array([adversary.log_odds(seen) for seen in exam])
    right, sure = (odds > 0) == np.array(coins), np.abs(odds) > cut
    return Tally(len(exam), int(right.sum()), int(sure.sum()), int((right & sure).sum()))


def best_cut(mu: float, runs: int, delta: float) -> float:
    """From which log odds on to guess, so that `one_run_epsilon` is expected to prove most."""

    def proven(cut: float) -> float:
        sure, right = (round(runs * part) for part in sure_and_right(mu, cut))
        return bounds.one_run_epsilon(runs, sure, right, delta, REPORTED)

    return mu * max(_CUTS, key=proven)


def sure_and_right(mu: float, cut: float) -> tuple[float, float]:
    """Parts of all runs that are guessed, and guessed right, abstaining below `cut` times mu in log odds."""
    right, wrong = NORMAL.cdf(mu / 2 - cut), NORMAL.cdf(-mu / 2 - cut)
    return right + wrong, right


def expected(mu: float, runs: int, delta: float, confidence: float) -> Bounds:
    """What an adversary proves that is right as often as one can expect of noise with this mu."""
    sure, sure_right = sure_and_right(mu, best_cut(mu, runs, delta) / mu)
    tally = Tally(runs, *(round(runs * part) for part in (NORMAL.cdf(mu / 2), sure, sure_right)))
    return tally.bounds(delta, confidence)


def power(claim: Claim, mu: float, runs: int) -> tuple[float, float]:
    """The probabilities that noise with this mu is found to be above a claim, by `gaussian` and by `zcdp`."""
    chances = bounds.binomial(runs, NORMAL.cdf(mu / 2))

    def found(accuracy: float) -> float:
        refuting = np.cumsum(bounds.binomial(runs, accuracy)[::-1])[::-1] < 1 - CONFIDENCE
        return float(chances[refuting].sum())

    gaussian, whatever = claim.accuracies
    return found(gaussian), found(whatever)


def visible(claim: Claim, runs: int) -> float:
    """From which ratio of mu to the account's on a bug is found in all but one of a thousand audits."""
    mu = math.sqrt(2 * claim.rho)
    return bounds.largest(lambda ratio: power(claim, ratio * mu, runs)[0] <= CONFIDENCE, 1.0, 10.0)


def runs_for(claim: Claim, mu: float) -> int:
    """Runs, up to an eighth too many, that find noise with this mu in all but one of a thousand audits.

    Raises:
        ValueError: a hundred thousand are not enough.
    """
    for runs in (round(100 * 1.125**step) for step in range(60)):
        if power(claim, mu, runs)[0] > CONFIDENCE:
            return runs
    raise ValueError(f"mu {mu:.3g} cannot be told from the claim's {claim.mu:.3g}")
