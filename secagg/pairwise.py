"""Pairwise masks that cancel in the sum, and removing those that do not (Bonawitz et al. 2017, CCS).

Each device adds a mask of its own and, for every neighbour, a mask that the neighbour subtracts. In the sum
of the survivors there remain the survivors' own masks, and the pair masks towards members that vanished:
the coordinator subtracts the former and *adds the vanished devices' own pair masks*, which cancel the
latter.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

from secagg.keys import Secret, agree, derive, encode
from secagg.prg import MASK_KEY_SIZE, StreamAdder
from secagg.ring import RingLayout, RingVector


@dataclass(frozen=True)
class Expansion:
    """One stream to add to a vector: its 16-byte key and its sign, +1 or -1."""

    key: Secret
    sign: int

    def inverse(self) -> Self:
        """Return the expansion that undoes this one."""
        return replace(self, sign=-self.sign)


@dataclass(frozen=True)
class PairGroup:
    """The pair masks of one device with several neighbours, before the keys are agreed.

    Iterating agrees and derives: one X25519 for each neighbour, which is work for a worker too.

    Attributes:
        private: the device's mask private key.
        device: its id.
        peers: (id, mask public key) of each neighbour.
        transcript: hash that every mask key is bound to.
    """

    private: Secret
    device: str
    peers: tuple[tuple[str, bytes], ...]
    transcript: bytes

    def __len__(self) -> int:
        return len(self.peers)

    def part(self, start: int, end: int) -> Self:
        """Return the masks of some of the neighbours."""
        return replace(self, peers=self.peers[start:end])

    def __iter__(self) -> Iterator[Expansion]:
        """Yield the device's own expansion for each neighbour in turn.

        Raises:
            LowOrderPointError: a neighbour's public key is not usable.
        """
        for peer, public in self.peers:
            yield pair_expansion(self.private, public, transcript=self.transcript, own=self.device, peer=peer)


@dataclass(frozen=True)
class SelfGroup:
    """The removal of several devices' own masks, before the keys are derived.

    Attributes:
        seeds: (id, self-mask seed) of each device.
        transcript: hash that every mask key is bound to.
    """

    seeds: tuple[tuple[str, Secret], ...]
    transcript: bytes

    def __len__(self) -> int:
        return len(self.seeds)

    def part(self, start: int, end: int) -> Self:
        """Return the removals for some of the devices."""
        return replace(self, seeds=self.seeds[start:end])

    def __iter__(self) -> Iterator[Expansion]:
        """Yield the inverse of each device's own expansion."""
        for device, seed in self.seeds:
            yield Expansion(_self_key(seed, self.transcript, device), -1)


Work: TypeAlias = Expansion | PairGroup | SelfGroup
"""One mask, or several whose keys are still to be made."""


def pair_expansion(
    private: Secret, peer_public: bytes, *, transcript: bytes, own: str, peer: str
) -> Expansion:
    """Return the mask of `own` towards `peer`; the peer's is the same with the other sign.

    key = HKDF(X25519(own, peer), salt=transcript, info="fedfleet/1/pair-mask" ‖ encoded (lower id, higher
    id)), sign +1 for the lower id.

    Raises:
        LowOrderPointError: the peer's public key is not usable.
    """
    label = b"fedfleet/1/pair-mask" + encode(*sorted((own.encode(), peer.encode())))
    key = derive(agree(private, peer_public), salt=transcript, label=label, length=MASK_KEY_SIZE)
    return Expansion(key, 1 if own < peer else -1)


def self_expansion(seed: Secret, *, transcript: bytes, device: str) -> Expansion:
    """Return a device's own mask.

    key = HKDF(seed, salt=transcript, info="fedfleet/1/self-mask" ‖ encoded id), sign +1.
    """
    return Expansion(_self_key(seed, transcript, device), 1)


def _self_key(seed: Secret, transcript: bytes, device: str) -> Secret:
    label = b"fedfleet/1/self-mask" + encode(device.encode())
    return derive(seed, salt=transcript, label=label, length=MASK_KEY_SIZE)


def apply(vector: RingVector, expansions: Iterable[Expansion], *, remove: bool = False) -> None:
    """Add masks to a vector in place, or remove them."""
    adder = StreamAdder(vector)
    for expansion in expansions:
        adder.add(expansion.key, -expansion.sign if remove else expansion.sign)


def expand_sum(layout: RingLayout, work: Sequence[Work]) -> RingVector:
    """Return the sum of many masks: what one worker computes.

    Raises:
        LowOrderPointError: a public key in a group is not usable.
    """
    total = RingVector.zeros(layout)
    expand_into(total, work)
    return total


def expand_into(total: RingVector, work: Sequence[Work]) -> None:
    """Add many masks to a vector in place, where its memory is shared and need not be sent back.

    Raises:
        LowOrderPointError: a public key in a group is not usable.
    """
    adder = StreamAdder(total)
    for item in work:
        for expansion in (item,) if isinstance(item, Expansion) else item:
            adder.add(expansion.key, expansion.sign)


def share_out(work: Iterable[Work], size: int) -> Iterator[list[Work]]:
    """Cut work into parts of `size` masks (the last may be smaller), splitting groups where needed."""
    part: list[Work] = []
    room = size
    for item in work:
        for piece, masks in _pieces(item, room, size):
            part.append(piece)
            room -= masks
            if not room:
                yield part
                part, room = [], size
    if part:
        yield part


def _pieces(item: Work, room: int, size: int) -> Iterator[tuple[Work, int]]:
    """Cut one item so that its first piece fills the room left and the others are at most a whole part."""
    if isinstance(item, Expansion):
        yield item, 1
        return
    ends = [*range(room, len(item), size), len(item)]
    for start, end in zip([0, *ends], ends, strict=False):
        if start < end:
            yield item.part(start, end), end - start
