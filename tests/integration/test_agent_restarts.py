"""An agent killed at every stage and started again: it sits its round out and joins the next."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from real_fleet import RealFleet
from real_puppets import Puppet, said
from tiny_plan import plan_text

from broker.transport import Delivery
from protocol.ids import DeviceId
from protocol.messages import (
    Accept,
    Confirmation,
    Decline,
    FromDevice,
    Offer,
    Reveal,
    RoundKeys,
    SealedShares,
    UploadOffer,
)

pytestmark = pytest.mark.broker

Word = Accept | Decline | RoundKeys | SealedShares | UploadOffer | Confirmation | Reveal
VICTIM = DeviceId("victim")


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[tuple[RealFleet, Puppet, list[Word]]]:
    """Four puppets, one of whose words can be held back, and what the victim says."""
    async with RealFleet(folder, plan=plan_text(rounds=2)) as fleet, AsyncExitStack() as stack:
        fleet.enrol(VICTIM)
        words = list[Word]()

        def hear(delivery: Delivery) -> None:
            word = said(delivery.topic, delivery.payload)
            if word is not None and not isinstance(word, Offer):
                words.append(word)
                fleet.watch.changed.set()

        await fleet.user.subscribe(fleet.topics.outbox(VICTIM), hear)
        await fleet.start_coordinator(start_when=5)
        puppets = [Puppet(fleet, f"p{number}", number) for number in range(1, 5)]
        for puppet in puppets:
            await stack.enter_async_context(puppet)
        yield fleet, puppets[0], words


async def killed_and_started_again_it_joins_the_next(
    fleet: RealFleet, slow: Puppet, words: list[Word]
) -> None:
    await fleet.programs[-1].kill()
    await fleet.sees_device(VICTIM, "lost", boot=1)
    before = len(words)
    victim = (await fleet.start_agents(VICTIM))[VICTIM]
    await fleet.sees_device(VICTIM, "idle", boot=2)
    slow.gate.open()
    await fleet.sees_coordinator("finished", why="2 rounds are committed")
    assert await victim.terminate() == 0
    assert {word.order.round for word in words[before:]} == {2}
    assert fleet.results()[1].survivors == 5


@pytest.mark.parametrize("stage", [RoundKeys, SealedShares, UploadOffer, Confirmation])
async def test_killed_once_it_has_said_something(tmp_path: Path, stage: type[FromDevice]) -> None:
    async with scene(tmp_path) as (fleet, slow, words):
        slow.gate.hold(stage)
        await fleet.start_agents(VICTIM)
        await slow.gate.knocked()
        await fleet.watch.until("its word", lambda: any(isinstance(word, stage) for word in words))
        await killed_and_started_again_it_joins_the_next(fleet, slow, words)


async def test_killed_while_training(tmp_path: Path) -> None:
    async with scene(tmp_path) as (fleet, slow, words):
        data, kept = tmp_path / VICTIM / "data.npz", tmp_path / "data.npz"
        data.rename(kept)
        os.mkfifo(data)  # nobody ever writes into it, so reading it never ends
        slow.gate.hold(SealedShares)
        await fleet.start_agents(VICTIM)
        await fleet.sees_round(1, phase="keying", accepted=5, trained=4)
        kept.replace(data)
        await killed_and_started_again_it_joins_the_next(fleet, slow, words)


async def test_on_a_full_disk_it_declines_and_joins_once_there_is_room(tmp_path: Path) -> None:
    async with scene(tmp_path) as (fleet, slow, words):
        state = tmp_path / VICTIM / "state"
        state.mkdir()
        (state / ".agent.json.new").symlink_to("/dev/full")
        (state / "artifacts").symlink_to("/dev/full")
        slow.gate.hold(SealedShares)
        agent = (await fleet.start_agents(VICTIM))[VICTIM]
        await fleet.watch.until("its decline", lambda: any(isinstance(word, Decline) for word in words))
        assert [type(word) for word in words] == [Decline]
        assert [word.reason for word in words if isinstance(word, Decline)] == ["disk full"]
        assert not (state / "agent.json").exists()
        (state / ".agent.json.new").unlink()
        slow.gate.open()
        await fleet.sees_coordinator("finished", why="2 rounds are committed")
        assert await agent.terminate() == 0
    assert [one.survivors for one in fleet.results()] == [4, 5]
    assert {word.order.round for word in words[1:]} == {2}
    assert "artifact_not_kept" in agent.log.read_text()
