"""The command line of a program that runs for long: each option names the setting it overrules.

Arguments are read without other packages than the standard library's, so that a device needs none for it.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from msgspec import Struct

from protocol.errors import FedfleetError
from runtime.config import load_settings

EXIT_OK = 0
EXIT_WRONG = 2
"""Something that has a name is wrong (settings, identity, broker), and standard error says what."""

T = TypeVar("T", bound=Struct)


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        flag: as it is typed.
        key: dotted, of the setting it overrules.
        help: one line.
        metavar: what to write behind it.
        read: makes the value of the text.
        repeated: whether it may be given more than once, for a list.
    """

    flag: str
    key: str
    help: str
    metavar: str = "TEXT"
    read: Callable[[str], object] = str
    repeated: bool = False


COMMON = (
    Option("--fleet", "fleet", "name of the fleet", "NAME"),
    Option("--broker", "broker.urls", "mqtt://host:port; more are tried in order", "URL", repeated=True),
    Option("--username", "broker.username", "at the broker; its password is in FEDFLEET_BROKER__PASSWORD"),
    Option("--identity", "identity", "folder with the fleet's root, the certificate and the key", "DIR"),
    Option("--name", "name", "which identity of the folder, when it holds several", "NAME"),
    Option("--state", "state", "folder for what must survive a restart", "DIR"),
    Option("--log-level", "log.level", "debug, info, warning or error", "LEVEL"),
    Option("--log-format", "log.format", "auto, json or console", "FORMAT"),
)
"""What every program of a fleet is told."""


@dataclass(frozen=True, slots=True)
class Program(Generic[T]):
    """A program: its settings, its options, and what it does.

    Attributes:
        purpose: one line for `--help`.
        settings: type of its settings.
        options: of the command line.
        serve: runs until it is done or told to stop.
    """

    purpose: str
    settings: type[T]
    options: tuple[Option, ...]
    serve: Callable[[T], Coroutine[Any, Any, None]]

    def main(self, arguments: Sequence[str], name: str) -> int:
        """Run it.

        Args:
            arguments: of the command line, without the program's name.
            name: of the program, for `--help`.

        Returns:
            `EXIT_OK`, or `EXIT_WRONG` after an error that has a name; one without is a bug and is raised.
        """
        try:
            asyncio.run(self.serve(self.read(arguments, name)))
        except FedfleetError as error:
            sys.stderr.write(f"{name}: {error}\n")
            return EXIT_WRONG
        return EXIT_OK

    def read(self, arguments: Sequence[str], name: str) -> T:
        """The settings: `--config FILE` < environment < options.

        Raises:
            SettingsError: see `load_settings`.
            SystemExit: `--help`, or an option that does not exist.
        """
        given = self._parser(name).parse_args(arguments)
        overrides = {option.key: getattr(given, option.key) for option in self.options}
        return load_settings(self.settings, file=given.config, environment=os.environ, overrides=overrides)

    def _parser(self, name: str) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=name,
            description=self.purpose,
            epilog="Each option overrules the environment (FEDFLEET_…), which overrules the file.",
            allow_abbrev=False,
        )
        parser.add_argument("--config", type=Path, metavar="FILE", help="settings, TOML")
        for option in self.options:
            parser.add_argument(
                option.flag,
                dest=option.key,
                type=option.read,
                metavar=option.metavar,
                help=f"{option.help} [{option.key}]",
                action="append" if option.repeated else "store",
            )
        return parser
