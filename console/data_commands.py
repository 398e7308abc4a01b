"""`fedfleet data …`: a device's own data.

What a command needs is imported when it runs: `fedfleet --help` is quick.
"""
# ruff: noqa: PLC0415 (see above)

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

    from console.data_check import examined, table

    with named_errors():
        found = examined(file, plan)
    if json:
        typer.echo(msgspec.json.encode({"schema": found.schema, "mismatches": found.mismatches}))
    else:
        Console().print(table(found.path, found.schema))
    for one in found.mismatches:
        typer.echo(f"{plan}: {one}", err=True)
    raise typer.Exit(1 if found.mismatches else 0)


@data_app.callback()
def _data() -> None:
    """Keeps `check` a command of its own while it is the only one."""
