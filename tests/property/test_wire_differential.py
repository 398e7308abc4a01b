"""Our messages as an independent MessagePack reader and writer sees them (the `msgpack` package)."""

from typing import Any

import hypothesis.strategies as st
import msgpack  # type: ignore[import-untyped]
import msgspec
from hypothesis import given, settings

from protocol.chunks import BlobRef, Chunk
from protocol.frames import Frame
from protocol.messages import FromCoordinator, FromDevice, Manifest, Message, Noise, encode
from protocol.plan import Deadlines, Eligibility, SecureAggregation, Training

names = st.from_regex(r"[a-z0-9_-]{1,64}", fullmatch=True)
TEXT = st.text(max_size=200)


def of_size(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def pairs(size: int) -> st.SearchStrategy[tuple[tuple[str, bytes], ...]]:
    return st.lists(st.tuples(names, of_size(size)), max_size=3).map(tuple)


orders = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1)).map(list)
blobs = st.tuples(
    of_size(32),
    st.integers(1, 2**28),
    st.integers(4096, 2**20),
    st.lists(of_size(32), min_size=1, max_size=3),
)
head = st.tuples(orders, of_size(32))
numbers = st.integers(0, 2**53 - 1)
flags = st.booleans()
FACTS: dict[str, st.SearchStrategy[Any]] = {
    "idle": st.none() | flags,
    "charging": st.none() | flags,
    "unmetered": st.none() | flags,
    "battery": st.none() | st.integers(0, 100),
    "temperature": st.none() | st.integers(-100, 300),
    "free_memory_mb": st.none() | st.integers(0, 2**40 - 1),
    "free_disk_mb": st.none() | st.integers(0, 2**40 - 1),
    "rested": st.integers(0, 10**9),
    "tags": st.lists(names, max_size=3),
    "version": st.text(max_size=32),
}
# In this order, which `fixed_dictionaries` does not keep.
facts = st.tuples(*FACTS.values()).map(lambda values: dict(zip(FACTS, values, strict=True)))
bodies: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "offer": (numbers, orders, facts, st.lists(names, max_size=3)),
    "accept": (orders, of_size(32)),
    "decline": (orders, of_size(32), TEXT),
    "round-keys": (orders, of_size(32), of_size(32), of_size(32)),
    "sealed-shares": (orders, of_size(32), of_size(32), pairs(88)),
    "upload-offer": (orders, of_size(32), blobs),
    "confirmation": (orders, of_size(32)),
    "reveal": (orders, of_size(32), pairs(36)),
    "share-delivery": (orders, of_size(32), pairs(88)),
    "grant": (orders, of_size(32), st.lists(st.integers(0, 2**32 - 1), max_size=64)),
    "stored": (orders, of_size(32)),
    "cohort": (orders, of_size(32), st.lists(st.binary(max_size=300), max_size=3)),
    "share-set": (orders, of_size(32), st.lists(names, max_size=3)),
    "survivor-set": (orders, of_size(32), st.lists(names, max_size=3)),
    "confirmations": (orders, of_size(32), pairs(64)),
    "extension": (orders, of_size(32), st.floats(0, 86_400, exclude_min=True)),
    "pace": (orders, st.floats(60, 3600)),
    "high-water": (orders, st.integers(0, 2**32 - 1)),
    "round-ended": (orders, st.sampled_from(["committed", "aborted"]), TEXT, st.floats(0, 86_400)),
}


def listed(value: Any) -> Any:
    """Tuples as the lists that MessagePack knows."""
    return [listed(item) for item in value] if isinstance(value, list | tuple) else value


@st.composite
def plain_messages(draw: st.DrawFn) -> list[Any]:
    tag = draw(st.sampled_from(sorted(bodies)))
    return [tag, *(listed(draw(part)) for part in bodies[tag])]


def tag_of(kind: Any) -> str:
    return str(kind.__struct_config__.tag)


def test_every_message_has_a_row_here() -> None:
    kinds = {*FromDevice.__args__, *FromCoordinator.__args__}
    assert {tag_of(kind) for kind in kinds} == bodies.keys() | {"manifest"}
    assert len({tag_of(kind) for kind in kinds}) == len(kinds)


@settings(deadline=None)
@given(plain_messages())
def test_what_another_writer_writes_we_read_and_write_alike(content: list[Any]) -> None:
    packed = msgpack.packb(content)
    kind = next(
        kind for kind in {*FromDevice.__args__, *FromCoordinator.__args__} if tag_of(kind) == content[0]
    )
    message: Message = msgspec.msgpack.decode(packed, type=kind)
    assert encode(message) == packed
    assert msgpack.unpackb(encode(message)) == content


fractions = st.floats(0.01, 0.49)
positive = st.floats(1e-6, 1e6)
manifests = st.builds(
    Manifest,
    fleet=names,
    plan=of_size(32),
    revocations=st.integers(0, 2**53 - 1),
    protocol=st.just("pairwise"),
    order=orders.map(lambda order: msgspec.convert(order, Manifest.__annotations__["order"])),
    bundle=blobs.map(lambda blob: BlobRef(*blob[:3], tuple(blob[3]))),
    weights=blobs.map(lambda blob: BlobRef(*blob[:3], tuple(blob[3]))),
    training=st.builds(Training, learning_rate=positive, local_epochs=st.integers(1, 1000)),
    eligibility=st.builds(
        Eligibility,
        idle=flags,
        unknown_network=st.sampled_from(["metered", "unmetered"]),
        min_battery=st.none() | st.integers(0, 100),
        min_examples=st.integers(1, 2**40),
        tags=st.lists(names, max_size=3).map(tuple),
        min_version=st.none() | st.just("0.2.1"),
    ),
    secure_aggregation=st.builds(
        SecureAggregation, clip=positive, coordinate_limit=st.none() | positive, corrupt_fraction=fractions
    ),
    noise=st.none()
    | st.builds(
        Noise,
        scale=positive,
        sigma_parts=st.integers(1, 2**36),
        metrics_half=st.integers(1, 2**31 - 1),
        metrics_sigma_parts=st.integers(1, 2**36),
        spacing=st.integers(1, 2**32 - 1),
        participations=st.integers(1, 2**32 - 1),
        epsilon=positive,
        delta=st.floats(1e-100, 1e-2),
    ),
    min_cohort=st.integers(3, 1024),
    max_cohort=st.integers(3, 1024),
    deadlines=st.builds(Deadlines, keying=st.floats(0.1, 86_400)),
    shard=names,
)


@settings(deadline=None)
@given(manifests)
def test_a_manifest_reads_as_an_array_with_maps_of_the_plans_words(manifest: Manifest) -> None:
    tag, *fields = msgpack.unpackb(encode(manifest))
    assert tag == "manifest"
    assert fields[0] == manifest.fleet
    assert fields[7] == msgspec.to_builtins(manifest.training)
    assert fields[9] == msgspec.to_builtins(manifest.secure_aggregation)
    assert fields[10] == (msgspec.to_builtins(manifest.noise) if manifest.noise else None)
    assert fields[13] == msgspec.to_builtins(manifest.deadlines)
    assert msgpack.packb([tag, *fields]) == encode(manifest)


@given(names, st.binary(max_size=2048), st.binary(max_size=2000), of_size(64))
def test_a_frame_is_an_array_of_four(sender: str, certificate: bytes, body: bytes, signature: bytes) -> None:
    frame = msgspec.msgpack.encode(Frame(sender, certificate, body, signature))
    assert msgpack.unpackb(frame) == [sender, certificate, body, signature]
    assert msgpack.packb([sender, certificate, body, signature]) == frame


@given(of_size(32), st.integers(0, 4095), st.binary(min_size=1, max_size=5000))
def test_a_chunk_is_an_array_of_three(blob: bytes, index: int, data: bytes) -> None:
    packed = msgspec.msgpack.encode(Chunk(blob, index, memoryview(data)))
    assert msgpack.unpackb(packed) == [blob, index, data]
