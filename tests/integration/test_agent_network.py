"""Whether the network is metered, asked of a real D-Bus with a stand-in for NetworkManager, and worse."""

import asyncio
import contextlib
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from device_agent import network
from device_agent.network import read_unmetered

CONFIGURATION = """<busconfig>
  <type>session</type>
  <listen>unix:path={bus}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>"""


@asynccontextmanager
async def system_bus(folder: Path) -> AsyncIterator[Path]:
    """A bus daemon of this test's own."""
    daemon = shutil.which("dbus-daemon")
    if daemon is None:
        pytest.skip("dbus-daemon is not installed")
    bus, configuration = folder / "bus", folder / "bus.conf"
    configuration.write_text(CONFIGURATION.format(bus=bus))
    process = await asyncio.create_subprocess_exec(
        daemon,
        f"--config-file={configuration}",
        "--nofork",
        "--print-address",
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline()  # it listens
        yield bus
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def network_manager(bus: Path, metered: int) -> AsyncIterator[None]:
    """Says of `Metered` what the test wants, and of nothing else."""
    package, client = pytest.importorskip("dbus_fast"), pytest.importorskip("dbus_fast.aio")
    name, kinds = "org.freedesktop.NetworkManager", package.MessageType

    def answer(question: Any) -> Any:
        if question.member == "Get" and question.body == [name, "Metered"]:
            return package.Message.new_method_return(question, "v", [package.Variant("u", metered)])
        return None

    connection = await client.MessageBus(bus_address=f"unix:path={bus}").connect()
    connection.add_message_handler(
        lambda message: answer(message) if message.message_type is kinds.METHOD_CALL else None
    )
    await connection.request_name(name)
    try:
        yield
    finally:
        connection.disconnect()


@pytest.mark.parametrize(
    ("metered", "unmetered"), [(0, None), (1, False), (2, True), (3, False), (4, True), (5, None)]
)
async def test_what_network_manager_says(tmp_path: Path, metered: int, unmetered: bool | None) -> None:  # noqa: FBT001 - a parameter
    async with system_bus(tmp_path) as bus, network_manager(bus, metered):
        assert await read_unmetered(bus) is unmetered
        assert await read_unmetered(bus) is unmetered


async def test_a_bus_without_network_manager(tmp_path: Path) -> None:
    pytest.importorskip("dbus_fast")
    async with system_bus(tmp_path) as bus:
        assert await read_unmetered(bus) is None


async def test_no_bus(tmp_path: Path) -> None:
    assert await read_unmetered(tmp_path / "none") is None
    (tmp_path / "file").touch()
    assert await read_unmetered(tmp_path / "file") is None


async def test_a_bus_that_nobody_listens_to(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "bus"))
    assert await read_unmetered(tmp_path / "bus") is None


@pytest.mark.parametrize("says", [b"", b"REJECTED\r\n", b"noise\r\n" * 100])
async def test_a_bus_that_speaks_something_else(
    tmp_path: Path, says: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dbus_fast")
    monkeypatch.setattr(network, "PATIENCE", 0.2)
    left = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        with contextlib.suppress(ConnectionError):
            await reader.read()  # until the agent gives up
        writer.close()
        await writer.wait_closed()
        left.set()

    async with await asyncio.start_unix_server(speak, tmp_path / "bus"):
        assert await read_unmetered(tmp_path / "bus") is None
        await left.wait()


async def test_without_the_package_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dbus_fast", None)
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(tmp_path / "bus"))
        assert await read_unmetered(tmp_path / "bus") is None
