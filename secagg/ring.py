"""The vectors that are masked and summed: integers modulo 2^b, and their bytes.

A vector has two blocks: `metrics`, always 32-bit words, and `update`, b-bit residues held in the smallest
unsigned type that fits. Arithmetic wraps in that type, whose size is a multiple of 2^b, so it is arithmetic
modulo 2^b with bits above b that mean nothing and are cut when the vector is packed or read.
"""

from dataclasses import dataclass, field
from math import gcd
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from secagg.errors import RingError

Residues = NDArray[np.unsignedinteger[Any]]
Integers = NDArray[np.int64]
SignedIntegers = NDArray[np.signedinteger[Any]]

METRIC_BITS = 32
MIN_BITS, MAX_BITS = 8, 32
"""Below 8 bits the rounding noise drowns the update; above 32 nothing is gained over float32."""

_METRIC_TYPE = np.dtype("<u4")
_WORD_BITS = 64
_WORD_TYPE = np.dtype("<u8")


@dataclass(frozen=True)
class RingLayout:
    """The shape of a vector, equal for all members of a round.

    Attributes:
        update_size: residues in the update block, 0 or more.
        bits: bits of an update residue, 8 to 32.
        metrics_size: 32-bit words in the metrics block, 0 or more.
    """

    update_size: int
    bits: int
    metrics_size: int

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.bits <= MAX_BITS or min(self.update_size, self.metrics_size) < 0:
            raise RingError(f"{self}: bits must be {MIN_BITS} to {MAX_BITS} and sizes not negative")

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Little-endian unsigned type of one, two or four bytes that holds an update residue."""
        return np.dtype("<u1" if self.bits <= 8 else "<u2" if self.bits <= 16 else "<u4")  # noqa: PLR2004 (bits of these types)

    @property
    def packed_size(self) -> int:
        """Bytes of a packed vector: 4 for each metric, then ⌈update_size · bits / 8⌉."""
        return _METRIC_TYPE.itemsize * self.metrics_size + -(-self.update_size * self.bits // 8)

    @property
    def memory_size(self) -> int:
        """Bytes of a vector in memory: 4 for each metric, then `update_size` of `dtype`."""
        return _METRIC_TYPE.itemsize * self.metrics_size + self.dtype.itemsize * self.update_size


@dataclass(frozen=True, eq=False)
class RingVector:
    """A vector of a layout; its arrays are changed in place by `add` and by masking.

    Attributes:
        layout: the shape.
        metrics: (metrics_size,) uint32.
        update: (update_size,) of `layout.dtype`; bits above `layout.bits` mean nothing.
    """

    layout: RingLayout
    metrics: Residues = field(repr=False)
    update: Residues = field(repr=False)

    @classmethod
    def zeros(cls, layout: RingLayout) -> Self:
        """Return the neutral element of addition."""
        return cls(
            layout, np.zeros(layout.metrics_size, _METRIC_TYPE), np.zeros(layout.update_size, layout.dtype)
        )

    @classmethod
    def over(cls, layout: RingLayout, memory: memoryview) -> Self:
        """Return a vector that lives in given memory, shared with another process for instance.

        Raises:
            RingError: the memory is smaller than `layout.memory_size`.
        """
        if memory.nbytes < layout.memory_size:
            raise RingError(f"{memory.nbytes} bytes of memory cannot hold {layout}")
        metrics = np.frombuffer(memory, _METRIC_TYPE, count=layout.metrics_size)
        update = np.frombuffer(memory, layout.dtype, count=layout.update_size, offset=metrics.nbytes)
        return cls(layout, metrics, update)

    @classmethod
    def from_signed(cls, layout: RingLayout, metrics: SignedIntegers, update: SignedIntegers) -> Self:
        """Reduce signed integers into the ring.

        Args:
            layout: the shape.
            metrics: (metrics_size,); a sum is read back right while it stays in [-2^31, 2^31).
            update: (update_size,); likewise in [-2^(bits-1), 2^(bits-1)).

        Raises:
            RingError: an array's shape is not the layout's.
        """
        if metrics.shape != (layout.metrics_size,) or update.shape != (layout.update_size,):
            raise RingError(f"arrays of {metrics.shape} and {update.shape} do not fit {layout}")
        return cls(layout, metrics.astype(_METRIC_TYPE), update.astype(layout.dtype))

    @classmethod
    def unpack(cls, layout: RingLayout, data: bytes | bytearray | memoryview) -> Self:
        """Read a packed vector.

        At 8, 16 and 32 bits the arrays are views of `data`, read-only if it is: such a vector is for adding
        to another.

        Raises:
            RingError: the length is not the layout's, or a bit after the last residue is set.
        """
        if len(data) != layout.packed_size:
            raise RingError(f"{len(data)} bytes where {layout} has {layout.packed_size}")
        metrics = np.frombuffer(data, _METRIC_TYPE, count=layout.metrics_size)
        packed = np.frombuffer(data, np.uint8, offset=metrics.nbytes)
        return cls(layout, metrics, _unpack_residues(packed, layout))

    def pack(self) -> bytes:
        """Return `layout.packed_size` bytes: metrics as little-endian words, then the update's low bits.

        Residue i occupies the bits [i·b, (i+1)·b) of the update's bytes, bit j being bit j mod 8 (from the
        least significant) of byte ⌊j/8⌋; bits that remain in the last byte are zero.
        """
        return b"".join((self.metrics.data, _pack_residues(self.update, self.layout)))

    def add(self, other: "RingVector") -> None:
        """Add another vector to this one in place.

        Raises:
            RingError: the layouts differ.
        """
        if other.layout != self.layout:
            raise RingError(f"{other.layout} cannot be added to {self.layout}")
        np.add(self.metrics, other.metrics, out=self.metrics)
        np.add(self.update, other.update, out=self.update)

    def signed_metrics(self) -> Integers:
        """Return the metrics as int64 in [-2^31, 2^31)."""
        return _centre(self.metrics, METRIC_BITS)

    def signed_update(self) -> Integers:
        """Return the update as int64 in [-2^(bits-1), 2^(bits-1))."""
        return _centre(self.update, self.layout.bits)


def _centre(residues: Residues, bits: int) -> Integers:
    """Read the low bits as two's complement: move them to the type's top, then shift back with the sign."""
    spare = residues.dtype.itemsize * 8 - bits
    signed = (residues << spare).view(residues.dtype.str.replace("u", "i"))
    return (signed >> spare).astype(np.int64)


def _fills_its_type(layout: RingLayout) -> bool:
    return layout.bits == layout.dtype.itemsize * 8


def _group(bits: int) -> tuple[int, int]:
    """Return the smallest (residues, 64-bit words) that hold the same number of bits."""
    shared = gcd(bits, _WORD_BITS)
    return _WORD_BITS // shared, bits // shared


def _pack_residues(update: Residues, layout: RingLayout) -> bytes | memoryview:
    if _fills_its_type(layout):
        return update.data
    bits = layout.bits
    residues, words = _group(bits)
    groups = -(-update.size // residues)
    columns = np.zeros((residues, groups), _WORD_TYPE)
    whole = update.size // residues
    columns[:, :whole] = update[: whole * residues].reshape(whole, residues).T
    columns[: update.size - whole * residues, whole:] = update[whole * residues :, None]
    columns &= (1 << bits) - 1
    packed = np.zeros((words, groups), _WORD_TYPE)
    for index in range(residues):
        word, shift = divmod(index * bits, _WORD_BITS)
        packed[word] |= columns[index] << shift
        if shift + bits > _WORD_BITS:
            packed[word + 1] |= columns[index] >> (_WORD_BITS - shift)
    return packed.T.tobytes()[: -(-update.size * bits // 8)]


def _unpack_residues(packed: NDArray[np.uint8], layout: RingLayout) -> Residues:
    if _fills_its_type(layout):
        return packed.view(layout.dtype)
    bits, size = layout.bits, layout.update_size
    if size * bits % 8 and packed[-1] >> (size * bits % 8):
        raise RingError("a bit after the last residue is set")
    residues, words = _group(bits)
    groups = -(-size // residues)
    padded = np.zeros(groups * words * _WORD_TYPE.itemsize, np.uint8)
    padded[: packed.size] = packed
    columns = np.ascontiguousarray(padded.view(_WORD_TYPE).reshape(groups, words).T)
    update = np.empty((groups, residues), layout.dtype)
    for index in range(residues):
        word, shift = divmod(index * bits, _WORD_BITS)
        value = columns[word] >> shift
        if shift + bits > _WORD_BITS:
            value |= columns[word + 1] << (_WORD_BITS - shift)
        update[:, index] = value & ((1 << bits) - 1)
    return update.reshape(-1)[:size]
