"""Federated averaging: the one loop in which every learning benchmark learns."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from coordinator.server_optimizer import initial_state, step
from models.layout import Vector
from protocol.plan import Server

MeanUpdate: TypeAlias = Callable[[Vector, int], Vector]
"""Weights (d,) and the round's number, from 1, to the mean of the devices' updates, float32 (d,)."""


def averaging(server: Server, weights: Vector, mean_update: MeanUpdate, rounds: int) -> Iterator[Vector]:
    """McMahan et al. 2017, Algorithm 1, with the coordinator's own server optimizer.

    Args:
        server: the plan's choice.
        weights: before the first round, float32 (d,).
        mean_update: trains a round's devices.
        rounds: at most; whoever iterates may stop sooner.

    Yields:
        The weights after each round, float32 (d,).
    """
    state = initial_state(server, weights.size)
    for number in range(1, rounds + 1):
        weights, state = step(server, state, weights, mean_update(weights, number))
        yield weights
