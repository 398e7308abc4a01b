"""The operator's commands.

What a command needs is imported when it runs: `fedfleet --help` is quick.
"""
# ruff: noqa: PLC0415 (see above)

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from console.ca import ca_app
from console.data_commands import data_app
from console.device import add_agent_commands, device_app
from console.doctor_commands import add_doctor
from console.job_commands import add_job_commands
from console.main import AGENT_COMMANDS, run_program
from console.named_errors import named_errors

app = typer.Typer(
    help="Federated learning for IoT fleets over the MQTT broker they already have.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
plan_app = typer.Typer(help="Plans: what to train and how.", no_args_is_help=True)
app.add_typer(plan_app, name="plan")
access_app = typer.Typer(help="The broker's access rules for a fleet.", no_args_is_help=True)
app.add_typer(access_app, name="access")


class _AgentGroup(TyperGroup):
    """`fedfleet agent` with options, or with nothing, runs the agent."""

    # The context is click's, or that of typer's own copy of it.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args[:1] in AGENT_COMMANDS else ["run", *args])


agent_app = typer.Typer(
    cls=_AgentGroup,
    help="Trains on a device when it is free; --help tells its options. It also has the commands `join`, "
    "`csr` and `install`, to enrol the device, `install-service`, to start with it, and `ledger`, what "
    "training has cost its privacy.",
)
app.add_typer(agent_app, name="agent")
app.add_typer(ca_app, name="ca")
app.add_typer(data_app, name="data")
app.add_typer(device_app, name="device")
add_agent_commands(agent_app)
add_doctor(app)
add_job_commands(app)

# They read their own command line, the same one as `python -m coordinator`: it is told once.
_READS_ITSELF = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
OutputFile = Annotated[
    Path | None, typer.Option("--output", metavar="FILE", help="Where to write; else it is printed.")
]
ShardNames = Annotated[
    list[str] | None, typer.Option(help='A coordinator\'s `shard` setting, unless that is "main"; repeat it.')
]
FleetName = Annotated[str, typer.Option("--fleet", metavar="NAME", help="Name of the fleet.")]


@app.command(context_settings=_READS_ITSELF, add_help_option=False)
def registrar(context: typer.Context) -> None:
    """Issues devices' certificates, and takes them back; --help tells its options."""
    raise typer.Exit(run_program("registrar", context.args))


@app.command(context_settings=_READS_ITSELF, add_help_option=False)
def guard(context: typer.Context) -> None:
    """Has a broker turn away whom the registrar has taken back; --help tells its options."""
    raise typer.Exit(run_program("guard", context.args))


@app.command()
def demo(
    *,
    devices: Annotated[int, typer.Option(min=5, max=50, help="Agents to start.")] = 10,
    rounds: Annotated[int | None, typer.Option(min=1, help="Committed rounds; else the plan's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of first weights and choices.")] = 1,
    drop: Annotated[int, typer.Option(min=0, help="Agents to kill in the middle of a round.")] = 1,
    keep: Annotated[Path | None, typer.Option(help="Keep state, logs and data in this new folder.")] = None,
    json: AsJson = False,
) -> None:
    """A whole fleet on this machine: broker, coordinator and agents, on real sensor data."""
    from console.demo import run
    from console.demo_run import DemoOptions

    with named_errors():
        raise typer.Exit(run(DemoOptions(devices, rounds, seed, drop, keep), json=json))


@app.command()
def broker(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 1883,
    engine: Annotated[Literal["auto", "mosquitto", "nats"], typer.Option(help="Which program.")] = "auto",
    username: Annotated[str, typer.Option(help="The one login there is.")] = "fedfleet",
    password_file: Annotated[
        Path | None,
        typer.Option(help="Its password; made if the file is not there.", show_default="own state folder"),
    ] = None,
) -> None:
    """A broker for one desk, without encryption; for a fleet use your own."""
    from rich.console import Console

    from console.serve_broker import default_password_file, serve

    file = (password_file or default_password_file(os.environ, Path.home())).absolute()
    with named_errors():
        asyncio.run(
            serve(
                host=host, port=port, engine=engine, username=username, password_file=file, console=Console()
            )
        )


@app.command(context_settings=_READS_ITSELF, add_help_option=False)
def coordinator(context: typer.Context) -> None:
    """Runs the rounds of a fleet; --help tells its options."""
    raise typer.Exit(run_program("coordinator", context.args))


@agent_app.command("run", context_settings=_READS_ITSELF, add_help_option=False)
def run_agent(context: typer.Context) -> None:
    """The agent itself; `fedfleet agent` alone means this."""
    raise typer.Exit(run_program("agent", context.args))


@agent_app.command()
def ledger(
    *,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="The agent's settings, TOML.")] = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Or just its state folder.")] = None,
    json: AsJson = False,
) -> None:
    """What each round's noise has cost this device's privacy; the agent may be running."""
    import msgspec
    from rich.console import Console

    from console.ledger import read_settings, read_statement, summary, table

    with named_errors():
        made = read_statement(read_settings(config=config, state=state, environment=os.environ))
    if json:
        typer.echo(msgspec.json.encode(made))
        return
    if made.entries:
        typer.echo(made.file)
        Console().print(table(made))
    typer.echo(summary(made))


@agent_app.command("install-service")
def install_service(
    *,
    config: Annotated[Path, typer.Option(metavar="FILE", help="The agent's settings, TOML.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the unit.")] = Path(
        "/etc/systemd/system"
    ),
    memory_max: Annotated[
        str | None,
        typer.Option(help="Of agent and training together.", show_default="what training may have, and 256M"),
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Whom it runs as.", show_default="one that systemd makes up")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the unit, write nothing.")] = False,
) -> None:
    """A systemd unit that starts the agent with the device, watches it, and locks it in.

    The private key goes to /etc/fedfleet/keys, for root alone; with another --output you do that.
    """
    from console.service import UNIT_FOLDER, hand_over_key, plan_service, write_unit

    with named_errors():
        prefixes = (Path(sys.prefix), Path(sys.base_prefix))
        service = plan_service(config, Path(sys.executable), prefixes, memory_max, user)
        if dry_run:
            typer.echo(service.unit, nl=False)
            return
        typer.echo(f"written: {write_unit(service, output)}\nnext, as root:")
        if output == UNIT_FOLDER:
            hand_over_key(service)
    for command in service.next_steps:
        typer.echo(f"  {command}")


@app.command()
def health(
    folder: Annotated[
        Path | None,
        typer.Argument(help="The program's runtime folder.", show_default="environment: RUNTIME_DIRECTORY"),
    ] = None,
) -> None:
    """Whether the program of this container or service lives and is connected; exit code 0 says yes."""
    from console.health import health as answer

    raise typer.Exit(answer(folder))


@app.command()
def watch(
    *,
    broker: Annotated[list[str] | None, typer.Option(metavar="URL", help="mqtt://host:port.")] = None,
    fleet: Annotated[str | None, typer.Option(help="Name of the fleet.")] = None,
    username: Annotated[str | None, typer.Option(help="Password: FEDFLEET_BROKER__PASSWORD.")] = None,
    identity: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with a watcher's certificate, for mqtts://.")
    ] = None,
    json: AsJson = False,
) -> None:
    """The live view of any fleet, from its status topics alone."""
    from console.watch import read_settings, run

    with named_errors():
        settings = read_settings(
            fleet=fleet, urls=broker or (), username=username, identity=identity, environment=os.environ
        )
        run(settings, json=json)


@plan_app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The plan.")] = Path("plan.toml"),
    *,
    devices: Annotated[int | None, typer.Option(min=1, help="Devices on offer; else a full round's.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An agent's settings: whether its data fit.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Names every mistake with its fix, or tells what the plan means for a device.

    Exit code 0: all is well; 1: the model cannot train on the data; 2: something is wrong.
    """
    import msgspec
    from rich.console import Console

    from console.data_check import examined
    from console.data_check import table as table_of_data
    from console.plan_check import check_plan, rehearsed, table

    with named_errors():
        figures = rehearsed(file, check_plan(file, devices))
        found = None if data is None else examined(data, file)
    if json:
        extra = {} if found is None else {"schema": found.schema, "mismatches": found.mismatches}
        typer.echo(msgspec.json.encode({**msgspec.to_builtins(figures), **extra}))
    else:
        Console().print(table(file, figures))
        if found:
            Console().print(table_of_data(found.path, found.schema))
    for one in found.mismatches if found else ():
        typer.echo(f"{data}: {one}", err=True)
    raise typer.Exit(1 if found and found.mismatches else 0)


@plan_app.callback()
def _plan() -> None:
    """Keeps `check` a command of its own while it is the only one."""


@app.command()
def identities(
    folder: Annotated[Path, typer.Argument(help="New folder; one folder in it for each name.")],
    *,
    fleet: Annotated[str, typer.Option(help="Name of the fleet.")],
    device: Annotated[list[str] | None, typer.Option(help="Name of a device; repeat it.")] = None,
    devices: Annotated[int, typer.Option(min=0, help="Or so many, numbered.")] = 0,
    prefix: Annotated[str, typer.Option(help="Of the numbered ones.")] = "device-",
) -> None:
    """A development fleet on the fly: certificates and keys for a coordinator and devices.

    The root's private key is not kept, so nothing can be added later, and nothing can be revoked. For
    production: `fedfleet ca`, `fedfleet registrar`, `fedfleet device`.
    """
    from console.identities import device_names, make_fleet

    with named_errors():
        made = make_fleet(folder, fleet, [*(device or ()), *device_names(devices, prefix)])
    typer.echo(f"{len(made) - 1} devices and a coordinator of fleet {fleet}, for development only:")
    for place in made:
        typer.echo(f"  --identity {place}")


@access_app.command("mosquitto")
def access_mosquitto(
    *,
    fleet: FleetName,
    name: Annotated[list[str] | None, typer.Option(help='More watchers and so on: "watch-alice".')] = None,
    shard: ShardNames = None,
    output: OutputFile = None,
) -> None:
    """Rules for Mosquitto's acl_file; enrolling a device does not change them."""
    from broker.access import SHARDS
    from console.access import deliver, for_mosquitto

    with named_errors():
        deliver(for_mosquitto(fleet, name or (), shard or SHARDS), output)


@access_app.command("nats")
def access_nats(
    *,
    fleet: FleetName,
    name: Annotated[list[str] | None, typer.Option(help="Every client, devices too; repeat it.")] = None,
    generation: Annotated[int, typer.Option(min=0, help="Of the coordinator's certificate.")] = 0,
    shard: ShardNames = None,
    output: OutputFile = None,
) -> None:
    """Users of a NATS cluster (users.conf), the same for every node; made anew with every enrolment."""
    from broker.access import SHARDS
    from console.access import deliver, for_nats

    with named_errors():
        deliver(for_nats(fleet, name or (), generation, shard or SHARDS), output)


@access_app.command("nats-node")
def access_nats_node(
    name: Annotated[str, typer.Argument(help="Of the node, unique in the cluster.")],
    *,
    route: Annotated[list[str], typer.Option(metavar="HOST:PORT", help="Another node; repeat it.")],
    routes_listen: Annotated[str, typer.Option(metavar="ADDRESS:PORT", help="For the other nodes.")],
    listen: Annotated[str, typer.Option(metavar="ADDRESS:PORT", help="For clients.")] = "0.0.0.0:8883",
    output: OutputFile = None,
) -> None:
    """Configuration of one node of a NATS cluster; FEDFLEET_ROUTES_PASSWORD holds the nodes' password."""
    from console.access import deliver, for_nats_node

    with named_errors():
        deliver(for_nats_node(name, listen, routes_listen, route, os.environ), output, secret=True)
