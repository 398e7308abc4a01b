"""The tables, as lines of Markdown."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from statistics import mean

from benchmarks.private_learning.cases import Case, Outcome

_FLOAT32 = 4


def by_epsilon(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A row for each label; of several seeds the mean, the least and the most."""
    yield (
        "| ε | rounds | noise multiplier | noise of a round's mean, in clips"
        " | measured over predicted: masked rounds, others | accuracy | kB up, a round |"
    )
    yield "|---|---|---|---|---|---|---|"
    for label, group in groupby(outcomes, key=lambda outcome: outcome.case.label):
        some = list(group)
        case = some[0].case
        rounds, kilobytes = case.recipe.rounds, case.aggregation.bytes_up / 1000
        noise = " | ".join((_noise(case), _measured(some)))
        yield f"| {_name(label)} | {rounds} | {noise} | {_accuracy(some)} | {kilobytes:.0f} |"


def by_bytes(outcomes: Sequence[Outcome], refused: Mapping[Case, str]) -> Iterator[str]:
    """A row for each shape of the vector: accuracy without noise, and with it; then why some are refused."""
    yield "| | bytes up, a round | of float32 | accuracy | accuracy under privacy |"
    yield "|---|---|---|---|---|"
    found = {(outcome.case.label, math.isinf(outcome.case.epsilon)): outcome for outcome in outcomes}
    for label, plain in found:
        if plain:
            outcome = found[label, True]
            size = outcome.case.aggregation.bytes_up
            part = size / (_FLOAT32 * outcome.case.rules.size)
            private = found.get((label, False))
            said = f"{private.accuracy:.1%}" if private else "refused"
            yield f"| {label} | {size:,} | {part:.0%} | {outcome.accuracy:.1%} | {said} |"
    for case, reason in refused.items():
        yield f"refused: {case.label}, epsilon {case.epsilon:g}: {reason}"


def _name(label: str) -> str:
    return label.replace("inf", "∞")


def _noise(case: Case) -> str:
    if math.isinf(case.epsilon):
        return "- | -"
    made = case.rules.parameters
    length = made.expected_noise(case.rules.survivors).of_clip
    return f"{made.setting.noise_multiplier:.2f} | {length:.2f}"


def _measured(outcomes: Sequence[Outcome]) -> str:
    """The error of a coordinate of the mean, root mean square over the rounds, over the predicted one."""
    case = outcomes[0].case
    if math.isinf(case.epsilon):
        return "-"
    predicted = case.rules.parameters.expected_noise(case.rules.survivors).rmse
    rounds = [each for outcome in outcomes for each in outcome.rounds]
    both = ([each.error for each in rounds if each.masked is masked] for masked in (True, False))
    return ", ".join(f"{math.sqrt(mean(e * e for e in some)) / predicted:.3f}" for some in both if some)


def _accuracy(outcomes: Sequence[Outcome]) -> str:
    reached = [outcome.accuracy for outcome in outcomes]
    if len(reached) == 1:
        return f"{reached[0]:.1%}"
    return f"{mean(reached):.1%} ({min(reached):.1%} to {max(reached):.1%})"
