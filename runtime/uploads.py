"""Large contents from many to one, by credit.

Devices that push fill the broker's queues, and what overflows is lost after it was acknowledged. Here a
device sends only the chunks it was granted. A few devices assemble at once, each with a few chunks on their
way; the next grant says that the last chunks have arrived, and what does not arrive is granted again. Chunks
may come late, twice or damaged; each is checked on its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from types import TracebackType
from typing import Self

import msgspec
import structlog

from broker.transport import Delivery, Subscription, Transport, TransportError
from protocol.chunks import Assembly, BlobRef, Chunk, check, split
from protocol.errors import MAX_CAUSE, FedfleetError, FrameError, MisuseError, PeerError, ProtocolError
from protocol.ids import DeviceId
from protocol.topics import Topics
from runtime.clock import Clock, happens

# Uploads in memory at once, and chunks granted to each: 8 MiB in all, which the broker may have to hold.
# Fewer leave the receiver waiting for the next chunk whenever a process has to wait for a core.
MAX_ASSEMBLING = 4
UPLOAD_WINDOW = 8
# Seconds without a chunk after which the missing ones are granted again, and after which a device gives up
# its place to the next one.
GRANT_PATIENCE = 10.0
STALL_SECONDS = 60.0
# Bytes of a chunk from which its hash is computed in a thread, which lets go of the interpreter's lock: going
# there costs 0.05 ms, as much as hashing so many bytes.
HASHED_APART = 65_536
# A chunk whose connection breaks leaves with the next one, without waiting to be granted again.
SEND_ATTEMPTS = 2

Grant = Callable[[DeviceId, bytes, tuple[int, ...]], Awaitable[None]]
"""Tells a device which chunks (indices) of which content (SHA-256) to send."""

_log = structlog.get_logger(__name__)
_chunks = msgspec.msgpack.Decoder(Chunk)
_encoder = msgspec.msgpack.Encoder()


class UploadStalledError(FedfleetError):
    """The device sent no chunk for too long and lost its place."""


@dataclass(slots=True)
class UploadCounts:
    """What came in.

    Attributes:
        accepted: chunks that were taken in.
        duplicates: chunks that were there already, or large ones that nobody waits for.
        rejected: frames that are no chunk, or not one of the content that this device announced.
        unexpected: chunks of devices that have no place at the moment: late, or never granted.
    """

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    unexpected: int = 0


class UploadReceiver:
    """Receives the uploads of a shard, a few at a time. Use it as a context.

    Args:
        transport: the bus.
        topics: of the fleet.
        shard: which uploads.
        grant: tells a device what to send; a `TransportError` from it counts as a grant that was lost.
        clock: time.
        max_assembling: uploads in memory at once.
        window: chunks of one device on their way at once.
        patience: seconds without a chunk after which the missing ones are granted again.
        stall: seconds without a chunk after which a device loses its place.
    """

    def __init__(
        self,
        transport: Transport,
        topics: Topics,
        shard: str,
        grant: Grant,
        *,
        clock: Clock,
        max_assembling: int = MAX_ASSEMBLING,
        window: int = UPLOAD_WINDOW,
        patience: float = GRANT_PATIENCE,
        stall: float = STALL_SECONDS,
    ) -> None:
        self.counts = UploadCounts()
        self._transport = transport
        self._filter = topics.every_upload(shard)
        self._grant = grant
        self._clock = clock
        self._places = asyncio.Semaphore(max_assembling)
        self._window = window
        self._patience = patience
        self._stall = stall
        self._uploads: dict[str, _Upload] = {}
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        self._subscription = await self._transport.subscribe(self._filter, self._arrived)
        self._transport.on_connection(self._connection_changed)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._subscription is not None:
            await self._subscription.cancel()

    async def receive(self, device: DeviceId, ref: BlobRef) -> memoryview:
        """Waits for a place, then for the content, which is read-only. May be cancelled at any time.

        Every chunk has the hash that `ref` gives it, but the content's name is the device's word: a store
        that uses it as a key computes it itself, as any store does.

        Raises:
            UploadStalledError: the device fell silent.
            ProtocolError: the reference contradicts itself.
            MisuseError: this device is uploading already.
        """
        check(ref)
        async with self._places:
            if device in self._uploads:
                raise MisuseError(f"{device} is uploading already")
            upload = _Upload(ref, self._window, self._clock)
            self._uploads[device] = upload
            try:
                await self._collect(device, upload)
            finally:
                del self._uploads[device]
        return upload.assembly.content()

    async def _collect(self, device: DeviceId, upload: "_Upload") -> None:
        begun = self._clock.now()
        while not upload.assembly.complete:
            upload.moved.clear()
            if wanted := upload.next_grant():
                begun = self._clock.now()
                await self._tell(device, upload, wanted)
            silent = self._clock.now() - max(upload.last, begun)
            if await happens(upload.moved, self._patience - silent, self._clock):
                continue
            if self._clock.now() - upload.last >= self._stall:
                missing = len(upload.assembly.missing())
                raise UploadStalledError(
                    f"{device} sent nothing for {self._stall:g} s; {missing} chunks are missing"
                )
            if self._clock.now() - max(upload.last, begun) >= self._patience:
                upload.granted.clear()

    async def _tell(self, device: DeviceId, upload: "_Upload", wanted: tuple[int, ...]) -> None:
        try:
            await self._grant(device, upload.assembly.ref.sha256, wanted)
        except TransportError as error:
            _log.warning("grant_lost", device=device, cause=str(error))

    def _connection_changed(self, connected: bool) -> None:  # noqa: FBT001 (a listener)
        # What was on its way may be lost with the connection: it is granted again with the next one.
        for upload in self._uploads.values():
            if connected:
                upload.moved.set()
            else:
                upload.granted.clear()

    def _arrived(self, delivery: Delivery) -> None:
        # The topic names the sender; the broker's access rules hold each device to its own.
        upload = self._uploads.get(delivery.topic.rpartition("/")[2])
        if upload is None:
            self.counts.unexpected += 1
            return
        try:
            chunk = _decoded(delivery.payload)
        except PeerError as error:
            self._reject(delivery.topic, error)
            return
        if len(chunk.data) < HASHED_APART:
            self._take(upload, chunk, delivery.topic, sha256(chunk.data).digest())
        elif chunk.index in upload.granted - upload.hashing:
            upload.hashing.add(chunk.index)
            hashing = asyncio.get_running_loop().run_in_executor(None, _hash, chunk.data)
            hashing.add_done_callback(lambda done: self._take(upload, chunk, delivery.topic, done.result()))
        else:
            # Nobody waits for it, and what nobody waits for shall not fill the threads' queue.
            self.counts.duplicates += 1

    def _take(self, upload: "_Upload", chunk: Chunk, topic: str, digest: bytes) -> None:
        upload.hashing.discard(chunk.index)
        try:
            fresh = upload.take(chunk, digest)
        except PeerError as error:
            self._reject(topic, error)
        else:
            self.counts.accepted += fresh
            self.counts.duplicates += not fresh

    def _reject(self, topic: str, error: PeerError) -> None:
        self.counts.rejected += 1
        _log.warning("chunk_rejected", topic=topic, cause=str(error))


class _Upload:
    """One device's place.

    Attributes:
        granted: indices that were granted and have not been taken in.
        hashing: those of them that have arrived and are being hashed.
        moved: set when there is something to do: room for a grant, or nothing missing.
        last: when the place was taken or the last chunk arrived.
    """

    def __init__(self, ref: BlobRef, window: int, clock: Clock) -> None:
        self.assembly = Assembly(ref, check_name=False)
        self.granted: set[int] = set()
        self.hashing: set[int] = set()
        self.moved = asyncio.Event()
        self.last = clock.now()
        self._clock = clock
        self._window = window

    def next_grant(self) -> tuple[int, ...]:
        """Marks the next indices as granted; none before half of the last ones have arrived."""
        if self._room < self._window / 2:
            return ()
        missing = (index for index in self.assembly.missing() if index not in self.granted)
        wanted = list(islice(missing, self._room))
        self.granted.update(wanted)
        return tuple(wanted)

    def take(self, chunk: Chunk, digest: bytes) -> bool:
        if chunk.blob != self.assembly.ref.sha256:
            raise ProtocolError("the chunk is of another content than the device announced")
        fresh = self.assembly.add(chunk.index, chunk.data, digest=digest)
        if fresh:
            self.granted.discard(chunk.index)
            self.last = self._clock.now()
            if self._room >= self._window / 2 or self.assembly.complete:
                self.moved.set()
        return fresh

    @property
    def _room(self) -> int:
        return self._window - len(self.granted)


class Uploader:
    """A device's side of one upload.

    Args:
        transport: the bus.
        topics: of the fleet.
        shard: where the content goes.
        device: our name.
        data: the content; must not change.
        ref: its reference.
        clock: time.
        bytes_per_second: sends no faster than this; None is as fast as it goes.

    Raises:
        MisuseError: `data` has another size than `ref` says.
    """

    def __init__(  # noqa: PLR0917 (who, where, what: as in a sentence)
        self,
        transport: Transport,
        topics: Topics,
        shard: str,
        device: DeviceId,
        data: bytes | memoryview,
        ref: BlobRef,
        *,
        clock: Clock,
        bytes_per_second: float | None = None,
    ) -> None:
        self._transport = transport
        self._topic = topics.upload(shard, device)
        self._ref = ref
        self._chunks = list(split(data, ref))
        self._clock = clock
        self._rate = bytes_per_second
        self._sending: set[int] = set()
        # One at a time: what is granted waits here, not in the socket, where it would delay pings for as
        # long as it takes to send.
        self._turn = asyncio.Lock()

    async def granted(self, indices: Sequence[int]) -> None:
        """Sends these chunks and returns when the broker has them; those on their way already are left out.

        What the broker did not take is tried once more, which waits for the next connection; after that it
        will be granted again.

        Raises:
            ProtocolError: there is no such chunk; nothing is sent.
        """
        fresh = [index for index in dict.fromkeys(indices) if index not in self._sending]
        if any(not 0 <= index < self._ref.chunks for index in fresh):
            raise ProtocolError(f"a grant for a chunk that is not one of {self._ref.chunks}")
        self._sending.update(fresh)
        try:
            async with self._turn:
                for index in fresh:
                    await self._send(index)
        finally:
            self._sending.difference_update(fresh)

    async def _send(self, index: int) -> None:
        if self._rate is not None:
            # Before, not after: a link of this rate would have taken as long to carry it.
            await self._clock.sleep(len(self._chunks[index]) / self._rate)
        frame = _encoder.encode(Chunk(self._ref.sha256, index, self._chunks[index]))
        for _ in range(SEND_ATTEMPTS):
            try:
                await self._transport.publish(self._topic, frame)
                break
            except TransportError as error:
                _log.warning("chunk_not_sent", topic=self._topic, index=index, cause=str(error))
        self._sending.discard(index)


def _hash(data: memoryview) -> bytes:
    return sha256(data).digest()


def _decoded(frame: bytes) -> Chunk:
    try:
        return _chunks.decode(frame)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        raise FrameError(f"not a chunk: {str(error)[:MAX_CAUSE]}") from None
