"""What a plan's privacy table means in the words of `privacy`: noise multiplier, participations, setting."""

import math

from privacy.accounting import noise_multiplier_for
from privacy.adaptive_clipping import COUNT_NOISE, share_for
from privacy.errors import ImpossiblePrivacyError
from privacy.parameters import Setting
from privacy.survivors import Cohort
from protocol.plan import Privacy, SecureAggregation

PRIVATE_METRICS = ("loss", "accuracy", "clipped")
"""What a device tells of itself under noise, each in [0, 1]; all devices weigh the same."""

_LARGEST_SHARE = 0.1


def participations(privacy: Privacy, rounds: int) -> int:
    """The most rounds of so many that one device takes part in: one in each `spacing` of them."""
    return math.ceil(rounds / privacy.spacing)


def noise_multiplier(privacy: Privacy, rounds: int) -> float:
    """The plan's own, or the one that spends its target over the run.

    Raises:
        ImpossiblePrivacyError: not exactly one of the two is given.
    """
    target, multiplier = privacy.target_epsilon, privacy.noise_multiplier
    if multiplier is not None and target is None:
        return multiplier
    if target is not None and multiplier is None:
        return noise_multiplier_for(target, privacy.delta, participations(privacy, rounds))
    raise ImpossiblePrivacyError(
        f"privacy.target_epsilon is {target} and privacy.noise_multiplier is {multiplier}",
        ("give exactly one of them",),
        None,
    )


def setting_of(
    privacy: Privacy, masking: SecureAggregation, update_size: int, cohort: tuple[int, int], rounds: int
) -> Setting:
    """What the noise of every round of a plan follows from.

    Args:
        privacy: with a mode.
        masking: ring width, clip and corrupt fraction.
        update_size: parameters of the model.
        cohort: fewest survivors with whom a sum is unmasked, and most members.
        rounds: of the run.

    Raises:
        ImpossiblePrivacyError: mode "none", or no clear amount of noise.
    """
    if privacy.mode == "none":
        raise ImpossiblePrivacyError(
            'privacy.mode is "none"', ('write mode = "distributed" or "central"',), None
        )
    fewest, largest = cohort
    bounds = Cohort(fewest, largest, masking.corrupt_fraction)
    multiplier = noise_multiplier(privacy, rounds)
    metrics = len(PRIVATE_METRICS)
    wanted = share_for(COUNT_NOISE * bounds.honest, multiplier, metrics)
    return Setting(
        mode=privacy.mode,
        noise_multiplier=multiplier,
        metrics_share=privacy.metrics_share or min(wanted, _LARGEST_SHARE),
        cohort=bounds,
        update_size=update_size,
        metrics=metrics,
        bits=masking.bits,
        clip=masking.clip,
    )
