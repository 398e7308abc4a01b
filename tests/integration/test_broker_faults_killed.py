"""The broker is killed in every phase of a round and comes back, with what it had saved or with nothing."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from real_fleet import CLOCK, PATIENCE, RealFleet
from real_puppets import Puppet, plain_mean
from tiny_plan import plan_text

from protocol.messages import Accept, Confirmation, FromDevice, Reveal, SealedShares, UploadOffer

pytestmark = pytest.mark.broker

PHASES = [Accept, SealedShares, UploadOffer, Reveal]
"""What one device has not said yet when the broker dies, so that the phase is open."""


@asynccontextmanager
async def scene(folder: Path, rounds: int) -> AsyncIterator[tuple[RealFleet, list[Puppet]]]:
    async with RealFleet(folder, plan=plan_text(rounds=rounds)) as fleet, AsyncExitStack() as stack:
        await fleet.start_coordinator(start_when=5)
        puppets = [Puppet(fleet, f"p{number}", number) for number in range(1, 6)]
        for puppet in puppets:
            await stack.enter_async_context(puppet)
        yield fleet, puppets


async def kill_broker(fleet: RealFleet, *, keep_state: bool) -> None:
    """With the state that it saved a moment ago, or with none."""
    if keep_state:
        os.kill(fleet.broker.pid, signal.SIGUSR1)  # Mosquitto saves
        await CLOCK.sleep(0.2)
    os.kill(fleet.broker.pid, signal.SIGKILL)
    await fleet.broker.restart(keep_state=keep_state)


@pytest.mark.parametrize("keep_state", [True, False], ids=["keeping", "forgetting"])
@pytest.mark.parametrize("held", PHASES)
async def test_the_round_goes_on_without_a_wrong_sum(
    tmp_path: Path, held: type[FromDevice], *, keep_state: bool
) -> None:
    async with scene(tmp_path, rounds=2) as (fleet, devices):
        slow = devices[0]
        slow.gate.hold(held)
        await slow.gate.knocked()
        await kill_broker(fleet, keep_state=keep_state)
        slow.gate.open()
        await fleet.sees_coordinator("finished", why="2 rounds are committed")
        ended = fleet.results()
        assert all(one.result == "committed" or one.reason for one in ended)
        assert [one.survivors for one in ended if one.result == "committed"] == [5, 5]
        moved = fleet.kept().vector - slow.worker.received[0]
        np.testing.assert_allclose(moved, 2 * plain_mean(devices), atol=5e-6)


async def test_what_was_retained_returns_to_a_broker_that_forgot_it(tmp_path: Path) -> None:
    async with scene(tmp_path, rounds=1) as (fleet, devices):
        devices[0].gate.hold(Confirmation)
        await fleet.sees_round(1, confirmed=4)
        before = await fleet.retained_for_machines()
        decisions = {topic.rpartition("/")[2] for topic in before if "/rounds/" in topic}
        assert decisions == {"cohort", "share-set", "survivor-set"}
        assert any("/blobs/" in topic for topic in before)
        fleet.watch.latest.clear()
        await kill_broker(fleet, keep_state=False)
        for name in ("p1", "p2", "p3", "p4", "p5"):
            await fleet.sees_device(name, "uploading", boot=1)
        await fleet.sees_round(1, phase="confirming")
        await fleet.sees_coordinator("online")
        for _ in range(int(PATIENCE / 0.1)):
            if await fleet.retained_for_machines() == before:
                break
            await CLOCK.sleep(0.1)
        assert await fleet.retained_for_machines() == before
        devices[0].gate.open()
        await fleet.sees_coordinator("finished", why="1 rounds are committed")
        assert [one.survivors for one in fleet.results()] == [5]


@pytest.mark.slow
async def test_a_broker_that_stays_away_is_waited_for(tmp_path: Path) -> None:
    async with scene(tmp_path, rounds=1) as (fleet, devices):
        devices[0].gate.hold(SealedShares)
        await fleet.sees_round(1, shared=4)
        os.kill(fleet.broker.pid, signal.SIGKILL)
        devices[0].gate.open()
        await CLOCK.sleep(3)
        await fleet.broker.restart(keep_state=False)
        await fleet.sees_coordinator("finished", why="1 rounds are committed")
        assert [one.survivors for one in fleet.results()] == [5]
