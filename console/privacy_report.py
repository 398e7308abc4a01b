"""What `fedfleet plan check` says about a plan's privacy, line by line."""

from typing import TypeAlias

from console.text import size
from privacy.accounting import epsilon, gaussian_epsilon, rho_of
from privacy.advice import Run, advice
from privacy.encoding import UpdateEncoding
from privacy.errors import ImpossiblePrivacyError
from privacy.parameters import RoundParameters, round_parameters
from protocol.noise import participations, setting_of
from protocol.plan import Plan, Privacy
from secagg.ring import RingLayout

_SHOWN_STEPS = (1, 2, 5)
_MOST_SHOWN = 6
_FLOAT32 = 4

Line: TypeAlias = tuple[str, str]
"""A name, empty where the line goes on with the one before, and a text."""


def privacy_lines(plan: Plan, parameters: int, members: int) -> list[Line]:
    """Cost by round, bytes, noise and warnings of a plan; each line is a name and a text.

    Args:
        plan: to be run.
        parameters: of the model.
        members: most in a round.

    Raises:
        ImpossiblePrivacyError: no round with these settings; the message says what to change, to what.
    """
    privacy, rounds = plan.privacy, plan.stopping.rounds
    cohort = (plan.selection.min_cohort, members)
    if privacy.mode == "none":
        return [
            ("privacy", "none; single updates are hidden, but the sums may tell of one device's data"),
            ("warning", 'nothing is promised to anybody; privacy.mode = "distributed" would'),
        ]
    try:
        round_ = round_parameters(setting_of(privacy, plan.secure_aggregation, parameters, cohort, rounds))
    except ImpossiblePrivacyError as error:
        raise _with_epsilon(error, privacy, rounds) from None
    run = Run(rounds, participations(privacy, rounds), privacy.delta, cohort[1])
    return [
        *_promise(privacy, round_, run),
        *_cost(privacy, round_, run),
        *_vector(round_),
        *_noise(round_, cohort),
        *(("warning", line) for line in advice(round_, run)),
    ]


def _promise(privacy: Privacy, round_: RoundParameters, run: Run) -> list[Line]:
    setting = round_.setting
    who = (
        f"each device adds its part of the noise, {setting.cohort.honest} honest survivors are enough"
        if setting.mode == "distributed"
        else "the coordinator adds the noise"
    )
    return [
        ("privacy", f"{setting.mode}; {who}"),
        ("unit", "a device with all its data, against one that sends zeros; no amplification by sampling"),
        (
            "noise",
            (
                f"multiplier {setting.noise_multiplier:.4g}; metrics take "
                f"{100 * setting.metrics_share:.2g} % of the cost"
            ),
        ),
        ("takes part", f"in {run.participations} of {run.rounds} rounds at most (spacing {privacy.spacing})"),
    ]


def _cost(privacy: Privacy, round_: RoundParameters, run: Run) -> list[Line]:
    """As devices count, who cannot know how many stay; the coordinator counts the noise that was there."""
    members = round_.setting.cohort.largest
    seen = round_.coordinator_rho(members, members)
    by_round = ", ".join(
        f"{number}: {epsilon(participations(privacy, number) * round_.device_rho, run.delta):.3g}"
        for number in _shown(run.rounds)
    )
    total, most = run.participations * round_.device_rho, run.participations * seen
    return [
        ("epsilon", f"after round {by_round} (delta {run.delta:g})"),
        (
            "",
            (
                f"in the end {epsilon(total, run.delta):.4g} as devices count (zCDP {total:.4g}), "
                f"{epsilon(most, run.delta):.4g} as the coordinator counts when all {members} stay"
            ),
        ),
        (
            "",
            (
                f"as Gaussian noise, a tight estimate, {gaussian_epsilon(total, run.delta):.4g} and "
                f"{gaussian_epsilon(most, run.delta):.4g}"
            ),
        ),
    ]


def _vector(round_: RoundParameters) -> list[Line]:
    block = round_.update
    words = RingLayout(
        block.size + UpdateEncoding.SENTINELS,
        round_.setting.bits,
        round_.metrics.size + UpdateEncoding.SENTINELS,
    )
    plain = round_.setting.update_size * _FLOAT32
    return [
        (
            "update",
            (
                f"{round_.setting.bits} bits for each of {block.size:,} coordinates, "
                f"{size(words.packed_size)} up for a device "
                f"({100 * words.packed_size / plain:.0f} % of float32)"
            ),
        ),
        (
            "rounding",
            (
                f"multiplies the sensitivity by {round_.inflation:.3f}; a clip is "
                f"{block.scale * round_.setting.clip:,.0f} levels, the noise {block.sigma:,.1f}"
            ),
        ),
    ]


def _noise(round_: RoundParameters, cohort: tuple[int, int]) -> list[Line]:
    lines: list[Line] = []
    for survivors in sorted(set(cohort), reverse=True):
        noise = round_.expected_noise(survivors)
        text = (
            f"{noise.rmse:.3g} a parameter, length {noise.length:.3g}, {noise.of_clip:.3g} times the clip; "
            f"metrics ± {100 * noise.metric:.3g} points"
        )
        lines.append((f"mean of {survivors}", text))
    return lines


def _shown(rounds: int) -> list[int]:
    """First, last, and some between: of 1, 2, 5, 10, 20, … the last few."""
    steps = [step * 10**power for power in range(len(str(rounds))) for step in _SHOWN_STEPS]
    between = [number for number in steps if 1 < number < rounds]
    return sorted({1, *between[-(_MOST_SHOWN - 2) :], rounds})


def _with_epsilon(error: ImpossiblePrivacyError, privacy: Privacy, rounds: int) -> ImpossiblePrivacyError:
    """The same error, with a possible noise multiplier said as an epsilon too."""
    if error.noise_multiplier is None or privacy.target_epsilon is None:
        return error
    target = epsilon(participations(privacy, rounds) * rho_of(error.noise_multiplier), privacy.delta)
    remedy = f"set privacy.target_epsilon to {target:.3g}"
    return ImpossiblePrivacyError(error.reason, (*error.remedies, remedy), None)
