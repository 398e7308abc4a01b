"""Whole rounds over networks that drop, repeat, delay and reorder, every step held to the invariants."""

from collections import Counter

import numpy as np
import pytest
from hostile_fleets import RoughFleet, WatchedFleet

from protocol.messages import RoundEnded
from protocol.phases import Phase

SEEDS = 160


def outcome(fleet: RoughFleet) -> Phase:
    """Run it to its end, and hold the end to what was promised."""
    phase = fleet.run()
    ended = fleet.announced[-1]
    assert isinstance(ended, RoundEnded)
    if phase is Phase.COMMITTED:
        assert fleet.mean is not None
        # 12 members at 32 bits: fleet.mean's bound is below 1e-5, float32 included.
        np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean_of(fleet.survivors), atol=1e-4)
    else:
        assert fleet.mean is None
        assert ended.reason
        assert ended.retry_after > 0
    return phase


@pytest.mark.parametrize("seed", range(0, SEEDS, 10))
def test_a_round_ends_with_the_exact_sum_or_a_reason(seed: int) -> None:
    ends = Counter(outcome(RoughFleet(6 + each % 7, each)) for each in range(seed, seed + 10))
    assert ends.total() == 10
    assert ends[Phase.COMMITTED] > 0


@pytest.mark.parametrize("seed", range(8))
def test_a_network_that_loses_half_of_everything_only_takes_longer(seed: int) -> None:
    outcome(RoughFleet(8, seed, loss=0.5, repeat=0.2, delay=0.2, stall=0.3, flicker=0.1, death=0.0))


@pytest.mark.parametrize("seed", range(8))
def test_a_fleet_that_dies_away_ends_its_round(seed: int) -> None:
    outcome(RoughFleet(10, seed, death=0.6))


def test_without_losses_everybody_survives_repeats_and_delays() -> None:
    fleet = RoughFleet(8, 3, loss=0.0, repeat=0.4, delay=0.1, stall=0.2, flicker=0.0, death=0.0)
    assert outcome(fleet) is Phase.COMMITTED
    assert len(fleet.survivors) == 8


def test_an_upload_that_was_given_up_is_offered_again() -> None:
    fleet = RoughFleet(6, 1, loss=0.0, repeat=0.0, delay=0.0, stall=0.7, flicker=0.0, death=0.0)
    assert outcome(fleet) is Phase.COMMITTED
    assert len(fleet.survivors) == 6


@pytest.mark.parametrize("seed", range(2))
def test_the_invariants_hold_in_a_sparse_graph(seed: int) -> None:
    fleet = WatchedFleet(devices=70, size=3, seed=seed, corrupt_fraction=0.05, dropout_fraction=0.05)
    fleet.lose("d007", phase=Phase.COLLECTING).lose("d031", phase=Phase.CONFIRMING)
    assert fleet.run() is Phase.COMMITTED
    assert fleet.mean is not None
    np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean_of(fleet.survivors), atol=1e-4)
