"""Large contents from one to many: retained chunks that each device pulls.

Each chunk is published once, retained, under its content's hash; every device pulls the chunks it misses,
one subscription at a time. The broker holds one copy, however many devices there are.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from broker.transport import Delivery, RefusedError, Transport, TransportError
from protocol.chunks import Assembly, BlobRef, split
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
# Seconds between attempts when there is no connection.
PULL_PAUSE = 1.0

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
        patience: seconds after which a chunk that did not come, or came damaged, is asked for again.

    Raises:
        ProtocolError: the reference contradicts itself or its chunks are not the named content.
        RefusedError: the broker does not let this client read the content.
    """
    assembly = Assembly(ref) if assembly is None else assembly
    missing = iter(assembly.missing())
    pull = _Pull(transport, topics, assembly, keep, clock, patience)

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


@dataclass(frozen=True)
class _Pull:
    transport: Transport
    topics: Topics
    assembly: Assembly
    keep: Callable[[int, bytes], None] | None
    clock: Clock
    patience: float

    async def chunk(self, index: int) -> None:
        while (data := await self._attempt(index)) is None:
            pass
        if self.keep is not None:
            await asyncio.to_thread(self.keep, index, data)

    async def _attempt(self, index: int) -> bytes | None:
        arrived, taken = asyncio.Event(), list[bytes]()

        def take(delivery: Delivery) -> None:
            try:
                self.assembly.add(index, delivery.payload)
            except ProtocolError as error:
                _log.warning("chunk_rejected", topic=delivery.topic, cause=str(error))
            else:
                taken.append(delivery.payload)
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
            await happens(arrived, self.patience, self.clock)
        finally:
            await subscription.cancel()
        return taken[0] if taken else None
