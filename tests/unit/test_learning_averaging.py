"""The one loop of the learning benchmarks, and how its curves are read."""

import math

import numpy as np
import pytest

from benchmarks.learning.averaging import averaging
from benchmarks.learning.cases import Accuracy, Rounds
from benchmarks.learning.running import Curve
from protocol.plan import Server


def test_each_round_adds_the_mean_update() -> None:
    weights = averaging(
        Server(), np.zeros(2, np.float32), lambda _, number: np.full(2, number, np.float32), 3
    )

    assert [each.tolist() for each in weights] == [[1, 1], [3, 3], [6, 6]]


def test_the_server_optimizer_keeps_its_state_from_round_to_round() -> None:
    server = Server("fedavgm", momentum=0.5)
    weights = averaging(server, np.zeros(1, np.float32), lambda *_: np.ones(1, np.float32), 3)

    assert [each.tolist() for each in weights] == [[1.0], [2.5], [4.25]]


def test_rounds_to_a_target_lie_on_the_line_between_two_rounds() -> None:
    curve = Curve(1, (0.90, 0.94, 0.92, 0.98))

    assert curve.rounds_to(0.92) == pytest.approx(1.5)
    assert curve.rounds_to(0.96) == pytest.approx(3.5)
    assert curve.rounds_to(0.90) == 1
    assert curve.rounds_to(0.99) == math.inf


def test_a_round_that_never_was_has_no_accuracy() -> None:
    assert Curve(1, (0.5,)).after(1) == 0.5
    assert math.isnan(Curve(1, (0.5,)).after(2))


def test_a_goal_is_met_by_the_median_of_the_seeds() -> None:
    curves = [Curve(seed, accuracies) for seed, accuracies in enumerate([(0.5, 0.9), (0.6, 0.8), (0.9, 0.9)])]

    assert Accuracy(2, 0.9).is_met(curves)
    assert not Accuracy(1, 0.7).is_met(curves)
    assert Rounds(0.6, 1.25).is_met(curves)
    assert not Rounds(0.85, 1.5).is_met(curves)
