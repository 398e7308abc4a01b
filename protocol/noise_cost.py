"""What a round with noise costs, in zCDP: as a device counts before it, as a coordinator counts after."""

from protocol.messages import Manifest
from protocol.vector import bounds_of, noised_encoding


def promised_cost(manifest: Manifest) -> float:
    """What taking part costs a device at most; 0 without noise, when nothing is promised or counted.

    With the noise that is certain before it uploads: that of the honest members of the smallest set that it
    confirms. In central mode this is the coordinator's word.
    """
    noise = manifest.noise
    if noise is None:
        return 0.0
    noises = bounds_of(manifest).honest if noise.mode == "distributed" else 1
    return noised_encoding(manifest, noise).rho(noises)


def actual_cost(manifest: Manifest, survivors: int, members: int) -> float:
    """What a sum cost each device in it, with the noise that there was; at most what was promised.

    Args:
        manifest: of the round.
        survivors: in the sum.
        members: of the cohort U1, of whom as many may be corrupt as the manifest says.
    """
    noise = manifest.noise
    if noise is None:
        return 0.0
    noises = bounds_of(manifest).honest_of(survivors, members) if noise.mode == "distributed" else 1
    return noised_encoding(manifest, noise).rho(noises)
