"""What devices encoded, as integers: noise makes every mean another, but not another than these add up to."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from privacy.blocks import RotatedBlock
from privacy.clipping import clip_l2
from privacy.encoding import LocalMetrics, MeanUpdate
from privacy.errors import PrivacyError
from privacy.noise import SIGMA_PARTS
from privacy.noised_update import NoisedEncoding
from privacy.rotation import rotate
from protocol.device_work import EncodeUpdate
from protocol.ids import Order
from protocol.messages import Manifest
from protocol.vector import encoding_of
from secagg.ring import RingVector
from simulator.loop import CURRENT

FEWEST_PARTS = 50
MOST_PARTS = 6
"""The power of n noises is between n / 50 and 6 n times what one has on average: of nine noises, the fewest
there are, it is not once in a million times; without noise it is a hundred times less."""

_ROUNDED = 1.01
"""Levels by which rounding, and a rotation in float32, may change a coordinate."""


_CUT = 2.0**-21
"""Relative: what float32 and the cut after the rotation take off."""


@dataclass(frozen=True)
class Encoded:
    """What one life of a device encoded in a round.

    Attributes:
        manifest: that it was told.
        delta: the change of its weights, float32 (d,).
        local: its metrics.
        vector: before the masks.
    """

    manifest: Manifest
    delta: NDArray[np.float32]
    local: LocalMetrics
    vector: RingVector


ENCODED: dict[tuple[str, Order], Encoded] = {}
"""By life and round; what is neither rotated nor noised is left out."""


def recorded() -> AbstractContextManager[object]:
    """In this context every device's vector is kept."""
    run = EncodeUpdate.run

    def keep(self: EncodeUpdate) -> RingVector:
        vector, incarnation = run(self), CURRENT.get()
        if isinstance(self.encoding.block, RotatedBlock) and incarnation is not None:
            manifest: Manifest = self.encoding.block.public_bytes.manifest  # type: ignore[attr-defined]
            mine = RingVector(vector.layout, vector.metrics.copy(), vector.update.copy())
            delta = self.trained - self.initial
            ENCODED[incarnation.actor, manifest.order] = Encoded(manifest, delta, self.metrics, mine)
        return vector

    return mock.patch.object(EncodeUpdate, "run", keep)


def is_faithful(one: Encoded) -> bool:
    """Whether a vector is the bounded update, rounded, with the noise that its manifest asks for."""
    encoding: Any = encoding_of(one.manifest)
    block: RotatedBlock = encoding.block
    is_finite = bool(np.isfinite(one.delta).all())  # else under noise it counts as clipped, and as zeros
    bounded, clipped = clip_l2(one.delta if is_finite else np.zeros_like(one.delta), block.clip)
    start, signs = block._choices()
    rotated = bounded.astype(np.float32)
    rotate(rotated, signs)
    window = np.roll(rotated, -start)[: block.words] if block.words < block.size else rotated
    exact = window.astype(np.float64) * block.scale
    rest = one.vector.signed_update()[: block.words] - exact
    if not isinstance(encoding, NoisedEncoding) or encoding.mode == "central":
        return bool(np.max(np.abs(rest)) <= _ROUNDED + _CUT * block.scale * block.clip)
    levels = encoding._encode_metrics(one.local, clipped=clipped or not is_finite)
    others = one.vector.signed_metrics()[: levels.size] - levels
    figures = others / encoding.metrics_sigma_parts * encoding.sigma_parts
    noise = np.concatenate([rest, figures])
    return _is_noise(noise, encoding.sigma_parts, words=noise.size)


def _is_noise(noise: NDArray[np.float64], sigma_parts: int, *, words: int) -> bool:
    """Whether so many words of noise may be as long as these."""
    power = float(noise @ noise) / (sigma_parts / SIGMA_PARTS) ** 2
    return words / FEWEST_PARTS <= power <= words * MOST_PARTS


def is_mean_of(mean: MeanUpdate, manifest: Manifest, candidates: Sequence[Sequence[Encoded]]) -> bool:
    """Whether a mean is that of one vector of each survivor, in central mode with the coordinator's noise.

    Args:
        mean: that is applied.
        manifest: of the round.
        candidates: what each survivor may have uploaded; more than one where it has a clone.
    """
    return any(_is_mean_of(mean, manifest, chosen) for chosen in product(*candidates))


def _is_mean_of(mean: MeanUpdate, manifest: Manifest, chosen: Sequence[Encoded]) -> bool:
    encoding: Any = encoding_of(manifest)
    exact: Any = encoding
    if isinstance(encoding, NoisedEncoding) and encoding.mode == "central":
        exact = replace(encoding, mode="distributed", sigma_parts=1)
    total = _added(one.vector for one in chosen)
    try:
        expected = exact.decode(total.signed_update(), total.signed_metrics(), len(chosen), _no_entropy)
    except PrivacyError:
        return False
    if exact is encoding:
        return bool(np.array_equal(mean.mean, expected.mean)) and mean.clipped_rate == expected.clipped_rate
    block: RotatedBlock = encoding.block
    change = (mean.mean.astype(np.float64) - expected.mean) * len(chosen) * block.scale
    # The rotation keeps lengths; of a sketch, all but the window is zero, and the window is scaled up.
    return _is_noise(change * block.words / block.size, encoding.sigma_parts, words=block.words)


def _added(vectors: Iterable[RingVector]) -> RingVector:
    first, *others = vectors
    total = RingVector.zeros(first.layout)
    for vector in (first, *others):
        total.add(vector)
    return total


def _no_entropy(_count: int) -> bytes:
    raise AssertionError("nothing is drawn")
