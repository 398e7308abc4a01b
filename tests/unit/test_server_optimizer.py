"""Numbers worked out by hand for weights (1, 1) and two rounds of the mean update (0.5, -0.25)."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.server_optimizer import initial_state, step
from protocol.plan import Server

WEIGHTS = np.ones(2, dtype=np.float32)
DELTA = np.array([0.5, -0.25], dtype=np.float32)
EVERY = ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"]


def after(server: Server, rounds: int) -> NDArray[np.float32]:
    weights, state = WEIGHTS, initial_state(server, 2)
    for _ in range(rounds):
        weights, state = step(server, state, weights, DELTA)
    return weights


def test_fedavg_adds_the_mean() -> None:
    assert after(Server("fedavg"), 1).tolist() == [1.5, 0.75]
    assert after(Server("fedavg", learning_rate=0.5), 2).tolist() == [1.5, 0.75]


def test_fedavgm_sums_with_momentum() -> None:
    # m: 0.5, then 0.9 * 0.5 + 0.5 = 0.95
    np.testing.assert_allclose(after(Server("fedavgm"), 2), [1 + 0.5 + 0.95, 1 - 0.25 - 0.475], rtol=1e-6)


def test_fedadagrad_divides_by_the_root_of_the_sum_of_squares() -> None:
    # tau = 0.1: v: 0.01 + 0.25 = 0.26, then 0.51
    moved = 0.5 / (math.sqrt(0.26) + 0.1) + 0.5 / (math.sqrt(0.51) + 0.1)
    assert after(Server("fedadagrad", adaptivity=0.1), 2)[0] == pytest.approx(1 + moved, rel=1e-6)


def test_fedadam_averages_both_moments() -> None:
    server = Server("fedadam", 0.1, momentum=0.5, second_momentum=0.75, adaptivity=0.1)
    # m: 0.25, then 0.375; v: 0.75 * 0.01 + 0.25 * 0.25 = 0.07, then 0.75 * 0.07 + 0.0625 = 0.115
    moved = 0.1 * (0.25 / (math.sqrt(0.07) + 0.1) + 0.375 / (math.sqrt(0.115) + 0.1))
    assert after(server, 2)[0] == pytest.approx(1 + moved, rel=1e-6)


def test_fedyogi_moves_the_second_moment_by_the_sign_of_the_difference() -> None:
    server = Server("fedyogi", 0.1, momentum=0.0, second_momentum=0.75, adaptivity=1.0)
    # v: 1 > 0.25: 1 - 0.25 * 0.25 = 0.9375, then 0.875
    moved = 0.1 * (0.5 / (math.sqrt(0.9375) + 1) + 0.5 / (math.sqrt(0.875) + 1))
    assert after(server, 2)[0] == pytest.approx(1 + moved, rel=1e-6)


def test_fedyogi_grows_where_the_update_is_larger_than_the_memory() -> None:
    server = Server("fedyogi", momentum=0.0, second_momentum=0.75, adaptivity=0.1)
    # v: 0.01 < 0.25: 0.01 + 0.25 * 0.25 = 0.0725
    assert after(server, 1)[0] == pytest.approx(1 + 0.5 / (math.sqrt(0.0725) + 0.1), rel=1e-6)


def test_without_momentum_fedavgm_is_fedavg() -> None:
    assert after(Server("fedavgm", 0.3, momentum=0.0), 5).tolist() == after(Server("fedavg", 0.3), 5).tolist()


@pytest.mark.parametrize("optimizer", EVERY)
def test_every_rule_follows_the_sign_of_the_update_in_float32(optimizer: str) -> None:
    server = Server(optimizer, 0.01)  # type: ignore[arg-type]  # parametrised over the literal's values

    moved = after(server, 3) - WEIGHTS

    assert moved.dtype == np.float32
    assert np.sign(moved).tolist() == [1.0, -1.0]


@pytest.mark.parametrize("optimizer", EVERY)
def test_a_step_leaves_its_arguments_alone(optimizer: str) -> None:
    server = Server(optimizer)  # type: ignore[arg-type]  # parametrised over the literal's values
    state = initial_state(server, 2)
    before = (state.first.copy(), state.second.copy())

    step(server, state, WEIGHTS, DELTA)

    assert WEIGHTS.tolist() == [1.0, 1.0]
    assert DELTA.tolist() == [0.5, -0.25]
    assert (state.first.tolist(), state.second.tolist()) == (before[0].tolist(), before[1].tolist())


def test_only_what_is_used_is_remembered() -> None:
    def sizes(server: Server) -> tuple[int, int]:
        state = initial_state(server, 9)
        return state.first.size, state.second.size

    assert sizes(Server("fedavg")) == (0, 0)
    assert sizes(Server("fedavgm")) == (9, 0)
    assert sizes(Server("fedadam")) == (9, 9)
