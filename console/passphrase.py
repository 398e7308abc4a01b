"""Asking for the passphrase of the fleet's root: never an argument, never printed."""

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from protocol.errors import FedfleetError

VARIABLE = "FEDFLEET_CA_PASSPHRASE"
_MIN_LENGTH = 8


class PassphraseError(FedfleetError):
    """There is no usable passphrase; the message says the fix."""


def ask_passphrase(*, new: bool, environment: Mapping[str, str] = os.environ) -> bytes:
    """From the environment (the variable, or the file that its `_FILE` names), else from the terminal.

    Args:
        new: it is chosen now: on a terminal it is asked for twice.
        environment: all of it.

    Raises:
        PassphraseError: there is none, it is too short, or the two differ.
    """
    given = _from_environment(environment)
    if given is None:
        given = _from_terminal(new=new)
    if new and len(given) < _MIN_LENGTH:
        raise PassphraseError(f"the passphrase is shorter than {_MIN_LENGTH} characters; choose a longer one")
    return given.encode()


def _from_environment(environment: Mapping[str, str]) -> str | None:
    if (file := environment.get(f"{VARIABLE}_FILE")) is None:
        return environment.get(VARIABLE)
    try:
        return Path(file).read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise PassphraseError(f"{VARIABLE}_FILE cannot be read; name a readable text file") from error


def _from_terminal(*, new: bool) -> str:
    if not sys.stdin.isatty():
        raise PassphraseError(
            f"the root's key needs a passphrase, and this is no terminal to ask on; set {VARIABLE}_FILE to a "
            "file that holds it, or make a root without one by --no-passphrase"
        )
    first = getpass.getpass("Passphrase of the fleet's root: ")
    if new and getpass.getpass("The same again: ") != first:
        raise PassphraseError("the two passphrases differ; start again")
    return first
