"""A program says that it lives: to systemd by datagrams, to a container engine by a file."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hand_clock import HandClock, settle
from typer.testing import CliRunner

from broker.transport import ConnectionListener
from console.commands import app
from console.health import health
from protocol.ids import Seconds
from runtime.clock import SystemClock
from runtime.watchdog import STALE, UnhealthyError, check_health, runtime_folder, watched


class Line:
    """A connection that the test makes and breaks."""

    def __init__(self, *, connected: bool = True) -> None:
        self.connected = connected
        self.tell: list[ConnectionListener] = []

    def on_connection(self, listener: ConnectionListener) -> None:
        self.tell.append(listener)

    def becomes(self, *, connected: bool) -> None:
        self.connected = connected
        for listener in self.tell:
            listener(connected)


class Manager:
    """The end of the socket that systemd holds."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(0)

    def heard(self) -> list[str]:
        lines: list[str] = []
        while True:
            try:
                lines += self.socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return lines


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.socket.close()


async def test_systemd_hears_ready_then_beats_then_stopping(tmp_path: Path, manager: Manager) -> None:
    clock, line = HandClock(), Line(connected=False)
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    async with watched(line, clock, environment):
        await settle()
        assert manager.heard() == [
            "READY=1",
            "WATCHDOG=1",
            "STATUS=not connected to the broker; trying again",
        ]
        line.becomes(connected=True)
        await settle()
        assert manager.heard() == ["READY=1", "WATCHDOG=1", "STATUS=connected to the broker"]
    assert manager.heard() == ["STOPPING=1"]
    await clock.pass_time(60)
    assert manager.heard() == []


async def test_beats_come_twice_as_often_as_systemd_insists_on(tmp_path: Path, manager: Manager) -> None:
    clock = HandClock()
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "4000000"}
    async with watched(Line(), clock, environment):
        await settle()
        for _ in range(3):
            await clock.pass_time(2)
        assert manager.heard().count("WATCHDOG=1") == 4


async def test_an_address_of_the_abstract_namespace_is_understood(tmp_path: Path) -> None:
    name = f"fedfleet-{tmp_path.name}"
    manager = Manager(f"\0{name}")
    async with watched(Line(), HandClock(), {"NOTIFY_SOCKET": f"@{name}"}):
        await settle()
    assert manager.heard()[-1] == "STOPPING=1"
    manager.socket.close()


async def test_a_manager_that_is_gone_and_a_folder_that_is_not_there_stop_nothing() -> None:
    clock, environment = (
        HandClock(),
        {"NOTIFY_SOCKET": "/no/socket", "RUNTIME_DIRECTORY": "/no/where"},
    )
    async with watched(Line(), clock, environment):
        await clock.pass_time(30)


async def test_a_program_that_nobody_supervises_tells_nobody() -> None:
    line = Line()
    async with watched(line, HandClock(), {}):
        await settle()
        assert not line.tell


async def test_a_connected_program_is_healthy_as_long_as_its_loop_turns(tmp_path: Path) -> None:
    clock = HandClock()
    async with watched(Line(), clock, {"RUNTIME_DIRECTORY": str(tmp_path)}):
        for _ in range(20):
            await clock.pass_time(10)
            check_health(tmp_path, clock)
    await clock.pass_time(STALE + 1)
    with pytest.raises(UnhealthyError, match="has ended or hangs"):
        check_health(tmp_path, clock)


async def test_a_program_without_a_connection_is_not_healthy(tmp_path: Path) -> None:
    clock = HandClock()
    async with watched(Line(connected=False), clock, {"RUNTIME_DIRECTORY": str(tmp_path)}):
        await settle()
        with pytest.raises(UnhealthyError, match="not connected to the broker"):
            check_health(tmp_path, clock)


async def test_a_heartbeat_from_before_the_machine_started_anew_is_old(tmp_path: Path) -> None:
    before, now = HandClock(), HandClock()
    await before.pass_time(5)
    async with watched(Line(), before, {"RUNTIME_DIRECTORY": str(tmp_path)}):
        await settle()
    assert now.now() < Seconds(before.now())
    with pytest.raises(UnhealthyError, match="has ended or hangs"):
        check_health(tmp_path, now)


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"at": "soon", "connected": true}'])
def test_no_heartbeat_or_a_broken_one(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "heartbeat").write_bytes(content)
    with pytest.raises(UnhealthyError, match="no heartbeat"):
        check_health(tmp_path, HandClock())


def test_without_a_folder_the_fix_is_named() -> None:
    with pytest.raises(UnhealthyError, match="fedfleet health /run"):
        runtime_folder({})


async def test_the_command_answers_with_0_or_1_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    assert health() == 1
    async with watched(Line(), SystemClock(), {"RUNTIME_DIRECTORY": str(tmp_path)}):
        await settle()
        assert health() == 0
    assert capsys.readouterr().out.splitlines()[-1] == "healthy"
    assert CliRunner().invoke(app, ["health", str(tmp_path / "other")]).exit_code == 1
