import random
from collections import Counter

import pytest

from coordinator.selection import Candidate, Choice, NotEnough, select
from protocol.ids import DeviceId
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
        Candidate(DeviceId("plugged"), charging=True),
        Candidate(DeviceId("busy"), idle=False, charging=True),
        Candidate(DeviceId("metered"), charging=True, unmetered=False),
        Candidate(DeviceId("free"), charging=True, unmetered=True),
    ]

    def eligible(rules: Eligibility) -> set[str]:
        return {d for d in chosen(offers, Selection(min_cohort=3, eligibility=rules)).invited if d[0] != "d"}

    assert eligible(Eligibility()) == {"plugged", "busy", "metered", "free"}
    assert eligible(Eligibility(idle=True)) == {"plugged", "metered", "free"}
    assert eligible(Eligibility(idle=True, charging=True)) == {"plugged", "metered", "free"}
    with_network = select(offers, Selection(min_cohort=3, eligibility=Eligibility(unmetered=True)), CHANCE)
    assert with_network == NotEnough("1 of 9 devices on offer are eligible; the plan wants 3")


def test_too_few_devices_start_no_round() -> None:
    assert isinstance(select(fleet(4), Selection(), CHANCE), NotEnough)


def test_every_device_is_invited_equally_often() -> None:
    selection = Selection(count=5, over_selection=1.0)
    counted = Counter(d for _ in range(2000) for d in chosen(fleet(20), selection).invited)

    # 2000 draws of 5 from 20: 500 each, standard deviation 19.4
    assert len(counted) == 20
    assert max(abs(count - 500) for count in counted.values()) < 5 * 19.4
