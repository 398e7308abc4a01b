"""What a device holds a coordinator to, whatever the plan says: manifest and sets."""

from dataclasses import dataclass, field

from protocol.certificates import Certificate, FleetTrust
from protocol.chunks import check
from protocol.device_privacy import PrivacyStance, check_noise
from protocol.device_work import Membership
from protocol.eligibility import Facts
from protocol.errors import CertificateError, ManifestError, ProtocolError, SetError
from protocol.ids import DeviceId, UnixTime
from protocol.messages import Manifest
from protocol.order_checks import check_generation
from protocol.vector import encoding_of


@dataclass(frozen=True)
class DeviceContext:
    """What a device brings to a round.

    Attributes:
        own: its name.
        trust: the fleet's root.
        min_cohort: its own floor of cohort and survivors.
        corrupt_fraction: its own floor of the assumed corrupt part, gamma.
        facts: what it knows of itself.
        started: wall clock when the round began, for certificate validity.
        min_enrolled_age: seconds for which another member must have been enrolled.
        privacy: what it insists on and has spent.
        asleep: why it takes part in nothing now, in words; empty when it does.
    """

    own: DeviceId
    trust: FleetTrust
    min_cohort: int
    corrupt_fraction: float
    facts: Facts
    started: UnixTime
    min_enrolled_age: float = 0.0
    privacy: PrivacyStance = field(default_factory=PrivacyStance)
    asleep: str = ""


def check_manifest(manifest: Manifest, signer: Certificate, context: DeviceContext) -> None:
    """A manifest must be of this fleet and its signer's generation, within the floors, and possible.

    Raises:
        ManifestError: it is not.
        PrivacyError: bits, clip, noise and max_cohort do not fit one another.
    """
    if manifest.fleet != context.trust.fleet:
        raise ManifestError(f"the manifest is of fleet {manifest.fleet}")
    check_generation(manifest.order, signer)
    _check_revocations(manifest, context)
    if manifest.max_cohort < max(context.min_cohort, manifest.min_cohort):
        raise ManifestError(
            f"a cohort of at most {manifest.max_cohort} can't reach the floor of {context.min_cohort}"
        )
    gamma = manifest.secure_aggregation.corrupt_fraction
    if gamma < context.corrupt_fraction:
        raise ManifestError(
            f"it assumes a corrupt part of only {gamma:.3f}; "
            f"this device's floor is {context.corrupt_fraction:.3f}"
        )
    for ref in (manifest.bundle, manifest.weights):
        try:
            check(ref)
        except ProtocolError as error:
            raise ManifestError(str(error)) from error
    if manifest.weights.size % 4:
        raise ManifestError(f"{manifest.weights.size} bytes are no vector of float32")
    encoding_of(manifest)
    check_noise(manifest)


def _check_revocations(manifest: Manifest, context: DeviceContext) -> None:
    """The device must go by a current list, none older than the coordinator's; by a newer one it may."""
    theirs, ours = manifest.revocations, context.trust.sequence
    if theirs > ours:
        raise ManifestError(f"revocation list {theirs} has not arrived here; the newest is {ours}")
    try:
        context.trust.check_list(context.started)
    except CertificateError as error:
        raise ManifestError(str(error)) from error


def check_set(
    names: tuple[str, ...], of: frozenset[DeviceId], membership: Membership, own: DeviceId, floor: int
) -> frozenset[DeviceId]:
    """A share set or survivor set, checked: sorted, a subset, with this device and enough of its neighbours.

    Args:
        names: the announced set.
        of: the set it must be a part of.
        membership: what this device knows of its cohort.
        own: this device.
        floor: fewest members it accepts.

    Raises:
        SetError: it is not what it must be.
    """
    members = frozenset(map(DeviceId, names))
    threshold = membership.view.threshold
    if list(names) != sorted(members):
        raise SetError("the set is not sorted, or names a device twice")
    if not members <= of:
        raise SetError(f"the set names strangers: {', '.join(sorted(members - of))[:120]}")
    if own not in members:
        raise SetError("this device is not in the set")
    needed = max(floor, membership.view.fewest)
    if len(members) < needed:
        raise SetError(f"the set has {len(members)} members; at least {needed} are needed")
    if len(members & membership.neighbours) < threshold:
        raise SetError(f"fewer neighbours than the threshold of {threshold} are in the set")
    return members
