"""A small, bounded reader of Protocol Buffers messages, for bytes that nobody vouches for.

A device has neither the `onnx` nor the `protobuf` package, and wants to know what is in a file before native
code reads it. Stricter than the format: a field that the schema does not name, a singular field that is
said twice, a group and a number of more than 64 bits are refused. Native parsers would skip, merge or cut
them, and might then see another message than this one.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple

from models.errors import BundleError

MAX_FIELDS = 150_000
"""Of all messages of one file: 30 MB and half a second. A training graph of 60 layers has 13,000."""

_MAX_VARINT_BYTES = 10
_MORE = 0x80  # the bit of a varint's byte that says that another follows


class Wire(IntEnum):
    """How a field's value is written."""

    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    FIXED32 = 5


class Allowed(NamedTuple):
    """A field that may be there.

    Attributes:
        name: for people and for the reader of the message.
        wire: of a value; a repeated number may be packed as well.
        repeated: or at most once.
    """

    name: str
    wire: Wire
    repeated: bool = False


class Refused(NamedTuple):
    """A field that the format has and we do not allow.

    Attributes:
        why: completes "X ...".
    """

    why: str


Schema = Mapping[int, Allowed | Refused]


class Message(NamedTuple):
    """The values of one message, by field name.

    Attributes:
        values: in the order of the file.
    """

    values: dict[str, list[int | memoryview]]

    def parts(self, name: str) -> list[memoryview]:
        """The values of a field of bytes."""
        return [value for value in self.values.get(name, ()) if isinstance(value, memoryview)]

    def number(self, name: str, default: int = 0) -> int:
        """The value of a singular number, as a signed 64-bit one."""
        return next((signed(value) for value in self.values.get(name, ()) if isinstance(value, int)), default)

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return name in self.values


class Reader:
    """Reads the messages of one file.

    Args:
        file: its name, for errors.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._left = MAX_FIELDS

    def error(self, gist: str) -> BundleError:
        """A refusal that names the file."""
        return BundleError(f"{self._file}: {gist}")

    def message(self, data: memoryview, schema: Schema, what: str) -> Message:
        """Read one message.

        Args:
            data: exactly its bytes.
            schema: the fields that it may have.
            what: it is, for errors.

        Raises:
            BundleError: it is not whole, or holds what the schema does not allow.
        """
        values: dict[str, list[int | memoryview]] = {}
        for number, wire, value in self._fields(data, what):
            field = schema.get(number)
            if field is None:
                raise self.error(f"{what} has a field {number} that is not known")
            if isinstance(field, Refused):
                raise self.error(f"{what} {field.why}")
            packed = field.repeated and wire == Wire.BYTES
            if wire != field.wire and not packed:
                raise self.error(f"{what}: field {field.name} is of wire type {wire}")
            if field.name in values and not field.repeated:
                raise self.error(f"{what}: field {field.name} is there twice")
            values.setdefault(field.name, []).append(value)
        return Message(values)

    def text(self, data: memoryview, what: str, limit: int) -> str:
        """Bytes as text of at most `limit` bytes.

        Raises:
            BundleError: too long, or not UTF-8.
        """
        if len(data) > limit:
            raise self.error(f"{what} of {len(data):,} bytes; at most {limit:,} are allowed")
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is not UTF-8") from error

    def integers(self, message: Message, name: str, limit: int) -> tuple[int, ...]:
        """The values of a repeated integer, packed or not, signed 64-bit; at most `limit` of them."""
        found: list[int] = []
        for value in message.values.get(name, ()):
            if isinstance(value, int):
                found.append(signed(value))
            else:
                position = 0
                while position < len(value) and len(found) <= limit:
                    integer, position = self._varint(value, position, name)
                    found.append(signed(integer))
            if len(found) > limit:
                raise self.error(f"more than {limit:,} numbers in {name}")
        return tuple(found)

    def _fields(self, data: memoryview, what: str) -> Iterator[tuple[int, int, int | memoryview]]:
        position = 0
        while position < len(data):
            self._left -= 1
            if self._left < 0:
                raise self.error(f"more than {MAX_FIELDS:,} fields")
            tag, position = self._varint(data, position, what)
            number, wire = tag >> 3, tag & 7
            if wire == Wire.VARINT:
                value, position = self._varint(data, position, what)
                yield number, wire, value
                continue
            size, position = self._size(data, position, wire, what)
            if size > len(data) - position:
                raise self.error(f"{what} ends in the middle of a field")
            yield number, wire, data[position : position + size]
            position += size

    def _size(self, data: memoryview, position: int, wire: int, what: str) -> tuple[int, int]:
        match wire:
            case Wire.BYTES:
                return self._varint(data, position, what)
            case Wire.FIXED32:
                return 4, position
            case Wire.FIXED64:
                return 8, position
            case _:
                raise self.error(f"{what} holds a field of wire type {wire}")

    def _varint(self, data: memoryview, position: int, what: str) -> tuple[int, int]:
        """An unsigned number and the position behind it."""
        value = 0
        for index, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
            value |= (byte & ~_MORE) << 7 * index
            if byte < _MORE:
                if value >= 2**64:
                    break
                return value, position + index + 1
        raise self.error(f"{what} holds a number that does not end or is too large")


def signed(value: int) -> int:
    """An unsigned 64-bit number as the signed one of the same bits."""
    return value - 2**64 if value >= 2**63 else value


def count_varints(data: memoryview) -> int:
    """How many numbers a packed field holds; a number ends with a byte without the "more" bit."""
    return len(bytes(data).translate(None, bytes(range(_MORE, 256))))
