"""`fedfleet ca`: the fleet's root, which is taken out for these commands only."""
# ruff: noqa: PLC0415 (what a command needs is imported when it runs)

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from console.named_errors import named_errors

ca_app = typer.Typer(
    help="The fleet's root: makes the fleet, and the certificates of whoever is no device.",
    no_args_is_help=True,
)


class Issuable(StrEnum):
    """Whom the root makes identities for by command."""

    COORDINATOR = "coordinator"
    BROKER = "broker"
    WATCH = "watch"
    GUARD = "guard"
    REGISTRAR = "registrar"


CaFolder = Annotated[
    Path, typer.Option("--ca", metavar="DIR", help="Folder that `ca init` made, or the one with root/ in it.")
]
Days = Annotated[int, typer.Option("--days", min=1, max=7300, help="How long the certificate is good.")]
Identity = Annotated[
    Path,
    typer.Option("--identity", metavar="DIR", envvar="FEDFLEET_IDENTITY", help="The registrar's identity."),
]
State = Annotated[
    Path,
    typer.Option("--state", metavar="DIR", envvar="FEDFLEET_STATE", help="The registrar's state folder."),
]


@ca_app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder: root/ and registrar/ in it.")],
    *,
    fleet: Annotated[str, typer.Option(help="Name of the fleet.")],
    broker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="Name or address under which the broker is reached; repeat it. Also makes a server's "
            "identities, in fleet/, and a watcher's.",
        ),
    ] = None,
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Keep its key plain.")] = False,
) -> None:
    """Make a fleet: its root, which you then keep offline, and the identity of its registrar."""
    from console.ca_work import make_fleet
    from console.passphrase import ask_passphrase

    with named_errors():
        passphrase = None if no_passphrase else ask_passphrase(new=True)
        print_lines(make_fleet(folder, fleet, passphrase, broker or ()))


@ca_app.command()
def issue(
    role: Annotated[Issuable, typer.Argument(help="What the holder may do.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Identity folder to write.")],
    name: Annotated[str | None, typer.Option(help="The role's word, alone or with -… behind it.")] = None,
    san: Annotated[
        list[str] | None, typer.Option(help="Name or address under which the broker is reached; repeat it.")
    ] = None,
    ca: CaFolder = Path(),
    days: Days = 365,
) -> None:
    """Make an identity for a coordinator, broker, watcher, guard or another registrar; needs the root.

    A broker's folder also gets its access rules and its first revocation list: all that mosquitto.conf
    names.
    """
    from console.ca_work import issue_identity

    with named_errors():
        print_lines(issue_identity(ca, role, name or role, out, addresses=san or (), days=days))


@ca_app.command()
def show(
    *,
    ca: CaFolder = Path(),
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Every certificate of the root: role, dates, fingerprint; warns of those that expire."""
    import msgspec
    from rich.console import Console

    from console.ca_work import read_rows, table

    with named_errors():
        rows = read_rows(ca)
    if json:
        for row in rows:
            typer.echo(msgspec.json.encode(row))
        return
    Console().print(table(rows))
    for row in rows:
        if row.warning:
            typer.echo(f"{row.name}: {row.warning}", err=True)


@ca_app.command()
def renew(
    name: Annotated[list[str], typer.Argument(help="Whose certificate; the key stays.")],
    *,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write <name>.crt here, not where it was issued to.")
    ] = None,
    ca: CaFolder = Path(),
    days: Annotated[int | None, typer.Option(min=1, max=7300, help="Else as long as the old one.")] = None,
) -> None:
    """Sign certificates anew with new dates; needs the root."""
    from console.ca_work import renew_certificates

    with named_errors():
        print_lines(renew_certificates(ca, name, out, days))


@ca_app.command()
def revoke(
    name: Annotated[list[str], typer.Argument(help="Whose certificate, of those that the root issued.")],
    *,
    ca: CaFolder = Path(),
) -> None:
    """Take back what the root has issued (devices: `fedfleet device revoke`); needs the root."""
    from console.ca_work import revoke_certificates

    with named_errors():
        print_lines(revoke_certificates(ca, name))


@ca_app.command()
def sign(
    csr: Annotated[Path, typer.Argument(help="What `fedfleet agent csr` wrote on the device.")],
    *,
    identity: Identity,
    state: State,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Else <name>.enrolled.")] = None,
) -> None:
    """Enrol a device by hand, with the registrar's key: for devices that cannot be reached."""
    from console.device_work import sign_csr

    with named_errors():
        print_lines(sign_csr(csr, identity, state, out))


def print_lines(lines: list[str]) -> None:
    """To standard output."""
    for line in lines:
        typer.echo(line)
