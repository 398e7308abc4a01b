"""What a plan's privacy will feel like: warnings for people, each with what would help."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from privacy.accounting import epsilon, rho_of
from privacy.adaptive_clipping import COUNT_NOISE
from privacy.parameters import ExpectedNoise, RoundParameters

_NOTED_INFLATION = 1.1
_WEAK_EPSILON = 10.0
_LARGEST_SHARE = 0.5
_SMALLEST_MODEL = 100


@dataclass(frozen=True, slots=True)
class Run:
    """A run of rounds with the same parameters.

    Attributes:
        rounds: that are committed.
        participations: the most that any one device takes part in, 1 to `rounds`.
        delta: in (0, 1).
        survivors: expected in the sum.
    """

    rounds: int
    participations: int
    delta: float
    survivors: int

    def device_epsilon(self, parameters: RoundParameters) -> float:
        """What the run costs a device that takes part as often as it may, by its own count."""
        return epsilon(self.participations * parameters.device_rho, self.delta)


def advice(parameters: RoundParameters, run: Run) -> tuple[str, ...]:
    """Warnings, none when all is well."""
    noise = parameters.expected_noise(run.survivors)
    return (
        *_about_learning(parameters, run, noise.of_clip),
        *_about_rounding(parameters),
        *_about_metrics(parameters, run, noise),
        *_about_promise(parameters, run),
    )


def _about_learning(parameters: RoundParameters, run: Run, of_clip: float) -> Iterator[str]:
    """Over R rounds noise grows with sqrt(R), and what is learned at most with R."""
    lasting = of_clip / math.sqrt(run.rounds)
    if lasting > 1:
        yield (
            f"the noise drowns the signal: over {run.rounds} rounds it is {lasting:.1f} times as long as all "
            f"updates together can be; {_what_helps(parameters, run, lasting)}"
        )
    elif of_clip > 1:
        yield (
            f"a round's noise is {of_clip:.1f} times as long as its mean update can be: only what many "
            f"rounds agree on is learned; {_what_helps(parameters, run, of_clip)}"
        )


def _what_helps(parameters: RoundParameters, run: Run, factor: float) -> str:
    """What divides the noise by `factor`: it is proportional to z sqrt(d) / n."""
    multiplier = parameters.setting.noise_multiplier / factor
    enough = epsilon(run.participations * rho_of(multiplier), run.delta)
    smaller = int(parameters.update.size / factor**2)
    model = f"a model of {smaller:,} parameters, " if smaller >= _SMALLEST_MODEL else ""
    return (
        f"about {math.ceil(run.survivors * factor):,} devices in a round, {model}or epsilon {enough:.3g} "
        f"(noise multiplier {multiplier:.2g}) would bring it to 1"
    )


def _about_rounding(parameters: RoundParameters) -> Iterator[str]:
    if parameters.inflation > _NOTED_INFLATION:
        yield (
            f"rounding to {parameters.setting.bits} bits multiplies the noise by {parameters.inflation:.2f}; "
            "raise secure_aggregation.bits"
        )


def _about_metrics(parameters: RoundParameters, run: Run, noise: ExpectedNoise) -> Iterator[str]:
    if noise.metric <= COUNT_NOISE:
        return
    share = parameters.setting.metrics_share * (noise.metric / COUNT_NOISE) ** 2
    devices = math.ceil(run.survivors * noise.metric / COUNT_NOISE)
    help_ = f"about {devices:,} devices"
    if share <= _LARGEST_SHARE:
        help_ += f", or privacy.metrics_share = {share:.2g},"
    yield (
        f"accuracy, loss and the clipped rate are published with noise of {100 * noise.metric:.1f} points, "
        f"and stopping rules and adaptive clipping follow it; {help_} would bring it to {100 * COUNT_NOISE:g}"
    )


def _about_promise(parameters: RoundParameters, run: Run) -> Iterator[str]:
    total, members = run.device_epsilon(parameters), parameters.setting.cohort.largest
    if total > _WEAK_EPSILON:
        yield (
            f"epsilon {total:.3g} promises little: above {_WEAK_EPSILON:g} it only makes known attacks harder"
        )
    if run.delta * members > 1:
        yield (
            f"delta {run.delta:g} allows to reveal one of {members} devices outright; write privacy.delta = "
            f"{0.01 / members:.0e} or less"
        )
    if parameters.setting.mode == "central":
        yield "devices trust the coordinator to add the noise; nothing but its word protects them from it"
