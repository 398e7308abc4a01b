"""A round's sum: every update really encoded as integers, and, where asked, really masked and unmasked."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from benchmarks.private_learning.masking import MaskedRound
from benchmarks.private_learning.network import Vectors
from benchmarks.private_learning.recipe import Rules
from privacy.encoding import LocalMetrics, MeanUpdate, UpdateEncoding
from privacy.noise import SIGMA_PARTS, sigma_in_parts
from privacy.noised_update import NoisedEncoding
from protocol.ids import DeviceId
from protocol.vector import encoding_of, layout_of
from secagg.keys import Secret
from secagg.prg import Keystream
from secagg.ring import RingLayout, RingVector

_NOTHING_EVALUATED = LocalMetrics(examples=10_000, evaluated=0, loss_sum=0.0, correct=0)
"""As many examples as are counted at most: all devices weigh the same."""


MANY = 1000
"""Devices whose noise takes half a minute to draw one by one."""


@dataclass(frozen=True)
class Cohort:
    """Who is in a round: all members mask, and the vanishing ones' vectors never arrive."""

    members: tuple[DeviceId, ...]
    vanishing: frozenset[DeviceId]

    def survives(self, name: DeviceId) -> bool:
        """Whether a member's vector is in the sum."""
        return name not in self.vanishing


@dataclass(frozen=True)
class Aggregation:
    """How the updates of a run are summed.

    A masked round is the programs' whole way: each device draws its own noise and masks, and some vanish. In
    the others the survivors' integers are simply added; where there are `MANY`, the noise of all of them is
    then drawn at once, as one exact discrete Gaussian of their summed variance. From two levels a device on,
    that differs by less than 1e-8 (Kairouz, Liu, Steinke 2021, Proposition 14; `parameters.MIN_SIGMA`).

    Attributes:
        rules: of the run.
        seed: of everything random here.
    """

    rules: Rules
    seed: int

    def mean(self, updates: Vectors, number: int, *, masked: bool) -> MeanUpdate:
        """The mean of the survivors' updates, decoded from the sum of integers.

        Args:
            updates: float32 (devices, d).
            number: of the round; who vanishes, rotation, keys and noise are its own.
            masked: whether masks go on and come off again.

        Raises:
            RuntimeError: the unmasked sum is not bit-equal to the plain sum of the same integers.
        """
        encoding = self.encoding(number)
        if not masked and self.rules.devices >= MANY:
            encoding = noise_at_once(encoding, self.rules.survivors)
        cohort = self._cohort(number)
        vectors = self._vectors(encoding, cohort, updates, number, only_survivors=not masked)
        if masked:
            seed = self._seed(number, "masks")
            masks = MaskedRound(
                layout_of(encoding), self.rules.masking, cohort.members, cohort.vanishing, seed
            )
            total = _masked_sum(masks, cohort, vectors)
        else:
            total = _sum(layout_of(encoding), (vector for _, vector in vectors))
        random_bytes = self._stream(number, "coordinator").read
        return encoding.decode(
            total.signed_update(), total.signed_metrics(), self.rules.survivors, random_bytes
        )

    def error(self, mean: MeanUpdate, updates: Vectors, number: int) -> float:
        """Root mean square of the difference between the mean and that of the survivors' clipped updates."""
        cohort, clip = self._cohort(number), self.rules.masking.clip
        kept = [cohort.survives(name) for name in cohort.members]
        shrunk = clip / np.maximum(np.linalg.norm(updates, axis=1), clip) * kept / sum(kept)
        return float(np.sqrt(np.mean(np.square(mean.mean - shrunk @ updates))))

    def encoding(self, number: int) -> UpdateEncoding:
        """A round's, as its manifest says it.

        Raises:
            ImpossiblePrivacyError, QuantizationError: ring, devices and noise do not fit.
        """
        return encoding_of(self.rules.manifest(number))

    @property
    def bytes_up(self) -> int:
        """Of one device's masked vector."""
        return layout_of(self.encoding(1)).packed_size

    def _vectors(
        self, encoding: UpdateEncoding, cohort: Cohort, updates: Vectors, number: int, *, only_survivors: bool
    ) -> Iterator[tuple[DeviceId, RingVector]]:
        for name, update in zip(cohort.members, updates, strict=True):
            if cohort.survives(name) or not only_survivors:
                random_bytes = self._stream(number, name).read
                encoded = encoding.encode(update, _NOTHING_EVALUATED, random_bytes)
                yield name, RingVector.from_signed(layout_of(encoding), encoded.metrics, encoded.update)

    def _cohort(self, number: int) -> Cohort:
        devices, lost = self.rules.devices, self.rules.devices - self.rules.survivors
        names = tuple(DeviceId(f"d{index:04}") for index in range(devices))
        chosen = np.random.default_rng((self.seed, number)).choice(devices, lost, replace=False)
        return Cohort(names, frozenset(names[index] for index in chosen))

    def _stream(self, number: int, who: str) -> Keystream:
        return Keystream(Secret(self._seed(number, who)[:16]))

    def _seed(self, number: int, who: str) -> bytes:
        return sha256(f"{self.seed}/{number}/{who}".encode()).digest()


def noise_at_once(encoding: UpdateEncoding, survivors: int) -> UpdateEncoding:
    """The same sum with all survivors' noise drawn by whoever decodes it.

    The metrics' noise would be beyond what can be drawn; instead their integers become smaller.
    """
    if not isinstance(encoding, NoisedEncoding) or encoding.mode == "central":
        return encoding
    together = math.sqrt(survivors)
    return replace(
        encoding,
        mode="central",
        sigma_parts=sigma_in_parts(encoding.sigma_parts / SIGMA_PARTS * together),
        metrics_half=round(encoding.metrics_half / together),
    )


def _masked_sum(
    masks: MaskedRound, cohort: Cohort, vectors: Iterator[tuple[DeviceId, RingVector]]
) -> RingVector:
    expected = RingVector.zeros(masks.layout)
    for name, vector in vectors:
        if cohort.survives(name):
            expected.add(vector)
        masks.take(name, vector)  # in place: from here on the vector is masked
    total = masks.unmask()
    if total.pack() != expected.pack():
        raise RuntimeError("the unmasked sum differs from the plain sum of the same integers")
    return total


def _sum(layout: RingLayout, vectors: Iterator[RingVector]) -> RingVector:
    total = RingVector.zeros(layout)
    for vector in vectors:
        total.add(vector)
    return total
