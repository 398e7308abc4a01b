"""`fedfleet data …`: a device's own data.

What a command needs is imported when it runs: `fedfleet --help` is quick.
"""
# ruff: noqa: PLC0415 (see above)

import os
from pathlib import Path
from typing import Annotated

import typer

from console.named_errors import named_errors

data_app = typer.Typer(help="A device's data: what it would train on.", no_args_is_help=True)


@data_app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The agent's settings.")] = Path("agent.toml"),
    *,
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="Whose model shall read it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Reads all the data as training does, on this machine alone, and tells what is there.

    With --plan also whether the plan's model can train on it. Exit code 0: it can be used; 1: the model
    cannot train on it; 2: the settings, the data or the plan are wrong.
    """
    import msgspec
    from rich.console import Console

    from console.data_check import described, faults, table
    from device_agent.settings import AgentSettings
    from runtime.config import load_settings

    with named_errors():
        settings = load_settings(AgentSettings, file=file, environment=os.environ, overrides={})
        schema = described(settings.data, settings.training)
        found = [] if plan is None else faults(schema, plan)
    if json:
        typer.echo(msgspec.json.encode({"schema": schema, "mismatches": found}))
    else:
        Console().print(table(settings.data.path, schema))
    for one in found:
        typer.echo(f"{plan}: {one}", err=True)
    raise typer.Exit(1 if found else 0)


@data_app.callback()
def _data() -> None:
    """Keeps `check` a command of its own while it is the only one."""
