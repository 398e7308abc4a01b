"""The weighted mean of federated averaging, without anybody's own weight being seen and without noise.

The update block holds `w * clip(delta)`, with `w = min(examples, cap) / cap <= 1`; the metrics block holds
six numbers in [0, 1]. The sum of the first over the sum of the weights in the second is the mean of McMahan
et al. 2017, Algorithm 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from privacy.blocks import Block
from privacy.clipping import clip_l2
from privacy.encoding import (
    EncodedUpdate,
    LocalMetrics,
    MeanUpdate,
    UpdateEncoding,
    check_delta,
    check_loss,
)
from privacy.errors import ImplausibleSumError, NoWeightError
from privacy.quantization import Integers, RandomBytes


@dataclass(frozen=True)
class WeightedEncoding(UpdateEncoding):
    """See `UpdateEncoding`.

    Attributes:
        block: of the update.
        max_members: most vectors that are ever summed.
        max_examples: the cap: most examples a device is weighted by.
        loss_ceiling: highest loss an example can report, > 0.
    """

    METRICS: ClassVar = ("weight", "evaluated", "loss", "correct", "clipped", "saturated")

    block: Block
    max_members: int
    max_examples: int
    loss_ceiling: float

    @property
    def metrics_scale(self) -> int:
        """The integer that stands for 1 in the metrics block: n of them stay below 2^31."""
        return (2**31 - 1) // self.max_members - 1

    def encode(
        self, delta: NDArray[np.float32], local: LocalMetrics, random_bytes: RandomBytes
    ) -> EncodedUpdate:
        """See `UpdateEncoding.encode`; more than `max_examples` evaluated examples count as that many."""
        check_delta(delta, self.block.size)
        check_loss(local.loss_sum)
        bounded, clipped = clip_l2(delta, self.block.clip)
        weight = min(local.examples, self.max_examples) / self.max_examples
        levels, saturated = self.block.encode(bounded, weight, random_bytes)
        metrics = self._encode_metrics(local, weight, clipped=clipped, saturated=saturated)
        return EncodedUpdate(self.with_sentinels(levels), self.with_sentinels(metrics))

    def decode(
        self,
        update_sum: Integers,
        metrics_sum: Integers,
        members: int,
        random_bytes: RandomBytes,  # noqa: ARG002 - no noise is added
    ) -> MeanUpdate:
        """See `UpdateEncoding.decode`.

        Against the exact weighted mean a coordinate of a plain block is off by less than
        `(n/s + n*limit/m) / W` plus float32 rounding, where n is `members`, s the block's scale, m
        `metrics_scale` and W the sum of the weights (`examples / max_examples`): rounding of each member's
        coordinate, and of each member's weight.
        """
        update, metrics = self.without_sentinels(update_sum, metrics_sum, members)
        values = dict(zip(self.METRICS, (metrics / self.metrics_scale).tolist(), strict=True))
        if values["weight"] <= 0:
            raise NoWeightError(
                f"the weights of {members} members sum to {values['weight']}; nobody had examples"
            )
        self._check_plausible(values, update, members)
        evaluated = values["evaluated"]
        saturated = values["saturated"] / members + self.block.saturated(update)
        return MeanUpdate(
            mean=(self.block.decode(update) / values["weight"]).astype(np.float32),
            examples=values["weight"] * self.max_examples,
            loss=values["loss"] * self.loss_ceiling / evaluated if evaluated > 0 else None,
            accuracy=values["correct"] / evaluated if evaluated > 0 else None,
            clipped_rate=values["clipped"] / members,
            saturated_rate=saturated,
        )

    def _check_plausible(self, values: Mapping[str, float], update: Integers, members: int) -> None:
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
        if not self.block.is_plausible(update, values["weight"] + slack, members):
            wild.append("update")
        if wild:
            raise ImplausibleSumError(
                f"the sum's {', '.join(wild)} cannot come from {members} honest members"
            )

    def _encode_metrics(
        self, local: LocalMetrics, weight: float, *, clipped: bool, saturated: float
    ) -> NDArray[np.int32]:
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
        block = np.array([values[name] for name in self.METRICS])
        levels: NDArray[np.int32] = np.rint(block * self.metrics_scale).astype(np.int32)
        return levels
