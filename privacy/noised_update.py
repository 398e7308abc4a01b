"""The mean under differential privacy: all weigh the same, and the sum carries discrete Gaussian noise.

The chain of Kairouz, Liu, Steinke 2021 (arXiv 2102.06387): clip → rotate → scale → round within the
sensitivity → noise → ring. In "distributed" mode each device adds its part of the noise before masking, so
nobody ever sees a sum without it; in "central" mode a coordinator that is trusted to adds all of it.

The metrics block has noise of its own. Unit of privacy, neighbours and cost: `privacy.parameters`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from privacy.blocks import RotatedBlock
from privacy.clipping import clip_l2
from privacy.encoding import (
    EncodedUpdate,
    LocalMetrics,
    MeanUpdate,
    UpdateEncoding,
    check_delta,
)
from privacy.errors import ImplausibleSumError, NotFiniteError
from privacy.mode import Mode
from privacy.noise import SIGMA_PARTS, discrete_gaussian
from privacy.parameters import NoisedBlock, cost
from privacy.quantization import Integers, RandomBytes

_UNKNOWN = 0.5
"""What a device reports that has nothing to report: it is written as zero."""


@dataclass(frozen=True)
class NoisedEncoding(UpdateEncoding):
    """See `UpdateEncoding`; what it costs follows from its integers alone, see `rho`.

    Attributes:
        block: of the update.
        mode: who adds the noise.
        sigma_parts: of each coordinate's noise, in parts of 1 / `SIGMA_PARTS` of a level: a device's own in
            distributed mode, the coordinator's in central mode.
        metrics_half: h, the integer that stands for half of a metric's range, >= 1.
        metrics_sigma_parts: as `sigma_parts`, of the metrics block.
        max_members: most vectors that are ever summed.
        loss_ceiling: highest mean loss a device can report, > 0.
    """

    METRICS: ClassVar = ("loss", "accuracy", "clipped")

    block: RotatedBlock
    mode: Mode
    sigma_parts: int
    metrics_half: int
    metrics_sigma_parts: int
    max_members: int
    loss_ceiling: float

    def rho(self, noises: int) -> float:
        """Cost of one sum for one device, in zCDP, when it holds at least so many honest noises.

        In central mode there is one, the coordinator's, and this is what it promises.
        """
        update = NoisedBlock(
            self.block.words, self.block.scale, self.block.norm_squared, self.sigma_parts / SIGMA_PARTS
        )
        metrics = NoisedBlock(
            len(self.METRICS),
            float(self.metrics_half),
            len(self.METRICS) * self.metrics_half**2,
            self.metrics_sigma_parts / SIGMA_PARTS,
        )
        return cost((update, metrics), noises)

    def encode(
        self, delta: NDArray[np.float32], local: LocalMetrics, random_bytes: RandomBytes
    ) -> EncodedUpdate:
        """See `UpdateEncoding.encode`; in distributed mode with this device's noise.

        An update or a loss that is not finite is no error here: to stay away because of it would tell of the
        data what no noise hides. It counts as a clipped update of zeros, and as the highest loss.
        """
        check_delta(delta, self.block.size)
        try:
            bounded, clipped = clip_l2(delta, self.block.clip)
        except NotFiniteError:
            bounded, clipped = np.zeros_like(delta), True
        levels, _ = self.block.encode(bounded, 1.0, random_bytes)
        metrics = self._encode_metrics(local, clipped=clipped)
        if self.mode == "distributed":
            return self._noised(levels, metrics, random_bytes)
        return EncodedUpdate(self.with_sentinels(levels), self.with_sentinels(metrics))

    def decode(
        self, update_sum: Integers, metrics_sum: Integers, members: int, random_bytes: RandomBytes
    ) -> MeanUpdate:
        """See `UpdateEncoding.decode`; in central mode noise is added before anything is looked at."""
        update, metrics = self.without_sentinels(update_sum, metrics_sum, members)
        if self.mode == "central":
            noised = self._noised(update, metrics, random_bytes)
            update, metrics = noised.update[: self.block.words], noised.metrics[: len(self.METRICS)]
        self._check_plausible(update, members)
        centred = metrics / (members * self.metrics_half)
        values = dict(zip(self.METRICS, np.clip((centred + 1) / 2, 0, 1).tolist(), strict=True))
        return MeanUpdate(
            mean=(self.block.decode(update) / members).astype(np.float32),
            examples=None,
            loss=values["loss"] * self.loss_ceiling,
            accuracy=values["accuracy"],
            clipped_rate=values["clipped"],
            saturated_rate=self.block.saturated(update),
            metrics_noise=self._noise(self.metrics_sigma_parts, members) / (2 * members * self.metrics_half),
        )

    def _noised(self, update: Integers, metrics: Integers, random_bytes: RandomBytes) -> EncodedUpdate:
        """Noise on everything but the sentinels."""
        noise = discrete_gaussian(self.block.words, self.sigma_parts, random_bytes)
        noise += update
        metrics_noise = discrete_gaussian(len(self.METRICS), self.metrics_sigma_parts, random_bytes)
        metrics_noise += metrics
        return EncodedUpdate(self.with_sentinels(noise), self.with_sentinels(metrics_noise))

    def _noise(self, parts: int, members: int) -> float:
        """Standard deviation of what a sum carries, in levels."""
        return parts / SIGMA_PARTS * math.sqrt(members if self.mode == "distributed" else 1)

    def _check_plausible(self, update: Integers, members: int) -> None:
        if not self.block.is_plausible(update, members, members, self._noise(self.sigma_parts, members)):
            raise ImplausibleSumError(f"the sum's update cannot come from {members} honest members")

    def _encode_metrics(self, local: LocalMetrics, *, clipped: bool) -> Integers:
        evaluated = local.evaluated
        loss = local.loss_sum if math.isfinite(local.loss_sum) else math.inf
        values = {
            "loss": loss / self.loss_ceiling / evaluated if evaluated else _UNKNOWN,
            "accuracy": local.correct / evaluated if evaluated else _UNKNOWN,
            "clipped": float(clipped),
        }
        block = np.clip([values[name] for name in self.METRICS], 0.0, 1.0)
        levels: Integers = np.rint((2 * block - 1) * self.metrics_half).astype(np.int64)
        return levels
