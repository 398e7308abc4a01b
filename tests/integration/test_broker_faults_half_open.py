"""Connections that are dead while neither end was told: a frozen broker, a network that swallows all."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace
from real_fleet import CLOCK, PATIENCE, RealFleet
from real_puppets import Puppet, Wire
from tiny_plan import plan_text

from broker.embedded import BrokerMissingError, EmbeddedBroker
from broker.mqtt import MqttSettings, MqttTransport
from broker.transport import Delivery, Will
from protocol.messages import SealedShares

pytestmark = pytest.mark.broker

KEEPALIVE = 4
GENEROUS = 3.0 * KEEPALIVE
"""Seconds; twice the promise, for a busy machine. `test_broker_keepalive.py` has the sum."""


class BlackHole(Wire):
    """A cable that can lose what is sent without a word to either end."""

    def swallow(self) -> None:
        """Nothing passes any more on the connections there are; new ones are refused until it is reopened."""
        assert self._server is not None
        self._port = self.address.port
        self._server.close()
        for writer in self._writers:
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport reads, too

    async def reopen(self) -> None:
        """New connections reach the broker again."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    try:
        unopened = EmbeddedBroker.start("mosquitto")
    except BrokerMissingError as missing:
        pytest.skip(str(missing))
    async with unopened as running:
        yield running


async def until(condition: Callable[[], object]) -> float:
    """Seconds until it held."""
    start = time.monotonic()
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return time.monotonic() - start
        await CLOCK.sleep(0.01)
    raise AssertionError("it never happened")


def client(broker: EmbeddedBroker, wire: Wire | None = None) -> MqttTransport:
    address = broker.address if wire is None else wire.address
    settings = MqttSettings((address,), "a", will=Will("will/a", b"lost"), keepalive=KEEPALIVE)
    return MqttTransport(settings, sleep=CLOCK.sleep, uniform=lambda: 0.05)


async def test_a_frozen_broker_is_noticed_and_welcomed_back(broker: EmbeddedBroker) -> None:
    async with client(broker) as a:
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            seconds = await until(lambda: not a.connected)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        assert seconds < GENEROUS
        await until(lambda: a.connected)
        await a.publish("x", b"")


async def test_both_ends_notice_a_connection_that_swallows_everything(broker: EmbeddedBroker) -> None:
    seen = list[Delivery]()
    watcher = MqttTransport(MqttSettings((broker.address,), "w"), sleep=CLOCK.sleep, uniform=lambda: 0.05)
    async with BlackHole(broker.address) as wire, watcher, client(broker, wire) as a:
        await watcher.subscribe("will/a", seen.append)
        connections = list[bool]()
        a.on_connection(connections.append)
        wire.swallow()
        seconds = await until(lambda: False in connections)
        assert seconds + await until(lambda: seen) < GENEROUS
        await wire.reopen()
        await until(lambda: a.connected)
    assert seen[0].payload == b"lost"


# In a round.


@pytest.mark.slow
async def test_a_coordinator_that_nobody_hears_comes_back_to_its_round(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=1)) as fleet, AsyncExitStack() as stack:
        wire = await stack.enter_async_context(BlackHole(fleet.broker.address))
        await fleet.start_coordinator(start_when=5, **settings(wire))
        devices = [Puppet(fleet, f"p{number}", number) for number in range(1, 6)]
        for device in devices:
            await stack.enter_async_context(device)
        devices[0].gate.hold(SealedShares)
        await fleet.sees_round(1, phase="sharing", shared=4)
        wire.swallow()
        await fleet.sees_coordinator("lost")
        await wire.reopen()
        await fleet.sees_coordinator("online")
        devices[0].gate.open()
        await fleet.sees_coordinator("finished", why="1 rounds are committed")
        assert [(one.round, one.survivors) for one in fleet.results()] == [(1, 5)]


@pytest.mark.slow
async def test_a_device_that_nobody_hears_comes_back_to_its_round(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=1)) as fleet, AsyncExitStack() as stack:
        wire = await stack.enter_async_context(BlackHole(fleet.broker.address))
        await fleet.start_coordinator(start_when=5)
        devices = [Puppet(fleet, f"p{number}", number) for number in range(1, 5)]
        deaf = Puppet(fleet, "p5", 5, wire.address)
        deaf._settings = replace(deaf._settings, broker=replace(deaf._settings.broker, keepalive=KEEPALIVE))
        for device in (*devices, deaf):
            await stack.enter_async_context(device)
        devices[0].gate.hold(SealedShares)
        await fleet.sees_round(1, phase="sharing", shared=4)
        wire.swallow()
        await fleet.sees_device("p5", "lost")
        await wire.reopen()
        # Not lost, not idle: the same agent, still in its round.
        await fleet.sees_device("p5", "training", boot=1)
        devices[0].gate.open()
        await fleet.sees_coordinator("finished", why="1 rounds are committed")
        assert [(one.round, one.survivors) for one in fleet.results()] == [(1, 5)]


def settings(wire: Wire) -> dict[str, str]:
    url = f"mqtt://{wire.address.host}:{wire.address.port}"
    return {"BROKER__URLS": url, "BROKER__KEEPALIVE": str(KEEPALIVE)}
