"""A broker that took the chunks and does not give them: devices say what they miss, and it is said again."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from hand_clock import HandClock, settle

from broker.memory import MemoryBroker, MemoryTransport, _MemorySubscription
from broker.transport import Delivery, Handler
from protocol.chunks import MIN_CHUNK_SIZE, ChunkWanted, describe
from protocol.ids import DeviceId
from protocol.topics import Topics
from runtime.downloads import ASK_AFTER, PULL_PATIENCE
from runtime.transfers import ChunkResender, fetch_blob, publish_blob

TOPICS = Topics("test")
CONTENT = bytes(range(256)) * 160  # ten chunks of the smallest size
REF = describe(CONTENT, MIN_CHUNK_SIZE)
SENSOR = DeviceId("sensor")


class Bus:
    """A coordinator that has published a content, and a device; what is asked for and what is said again."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.clock = HandClock()
        self.coordinator = self.broker.connect("coordinator")
        self.device: MemoryTransport = self.broker.connect("sensor")
        self.resender = ChunkResender(self.coordinator, TOPICS, self.clock)
        self.asked: list[int] = []
        self.said: list[str] = []

    async def begin(self) -> None:
        await publish_blob(self.coordinator, TOPICS, CONTENT, REF)
        self.resender.offer(CONTENT, REF)
        await self.coordinator.subscribe(TOPICS.every_want, self.wanted, qos=0)
        await self.coordinator.subscribe(TOPICS.every_blob_chunk, self.overheard)
        await settle()
        self.said.clear()

    def wanted(self, delivery: Delivery) -> None:
        self.asked.append(msgspec.msgpack.decode(delivery.payload, type=ChunkWanted).index)
        self.resender.wanted(delivery)

    def overheard(self, delivery: Delivery) -> None:
        self.said.append(delivery.topic)

    def fetch(self) -> asyncio.Task[memoryview]:
        wants = TOPICS.wants(SENSOR)
        return asyncio.create_task(fetch_blob(self.device, TOPICS, REF, clock=self.clock, wants=wants))


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    made = Bus()
    async with made.coordinator, made.device, made.resender:
        await made.begin()
        yield made


async def test_what_the_broker_gives_is_not_asked_for(bus: Bus) -> None:
    assert await bus.fetch() == CONTENT
    assert bus.asked == bus.said == []


async def test_what_it_does_not_give_is_asked_for_once_and_the_rest_at_once(bus: Bus) -> None:
    bus.broker.retained.clear()
    fetched = bus.fetch()
    await bus.clock.pass_time(ASK_AFTER - 1)
    assert bus.asked == []
    await bus.clock.pass_time(2)
    assert await fetched == CONTENT
    assert sorted(bus.asked) == list(range(10))


async def test_many_that_miss_the_same_are_answered_together(bus: Bus) -> None:
    bus.broker.retained.clear()
    async with bus.broker.connect("other") as other:
        ours = bus.fetch()
        bus.device = other
        theirs = bus.fetch()
        await bus.clock.pass_time(ASK_AFTER + 1)
        assert await ours == await theirs == CONTENT
    assert len(bus.said) == 10


async def test_an_answer_that_is_lost_is_asked_for_again(bus: Bus) -> None:
    bus.broker.retained.clear()
    bus.resender.withdraw(REF)
    fetched = bus.fetch()
    await bus.clock.pass_time(ASK_AFTER + 1)
    assert sorted(bus.asked) == [0, 1]
    bus.resender.offer(CONTENT, REF)
    await bus.clock.pass_time(PULL_PATIENCE + ASK_AFTER)
    assert await fetched == CONTENT


async def test_a_broker_that_gives_some_is_asked_for_the_others(bus: Bus) -> None:
    for index in (0, 1, 5, 6, 9):
        del bus.broker.retained[TOPICS.blob_chunk(REF.sha256, index)]
    fetched = bus.fetch()
    await bus.clock.pass_time(3 * (ASK_AFTER + 1))
    assert await fetched == CONTENT
    assert len(bus.said) < 10


class SlowLink(MemoryTransport):
    """Whatever comes on it takes so many seconds."""

    clock: HandClock
    seconds: float
    under_way: set[asyncio.Task[None]]

    async def subscribe(self, filter: str, handler: Handler, *, qos: int = 1) -> _MemorySubscription:  # noqa: A002 (MQTT's word)
        async def later(delivery: Delivery) -> None:
            await self.clock.sleep(self.seconds)
            handler(delivery)

        return await super().subscribe(
            filter, lambda delivery: self.under_way.add(asyncio.create_task(later(delivery))), qos=qos
        )


async def test_a_slow_link_asks_once_and_then_has_patience(bus: Bus) -> None:
    async with SlowLink(bus.broker, "slow", None, clean=True) as slow:
        slow.clock, slow.seconds, slow.under_way = bus.clock, ASK_AFTER + 3, set()
        bus.device = slow
        fetched = bus.fetch()
        await bus.clock.pass_time(5 * (ASK_AFTER + 3) + 1)
        assert await fetched == CONTENT
    assert sorted(bus.asked) == [0, 1]


@pytest.mark.parametrize(
    "want", [b"", b"\xc1", msgspec.msgpack.encode([b"short", 0]), msgspec.msgpack.encode([REF.sha256, -1]),
             msgspec.msgpack.encode([REF.sha256, 10]), msgspec.msgpack.encode([bytes(32), 0])],
)  # fmt: skip
async def test_what_is_no_chunk_of_ours_is_passed_over(bus: Bus, want: bytes) -> None:
    bus.resender.wanted(Delivery(TOPICS.wants(SENSOR), want, retained=False))
    await bus.clock.pass_time(1)
    assert bus.said == []


async def test_what_is_withdrawn_while_it_waits_is_not_said(bus: Bus) -> None:
    for index in range(10):
        want = msgspec.msgpack.encode(ChunkWanted(REF.sha256, index))
        bus.resender.wanted(Delivery(TOPICS.wants(SENSOR), want, retained=False))
    await settle()
    bus.resender.withdraw(REF)
    await bus.clock.pass_time(1)
    assert bus.said == [TOPICS.blob_chunk(REF.sha256, 0)]
