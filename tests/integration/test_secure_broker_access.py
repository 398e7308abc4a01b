"""Access rules on a real broker. It acknowledges what it denies, so what counts is what is not delivered.

A sender's messages keep their order: when its permitted message behind the forbidden ones has arrived, they
have not.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from secure_broker import SecureBroker, secure_broker, transport

from broker.access import access_of
from broker.mqtt import MqttTransport
from broker.routing import matches
from broker.transport import MAX_PACKET, Delivery, TransportError, Will
from protocol.certificates import Role
from protocol.ids import DeviceId, Order
from protocol.topics import Topics

pytestmark = pytest.mark.broker

TOPICS = Topics("f")
D1, D2 = DeviceId("d1"), DeviceId("d2")
ORDER = Order(1, 2, 3)
EVERYTHING = ("fl/#", "flw/#")

ROLES = {
    "d1": Role.DEVICE,
    "d2": Role.DEVICE,
    "coordinator": Role.COORDINATOR,
    "registrar": Role.REGISTRAR,
    "watch": Role.WATCH,
    "watch-alice": Role.WATCH,
    "guard": Role.GUARD,
    "claim": Role.CLAIM,
}
SPOKEN = [
    TOPICS.coordinator_status,
    TOPICS.round_status,
    TOPICS.round_result(ORDER),
    TOPICS.model_status,
    TOPICS.broker_status,
    TOPICS.decision(ORDER, "cohort"),
    TOPICS.high_water,
    TOPICS.pace,
    TOPICS.revocations,
    TOPICS.blob_chunk(bytes(32), 0),
    TOPICS.enrolment_request("token"),
    TOPICS.enrolment_answer("token"),
    *(
        topic
        for device in (D1, D2, DeviceId("watch"))
        for topic in (
            TOPICS.offer(device),
            TOPICS.inbox(device),
            TOPICS.outbox(device),
            TOPICS.wants(device),
            TOPICS.upload("main", device),
            TOPICS.device_status(device),
            TOPICS.enrolment_request(device),
            TOPICS.enrolment_answer(device),
        )
    ),
    "fl/1/another/round",
    "flw/1/another/devices/d1/inbox",
    "anything",
]


class Everybody:
    """A client of each name, each with the widest subscriptions there are, and what they heard."""

    def __init__(self, clients: dict[str, MqttTransport]) -> None:
        self.clients = clients
        self.heard: dict[str, list[Delivery]] = {name: [] for name in clients}

    async def listen(self) -> None:
        for name, client in self.clients.items():
            for wide in EVERYTHING:
                await client.subscribe(wide, self.heard[name].append)

    async def says(self, name: str, topic: str, payload: bytes, *, retain: bool = False) -> None:
        await self.clients[name].publish(topic, payload, retain=retain)

    def topics(self, name: str, payload: bytes) -> set[str]:
        return {one.topic for one in self.heard[name] if one.payload == payload}


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[SecureBroker]:
    async with secure_broker(tmp_path, "watch-alice") as running:
        yield running


@pytest.fixture
async def everybody(broker: SecureBroker) -> AsyncIterator[Everybody]:
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(
                transport(broker.address, broker.office.identity(name, role))
            )
            for name, role in ROLES.items()
        }
        yield Everybody(clients)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (other processes do not set our events)
            await asyncio.sleep(0.01)


# Something that each may say, and somebody who hears it.
MARKS = {
    "d1": (TOPICS.offer(D1), "coordinator"),
    "d2": (TOPICS.offer(D2), "coordinator"),
    "coordinator": (TOPICS.round_status, "watch"),
    "registrar": (TOPICS.revocations, "guard"),
    "guard": (TOPICS.broker_status, "watch"),
    "claim": (TOPICS.enrolment_request("token"), "registrar"),
}


async def test_whatever_anybody_says_reaches_whom_the_rules_name_and_nobody_else(
    everybody: Everybody,
) -> None:
    """Every name says everything, and hears with subscriptions to everything."""
    await everybody.listen()
    for name in ROLES:
        for topic in SPOKEN:
            await everybody.says(name, topic, name.encode())
    for name, (topic, hearer) in MARKS.items():
        mark = b"mark of " + name.encode()
        await everybody.says(name, topic, mark)
        await until(lambda heard=hearer, mark=mark: everybody.topics(heard, mark))
    for speaker in ROLES:
        for hearer in ROLES:
            assert everybody.topics(hearer, speaker.encode()) == set(_reaches(speaker, hearer))


def _reaches(speaker: str, hearer: str) -> Iterator[str]:
    says, hears = access_of(TOPICS, speaker).publish, access_of(TOPICS, hearer).subscribe
    # On its public topics nobody can be denied to hear what they say themselves.
    itself = (TOPICS.decision(ORDER, "cohort"), TOPICS.blob_chunk(bytes(32), 0), TOPICS.coordinator_status)
    for topic in SPOKEN:
        heard = covered(hears, topic) or (hearer == "coordinator" and topic in itself)
        heard |= hearer == "registrar" and topic == TOPICS.revocations
        if heard and covered(says, topic):
            yield topic


def covered(filters: tuple[str, ...], topic: str) -> bool:
    return any(matches(one, topic) for one in filters)


# What matters most, one by one.


async def test_a_device_cannot_speak_for_another_or_for_the_coordinator(everybody: Everybody) -> None:
    await everybody.listen()
    for topic in (
        TOPICS.outbox(D2),
        TOPICS.offer(D2),
        TOPICS.upload("main", D2),
        TOPICS.device_status(D2),
        TOPICS.inbox(D2),
        TOPICS.inbox(D1),
        TOPICS.decision(ORDER, "cohort"),
        TOPICS.blob_chunk(bytes(32), 0),
        TOPICS.coordinator_status,
        TOPICS.revocations,
        TOPICS.enrolment_answer("d1"),
    ):
        await everybody.says("d1", topic, b"forged")
    await everybody.says("d1", TOPICS.outbox(D1), b"own")
    await until(lambda: everybody.topics("coordinator", b"own"))
    assert not any(everybody.topics(name, b"forged") for name in ROLES)


async def test_a_device_cannot_listen_in_on_another(everybody: Everybody) -> None:
    """Not by its exact topics either, which a broker might judge apart from wildcards."""
    heard = everybody.heard["d1"]
    for secret in (
        TOPICS.inbox(D2),
        TOPICS.outbox(D2),
        TOPICS.upload("main", D2),
        TOPICS.enrolment_answer("d2"),
    ):
        await everybody.clients["d1"].subscribe(secret, heard.append)
    await everybody.listen()
    await everybody.says("d2", TOPICS.outbox(D2), b"secret")
    await everybody.says("d2", TOPICS.upload("main", D2), b"secret")
    await everybody.says("registrar", TOPICS.enrolment_answer("d2"), b"secret")
    await everybody.says("coordinator", TOPICS.inbox(D2), b"secret")
    await everybody.says("coordinator", TOPICS.inbox(D1), b"for d1")
    await until(lambda: everybody.topics("d1", b"for d1"))
    await until(lambda: len(everybody.topics("d2", b"secret")) == 2)
    assert not everybody.topics("d1", b"secret")


async def test_retained_messages_are_denied_like_others(everybody: Everybody) -> None:
    """Neither planted, nor deleted, nor read."""
    await everybody.says("coordinator", TOPICS.decision(ORDER, "cohort"), b"kept", retain=True)
    await everybody.says("coordinator", TOPICS.high_water, b"kept", retain=True)
    await everybody.says("d1", TOPICS.decision(ORDER, "cohort"), b"", retain=True)
    await everybody.says("d1", TOPICS.decision(ORDER, "share-set"), b"planted", retain=True)
    await everybody.says("d1", TOPICS.device_status(D2), b"planted", retain=True)
    await everybody.says("d1", TOPICS.device_status(D1), b"own", retain=True)
    await everybody.listen()
    await until(lambda: everybody.topics("watch", b"own") and everybody.topics("d2", b"kept"))
    assert everybody.topics("d2", b"kept") == {TOPICS.decision(ORDER, "cohort")}
    assert not everybody.topics("claim", b"kept")
    assert not any(everybody.topics(name, b"planted") for name in ROLES)


async def test_a_claim_asks_to_be_enrolled_and_nothing_more(everybody: Everybody) -> None:
    await everybody.says("coordinator", TOPICS.blob_chunk(bytes(32), 0), b"weights", retain=True)
    await everybody.clients["claim"].subscribe(
        TOPICS.blob_chunk(bytes(32), 0), everybody.heard["claim"].append
    )
    await everybody.listen()
    await everybody.says("claim", TOPICS.offer(DeviceId("claim")), b"claim")
    await everybody.says("claim", TOPICS.enrolment_answer("token"), b"claim")
    await everybody.says("claim", TOPICS.enrolment_request("token"), b"claim")
    await until(lambda: everybody.topics("registrar", b"claim"))
    await everybody.says("registrar", TOPICS.enrolment_answer("token"), b"certificate")
    await until(lambda: everybody.topics("claim", b"certificate"))
    assert {one.topic for one in everybody.heard["claim"]} == {TOPICS.enrolment_answer("token")}
    assert everybody.topics("registrar", b"claim") == {TOPICS.enrolment_request("token")}
    assert not any(everybody.topics(name, b"claim") for name in ROLES if name != "registrar")


async def test_a_forbidden_will_is_not_said(broker: SecureBroker) -> None:
    heard = list[Delivery]()
    office = broker.office
    coordinator = transport(broker.address, office.identity("coordinator", Role.COORDINATOR))
    async with coordinator as hears:
        await hears.subscribe(TOPICS.every_device_status, heard.append)
        for name, about in (("d1", D2), ("d2", D2)):
            will = Will(TOPICS.device_status(about), f"{name} is lost".encode())
            identity = office.identity(name)
            async with transport(broker.address, identity, will=will, max_payload=2 * MAX_PACKET) as dying:
                # The broker hangs up on whoever sends this.
                with pytest.raises(TransportError):
                    await dying.publish(TOPICS.outbox(DeviceId(name)), bytes(MAX_PACKET))
        await until(lambda: heard)
    assert [one.payload for one in heard] == [b"d2 is lost"]


async def test_new_rules_count_from_the_next_signal_on(broker: SecureBroker) -> None:
    """For clients that are connected, too."""
    heard = list[Delivery]()
    office = broker.office
    async with (
        transport(broker.address, office.identity("d1")) as device,
        transport(broker.address, office.identity("coordinator", Role.COORDINATOR)) as hears,
    ):
        await hears.subscribe(TOPICS.every_outbox, heard.append)
        rules = broker.files / "acl"
        rules.write_text(rules.read_text() + f"\nuser d1\ntopic deny {TOPICS.outbox(D1)}\n")
        broker.reload()
        await until(lambda: "Reloading config" in broker.log())
        await device.publish(TOPICS.outbox(D1), b"denied")
        await device.publish(TOPICS.offer(D1), b"not heard")
        await hears.subscribe(TOPICS.every_offer, heard.append)
        await device.publish(TOPICS.offer(D1), b"mark")
        await until(lambda: heard)
    assert [one.payload for one in heard] == [b"mark"]
