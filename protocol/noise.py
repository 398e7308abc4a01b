"""From a plan's privacy table to the noise of a round."""

import math
from dataclasses import dataclass

from privacy.accounting import epsilon, noise_multiplier_for, rho_for, rho_of
from privacy.adaptive_clipping import COUNT_NOISE, share_for
from privacy.errors import ImpossiblePrivacyError
from privacy.noise import SIGMA_PARTS
from privacy.noised_update import NoisedEncoding
from privacy.parameters import RoundParameters, Setting, round_parameters
from privacy.survivors import Cohort
from protocol.messages import Noise
from protocol.plan import Privacy, SecureAggregation

BITS_WITH_PRIVACY, BITS_WITHOUT = 16, 32
"""Of a parameter, where a plan does not say: half of float32, and as fine as float32."""

_LARGEST_SHARE = 0.1

_COST_SLACK = 1e-7
"""Relative: rounding and the correction of sums; below the margin that `noise_multiplier_for` holds back."""


def ring_bits(privacy: Privacy, masking: SecureAggregation) -> int:
    """Bits of a parameter: the plan's own, or the default of its mode."""
    return masking.bits or (BITS_WITHOUT if privacy.mode == "none" else BITS_WITH_PRIVACY)


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


@dataclass(frozen=True, slots=True)
class Budget:
    """What the run of a plan may cost one device, in zCDP.

    Attributes:
        round: the most that one round costs.
        run: the most that all its rounds cost.
    """

    round: float
    run: float


def budget_of(privacy: Privacy, rounds: int) -> Budget:
    """The budget of a run: the plan's target, or what its noise multiplier costs for every participation.

    Raises:
        ImpossiblePrivacyError: not exactly one of the two is given.
    """
    most = participations(privacy, rounds)
    cost = rho_of(noise_multiplier(privacy, rounds)) * (1 + _COST_SLACK)
    target = privacy.target_epsilon
    return Budget(cost, most * cost * (1 + _COST_SLACK) if target is None else rho_for(target, privacy.delta))


def setting_of(
    privacy: Privacy, masking: SecureAggregation, update_size: int, cohort: tuple[int, int], rounds: int
) -> Setting:
    """What the noise of every round of a plan follows from.

    Args:
        privacy: with a mode.
        masking: ring width, clip, sketch and corrupt fraction.
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
    metrics = len(NoisedEncoding.METRICS)
    wanted = share_for(COUNT_NOISE * bounds.honest, multiplier, metrics)
    return Setting(
        mode=privacy.mode,
        noise_multiplier=multiplier,
        metrics_share=privacy.metrics_share or min(wanted, _LARGEST_SHARE),
        cohort=bounds,
        update_size=update_size,
        metrics=metrics,
        bits=ring_bits(privacy, masking),
        clip=masking.clip,
        sketch=masking.sketch,
    )


def noise_of(
    privacy: Privacy, masking: SecureAggregation, update_size: int, cohort: tuple[int, int], rounds: int
) -> Noise | None:
    """What a manifest says of the noise; None without privacy. Arguments and errors as of `setting_of`."""
    if privacy.mode == "none":
        return None
    made = round_parameters(setting_of(privacy, masking, update_size, cohort, rounds))
    return _said(made, privacy, participations(privacy, rounds))


def _said(made: RoundParameters, privacy: Privacy, most: int) -> Noise:
    return Noise(
        mode=made.setting.mode,
        scale=made.update.scale,
        sigma_parts=round(made.update.sigma * SIGMA_PARTS),
        metrics_half=int(made.metrics.scale),
        metrics_sigma_parts=round(made.metrics.sigma * SIGMA_PARTS),
        spacing=privacy.spacing,
        participations=most,
        epsilon=epsilon(most * made.device_rho, privacy.delta),
        delta=privacy.delta,
    )
