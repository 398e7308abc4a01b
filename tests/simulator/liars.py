"""Those who hold a key and lie: a malicious device, and whoever else has the coordinator's key."""

import random
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from broker.transport import Delivery
from protocol.chunks import Chunk, describe
from protocol.frames import seal_frame
from protocol.messages import (
    Cohort,
    Confirmations,
    Grant,
    Manifest,
    Message,
    Offer,
    Reveal,
    RoundKeys,
    RoundMessage,
    SealedShares,
    ShareSet,
    Stored,
    SurvivorSet,
    UploadOffer,
    encode,
)
from protocol.transcript import extend
from simulator.actors import cast
from simulator.operations import Lie, Malice
from simulator.oracle import Oracle

_chunks = msgspec.msgpack.Decoder(Chunk)

LIED_ABOUT: dict[str, type[Message]] = {
    "manifest": Manifest,
    "cohort": Cohort,
    "share_set": ShareSet,
    "survivor_set": SurvivorSet,
    "second_survivor_set": SurvivorSet,
}


class MaliciousDevice:
    """Says something else than the program on its device, properly signed.

    Args:
        malice: what.
        oracle: reads frames.
    """

    def __init__(self, malice: Malice, oracle: Oracle) -> None:
        self._malice = malice
        self._oracle = oracle
        self._identity = cast().devices[malice.device]
        self._chance = random.Random(malice.salt)
        self._names: dict[bytes, bytes] = {}

    @property
    def finite(self) -> bool:
        """Whether its update is a number."""
        return self._malice.kind != "not_finite"

    def instead(self, topic: str, payload: bytes) -> list[bytes] | None:
        """What is published in place of a frame or chunk; None is the same."""
        if self._malice.kind == "silent":
            return []
        if "/uploads/" in topic:
            return self._chunk(payload)
        found = self._oracle.read(payload)
        if found is None:
            return None
        said = self._messages(found[1])
        return None if said is None else [seal_frame(self._identity, message) for message in said]

    def _messages(self, said: Message) -> list[Message] | None:  # noqa: PLR0911 - one line a lie
        garbage = self._chance.randbytes
        match self._malice.kind, said:
            case "second_keys", RoundKeys():
                return [said, replace(said, mask_key=garbage(32))]
            case "garbage_shares", SealedShares():
                return [replace(said, shares=tuple((peer, garbage(88)) for peer, _ in said.shares))]
            case "garbage_upload", UploadOffer():
                return [self._garbage(said)]
            case "second_upload", UploadOffer():
                return [said, self._garbage(said)]
            case "garbage_reveal", Reveal():
                return [replace(said, shares=tuple((peer, garbage(36)) for peer, _ in said.shares))]
            case "wrong_transcript", RoundMessage():
                return [replace(said, transcript=garbage(32))]
            case "high_order", Offer():
                return [replace(said, seen=replace(said.seen, generation=1, epoch=2**40))]
        return None

    def _garbage(self, offer: UploadOffer) -> UploadOffer:
        garbage = describe(self._noise(offer.blob.sha256, offer.blob.size))
        self._names[garbage.sha256] = offer.blob.sha256
        return replace(offer, blob=garbage)

    def _chunk(self, payload: bytes) -> list[bytes] | None:
        chunk = _chunks.decode(payload)
        for name, true_name in self._names.items():
            if true_name == chunk.blob:
                data = memoryview(self._noise(chunk.blob, len(chunk.data)))
                return [msgspec.msgpack.encode(replace(chunk, blob=name, data=data))]
        return None

    def hears(self, delivery: Delivery) -> Delivery:
        """The program on the device knows its upload by the true name: what is said of it is translated."""
        found = self._oracle.read(delivery.payload)
        if found is None or not isinstance(found[1], Grant | Stored) or found[1].blob not in self._names:
            return delivery
        said = replace(found[1], blob=self._names[found[1].blob])
        return replace_payload(delivery, seal_frame(cast().coordinator, said))

    def _noise(self, name: bytes, size: int) -> bytes:
        return random.Random(name + bytes([self._malice.salt % 256])).randbytes(size)


def replace_payload(delivery: Delivery, payload: bytes) -> Delivery:
    """The same message with another content."""
    return Delivery(delivery.topic, payload, delivery.retained)


class LyingCoordinator:
    """Puts words into the coordinator's mouth, signed with its key, on their way to some devices.

    Args:
        oracle: reads frames.
        told: is called for each lie.
    """

    def __init__(self, oracle: Oracle, told: Callable[..., None]) -> None:
        self.lies: list[Lie] = []
        self._oracle = oracle
        self._told = told

    def instead(self, client: str, delivery: Delivery) -> list[Delivery]:
        """What arrives at a client in place of a message."""
        for lie in self.lies:
            if client in lie.victims and delivery.topic.startswith("flw/"):
                return self._instead(lie, client, delivery)
        return [delivery]

    def _instead(self, lie: Lie, client: str, delivery: Delivery) -> list[Delivery]:
        found = self._oracle.read(delivery.payload)
        if found is None or not isinstance(found[1], LIED_ABOUT[lie.kind]):
            return [delivery]
        altered = self._altered(found[1], client, alone=lie.instead)
        if altered is None:
            return [delivery]
        self._told("lies", lie.kind, client)
        payload = seal_frame(cast().coordinator, altered)
        lied = [replace_payload(delivery, payload)]
        if isinstance(altered, SurvivorSet):
            lied.append(replace_payload(delivery, seal_frame(cast().coordinator, _forged(altered))))
        if lie.kind == "second_survivor_set":
            return [delivery, *lied]
        return lied if lie.instead else [*lied, delivery]

    def _altered(self, truth: Message, victim: str, *, alone: bool) -> Message | None:
        """Another plan, one member fewer, or hardly anybody but the victim."""
        match truth:
            case Manifest():
                return replace(truth, plan=bytes(32))
            case Cohort(members=entries):
                senders = [found[0] for found in map(self._oracle.read, entries) if found is not None]
                place = next(place for place, sender in enumerate(senders) if sender != victim)
                return replace(truth, members=entries[:place] + entries[place + 1 :])
            case ShareSet(members=members) | SurvivorSet(members=members):
                others = [member for member in members if member != victim]
                left = set(others[:1] if alone else others[1:])
                lie = replace(truth, members=tuple(one for one in members if one == victim or one in left))
                self._oracle.announced(lie)
                return lie
        return None


def _forged(survivors: SurvivorSet) -> Confirmations:
    """What would open the sum of these survivors, if nobody looked at the signatures."""
    transcript = extend(survivors.transcript, encode(survivors))
    return Confirmations(survivors.order, transcript, tuple((name, bytes(64)) for name in survivors.members))
