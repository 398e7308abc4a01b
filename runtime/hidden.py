"""Packages that are installed for other programs, kept out of one that has no use for them."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hidden(package: str) -> Iterator[None]:
    """Within it the package seems not to be installed, unless it is loaded already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # what the import system understands as absent
    try:
        yield
    finally:
        del sys.modules[package]
