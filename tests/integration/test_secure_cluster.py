"""Three NATS nodes with mutual TLS and access rules; one of them dies in the middle of a round."""

import asyncio
from pathlib import Path

import pytest
from real_puppets import Puppet
from secure_broker import transport
from secure_cluster import ClusterFleet
from tiny_plan import plan_text

from broker.transport import Delivery, RefusedError
from protocol.certificates import Role
from protocol.ids import DeviceId
from protocol.messages import SealedShares

pytestmark = [pytest.mark.broker, pytest.mark.timeout(400)]

ELECTIONS = 240.0
"""Seconds to wait: a cluster that elects new leaders answers nothing for several, and may cost rounds."""

AGENTS = ["d1", "d2", "d3"]


async def test_the_job_goes_on_when_a_node_dies_in_a_round(tmp_path: Path) -> None:
    # A cluster that elects new leaders may cost a device its round: that one ends by its deadline then.
    plan = plan_text(rounds=2, deadline=12.0)
    async with ClusterFleet(tmp_path, plan, [*AGENTS, "p1"]) as fleet:
        fleet.watch.patience = ELECTIONS
        # At the second node: the coordinator and d3. At the third, d1; at the first, d2, p1 and the user.
        coordinator = await fleet.start_coordinator(start_when=4)
        agents = await fleet.start_agents(*AGENTS)
        async with Puppet(fleet, "p1", 1) as slow:
            slow.gate.hold(SealedShares)
            await slow.gate.knocked()
            fleet.nodes[1].kill()
            slow.gate.open()
            await fleet.sees_coordinator("finished", why="2 rounds are committed")
            assert await coordinator.ended() == 0
        committed = [one for one in fleet.results() if one.result == "committed"]
        assert [one.survivors >= 3 for one in committed] == [True, True]
        for agent in agents.values():
            assert await agent.terminate() == 0


async def test_what_the_rules_deny_is_denied_across_nodes(tmp_path: Path) -> None:
    async with ClusterFleet(tmp_path, plan_text(), ["d1", "d2"]) as fleet:
        topics, heard = fleet.topics, list[Delivery]()
        d1, d2 = DeviceId("d1"), DeviceId("d2")
        one = transport(fleet.nodes[0].address, fleet.issue("d1", Role.DEVICE))
        other = transport(fleet.nodes[1].address, fleet.issue("d2", Role.DEVICE))
        hears = transport(fleet.nodes[2].address, fleet.issue("coordinator", Role.COORDINATOR))
        async with one, other, hears:
            await hears.subscribe(topics.every_outbox, heard.append, qos=0)
            await other.subscribe(topics.inbox(d2), heard.append, qos=0)
            for secret in (topics.inbox(d2), topics.outbox(d2), "flw/#", "fl/#", "#"):
                with pytest.raises(RefusedError):
                    await one.subscribe(secret, heard.append)
            for forged in (topics.outbox(d2), topics.inbox(d2), topics.coordinator_status):
                await one.publish(forged, b"forged")
            await one.publish(topics.outbox(d1), b"own")
            async with asyncio.timeout(30):
                while not heard:  # noqa: ASYNC110 (other processes do not set our events)
                    await asyncio.sleep(0.01)
        assert [one.payload for one in heard] == [b"own"]
