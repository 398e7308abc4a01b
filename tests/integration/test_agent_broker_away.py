"""A broker that is away for an hour: the agent waits, at ease, and comes back as who it was."""

import asyncio
import gc
import os
import signal
import tracemalloc
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from hand_clock import HandClock
from real_fleet import CLOCK, ENTROPY, PATIENCE, RealFleet
from real_puppets import Puppet

from broker.mqtt import LONGEST_WAIT, MqttTransport
from device_agent.app import Agent, equip
from protocol.ids import DeviceId, UnixTime

pytestmark = pytest.mark.broker

HOUR = 3600.0


class QuickClock(HandClock):
    """Moved by hand, but what is on sockets gets its time."""

    def __init__(self) -> None:
        super().__init__()
        self._start = CLOCK.unix()
        self.waits: list[tuple[float, float]] = []

    def unix(self) -> UnixTime:
        return UnixTime(self._start + self.now())

    async def wait_to_connect(self, seconds: float) -> None:
        """What the transport waits with: noted, with when it began."""
        self.waits.append((self.now(), seconds))
        await self.sleep(seconds)

    async def pass_much_time(self, seconds: float, step: float = 5.0) -> None:
        for _ in range(int(seconds / step)):
            await self.pass_time(step)
            await CLOCK.sleep(0.002)


async def test_the_agent_waits_an_hour_and_comes_back_as_who_it_was(tmp_path: Path) -> None:
    clock, stop, name = QuickClock(), asyncio.Event(), DeviceId("d1")
    async with RealFleet(tmp_path) as fleet, AsyncExitStack() as stack:
        fleet.enrol(name)
        settings = Puppet(fleet, name, 1)._settings
        equipment = await stack.enter_async_context(equip(settings, clock, ENTROPY))
        transport = equipment.transport
        assert isinstance(transport, MqttTransport)
        transport._sleep = clock.wait_to_connect
        running = asyncio.create_task(Agent(equipment).run(stop))
        await fleet.sees_device(name, "idle", boot=1)

        os.kill(fleet.broker.pid, signal.SIGKILL)
        await lost(transport, clock)
        await clock.pass_much_time(HOUR / 2)
        tasks, memory = len(asyncio.all_tasks()), memory_in_use()
        await clock.pass_much_time(HOUR / 2)
        assert len(asyncio.all_tasks()) <= tasks + 1
        assert memory_in_use() - memory < 100_000
        at_ease(clock.waits)

        fleet.watch.latest.clear()
        await fleet.broker.restart(keep_state=False)
        ticking = asyncio.create_task(clock.pass_much_time(100 * HOUR))
        await fleet.hears(fleet.topics.offer(name))
        await fleet.sees_device(name, "idle", boot=1)
        stop.set()
        await running
        ticking.cancel()
        tracemalloc.stop()


async def lost(transport: MqttTransport, clock: QuickClock) -> None:
    for _ in range(int(PATIENCE / 0.01)):
        if not transport.connected and clock.waits:
            return
        await CLOCK.sleep(0.01)
    raise AssertionError("it did not notice")


def memory_in_use() -> int:
    """Bytes, from the first call on."""
    gc.collect()
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    return tracemalloc.get_traced_memory()[0]


def at_ease(waits: list[tuple[float, float]]) -> None:
    """Each wait at most a minute, no two the same, and few in all: half a minute on average in the end."""
    lengths = [seconds for _, seconds in waits]
    assert max(lengths) <= LONGEST_WAIT
    assert len(set(lengths)) == len(lengths)
    assert HOUR / LONGEST_WAIT <= len(lengths) <= 4 * HOUR / LONGEST_WAIT
    # It never stops trying.
    assert all(second - first <= LONGEST_WAIT + 10 for (first, _), (second, _) in pairwise(waits))
    assert waits[-1][0] >= HOUR - 2 * LONGEST_WAIT
