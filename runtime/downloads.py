"""Large contents from one to many: retained chunks that each device pulls.

Each chunk is published once, retained, under its content's hash; every device pulls the chunks it misses,
one subscription at a time. The broker holds one copy, however many devices there are.

A broker that took a chunk may still not give it: a node of a NATS cluster learns of new retained messages
through a consumer that lives on one node alone, and of none any more when that one is gone. So a device says
which chunk did not come, and whoever published it says it again, while the device listens.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec
import structlog

from broker.transport import Delivery, RefusedError, Transport, TransportError
from protocol.chunks import Assembly, BlobRef, ChunkWanted, split
from protocol.errors import ProtocolError
from protocol.topics import Topics
from runtime.clock import Clock, happens

# Chunks on their way to the broker at once while a content is published.
PUBLISH_WINDOW = 4
# Chunks a device pulls at once: one arrives while the next is asked for. With 256 KiB, half a second of a
# link of 1 MB/s.
PULL_WINDOW = 2
# Seconds after which a retained chunk that did not come is asked for again: 256 KiB at 16 kB/s take 16.
PULL_PATIENCE = 20.0
# Seconds after which its publisher is asked for a retained chunk that did not come. A link that needs longer
# for one chunk is sent it twice, but finds out by that, and then has all of `PULL_PATIENCE`.
ASK_AFTER = 5.0
# Seconds between attempts when there is no connection.
PULL_PAUSE = 1.0
# Seconds between chunks that are said again: whatever devices ask for, no more than 5 MB/s leave for it.
RESEND_PAUSE = 0.05

_wants = msgspec.msgpack.Decoder(ChunkWanted)

_log = structlog.get_logger(__name__)


async def publish_blob(transport: Transport, topics: Topics, data: bytes | memoryview, ref: BlobRef) -> None:
    """Publishes the chunks of a content, retained; the transport remembers them.

    Args:
        transport: the bus.
        topics: of the fleet.
        data: the content; must not change until `clear_blob`.
        ref: its reference.

    Raises:
        TransportError: some were not handed over. All are remembered and published with the next
            connection; doing it again is harmless.
    """
    await _retain(transport, topics, ref, list(split(data, ref)))


async def clear_blob(transport: Transport, topics: Topics, ref: BlobRef) -> None:
    """Takes a content's chunks off the broker and out of the transport's memory.

    Raises:
        TransportError: some are still on the broker; do it again.
    """
    await _retain(transport, topics, ref, [b""] * ref.chunks)


async def _retain(
    transport: Transport, topics: Topics, ref: BlobRef, payloads: Sequence[bytes | memoryview]
) -> None:
    waiting = iter(enumerate(payloads))
    failures: list[TransportError] = []

    async def hand_over() -> None:
        for index, payload in waiting:
            try:
                await transport.publish(topics.blob_chunk(ref.sha256, index), payload, retain=True)
            except TransportError as error:
                failures.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(PUBLISH_WINDOW):
            group.create_task(hand_over())
    if failures:
        raise failures[0]


class ChunkResender:
    """Says chunks again that devices miss, one at a time. Use it as a context, within the transport's.

    Whoever asks is heard unsigned: what is said again is what was published before, and its hash is checked.

    Args:
        transport: the bus.
        topics: of the fleet.
        clock: time.
    """

    def __init__(self, transport: Transport, topics: Topics, clock: Clock) -> None:
        self._transport = transport
        self._topics = topics
        self._clock = clock
        self._chunks: dict[ChunkWanted, memoryview] = {}
        self._waiting: dict[ChunkWanted, None] = {}
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def offer(self, data: bytes | memoryview, ref: BlobRef) -> None:
        """This content may be asked for, until it is withdrawn; `data` must not change."""
        for index, chunk in enumerate(split(data, ref)):
            self._chunks[ChunkWanted(ref.sha256, index)] = chunk

    def withdraw(self, ref: BlobRef) -> None:
        """It may be asked for no more; does nothing if it was not offered."""
        for index in range(ref.chunks):
            self._chunks.pop(ChunkWanted(ref.sha256, index), None)

    def wanted(self, delivery: Delivery) -> None:
        """A device misses a chunk; what was not offered is passed over."""
        with contextlib.suppress(msgspec.MsgspecError):
            chunk = _wants.decode(delivery.payload)
            if chunk in self._chunks:
                self._waiting[chunk] = None
                self._asked.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._resend())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _resend(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._waiting:
                chunk = next(iter(self._waiting))
                del self._waiting[chunk]
                await self._say(chunk)
                await self._clock.sleep(RESEND_PAUSE)

    async def _say(self, chunk: ChunkWanted) -> None:
        data = self._chunks.get(chunk)
        if data is None:
            return
        topic = self._topics.blob_chunk(chunk.blob, chunk.index)
        with contextlib.suppress(TransportError):  # the device asks again
            await self._transport.publish(topic, data, retain=True)
            _log.info("chunk_said_again", topic=topic)


async def fetch_blob(
    transport: Transport,
    topics: Topics,
    ref: BlobRef,
    *,
    clock: Clock,
    assembly: Assembly | None = None,
    keep: Callable[[int, bytes], None] | None = None,
    window: int = PULL_WINDOW,
    patience: float = PULL_PATIENCE,
    wants: str | None = None,
) -> memoryview:
    """Pulls a content's retained chunks; tries for as long as it is let. The result is read-only.

    Args:
        transport: the bus.
        topics: of the fleet.
        ref: what to fetch.
        clock: time.
        assembly: of an earlier attempt, to go on from; kept by the caller, filled here.
        keep: called with the index and bytes of each chunk that came, in a thread of its own; may block.
        window: chunks asked for at once.
        patience: seconds after which a chunk that did not come, or came damaged, is subscribed to anew.
        wants: topic on which its publisher is asked for what the broker does not deliver; None asks nobody.

    Raises:
        ProtocolError: the reference contradicts itself or its chunks are not the named content.
        RefusedError: the broker does not let this client read the content.
    """
    assembly = Assembly(ref) if assembly is None else assembly
    missing = iter(assembly.missing())
    ask_after = patience if wants is None else min(ASK_AFTER, patience)
    pull = _Pull(transport, topics, assembly, keep, clock, patience, wants, ask_after)

    async def work() -> None:
        for index in missing:
            await pull.chunk(index)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(window):
                group.create_task(work())
    except* RefusedError as refusals:
        raise refusals.exceptions[0] from None
    return assembly.content()


@dataclass
class _Pull:
    transport: Transport
    topics: Topics
    assembly: Assembly
    keep: Callable[[int, bytes], None] | None
    clock: Clock
    patience: float
    wants: str | None
    ask_after: float

    async def chunk(self, index: int) -> None:
        while (data := await self._attempt(index)) is None:
            pass
        if self.keep is not None:
            await asyncio.to_thread(self.keep, index, data)

    async def _attempt(self, index: int) -> bytes | None:
        arrived, taken = asyncio.Event(), list[Delivery]()

        def take(delivery: Delivery) -> None:
            try:
                self.assembly.add(index, delivery.payload)
            except ProtocolError as error:
                _log.warning("chunk_rejected", topic=delivery.topic, cause=str(error))
            else:
                taken.append(delivery)
                arrived.set()

        topic = self.topics.blob_chunk(self.assembly.ref.sha256, index)
        try:
            subscription = await self.transport.subscribe(topic, take, qos=0)
        except RefusedError:
            raise
        except TransportError:
            await self.clock.sleep(PULL_PAUSE)
            return None
        try:
            if not await happens(arrived, self.ask_after, self.clock):
                await self._ask(index)
                if await happens(arrived, self.patience - self.ask_after, self.clock):
                    self._learn(was_there=taken[0].retained)
        finally:
            await subscription.cancel()
        return taken[0].payload if taken else None

    def _learn(self, *, was_there: bool) -> None:
        """When to ask for the next chunk: a link may be slow, or a broker may not give what it has taken."""
        if not was_there:
            self.ask_after = 0.0
        else:
            self.ask_after = self.patience if self.ask_after else min(ASK_AFTER, self.patience)

    async def _ask(self, index: int) -> None:
        if self.wants is None:
            return
        want = msgspec.msgpack.encode(ChunkWanted(self.assembly.ref.sha256, index))
        with contextlib.suppress(TransportError):
            # At QoS 0: nothing has to be stored for it, which a cluster cannot do while it elects leaders.
            await self.transport.publish(self.wants, want, qos=0)
