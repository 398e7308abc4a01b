"""Large contents cut into chunks: how they are described, cut, checked and put together again.

A content is named by its SHA-256 and described by a `BlobRef`, which travels inside a signed frame. Each
chunk has a hash of its own, so a wrong one is refused when it arrives, whoever sent it, and a transfer
resumes with exactly the chunks that are missing. Chunks may come in any order and more than once.
"""

import mmap
from collections.abc import Iterator
from hashlib import sha256
from typing import Annotated

from msgspec import Meta, Struct

from protocol.errors import MisuseError, ProtocolError
from protocol.ids import Hash

# The largest at which a link of 1 MB/s still answers a ping within a second with two chunks in flight, and
# large enough that the cost of a message (0.2 ms) is small beside that of its bytes (1 ms).
CHUNK_SIZE = 256 * 1024
# Below this a message's own cost exceeds that of its bytes.
MIN_CHUNK_SIZE = 4 * 1024
# With its frame still within the broker's packet limit of 2 MiB.
MAX_CHUNK_SIZE = 1024 * 1024
# Keeps a reference below 128 KiB of hashes, so that it fits one frame.
MAX_CHUNKS = 4096
# 64 million float32 parameters; a receiver sets this much memory aside on a peer's word.
MAX_BLOB_SIZE = 256 * 1024 * 1024

Bytes = bytes | bytearray | memoryview


class BlobRef(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a content is, before its bytes are there. `check` holds the fields to one another.

    Attributes:
        sha256: of the whole content; its name.
        size: bytes, 1 to `MAX_BLOB_SIZE`.
        chunk_size: bytes of every chunk but the last, which may be shorter.
        chunk_hashes: SHA-256 of each chunk in order, ceil(size / chunk_size) of them.
    """

    sha256: Hash
    size: Annotated[int, Meta(ge=1, le=MAX_BLOB_SIZE)]
    chunk_size: Annotated[int, Meta(ge=MIN_CHUNK_SIZE, le=MAX_CHUNK_SIZE)]
    chunk_hashes: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=MAX_CHUNKS)]

    @property
    def chunks(self) -> int:
        """How many chunks the content has."""
        return len(self.chunk_hashes)

    def span(self, index: int) -> slice:
        """Where chunk `index` lies in the content, in bytes."""
        start = index * self.chunk_size
        return slice(start, min(start + self.chunk_size, self.size))


class Chunk(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One chunk on its way up.

    Attributes:
        blob: SHA-256 of the content it belongs to.
        index: its place, from 0.
        data: its bytes; a view into the received frame, not a copy.
    """

    blob: Hash
    index: Annotated[int, Meta(ge=0, lt=MAX_CHUNKS)]
    data: Annotated[memoryview, Meta(min_length=1, max_length=MAX_CHUNK_SIZE)]


class ChunkWanted(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One chunk that did not come down.

    Attributes:
        blob: SHA-256 of the content it belongs to.
        index: its place, from 0.
    """

    blob: Hash
    index: Annotated[int, Meta(ge=0, lt=MAX_CHUNKS)]


def describe(data: Bytes, chunk_size: int = CHUNK_SIZE) -> BlobRef:
    """The reference of `data`.

    Args:
        data: 1 to `MAX_BLOB_SIZE` bytes.
        chunk_size: `MIN_CHUNK_SIZE` to `MAX_CHUNK_SIZE` bytes.

    Raises:
        MisuseError: the content is empty, too large, or would need more than `MAX_CHUNKS` chunks.
    """
    view = memoryview(data).cast("B")
    hashes = tuple(
        sha256(view[start : start + chunk_size]).digest() for start in range(0, len(view), chunk_size)
    )
    ref = BlobRef(sha256(view).digest(), len(view), chunk_size, hashes)
    try:
        check(ref)
    except ProtocolError as error:
        raise MisuseError(f"this content cannot be described: {error}") from error
    return ref


def check(ref: BlobRef) -> None:
    """Holds the fields of a reference to one another and to the limits.

    Raises:
        ProtocolError: the size, chunk size or number of chunks is out of range, or they do not agree.
    """
    if not 1 <= ref.size <= MAX_BLOB_SIZE:
        raise ProtocolError(f"a content of {ref.size} bytes is outside 1 to {MAX_BLOB_SIZE}")
    if not MIN_CHUNK_SIZE <= ref.chunk_size <= MAX_CHUNK_SIZE:
        raise ProtocolError(
            f"chunks of {ref.chunk_size} bytes are outside {MIN_CHUNK_SIZE} to {MAX_CHUNK_SIZE}"
        )
    expected = -(-ref.size // ref.chunk_size)
    if ref.chunks != expected or expected > MAX_CHUNKS:
        raise ProtocolError(
            f"{ref.size} bytes are {expected} chunks, at most {MAX_CHUNKS}; {ref.chunks} hashes came"
        )


def split(data: Bytes, ref: BlobRef) -> Iterator[memoryview]:
    """The chunks of `data` in order, as views.

    Raises:
        MisuseError: `data` has another size than `ref` says.
    """
    view = memoryview(data).cast("B")
    if len(view) != ref.size:
        raise MisuseError(f"the reference is of {ref.size} bytes, the content has {len(view)}")
    return (view[ref.span(index)] for index in range(ref.chunks))


class Assembly:
    """A content being put together in one buffer that is allocated once.

    Args:
        ref: what the content is; checked here.
        check_name: False leaves out the hash over the whole content, half of the work. The chunk hashes fix
            every byte, so this is right where the reference itself is signed by the content's author and
            the name is not used as a key before somebody has checked it.

    Raises:
        ProtocolError: the reference contradicts itself.
    """

    def __init__(self, ref: BlobRef, *, check_name: bool = True) -> None:
        check(ref)
        self.ref = ref
        self._check_name = check_name
        # Pages of its own, which come with the chunks that fill them and are given back at once: a bytearray
        # would be filled twice, and taken on a peer's word alone.
        self._view = memoryview(mmap.mmap(-1, ref.size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self._missing = dict.fromkeys(range(ref.chunks))
        self._hashed = 0
        self._hash = sha256()

    def missing(self) -> tuple[int, ...]:
        """Indices of the chunks that are not there yet, ascending."""
        return tuple(self._missing)

    @property
    def complete(self) -> bool:
        """Whether every chunk is there."""
        return not self._missing

    def add(self, index: int, data: Bytes, *, digest: bytes | None = None) -> bool:
        """Takes one chunk in.

        Args:
            index: its place.
            data: its bytes.
            digest: their SHA-256, if somebody has computed it already.

        Returns:
            False when it was there already.

        Raises:
            ProtocolError: there is no such chunk, or these are not its bytes.
        """
        if not 0 <= index < self.ref.chunks:
            raise ProtocolError(f"chunk {index} of a content of {self.ref.chunks} chunks")
        span = self.ref.span(index)
        size = memoryview(data).nbytes
        if size != span.stop - span.start:
            raise ProtocolError(f"chunk {index} has {size} bytes instead of {span.stop - span.start}")
        if (digest or sha256(data).digest()) != self.ref.chunk_hashes[index]:
            raise ProtocolError(f"chunk {index} does not have the hash that was announced")
        if index not in self._missing:
            return False
        self._view[span] = memoryview(data).cast("B")
        del self._missing[index]
        if self._check_name:
            self._hash_on()
        return True

    def content(self) -> memoryview:
        """The whole content, read-only and not copied.

        Raises:
            MisuseError: chunks are still missing.
            ProtocolError: the chunks are right, but not of the content that was named.
        """
        if self._missing:
            raise MisuseError(f"{len(self._missing)} chunks are still missing")
        if self._check_name and self._hash.digest() != self.ref.sha256:
            raise ProtocolError("the chunks do not make up the content that was named")
        return self._view.toreadonly()

    def _hash_on(self) -> None:
        # As far as there is no gap, so that the end of a large content is not one long computation.
        end = next(iter(self._missing), self.ref.chunks)
        for index in range(self._hashed, end):
            self._hash.update(self._view[self.ref.span(index)])
        self._hashed = end
