"""A watcher on a bus hears what is retained, then everything new; `fedfleet watch` on a real broker too."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from broker.embedded import EmbeddedBroker
from broker.memory import MemoryBroker
from console.fleet_view import FleetView, News
from console.watching import listening, watching_transport
from protocol.ids import ORIGIN, DeviceId
from protocol.status import CoordinatorStatus, DeviceStatus, RoundResult, encode_status
from protocol.topics import Topics
from runtime.config import BrokerSettings
from runtime.secret import SecretStr

TOPICS = Topics("plant")
ONLINE = CoordinatorStatus("online", epoch=1)
COMMITTED = RoundResult(0, "committed", survivors=9)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_is_retained_comes_first_then_what_is_new() -> None:
    broker = MemoryBroker()
    broker.publish(TOPICS.coordinator_status, encode_status(ONLINE), retain=True)
    view, heard = FleetView(), list[News]()
    async with listening(broker.connect("watch", clean=True), "plant", view, heard.append):
        await turns()
        assert heard == [News(ONLINE)]
        broker.publish(TOPICS.round_result(ORIGIN), encode_status(COMMITTED), retain=True)
        broker.publish(TOPICS.device_status(DeviceId("d1")), encode_status(DeviceStatus("idle")), retain=True)
        await turns()
    assert heard[1:] == [News(COMMITTED), News(DeviceStatus("idle"), DeviceId("d1"))]
    assert view.committed == [COMMITTED]


async def test_another_fleet_is_not_heard() -> None:
    broker = MemoryBroker()
    broker.publish(Topics("other").coordinator_status, encode_status(ONLINE), retain=True)
    view, heard = FleetView(), list[News]()
    async with listening(broker.connect("watch", clean=True), "plant", view, heard.append):
        await turns()
    assert heard == []
    assert view == FleetView()


@pytest.mark.broker
async def test_the_command_prints_a_line_of_json_for_each_status_until_sigterm() -> None:
    async with EmbeddedBroker.start(password="geheim") as broker:
        url = f"mqtt://{broker.address.host}:{broker.address.port}"
        settings = BrokerSettings((url,), username="fedfleet", password=SecretStr("geheim"))
        async with watching_transport(settings) as transport:
            await transport.publish(TOPICS.coordinator_status, encode_status(ONLINE), retain=True)
            command = ("watch", "--json", "--broker", url, "--fleet", "plant", "--username", "fedfleet")
            watch = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "console", *command),
                env={**os.environ, "FEDFLEET_BROKER__PASSWORD": "geheim"},
                stdout=subprocess.PIPE,
            )
            assert watch.stdout is not None
            async with asyncio.timeout(30):
                line = await watch.stdout.readline()
                watch.send_signal(signal.SIGTERM)
                assert await watch.wait() == 0
    assert json.loads(line) == {
        "event": "coordinator",
        "state": "online",
        "version": "",
        "epoch": 1,
        "devices": 0,
        "why": "",
    }
