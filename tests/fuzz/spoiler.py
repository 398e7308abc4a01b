"""Hostile messages: real ones of which some fields say something else, still within the types' limits."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from protocol.errors import FrameError
from protocol.ids import Order
from protocol.messages import Message, encode
from protocol.plan import MAX_COHORT

_M = TypeVar("_M", bound=Message)
_NUMBERS = (0, 1, 2, 3, 63, 64, 1023, 1024, 4096, 2**20, 2**28, 2**31, 2**32 - 1, 2**53 - 1, 2**63 - 1)
_FLOATS = (
    5e-324,
    1e-320,
    1e-40,
    1e-9,
    0.25,
    0.4999999999999999,
    1.0,
    86_400.0,
    1e9,
    1e38,
    1.7e308,
    float("inf"),
)
_TEXTS = (
    "",
    "a",
    "mallory",
    "z" * 64,
    "d001",
    "coordinator",
    "committed",
    "aborted",
    "x" * 200,
    "\n\x00\x1b[2J",
    "é",
)
_MAXIMAL = 1 / 400
"""Part of the spoiled lists that get as many elements as the types allow."""


class Spoiler:
    """Spoils messages.

    Args:
        chance: seeded.
        decode: reads what was spoiled, as its receiver would.
        material: real messages, whose values are used in wrong places.
        links: the transcript so far; may grow.
    """

    def __init__(
        self,
        chance: random.Random,
        decode: Callable[[bytes], _M],
        material: Iterable[Message],
        links: Sequence[bytes],
    ) -> None:
        self._chance = chance
        self._decode: Callable[[bytes], Any] = decode
        self._links = links
        self._bytes: dict[int, list[bytes]] = {}
        self._names = [*_TEXTS]
        for message in material:
            self._harvest(message)

    def spoiled(self, message: Message) -> tuple[Message, bytes]:
        """A hostile message and its encoding, which a receiver can decode."""
        while True:
            said = message
            for _ in range(self._chance.choice((0, 1, 1, 1, 1, 1, 2, 3))):
                said = self._spoil(said)
            if self._chance.random() < 0.7:
                said = self._linked(said)
            try:
                read: Message = self._decode(encode(said))
            except (FrameError, OverflowError):
                continue  # beyond the limits of its type, or of MessagePack
            return read, encode(read)

    def _linked(self, message: Message) -> Message:
        """In its right place after all, so that it gets further."""
        if "transcript" not in message.__struct_fields__:
            return message
        return replace(message, transcript=self._chance.choice(self._links))

    def _spoil(self, struct: Any) -> Any:
        fields = struct.__struct_fields__
        if not fields:
            return struct
        field = self._chance.choice(fields)
        return replace(struct, **{field: self._other(getattr(struct, field))})

    def _other(self, value: Any) -> Any:  # noqa: PLR0911 - one line a kind of value
        chance = self._chance
        match value:
            case bool():
                return not value
            case int():
                return chance.choice((*_NUMBERS, value + 1, value - 1))
            case float() | None:
                return chance.choice((*_FLOATS, (value or 0.5) * 2))
            case str():
                return chance.choice(self._names)
            case bytes():
                return self._other_bytes(value)
            case tuple():
                return self._other_list(value)
            case Order() if chance.random() < 0.3:
                return Order(value.generation, value.epoch, value.round + chance.choice((-1, 1)))
            case Struct():
                return self._spoil(value)
        raise TypeError(type(value))

    def _other_bytes(self, value: bytes) -> bytes:
        luck = self._chance.randrange(6)
        if luck == 0:
            return bytes(len(value))
        if luck == 1 and value:
            spoilt = bytearray(value)
            spoilt[self._chance.randrange(len(value))] ^= 1 << self._chance.randrange(8)
            return bytes(spoilt)
        if luck == 2:
            return b"\xff" * len(value)
        return self._chance.choice(self._bytes.get(len(value), [value]))

    def _other_list(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        chance = self._chance
        if chance.random() < _MAXIMAL:
            return self._maximal(values)
        items = list(values)
        place = chance.randrange(len(items)) if items else 0
        match chance.randrange(9):
            case 0:
                items.clear()
            case 1:
                items.reverse()
            case 2:
                items += items
            case 3 | 4 if items:
                del items[place]
            case 5 if items:
                items.insert(place, items[place])
            case 6:
                chance.shuffle(items)
            case _ if items:
                items[place] = self._other_item(items[place])
        return tuple(items)

    def _other_item(self, item: Any) -> Any:
        if not isinstance(item, tuple):
            return self._other(item)
        parts = list(item)
        place = self._chance.randrange(len(parts))
        parts[place] = self._other(parts[place])
        return tuple(parts)

    def _maximal(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [f"d{index:04}" for index in range(MAX_COHORT)]
        match values:
            case [(str(), bytes() as first), *_]:
                return tuple((name, first) for name in names)
            case [str(), *_]:
                return tuple(names)
            case [first, *_]:
                return (first,) * MAX_COHORT
        return tuple(range(64))

    def _harvest(self, value: Any) -> None:
        match value:
            case bytes():
                self._bytes.setdefault(len(value), []).append(value)
            case str():
                self._names.append(value)
            case tuple():
                for item in value:
                    self._harvest(item)
            case Struct():
                for name in value.__struct_fields__:
                    self._harvest(getattr(value, name))
