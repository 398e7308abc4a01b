"""Names and numbers that must not mix, and the rules each must satisfy."""

from typing import Annotated, NewType

from msgspec import Meta, Struct

# 1 to 64 of [a-z0-9_-]: carried by every broker (NATS maps "."), and safe as a topic level. It ends in \Z,
# because "$" would let a last newline through.
NAME_PATTERN = r"^[a-z0-9_-]{1,64}\Z"

DeviceId = NewType("DeviceId", str)
"""A device's name in its fleet: the common name of its certificate."""

Seconds = NewType("Seconds", float)
"""Monotonic time in seconds; only differences mean something."""

UnixTime = NewType("UnixTime", float)
"""Wall-clock seconds since 1970-01-01 UTC; for certificate validity only."""

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""A SHA-256 digest."""


class Order(Struct, frozen=True, order=True, array_like=True, forbid_unknown_fields=True):
    """A round's place in the fleet's history; compared lexicographically.

    Attributes:
        generation: of the coordinator's certificate, 0 to 2^32 - 1.
        epoch: raised when a coordinator finds its state to be a copy or old, 0 to 2^53 - 1.
        round: 1 for the fleet's first round, 0 only as the origin, up to 2^53 - 1.
    """

    generation: Annotated[int, Meta(ge=0, lt=2**32)]
    epoch: Annotated[int, Meta(ge=0, lt=2**53)]
    round: Annotated[int, Meta(ge=0, lt=2**53)]

    def __str__(self) -> str:
        return f"{self.generation}.{self.epoch}.{self.round}"


ORIGIN = Order(0, 0, 0)
"""Before every round."""
