"""Whoever may publish at the broker can say what he likes: it is counted and dropped, and rounds commit."""

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from real_fleet import CLOCK, ENTROPY, FLEET, RealFleet
from real_puppets import Puppet, plain_mean
from structlog.testing import capture_logs
from tiny_plan import plan_text

from broker.embedded import Engine
from protocol.certificates import Role
from protocol.eligibility import Facts
from protocol.frames import seal_frame
from protocol.ids import DeviceId, Order, UnixTime
from protocol.messages import MAX_FRAME, Cohort, Decline, Offer, RoundEnded, SealedShares, SurvivorSet
from registrar.authority import FleetAuthority

pytestmark = pytest.mark.broker

ROUND_1 = Order(1, 1, 1)
NAMES = [DeviceId(f"p{number}") for number in range(1, 6)]

GARBAGE = [
    b"",
    b"\xff" * 300,
    b"\xc0",
    b"\x91" * 100_000,  # an array in an array in an array …
    b"\xdd\xff\xff\xff\xff",  # an array of four thousand million things
    bytes(MAX_FRAME + 1),
]


@pytest.mark.parametrize("engine", ["mosquitto", "nats"])
async def test_hostile_frames_are_counted_and_dropped(tmp_path: Path, engine: Engine) -> None:
    async with RealFleet(tmp_path, engine, plan_text(rounds=2)) as fleet, AsyncExitStack() as stack:
        logs = stack.enter_context(capture_logs())
        coordinator = await fleet.start_coordinator(start_when=5)
        devices = [Puppet(fleet, name, number) for number, name in enumerate(NAMES, 1)]
        for device in devices:
            await stack.enter_async_context(device)
        devices[0].gate.hold(SealedShares)
        await fleet.sees_round(1, phase="sharing", shared=4)

        mallory = await stack.enter_async_context(fleet.connect("mallory"))
        to_coordinator = to_one = to_all = 0
        for topic, payload in _attacks(fleet):
            await mallory.publish(topic, payload)
            to_coordinator += topic.endswith(("/offer", "/outbox"))
            to_one += topic.endswith("/p2/inbox")
            to_all += topic in decisions(fleet) and payload != b""  # which takes back a retained decision

        devices[0].gate.open()
        await fleet.sees_coordinator("finished", why="2 rounds are committed")
        assert await coordinator.ended() == 0
        assert [(one.result, one.survivors) for one in fleet.results()] == [("committed", 5)] * 2
        moved = fleet.kept().vector - devices[0].worker.received[0]
        np.testing.assert_allclose(moved, 2 * plain_mean(devices), atol=5e-6)

        refusals = [json.loads(line) for line in (tmp_path / "coordinator.log").read_text().splitlines()]
        assert sum(line["event"] == "refused" for line in refusals) >= to_coordinator
        assert devices[1].agent.refused == to_one
        assert sum(line["event"] == "frame_refused" for line in logs) == len(NAMES) * to_all


def decisions(fleet: RealFleet) -> list[str]:
    names = ("cohort", "share-set", "survivor-set", "confirmations", "ended")
    return [fleet.topics.decision(ROUND_1, name) for name in names]


def _attacks(fleet: RealFleet) -> Iterator[tuple[str, bytes]]:
    """What Mallory says: noise everywhere, then words with a signature that does not give him the right."""
    topics = fleet.topics
    mail = [(topics.offer(name), topics.outbox(name), topics.inbox(name)) for name in NAMES]
    uploads = [topics.upload("main", name) for name in NAMES]
    statuses = [topics.coordinator_status, *(topics.device_status(name) for name in NAMES)]
    for topic in [*decisions(fleet), *(topic for topics in mail for topic in topics), *uploads, *statuses]:
        for payload in GARBAGE:
            yield topic, payload
    yield from _forgeries(fleet)


def _forgeries(fleet: RealFleet) -> Iterator[tuple[str, bytes]]:
    elsewhere = FleetAuthority.create(FLEET, UnixTime(CLOCK.unix() - 60), ENTROPY.bytes)
    impostor = elsewhere.issue("coordinator", Role.COORDINATOR, 1)
    double = elsewhere.issue("p2", Role.DEVICE)
    insider = fleet.authority.issue("insider", Role.DEVICE)
    topics, nothing = fleet.topics, bytes(32)
    ended = RoundEnded(ROUND_1, "aborted", "because I say so", 86_400.0)
    for signer in (impostor, insider):
        yield topics.decision(ROUND_1, "ended"), seal_frame(signer, ended)
        yield topics.inbox(NAMES[1]), seal_frame(signer, ended)
        yield topics.decision(ROUND_1, "cohort"), seal_frame(signer, Cohort(ROUND_1, nothing, ()))
        yield topics.decision(ROUND_1, "survivor-set"), seal_frame(signer, SurvivorSet(ROUND_1, nothing, ()))
    seen = Order(2**32 - 1, 2**53 - 1, 2**53 - 1)
    for message in (Decline(ROUND_1, nothing, "not me"), Offer(9, seen, Facts(idle=True), ())):
        frame = seal_frame(double, message)
        yield topics.outbox(NAMES[1]), frame
        yield topics.offer(NAMES[1]), frame[:-1] + bytes([frame[-1] ^ 1])
    honest = seal_frame(insider, Decline(ROUND_1, nothing, "of a stranger to this round"))
    yield topics.outbox(NAMES[1]), honest[:-1] + bytes([honest[-1] ^ 1])
    yield topics.outbox(NAMES[1]), honest[: len(honest) // 2]
