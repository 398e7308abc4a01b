"""The programs' logs: nobody reads them here, but a bug that only they tell of must be seen."""

from typing import Any

FAILED: list[str] = []
"""What the programs logged as errors with an exception."""


class Silent:
    """Takes the place of structlog's loggers."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def bind(self, **_: object) -> "Silent":
        """The same."""
        return self

    def new(self, **_: object) -> "Silent":
        """The same."""
        return self

    def info(self, *_: object, **__: object) -> None:
        """Nobody reads it."""

    debug = warning = info

    def error(self, event: str, *, exc_info: Any = None, **_: object) -> None:
        """Kept if an exception stands behind it."""
        if exc_info is not None:
            FAILED.append(f"{event}: {exc_info!r}")
