"""What the coordinator does with the mean update: small pure functions over one state.

FedAvg: McMahan et al. 2017, Algorithm 1. FedAvgM: Hsu et al. 2019, section 4.3. FedAdagrad, FedAdam, FedYogi:
Reddi et al. 2021 (Adaptive Federated Optimization), Algorithm 2, without bias correction, as there. The mean
update is local minus global weights, so every rule adds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from protocol.plan import Server

Vector: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ServerState:
    """What is remembered between rounds; shape (d,), or (0,) where the optimizer has no use for it.

    Attributes:
        first: m, running sum or mean of updates, float32.
        second: v, running measure of their squares, float32, >= 0.
    """

    first: Vector
    second: Vector


def initial_state(server: Server, size: int) -> ServerState:
    """Before the first round: m = 0 and v = tau^2, the least that Algorithm 2 allows.

    Args:
        server: the plan's choice.
        size: parameters d.
    """
    adaptive = server.optimizer in _SECOND
    first = 0 if server.optimizer == "fedavg" else size
    second = np.full(size if adaptive else 0, server.adaptivity**2, dtype=np.float32)
    return ServerState(np.zeros(first, dtype=np.float32), second)


def step(
    server: Server, state: ServerState, weights: Vector, mean_delta: Vector
) -> tuple[Vector, ServerState]:
    """Apply one committed round: `weights + eta * direction(mean_delta, state)`.

    Args:
        server: the plan's choice.
        state: after the previous round, or `initial_state`.
        weights: global, float32, shape (d,).
        mean_delta: weighted mean of the devices' updates, float32, shape (d,).

    Returns:
        New weights, float32, shape (d,), and the new state. The arguments are not changed.
    """
    direction, state = _DIRECTIONS[server.optimizer](server, state, mean_delta)
    return weights + server.learning_rate * direction, state


def _fedavg(_server: Server, state: ServerState, delta: Vector) -> tuple[Vector, ServerState]:
    return delta, state


def _fedavgm(server: Server, state: ServerState, delta: Vector) -> tuple[Vector, ServerState]:
    """`m = beta_1 m + delta`: a sum, not a mean, as Hsu et al. have it."""
    first = server.momentum * state.first + delta
    return first, ServerState(first, state.second)


def _adaptive(server: Server, state: ServerState, delta: Vector) -> tuple[Vector, ServerState]:
    """`m = beta_1 m + (1 - beta_1) delta; m / (sqrt(v) + tau)`, each optimizer with its own v."""
    # Reddi et al., section 5: beta_1 is 0 for FedAdagrad.
    momentum = 0.0 if server.optimizer == "fedadagrad" else server.momentum
    first = momentum * state.first + (1 - momentum) * delta
    second = _SECOND[server.optimizer](state.second, np.square(delta), server.second_momentum)
    direction: Vector = np.divide(first, np.sqrt(second) + server.adaptivity, dtype=np.float32)
    return direction, ServerState(first, second)


def _adagrad(second: Vector, square: Vector, _beta: float) -> Vector:
    return second + square


def _adam(second: Vector, square: Vector, beta: float) -> Vector:
    return beta * second + (1 - beta) * square


def _yogi(second: Vector, square: Vector, beta: float) -> Vector:
    side: Vector = np.sign(second - square)
    return second - (1 - beta) * square * side


_SECOND: dict[str, Callable[[Vector, Vector, float], Vector]] = {
    "fedadagrad": _adagrad,
    "fedadam": _adam,
    "fedyogi": _yogi,
}

_DIRECTIONS: dict[str, Callable[[Server, ServerState, Vector], tuple[Vector, ServerState]]] = {
    "fedavg": _fedavg,
    "fedavgm": _fedavgm,
    **dict.fromkeys(_SECOND, _adaptive),
}
