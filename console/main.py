"""The entry of the command `fedfleet`.

The two programs that run for long do not pass through the operator's commands: an agent on a small device
loads no terminal library, and its command line is the same one as that of `python -m device_agent`.
"""
# ruff: noqa: PLC0415 (what a command does not need is not imported)

import sys
from collections.abc import Sequence


def main() -> None:
    """Run the command line."""
    match sys.argv[1:]:
        case ["coordinator" | "agent" as name, *arguments] if arguments[:1] != ["ledger"]:
            sys.exit(run_program(name, arguments))
        case _:
            from console.commands import app

            app()


def run_program(name: str, arguments: Sequence[str]) -> int:
    """Run `fedfleet coordinator` or `fedfleet agent`; returns its exit code."""
    if name == "coordinator":
        from coordinator.__main__ import PROGRAM as COORDINATOR

        return COORDINATOR.main(arguments, "fedfleet coordinator")
    from device_agent.__main__ import PROGRAM as AGENT

    return AGENT.main(arguments, "fedfleet agent")
