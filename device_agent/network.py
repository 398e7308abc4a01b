"""Whether the network costs something per byte, by NetworkManager's word over D-Bus."""

import asyncio
from importlib import import_module
from pathlib import Path
from typing import Any

BUS = Path("/run/dbus/system_bus_socket")
"""Where the system bus listens, on every Linux that has one."""

PATIENCE = 2.0
"""Seconds for an answer, which comes within milliseconds if it comes."""

_MANAGER = "org.freedesktop.NetworkManager"

UNMETERED: dict[int, bool] = {1: False, 2: True, 3: False, 4: True}
"""NMMetered by its numbers: yes, no, and NetworkManager's guess of yes and of no; 0 is unknown."""


async def read_unmetered(bus: Path = BUS) -> bool | None:
    """Ask NetworkManager of the connection that the default route goes by.

    A connection of its own for each question takes a millisecond; one that is kept has to be watched.

    Args:
        bus: the socket of the system bus.

    Returns:
        None where nobody knows: without a bus, dbus-fast (the extra `network`) or NetworkManager.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            return UNMETERED.get(await _metered(bus))
    except (ImportError, OSError, EOFError, TimeoutError, ValueError):
        return None


def _package(bus: Path) -> tuple[Any, Any]:
    """Only where there is a bus to ask, and not on the event loop: it takes a tenth of a second."""
    if not bus.is_socket():
        raise FileNotFoundError(f"{bus} is no socket")
    return import_module("dbus_fast"), import_module("dbus_fast.aio")


async def _metered(bus: Path) -> int:
    """NetworkManager's property `Metered`; 0 where there is none.

    Raises:
        ImportError: dbus-fast is not installed.
        OSError: the bus refuses, or does not speak D-Bus.
    """
    package, client = await asyncio.to_thread(_package, bus)
    question = package.Message(
        destination=_MANAGER,
        path="/org/freedesktop/NetworkManager",
        interface="org.freedesktop.DBus.Properties",
        member="Get",
        signature="ss",
        body=[_MANAGER, "Metered"],
        flags=package.MessageFlag.NO_AUTOSTART,  # who does not run it does not want it
    )
    connection = client.MessageBus(bus_address=f"unix:path={bus}")
    try:
        await connection.connect()
        answer = await connection.call(question)
    except package.DBusFastError as error:
        raise OSError(str(error)) from error
    finally:
        connection.disconnect()
    found = answer.message_type is package.MessageType.METHOD_RETURN
    return int(answer.body[0].value) if found else 0
