"""What rounds cost each device, and who may go on."""

import math
from fractions import Fraction

import pytest

from coordinator.ledger import UNLIMITED, Account, Limits, PrivacyLedger, Release
from privacy.accounting import noise_multiplier_for, rho_for, rho_of
from protocol.ids import DeviceId

D1, D2, D3 = (DeviceId(name) for name in ("d1", "d2", "d3"))


def test_a_release_charges_its_survivors_and_nobody_else() -> None:
    first = PrivacyLedger().charged(Release((D1, D2), 0.25), 3)
    second = first.charged(Release((D2, D3), 0.5), 7)

    assert second.accounts.keys() == {D1, D2, D3}
    assert second.accounts[D1] == first.accounts[D1]
    assert second.accounts[D2] == Account(math.nextafter(first.accounts[D2].rho + 0.5, 1), rounds=2, last=7)
    assert second.accounts[D3] == Account(math.nextafter(0.5, 1), rounds=1, last=7)
    assert first.accounts.keys() == {D1, D2}  # a ledger never changes


def test_the_worst_account_is_the_runs() -> None:
    assert PrivacyLedger().worst == 0.0
    ledger = PrivacyLedger().charged(Release((D1, D2), 0.25), 1).charged(Release((D2,), 0.5), 2)
    assert ledger.worst == ledger.accounts[D2].rho


def test_sums_are_rounded_up_and_stay_close() -> None:
    ledger = PrivacyLedger()
    for number in range(1, 1001):
        ledger = ledger.charged(Release((D1,), 0.1), number)
    exact = 1000 * Fraction(0.1)
    assert exact < Fraction(ledger.worst) < exact * (1 + Fraction(1000, 2**51))


def test_nobody_comes_to_cost_more_than_the_budget() -> None:
    ledger, number = PrivacyLedger(), 1
    while (limits := Limits(ledger, 0.1, 1.0, number, 1)).affords(D1):
        ledger = ledger.charged(Release((D1,), 0.1), number)
        number += 1
    assert 0.9 < limits.ledger.worst <= 1.0
    assert limits.affords(D2)


@pytest.mark.parametrize("rounds", [1, 10, 3000])
def test_a_target_pays_for_all_the_rounds_that_it_was_made_for(rounds: int) -> None:
    budget, cost = rho_for(2.0, 1e-6), rho_of(noise_multiplier_for(2.0, 1e-6, rounds))
    ledger = PrivacyLedger()
    for number in range(1, rounds + 1):
        assert Limits(ledger, cost, budget, number, 1).affords(D1)
        ledger = ledger.charged(Release((D1,), cost), number)
    assert not Limits(ledger, cost, budget, rounds + 1, 1).affords(D1)


def test_a_device_rests_for_the_rounds_between_two_of_its_own() -> None:
    ledger = PrivacyLedger().charged(Release((D1,), 0.1), 4)
    resting = [Limits(ledger, 0.1, None, number, 3).rests(D1) for number in (5, 6, 7)]
    assert resting == [True, True, False]
    assert not Limits(ledger, 0.1, None, 5, 1).rests(D1)
    assert not Limits(ledger, 0.1, None, 1, 3).rests(D2)  # it never took part


def test_without_limits_everybody_takes_part() -> None:
    assert UNLIMITED.affords(D1)
    assert not UNLIMITED.rests(D1)
