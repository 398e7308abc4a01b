"""`fedfleet plan check`: what a plan means for every device, before anything runs."""

import math
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.table import Table

from console.text import size
from coordinator.artifact import build_artifact
from coordinator.selection import Candidate, NotEnough, select
from privacy.errors import PrivacyError
from privacy.update import UpdateEncoding
from protocol.errors import FedfleetError
from protocol.ids import DeviceId
from protocol.plan import Plan
from protocol.vector import layout_of
from runtime.plan_file import load_plan
from secagg import graph
from secagg.errors import SecAggError


class PlanImpossibleError(FedfleetError):
    """The plan can be read, but no round of it could be run with so many devices."""


class PlanFigures(Struct, frozen=True):
    """What follows from a plan.

    Attributes:
        parameters: trainable numbers d of the model.
        bundle_bytes: of the training artifact, which a device fetches once.
        cohort: devices that are invited.
        bytes_down: of the weights, to one device in one round; the messages of the protocol come on top.
        bytes_up: of the masked update, likewise.
        ring_bits: width of a masked coordinate.
        scale: levels per unit of the weights.
        resolution: 1 / scale, in units of the weights.
        degree: neighbours with whom a device shares masks.
        threshold: of their shares that recover it.
        tolerated_dropouts: devices that may vanish after sharing, wherever they are in the graph.
        round_seconds: longest possible round.
        run_seconds: longest possible run of as many rounds as the plan wants, none aborted.
    """

    parameters: int
    bundle_bytes: int
    cohort: int
    bytes_down: int
    bytes_up: int
    ring_bits: int
    scale: float
    resolution: float
    degree: int
    threshold: int
    tolerated_dropouts: int
    round_seconds: float
    run_seconds: float


def check_plan(path: Path, devices: int | None) -> PlanFigures:
    """Load a plan, build what it trains, and work out the rest.

    Args:
        path: of the plan file.
        devices: on offer; None takes the fewest that make a full round.

    Raises:
        FedfleetError: a wrong value, a model that cannot be trained, or figures that do not fit together.
    """
    plan = load_plan(path)
    artifact = build_artifact(plan, path.parent, seed=0)
    try:
        return _figures(plan, len(artifact.weights), len(artifact.bundle.encode()), _cohort(plan, devices))
    except (PrivacyError, SecAggError) as error:
        raise PlanImpossibleError(f"{path}: {error}; change secure_aggregation or the cohort") from error


def _figures(plan: Plan, parameters: int, bundle_bytes: int, cohort: int) -> PlanFigures:
    encoding = _encoding(plan, parameters, cohort)
    rules = plan.secure_aggregation
    sizes = graph.parameters(cohort, rules.corrupt_fraction, rules.dropout_fraction)
    threshold = max(sizes.threshold, rules.threshold)
    fewest = max(threshold, plan.selection.min_cohort)
    longest = _round_seconds(plan)
    return PlanFigures(
        parameters=parameters,
        bundle_bytes=bundle_bytes,
        cohort=cohort,
        bytes_down=4 * parameters,
        bytes_up=layout_of(encoding).packed_size,
        ring_bits=rules.bits,
        scale=encoding.scale,
        resolution=1 / encoding.scale,
        degree=sizes.degree,
        threshold=threshold,
        tolerated_dropouts=max(0, min(sizes.degree - threshold, cohort - fewest)),
        round_seconds=longest,
        run_seconds=longest * plan.stopping.rounds,
    )


def _cohort(plan: Plan, devices: int | None) -> int:
    """How many devices a round invites, by the coordinator's own rule."""
    chosen = plan.selection
    fleet = devices or math.ceil((chosen.count or chosen.min_cohort) * chosen.over_selection)
    offers = [Candidate(DeviceId(str(number)), charging=True, unmetered=True) for number in range(fleet)]
    choice = select(offers, chosen, lambda: 0.5)
    if isinstance(choice, NotEnough):
        raise PlanImpossibleError(f"{choice.reason}; lower selection.min_cohort or give more devices")
    return len(choice.invited)


def _encoding(plan: Plan, parameters: int, cohort: int) -> UpdateEncoding:
    rules = plan.secure_aggregation
    return UpdateEncoding(
        update_size=parameters,
        bits=rules.bits,
        clip=rules.clip,
        coordinate_limit=rules.coordinate_limit or rules.clip,
        max_members=cohort,
        max_examples=plan.training.max_examples,
        loss_ceiling=plan.training.loss_ceiling,
    )


def _round_seconds(plan: Plan) -> float:
    phases = msgspec.structs.asdict(plan.deadlines)
    return float(sum(seconds for phase, seconds in phases.items() if phase != "max_lifetime"))


def table(path: Path, figures: PlanFigures) -> Table:
    """The figures, for people."""
    one = figures
    rows = {
        "model": f"{one.parameters:,} parameters, artifact of {size(one.bundle_bytes)} (fetched once)",
        "cohort": f"{one.cohort} devices invited",
        "down": f"{size(one.bytes_down)} a round and device",
        "up": f"{size(one.bytes_up)} a round and device",
        "ring": f"{one.ring_bits} bits, {one.scale:,.0f} levels a unit, resolution {one.resolution:.2g}",
        "graph": f"{one.degree} neighbours, {one.threshold} shares recover one",
        "dropouts": f"{one.tolerated_dropouts} of {one.cohort} may vanish after sharing",
        "deadlines": f"{one.round_seconds:g} s a round, {one.run_seconds / 3600:.1f} h in all, at most",
    }
    made = Table(title=f"{path} is a valid plan", title_justify="left", show_header=False, box=None)
    for name, value in rows.items():
        made.add_row(name, value, style=None)
    return made
