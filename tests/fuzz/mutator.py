"""Hostile bytes: what is nearly right, or wrong in a way that readers get wrong."""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_SWELLS = 1 << 13
"""One in so many inputs is made larger than any limit."""

_UNTOUCHED = 15 << 20
"""One in sixteen is left valid, to be said where it does not belong."""

_FIXED = {
    **dict.fromkeys((0xCC, 0xD0), 1),
    **dict.fromkeys((0xCD, 0xD1, 0xD4), 2),
    0xD5: 3,
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 4),
    0xD6: 5,
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 8),
    0xD7: 9,
    0xD8: 17,
    **dict.fromkeys((0xDC, 0xDE), 2),
    **dict.fromkeys((0xDD, 0xDF), 4),
}
"""Bytes after the type byte, of MessagePack's types without a length."""

_COUNTED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Bytes of the length of binaries and strings."""


@dataclass(frozen=True)
class Language:
    """Where the joints of an encoding are, and what is worth putting there."""

    joints: Callable[[bytes], Sequence[int]]
    tokens: Sequence[bytes]


def msgpack_joints(data: bytes) -> list[int]:
    """Where elements begin."""
    places, place = [], 0
    while place < len(data):
        places.append(place)
        kind = data[place]
        place += 1
        if 0xA0 <= kind < 0xC0:
            place += kind - 0xA0
        elif kind in _COUNTED:
            size = _COUNTED[kind]
            place += size + int.from_bytes(data[place : place + size], "big")
        else:
            place += _FIXED.get(kind, 0)
    return places


def json_joints(data: bytes) -> list[int]:
    """Where there is structure."""
    return [place for place, byte in enumerate(data) if byte in b'{}[],:"']


_SIZES = (0, 1, 31, 33, 63, 65, 1024, 1025, 2**15, 2**16 - 1, 2**16, 2**20, 2**28 + 1, 2**31 - 1, 2**32 - 1)
_NUMBERS = (0, 1, 2**31, 2**32 - 1, 2**53 - 1, 2**53, 2**63, 2**64 - 1)
_FLOATS = (0.0, -0.0, -1.0, 5e-324, 1e308, float("inf"), float("-inf"), float("nan"))
_BAD_TEXT = (b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"a\x00b")

MSGPACK = Language(
    msgpack_joints,
    (
        *(bytes([byte]) for byte in range(0x80, 0x100)),
        *(
            bytes([kind]) + struct.pack(">I", size)
            for kind in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)
            for size in _SIZES
        ),
        *(bytes([kind]) + struct.pack(">H", size % 2**16) for kind in (0xC5, 0xDA, 0xDC) for size in _SIZES),
        *(b"\xcf" + struct.pack(">Q", number) for number in _NUMBERS),
        *(b"\xd3" + struct.pack(">q", -number) for number in _NUMBERS[:-1]),
        *(b"\xcb" + struct.pack(">d", number) for number in _FLOATS),
        *(bytes([0xA0 + len(text)]) + text for text in _BAD_TEXT),
        *(
            nest * depth
            for nest in (b"\x91", b"\x81", b"\x81\xa1a", b"\xdd\xff\xff\xff\xff")
            for depth in (9, 2000)
        ),
        b"\xc1",
        b"\xc7\x0c\xff" + bytes(12),
    ),
)
JSON = Language(
    json_joints,
    (
        *(
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b'"',
            b"null",
            b"true",
            b"{}",
            b"[]",
            b'""',
            b"\\",
            b"\xef\xbb\xbf",
        ),
        *(
            b"-1",
            b"-0",
            b"1e999",
            b"1E-999",
            b"NaN",
            b"Infinity",
            b"0.0",
            b"1.5",
            b"00",
            b"9" * 25,
            b"9" * 5000,
        ),
        *(b"%d" % number for number in _NUMBERS),
        *(b'"\\ud800"', b'"\\u0000"', b'"\\x"', b'"' + b"x" * 201 + b'"', b"\x00", b" " * 99),
        *(b'"' + text + b'"' for text in _BAD_TEXT),
        *(nest * depth for nest in (b"[", b'{"a":', b'{"why":') for depth in (9, 2000)),
    ),
)

_Operation = Callable[[bytes, int, int, bytes, Sequence[bytes]], bytes]


def _flip(data: bytes, place: int, luck: int, _: bytes, __: Sequence[bytes]) -> bytes:
    spoilt = bytearray(data)
    if spoilt:
        spoilt[place] ^= 1 << (luck & 7)
    return bytes(spoilt)


def _overwrite(data: bytes, place: int, luck: int, _: bytes, __: Sequence[bytes]) -> bytes:
    return data[:place] + bytes([luck & 255]) + data[place + 1 :]


def _truncate(data: bytes, place: int, _: int, __: bytes, ___: Sequence[bytes]) -> bytes:
    return data[:place]


def _cut(data: bytes, place: int, luck: int, _: bytes, __: Sequence[bytes]) -> bytes:
    return data[:place] + data[place + 1 + (luck & 31) :]


def _repeat(data: bytes, place: int, luck: int, _: bytes, __: Sequence[bytes]) -> bytes:
    end = place + 1 + (luck & 63)
    return data[:end] + data[place:end] * (1 + (luck >> 6 & 3)) + data[end:]


def _insert(data: bytes, place: int, luck: int, _: bytes, tokens: Sequence[bytes]) -> bytes:
    return data[:place] + tokens[luck % len(tokens)] + data[place:]


def _replace(data: bytes, place: int, luck: int, _: bytes, tokens: Sequence[bytes]) -> bytes:
    token = tokens[luck % len(tokens)]
    return data[:place] + token + data[place + len(token) :]


def _splice(data: bytes, place: int, luck: int, other: bytes, _: Sequence[bytes]) -> bytes:
    return data[:place] + other[luck % (len(other) + 1) :]


def _transplant(data: bytes, place: int, luck: int, other: bytes, _: Sequence[bytes]) -> bytes:
    start, size = luck % (len(other) + 1), 1 + (luck >> 12 & 127)
    return data[:place] + other[start : start + size] + data[place + size :]


_OPERATIONS: tuple[_Operation, ...] = (
    _flip,
    _flip,
    _overwrite,
    _truncate,
    _cut,
    _repeat,
    _insert,
    _insert,
    _replace,
    _replace,
    _splice,
    _transplant,
)


class Mutator:
    """Draws hostile bytes.

    Args:
        chance: seeded.
        seeds: valid inputs, none empty.
        language: how they are written.
        limit: an input longer than this many bytes must be refused unread.
    """

    def __init__(self, chance: random.Random, seeds: Sequence[bytes], language: Language, limit: int) -> None:
        self._bits = chance.getrandbits
        self._seeds = [(seed, tuple(language.joints(seed))) for seed in seeds]
        self._tokens = language.tokens
        self._limit = limit

    def draw(self) -> bytes:
        """One hostile input, or a valid one in a wrong moment."""
        luck = self._bits(64)
        data, joints = self._seeds[luck % len(self._seeds)]
        luck >>= 16
        if not luck & _UNTOUCHED:
            return data
        again = 1
        while again:
            other, _ = self._seeds[(luck >> 8) % len(self._seeds)]
            place = joints[luck % len(joints)] if luck & 0x80 else luck
            operation = _OPERATIONS[(luck >> 24) % len(_OPERATIONS)]
            data = operation(data, place % (len(data) or 1), luck >> 20, other, self._tokens)
            luck = self._bits(48)
            again = not luck & 3
        return data + bytes(self._limit) if luck % _SWELLS == 1 else data
