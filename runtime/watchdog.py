"""Says that a program lives, to whoever started it: systemd by its socket, a container engine by a file.

Both are told from the event loop, every few seconds: a loop that is blocked falls silent, and so does a
program that hangs. A lost connection is told too, but is no silence: starting anew brings no network back.

- systemd: the datagrams of sd_notify(3), when `NOTIFY_SOCKET` names a socket (`Type=notify`, `WatchdogSec=`).
- containers: the file `heartbeat` in the folder `RUNTIME_DIRECTORY`, read by `fedfleet health`. It belongs on
  a tmpfs: it is written every ten seconds, and means nothing after a restart of the machine.

A program that was started by hand has neither variable, and tells nobody.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from broker.transport import ConnectionListener
from protocol.errors import FedfleetError
from protocol.ids import Seconds
from runtime.clock import Clock, happens
from runtime.files import write_synced

BEAT = 10.0
"""Seconds between heartbeats; less when systemd wants to hear of us more often."""

STALE = 45.0
"""Seconds after which a heartbeat is an old one: four were missed, which no honest load does to the loop."""

RUNTIME_FOLDER = "RUNTIME_DIRECTORY"
"""Environment: set by systemd's `RuntimeDirectory=` and by our images."""

_NOTIFY_SOCKET = "NOTIFY_SOCKET"
_WATCHDOG_MICROSECONDS = "WATCHDOG_USEC"
_FILE = "heartbeat"


class UnhealthyError(FedfleetError):
    """The program is not alive, or does not reach the broker; the message says which."""


class Heartbeat(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file, as JSON.

    Attributes:
        at: monotonic time, which on Linux is one clock for all processes since the machine started.
        connected: whether the program has a connection to the broker.
    """

    at: Seconds
    connected: bool


class Line(Protocol):
    """What is watched of a transport."""

    @property
    def connected(self) -> bool:
        """See `Transport.connected`."""

    def on_connection(self, listener: ConnectionListener) -> None:
        """See `Transport.on_connection`."""


_Listener = Callable[[Heartbeat], None]


@contextlib.asynccontextmanager
async def watched(line: Line, clock: Clock, environment: Mapping[str, str]) -> AsyncIterator[None]:
    """While inside, the program is ready and says so again and again, and when a connection comes or goes.

    Args:
        line: the connection to the broker.
        clock: times the heartbeats.
        environment: says who listens.
    """
    listeners = _listeners(environment)
    if not listeners:
        yield
        return
    beating = asyncio.create_task(_beat(listeners, line, clock, _interval(environment)))
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        _notify(environment.get(_NOTIFY_SOCKET), "STOPPING=1")


def _listeners(environment: Mapping[str, str]) -> list[_Listener]:
    listeners: list[_Listener] = []
    if address := environment.get(_NOTIFY_SOCKET):
        listeners.append(lambda beat: _notify(address, "READY=1", "WATCHDOG=1", f"STATUS={_words(beat)}"))
    if folder := environment.get(RUNTIME_FOLDER):
        listeners.append(lambda beat: _write(Path(folder), beat))
    return listeners


def _interval(environment: Mapping[str, str]) -> float:
    """sd_watchdog_enabled(3) asks for a sign of life every half of the time that systemd waits."""
    microseconds = environment.get(_WATCHDOG_MICROSECONDS, "")
    return min(BEAT, int(microseconds) / 2e6) if microseconds.isdecimal() else BEAT


async def _beat(listeners: list[_Listener], line: Line, clock: Clock, interval: float) -> None:
    changed = asyncio.Event()
    line.on_connection(lambda _: changed.set())
    while True:
        changed.clear()
        beat = Heartbeat(clock.now(), line.connected)
        for listener in listeners:
            listener(beat)
        await happens(changed, interval, clock)


def _words(beat: Heartbeat) -> str:
    return "connected to the broker" if beat.connected else "not connected to the broker; trying again"


def _notify(address: str | None, *lines: str) -> None:
    if not address:
        return
    # A name that begins with @ stands for one in the abstract namespace, unix(7).
    path = "\0" + address[1:] if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),  # who does not listen ends us, or does not care; both are its business
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending,
    ):
        sending.settimeout(0)  # never makes the loop wait
        sending.sendto("\n".join(lines).encode(), path)


def _write(folder: Path, beat: Heartbeat) -> None:
    with contextlib.suppress(OSError):  # the file then grows old, and says so itself
        write_synced(folder / _FILE, msgspec.json.encode(beat))


def check_health(folder: Path, clock: Clock) -> None:
    """Whether the program that writes its heartbeat into `folder` lives and is connected.

    Raises:
        UnhealthyError: it is not.
    """
    try:
        beat = msgspec.json.decode((folder / _FILE).read_bytes(), type=Heartbeat)
    except (OSError, msgspec.MsgspecError) as error:
        raise UnhealthyError(f"{folder / _FILE}: no heartbeat; the program has not started") from error
    age = clock.now() - beat.at
    # A negative age: the machine has started anew since, and the folder outlived that.
    if not 0 <= age <= STALE:
        raise UnhealthyError(f"{folder / _FILE}: the last heartbeat is old; the program has ended or hangs")
    if not beat.connected:
        raise UnhealthyError("not connected to the broker; its log says why")


def runtime_folder(environment: Mapping[str, str]) -> Path:
    """The folder of the heartbeat, as the environment says.

    Raises:
        UnhealthyError: it does not say.
    """
    folder = environment.get(RUNTIME_FOLDER)
    if not folder:
        raise UnhealthyError(
            f"{RUNTIME_FOLDER} is not set; name the program's runtime folder, for instance "
            "`fedfleet health /run/fedfleet-agent`"
        )
    return Path(folder)
