"""`fedfleet init` and `fedfleet try`.

What a command needs is imported when it runs: `fedfleet --help` is quick.
"""
# ruff: noqa: PLC0415 (see above)

from pathlib import Path
from typing import Annotated

import typer

from console.named_errors import named_errors


def add_job_commands(app: typer.Typer) -> None:
    """Give `fedfleet` these commands."""
    app.command("init")(init)
    app.command("try")(try_)


def init(folder: Annotated[Path, typer.Argument(help="New folder.")]) -> None:
    """A job of your own: plan, model and data that work as they stand, and are there to be changed."""
    from console.job import make_job

    with named_errors():
        made = make_job(folder)
    for file in made:
        typer.echo(f"  {file}")
    typer.echo(
        f"It works as it stands; its README.md says what to change. Now:\n  cd {folder}\n  fedfleet try"
    )


def try_(
    folder: Annotated[Path, typer.Argument(help="Of plan.toml and settings.toml.")] = Path(),
    *,
    devices: Annotated[
        int | None,
        typer.Option(min=3, max=50, help="Agents to start; else 5, or one for each file of --data."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With one file (or one folder) for each agent.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Runs a job on this machine: a broker, a coordinator and agents with your plan, model and data."""
    from console.job import try_job

    with named_errors():
        raise typer.Exit(try_job(folder, devices, data, json=json))
