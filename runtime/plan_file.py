"""Reading `plan.toml`: the whole file is checked, and every mistake names file, key, value and fix."""

import math
import tomllib
from collections.abc import Iterator
from pathlib import Path

from privacy.errors import ImpossiblePrivacyError, QuantizationError
from privacy.quantization import scale_for
from protocol.errors import FedfleetError
from protocol.noise import BITS_WITHOUT, noise_multiplier, ring_bits
from protocol.plan import AdaptiveClipping, Plan, Privacy
from runtime.tables import Problem, TableError, build


class PlanError(FedfleetError):
    """The plan file is wrong; the message has one line for each mistake."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        super().__init__("\n".join(f"{path}: {problem.text}" for problem in problems))
        self.problems = problems


def load_plan(path: Path) -> Plan:
    """Read and check a plan.

    Args:
        path: of the TOML file; `model.onnx` is relative to its folder.

    Raises:
        PlanError: the file cannot be read, is not TOML, or a value is wrong.
    """
    try:
        plan = build(Plan, tomllib.loads(path.read_text(encoding="utf-8")))
    except TableError as error:
        raise PlanError(path, error.problems) from None
    except OSError as error:
        fix = "give the path of a plan.toml"
        raise PlanError(path, [Problem("", f"cannot be read ({error.strerror}); {fix}")]) from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise PlanError(path, [Problem("", f"is not TOML: {error}; correct it there")]) from error
    problems = [*_contradictions(plan), *_missing_model(plan, path.parent)]
    if problems:
        raise PlanError(path, problems)
    return plan


def _contradictions(plan: Plan) -> Iterator[Problem]:
    """What no single key shows."""
    yield from _model(plan)
    yield from _cohort(plan)
    yield from _ring(plan)
    yield from _privacy(plan)
    yield from _deadlines(plan)
    yield from _stopping(plan)


def _model(plan: Plan) -> Iterator[Problem]:
    catalog, onnx = plan.model.catalog, plan.model.onnx
    if catalog is not None and onnx is not None:
        text = f'model.catalog is "{catalog}" and model.onnx is "{onnx}"; keep one of them'
        yield Problem("model.catalog", text)
    if catalog is None and onnx is None:
        text = 'model.catalog and model.onnx are missing; write one, for example catalog = "cnn1d"'
        yield Problem("model.catalog", text)
    if onnx is None and plan.model.output is not None:
        text = f'model.output is "{plan.model.output}" but a catalog model has one output; remove it'
        yield Problem("model.output", text)
    if onnx is not None and plan.model.parameters:
        text = f"model.parameters is {plan.model.parameters} but model.onnx has its sizes already; remove it"
        yield Problem("model.parameters", text)


def _missing_model(plan: Plan, folder: Path) -> Iterator[Problem]:
    onnx = plan.model.onnx
    if onnx is not None and not (folder / onnx).is_file():
        text = f'model.onnx is "{onnx}" but {folder / onnx} is not a file; write its path from this folder'
        yield Problem("model.onnx", text)


def _cohort(plan: Plan) -> Iterator[Problem]:
    chosen, floor = plan.selection, plan.selection.min_cohort
    if chosen.count is not None and chosen.fraction is not None:
        text = (
            f"selection.count is {chosen.count} and selection.fraction is {chosen.fraction}; keep one of them"
        )
        yield Problem("selection.count", text)
    if chosen.count is not None and chosen.count < floor:
        text = (
            f"selection.min_cohort is {floor}, above selection.count {chosen.count}; lower it or raise count"
        )
        yield Problem("selection.min_cohort", text)
    threshold = plan.secure_aggregation.threshold
    if threshold >= floor:
        text = (
            f"secure_aggregation.threshold is {threshold}, but a member of a cohort of selection.min_cohort "
            f"{floor} has {floor - 1} neighbours; lower it to at most {floor - 1} or raise min_cohort"
        )
        yield Problem("secure_aggregation.threshold", text)


def _ring(plan: Plan) -> Iterator[Problem]:
    rules, chosen = plan.secure_aggregation, plan.selection
    limit = rules.coordinate_limit or rules.clip
    if limit > rules.clip:
        text = (
            f"secure_aggregation.coordinate_limit is {limit}, above clip {rules.clip}, which no coordinate "
            "can exceed; lower it or leave it out"
        )
        yield Problem("secure_aggregation.coordinate_limit", text)
    bits = ring_bits(plan.privacy, rules)
    if bits < BITS_WITHOUT or plan.privacy.mode != "none":
        yield from _rotated(plan)
        return
    if rules.sketch < 1:
        text = (
            f"secure_aggregation.sketch is {rules.sketch}, but nothing is rotated at 32 bits without "
            "privacy; lower bits, to 16 for example, or leave sketch out"
        )
        yield Problem("secure_aggregation.sketch", text)
    members = math.ceil((chosen.count or chosen.min_cohort) * chosen.over_selection)
    try:
        scale_for(bits, limit, members)
    except QuantizationError as error:
        yield Problem("secure_aggregation.bits", f"secure_aggregation.bits is {bits}: {error}")


def _rotated(plan: Plan) -> Iterator[Problem]:
    """Whether the ring is wide enough depends on the model; `plan check` and the coordinator say it."""
    limit = plan.secure_aggregation.coordinate_limit
    if limit is not None:
        text = (
            f"secure_aggregation.coordinate_limit is {limit}, but updates are rotated below 32 bits and with "
            "privacy, and have no coordinates to limit; leave it out"
        )
        yield Problem("secure_aggregation.coordinate_limit", text)


def _privacy(plan: Plan) -> Iterator[Problem]:
    wanted = plan.privacy
    if wanted.mode == "none":
        if wanted != Privacy():
            text = (
                'privacy.mode is "none", and the other keys of the table say how much; write '
                'mode = "distributed", or leave the table out'
            )
            yield Problem("privacy.mode", text)
        return
    rule = wanted.adaptive_clipping
    if rule.quantile is None and rule != AdaptiveClipping():
        text = (
            "privacy.adaptive_clipping.quantile is missing, so the clip stays and the other keys do "
            "nothing; write quantile = 0.5, or leave the table out"
        )
        yield Problem("privacy.adaptive_clipping.quantile", text)
    try:
        noise_multiplier(wanted, plan.stopping.rounds)
    except ImpossiblePrivacyError as error:
        yield Problem("privacy.target_epsilon", str(error))


def _deadlines(plan: Plan) -> Iterator[Problem]:
    times = plan.deadlines
    phases = (
        times.inviting,
        times.keying,
        times.sharing,
        times.collecting,
        times.confirming,
        times.recovering,
    )
    if times.max_lifetime < sum(phases):
        text = (
            f"deadlines.max_lifetime is {times.max_lifetime}, but the phases may take {sum(phases)} s "
            "together; raise it to at least that, or secrets are erased before they are needed"
        )
        yield Problem("deadlines.max_lifetime", text)


def _stopping(plan: Plan) -> Iterator[Problem]:
    rule = plan.stopping
    if rule.metric == "accuracy" and plan.training.loss == "mse":
        text = 'stopping.metric is "accuracy", which training.loss "mse" does not have; write metric = "loss"'
        yield Problem("stopping.metric", text)
    if rule.metric == "accuracy" and rule.target is not None and not 0 < rule.target <= 1:
        text = f"stopping.target is {rule.target}; an accuracy is above 0 and at most 1: write 0.9 for 90 %"
        yield Problem("stopping.target", text)
