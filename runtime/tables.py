"""Tables of a TOML file into typed structs, with every mistake found in one go and its fix beside it."""

import difflib
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args

import msgspec
from msgspec import inspect
from msgspec.structs import FieldInfo, fields

from runtime.secret import SecretStr

T = TypeVar("T", bound=msgspec.Struct)
Convert = Callable[[str, object, Any], Any]
"""Makes the value of a dotted key the given type, or raises ValueError (msgspec.ValidationError is one)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    Attributes:
        key: dotted, as in `training.local_epochs`; empty for the whole file.
        text: what is wrong and what to write instead.
    """

    key: str
    text: str


class TableError(ValueError):
    """The tables do not make the struct."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.text for problem in problems))
        self.problems = problems


def convert(_key: str, value: object, wanted: Any) -> Any:
    """The plain conversion: nothing but what TOML itself says."""
    return msgspec.convert(value, wanted, dec_hook=decode_own_types)


def decode_own_types(wanted: type, value: object) -> object:
    """Types of settings that TOML has no word for; both are written as strings."""
    if isinstance(value, wanted):
        return value
    if wanted in (Path, SecretStr) and isinstance(value, str):
        return wanted(value)
    raise ValueError(f"expected a string, not {type(value).__name__}")


def build(cls: type[T], table: Mapping[str, object], convert: Convert = convert) -> T:
    """Check a whole tree of tables and make the struct.

    Raises:
        TableError: with every problem that was found.
    """
    reader = _Reader(convert)
    made = reader.read(cls, table, "")
    if made is None:
        raise TableError(reader.problems)
    return made


def tables_of(wanted: Any) -> tuple[type[msgspec.Struct], ...]:
    """The structs that a field's table may make: one, or several that a key (msgspec's tag) tells apart."""
    kinds = get_args(wanted) if isinstance(wanted, UnionType) else (wanted,)
    tables = all(isinstance(one, type) and issubclass(one, msgspec.Struct) for one in kinds)
    return kinds if tables else ()


def is_table(wanted: Any) -> bool:
    """Whether a field's type is a table of its own."""
    return bool(tables_of(wanted))


def keys_of(wanted: Any) -> dict[str, Any]:
    """Every key that a table may have, and its type; where kinds differ in it, that of one of them."""
    kinds = tables_of(wanted)
    tag: dict[str, Any] = {_tag_key(kinds[0]): str} if len(kinds) > 1 else {}
    return tag | {one.name: one.type for kind in kinds for one in fields(kind)}


def is_secret(wanted: Any) -> bool:
    """Whether a field holds a secret, optional or not."""
    return wanted is SecretStr or SecretStr in get_args(wanted)


def nearest(name: str, known: list[str]) -> str:
    """A hint for a name that does not exist."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"


def describe(kind: inspect.Type) -> str:
    """In words, what may be written where this type is wanted."""
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            text = str((extra or {}).get("description") or describe(inner))
        case inspect.UnionType(types=types) if all(isinstance(one, inspect.StructType) for one in types):
            tags = ", ".join(show(one.tag) for one in types if isinstance(one, inspect.StructType))
            text = f"a table whose key {getattr(types[0], 'tag_field', '')} is one of {tags}"
        case inspect.UnionType(types=types):
            text = " or ".join(describe(one) for one in types if not isinstance(one, inspect.NoneType))
        case inspect.VarTupleType(item_type=item):
            text = f"a list, each {describe(item)}"
        case inspect.DictType(value_type=item):
            text = f"a table, each value {describe(item)}"
        case inspect.StructType(cls=struct):
            text = "a table with the keys " + ", ".join(one.name for one in fields(struct))
        case _:
            text = _scalar(kind)
    return text


def _tag_key(kind: type[msgspec.Struct]) -> str:
    return str(kind.__struct_config__.tag_field)


def _tag(kind: type[msgspec.Struct]) -> object:
    return kind.__struct_config__.tag


def _scalar(kind: inspect.Type) -> str:
    match kind:
        case inspect.BoolType():
            text = "true or false"
        case inspect.IntType():
            text = "a whole number" + _range(kind)
        case inspect.FloatType():
            text = "a number" + _range(kind)
        case inspect.LiteralType(values=values):
            text = "one of " + ", ".join(show(value) for value in values)
        case inspect.StrType(pattern=str(pattern)):
            text = f"text matching {pattern}"
        case _:
            text = "text"
    return text


def show(value: object) -> str:
    """A value as TOML writes it, near enough to be recognised; cut at 80 characters, URLs' logins hidden."""
    text = repr(value)
    if isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, bool):
        text = "true" if value else "false"
    return textwrap.shorten(re.sub(r"//[^/]*@", "//(hidden)@", text), 80, placeholder="…")


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = [
        f"{word} {getattr(kind, name)}" for name, word in words.items() if getattr(kind, name) is not None
    ]
    return f" {' and '.join(limits)}" if limits else ""


@dataclass(slots=True)
class _Reader:
    convert: Convert
    problems: list[Problem] = field(default_factory=list)

    def read(
        self, cls: type[T], table: Mapping[str, object], prefix: str, told: Mapping[str, object] | None = None
    ) -> T | None:
        """One table; `told` is the key, with its value, that chose `cls` among several."""
        known = {one.name: one for one in fields(cls)}
        before = len(self.problems)
        where = "".join(f" where {prefix}{key} is {show(value)}" for key, value in (told or {}).items())
        for name in table.keys() - known.keys() - (told or {}).keys():
            text = f"{prefix + name} is not a key{where}; {nearest(name, list(known))}"
            self._complain(prefix + name, text)
        values: dict[str, Any] = {}
        for name, one in known.items():
            if name in table:
                values[name] = self._value(one, table[name], prefix + name)
            elif one.required and is_table(one.type):
                values[name] = self._table(one.type, {}, f"{prefix}{name}.")
            elif one.required:
                self._complain(prefix + name, f"{prefix + name} is missing; write {_wanted(one)}")
        if len(self.problems) > before:
            return None
        return self._make(cls, values, prefix)

    def _make(self, cls: type[T], values: dict[str, Any], prefix: str) -> T | None:
        try:
            return cls(**values)
        except ValueError as error:  # a struct's own rule about several of its keys
            key = prefix.rstrip(".")
            self._complain(key, f"{key}: {error}" if key else str(error))
            return None

    def _table(self, wanted: Any, table: Mapping[str, object], prefix: str) -> Any:
        """The kind of table that its key tells; without the key, the first."""
        kinds = tables_of(wanted)
        if len(kinds) == 1:
            return self.read(kinds[0], table, prefix)
        key = _tag_key(kinds[0])
        tags = {_tag(kind): kind for kind in kinds}
        tag = table.get(key, _tag(kinds[0]))
        if not isinstance(tag, str) or tag not in tags:
            choice = ", ".join(show(one) for one in tags)
            self._complain(prefix + key, f"{prefix}{key} is {show(tag)}; write one of {choice}")
            return None
        return self.read(tags[tag], table, prefix, {key: tag})

    def _value(self, one: FieldInfo, value: object, key: str) -> Any:
        if is_table(one.type) and isinstance(value, Mapping):
            return self._table(one.type, value, key + ".")
        try:
            return self.convert(key, value, one.type)
        except ValueError:
            shown = "a hidden value" if is_secret(one.type) else show(value)
            self._complain(key, f"{key} is {shown}; write {_wanted(one)}")
            return None

    def _complain(self, key: str, text: str) -> None:
        self.problems.append(Problem(key, text))


def _wanted(one: FieldInfo) -> str:
    plain = isinstance(one.default, str | int | float | bool)
    default = f" (default {show(one.default)})" if plain else ""
    return describe(inspect.type_info(one.type)) + default
