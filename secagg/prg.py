"""The one pseudo-random generator: AES in counter mode (NIST SP 800-38A, section 6.5).

The initial counter block is always zero. That is safe because every key that comes here is derived for one
use (one pair or one device, in one transcript): no keystream is ever produced twice for two vectors.
"""

from collections.abc import Iterator

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from secagg.keys import Secret
from secagg.ring import Residues, RingVector

MASK_KEY_SIZE = 16
"""Bytes of a mask's key: AES-128 is the fastest generator there is here, and 128 bits are enough."""

CHUNK = 256 * 1024
"""Bytes generated before they are added: they stay in the second-level cache, so memory is read once."""

_BLOCK = 16
_FIRST_COUNTER = bytes(_BLOCK)
_ZEROS = memoryview(bytes(CHUNK))
_MODE = modes.CTR(_FIRST_COUNTER)


class Keystream:
    """The AES-CTR stream of a key of 16 or 32 bytes, read piece by piece."""

    def __init__(self, key: Secret) -> None:
        self._encryptor = _encryptor(key)

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        return self._encryptor.update(bytes(count))


def keystream(key: Secret, length: int) -> bytes:
    """Return the first `length` bytes of a key's stream."""
    return Keystream(key).read(length)


def add_stream(vector: RingVector, key: Secret, sign: int) -> None:
    """Add a key's stream to a vector in place, or subtract it.

    The stream, read as little-endian words of each block's type, runs over the metrics block and then over
    the update block.

    Args:
        vector: what is masked or unmasked.
        key: 16 bytes, derived for this use alone.
        sign: +1 adds, -1 subtracts.
    """
    StreamAdder(vector).add(key, sign)


class StreamAdder:
    """Adds streams to one vector through one buffer, both cut in chunks once for all streams."""

    def __init__(self, vector: RingVector) -> None:
        # A block more than a chunk: releases before 45 ask for that room in update_into.
        buffer = bytearray(CHUNK + _BLOCK)
        self._room = memoryview(buffer)
        self._pieces = [
            (_ZEROS[: part.nbytes], np.frombuffer(buffer, part.dtype, part.size), part)
            for block in (vector.metrics, vector.update)
            for part in _parts(block)
        ]

    def add(self, key: Secret, sign: int) -> None:
        """Do as `add_stream` says."""
        stream = _encryptor(key)
        operation = np.add if sign > 0 else np.subtract
        for zeros, words, part in self._pieces:
            stream.update_into(zeros, self._room)
            operation(part, words, part)


def _parts(block: Residues) -> Iterator[Residues]:
    step = CHUNK // block.dtype.itemsize
    return (block[start : start + step] for start in range(0, block.size, step))


def _encryptor(key: Secret) -> CipherContext:
    return Cipher(algorithms.AES(key.reveal()), _MODE).encryptor()
