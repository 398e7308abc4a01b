from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.chunks import (
    MAX_BLOB_SIZE,
    MAX_CHUNK_SIZE,
    MIN_CHUNK_SIZE,
    Assembly,
    BlobRef,
    Chunk,
    check,
    describe,
    split,
)
from protocol.errors import MisuseError, ProtocolError

contents = st.integers(1, 5 * MIN_CHUNK_SIZE + 1).map(
    lambda size: (bytes(range(251)) * (size // 251 + 1))[:size]
)


@given(contents, st.data())
def test_chunks_in_any_order_and_number_make_the_content(content: bytes, data: st.DataObject) -> None:
    ref = describe(content, MIN_CHUNK_SIZE)
    chunks = dict(enumerate(split(content, ref)))
    order = data.draw(st.permutations(list(chunks)))
    again = data.draw(st.lists(st.sampled_from(list(chunks))))
    assembly = Assembly(ref)

    fresh = [assembly.add(index, chunks[index]) for index in [*order, *again]]

    assert fresh == [True] * len(order) + [False] * len(again)
    assert assembly.complete
    assert assembly.missing() == ()
    assert assembly.content() == content


@given(contents, st.data())
def test_a_damaged_chunk_is_refused_and_can_come_again(content: bytes, data: st.DataObject) -> None:
    ref = describe(content, MIN_CHUNK_SIZE)
    assembly = Assembly(ref)
    index = data.draw(st.integers(0, ref.chunks - 1))
    good = bytes(content[ref.span(index)])
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[place] ^= data.draw(st.integers(1, 255))

    for wrong in (bad, good[:-1], good + b"\0"):
        with pytest.raises(ProtocolError):
            assembly.add(index, wrong)

    assert index in assembly.missing()
    assert assembly.add(index, good)


@given(contents)
def test_a_reference_and_its_chunks_survive_the_wire(content: bytes) -> None:
    ref = describe(content, MIN_CHUNK_SIZE)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(ref), type=BlobRef) == ref
    frame = msgspec.msgpack.encode(Chunk(ref.sha256, 0, next(split(content, ref))))
    assert msgspec.msgpack.decode(frame, type=Chunk).data == content[ref.span(0)]


@given(st.integers(-3, 5))
def test_an_index_outside_the_content_is_refused(index: int) -> None:
    ref = describe(b"ab" * MIN_CHUNK_SIZE, MIN_CHUNK_SIZE)
    if not 0 <= index < ref.chunks:
        with pytest.raises(ProtocolError, match="chunk"):
            Assembly(ref).add(index, b"x")


@pytest.mark.parametrize(
    ("size", "chunk_size", "hashes"),
    [
        (0, MIN_CHUNK_SIZE, 0),
        (MAX_BLOB_SIZE + 1, MAX_CHUNK_SIZE, 257),
        (10, MIN_CHUNK_SIZE - 1, 1),
        (10, MAX_CHUNK_SIZE + 1, 1),
        (MIN_CHUNK_SIZE + 1, MIN_CHUNK_SIZE, 1),
        (MIN_CHUNK_SIZE, MIN_CHUNK_SIZE, 2),
        (MAX_BLOB_SIZE, MIN_CHUNK_SIZE, MAX_BLOB_SIZE // MIN_CHUNK_SIZE),
    ],
)
def test_a_reference_that_contradicts_itself_is_refused(size: int, chunk_size: int, hashes: int) -> None:
    ref = BlobRef(bytes(32), size, chunk_size, (bytes(32),) * hashes)
    with pytest.raises(ProtocolError):
        check(ref)
    with pytest.raises(ProtocolError):
        Assembly(ref)


def test_right_chunks_under_a_wrong_name_are_refused() -> None:
    ref = msgspec.structs.replace(describe(b"content"), sha256=sha256(b"other").digest())
    assembly = Assembly(ref)
    with pytest.raises(MisuseError, match="missing"):
        assembly.content()
    assembly.add(0, b"content")
    with pytest.raises(ProtocolError, match="named"):
        assembly.content()


def test_what_cannot_be_described_is_our_bug() -> None:
    with pytest.raises(MisuseError, match="cannot be described"):
        describe(b"")
    with pytest.raises(MisuseError, match="reference is of"):
        split(b"abc", describe(b"ab"))
