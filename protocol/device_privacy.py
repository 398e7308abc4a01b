"""What a device asks of a round's noise: that it costs what its label says, and that it can be afforded.

The device counts for itself, from the integers it would send, and as if only the honest members were left
that the corrupt fraction leaves of the smallest set it confirms. It cannot see whether a sum was ever
unmasked, so whatever leaves is paid for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from privacy.accounting import compose, epsilon
from protocol.effects import Charge
from protocol.errors import ManifestError
from protocol.ids import Order
from protocol.messages import Manifest
from protocol.noise_cost import bounds_of, promised_cost
from protocol.plan import PrivacyMode

_STRENGTH: dict[PrivacyMode, int] = {"none": 0, "central": 1, "distributed": 2}

_LABEL_SLACK = 1e-6
"""Relative: two machines' exponential functions may differ in the last digits."""


@dataclass(frozen=True)
class PrivacyStance:
    """What a device insists on, and what it has spent.

    Attributes:
        weakest: the weakest promise with which it takes part.
        budget: epsilon of its whole life, at `delta`; None is no limit.
        delta: see `budget`.
        spent: zCDP of all its rounds so far.
        last: the newest round it paid for.
    """

    weakest: PrivacyMode = "none"
    budget: float | None = None
    delta: float = 1e-6
    spent: float = 0.0
    last: Order | None = None


def check_noise(manifest: Manifest) -> None:
    """A manifest's numbers must cost no more than its label.

    Raises:
        ManifestError: they do, or nobody is certain to add noise.
        PrivacyError: they do not fit one another.
    """
    noise = manifest.noise
    if noise is None:
        return
    if bounds_of(manifest).honest < 1:
        raise ManifestError("so few members and so many corrupt leave nobody whose noise is certain")
    real = epsilon(noise.participations * promised_cost(manifest), noise.delta)
    if not real <= noise.epsilon * (1 + _LABEL_SLACK):
        raise ManifestError(
            f"it promises epsilon {noise.epsilon:.4g} after {noise.participations} rounds, but its noise "
            f"gives {real:.4g}"
        )


def privacy_objection(manifest: Manifest, stance: PrivacyStance) -> str:
    """Why the device does not take part, as a sentence; empty when it does.

    Args:
        manifest: checked.
        stance: of the device.
    """
    noise, mode = manifest.noise, privacy_of(manifest)
    if _STRENGTH[mode] < _STRENGTH[stance.weakest]:
        return f"privacy is {mode}; this device asks for {stance.weakest}"
    if noise is None:
        return ""
    if _rests(manifest.order, stance.last, noise.spacing):
        return f"this device rests: it takes part once in {noise.spacing} rounds"
    after = compose((stance.spent, promised_cost(manifest)))
    if stance.budget is not None and epsilon(after, stance.delta) > stance.budget:
        return "the privacy budget of this device is spent"
    return ""


def privacy_of(manifest: Manifest) -> PrivacyMode:
    """Who adds noise to the sum of a round."""
    return "none" if manifest.noise is None else manifest.noise.mode


def charge_for(manifest: Manifest) -> Sequence[Charge]:
    """What is stored before a masked update of this round may leave."""
    if manifest.noise is None:
        return ()
    return (Charge(manifest.order, manifest.noise.mode, promised_cost(manifest)),)


def _rests(order: Order, last: Order | None, spacing: int) -> bool:
    """Rounds of another epoch cannot be counted from the last one; what binds then is the budget."""
    if last is None or (order.generation, order.epoch) != (last.generation, last.epoch):
        return False
    return order.round - last.round < spacing
