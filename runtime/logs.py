"""Logs: one event a line, JSON in containers, readable on a terminal, secrets hidden."""

import logging
import sys
from typing import TextIO

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from structlog.typing import EventDict, Processor, WrappedLogger

from runtime.config import LogSettings
from runtime.secret import SecretStr

HIDDEN = "(hidden)"

_SECRET_TYPES = (SecretStr, Ed25519PrivateKey, X25519PrivateKey)
_SECRET_WORDS = ("password", "secret", "token", "private", "seed", "share")


def configure(settings: LogSettings, stream: TextIO = sys.stderr) -> None:
    """Send structlog's and the standard library's records to one stream in one form.

    Args:
        settings: level and form; "auto" looks whether the stream is a terminal.
        stream: where the lines go.
    """
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderer(stream, console=console),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace every value that is a secret by its type, or that its name calls one."""
    return {key: HIDDEN if _is_secret(key, value) else value for key, value in event.items()}


def _is_secret(key: str, value: object) -> bool:
    # Counts may be logged ("shares": 9); text and bytes under such a name may not.
    named = isinstance(value, str | bytes | bytearray | memoryview) and any(
        word in key.lower() for word in _SECRET_WORDS
    )
    return named or isinstance(value, _SECRET_TYPES)


def _renderer(stream: TextIO, *, console: bool) -> list[Processor]:
    if console:
        return [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(),
                # The rich one prints local variables, among them shares and whatever else is secret.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=str),
    ]
