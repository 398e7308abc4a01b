"""`fedfleet access`: the broker's access rules for a fleet."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from broker.access import mosquitto_rules
from protocol.errors import FedfleetError
from protocol.ids import NAME_PATTERN
from protocol.topics import Topics
from runtime.files import write_synced


class AccessError(FedfleetError):
    """The rules cannot be made as asked."""


def for_mosquitto(fleet: str, names: Sequence[str]) -> str:
    """What belongs into Mosquitto's `acl_file`.

    Raises:
        AccessError: the fleet or a name is none.
    """
    return mosquitto_rules(Topics(_name(fleet)), tuple(map(_name, names)))


def deliver(text: str, file: Path | None) -> None:
    """Write the text to a file, whole or not at all, or print it.

    Raises:
        AccessError: the file cannot be written.
    """
    if file is None:
        sys.stdout.write(text)
        return
    try:
        write_synced(file, text.encode())
    except OSError as error:
        raise AccessError(f"{file} cannot be written ({error.strerror}); its folder must exist") from error


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise AccessError(f'"{text}" is not a name; write 1 to 64 of a-z, 0-9, _ and -')
    return text
