"""How a command tells what went wrong."""

import contextlib
import sys
from collections.abc import Iterator

import typer

from protocol.errors import FedfleetError
from runtime.command_line import EXIT_WRONG


@contextlib.contextmanager
def named_errors() -> Iterator[None]:
    """What has a name is told in a line; only bugs show where they happened."""
    try:
        yield
    except FedfleetError as error:
        sys.stderr.write(f"fedfleet: {error}\n")
        raise typer.Exit(EXIT_WRONG) from None
