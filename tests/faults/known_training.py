"""Training whose outcome everybody can work out: by device and round, without having seen it."""

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from models.datasets.source import DataSource
from models.installed import ORT_GRAPH
from models.layout import Vector
from models.training_calls import TrainResult
from models.training_process import TrainingWorker
from protocol.ids import Order
from protocol.plan import Training


def device_name(number: int) -> str:
    """Of the device that trains with this number."""
    return f"p{number}"


def _number(name: str) -> int:
    return int(name.removeprefix("p"))


def _examples(number: int) -> int:
    return 10 + number


def _delta(number: int, order: Order, size: int) -> NDArray[np.float32]:
    """What a device adds to the weights in a round, float32 (size,), L2 norm 1."""
    vector = np.random.default_rng((number, order.epoch, order.round)).normal(size=size)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def known_mean(names: Collection[str], order: Order, size: int) -> NDArray[np.float64]:
    """By how much a round moves the weights: sum of n_i times delta_i over the sum of n_i, float64 (size,).

    Args:
        names: of the devices in the sum, at least one.
        order: the round.
        size: of the weights.
    """
    numbers = [_number(name) for name in names]
    total = sum(_examples(number) * _delta(number, order, size).astype(np.float64) for number in numbers)
    return np.asarray(total) / sum(map(_examples, numbers))


class KnownTraining(TrainingWorker):
    """Adds the known vector of its device and round.

    Args:
        name: of the device.
        order: tells the round that the device is in.
    """

    def __init__(self, name: str, order: Callable[[], Order]) -> None:
        super().__init__()
        self.trained: list[Order] = []
        self._number = _number(name)
        self._order = order

    async def train(
        self,
        bundle: bytes,  # noqa: ARG002 - what a worker is given
        weights: Vector,
        training: Training,  # noqa: ARG002
        source: DataSource,  # noqa: ARG002
        *,
        seed: int,  # noqa: ARG002
        deadline: float,  # noqa: ARG002
        engine: str = ORT_GRAPH,  # noqa: ARG002
        private: bytes | None = None,  # noqa: ARG002
    ) -> TrainResult:
        """See `TrainingWorker.train`."""
        order = self._order()
        self.trained.append(order)
        return TrainResult(
            weights=(weights + _delta(self._number, order, weights.size)).tobytes(),
            examples=_examples(self._number),
            training_loss=1.0,
            evaluated=4,
            loss_sum=4.0,
            correct=2,
            seconds=0.0,
        )
