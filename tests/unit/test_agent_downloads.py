"""An agent that is stopped in the middle of a download goes on where it was, also in another process."""

import asyncio
import random
from contextlib import suppress
from pathlib import Path

from hand_clock import HandClock

from broker.memory import MemoryBroker, MemoryTransport
from device_agent.artifacts import ArtifactCache
from protocol.chunks import MIN_CHUNK_SIZE, describe, split
from protocol.topics import Topics
from runtime.transfers import fetch_blob

TOPICS = Topics("test")
CONTENT = random.Random(5).randbytes(10 * MIN_CHUNK_SIZE - 7)
REF = describe(CONTENT, MIN_CHUNK_SIZE)


def publish(broker: MemoryBroker, indices: range) -> None:
    """These chunks, and no others."""
    broker.retained.clear()
    for index, chunk in enumerate(split(CONTENT, REF)):
        if index in indices:
            broker.publish(TOPICS.blob_chunk(REF.sha256, index), bytes(chunk), retain=True)


async def fetch(transport: MemoryTransport, cache: ArtifactCache) -> memoryview:
    artifact = cache.open(REF)
    return await fetch_blob(
        transport, TOPICS, REF, clock=HandClock(), assembly=artifact.assembly, keep=artifact.keep
    )


async def stopped_after(chunks: int, transport: MemoryTransport, folder: Path) -> None:
    fetching = asyncio.create_task(fetch(transport, ArtifactCache(folder)))
    for _ in range(3000):
        await asyncio.sleep(0.01)
        if len(ArtifactCache(folder).open(REF).assembly.missing()) == 10 - chunks:
            break
    fetching.cancel()
    with suppress(asyncio.CancelledError):
        await fetching


async def test_only_what_is_missing_is_fetched(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with broker.connect("d1") as transport:
        publish(broker, range(6))
        await stopped_after(6, transport, tmp_path)
        publish(broker, range(6, 10))
        assert await fetch(transport, ArtifactCache(tmp_path)) == CONTENT
        publish(broker, range(0))
        assert await fetch(transport, ArtifactCache(tmp_path)) == CONTENT


async def test_a_damaged_file_costs_one_chunk_and_no_failure(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with broker.connect("d1") as transport:
        publish(broker, range(10))
        await fetch(transport, ArtifactCache(tmp_path))
        with (tmp_path / REF.sha256.hex()).open("r+b") as file:
            file.seek(7 * MIN_CHUNK_SIZE)
            file.write(bytes(9))
        publish(broker, range(7, 8))
        assert await fetch(transport, ArtifactCache(tmp_path)) == CONTENT


async def test_a_full_disk_leaves_the_download_in_memory(tmp_path: Path) -> None:
    broker, path = MemoryBroker(), tmp_path / REF.sha256.hex()
    path.symlink_to("/dev/full")
    async with broker.connect("d1") as transport:
        publish(broker, range(10))
        assert await fetch(transport, ArtifactCache(tmp_path)) == CONTENT
    assert not path.is_symlink()
