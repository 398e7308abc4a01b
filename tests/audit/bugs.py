"""Mistakes in the real code that an audit of privacy is for, each planted in one place.

Beside each stands what it does to mu, the distance of the two worlds in standard deviations, over the
claim's: from that follows how likely an audit is to find it.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from planted.bugs import Bug, Plant

import privacy.blocks
import privacy.noised_update
import privacy.parameters
import protocol.noise
from audit.audit import Verdict
from audit.game import Setting
from privacy.encoding import EncodedUpdate
from privacy.noised_update import NoisedEncoding
from privacy.quantization import Integers, quantize
from privacy.survivors import Cohort

METRICS = len(NoisedEncoding.METRICS)


@dataclass(frozen=True)
class Case:
    """A bug, and the audit that is to see it.

    Attributes:
        bug: see there.
        ratio: mu of what the program does over that of its claim, before the claim's conversion to epsilon.
        verdict: expected.
        setting: in which it shows.
    """

    bug: Bug
    ratio: float
    verdict: Verdict = Verdict.ABOVE
    setting: Setting = field(default_factory=Setting)


def _half_the_noise(plant: Plant) -> None:
    plant.instead(
        privacy.noised_update,
        "discrete_gaussian",
        lambda real, size, parts, entropy: real(size, parts // 2, entropy),
    )


def _metrics_without_noise(plant: Plant) -> None:
    def act(real: Callable[..., Integers], size: int, parts: int, entropy: object) -> Integers:
        return np.zeros(size, np.int64) if size == METRICS else real(size, parts, entropy)

    plant.instead(privacy.noised_update, "discrete_gaussian", act)


def _a_coordinate_without_noise(plant: Plant) -> None:
    def act(real: Callable[..., Integers], size: int, parts: int, entropy: object) -> Integers:
        noise = real(size, parts, entropy)
        noise[-1] = 0
        return noise

    plant.instead(privacy.noised_update, "discrete_gaussian", act)


def _no_noise(plant: Plant) -> None:
    def act(
        _: object, self: NoisedEncoding, update: Integers, metrics: Integers, __: object
    ) -> EncodedUpdate:
        return EncodedUpdate(self.with_sentinels(update), self.with_sentinels(metrics))

    plant.instead(NoisedEncoding, "_noised", act)


def _clip_skipped(plant: Plant) -> None:
    plant.instead(privacy.noised_update, "clip_l2", lambda _, delta, __: (delta.copy(), True))
    plant.instead(privacy.blocks, "clip_l2", lambda _, delta, __: (delta, False))


def _length_unchecked(plant: Plant) -> None:
    plant.instead(
        privacy.blocks, "round_within", lambda _, values, scale, __, bits: quantize(values, scale, bits)
    )


def _clip_and_length_skipped(plant: Plant) -> None:
    _clip_skipped(plant)
    _length_unchecked(plant)


def _corrupt_counted_as_honest(plant: Plant) -> None:
    plant.value(Cohort, "honest", property(lambda self: self.fewest))


def _metrics_for_free(plant: Plant) -> None:
    def act(_: object, costs: Iterable[float]) -> float:
        return max(costs)

    plant.instead(privacy.parameters, "compose", act)


def _one_round_counted(plant: Plant) -> None:
    plant.value(protocol.noise, "participations", lambda *_: 1)


def _bug(plant: Callable[[Plant], None], what: str) -> Bug:
    return Bug(plant.__name__.strip("_").replace("_", " "), what, "privacy", plant)


WITHOUT_NOISE = 20.0
"""A distance at which nobody errs."""

HALF = Setting().metrics_share
CENTRAL = Setting(mode="central")
FIVE = Setting(members=5, corrupt=2)
RUN = Setting(rounds=4, noise_multiplier=0.8)

CASES = (
    Case(_bug(_half_the_noise, "noise x 0.5"), 2.0),
    Case(_bug(_metrics_without_noise, "the metrics block carries no noise"), WITHOUT_NOISE),
    Case(_bug(_a_coordinate_without_noise, "the last word of each block carries no noise"), WITHOUT_NOISE),
    Case(_bug(_no_noise, "the coordinator forgets its noise"), WITHOUT_NOISE, setting=CENTRAL),
    Case(_bug(_clip_and_length_skipped, "an update of 3 x the clip is sent"), math.sqrt(9 * HALF + HALF)),
    Case(
        _bug(_corrupt_counted_as_honest, "noise of 5 devices is counted on, 3 are certain"),
        math.sqrt(FIVE.members / FIVE.noises),
        setting=FIVE,
    ),
    Case(_bug(_metrics_for_free, "the metrics' cost is not added"), math.sqrt(1 / HALF)),
    Case(
        _bug(_one_round_counted, "a run of 4 rounds is labelled as one"), math.sqrt(RUN.rounds), setting=RUN
    ),
    Case(
        _bug(_clip_skipped, "not clipped; the integers' length check then sends zeros"),
        math.sqrt(HALF),
        Verdict.DEAF,
    ),
    Case(_bug(_length_unchecked, "rounding may lengthen a clipped update"), 1.0, Verdict.WITHIN),
)

HONEST = {
    "distributed": Setting(),
    "distributed, 2 of 5 corrupt": FIVE,
    "central": CENTRAL,
    "a run of 4 rounds": RUN,
    "z = 1": Setting(noise_multiplier=1.0),
}
"""What is audited as it is."""
