"""`fedfleet doctor`: what a program would run with, examined.

What a command needs is imported when it runs: `fedfleet --help` is quick.
"""
# ruff: noqa: PLC0415 (see above)

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from console.named_errors import named_errors
from protocol.roles import Role
from runtime.command_line import Program
from runtime.watchdog import RUNTIME_FOLDER

# The options of the program itself go through to it.
_PASSES_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}

ProgramName = Literal["agent", "coordinator", "registrar"]


def add_doctor(app: typer.Typer) -> None:
    """Give `fedfleet` this command."""
    app.command(context_settings=_PASSES_OPTIONS)(doctor)


def doctor(
    context: typer.Context,
    program: Annotated[ProgramName, typer.Argument(help="Which program would run here.")],
    *,
    production: Annotated[
        bool, typer.Option("--production", help="Ask more, and be content with less of what is risky.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    takeover: Annotated[
        bool,
        typer.Option(
            "--takeover", help="Push a running program off the broker for a moment; its will is said."
        ),
    ] = False,
    mosquitto_conf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The broker's settings, where it runs on this machine."),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the program writes its heartbeat.",
            show_default="environment: RUNTIME_DIRECTORY, else below /run",
        ),
    ] = None,
) -> None:
    """Examines what a program would run with, and names the fix of whatever is wrong.

    It takes --config and every other option of the program, and reads the same environment. What it tries at
    the broker disturbs nobody else; it connects under the program's own name, though, of which there is one.
    Exit code 0: no failure; 1: a failure; 2: it cannot be examined.
    """
    from rich.console import Console

    from console.doctor.examination import Examination, this_machine
    from console.doctor.report import exit_code, json_lines, show
    from console.doctor.running import examine, program_runs
    from runtime.clock import SystemClock
    from runtime.entropy import SystemEntropy

    role, of = _program(program)
    with named_errors():
        settings = of.read(context.args, f"fedfleet doctor {program}")
    clock = SystemClock()
    examination = Examination(
        role, settings, clock, SystemEntropy(), this_machine(), os.environ, production, mosquitto_conf
    )
    runs = program_runs(runtime or _runtime_folder(program), clock)
    found = examine(examination, program_runs=runs, takeover=takeover)
    if json:
        sys.stdout.write(json_lines(found))
    else:
        show(found, Console())
    raise typer.Exit(exit_code(found))


def _program(name: ProgramName) -> tuple[Role, Program[Any]]:
    match name:
        case "coordinator":
            from coordinator.__main__ import PROGRAM as COORDINATOR

            return Role.COORDINATOR, COORDINATOR
        case "registrar":
            from registrar.__main__ import PROGRAM as REGISTRAR

            return Role.REGISTRAR, REGISTRAR
        case "agent":
            from device_agent.__main__ import PROGRAM as AGENT

            return Role.DEVICE, AGENT


def _runtime_folder(program: ProgramName) -> Path:
    return Path(os.environ.get(RUNTIME_FOLDER, f"/run/fedfleet-{program}"))
