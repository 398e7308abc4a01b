"""The computations of a round that are too long for an event loop, each a pure function of its fields.

In the order of the data's path: encode → join → mask → (add → recover → expand → decode at the coordinator).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from privacy.update import LocalMetrics, MeanUpdate, UpdateEncoding
from protocol.certificates import FleetTrust
from protocol.chunks import BlobRef, describe
from protocol.cohort import CohortView, read_cohort
from protocol.errors import CohortError, ConfirmationError, FrameError, ShareDeliveryError
from protocol.frames import verify_signature
from protocol.ids import DeviceId, Order, UnixTime
from protocol.messages import (
    Cohort,
    Confirmation,
    Confirmations,
    Manifest,
    RoundKeys,
    SealedShares,
    ShareDelivery,
    encode,
)
from secagg import pairwise, shamir
from secagg.errors import SealError, ShareError
from secagg.keys import RoundSecrets, Secret, derive, public_key, seed_commitment
from secagg.pairwise import Expansion, PairGroup, SelfGroup, apply, expand_sum, self_expansion
from secagg.prg import Keystream
from secagg.ring import RingLayout, RingVector
from secagg.sealing import Channel, open_channel

SHARE_SIZE = 36
_HEAVY_SHARES = 4096
_HEAVY_BYTES = 8 * 2**20
_FLOAT = np.dtype("<f4")


def encoding_of(manifest: Manifest) -> UpdateEncoding:
    """The fixed-point rule that a manifest implies.

    Raises:
        QuantizationError: bits, clip and max_cohort do not fit one another.
    """
    settings = manifest.secure_aggregation
    return UpdateEncoding(
        update_size=manifest.weights.size // _FLOAT.itemsize,
        bits=settings.bits,
        clip=settings.clip,
        coordinate_limit=min(settings.coordinate_limit or settings.clip, settings.clip),
        max_members=manifest.max_cohort,
        max_examples=manifest.training.max_examples,
        loss_ceiling=manifest.training.loss_ceiling,
    )


def layout_of(encoding: UpdateEncoding) -> RingLayout:
    """The masked vector's blocks."""
    return RingLayout(encoding.block_size, encoding.bits, encoding.METRICS_SIZE)


# The device's half.


@dataclass(frozen=True)
class EncodeUpdate:
    """Difference → clip → weigh → round → ring. Result: RingVector.

    Raises NotFiniteError before anything of a broken update can leave.
    """

    initial: NDArray[np.float32]
    trained: NDArray[np.float32]
    metrics: LocalMetrics
    encoding: UpdateEncoding
    rounding_key: Secret
    heavy: ClassVar[bool] = False

    def run(self) -> RingVector:
        """Compute it."""
        with np.errstate(invalid="ignore", over="ignore"):  # encode says it in words
            delta = self.trained - self.initial
        encoded = self.encoding.encode(delta, self.metrics, Keystream(self.rounding_key).read)
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
    secrets: RoundSecrets = field(repr=False)
    heavy: ClassVar[bool] = False

    def run(self) -> Membership:
        """Compute it; raises PeerError when the cohort is not what it must be."""
        if len(self.cohort.members) < self.floor:
            raise CohortError(
                f"the cohort has {len(self.cohort.members)} members; this device's floor is {self.floor}"
            )
        view = read_cohort(self.cohort, self.manifest, self.context, self.trust, self.now)
        entry = view.keys.get(self.own)
        if entry is None or (entry.mask_key, entry.seal_key) != (
            self.own_keys.mask_key,
            self.own_keys.seal_key,
        ):
            raise CohortError("this device's own entry is missing or altered")
        neighbours = view.neighbours_of(self.own)
        channels = {device: self._channel(view, device) for device in sorted(neighbours)}
        return Membership(view, neighbours, channels, self._shares(view, channels))

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
        seeds = self._split(self.secrets.self_seed, b"fedfleet/1/share/self-seed", view, points)
        keys = self._split(self.secrets.mask_private, b"fedfleet/1/share/mask-private", view, points)
        sealed = tuple(
            (device, channels[device].seal(seeds[point] + keys[point])) for device, point in points.items()
        )
        commitment = seed_commitment(view.transcript, self.own, self.secrets.self_seed)
        return SealedShares(self.manifest.order, view.transcript, commitment, sealed)

    def _split(
        self, secret: Secret, label: bytes, view: CohortView, points: Mapping[DeviceId, int]
    ) -> dict[int, bytes]:
        stream = derive(self.secrets.share_key, salt=view.transcript, label=label)
        return shamir.split(secret, threshold=view.threshold, points=list(points.values()), stream_key=stream)


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


# The coordinator's half.


@dataclass(frozen=True)
class FormedCohort:
    """A cohort, what follows from it, and the whole graph."""

    cohort: Cohort
    view: CohortView
    neighbours: Mapping[DeviceId, frozenset[DeviceId]]


@dataclass(frozen=True)
class FormCohort:
    """Draw up the cohort as every member will check it. Result: FormedCohort."""

    cohort: Cohort
    manifest: Manifest
    context: bytes
    trust: FleetTrust
    now: UnixTime
    heavy: ClassVar[bool] = False

    def run(self) -> FormedCohort:
        """Compute it; raises PeerError when the members cannot form a cohort."""
        view = read_cohort(self.cohort, self.manifest, self.context, self.trust, self.now)
        return FormedCohort(self.cohort, view, view.neighbours())


@dataclass(frozen=True)
class SortMail:
    """Put together what each member of U2 gets from its neighbours. Result: a ShareDelivery by device.

    Attributes:
        transcript: T2.
        mail: sealed pairs by receiver and sender, of all who shared.
        members: U2.
    """

    order: Order
    transcript: bytes
    mail: Mapping[DeviceId, Mapping[DeviceId, bytes]] = field(repr=False)
    members: frozenset[DeviceId]
    heavy: ClassVar[bool] = False

    def run(self) -> dict[DeviceId, ShareDelivery]:
        """Compute it."""
        return {device: self._delivery(self.mail[device]) for device in sorted(self.members)}

    def _delivery(self, mail: Mapping[DeviceId, bytes]) -> ShareDelivery:
        sealed = tuple((sender, mail[sender]) for sender in sorted(mail.keys() & self.members))
        return ShareDelivery(self.order, self.transcript, sealed)


@dataclass(frozen=True)
class AddUpdate:
    """Add one masked update to the running sum, in place. Result: the device.

    Memory grows with the model, not with the cohort: the update is dropped afterwards.
    """

    total: RingVector = field(repr=False)
    device: DeviceId
    ref: BlobRef
    data: bytes | bytearray | memoryview = field(repr=False)
    heavy: ClassVar[bool] = False

    def run(self) -> DeviceId:
        """Compute it; raises RingError when the length is wrong."""
        self.total.add(RingVector.unpack(self.total.layout, self.data))
        return self.device


Corrections = tuple[pairwise.Work, ...]
"""What removes the masks left in the sum when it is added: survivors' own masks inverted, and the pair masks
that vanished devices would have added."""


@dataclass(frozen=True)
class RecoverKeys:
    """Recover each survivor's seed and each dropout's key from the revealed shares. Result: Corrections.

    A seed is checked against its signed commitment, a key against its public key; where a share lies,
    other subsets are tried.

    Attributes:
        commitments: of the survivors' seeds.
        survivors: U3.
        dropouts: U2 without U3.
        reveals: shares by revealer and peer.
        transcript: T2.
    """

    view: CohortView
    neighbours: Mapping[DeviceId, frozenset[DeviceId]]
    commitments: Mapping[DeviceId, bytes]
    survivors: Sequence[DeviceId]
    dropouts: Sequence[DeviceId]
    reveals: Mapping[DeviceId, Mapping[DeviceId, bytes]] = field(repr=False)
    transcript: bytes

    @property
    def heavy(self) -> bool:
        """Interpolation grows with members times threshold; up to about 10 ms stays here."""
        return len(self.view.members) * self.view.threshold > _HEAVY_SHARES

    def run(self) -> Corrections:
        """Compute it; raises ShareError when a secret cannot be recovered."""
        secrets = self._recover_all([*self.survivors, *self.dropouts])
        own = SelfGroup(tuple((device, secrets[device]) for device in self.survivors), self.transcript)
        pairs = (self._pair_masks(device, secrets[device]) for device in self.dropouts)
        return (own, *pairs)

    def _pair_masks(self, dropout: DeviceId, private: Secret) -> PairGroup:
        survivors = sorted(self.neighbours[dropout] & frozenset(self.survivors))
        peers = tuple((peer, self.view.keys[peer].mask_key) for peer in survivors)
        return PairGroup(private, dropout, peers, self.transcript)

    def _recover_all(self, targets: Sequence[DeviceId]) -> dict[DeviceId, Secret]:
        points = self.view.points()
        shares = {target: self._shares_of(target, points) for target in targets}
        quick = shamir.combine_many([shares[target] for target in targets], self.view.threshold)
        survivors = frozenset(self.survivors)
        found: dict[DeviceId, Secret] = {}
        for target, secret in zip(targets, quick, strict=True):
            valid = self._is_seed(target) if target in survivors else self._is_key(target)
            if secret is None or not valid(secret):
                secret = self._retry(target, shares[target], valid)  # noqa: PLW2901 - a better one
            found[target] = secret
        return found

    def _shares_of(self, target: DeviceId, points: Mapping[DeviceId, int]) -> dict[int, bytes]:
        return {
            points[revealer]: self.reveals[revealer][target]
            for revealer in sorted(self.neighbours[target])
            if target in self.reveals.get(revealer, ())
        }

    def _retry(
        self, target: DeviceId, shares: Mapping[int, bytes], valid: Callable[[Secret], bool]
    ) -> Secret:
        try:
            return shamir.recover(shares, self.view.threshold, valid)[0]
        except ShareError as error:
            raise ShareError(f"{target}'s secret cannot be recovered: {error}") from error

    def _is_seed(self, device: DeviceId) -> Callable[[Secret], bool]:
        expected = self.commitments[device]
        return lambda secret: seed_commitment(self.view.transcript, device, secret) == expected

    def _is_key(self, device: DeviceId) -> Callable[[Secret], bool]:
        expected = self.view.keys[device].mask_key
        return lambda secret: public_key(secret) == expected


@dataclass(frozen=True)
class ExpandMasks:
    """Sum a part of the corrections. Result: RingVector."""

    layout: RingLayout
    corrections: Corrections = field(repr=False)

    @property
    def heavy(self) -> bool:
        """About 2 ms of stream stays here."""
        return count_masks(self.corrections) * self.layout.packed_size > _HEAVY_BYTES

    def run(self) -> RingVector:
        """Compute it; raises LowOrderPointError, which read_cohort has made impossible."""
        return expand_sum(self.layout, self.corrections)


def count_masks(corrections: Corrections) -> int:
    """How many streams these corrections expand to."""
    return sum(1 if isinstance(item, Expansion) else len(item) for item in corrections)


@dataclass(frozen=True)
class DecodeSum:
    """Unmask in place and read the mean. Result: MeanUpdate.

    Raises MaskMismatchError when a sentinel is not zero.
    """

    total: RingVector = field(repr=False)
    corrections: Sequence[RingVector] = field(repr=False)
    encoding: UpdateEncoding
    members: int
    heavy: ClassVar[bool] = False

    def run(self) -> MeanUpdate:
        """Compute it."""
        for correction in self.corrections:
            self.total.add(correction)
        return self.encoding.decode(self.total.signed_update(), self.total.signed_metrics(), self.members)
