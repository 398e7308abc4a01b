"""What travels in a device's vector, and what the sum of many says: the two encodings have this in common.

A vector has two blocks: the update, integers in a ring of `bits` bits, and a few metrics in 32-bit words.
Each ends in four sentinels that are always zero and never noised, so that a mask left in either is found.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from privacy.blocks import Block
from privacy.errors import MaskMismatchError, NotFiniteError
from privacy.quantization import Integers, RandomBytes


@dataclass(frozen=True, slots=True)
class LocalMetrics:
    """What a device counted.

    Attributes:
        examples: it trained on, >= 0.
        evaluated: examples it evaluated the received model on, >= 0.
        loss_sum: over the evaluated examples.
        correct: of the evaluated examples, 0 to `evaluated`.
    """

    examples: int
    evaluated: int
    loss_sum: float
    correct: int


@dataclass(frozen=True, slots=True)
class EncodedUpdate:
    """One device's vector, before masking.

    Attributes:
        update: signed, shape (block_size,): reduce mod 2^bits.
        metrics: signed, shape (metrics_size,): reduce mod 2^32.
    """

    update: Integers
    metrics: Integers


@dataclass(frozen=True, slots=True)
class MeanUpdate:
    """What the sum of many vectors says.

    Attributes:
        mean: float32, shape (d,): the mean of the bounded updates.
        examples: total weight in examples (each device at most the cap), > 0; None where nobody tells.
        loss: mean over the evaluated examples; None when nobody evaluated.
        accuracy: part of the evaluated examples that were correct; None when nobody evaluated.
        clipped_rate: part of the members whose update was clipped, 0 to 1.
        saturated_rate: mean over members of the part of coordinates that a coordinate limit cut; of a rotated
            sum, the part of its coordinates that are near the ring's edge.
        metrics_noise: standard deviation of the noise on accuracy, and on loss / ceiling; None without.
    """

    mean: NDArray[np.float32]
    examples: float | None
    loss: float | None
    accuracy: float | None
    clipped_rate: float
    saturated_rate: float
    metrics_noise: float | None = None


class UpdateEncoding(ABC):
    """The rule by which every member of a round writes its vector, and its coordinator reads the sum.

    Attributes:
        block: of the update.
        max_members: most vectors that are ever summed.
    """

    SENTINELS: ClassVar = 4
    """Words at the end of each block; of 32 bits they miss a mask that is left in once in 2^128."""

    METRICS: ClassVar[tuple[str, ...]]
    """What a device tells of itself, in order."""

    block: Block
    max_members: int

    @abstractmethod
    def encode(
        self, delta: NDArray[np.float32], local: LocalMetrics, random_bytes: RandomBytes
    ) -> EncodedUpdate:
        """Write one device's vector.

        Args:
            delta: float32, shape (d,): local weights minus received weights.
            local: what the device counted.
            random_bytes: fresh entropy.

        Raises:
            NotFiniteError: the update or the loss is NaN or infinite.
            ValueError: the update's length is not that of the model.
        """

    @abstractmethod
    def decode(
        self, update_sum: Integers, metrics_sum: Integers, members: int, random_bytes: RandomBytes
    ) -> MeanUpdate:
        """Read the unmasked sum of `members` vectors.

        Args:
            update_sum: shape (block_size,), signed.
            metrics_sum: shape (metrics_size,), signed.
            members: vectors in the sum, 1 to `max_members`.
            random_bytes: fresh entropy, for noise that the coordinator adds.

        Raises:
            MaskMismatchError: a sentinel is not zero.
            NoWeightError: the weights do not sum to a positive number.
            ImplausibleSumError: a figure is out of every honest range.
            ValueError: a length or `members` is out of range.
        """

    @property
    def block_size(self) -> int:
        """Words of the update block with its sentinels."""
        return self.block.words + self.SENTINELS

    @property
    def metrics_size(self) -> int:
        """Words of the metrics block with its sentinels."""
        return len(self.METRICS) + self.SENTINELS

    def with_sentinels(self, block: Integers) -> Integers:
        """A block as it travels."""
        return np.pad(block, (0, self.SENTINELS))

    def without_sentinels(
        self, update_sum: Integers, metrics_sum: Integers, members: int
    ) -> tuple[Integers, Integers]:
        """The two blocks of a sum; errors as `decode` says."""
        if update_sum.shape != (self.block_size,) or metrics_sum.shape != (self.metrics_size,):
            raise ValueError(f"the sum has shapes {update_sum.shape} and {metrics_sum.shape}")
        if not 1 <= members <= self.max_members:
            raise ValueError(f"a sum of {members} members, but the scale allows {self.max_members}")
        update, metrics = update_sum[: self.block.words], metrics_sum[: len(self.METRICS)]
        if metrics_sum[metrics.size :].any() or update_sum[update.size :].any():
            raise MaskMismatchError(
                "a sentinel of the sum is not zero: a mask is left in, or a member cheated"
            )
        return update, metrics


def check_delta(delta: NDArray[np.float32], size: int) -> None:
    """An update must have as many coordinates as the model has parameters.

    Raises:
        ValueError: it has not.
    """
    if delta.shape != (size,):
        raise ValueError(f"the update has shape {delta.shape}, the model has {size} parameters")


def check_loss(loss_sum: float) -> None:
    """A loss must be a number.

    Raises:
        NotFiniteError: it is not.
    """
    if not np.isfinite(loss_sum):
        raise NotFiniteError(f"the loss is {loss_sum}; lower training.learning_rate or check the data")
