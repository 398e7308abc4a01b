"""The programs over mutual TLS, under the access rules; and coordinators that are not what they say."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from real_fleet import FLEET, PATIENCE
from real_puppets import Puppet
from real_puppets import said as word
from secure_broker import Office, transport
from secure_fleet import OLD, SecureFleet
from tiny_plan import plan_text

from broker.transport import Delivery
from protocol.certificates import Role
from protocol.frames import Frame, seal_frame
from protocol.ids import DeviceId, Order
from protocol.messages import Decline, Manifest, decode_from_coordinator
from protocol.topics import Topics
from runtime.identity import Identity

pytestmark = pytest.mark.broker

THREE = ["d1", "d2", "d3"]
EIGHT = [f"d{number}" for number in range(1, 9)]


async def test_eight_agents_train_over_mutual_tls(tmp_path: Path) -> None:
    async with SecureFleet(tmp_path, plan_text(rounds=2)) as fleet:
        watcher = await watch_program(fleet)
        coordinator = await fleet.start_coordinator(start_when=8)
        agents = await fleet.start_agents(*EIGHT)
        await fleet.sees_coordinator("finished", why="2 rounds are committed")
        assert await coordinator.ended() == 0
        assert [(one.result, one.survivors) for one in fleet.results()] == [("committed", 8)] * 2
        for agent in agents.values():
            assert await agent.terminate() == 0
        watcher.terminate()
        printed, _ = await watcher.communicate()
        assert [b'"committed"' in printed, await watcher.wait()] == [True, 0]


async def watch_program(fleet: SecureFleet) -> asyncio.subprocess.Process:
    identity = fleet.office.identity("watch", Role.WATCH)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "console", "watch", "--fleet", FLEET, "--json"),
        *("--broker", str(fleet.broker.address), "--identity", str(identity.folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )


# Coordinators that are none, or not this fleet's, or of the past. The broker itself lets them pass: whatever
# its rules are worth, no agent answers them.


async def test_no_agent_follows_a_rogue_coordinator(tmp_path: Path) -> None:
    async with SecureFleet(tmp_path, plan_text(rounds=1)) as fleet, AsyncExitStack() as stack:
        puppets = [Puppet(fleet, name, number) for number, name in enumerate(THREE, 1)]
        for puppet in puppets:
            await stack.enter_async_context(puppet)
        invitations = await overheard(puppets[0])
        coordinator = await fleet.start_coordinator(start_when=3)
        await fleet.sees_coordinator("finished", why="1 rounds are committed")
        assert await coordinator.ended() == 0
        frame, manifest = invitations[0]
        for puppet in puppets:
            await puppet.quiet()

        said, office = list[Delivery](), fleet.office
        way_in = transport(fleet.broker.address, office.identity(OLD, Role.COORDINATOR))
        rogue = await stack.enter_async_context(way_in)
        await rogue.subscribe(fleet.topics.every_outbox, said.append)
        later = Order(1, 1, 2)
        for invitation in (
            seal_frame(office.identity("insider"), renewed(manifest, later)),
            seal_frame(elsewhere(tmp_path), renewed(manifest, later)),
            seal_frame(former(office), renewed(manifest, Order(0, 1, 2))),
            seal_frame(former(office), renewed(manifest, later)),
            frame,
        ):
            for name in THREE:
                await rogue.publish(fleet.topics.inbox(DeviceId(name)), invitation)
        for puppet in puppets:
            await until(lambda agent=puppet.agent: agent.refused == 4)
        # The replayed one is the coordinator's own, of the round that they were in last.
        await until(lambda: len(said) == len(THREE))
        assert all(isinstance(word(one.topic, one.payload), Decline) for one in said)
        said.clear()

        # They would have answered the right one.
        true = office.identity("coordinator", Role.COORDINATOR, generation=1)
        for name in THREE:
            await rogue.publish(
                fleet.topics.inbox(DeviceId(name)), seal_frame(true, renewed(manifest, later))
            )
        await until(lambda: {one.topic for one in said} == {fleet.topics.outbox(DeviceId(n)) for n in THREE})


async def test_the_broker_gives_a_device_no_say_as_coordinator(tmp_path: Path) -> None:
    async with SecureFleet(tmp_path, plan_text(rounds=1)) as fleet, Puppet(fleet, "d1", 1) as puppet:
        await fleet.sees_device("d1", "idle")
        arrived = list[Delivery]()
        await puppet.transport.subscribe(fleet.topics.inbox(DeviceId("d1")), arrived.append)
        insider = fleet.office.identity("insider")
        async with transport(fleet.broker.address, insider) as rogue:
            await rogue.publish(fleet.topics.inbox(DeviceId("d1")), b"invitation")
        true = fleet.office.identity("coordinator", Role.COORDINATOR)
        async with transport(fleet.broker.address, true) as coordinator:
            await coordinator.publish(fleet.topics.inbox(DeviceId("d1")), b"mark")
        await until(lambda: arrived)
        assert [one.payload for one in arrived] == [b"mark"]


async def overheard(puppet: Puppet) -> list[tuple[bytes, Manifest]]:
    """What the device is invited with, as it comes."""
    found = list[tuple[bytes, Manifest]]()

    def take(delivery: Delivery) -> None:
        message = decode_from_coordinator(msgspec.msgpack.decode(delivery.payload, type=Frame).body)
        if isinstance(message, Manifest):
            found.append((delivery.payload, message))

    await puppet.transport.subscribe(Topics(FLEET).inbox(DeviceId(puppet.name)), take)
    return found


def renewed(manifest: Manifest, order: Order) -> Manifest:
    """The same invitation, to another round."""
    return replace(manifest, order=order)


def elsewhere(folder: Path) -> Identity:
    """A coordinator with all rights, in another fleet of the same name."""
    return Office(FLEET, folder / "elsewhere").identity("coordinator", Role.COORDINATOR, generation=1)


def former(office: Office) -> Identity:
    """Of this fleet, with the right role, of the generation before."""
    return office.identity("coordinator", Role.COORDINATOR, generation=0)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 (agents do not set our events)
            await asyncio.sleep(0.01)
