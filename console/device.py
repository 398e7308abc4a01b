"""`fedfleet device`, which goes by the registrar's store, and what `fedfleet agent` does to enrol."""
# ruff: noqa: PLC0415 (what a command needs is imported when it runs)

from pathlib import Path
from typing import Annotated

import typer

from console.ca import Identity, State, print_lines
from console.named_errors import named_errors

device_app = typer.Typer(
    help="Devices of the fleet: enrol, list, revoke. On the registrar's host.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Folder = Annotated[
    Path,
    typer.Option("--identity", metavar="DIR", envvar="FEDFLEET_IDENTITY", help="Of the device."),
]
DeviceName = Annotated[
    str | None, typer.Option(help="Of the device in the fleet.", show_default="the token's, or the host's")
]


@device_app.command()
def enroll(
    *,
    identity: Identity,
    state: State,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many tokens.")] = 1,
    name: Annotated[
        list[str] | None, typer.Option(help="A token for this name only; repeat it, instead of --count.")
    ] = None,
    lifetime: Annotated[
        int, typer.Option(min=10, max=30 * 86_400, help="Seconds for which a token can be used.")
    ] = 600,
) -> None:
    """Print one-time tokens, one a line; each enrols one device, and is a secret until it has."""
    from console.device_work import give_tokens

    with named_errors():
        for token in give_tokens(identity, state, count, name or [], lifetime):
            typer.echo(token)
    typer.echo(
        f"Each enrols one device within {lifetime} s, where it is asked for: fedfleet agent join mqtts://host:8883",
        err=True,
    )


@device_app.command("ls")
def list_devices(*, state: State, json: AsJson = False) -> None:
    """All devices: since when they are enrolled, until when, and whether they were revoked."""
    import msgspec
    from rich.console import Console

    from console.device_work import read_devices, table

    with named_errors():
        rows, tokens = read_devices(state)
    if json:
        for row in rows:
            typer.echo(msgspec.json.encode(row))
        return
    Console().print(table(rows))
    typer.echo(f"{tokens} tokens can still be used", err=True)


@device_app.command()
def show(
    name: Annotated[str, typer.Argument(help="Of the device.")], *, state: State, json: AsJson = False
) -> None:
    """One device in full; the newest of that name last."""
    import msgspec

    from console.device_work import find_devices, lines

    with named_errors():
        found = find_devices(state, name)
    for row in found:
        if json:
            typer.echo(msgspec.json.encode(row))
        else:
            print_lines(lines(row))


@device_app.command()
def revoke(
    name: Annotated[list[str], typer.Argument(help="Of the devices.")],
    *,
    state: State,
    reason: Annotated[str, typer.Option(help="For the record.")] = "",
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for the registrar.")] = 10.0,
) -> None:
    """Throw devices out: tells when everybody knows, and when their sessions have ended."""
    from console.device_work import revoke_devices

    with named_errors():
        done = revoke_devices(state, name, reason, wait, typer.echo)
    if not done:
        raise typer.Exit(1)


def add_agent_commands(app: typer.Typer) -> None:
    """To `fedfleet agent`."""
    app.command()(join)
    app.command()(csr)
    app.command()(install)


def join(
    broker: Annotated[str, typer.Argument(metavar="URL", help="mqtts://host:port.")],
    *,
    token: Annotated[
        str | None,
        typer.Option(
            help="From `fedfleet device enroll`. Other users see a command's options.",
            show_default="asked for, or a line of standard input",
        ),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File that holds it.")] = None,
    name: DeviceName = None,
    identity: Folder = Path("identity"),
    authorities: Annotated[
        Path | None, typer.Option(help="PEM file of who vouches for the broker; else the fleet's root.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds to try.")] = 60.0,
) -> None:
    """Enrol this device: makes its key here, and gets its certificate. Can be run again after any failure."""
    from console.join import JoinOptions, join_fleet, read_token

    options = JoinOptions(authorities, timeout)
    with named_errors():
        print_lines(join_fleet(broker, read_token(token, token_file), name, identity, options))


def csr(
    *,
    name: Annotated[str, typer.Option(help="Of the device in the fleet.")],
    identity: Folder = Path("identity"),
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Else <name>.csr.")] = None,
) -> None:
    """Enrol by hand, first step: makes the key here, and the request for `fedfleet ca sign`."""
    from console.join import write_csr_file

    with named_errors():
        print_lines(write_csr_file(name, identity, out or Path(f"{name}.csr")))


def install(
    file: Annotated[Path, typer.Argument(help="What `fedfleet ca sign` wrote.")],
    *,
    identity: Folder = Path("identity"),
) -> None:
    """Enrol by hand, last step: takes the certificate over."""
    from console.join import install_file

    with named_errors():
        print_lines(install_file(file, identity))
