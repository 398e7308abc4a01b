"""Broker, coordinator and agents that go away in the middle of a round and come back."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from real_fleet import RealFleet
from real_puppets import Puppet, Wire, plain_mean
from tiny_plan import plan_text

from broker.embedded import Engine
from protocol.ids import DeviceId
from protocol.messages import (
    Accept,
    Confirmation,
    FromDevice,
    Reveal,
    RoundKeys,
    SealedShares,
    UploadOffer,
)

pytestmark = pytest.mark.broker


@asynccontextmanager
async def puppets(fleet: RealFleet, count: int = 5) -> AsyncIterator[list[Puppet]]:
    async with AsyncExitStack() as stack:
        made = [Puppet(fleet, f"p{number}", number) for number in range(1, count + 1)]
        for puppet in made:
            await stack.enter_async_context(puppet)
        yield made


@pytest.mark.parametrize("engine", ["mosquitto", "nats"])
@pytest.mark.parametrize("keep_state", [True, False], ids=["keeping", "forgetting"])
@pytest.mark.parametrize("held", [RoundKeys, UploadOffer])
async def test_the_broker_restarts_in_a_round(
    tmp_path: Path, engine: Engine, held: type[FromDevice], *, keep_state: bool
) -> None:
    async with RealFleet(tmp_path, engine, plan_text(rounds=2)) as fleet:
        await fleet.start_coordinator(start_when=5)
        async with puppets(fleet) as devices:
            slow = devices[0]
            slow.gate.hold(held)
            await slow.gate.knocked()
            await fleet.broker.restart(keep_state=keep_state)
            slow.gate.open()
            await fleet.sees_coordinator("finished", why="2 rounds are committed")
            first, *_, last = fleet.results()
            assert first.result == "committed" or first.reason
            # Mosquitto says the wills of everybody when it ends, so the first may have gone on with fewer.
            assert (last.result, last.survivors) == ("committed", 5)
            moved = fleet.kept().vector - slow.worker.received[-1]
            np.testing.assert_allclose(moved, plain_mean(devices), atol=2e-6)


@pytest.mark.parametrize("held", [Accept, RoundKeys, SealedShares, UploadOffer, Confirmation, Reveal])
async def test_a_killed_coordinator_goes_on_with_the_same_round(
    tmp_path: Path, held: type[FromDevice]
) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=2)) as fleet:
        coordinator = await fleet.start_coordinator(start_when=5)
        async with puppets(fleet) as devices:
            slow = devices[0]
            slow.gate.hold(held)
            await slow.gate.knocked()
            await coordinator.kill()
            await fleet.sees_coordinator("lost")
            again = await fleet.start_coordinator(start_when=5)
            await fleet.sees_coordinator("online")
            slow.gate.open()
            await fleet.sees_coordinator("finished", epoch=1, why="2 rounds are committed")
            assert await again.ended() == 0
            assert [(one.round, one.result, one.survivors) for one in fleet.results()] == [
                (1, "committed", 5),
                (2, "committed", 5),
            ]
            assert all(len(device.worker.received) == 2 for device in devices)  # nobody trained again
            moved = fleet.kept().vector - slow.worker.received[0]
            np.testing.assert_allclose(moved, 2 * plain_mean(devices), atol=5e-6)


async def test_a_coordinator_that_lost_its_state_goes_beyond_what_devices_have_seen(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=2)) as fleet:
        first = await fleet.start_coordinator(start_when=5)
        async with puppets(fleet) as devices:
            await fleet.sees_coordinator("finished", epoch=1)
            assert await first.ended() == 0
            shutil.rmtree(fleet.coordinator_state)
            await fleet.start_coordinator(start_when=5)
            await fleet.sees_coordinator("finished", epoch=2)
            assert [one.result for one in fleet.written_results()] == ["committed", "committed"]
            assert all(len(device.worker.received) == 4 for device in devices)


async def test_a_restarted_agent_sits_its_round_out_and_joins_the_next(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=2)) as fleet:
        await fleet.start_coordinator(start_when=5)
        agents = await fleet.start_agents("d1")
        async with puppets(fleet, 4) as devices:
            devices[0].gate.hold(SealedShares)
            await fleet.sees_round(1, shared=4)
            await agents["d1"].kill()
            await fleet.sees_device("d1", "lost", boot=1)
            agents = await fleet.start_agents("d1")
            await fleet.sees_device("d1", "idle", boot=2)
            devices[0].gate.open()
            await fleet.sees_coordinator("finished", why="2 rounds are committed")
            assert await agents["d1"].terminate() == 0
        first, second = fleet.results()
        assert (first.survivors, first.dropouts) == (4, 1)
        assert (second.survivors, second.dropouts) == (5, 0)


async def test_old_mail_of_a_session_keeps_no_agent_from_the_next_round(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=3)) as fleet:
        await fleet.start_coordinator(start_when=5)
        agents = await fleet.start_agents("d1")
        await fleet.sees_coordinator("online", devices=1)
        agents["d1"].pause()
        async with puppets(fleet, 4) as devices:
            slow = devices[0]
            # The manifest is said again while nobody answers; all of them wait in the session of d1.
            await fleet.hears(fleet.topics.inbox(DeviceId("d1")), 2)
            slow.gate.hold(SealedShares)
            await agents["d1"].kill()
            await fleet.sees_round(1, phase="sharing", accepted=4)
            slow.gate.open()
            await fleet.sees_result(1)
            slow.gate.hold(SealedShares)
            await slow.gate.knocked()
            again = await fleet.start_agents("d1")
            await fleet.hears(fleet.topics.offer(DeviceId("d1")))
            slow.gate.open()
            await fleet.sees_coordinator("finished", why="3 rounds are committed")
            assert await again["d1"].terminate() == 0
        assert [one.survivors for one in fleet.results()] == [4, 4, 5]


async def test_a_device_that_missed_how_its_round_ended_joins_a_later_one(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=3)) as fleet, Wire(fleet.broker.address) as wire:
        await fleet.start_coordinator(start_when=5)
        async with puppets(fleet, 4) as devices, Puppet(fleet, "p5", 5, wire.address) as cut:
            slow = devices[0].gate
            slow.hold(SealedShares)
            cut.gate.hold(UploadOffer)
            await fleet.sees_round(1, shared=4)
            slow.open()
            slow.hold(SealedShares)
            await cut.gate.knocked()
            wire.cut()
            await fleet.sees_device("p5", "lost")
            first = await fleet.sees_result(1)
            assert (first.survivors, first.dropouts) == (4, 1)
            await fleet.sees_round(2, shared=3)
            cut.gate.open()
            await fleet.hears(fleet.topics.offer(DeviceId("p5")), after=wire.mend)
            slow.open()
            await fleet.sees_coordinator("finished", why="3 rounds are committed")
            assert [one.survivors for one in fleet.results()] == [4, 4, 5]
            received = devices[0].worker.received
            np.testing.assert_allclose(received[1] - received[0], plain_mean(devices), atol=2e-6)


async def test_a_dead_address_before_the_live_one_is_passed_over(tmp_path: Path) -> None:
    async with RealFleet(tmp_path, plan=plan_text(rounds=1)) as fleet:
        fleet.dead_brokers = ("mqtt://127.0.0.1:9",)
        await fleet.start_coordinator(start_when=3)
        await fleet.start_agents("d1", "d2", "d3")
        await fleet.sees_coordinator("finished", why="1 rounds are committed")
