"""What travels in the masked vector: one device's weighted update and its metrics, and the mean of many.

The vector has two blocks. The update block holds `w * clamp(clip(delta))` in a ring of `bits` bits, with
`w = min(examples, cap) / cap <= 1`. The metrics block holds six numbers in [0, 1] in 32-bit words. Each block
ends in four sentinels that are always zero, so that a mask left in either is found. The sum of the first over
the sum of the weights in the second is the weighted mean of federated averaging (McMahan et al. 2017,
Algorithm 1) without anybody's own weight being seen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from privacy.clipping import clamp, clip_l2
from privacy.errors import ImplausibleSumError, MaskMismatchError, NotFiniteError, NoWeightError
from privacy.quantization import RoundingBits, dequantize, quantize, scale_for

_FLOAT32_SLACK = 1e-5
"""Relative: a clamp to a float32 bound and a float64 product may differ by the last bits."""


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
        update: int32, shape (d + 4,), signed: reduce mod 2^bits.
        metrics: int32, shape (10,), signed: reduce mod 2^32.
        clipped: whether the L2 bound cut the update.
        saturated: fraction of coordinates that the coordinate bound cut, 0 to 1.
    """

    update: NDArray[np.int32]
    metrics: NDArray[np.int32]
    clipped: bool
    saturated: float


@dataclass(frozen=True, slots=True)
class MeanUpdate:
    """What the sum of many vectors says.

    Attributes:
        mean: float32, shape (d,): the weighted mean of the bounded updates.
        examples: total weight in examples (each device at most the cap), > 0.
        evaluated: examples evaluated; each device at most the cap.
        loss: mean over the evaluated examples; None when nobody evaluated.
        accuracy: part of the evaluated examples that were correct; None when nobody evaluated.
        clipped_rate: part of the members whose update was clipped, 0 to 1.
        saturated_rate: mean over members of the saturated fraction, 0 to 1.
    """

    mean: NDArray[np.float32]
    examples: float
    evaluated: float
    loss: float | None
    accuracy: float | None
    clipped_rate: float
    saturated_rate: float


@dataclass(frozen=True)
class UpdateEncoding:
    """The rule by which every member of a round writes its vector, and its coordinator reads the sum.

    Attributes:
        update_size: parameters d of the model.
        bits: ring width of the update block, 2 to 32.
        clip: L2 bound of an update, > 0, in units of the weights.
        coordinate_limit: bound of one coordinate, > 0; `clip` itself lets nothing saturate.
        max_members: most vectors that are ever summed.
        max_examples: the cap: most examples a device is weighted by.
        loss_ceiling: highest loss an example can report, > 0.

    Raises:
        QuantizationError: the ring is too small for this many members.
    """

    METRICS: ClassVar = ("weight", "evaluated", "loss", "correct", "clipped", "saturated")
    SENTINELS: ClassVar = 4
    """Words at the end of each block; of 32 bits they miss a mask that is left in once in 2^128."""
    METRICS_SIZE: ClassVar = len(METRICS) + SENTINELS

    update_size: int
    bits: int
    clip: float
    coordinate_limit: float
    max_members: int
    max_examples: int
    loss_ceiling: float

    def __post_init__(self) -> None:
        scale_for(self.bits, self.coordinate_limit, self.max_members)

    @property
    def block_size(self) -> int:
        """Words of the update block: parameters and sentinels."""
        return self.update_size + self.SENTINELS

    @property
    def scale(self) -> float:
        """Levels per unit of the weights in the update block."""
        return scale_for(self.bits, self.coordinate_limit, self.max_members)

    @property
    def metrics_scale(self) -> int:
        """The integer that stands for 1 in the metrics block: n of them stay below 2^31."""
        return (2**31 - 1) // self.max_members - 1

    def encode(
        self, delta: NDArray[np.float32], local: LocalMetrics, rounding_bits: RoundingBits
    ) -> EncodedUpdate:
        """Clip, bound, weigh and round one device's update.

        Args:
            delta: float32, shape (d,): local weights minus received weights.
            local: what the device counted. More than `max_examples` evaluated examples count as that many.
            rounding_bits: entropy of the stochastic rounding, 4 bytes a coordinate.

        Raises:
            NotFiniteError: the update or the loss is NaN or infinite.
            ValueError: the update's length is not `update_size`.
        """
        if delta.shape != (self.update_size,):
            raise ValueError(
                f"the update has shape {delta.shape}, the model has {self.update_size} parameters"
            )
        bounded, clipped = clip_l2(delta, self.clip)
        bounded, saturated = clamp(bounded, self.coordinate_limit)
        weight = min(local.examples, self.max_examples) / self.max_examples
        return EncodedUpdate(
            update=np.pad(quantize(bounded, weight * self.scale, rounding_bits), (0, self.SENTINELS)),
            metrics=self._encode_metrics(local, weight, clipped=clipped, saturated=saturated),
            clipped=clipped,
            saturated=saturated,
        )

    def decode(
        self, update_sum: NDArray[np.int64], metrics_sum: NDArray[np.int64], members: int
    ) -> MeanUpdate:
        """Read the unmasked sum of `members` vectors.

        Against the exact weighted mean a coordinate is off by less than `(n/s + n*coordinate_limit/m) / W`
        plus float32 rounding, where n is `members`, s `scale`, m `metrics_scale` and W the sum of the weights
        (`examples / max_examples`): rounding of each member's coordinate, and of each member's weight.

        Args:
            update_sum: int64, shape (d + 4,), signed.
            metrics_sum: int64, shape (10,), signed.
            members: vectors in the sum, 1 to `max_members`.

        Raises:
            MaskMismatchError: a sentinel is not zero.
            NoWeightError: the weights do not sum to a positive number.
            ImplausibleSumError: a figure is out of every honest range.
            ValueError: a length or `members` is out of range.
        """
        self._check_shapes(update_sum, metrics_sum, members)
        if metrics_sum[len(self.METRICS) :].any() or update_sum[self.update_size :].any():
            raise MaskMismatchError(
                "a sentinel of the sum is not zero: a mask is left in, or a member cheated"
            )
        sums = metrics_sum[: len(self.METRICS)] / self.metrics_scale
        values = dict(zip(self.METRICS, sums.tolist(), strict=True))
        if values["weight"] <= 0:
            raise NoWeightError(
                f"the weights of {members} members sum to {values['weight']}; nobody had examples"
            )
        total = dequantize(update_sum[: self.update_size], self.scale)
        self._check_plausible(values, float(np.abs(total).max(initial=0.0)), members)
        evaluated = values["evaluated"]
        return MeanUpdate(
            mean=(total / values["weight"]).astype(np.float32),
            examples=values["weight"] * self.max_examples,
            evaluated=evaluated * self.max_examples,
            loss=values["loss"] * self.loss_ceiling / evaluated if evaluated > 0 else None,
            accuracy=values["correct"] / evaluated if evaluated > 0 else None,
            clipped_rate=values["clipped"] / members,
            saturated_rate=values["saturated"] / members,
        )

    def _check_plausible(self, values: Mapping[str, float], largest: float, members: int) -> None:
        """Honest members' figures are in these ranges, give or take the rounding of each."""
        slack = members / self.metrics_scale
        ranges = {
            "weight": members,
            "evaluated": members,
            "loss": values["evaluated"],
            "correct": values["evaluated"],
            "clipped": members,
            "saturated": members,
        }
        wild = [name for name, most in ranges.items() if not -slack <= values[name] <= most + slack]
        reach = self.coordinate_limit * (values["weight"] + slack) + members / self.scale
        if largest > reach * (1 + _FLOAT32_SLACK):
            wild.append("update")
        if wild:
            raise ImplausibleSumError(
                f"the sum's {', '.join(wild)} cannot come from {members} honest members"
            )

    def _encode_metrics(
        self, local: LocalMetrics, weight: float, *, clipped: bool, saturated: float
    ) -> NDArray[np.int32]:
        if not math.isfinite(local.loss_sum):
            raise NotFiniteError(
                f"the loss is {local.loss_sum}; lower training.learning_rate or check the data"
            )
        # Both sums shrink with the count, so a device above the cap still reports its own mean.
        counted = max(local.evaluated, self.max_examples)
        values = {
            "weight": weight,
            "evaluated": local.evaluated / counted,
            "loss": min(max(local.loss_sum / self.loss_ceiling, 0.0), local.evaluated) / counted,
            "correct": local.correct / counted,
            "clipped": float(clipped),
            "saturated": saturated,
        }
        block = np.zeros(self.METRICS_SIZE)
        block[: len(self.METRICS)] = [values[name] for name in self.METRICS]
        return np.rint(block * self.metrics_scale).astype(np.int32)

    def _check_shapes(
        self, update_sum: NDArray[np.int64], metrics_sum: NDArray[np.int64], members: int
    ) -> None:
        if update_sum.shape != (self.block_size,) or metrics_sum.shape != (self.METRICS_SIZE,):
            raise ValueError(f"the sum has shapes {update_sum.shape} and {metrics_sum.shape}")
        if not 1 <= members <= self.max_members:
            raise ValueError(f"a sum of {members} members, but the scale allows {self.max_members}")
