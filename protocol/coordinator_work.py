"""The coordinator's computations that are too long for an event loop, each a pure function of its fields.

In the order of the data's path: form the cohort → sort the mail → add → recover → expand → decode.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from privacy.encoding import MeanUpdate, UpdateEncoding
from protocol.certificates import FleetTrust
from protocol.chunks import BlobRef
from protocol.cohort import CohortView, read_cohort
from protocol.frames import Opened, reopen_device_frame
from protocol.ids import DeviceId, Order
from protocol.messages import (
    Cohort,
    FromDevice,
    Manifest,
    ShareDelivery,
)
from secagg import pairwise, shamir
from secagg.errors import ShareError
from secagg.keys import Secret, public_key, seed_commitment
from secagg.pairwise import Expansion, PairGroup, SelfGroup, expand_sum
from secagg.prg import Keystream
from secagg.ring import RingLayout, RingVector

_HEAVY_SHARES = 4096
_HEAVY_BYTES = 8 * 2**20


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
    heavy: ClassVar[bool] = False

    def run(self) -> FormedCohort:
        """Compute it; raises PeerError when the members cannot form a cohort.

        Each member was judged when its keys came, and taken out when it was revoked since; so the cohort can
        be formed again from the journal, whatever the date.
        """
        view = read_cohort(self.cohort, self.manifest, self.context, self._open)
        return FormedCohort(self.cohort, view, view.neighbours())

    def _open(self, frame: bytes) -> Opened[FromDevice]:
        return reopen_device_frame(frame, self.trust)


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
    """Unmask in place and read the mean, in central mode with the coordinator's noise. Result: MeanUpdate.

    Raises MaskMismatchError when a sentinel is not zero.
    """

    total: RingVector = field(repr=False)
    corrections: Sequence[RingVector] = field(repr=False)
    encoding: UpdateEncoding
    members: int
    noise_key: Secret
    heavy: ClassVar[bool] = False

    def run(self) -> MeanUpdate:
        """Compute it."""
        for correction in self.corrections:
            self.total.add(correction)
        random_bytes = Keystream(self.noise_key).read
        return self.encoding.decode(
            self.total.signed_update(), self.total.signed_metrics(), self.members, random_bytes
        )
