"""How often devices offer themselves, so that a large fleet never comes to the coordinator all at once.

Pace steering (Bonawitz et al. 2019, Towards Federated Learning at Scale, section 2.3): the coordinator tells
all devices one interval, and each offers itself at moments of its own choice within it.
"""

from typing import Annotated

from msgspec import Meta

SHORTEST = 60.0
"""Seconds between a device's offers in a small fleet: what is lost is made good within a minute."""

LONGEST = 3600.0
"""Seconds, whatever a frame says: whoever plays an old one again makes nobody wait for more than an hour."""

OFFERS_PER_SECOND = 100.0
"""What all devices together aim at: 4 % of a core, at 0.4 ms for a device's first offer (measured)."""

LASTS = 2.5
"""Intervals for which an offer counts: two may get lost."""

Interval = Annotated[float, Meta(ge=SHORTEST, le=LONGEST)]


def interval_for(devices: int) -> float:
    """Seconds between one device's offers at which so many make `OFFERS_PER_SECOND`, within the bounds."""
    return min(max(devices / OFFERS_PER_SECOND, SHORTEST), LONGEST)


def steered(interval: float, devices: int, listened: float) -> float:
    """What the interval becomes; the same one unless it is off by more than a quarter.

    Args:
        interval: that devices go by now.
        devices: heard of.
        listened: for how many seconds. A coordinator that has just started has not heard of most: it lowers
            the pace's interval only once every device had the time to offer itself twice.
    """
    wanted = interval_for(devices)
    if wanted > 1.25 * interval or (wanted < 0.75 * interval and listened >= 2 * interval):
        return wanted
    return interval


def offer_lasts(interval: float) -> float:
    """Seconds for which an offer, or any later frame of the device, counts."""
    return LASTS * interval


def until_next(interval: float, chance: float) -> float:
    """Seconds from one offer to the next: the interval, give or take a quarter.

    Args:
        interval: of the pace.
        chance: uniform in [0, 1).
    """
    return interval * (0.75 + 0.5 * chance)


def until_return(interval: float, chance: float) -> float:
    """Seconds until a device that comes back offers itself: none in a small fleet, in a large one any moment.

    When power or the broker returns, or the coordinator, all come back in one second.
    """
    return (interval - SHORTEST) * chance
