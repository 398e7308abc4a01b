"""`fedfleet watch`: a fleet on the screen, from its status topics alone."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct
from rich.console import Console

from console.fleet_view import FleetView
from console.outputs import REFRESH_SECONDS, Output, choose
from console.watching import listening, watching_transport
from protocol.ids import Name
from runtime.config import BrokerSettings, load_settings
from runtime.identity import load_identity
from runtime.signals import stop_event

_OURS = ("FEDFLEET_FLEET", "FEDFLEET_BROKER__")


class WatchSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What a watcher is told.

    Attributes:
        fleet: name of the fleet.
        broker: how to reach the broker.
        identity: folder with a watcher's certificate and key, for a broker that wants one.
    """

    fleet: Name
    broker: BrokerSettings
    identity: Path | None = None


def read_settings(
    *,
    fleet: str | None,
    urls: Sequence[str],
    username: str | None,
    environment: Mapping[str, str],
    identity: Path | None = None,
) -> WatchSettings:
    """Command line over environment; what the environment says to other programs is left alone.

    Raises:
        SettingsError: see `load_settings`.
    """
    ours = {name: value for name, value in environment.items() if name.startswith(_OURS)}
    overrides = {
        "fleet": fleet,
        "broker.urls": urls or None,
        "broker.username": username,
        "identity": identity,
    }
    return load_settings(WatchSettings, file=None, environment=ours, overrides=overrides)


def run(settings: WatchSettings, *, json: bool) -> None:
    """Watch until SIGINT or SIGTERM.

    Raises:
        FedfleetError: the identity cannot be used, or the broker refuses this client.
    """
    view = FleetView()
    title = f"fleet {settings.fleet} at {urlsplit(settings.broker.urls[0]).netloc}"
    with choose(Console(), view, title, json=json) as output:
        asyncio.run(_watch(settings, view, output))


async def _watch(settings: WatchSettings, view: FleetView, output: Output) -> None:
    stop = stop_event()
    identity = load_identity(settings.identity) if settings.identity else None
    async with listening(watching_transport(settings.broker, identity), settings.fleet, view, output.news):
        while not stop.is_set():
            output.refresh()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), REFRESH_SECONDS)
