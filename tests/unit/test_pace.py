"""Pace steering: a large fleet comes evenly, whatever brings it back."""

import random
from collections import Counter

import pytest

from protocol.pace import (
    LONGEST,
    OFFERS_PER_SECOND,
    SHORTEST,
    interval_for,
    offer_lasts,
    steered,
    until_next,
    until_return,
)

CHANCE = random.Random(7).random
FLEET = 100_000


@pytest.mark.parametrize(
    ("devices", "interval"),
    [(0, 60.0), (5, 60.0), (6000, 60.0), (12_000, 120.0), (100_000, 1000.0), (10**6, 3600.0)],
)
def test_the_interval_follows_from_the_number_of_devices(devices: int, interval: float) -> None:
    assert interval_for(devices) == interval


def test_it_changes_when_it_is_off_by_more_than_a_quarter() -> None:
    assert steered(100.0, 12_400, listened=1e9) == 100.0
    assert steered(100.0, 12_600, listened=1e9) == 126.0
    assert steered(100.0, 7600, listened=1e9) == 100.0
    assert steered(100.0, 7400, listened=1e9) == 74.0


def test_it_rises_at_once_and_falls_once_everybody_could_be_heard() -> None:
    assert steered(60.0, 60_000, listened=0.0) == 600.0
    assert steered(600.0, 10, listened=1199.0) == 600.0
    assert steered(600.0, 10, listened=1200.0) == SHORTEST


def test_small_fleets_offer_themselves_at_once() -> None:
    assert {until_return(SHORTEST, CHANCE()) for _ in range(1000)} == {0.0}


def test_a_hundred_thousand_that_come_back_in_one_second_offer_evenly() -> None:
    interval = interval_for(FLEET)
    seconds = Counter(int(until_return(interval, CHANCE())) for _ in range(FLEET))
    # 106 each on average, standard deviation 10.3; the largest of 940 such is below 5.5 of them
    assert len(seconds) == interval - SHORTEST
    assert max(seconds.values()) < 106.4 + 5.5 * 10.3


def test_and_go_on_evenly() -> None:
    interval = interval_for(FLEET)
    seconds: Counter[int] = Counter()
    for _ in range(FLEET):
        time = until_return(interval, CHANCE())
        while time < 4 * interval:
            seconds[int(time)] += 1
            time += until_next(interval, CHANCE())
    later = [seconds[second] for second in range(int(interval), int(4 * interval))]
    assert sum(later) / len(later) == pytest.approx(OFFERS_PER_SECOND, rel=0.02)
    assert max(later) < 2 * OFFERS_PER_SECOND


def test_two_offers_in_a_row_may_be_lost() -> None:
    for interval in (SHORTEST, LONGEST):
        assert offer_lasts(interval) >= 2 * interval
        assert max(until_next(interval, chance) for chance in (0.0, 1.0)) * 2 == offer_lasts(interval)
