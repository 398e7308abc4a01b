"""The audit in short: the programs keep to their claim, and each planted bug is found."""

import math
from contextlib import ExitStack

import numpy as np
import pytest
from planted.bugs import Act, Plant

import audit.game
from audit import bounds
from audit.audit import CONFIDENCE, Verdict, claim_of, expected, power, runs_for
from audit.audit import audit as run_audit
from audit.bugs import CASES, FIVE, HONEST, Case
from audit.game import Game, Setting
from privacy.accounting import epsilon
from protocol.coordinator_work import DecodeSum
from protocol.device_work import EncodeUpdate
from protocol.ids import Order
from protocol.vector import layout_of, noised_encoding
from secagg.keys import Secret
from secagg.ring import RingVector

RUNS = 600
"""Of one release, of each audit of the programs as they are."""


@pytest.mark.parametrize("setting", HONEST.values(), ids=HONEST)
def test_what_is_measured_stays_below_what_is_claimed(setting: Setting) -> None:
    runs = RUNS // setting.rounds
    done = run_audit(setting, runs, seed=1, masked=10)

    assert done.verdict is Verdict.WITHIN
    proven = done.tally.bounds(done.claim.delta, CONFIDENCE)
    assert proven.highest <= done.claim.epsilon
    # The audit looks closely: the best adversary there can be of noise as claimed does no better.
    best = bounds.NORMAL.cdf(math.sqrt(done.claim.rho / 2))
    assert done.tally.right / runs == pytest.approx(best, abs=4 * math.sqrt(best * (1 - best) / runs))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.bug.name)
def test_a_planted_bug_is_found(case: Case) -> None:
    with case.bug.planted():
        claim = claim_of(case.setting)
        above = case.verdict is Verdict.ABOVE
        runs = runs_for(claim, case.ratio * math.sqrt(2 * claim.rho)) if above else RUNS
        done = run_audit(case.setting, runs, seed=1)

    assert done.verdict is case.verdict


def test_the_claim_is_what_a_device_counts() -> None:
    for setting in HONEST.values():
        claim = claim_of(setting)
        assert claim.epsilon == pytest.approx(epsilon(claim.rho, claim.delta))
        assert claim.rho == pytest.approx(setting.rounds / (2 * setting.noise_multiplier**2))
        assert claim.gaussian_epsilon < claim.epsilon


def test_masks_change_nothing() -> None:
    """A run through the whole protocol shows what the integers of its devices add up to."""
    game = Game(FIVE, seed=1)
    order = Order(1, 1, 1)
    encoding = noised_encoding(game.manifest, game.noise)
    total = RingVector.zeros(layout_of(encoding))

    def note(real: Act, encode: object, work: EncodeUpdate) -> RingVector:
        vector: RingVector = real(encode, work)
        total.add(vector)
        return vector

    with ExitStack() as stack:
        Plant(stack).instead(audit.game, "contribution", note)
        masked = game._through_protocol(order, game._devices(inside=True))

    summed = DecodeSum(total, [], encoding, FIVE.members, Secret(bytes(32))).run()
    assert np.array_equal(masked.mean, summed.mean)
    assert (masked.loss, masked.clipped_rate) == (summed.loss, summed.clipped_rate)


def test_the_canary_is_as_long_as_one_may_be() -> None:
    game = Game(Setting(mode="central", noise_multiplier=1e-3), seed=1)
    seen = game.run(inside=True)

    assert np.linalg.norm(seen.values[0, :-3]) == pytest.approx(1, abs=0.02)
    assert seen.values[0] == pytest.approx(seen.signal[0], abs=0.02)
    assert Game(game.setting, seed=1).run(inside=False).values[0] == pytest.approx(0, abs=0.02)


def test_the_one_run_bound_is_that_of_its_paper() -> None:
    """Appendix D and section 7 of arXiv 2305.08846, as printed there."""
    assert bounds.one_run_epsilon(1000, 100, 75, 1e-4, 0.95) == pytest.approx(0.673, abs=1e-3)
    assert bounds.one_run_epsilon(100_000, 1510, 1439, 1e-5, 0.95) == pytest.approx(2.675, abs=1e-3)


def test_bounds_of_known_cases() -> None:
    assert bounds.accuracy(100, 100, 0.95) == pytest.approx(0.05 ** (1 / 100))
    assert bounds.accuracy(0, 100, 0.95) == 0
    assert bounds.binomial(40, 0.3).sum() == pytest.approx(1)
    assert bounds.gaussian_rho(bounds.NORMAL.cdf(1.25)) == pytest.approx(2.5**2 / 2)
    assert bounds.zcdp_rho(0.4) == bounds.gaussian_rho(0.4) == 0
    # Randomised response costs epsilon = ln 3 when it is right in three of four cases.
    assert bounds.zcdp_rho(0.75) == pytest.approx(math.log(3) / 2)


def test_no_accuracy_of_gaussian_noise_refutes_its_own_rho() -> None:
    for mu in np.linspace(0.05, 8, 50):
        accuracy = bounds.NORMAL.cdf(mu / 2)
        assert bounds.zcdp_rho(accuracy) <= bounds.gaussian_rho(accuracy) * (1 + 1e-9)


def test_the_power_calculation() -> None:
    claim = claim_of(Setting())
    mu = math.sqrt(2 * claim.rho)
    assert power(claim, mu, RUNS)[0] < 1 - CONFIDENCE
    assert power(claim, claim.mu, RUNS)[0] == pytest.approx(1 - CONFIDENCE, rel=0.5)
    assert min(power(claim, 2 * mu, 2 * RUNS)) > CONFIDENCE
    assert expected(mu, RUNS, claim.delta, CONFIDENCE).highest < claim.epsilon
    with pytest.raises(ValueError, match="cannot be told"):
        runs_for(claim, mu)
