"""The device's computations that are too long for an event loop, each a pure function of its fields.

In the order of the data's path: encode → join → mask → count confirmations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from privacy.encoding import LocalMetrics, UpdateEncoding
from protocol.certificates import FleetTrust
from protocol.chunks import BlobRef, describe
from protocol.cohort import CohortView, read_cohort
from protocol.errors import CohortError, ConfirmationError, FrameError, ShareDeliveryError
from protocol.frames import Opened, open_device_frame, verify_signature
from protocol.ids import DeviceId, UnixTime
from protocol.messages import (
    Cohort,
    Confirmation,
    Confirmations,
    FromDevice,
    Manifest,
    RoundKeys,
    SealedShares,
    encode,
)
from protocol.vector import layout_of
from secagg import shamir
from secagg.errors import SealError
from secagg.keys import RoundSecrets, Secret, derive, seed_commitment
from secagg.pairwise import PairGroup, apply, self_expansion
from secagg.prg import Keystream
from secagg.ring import RingVector
from secagg.sealing import Channel, open_channel

SHARE_SIZE = 36


@dataclass(frozen=True)
class EncodeUpdate:
    """Difference → clip → weigh → round → noise → ring. Result: RingVector.

    Raises NotFiniteError before anything of a broken update can leave.
    """

    initial: NDArray[np.float32] = field(repr=False)
    trained: NDArray[np.float32] = field(repr=False)
    metrics: LocalMetrics = field(repr=False)
    encoding: UpdateEncoding
    encoding_key: Secret
    heavy: ClassVar[bool] = False

    def run(self) -> RingVector:
        """Compute it."""
        with np.errstate(invalid="ignore", over="ignore"):  # encode says it in words
            delta = self.trained - self.initial
        encoded = self.encoding.encode(delta, self.metrics, Keystream(self.encoding_key).read)
        return RingVector.from_signed(layout_of(self.encoding), encoded.metrics, encoded.update)


@dataclass(frozen=True)
class Membership:
    """What a member knows once it has joined a cohort."""

    view: CohortView
    neighbours: frozenset[DeviceId]
    channels: Mapping[DeviceId, Channel] = field(repr=False)
    shares: SealedShares


@dataclass(frozen=True)
class JoinCohort:
    """Check the cohort, then share both secrets among the neighbours. Result: Membership.

    Attributes:
        own: this device.
        own_keys: what it said in keying; its entry must say the same.
        floor: the smallest cohort this device takes part in.
    """

    cohort: Cohort
    manifest: Manifest
    context: bytes
    own: DeviceId
    own_keys: RoundKeys
    floor: int
    trust: FleetTrust
    now: UnixTime
    min_enrolled_age: float
    secrets: RoundSecrets = field(repr=False)
    heavy: ClassVar[bool] = False

    def run(self) -> Membership:
        """Compute it; raises PeerError when the cohort is not what it must be."""
        if len(self.cohort.members) < self.floor:
            raise CohortError(
                f"the cohort has {len(self.cohort.members)} members; this device's floor is {self.floor}"
            )
        view = read_cohort(self.cohort, self.manifest, self.context, self._open)
        entry = view.keys.get(self.own)
        if entry is None or (entry.mask_key, entry.seal_key) != (
            self.own_keys.mask_key,
            self.own_keys.seal_key,
        ):
            raise CohortError("this device's own entry is missing or altered")
        neighbours = view.neighbours_of(self.own)
        channels = {device: self._channel(view, device) for device in sorted(neighbours)}
        return Membership(view, neighbours, channels, self._shares(view, channels))

    def _open(self, frame: bytes) -> Opened[FromDevice]:
        """A member, who must stand now: certificates made on the spot may be a coordinator's own."""
        opened = open_device_frame(frame, self.trust, self.now)
        age = self.now - opened.signer.not_before
        if age < self.min_enrolled_age and opened.sender != self.own:
            floor = self.min_enrolled_age
            raise CohortError(f"{opened.sender} was enrolled {age:.0f} s ago; the floor here is {floor:.0f}")
        return opened

    def _channel(self, view: CohortView, device: DeviceId) -> Channel:
        return open_channel(
            self.secrets.seal_private,
            view.keys[device].seal_key,
            transcript=view.transcript,
            own=self.own,
            peer=device,
        )

    def _shares(self, view: CohortView, channels: Mapping[DeviceId, Channel]) -> SealedShares:
        everyone = view.points()
        points = {device: everyone[device] for device in channels}
        secrets = (
            (self.secrets.self_seed, self._stream_key(b"self-seed", view)),
            (self.secrets.mask_private, self._stream_key(b"mask-private", view)),
        )
        shares = shamir.split_many(secrets, threshold=view.threshold, points=list(points.values()))
        sealed = tuple((device, channels[device].seal(shares[point])) for device, point in points.items())
        commitment = seed_commitment(view.transcript, self.own, self.secrets.self_seed)
        return SealedShares(self.manifest.order, view.transcript, commitment, sealed)

    def _stream_key(self, use: bytes, view: CohortView) -> Secret:
        return derive(self.secrets.share_key, salt=view.transcript, label=b"fedfleet/1/share/" + use)


@dataclass(frozen=True)
class Masked:
    """A masked update ready to leave.

    Attributes:
        data: packed ring vector.
        ref: its description.
        held: for each neighbour its two shares: (self-mask seed, mask key).
        refused: neighbours whose shares did not open.
    """

    data: bytes
    ref: BlobRef
    held: Mapping[DeviceId, tuple[bytes, bytes]] = field(repr=False)
    refused: tuple[ShareDeliveryError, ...] = ()


@dataclass(frozen=True)
class MaskUpdate:
    """Open the neighbours' shares, then mask. Result: Masked.

    Attributes:
        transcript: T2.
        live: neighbours in the share set.
        delivered: sealed pairs by sender.
    """

    vector: RingVector = field(repr=False)
    own: DeviceId
    membership: Membership
    transcript: bytes
    live: frozenset[DeviceId]
    delivered: Mapping[DeviceId, bytes]
    secrets: RoundSecrets = field(repr=False)
    heavy: ClassVar[bool] = False

    def run(self) -> Masked:
        """Compute it; raises ShareDeliveryError when fewer than the threshold open."""
        held: dict[DeviceId, tuple[bytes, bytes]] = {}
        refused: list[ShareDeliveryError] = []
        for peer in sorted(self.live):
            try:
                held[peer] = self._open(peer)
            except SealError as error:
                refused.append(ShareDeliveryError(f"the shares from {peer} do not open: {error}"))
        threshold = self.membership.view.threshold
        if len(held) < threshold:
            raise ShareDeliveryError(f"{len(held)} neighbours' shares open; the threshold is {threshold}")
        # In place, so that no unmasked vector is left behind (I2).
        own = self_expansion(self.secrets.self_seed, transcript=self.transcript, device=self.own)
        apply(self.vector, [own, *self._pair_masks()])
        data = self.vector.pack()
        return Masked(data, describe(data), held, tuple(refused))

    def _open(self, peer: DeviceId) -> tuple[bytes, bytes]:
        pair = self.membership.channels[peer].open_sealed(self.delivered[peer])
        return pair[:SHARE_SIZE], pair[SHARE_SIZE:]

    def _pair_masks(self) -> PairGroup:
        keys = self.membership.view.keys
        peers = tuple((peer, keys[peer].mask_key) for peer in sorted(self.live))
        return PairGroup(self.secrets.mask_private, self.own, peers, self.transcript)


@dataclass(frozen=True)
class CheckConfirmations:
    """Find the neighbours that signed T3. Result: at least the threshold of them, a frozenset.

    Raises ConfirmationError when they are fewer than the threshold; invalid signatures do not count.
    """

    confirmations: Confirmations
    neighbours: frozenset[DeviceId]
    view: CohortView
    heavy: ClassVar[bool] = False

    def run(self) -> frozenset[DeviceId]:
        """Compute it."""
        body = encode(Confirmation(self.confirmations.order, self.confirmations.transcript))
        signed: set[DeviceId] = set()
        for name, signature in self.confirmations.signatures:
            device = DeviceId(name)
            if device in self.neighbours and _is_signed(self.view, device, body, signature):
                signed.add(device)
            if len(signed) >= self.view.threshold:
                return frozenset(signed)
        raise ConfirmationError(
            f"{len(signed)} neighbours confirmed this survivor set; the threshold is {self.view.threshold}"
        )


def _is_signed(view: CohortView, device: DeviceId, body: bytes, signature: bytes) -> bool:
    try:
        verify_signature(view.keys[device].signing_key, device, body, signature)
    except FrameError:
        return False
    return True
