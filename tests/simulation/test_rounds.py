"""Whole rounds of the pure halves: everybody, and somebody lost in every phase."""

import numpy as np
import pytest
from virtual_fleet import VirtualFleet

from protocol.phases import Phase


def test_the_sum_of_everybody_is_plain_averaging() -> None:
    fleet = VirtualFleet(devices=5, size=7)
    assert fleet.run() is Phase.COMMITTED
    assert fleet.mean is not None
    np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean(), atol=1e-5)
    assert fleet.refused == []


@pytest.mark.parametrize("phase", [Phase.INVITING, Phase.KEYING, Phase.SHARING])
def test_a_device_lost_before_its_shares_is_left_out(phase: Phase) -> None:
    fleet = VirtualFleet(devices=10, size=5).lose("d003", phase=phase)
    assert fleet.run() is Phase.COMMITTED
    assert fleet.commit is not None
    assert fleet.mean is not None
    assert fleet.commit.survivors == 9
    np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean(without=("d003",)), atol=1e-5)


def test_a_device_lost_after_its_shares_is_recovered_from() -> None:
    fleet = VirtualFleet(devices=10, size=5).lose("d003", "d007", phase=Phase.COLLECTING)
    assert fleet.run() is Phase.COMMITTED
    assert fleet.commit is not None
    assert fleet.mean is not None
    assert (fleet.commit.survivors, fleet.commit.dropouts) == (8, 2)
    np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean(without=("d003", "d007")), atol=1e-5)


@pytest.mark.parametrize("phase", [Phase.CONFIRMING, Phase.RECOVERING])
def test_a_device_lost_after_its_upload_still_counts(phase: Phase) -> None:
    fleet = VirtualFleet(devices=10, size=5).lose("d001", "d010", phase=phase)
    assert fleet.run() is Phase.COMMITTED
    assert fleet.commit is not None
    assert fleet.mean is not None
    assert fleet.commit.survivors == 10
    np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean(), atol=1e-5)


@pytest.mark.parametrize("phase", list(Phase)[:6])
def test_too_many_losses_end_in_an_abort_with_a_reason(phase: Phase) -> None:
    lost = [f"d{index:03}" for index in range(1, 9)]
    fleet = VirtualFleet(devices=10, size=5).lose(*lost, phase=phase)
    assert fleet.run() is Phase.ABORTED
    assert fleet.mean is None
    assert fleet.round.reason


@pytest.mark.parametrize("seed", range(12))
def test_losses_in_every_phase_at_once(seed: int) -> None:
    fleet = VirtualFleet(devices=20, size=9, seed=seed, bits=16)
    fleet.lose("d001", phase=Phase.INVITING).lose("d002", phase=Phase.KEYING)
    fleet.lose("d003", phase=Phase.SHARING).lose("d004", phase=Phase.COLLECTING)
    fleet.lose("d005", phase=Phase.CONFIRMING)
    assert fleet.run() is Phase.COMMITTED
    assert fleet.mean is not None
    gone = ("d001", "d002", "d003", "d004")
    np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean(without=gone), atol=0.2)


def test_a_sparse_graph_sums_as_well() -> None:
    fleet = VirtualFleet(devices=80, size=5, corrupt_fraction=0.05, dropout_fraction=0.05)
    fleet.lose("d011", phase=Phase.COLLECTING)
    assert fleet.run() is Phase.COMMITTED
    assert fleet.mean is not None
    np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean(without=("d011",)), atol=1e-4)
