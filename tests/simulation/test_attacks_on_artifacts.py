"""A model or weights that differ from the manifest's hashes never reach training."""

import asyncio
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest

from broker.memory import MemoryBroker
from models.datasets.source import NpzSource
from models.training_calls import LENGTH, Evaluate, WorkerFailure, encode_frame
from models.training_worker import Worker
from protocol.chunks import MIN_CHUNK_SIZE, describe
from protocol.errors import ProtocolError
from protocol.topics import Topics
from runtime.clock import SystemClock
from runtime.transfers import fetch_blob, publish_blob

TOPICS = Topics("test")
WEIGHTS = np.arange(3 * MIN_CHUNK_SIZE // 4, dtype="<f4").tobytes()
REF = describe(WEIGHTS, MIN_CHUNK_SIZE)
POISON = bytes(MIN_CHUNK_SIZE)


async def test_a_poisoned_chunk_is_never_delivered_and_the_right_one_still_is() -> None:
    broker = MemoryBroker()
    async with broker.connect("coordinator") as coordinator, broker.connect("d001") as device:
        await publish_blob(coordinator, TOPICS, WEIGHTS, REF)
        broker.publish(TOPICS.blob_chunk(REF.sha256, 1), POISON, retain=True)
        fetching = asyncio.create_task(fetch_blob(device, TOPICS, REF, clock=SystemClock(), patience=0.01))
        await asyncio.sleep(0.05)
        assert not fetching.done()
        await publish_blob(coordinator, TOPICS, WEIGHTS, REF)
        assert await fetching == WEIGHTS


async def test_chunks_that_fit_but_make_another_model_are_refused() -> None:
    broker = MemoryBroker()
    other = describe(POISON, MIN_CHUNK_SIZE)
    lie = msgspec.structs.replace(other, sha256=REF.sha256)
    async with broker.connect("coordinator") as coordinator, broker.connect("d001") as device:
        await coordinator.publish(TOPICS.blob_chunk(REF.sha256, 0), POISON, retain=True)
        with pytest.raises(ProtocolError, match="do not make up the content that was named"):
            await fetch_blob(device, TOPICS, lie, clock=SystemClock())


@pytest.mark.parametrize("bundle", [b"another bundle", None])
def test_the_worker_refuses_a_bundle_whose_hash_differs(bundle: bytes | None, tmp_path: Path) -> None:
    call = Evaluate(
        bundle_id=sha256(b"the bundle of the manifest").digest(),
        bundle=bundle,
        engine="ort-graph",
        weights=b"",
        private=None,
        source=NpzSource(tmp_path / "data.npz"),
    )
    answer = Worker().answer(encode_frame(call)[LENGTH:])
    assert isinstance(answer, WorkerFailure)
    assert answer.kind == "bundle"
    assert "do not have its hash" in answer.message or "was not sent the bundle" in answer.message
