"""The small parts of the shells: where work runs, what is kept, what is shown, how the bus is reached."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from broker.memory import MemoryBroker
from broker.mqtt import MqttSettings
from protocol.certificates import Role
from protocol.ids import UnixTime
from protocol.status import CoordinatorStatus, DeviceStatus, decode_status
from registrar.authority import FleetAuthority
from runtime.bus import connect_mqtt
from runtime.clock import SystemClock
from runtime.compute import Computer
from runtime.config import BrokerSettings
from runtime.entropy import SeededEntropy
from runtime.files import write_synced
from runtime.status_board import StatusBoard

# Where work runs.


class WhereAmI:
    """Work that tells who ran it."""

    def __init__(self, *, heavy: bool) -> None:
        self.heavy = heavy

    def run(self) -> tuple[int, str]:
        return os.getpid(), threading.current_thread().name


async def test_light_work_runs_in_a_thread() -> None:
    async with Computer(workers=1) as computer:
        assert await computer.run(WhereAmI(heavy=False)) == (os.getpid(), "compute_0")
        assert computer._processes is None  # made on demand


async def test_heavy_work_runs_in_a_thread_where_there_are_no_workers() -> None:
    async with Computer(workers=0) as computer:
        assert await computer.run(WhereAmI(heavy=True)) == (os.getpid(), "compute_0")


async def test_the_loop_goes_on_while_work_runs() -> None:
    started, release = threading.Event(), threading.Event()

    class Slow:
        heavy = False

        def run(self) -> bool:
            started.set()
            return release.wait(10)

    async with Computer(workers=0) as computer:
        task = asyncio.create_task(computer.run(Slow()))
        await asyncio.to_thread(started.wait, 10)  # the loop turns meanwhile
        assert not task.done()
        release.set()
        assert await task is True


# Files.


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "state"
    write_synced(file, b"old")
    write_synced(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_crash_before_the_rename_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state"
    write_synced(file, b"old")

    def crash(_: int) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("runtime.files.os.fsync", crash)
    with pytest.raises(OSError, match="the disk is gone"):
        write_synced(file, b"new")
    assert file.read_bytes() == b"old"


def test_content_and_folder_are_synced_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "state"
    seen: list[bool] = []
    monkeypatch.setattr("runtime.files.os.fsync", lambda _: seen.append(file.exists()))
    write_synced(file, b"content")
    assert seen == [False, True]  # the bytes before the name, the name after


# Status.

TOPIC = "fl/1/test/coordinator"


def shown(broker: MemoryBroker, topic: str = TOPIC) -> CoordinatorStatus:
    return decode_status(broker.retained[topic], CoordinatorStatus)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_status_is_retained_and_shown_again_only_when_it_changes() -> None:
    broker = MemoryBroker()
    seen: list[bytes] = []
    async with broker.connect("watcher") as watcher, broker.connect("coordinator") as transport:
        await watcher.subscribe(TOPIC, lambda delivery: seen.append(delivery.payload))
        async with StatusBoard(transport) as board:
            for epoch in (1, 1, 2):
                board.show(TOPIC, CoordinatorStatus("online", epoch=epoch))
                await settle()
    assert shown(broker).epoch == 2
    assert len(seen) == 2


async def test_only_the_newest_status_that_waits_is_published() -> None:
    broker = MemoryBroker()
    seen: list[bytes] = []
    async with broker.connect("watcher") as watcher, broker.connect("coordinator") as transport:
        await watcher.subscribe(TOPIC, lambda delivery: seen.append(delivery.payload))
        async with StatusBoard(transport) as board:
            for epoch in range(9):
                board.show(TOPIC, CoordinatorStatus("online", epoch=epoch))
            await settle()
    assert [decode_status(payload, CoordinatorStatus).epoch for payload in seen] == [8]


async def test_the_last_status_is_published_on_leaving() -> None:
    broker = MemoryBroker()
    async with broker.connect("coordinator") as transport, StatusBoard(transport) as board:
        board.show(TOPIC, CoordinatorStatus("offline"))
    assert shown(broker).state == "offline"


async def test_a_status_shown_without_a_connection_comes_with_the_next_one() -> None:
    broker = MemoryBroker()
    async with broker.connect("coordinator") as transport, StatusBoard(transport) as board:
        broker.drop("coordinator")
        board.show(TOPIC, CoordinatorStatus("online", epoch=7))
        await settle()
        assert TOPIC not in broker.retained
        broker.resume(transport)
        await settle()
        assert shown(broker).epoch == 7


# The bus.


def test_a_transport_is_built_from_settings_with_its_will(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[MqttSettings] = []
    monkeypatch.setattr("runtime.bus.MqttTransport", lambda settings, **_: built.append(settings))
    fleet = FleetAuthority.create("test", UnixTime(0.0), SeededEntropy(2).bytes)
    connect_mqtt(
        BrokerSettings(urls=("mqtt://one:1", "mqtt://two:2"), keepalive=7),
        identity=fleet.issue("d1", Role.DEVICE),
        will=("fl/1/test/devices/d1", DeviceStatus("lost", boot=3)),
        clock=SystemClock(),
        entropy=SeededEntropy(1),
    )
    (settings,) = built
    assert [address.host for address in settings.addresses] == ["one", "two"]
    assert (settings.client_id, settings.keepalive) == ("d1", 7)
    assert settings.will is not None
    assert settings.will.topic == "fl/1/test/devices/d1"
    assert decode_status(settings.will.payload, DeviceStatus) == DeviceStatus("lost", boot=3)
