"""The real programs under somebody's eyes: a service manager's socket, a container engine's health check."""

import asyncio
import socket
from pathlib import Path

import pytest
from real_fleet import PATIENCE, Program, RealFleet

from runtime.clock import SystemClock
from runtime.watchdog import UnhealthyError, check_health

pytestmark = pytest.mark.broker


class SupervisedFleet(RealFleet):
    """Its programs notify `notify` and write heartbeats, one folder each."""

    async def supervised(self, name: str) -> Program:
        folder = self.folder / f"{name}.runtime"
        folder.mkdir(exist_ok=True)
        self.more_environment = {  # type: ignore[misc]
            "NOTIFY_SOCKET": str(self.folder / "notify"),
            "RUNTIME_DIRECTORY": str(folder),
        }
        if name == "coordinator":
            return await self.start_coordinator()
        return (await self.start_agents(name))[name]

    async def healthy(self, name: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    check_health(self.folder / f"{name}.runtime", SystemClock())
                except UnhealthyError:
                    await asyncio.sleep(0.05)
                else:
                    return


def heard(manager: socket.socket) -> list[str]:
    lines: list[str] = []
    while True:
        try:
            lines += manager.recv(4096).decode().splitlines()
        except BlockingIOError:
            return lines


@pytest.mark.parametrize("name", ["coordinator", "d1"])
async def test_a_program_says_when_it_is_ready_connected_and_leaving(name: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(0)
        async with SupervisedFleet(tmp_path) as fleet:
            program = await fleet.supervised(name)
            await fleet.healthy(name)
            lines = heard(manager)
            assert lines[:2] == ["READY=1", "WATCHDOG=1"]
            assert lines[-1] == "STATUS=connected to the broker"
            assert await program.terminate() == 0
            assert heard(manager)[-1] == "STOPPING=1"
