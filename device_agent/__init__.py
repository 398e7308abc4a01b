"""The agent program: offers a device, trains on it, sends masked updates."""

from runtime.hidden import hidden

# structlog would load rich, 4 MB, to print tracebacks with the values of variables, which we never want.
with hidden("rich"):
    import structlog  # noqa: F401
