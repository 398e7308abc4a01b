"""Randomness as an argument: programs are handed the system's, tests and the simulator a seeded one."""

import random
import secrets
from typing import Protocol


class Entropy(Protocol):
    """A source of random bytes and numbers."""

    def bytes(self, n: int) -> bytes:
        """`n` random bytes, fit for keys."""

    def uniform(self) -> float:
        """A random number in [0, 1), for jitter and sampling."""


class SystemEntropy:
    """The operating system's generator."""

    def bytes(self, n: int) -> bytes:
        """See `Entropy.bytes`."""
        return secrets.token_bytes(n)

    def uniform(self) -> float:
        """See `Entropy.uniform`; a multiple of 2^-53."""
        return secrets.randbits(53) * 2.0**-53


class SeededEntropy:
    """Repeatable, therefore for tests and simulations only: whoever knows the seed knows every key.

    Args:
        seed: the same seed gives the same bytes and numbers in the same order.
    """

    def __init__(self, seed: int) -> None:
        self._generator = random.Random(seed)  # noqa: S311 (repeatability is the point)

    def bytes(self, n: int) -> bytes:
        """See `Entropy.bytes`."""
        return self._generator.randbytes(n)

    def uniform(self) -> float:
        """See `Entropy.uniform`."""
        return self._generator.random()
