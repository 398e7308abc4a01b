"""The entry of the command `fedfleet`.

The programs that run for long do not pass through the operator's commands: an agent on a small device
loads no terminal library, and its command line is the same one as that of `python -m device_agent`. Nor does
the question whether they live: a container engine asks it again and again.
"""
# ruff: noqa: PLC0415 (what a command does not need is not imported)

import sys
from collections.abc import Sequence

AGENT_COMMANDS = (["ledger"], ["join"], ["csr"], ["install"], ["install-service"])
"""What `fedfleet agent` does besides running the agent."""


def main() -> None:
    """Run the command line."""
    match sys.argv[1:]:
        case ["health"]:
            from console.health import health

            sys.exit(health())
        case ["coordinator" | "agent" | "registrar" | "guard" as name, *arguments] if (
            arguments[:1] not in AGENT_COMMANDS
        ):
            sys.exit(run_program(name, arguments))
        case _:
            _run_command()


def _run_command() -> None:
    try:
        from console.commands import app
    except ModuleNotFoundError as error:
        if error.name not in {"rich", "typer"}:
            raise
        sys.exit(
            f"fedfleet: {error.name} is not here: a bare installation knows `fedfleet agent` and `health`"
        )
    app()


def run_program(name: str, arguments: Sequence[str]) -> int:
    """Run `fedfleet coordinator`, `agent`, `registrar` or `guard`; returns its exit code."""
    called = f"fedfleet {name}"
    match name:
        case "coordinator":
            from coordinator.__main__ import PROGRAM as COORDINATOR

            return COORDINATOR.main(arguments, called)
        case "registrar":
            from registrar.__main__ import PROGRAM as REGISTRAR

            return REGISTRAR.main(arguments, called)
        case "guard":
            from registrar.guard import PROGRAM as GUARD

            return GUARD.main(arguments, called)
        case _:
            from device_agent.__main__ import PROGRAM as AGENT

            return AGENT.main(arguments, called)
