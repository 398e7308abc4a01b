"""The manifest of a round as a plan wants it."""

from msgspec.structs import replace

from protocol.chunks import BlobRef
from protocol.errors import FedfleetError
from protocol.ids import Order
from protocol.messages import Manifest
from protocol.noise import noise_of, ring_bits
from protocol.plan import Plan, plan_hash

_FLOAT_SIZE = 4


class PlanImpossibleError(FedfleetError):
    """The plan can be read, but no round of it could be run with so many devices."""


def planned_manifest(
    plan: Plan,
    *,
    fleet: str,
    order: Order,
    bundle: BlobRef,
    weights: BlobRef,
    members: int,
    clip: float | None,
    shard: str,
    revocations: int = 0,
) -> Manifest:
    """What devices are told.

    Args:
        plan: what to do.
        fleet: its name.
        order: of the round.
        bundle: the training artifact.
        weights: the global model.
        members: most members of the cohort.
        clip: of this round where it is adaptive; None is the plan's.
        shard: where uploads go.
        revocations: number of the coordinator's revocation list.

    Raises:
        ImpossiblePrivacyError: no round of so many members can be as private as the plan wants.
    """
    masking = replace(
        plan.secure_aggregation,
        bits=ring_bits(plan.privacy, plan.secure_aggregation),
        clip=clip or plan.secure_aggregation.clip,
    )
    fewest = plan.selection.min_cohort
    size = weights.size // _FLOAT_SIZE
    return Manifest(
        fleet=fleet,
        order=order,
        protocol="pairwise",
        plan=plan_hash(plan),
        revocations=revocations,
        bundle=bundle,
        weights=weights,
        training=plan.training,
        eligibility=plan.selection.eligibility,
        secure_aggregation=masking,
        noise=noise_of(plan.privacy, masking, size, (fewest, members), plan.stopping.rounds),
        min_cohort=fewest,
        max_cohort=members,
        deadlines=plan.deadlines,
        shard=shard,
    )
