import random
from collections import Counter

import pytest

from coordinator.ledger import Account, Limits, PrivacyLedger, Release
from coordinator.selection import BudgetSpent, Candidate, Choice, NotEnough, select
from protocol.eligibility import Facts
from protocol.ids import DeviceId
from protocol.messages import MAX_REASON
from protocol.plan import MAX_COHORT, Eligibility, Selection

CHANCE = random.Random(5).random


def fleet(devices: int) -> list[Candidate]:
    return [Candidate(DeviceId(f"d{i:04}")) for i in range(devices)]


def chosen(offers: list[Candidate], selection: Selection) -> Choice:
    choice = select(offers, selection, CHANCE)
    assert isinstance(choice, Choice)
    return choice


@pytest.mark.parametrize(
    ("selection", "on_offer", "wanted", "invited"),
    [
        (Selection(), 10, 10, 10),
        (Selection(count=8), 20, 8, 11),
        (Selection(count=8, over_selection=1.0), 20, 8, 8),
        (Selection(count=8), 9, 8, 9),
        (Selection(count=8), 6, 6, 6),
        (Selection(fraction=0.5), 21, 11, 15),
        (Selection(fraction=0.01), 20, 5, 7),
        (Selection(over_selection=3.0), 3000, MAX_COHORT, MAX_COHORT),
    ],
)
def test_how_many_are_wanted_and_invited(
    selection: Selection, on_offer: int, wanted: int, invited: int
) -> None:
    choice = chosen(fleet(on_offer), selection)

    assert (choice.wanted, len(choice.invited)) == (wanted, invited)
    assert list(choice.invited) == sorted(set(choice.invited))


def test_a_device_that_does_not_know_does_not_fulfil_a_condition() -> None:
    offers = [
        *fleet(5),
        Candidate(DeviceId("plugged"), Facts(idle=True, charging=True)),
        Candidate(DeviceId("busy"), Facts(idle=False, charging=True)),
        Candidate(DeviceId("metered"), Facts(idle=True, charging=True, unmetered=False)),
        Candidate(DeviceId("free"), Facts(idle=True, charging=True, unmetered=True)),
    ]

    def eligible(rules: Eligibility) -> set[str]:
        return {d for d in chosen(offers, Selection(min_cohort=3, eligibility=rules)).invited if d[0] != "d"}

    assert eligible(Eligibility()) == {"plugged", "busy", "metered", "free"}
    assert eligible(Eligibility(idle=True)) == {"plugged", "metered", "free"}
    assert eligible(Eligibility(idle=True, charging=True)) == {"plugged", "metered", "free"}
    with_network = select(offers, Selection(min_cohort=3, eligibility=Eligibility(unmetered=True)), CHANCE)
    assert with_network == NotEnough(
        "1 of 9 devices on offer are eligible; the plan wants 3 (7 network may be metered, 1 network metered)"
    )
    trusting = Eligibility(unmetered=True, unknown_network="unmetered")
    assert eligible(trusting) == {"plugged", "busy", "free"}


def test_the_reason_says_how_many_each_condition_keeps_out() -> None:
    offers = [
        *(
            Candidate(DeviceId(f"b{i}"), Facts(charging=False, battery=40 + i, temperature=50))
            for i in range(7)
        ),
        *(Candidate(DeviceId(f"h{i}"), Facts(charging=True, temperature=81 + i)) for i in range(2)),
        Candidate(DeviceId("new"), Facts(charging=True, temperature=50), enrolled=10.0),
        Candidate(DeviceId("good"), Facts(charging=True, temperature=50)),
    ]
    rules = Eligibility(min_battery=60, max_temperature=70)

    choice = select(offers, Selection(min_enrolled_age=60.0, eligibility=rules), CHANCE)
    assert choice == NotEnough(
        "1 of 11 devices on offer are eligible; the plan wants 5 (7 on battery, 2 too hot, 1 enrolled lately)"
    )


def test_a_reason_fits_a_status_whatever_the_plan_asks() -> None:
    offers = [Candidate(DeviceId(f"d{i}"), Facts(temperature=90)) for i in range(9)]
    rules = Eligibility(idle=True, max_temperature=70, tags=tuple(f"{i:064}" for i in range(16)))
    choice = select(offers, Selection(eligibility=rules), CHANCE)
    assert isinstance(choice, NotEnough)
    assert len(choice.reason) == MAX_REASON


def test_too_few_devices_start_no_round() -> None:
    assert isinstance(select(fleet(4), Selection(), CHANCE), NotEnough)


def test_every_device_is_invited_equally_often() -> None:
    selection = Selection(count=5, over_selection=1.0)
    counted = Counter(d for _ in range(2000) for d in chosen(fleet(20), selection).invited)

    # 2000 draws of 5 from 20: 500 each, standard deviation 19.4
    assert len(counted) == 20
    assert max(abs(count - 500) for count in counted.values()) < 5 * 19.4


def charged(*devices: Candidate, rho: float = 1.0, last: int = 1) -> PrivacyLedger:
    return PrivacyLedger({one.device: Account(rho, 1, last) for one in devices})


def test_whoever_rests_or_has_spent_its_budget_is_not_invited() -> None:
    offers = fleet(20)
    tired, poor = offers[:4], offers[4:8]
    ledger = PrivacyLedger({**charged(*tired, last=9).accounts, **charged(*poor, rho=3.5).accounts})
    limits = Limits(ledger, cost=1.0, budget=4.0, round=10, spacing=2)

    free = {one.device for one in offers[8:]}
    draws = [select(offers, Selection(over_selection=3.0), CHANCE, limits) for _ in range(50)]
    assert {device for draw in draws if isinstance(draw, Choice) for device in draw.invited} == free


def test_when_all_rest_the_reason_says_how_many_devices_the_spacing_needs() -> None:
    offers = fleet(8)
    limits = Limits(charged(*offers[:4], last=2), cost=1.0, budget=9.0, round=3, spacing=3)

    assert select(offers, Selection(), CHANCE, limits) == NotEnough(
        "4 of 8 eligible devices rest, because a device takes part in one of 3 rounds (privacy.spacing); the "
        "plan wants 5 that do not, so it needs 15 devices on offer"
    )


def test_when_the_budget_of_all_known_devices_is_spent_the_run_is_over() -> None:
    offers = fleet(8)
    limits = Limits(charged(*offers[:5], rho=3.5), cost=1.0, budget=4.0, round=9, spacing=1)

    assert select(offers, Selection(), CHANCE, limits) == BudgetSpent(
        "the privacy budget is spent: 3 of 8 known devices have enough left for a round; the plan wants 5"
    )


def test_devices_that_are_away_may_have_budget_left() -> None:
    poor, away = fleet(8)[:6], fleet(8)[6:]
    ledger = PrivacyLedger({**charged(*poor[:3], rho=3.5).accounts, **charged(*away, rho=0.5).accounts})
    limits = Limits(ledger, cost=1.0, budget=4.0, round=9, spacing=1)

    assert select(poor, Selection(), CHANCE, limits) == NotEnough(
        "3 of the eligible devices on offer have privacy budget left; the plan wants 5"
    )


def test_too_few_devices_on_offer_are_no_spent_budget() -> None:
    offers = fleet(4)
    limits = Limits(charged(*offers, rho=4.0), cost=1.0, budget=4.0, round=9, spacing=1)

    choice = select(offers, Selection(), CHANCE, limits)
    assert type(choice) is NotEnough
    assert "4 of 4 devices on offer" in choice.reason


@pytest.mark.parametrize("selection", [Selection(), Selection(count=9), Selection(fraction=0.8)])
@pytest.mark.parametrize("spacing", [1, 2, 4])
def test_a_fleet_of_spacing_times_the_cohort_never_stands_still(selection: Selection, spacing: int) -> None:
    offers, ledger = fleet(5 * spacing), PrivacyLedger()
    for number in range(1, 30):
        limits = Limits(ledger, cost=0.1, budget=None, round=number, spacing=spacing)
        choice = select(offers, selection, CHANCE, limits)
        assert isinstance(choice, Choice)
        ledger = ledger.charged(Release(choice.invited[: choice.wanted], 0.1), number)
    rounds = [account.rounds for account in ledger.accounts.values()]
    assert max(rounds) <= -(-29 // spacing)
