"""The cohort U1 as both halves of the round read it: verified keys, graph, threshold, share points."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from protocol.errors import CohortError, TranscriptError
from protocol.frames import Opened
from protocol.ids import DeviceId
from protocol.messages import Cohort, FromDevice, Manifest, RoundKeys, encode
from protocol.noise_cost import survivors_needed
from protocol.transcript import extend
from secagg import graph
from secagg.keys import is_low_order


@dataclass(frozen=True)
class MemberKeys:
    """The public keys of one member: two X25519 for this round, one Ed25519 of its certificate."""

    mask_key: bytes
    seal_key: bytes
    signing_key: bytes


@dataclass(frozen=True)
class CohortView:
    """What follows from manifest and cohort, the same for everyone.

    Attributes:
        transcript: T1.
        members: sorted.
        keys: of each member.
        degree: neighbours of each member.
        threshold: shares that recover a secret.
        fewest: members without whom nothing is unmasked.
    """

    transcript: bytes
    members: tuple[DeviceId, ...]
    keys: Mapping[DeviceId, MemberKeys]
    degree: int
    threshold: int
    fewest: int

    def point(self, device: DeviceId) -> int:
        """Where a member's shares are evaluated: its place in the sorted cohort, from 1."""
        return self.members.index(device) + 1

    def points(self) -> dict[DeviceId, int]:
        """Every member's point."""
        return {device: index for index, device in enumerate(self.members, 1)}

    def neighbours(self) -> dict[DeviceId, frozenset[DeviceId]]:
        """Every member's neighbours in the graph that T1 draws."""
        drawn = graph.neighbours(self.members, self.degree, self.transcript)
        return {DeviceId(member): frozenset(map(DeviceId, others)) for member, others in drawn.items()}

    def neighbours_of(self, device: DeviceId) -> frozenset[DeviceId]:
        """One member's neighbours."""
        drawn = graph.neighbours_of(device, self.members, self.degree, self.transcript)
        return frozenset(map(DeviceId, drawn))


def read_cohort(
    cohort: Cohort,
    manifest: Manifest,
    context: bytes,
    open_frame: Callable[[bytes], Opened[FromDevice]],
) -> CohortView:
    """Check a cohort and derive what follows from it.

    Args:
        cohort: as decided by the coordinator.
        manifest: of the round.
        context: T0.
        open_frame: verifies the frame of a member: whom to accept is for each side to say.

    Raises:
        CohortError: size, order, repeated names or keys, low-order points, unreachable threshold.
        TranscriptError: keys that were signed for another round.
        FrameError, CertificateError: a member that no device of this fleet signed for.
    """
    if cohort.transcript != context:
        raise TranscriptError("the cohort is of another round context")
    if not manifest.min_cohort <= len(cohort.members) <= manifest.max_cohort:
        raise CohortError(
            f"the cohort has {len(cohort.members)} members; "
            f"the manifest allows {manifest.min_cohort} to {manifest.max_cohort}"
        )
    frames = [open_frame(frame) for frame in cohort.members]
    keys = {frame.sender: keys_of(frame, manifest, context) for frame in frames}
    _check_distinct([frame.sender for frame in frames], keys)
    settings = manifest.secure_aggregation
    rule = graph.parameters(len(frames), settings.corrupt_fraction, settings.dropout_fraction)
    threshold = max(rule.threshold, settings.threshold)
    if threshold > rule.degree:
        raise CohortError(f"threshold {threshold} is above the {rule.degree} neighbours of a member")
    fewest = max(threshold, survivors_needed(manifest, len(frames)))
    return CohortView(extend(context, encode(cohort)), tuple(keys), keys, rule.degree, threshold, fewest)


def keys_of(frame: Opened[FromDevice], manifest: Manifest, context: bytes) -> MemberKeys:
    """The keys that a verified frame shows for this round.

    Raises:
        CohortError: it holds no keys, one of low order, or one for both purposes.
        TranscriptError: it was signed for another round.
    """
    said = frame.message
    if not isinstance(said, RoundKeys):
        raise CohortError(f"{frame.sender}'s entry holds no round keys")
    if said.order != manifest.order or said.transcript != context:
        raise TranscriptError(f"{frame.sender}'s keys were signed for another round context")
    if said.mask_key == said.seal_key:
        raise CohortError(f"{frame.sender} shows one key for both purposes")
    if is_low_order(said.mask_key) or is_low_order(said.seal_key):
        raise CohortError(f"{frame.sender} has a key of low order")
    return MemberKeys(said.mask_key, said.seal_key, frame.signer.public_key)


def _check_distinct(senders: Sequence[DeviceId], keys: Mapping[DeviceId, MemberKeys]) -> None:
    if any(first >= second for first, second in pairwise(senders)):
        raise CohortError("the members are not sorted, or one appears twice")
    public = [key for member in keys.values() for key in (member.mask_key, member.seal_key)]
    if len(set(public)) != len(public):
        raise CohortError("two members show the same key")
    if len({member.signing_key for member in keys.values()}) != len(keys):
        raise CohortError("two members share one device key")
