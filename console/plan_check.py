"""`fedfleet plan check`: what a plan means for every device, before anything runs."""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from rich.table import Table

from console.privacy_report import Line, privacy_lines
from console.rehearsal import Rehearsal, rehearse
from console.text import size
from coordinator.artifact import Artifact, build_artifact
from coordinator.ledger import PrivacyLedger
from coordinator.privacy_rules import limits_of
from coordinator.selection import Candidate, NotEnough, select
from coordinator.stored import raw
from models.layout import ParameterTable
from privacy.errors import ImpossiblePrivacyError, PrivacyError
from protocol.chunks import describe
from protocol.ids import DeviceId, Order
from protocol.noise import participations
from protocol.noise_cost import survivors_needed
from protocol.plan import Eligibility, Plan
from protocol.planned_round import PlanImpossibleError, planned_manifest
from protocol.vector import encoding_of, layout_of
from runtime.plan_file import load_plan
from secagg import graph
from secagg.errors import SecAggError


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
        privacy: what the plan promises of a device, and what that costs, line by line.
        private: numbers that each device trains for itself and keeps.
        frozen: numbers that nobody trains.
        rehearsals: real steps on this machine, by engine; empty unless they were asked for.
        activation: cut off the model's end for training; the exported model has it.
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
    privacy: Sequence[Line]
    private: int = 0
    frozen: int = 0
    rehearsals: Sequence[Rehearsal] = ()
    activation: str | None = None


def check_plan(path: Path, devices: int | None) -> PlanFigures:
    """Load a plan, build what it trains, and work out the rest.

    Args:
        path: of the plan file.
        devices: on offer; None takes the fewest that make full rounds, with rest between them.

    Raises:
        FedfleetError: a wrong value, a model that cannot be trained, or figures that do not fit together.
    """
    plan = load_plan(path)
    artifact = build_artifact(plan, path.parent, seed=0)
    try:
        fleet = devices or _full_fleet(plan)
        cohort = _cohort(plan, fleet)
        privacy = privacy_lines(plan, len(artifact.weights), cohort)
        return _figures(plan, artifact, cohort, [*privacy, *_about_rest(plan, fleet)])
    except ImpossiblePrivacyError as error:
        raise PlanImpossibleError(f"{path}: {error}") from error
    except (PrivacyError, SecAggError) as error:
        raise PlanImpossibleError(f"{path}: {error}; change secure_aggregation or the cohort") from error


def rehearsed(path: Path, figures: PlanFigures) -> PlanFigures:
    """The same with real steps on this machine.

    Raises:
        TrainingFailedError: a step fails.
    """
    plan = load_plan(path)
    steps = rehearse(plan, build_artifact(plan, path.parent, seed=0))
    return msgspec.structs.replace(figures, rehearsals=steps)


def _figures(plan: Plan, artifact: Artifact, cohort: int, privacy: Sequence[Line]) -> PlanFigures:
    parameters = len(artifact.weights)
    manifest = planned_manifest(
        plan,
        fleet="plan",
        order=Order(1, 1, 1),
        bundle=artifact.manifest[1],
        weights=describe(raw(artifact.weights)),
        members=cohort,
        clip=None,
        shard="main",
    )
    encoding, rules = encoding_of(manifest), manifest.secure_aggregation
    sizes = graph.parameters(cohort, rules.corrupt_fraction, rules.dropout_fraction)
    threshold = max(sizes.threshold, rules.threshold)
    fewest = max(threshold, survivors_needed(manifest, cohort))
    longest = _round_seconds(plan)
    return PlanFigures(
        parameters=parameters,
        bundle_bytes=sum(ref.size for _, ref in artifact.contents()),
        cohort=cohort,
        bytes_down=4 * parameters,
        bytes_up=layout_of(encoding).packed_size,
        ring_bits=encoding.block.bits,
        scale=encoding.block.scale,
        resolution=1 / encoding.block.scale,
        degree=sizes.degree,
        threshold=threshold,
        tolerated_dropouts=max(0, min(sizes.degree - threshold, cohort - fewest)),
        round_seconds=longest,
        run_seconds=longest * plan.stopping.rounds,
        privacy=privacy,
        private=_size(artifact.bundle.manifest.private),
        frozen=_size(artifact.bundle.manifest.frozen),
        activation=artifact.activation,
    )


def _size(table: ParameterTable | None) -> int:
    return table.size if table else 0


def _full_fleet(plan: Plan) -> int:
    """The fewest devices that make full rounds: for each that is wanted some decline, or rest."""
    chosen = plan.selection
    each = max(chosen.over_selection, plan.privacy.spacing)
    return math.ceil((chosen.count or chosen.min_cohort) * each)


def _about_rest(plan: Plan, fleet: int) -> Sequence[Line]:
    """A fleet that is too small to rest takes part more often than the budget was divided for."""
    spacing, needed, rounds = plan.privacy.spacing, plan.selection.min_cohort, plan.stopping.rounds
    most = fleet * participations(plan.privacy, rounds) // needed
    if fleet >= spacing * needed or most >= rounds:
        return ()
    text = (
        f"{fleet} devices are fewer than privacy.spacing {spacing} times selection.min_cohort {needed}: rest "
        f"is cut short, and the budget ends the run after about {most} of {rounds} rounds; lower "
        f"privacy.spacing to {fleet // needed}"
    )
    return (("warning", text),)


def _cohort(plan: Plan, fleet: int) -> int:
    """How many devices a round invites, by the coordinator's own rule."""
    chosen = replace(plan.selection, eligibility=Eligibility())  # whoever does not fulfil it is not counted
    offers = [Candidate(DeviceId(str(number))) for number in range(fleet)]
    choice = select(offers, chosen, lambda: 0.5, limits_of(plan, PrivacyLedger(), 1))
    if isinstance(choice, NotEnough):
        raise PlanImpossibleError(f"{choice.reason}; lower selection.min_cohort or give more devices")
    return len(choice.invited)


def _round_seconds(plan: Plan) -> float:
    phases = msgspec.structs.asdict(plan.deadlines)
    return float(sum(seconds for phase, seconds in phases.items() if phase != "max_lifetime"))


def table(path: Path, figures: PlanFigures) -> Table:
    """The figures, for people."""
    one = figures
    rows = {
        "model": f"{one.parameters:,} parameters shared, {one.private:,} private, {one.frozen:,} frozen",
        "artifact": f"{size(one.bundle_bytes)}, of which a device fetches its engine's files once",
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
    if one.activation:
        made.add_row("trained on", f"its logits; model.onnx has the {one.activation} at its end again")
    for each in one.rehearsals:
        made.add_row(each.engine, _in_words(each))
    for name, text in one.privacy:
        made.add_row(name, text)
    return made


def _in_words(one: Rehearsal) -> str:
    return (
        f"{1000 * one.step_seconds:.2f} ms a step here, {one.epoch_seconds:.1f} s a pass over the most data,"
        f" {size(one.memory_bytes)} of memory"
    )
