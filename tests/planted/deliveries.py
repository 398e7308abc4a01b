"""Bugs in how things travel: frames, chunks, retained state, sessions."""

from typing import Any

import protocol.frames
from broker.memory import MemoryTransport
from coordinator.notices import Notices
from coordinator.rounds import Round
from planted.bugs import Plant, bug, nothing
from protocol.chunks import Assembly
from protocol.effects import Uploaded
from runtime.downloads import ChunkResender


@bug("stuck", "What devices fetch is published once, though the broker may lose it; who asks gets no answer.")
def blobs_published_once(plant: Plant) -> None:
    async def publish(real: Any, self: Notices, data: Any, ref: Any) -> None:
        known: set[bytes] = self.__dict__.setdefault("published", set())
        if ref.sha256 not in known:
            known.add(ref.sha256)
            await real(self, data, ref)

    plant.instead(Notices, "publish", publish)
    plant.instead(ChunkResender, "wanted", nothing)


@bug("stuck", "A client that comes back does not subscribe again.")
def subscriptions_not_renewed(plant: Plant) -> None:
    def made(real: Any, self: MemoryTransport) -> None:
        filters, self._filters = self._filters, {} if self.__dict__.get("was_here") else self._filters
        self.__dict__["was_here"] = True
        real(self)
        self._filters = filters

    plant.instead(MemoryTransport, "_connection_made", made)


@bug("sum", "Signatures are not verified, so that a damaged frame is taken.")
def signatures_not_verified(plant: Plant) -> None:
    plant.instead(protocol.frames, "verify_signature", nothing)


@bug("sum", "Neither the hash of a chunk nor that of the whole upload is checked.")
def hashes_not_checked(plant: Plant) -> None:
    def add(_real: Any, self: Assembly, index: int, data: Any) -> bool:
        if index not in self._missing:
            return False
        self._view[self.ref.span(index)] = memoryview(data).cast("B")
        del self._missing[index]
        self._check_name = False
        return True

    async def receive(_real: Any, self: Round, effect: Any) -> Any:
        data = await self._desk.uploads.receive(effect.device, effect.ref)
        self._desk.state.spool.put(data)
        return Uploaded(effect.device, effect.ref, data)

    plant.instead(Assembly, "add", add)
    plant.instead(Round, "_receive", receive)
