"""Settings of a program: a TOML file, overruled by the environment, overruled by the command line.

The environment names a key in capitals with `__` between tables: `FEDFLEET_BROKER__URLS`, lists separated by
commas. A secret may be given as the path of a file that holds it: `FEDFLEET_BROKER__PASSWORD_FILE`.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from broker.address import AddressError, BrokerAddress
from protocol.errors import FedfleetError
from runtime.secret import SecretStr
from runtime.tables import Problem, TableError, build, decode_own_types, is_secret, is_table, keys_of, nearest

PREFIX = "FEDFLEET_"
CA_PREFIX = "FEDFLEET_CA_"
"""What the environment says to `fedfleet ca`, beside which programs are started, too."""

T = TypeVar("T", bound=Struct)

BrokerUrl = Annotated[
    str,
    Meta(
        # Without a login: settings are printed, and `username` and `password` keep the secret apart.
        pattern=r"^mqtts?://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$",
        description='an address such as "mqtt://broker.local:1883" or "mqtts://broker.local:8883", its login '
        "in username and password",
    ),
]


class BrokerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the broker.

    Attributes:
        urls: addresses, tried in order.
        username: for a broker that asks for one.
        password: for a broker that asks for one.
        authorities: PEM file of those who may vouch for a broker by TLS (`mqtts://`); None is the fleet's
            root alone.
        keepalive: seconds; a connection that died in silence is noticed within one and a half times as many.
    """

    urls: Annotated[tuple[BrokerUrl, ...], Meta(min_length=1)]
    username: str | None = None
    password: SecretStr | None = None
    authorities: Path | None = None
    keepalive: Annotated[int, Meta(ge=3, le=65_535)] = 30

    def __post_init__(self) -> None:
        if self.password is not None and self.username is None:
            raise ValueError("password is set without a username; write username too")
        try:
            _ = self.addresses
        except AddressError:
            raise ValueError("urls holds a port above 65535; write 1 to 65535") from None

    @property
    def addresses(self) -> tuple[BrokerAddress, ...]:
        """The brokers with the login, as the transport wants them."""
        password = None if self.password is None else self.password.reveal()
        return tuple(
            replace(BrokerAddress.parse(url), user=self.username, password=password) for url in self.urls
        )


class LogSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What is logged and how.

    Attributes:
        level: the least important kind that is written.
        format: "auto" is "console" on a terminal and "json" elsewhere.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class SettingsError(FedfleetError):
    """The settings are wrong; the message has one line for each mistake, with its source and fix."""


def load_settings(
    cls: type[T], *, file: Path | None, environment: Mapping[str, str], overrides: Mapping[str, object]
) -> T:
    """Merge the three sources, check the whole, and make the struct.

    A relative path in the file is relative to the file's folder; elsewhere, to the working directory.

    Args:
        cls: the program's settings.
        file: TOML, or None for none.
        environment: all of it; names that do not start with `FEDFLEET_`, or with `FEDFLEET_CA_`, are ignored.
        overrides: from the command line, by dotted key ("broker.urls"); None means not given.

    Raises:
        SettingsError: naming file, variable or option, the key, its value and the fix.
    """
    given: dict[str, _Given] = {}
    if file is not None:
        given |= _from_file(cls, file)
    given |= _from_environment(cls, environment)
    given |= {
        key: _Given(value, f"command line: {key}") for key, value in overrides.items() if value is not None
    }
    try:
        return build(cls, _nested(given), lambda key, value, wanted: _convert(given.get(key), value, wanted))
    except TableError as error:
        lines = [_located(problem, given, file) for problem in error.problems]
        raise SettingsError("\n".join(lines)) from None


@dataclass(frozen=True, slots=True)
class _Given:
    """A value and where it stands.

    Attributes:
        value: as it was read.
        source: for messages.
        folder: that a relative path starts from.
        text: whether it is a string that stands for the wanted type.
    """

    value: object
    source: str
    folder: Path = Path()
    text: bool = False


def _from_file(cls: type[Struct], file: Path) -> dict[str, _Given]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        text = f"{file}: cannot be read ({error.strerror}); give the path of a settings file"
        raise SettingsError(text) from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsError(f"{file}: is not TOML: {error}; correct it there") from error
    return {key: _Given(value, str(file), file.parent) for key, value in _leaves(cls, table)}


def _leaves(cls: Any, table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    tables = {name: wanted for name, wanted in keys_of(cls).items() if is_table(wanted)}
    for name, value in table.items():
        if name in tables and isinstance(value, Mapping):
            yield from _leaves(tables[name], value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _from_environment(cls: type[Struct], environment: Mapping[str, str]) -> dict[str, _Given]:
    known = dict(_keys(cls))
    names = {PREFIX + key.upper().replace(".", "__"): key for key in known}
    files = {f"{name}_FILE": key for name, key in names.items() if is_secret(known[key])}
    given: dict[str, _Given] = {}
    for name in sorted(filter(_is_ours, environment)):
        if name in names:
            given[names[name]] = _Given(environment[name], f"environment: {name}", text=True)
        elif name not in files:
            raise SettingsError(f"environment: {name} is not a setting; {nearest(name, [*names, *files])}")
        elif files[name] in given:
            raise SettingsError(
                f"environment: {name} and {name.removesuffix('_FILE')} are both set; unset one"
            )
        else:
            given[files[name]] = _Given(_secret_file(name, Path(environment[name])), f"environment: {name}")
    return given


def _is_ours(variable: str) -> bool:
    return variable.startswith(PREFIX) and not variable.startswith(CA_PREFIX)


def _secret_file(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        text = f"environment: {name} is {path}, which cannot be read ({error.strerror}); name a readable file"
        raise SettingsError(text) from error


def _keys(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, wanted in keys_of(cls).items():
        if is_table(wanted):
            yield from _keys(wanted, f"{prefix}{name}.")
        else:
            yield prefix + name, wanted


def _nested(given: Mapping[str, _Given]) -> dict[str, object]:
    root: dict[str, Any] = {}
    for key, one in given.items():
        *tables, name = key.split(".")
        table = root
        for part in tables:
            if not isinstance(table.get(part), dict):
                table[part] = {}  # a later source overrules a file that has no table here
            table = table[part]
        table[name] = one.value
    return root


def _convert(given: _Given | None, value: object, wanted: Any) -> Any:
    """A value whose source is known: text becomes what it stands for, a path starts from its folder."""
    given = given or _Given(value, "")
    if given.text and _is_list(wanted):
        value = tuple(part.strip() for part in str(value).split(",") if part.strip())
    made = msgspec.convert(value, wanted, strict=not given.text, dec_hook=decode_own_types)
    return given.folder / made if isinstance(made, Path) else made


def _is_list(wanted: Any) -> bool:
    inner = get_args(wanted)[0] if get_origin(wanted) is Annotated else wanted
    return get_origin(inner) is tuple


def _located(problem: Problem, given: Mapping[str, _Given], file: Path | None) -> str:
    one = given.get(problem.key)
    source = one.source if one else str(file or "settings")
    return f"{source}: {problem.text}"
