"""The update block: how a bounded update becomes integers whose sum a ring can hold, and back.

`PlainBlock` gives every member room for its largest coordinate, so a sum can never wrap; at 32 bits that is
fine enough. `RotatedBlock` spreads the update first: each coordinate of the sum is then small with
overwhelming probability, and 16 bits are enough (Kairouz, Liu, Steinke 2021, arXiv 2102.06387). Rotated, a
part of the coordinates can stand for all of them: a sketch.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.clipping import clamp, clip_l2
from privacy.errors import NotFiniteError, QuantizationError
from privacy.quantization import Integers, RandomBytes, dequantize, quantize, scale_for
from privacy.rotation import rotate, sign_bytes, unrotate
from privacy.rounding import round_within, squared_sensitivity

PublicBytes: TypeAlias = Callable[[int], bytes]
"""Called with a number of bytes; answers the first so many of one stream, the same at every call."""

TAIL = 6.0
"""Standard deviations of the ring's half: coordinates of a rotated sum are sub-Gaussian, so each wraps with a
probability of at most 2 exp(-18), 0.03 of 2^20 coordinates; as the sum is close to normal, really 2e-9: one
wrap in 500 rounds. 4, which is usual, wraps 66 of 2^20 in a round, and as a wrapped one is off by the whole
ring that adds up to 0.4 % to the sum's power. 6 costs 1.5 times the scale."""

MAX_BOUND = 2.0**30
"""Longest scaled update: its integers fit 32 bits and their squared norm 64; rounding is long negligible."""

NEAR_EDGE = 0.75
"""From this part of the ring's half on a coordinate counts as saturated: 4.5 of the `TAIL`, 7e-6 of them."""

_START_BYTES = 8
_LENGTH_TAIL = 8.0
_FLOAT32_SLACK = 1e-5
"""Relative: a clamp to a float32 bound and a float64 product may differ by the last bits."""

_FLOAT32_ROUNDING = 2.0**-22
"""Relative: what the rotation and the cut after it, both in float32, may lengthen a vector by; far below a
level, unless levels are finer than float32 itself, where rounding would find no short enough draw."""


@dataclass(frozen=True)
class PlainBlock:
    """Coordinates as they are, each within a limit.

    Attributes:
        size: parameters d of the model; all travel.
        bits: ring width, 2 to 32.
        clip: L2 bound of an update, > 0, in units of the weights.
        limit: bound of one coordinate, > 0; `clip` itself lets nothing saturate.
        max_members: most vectors that are ever summed.

    Raises:
        QuantizationError: the ring is too small for this many members.
    """

    size: int
    bits: int
    clip: float
    limit: float
    max_members: int

    def __post_init__(self) -> None:
        scale_for(self.bits, self.limit, self.max_members)

    @property
    def words(self) -> int:
        """Integers that travel."""
        return self.size

    @property
    def scale(self) -> float:
        """Levels per unit of the weights."""
        return scale_for(self.bits, self.limit, self.max_members)

    def encode(
        self, update: NDArray[np.float32], weight: float, random_bytes: RandomBytes
    ) -> tuple[NDArray[np.int32], float]:
        """Bound, weigh and round an update.

        Args:
            update: float32, shape (size,), of L2 norm at most `clip`.
            weight: 0 to 1.
            random_bytes: entropy, 4 bytes a coordinate.

        Returns:
            int32, shape (words,), and the part of coordinates that the limit cut.
        """
        bounded, saturated = clamp(update, self.limit)
        return quantize(bounded, weight * self.scale, random_bytes), saturated

    def decode(self, total: Integers) -> NDArray[np.float64]:
        """A sum in units of the weights, float64, shape (size,)."""
        return dequantize(total, self.scale)

    def saturated(self, total: Integers) -> float:  # noqa: ARG002 - as for the rotated block
        """Nothing of a sum is near the ring's edge unless members are dishonest."""
        return 0.0

    def is_plausible(self, total: Integers, weight: float, members: int) -> bool:
        """Whether honest members of this weight in all could have given a sum."""
        reach = self.limit * weight * self.scale + members
        return float(np.abs(total).max(initial=0)) <= reach * (1 + _FLOAT32_SLACK)


@dataclass(frozen=True)
class RotatedBlock:
    """Coordinates of the rotated update; all, or a window of them that the round's public bytes choose.

    Every coordinate is in the window with the same probability, kept / size, so the sum's estimate, times
    size / kept, is unbiased (over the choice of the window).

    Attributes:
        size: parameters d of the model.
        kept: coordinates that travel, 1 to `size`.
        bits: ring width, 2 to 32.
        clip: L2 bound of an update, > 0, in units of the weights.
        scale: levels per unit of the weights, > 0.
        public_bytes: of the round: where the window begins, then the signs of the rotation.

    Raises:
        QuantizationError: scale and clip give integers of more than 32 bits.
    """

    size: int
    kept: int
    bits: int
    clip: float
    scale: float
    public_bytes: PublicBytes

    def __post_init__(self) -> None:
        squared_sensitivity(self.scale * self.clip, self.kept)

    @property
    def words(self) -> int:
        """Integers that travel."""
        return self.kept

    @property
    def norm_squared(self) -> int:
        """The most that the squared L2 norm of one device's integers is, whatever rounding does."""
        return squared_sensitivity(self.scale * self.clip, self.kept)

    def encode(
        self, update: NDArray[np.float32], weight: float, random_bytes: RandomBytes
    ) -> tuple[NDArray[np.int32], float]:
        """Rotate, choose, weigh and round an update; never longer than `norm_squared`.

        Args:
            update: float32, shape (size,), of L2 norm at most `clip`.
            weight: 0 to 1.
            random_bytes: entropy, 4 bytes a kept coordinate and try.

        Returns:
            int32, shape (words,), and 0.
        """
        start, signs = self._choices()
        rotated = update.astype(np.float32)
        rotate(rotated, signs)
        # What a clip near the end of float32 lets grow beyond it, `round_within` makes zeros of.
        with contextlib.suppress(NotFiniteError):
            rotated, _ = clip_l2(rotated, self.clip * (1 - _FLOAT32_ROUNDING))
        window = np.roll(rotated, -start)[: self.kept] if self.kept < self.size else rotated
        return round_within(window, weight * self.scale, self.norm_squared, random_bytes), 0.0

    def decode(self, total: Integers) -> NDArray[np.float64]:
        """A sum in units of the weights, float64, shape (size,)."""
        start, signs = self._choices()
        values = np.zeros(self.size)
        np.multiply(total, self.size / self.kept / self.scale, out=values[: self.kept])
        if self.kept < self.size:
            values = np.roll(values, start)
        unrotate(values, signs)
        return values

    def saturated(self, total: Integers) -> float:
        """The part of a sum's coordinates that are near the ring's edge."""
        return float(np.mean(np.abs(total) > NEAR_EDGE * 2 ** (self.bits - 1)))

    def is_plausible(self, total: Integers, weight: float, members: int, noise: float = 0.0) -> bool:  # noqa: ARG002 - as for the plain block
        """Whether honest members could have given a sum.

        Args:
            total: signed, shape (words,).
            weight: of all members; the bound on lengths leaves room for any.
            members: in the sum.
            noise: standard deviation of what was added to each coordinate, in levels.
        """
        reach = members * math.sqrt(self.norm_squared) + noise * (math.sqrt(self.kept) + _LENGTH_TAIL)
        return float(np.linalg.norm(total.astype(np.float64))) <= reach * (1 + _FLOAT32_SLACK)

    def _choices(self) -> tuple[int, bytes]:
        """Where the window begins, uniform up to 2^-44, and the signs."""
        stream = self.public_bytes(_START_BYTES + sign_bytes(self.size))
        return int.from_bytes(stream[:_START_BYTES], "little") % self.size, stream[_START_BYTES:]


Block: TypeAlias = PlainBlock | RotatedBlock


def kept_of(size: int, sketch: float) -> int:
    """Coordinates that travel when a part `sketch` in (0, 1] of them does: rounded up."""
    return min(size, math.ceil(size * sketch))


def rotation_size(size: int) -> int:
    """D = 2^floor(log2 d): what the overlapping Hadamard transforms spread each coordinate over, at least."""
    return 1 << (size.bit_length() - 1)


def ring_bound(bits: int, members: int, size: int, noise: float = 0.0, kept: int = 0) -> float:
    """The largest x = s C that leaves `TAIL` standard deviations of room in the ring; 0 when there is none.

    `(n x)^2 / D + n / 4 + n sigma^2 <= (2^(b-1) / k)^2`: n aligned updates spread by the rotation, their
    rounding, and their noise, whose power may follow from the sensitivity: n sigma^2 = noise (x^2 + x +
    m/4 + sqrt(m)/2). That is quadratic in x.

    Args:
        bits: ring width b.
        members: n, most that are summed.
        size: d, coordinates that are rotated.
        noise: its power over the squared sensitivity, >= 0.
        kept: m, coordinates that travel; matters to noise alone.
    """
    square = members**2 / rotation_size(size) + noise
    rest = noise * (kept / 4 + math.sqrt(kept) / 2) + members / 4 - (2.0 ** (bits - 1) / TAIL) ** 2
    if rest >= 0:
        return 0.0
    return (math.sqrt(noise * noise - 4 * square * rest) - noise) / (2 * square)


def rotated_scale(bits: int, clip: float, members: int, size: int) -> float:
    """Levels per unit of the weights of a rotated block without noise.

    Raises:
        QuantizationError: rounding would be longer than the mean update can be.
    """
    bound = min(ring_bound(bits, members, size), MAX_BOUND)
    # Rounding a uniform fraction at random has the variance 1/6.
    rounding = math.sqrt(size / 6 / members)
    if bound < rounding or bound < 1:
        raise QuantizationError(
            f"{bits} bits shared by {members} members leave {bound:.1f} levels for an update of {size:,} "
            f"parameters, whose rounding alone is {rounding:.1f}; raise bits or invite fewer members"
        )
    return bound / clip
