"""Whose noise is certain to be in a sum, and what the sum costs, in zCDP: before the round, and after it."""

from privacy.survivors import Cohort
from protocol.messages import Manifest
from protocol.vector import noised_encoding


def bounds_of(manifest: Manifest) -> Cohort:
    """Who is certain to be in the sum."""
    gamma = manifest.secure_aggregation.corrupt_fraction
    return Cohort(manifest.min_cohort, manifest.max_cohort, gamma)


def survivors_needed(manifest: Manifest, members: int) -> int:
    """Members of a cohort of so many without whom no sum is unmasked: enough noise must be certain."""
    if manifest.noise is None or manifest.noise.mode == "central":
        return manifest.min_cohort
    return bounds_of(manifest).survivors_needed(members)


def promised_cost(manifest: Manifest) -> float:
    """What taking part costs a device at most; 0 without noise, when nothing is promised or counted.

    With the noise that is certain before it uploads: that of the honest members of the smallest set that it
    confirms. In central mode this is the coordinator's word.
    """
    return _cost(manifest, bounds_of(manifest).honest)


def actual_cost(manifest: Manifest, survivors: int, members: int) -> float:
    """What a sum cost each device in it, with the noise that there was; at most what was promised.

    Args:
        manifest: of the round.
        survivors: in the sum.
        members: of the cohort U1, of whom as many may be corrupt as the manifest says.
    """
    return _cost(manifest, bounds_of(manifest).honest_of(survivors, members))


def _cost(manifest: Manifest, honest: int) -> float:
    noise = manifest.noise
    if noise is None:
        return 0.0
    return noised_encoding(manifest, noise).rho(honest if noise.mode == "distributed" else 1)
