import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from hand_clock import HandClock, settle

from broker.memory import MemoryBroker
from broker.transport import TransportError
from protocol.chunks import MIN_CHUNK_SIZE, Assembly, BlobRef, Chunk, describe, split
from protocol.errors import MisuseError, ProtocolError
from protocol.ids import DeviceId
from protocol.topics import Topics
from runtime.transfers import (
    Uploader,
    UploadReceiver,
    UploadStalledError,
    clear_blob,
    fetch_blob,
    publish_blob,
)
from runtime.uploads import HASHED_APART

TOPICS = Topics("test")
CONTENT = bytes(range(256)) * 160  # ten chunks of the smallest size
REF = describe(CONTENT, MIN_CHUNK_SIZE)
SENSOR = DeviceId("sensor")


class Bus:
    """A broker, an aggregator with its grants, and a device that hears them."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.clock = HandClock()
        self.aggregator = self.broker.connect("aggregator")
        self.device = self.broker.connect("sensor")
        self.grants: list[tuple[DeviceId, tuple[int, ...]]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.uploader: Uploader | None = None
        self.hear = True

    def receiver(self, *, stall: float = 60.0, max_assembling: int = 4) -> UploadReceiver:
        return UploadReceiver(
            self.aggregator,
            TOPICS,
            "0",
            self.grant,
            clock=self.clock,
            window=4,
            stall=stall,
            max_assembling=max_assembling,
        )

    def upload(self, rate: float | None = None) -> Uploader:
        self.uploader = Uploader(
            self.device, TOPICS, "0", SENSOR, CONTENT, REF, clock=self.clock, bytes_per_second=rate
        )
        return self.uploader

    async def grant(self, device: DeviceId, sha256: bytes, indices: tuple[int, ...]) -> None:
        assert sha256 == REF.sha256
        self.grants.append((device, indices))
        if self.uploader is not None and self.hear and device == SENSOR:
            self.tasks.append(asyncio.create_task(self.uploader.granted(indices)))


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    made = Bus()
    async with made.aggregator, made.device:
        yield made
        for task in made.tasks:
            # A test that failed leaves the clock standing, and senders that wait for it.
            task.cancel() if not task.done() else task.result()


def chunk_frame(index: int, data: bytes | memoryview | None = None, ref: BlobRef = REF) -> bytes:
    content = CONTENT[ref.span(index)] if data is None else data
    return msgspec.msgpack.encode(Chunk(ref.sha256, index, memoryview(content)))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a thread, a second at most."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never happened")


# Up.


async def test_credits_bring_the_whole_content(bus: Bus) -> None:
    bus.upload()
    async with bus.receiver() as receiver:
        assert await receiver.receive(SENSOR, REF) == CONTENT
    assert bus.grants[0] == (SENSOR, (0, 1, 2, 3))
    assert sorted(index for _, indices in bus.grants for index in indices) == list(range(10))
    assert receiver.counts.accepted == 10


async def test_what_is_lost_is_granted_again(bus: Bus) -> None:
    bus.upload()
    bus.hear = False
    async with bus.receiver() as receiver:
        received = asyncio.create_task(receiver.receive(SENSOR, REF))
        await bus.clock.pass_time(9)
        assert len(bus.grants) == 1
        bus.hear = True
        await bus.clock.pass_time(2)
        assert await received == CONTENT
    assert [indices for _, indices in bus.grants][:2] == [(0, 1, 2, 3)] * 2


async def test_a_silent_device_gives_its_place_to_the_next(bus: Bus) -> None:
    bus.upload()
    async with bus.receiver(stall=30.0, max_assembling=1) as receiver:
        silent = asyncio.create_task(receiver.receive(DeviceId("silent"), REF))
        await bus.clock.pass_time(1)
        waiting = asyncio.create_task(receiver.receive(SENSOR, REF))
        await bus.clock.pass_time(20)
        assert not waiting.done()
        await bus.clock.pass_time(10)
        with pytest.raises(UploadStalledError, match="10 chunks are missing"):
            await silent
        assert await waiting == CONTENT


async def test_a_cancelled_upload_frees_its_place(bus: Bus) -> None:
    bus.upload()
    async with bus.receiver(max_assembling=1) as receiver:
        first = asyncio.create_task(receiver.receive(DeviceId("first"), REF))
        await settle()
        first.cancel()
        assert await receiver.receive(SENSOR, REF) == CONTENT


async def test_damaged_foreign_and_uninvited_chunks_are_counted_and_dropped(bus: Bus) -> None:
    other = describe(b"x" * 10 * MIN_CHUNK_SIZE, MIN_CHUNK_SIZE)
    topic, stranger = TOPICS.upload("0", SENSOR), TOPICS.upload("0", DeviceId("stranger"))
    async with bus.receiver() as receiver:
        received = asyncio.create_task(receiver.receive(SENSOR, REF))
        await settle()
        for frame in (b"", b"\xc1", chunk_frame(0)[:-1], chunk_frame(0, b"wrong"), chunk_frame(11, b"")):
            await bus.device.publish(topic, frame)
        await bus.device.publish(topic, chunk_frame(0, b"x" * MIN_CHUNK_SIZE, other))
        await bus.device.publish(stranger, chunk_frame(0))
        await bus.device.publish(topic, chunk_frame(0))
        await bus.device.publish(topic, chunk_frame(0))
        await settle()
        counts = receiver.counts
        assert (counts.accepted, counts.duplicates, counts.rejected, counts.unexpected) == (1, 1, 6, 1)
        await bus.upload().granted(range(10))
        assert await received == CONTENT


async def test_large_chunks_are_hashed_in_threads_and_only_those_that_are_awaited(bus: Bus) -> None:
    content = bytes(range(256)) * 4 * (HASHED_APART // 256)
    ref = describe(content, HASHED_APART)
    parts = [content[ref.span(index)] for index in range(ref.chunks)]
    spoiled = bytes(HASHED_APART)
    granted, topic = asyncio.Event(), TOPICS.upload("0", SENSOR)

    async def grant(*_: object) -> None:
        granted.set()

    async with UploadReceiver(bus.aggregator, TOPICS, "0", grant, clock=bus.clock, window=2) as receiver:
        receiving = asyncio.create_task(receiver.receive(SENSOR, ref))
        await granted.wait()
        for index, data in [(3, parts[3]), (0, spoiled), (0, parts[0])]:
            await bus.device.publish(topic, chunk_frame(index, data, ref))
        await until(lambda: receiver.counts.rejected == 1)
        # Nobody has granted 3, and 0 was on its way to a thread when it came again.
        assert (receiver.counts.accepted, receiver.counts.duplicates) == (0, 2)
        for _ in range(100):
            for index, data in enumerate(parts):
                await bus.device.publish(topic, chunk_frame(index, data, ref))
            await asyncio.sleep(0.01)
        assert receiving.done()
        assert bytes(receiving.result()) == content
    assert receiver.counts.accepted == 4


async def test_a_reference_that_lies_never_gets_a_place(bus: Bus) -> None:
    lie = msgspec.structs.replace(REF, size=5)
    async with bus.receiver() as receiver:
        with pytest.raises(ProtocolError, match="hashes came"):
            await receiver.receive(SENSOR, lie)


async def test_one_device_has_one_upload(bus: Bus) -> None:
    async with bus.receiver() as receiver:
        first = asyncio.create_task(receiver.receive(SENSOR, REF))
        await settle()
        with pytest.raises(MisuseError, match="already"):
            await receiver.receive(SENSOR, REF)
        await bus.upload().granted(range(10))
        await first


async def test_an_upload_survives_a_broker_that_forgets(bus: Bus) -> None:
    bus.upload(rate=float(MIN_CHUNK_SIZE))
    async with bus.receiver() as receiver:
        received = asyncio.create_task(receiver.receive(SENSOR, REF))
        await bus.clock.pass_time(2.5)
        bus.broker.restart(keep_state=False)
        await bus.clock.pass_time(120)
        assert await received == CONTENT


async def test_what_a_connection_took_with_it_is_granted_again_with_the_next(bus: Bus) -> None:
    bus.upload()
    bus.hear = False
    async with bus.receiver() as receiver:
        received = asyncio.create_task(receiver.receive(SENSOR, REF))
        await settle()
        bus.hear = True
        bus.broker.drop("aggregator")
        await settle()
        assert len(bus.grants) == 1
        bus.broker.resume(bus.aggregator)
        await settle()
        assert await received == CONTENT
    assert [indices for _, indices in bus.grants][:2] == [(0, 1, 2, 3)] * 2


async def test_a_chunk_that_does_not_leave_is_tried_once_more(bus: Bus) -> None:
    uploader = bus.upload()
    frames = list[bytes]()
    attempts = iter([TransportError("lost"), None, TransportError("lost"), TransportError("still")])

    async def publish(topic: str, payload: bytes) -> None:
        assert topic == TOPICS.upload("0", SENSOR)
        if error := next(attempts):
            raise error
        frames.append(payload)

    bus.device.publish = publish  # type: ignore[assignment, method-assign]
    await uploader.granted((3, 4))
    assert frames == [chunk_frame(3)]
    assert next(attempts, "all used") == "all used"


async def test_a_metered_device_keeps_its_rate(bus: Bus) -> None:
    uploader = bus.upload(rate=2.0 * MIN_CHUNK_SIZE)
    async with bus.receiver() as receiver:
        received = asyncio.create_task(receiver.receive(SENSOR, REF))
        await bus.clock.pass_time(1.9)
        assert receiver.counts.accepted == 3
        await asyncio.gather(uploader.granted((0,)), bus.clock.pass_time(10))
        assert await received == CONTENT


async def test_a_grant_of_chunks_that_do_not_exist_is_refused(bus: Bus) -> None:
    with pytest.raises(ProtocolError, match="not one of 10"):
        await bus.upload().granted((3, 10))


async def test_without_a_connection_nothing_is_sent_and_nothing_fails(bus: Bus) -> None:
    uploader = bus.upload()
    bus.broker.drop("sensor")
    await uploader.granted((0, 1))
    bus.broker.resume(bus.device)
    async with bus.receiver() as receiver:
        assert await receiver.receive(SENSOR, REF) == CONTENT


# Down.


async def fetch(bus: Bus, assembly: Assembly | None = None) -> memoryview:
    return await fetch_blob(bus.device, TOPICS, REF, clock=bus.clock, assembly=assembly)


async def test_a_published_content_is_pulled_and_cleared(bus: Bus) -> None:
    await publish_blob(bus.aggregator, TOPICS, CONTENT, REF)
    assert len(bus.broker.retained) == 10
    assert await fetch(bus) == CONTENT
    await clear_blob(bus.aggregator, TOPICS, REF)
    assert not bus.broker.retained


async def test_a_pull_waits_for_chunks_that_are_not_there_yet(bus: Bus) -> None:
    fetched = asyncio.create_task(fetch(bus))
    await bus.clock.pass_time(50)
    await publish_blob(bus.aggregator, TOPICS, CONTENT, REF)
    assert await fetched == CONTENT


async def test_a_damaged_retained_chunk_is_not_taken(bus: Bus) -> None:
    await publish_blob(bus.aggregator, TOPICS, CONTENT, REF)
    bus.broker.publish(TOPICS.blob_chunk(REF.sha256, 3), b"damaged", retain=True)
    fetched = asyncio.create_task(fetch(bus))
    await bus.clock.pass_time(1)
    assert not fetched.done()
    await publish_blob(bus.aggregator, TOPICS, CONTENT, REF)
    assert await fetched == CONTENT


async def test_a_pull_goes_on_where_it_was_cancelled(bus: Bus) -> None:
    chunks = list(split(CONTENT, REF))
    for index in range(6):
        bus.broker.publish(TOPICS.blob_chunk(REF.sha256, index), bytes(chunks[index]), retain=True)
    assembly = Assembly(REF)
    fetching = asyncio.create_task(fetch(bus, assembly))
    await bus.clock.pass_time(1)
    fetching.cancel()
    await settle()
    assert assembly.missing() == (6, 7, 8, 9)
    bus.broker.retained.clear()
    for index in range(6, 10):
        bus.broker.publish(TOPICS.blob_chunk(REF.sha256, index), bytes(chunks[index]), retain=True)
    assert await fetch(bus, assembly) == CONTENT


async def test_each_pulled_chunk_is_handed_on_to_be_kept(bus: Bus) -> None:
    await publish_blob(bus.aggregator, TOPICS, CONTENT, REF)
    assembly, kept = Assembly(REF), dict[int, bytes]()
    assembly.add(4, CONTENT[REF.span(4)])
    await fetch_blob(bus.device, TOPICS, REF, clock=bus.clock, assembly=assembly, keep=kept.__setitem__)
    assert kept == {index: CONTENT[REF.span(index)] for index in range(10) if index != 4}


async def test_contents_return_to_a_broker_that_forgot_them(bus: Bus) -> None:
    bus.broker.drop("aggregator")
    with pytest.raises(TransportError):
        await publish_blob(bus.aggregator, TOPICS, CONTENT, REF)
    bus.broker.resume(bus.aggregator)
    bus.broker.restart(keep_state=False)
    fetched = asyncio.create_task(fetch(bus))
    await bus.clock.pass_time(30)
    assert await fetched == CONTENT


async def test_a_pull_without_a_connection_tries_again(bus: Bus) -> None:
    await publish_blob(bus.aggregator, TOPICS, CONTENT, REF)
    bus.broker.drop("sensor")
    fetched = asyncio.create_task(fetch(bus))
    await bus.clock.pass_time(3)
    bus.broker.resume(bus.device)
    await bus.clock.pass_time(3)
    assert await fetched == CONTENT
