"""From a plan's privacy settings to the integers of a round: sensitivity, scale, noise, cost.

The update block is clipped to C, rotated, scaled by s, rounded stochastically until its integer norm is at
most D, and noised with a discrete Gaussian, as Kairouz, Liu, Steinke 2021 (arXiv 2102.06387) do. The metrics
block is small, neither rotated nor rounded at random: each value v in [0, 1] is written as
`round((2 v - 1) h)`, centred because replacing a contribution by zero then costs half as much.

Unit of privacy: a device, with all its data. Neighbouring: its contribution is zero instead of what it is
(that it takes part is public). Weights are 1, and the divisor is the public number of survivors.

Nothing here depends on the clip C but the scale: s * C, the noise in multiples of C and the cost are what
they are for any C, so adaptive clipping changes no guarantee.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from privacy.accounting import compose, multiplier_of, rho_of, round_rho
from privacy.blocks import MAX_BOUND, kept_of, ring_bound
from privacy.errors import ImpossiblePrivacyError
from privacy.mode import Mode
from privacy.noise import MAX_SIGMA, SIGMA_PARTS, sigma_in_parts
from privacy.rounding import squared_sensitivity
from privacy.survivors import Cohort

METRICS_TAIL = 16.0
"""As `blocks.TAIL` for the metrics block, where room costs nothing: 2 exp(-128)."""

MIN_SIGMA = 2.0
"""Levels of noise a device adds at least: from here on the correction for summing discrete Gaussians is below
1e-8 at 2^24 coordinates; at 1 it would be 9e3."""

MAX_INFLATION = 2.0
"""Most that rounding may multiply the sensitivity, and so the noise: beyond it wider words are cheaper."""

WIDTHS = (8, 10, 12, 16, 20, 24, 32)

_METRIC_WORD = 32
_STEPS = 500  # of 5 %: from any multiplier of a plan to any other
_LARGEST_SIGMA = MAX_SIGMA - 1.0
"""Levels: within the sampler's range after rounding."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a plan and its model say about the noise of one round.

    Attributes:
        mode: "distributed": each device adds its part before masking. "central": the coordinator, trusted,
            adds all of it after unmasking.
        noise_multiplier: z, the noise that is certain over the sensitivity, > 0: a round costs 1 / (2 z^2).
        metrics_share: part of that cost which the metrics block takes, in (0, 1).
        cohort: who is certain to be in the sum.
        update_size: d, parameters of the model, >= 1.
        metrics: values of the metrics block, >= 1.
        bits: ring width of the update block, one of `WIDTHS`.
        clip: C, L2 bound of an update, > 0, in units of the weights.
        sketch: part of the rotated coordinates that travels, in (0, 1].
    """

    mode: Mode
    noise_multiplier: float
    metrics_share: float
    cohort: Cohort
    update_size: int
    metrics: int
    bits: int
    clip: float
    sketch: float = 1.0

    @property
    def kept(self) -> int:
        """Coordinates that travel."""
        return kept_of(self.update_size, self.sketch)

    @property
    def noises(self) -> int:
        """Parts that the certain noise of a sum is made of."""
        return self.cohort.honest if self.mode == "distributed" else 1


@dataclass(frozen=True, slots=True)
class NoisedBlock:
    """One block of the vector.

    Attributes:
        size: coordinates.
        scale: levels per unit: of the weights (update), of half a metric's range (metrics).
        norm_squared: the most that the squared L2 norm of a device's integers may be: check it.
        sigma: standard deviation parameter of the discrete Gaussian on each coordinate, in levels, a multiple
            of 2^-16; each device's in distributed mode, the coordinator's in central mode.
    """

    size: int
    scale: float
    norm_squared: int
    sigma: float


@dataclass(frozen=True, slots=True)
class RoundParameters:
    """Everything the noise of a round needs.

    Attributes:
        setting: what this follows from.
        update: the rotated block.
        metrics: the unrotated block.
        inflation: sensitivity over s * C: what rounding adds, 1 to `MAX_INFLATION`.
    """

    setting: Setting
    update: NoisedBlock
    metrics: NoisedBlock
    inflation: float

    @property
    def device_rho(self) -> float:
        """Cost of one round as a device counts it: with the noise that is certain before it uploads."""
        return self._rho(self.setting.noises)

    def coordinator_rho(self, survivors: int, members: int) -> float:
        """Cost of one round as its coordinator counts it, with the noise there was: never the dearer count.

        Args:
            survivors: in the sum, at least `cohort.survivors_needed(members)`.
            members: of the cohort.
        """
        if self.setting.mode == "central":
            return self.device_rho
        return self._rho(self.setting.cohort.honest_of(survivors, members))

    def expected_noise(self, survivors: int) -> "ExpectedNoise":
        """What the mean over so many survivors carries besides the updates' mean."""
        block = self.update
        power = self._noise_power(block.sigma, survivors)
        # Rounding a uniform fraction at random has the variance 1/6.
        spread = math.sqrt(block.size / self.setting.update_size)
        rmse = math.sqrt(power + survivors / 6) / (survivors * block.scale * spread)
        metric = math.sqrt(self._noise_power(self.metrics.sigma, survivors)) / (
            2 * survivors * self.metrics.scale
        )
        length = rmse * math.sqrt(self.setting.update_size)
        return ExpectedNoise(rmse, length, length / self.setting.clip, metric)

    def _noise_power(self, sigma: float, survivors: int) -> float:
        return sigma * sigma * (survivors if self.setting.mode == "distributed" else 1)

    def _rho(self, noises: int) -> float:
        return cost((self.update, self.metrics), noises)


def cost(blocks: Iterable[NoisedBlock], noises: int) -> float:
    """Cost (rho) of one release of these blocks, when each holds at least so many honest noises."""
    return compose(round_rho(block.norm_squared, block.sigma, noises, block.size) for block in blocks)


@dataclass(frozen=True, slots=True)
class ExpectedNoise:
    """The noise of a mean update.

    Attributes:
        rmse: of one coordinate, in units of the weights.
        length: its expected L2 norm (root mean square), in units of the weights.
        of_clip: `length` over the clip; no mean update is longer than 1.
        metric: standard deviation of a mean metric, whose range is 0 to 1.
    """

    rmse: float
    length: float
    of_clip: float
    metric: float


def round_parameters(setting: Setting) -> RoundParameters:
    """Sensitivity, scale, noise and cost of a round.

    Raises:
        ImpossiblePrivacyError: rounding would multiply the sensitivity by more than `MAX_INFLATION`, or a
            device's noise would be below `MIN_SIGMA` levels. It names what to change, and to what.
    """
    made = _try(setting)
    if isinstance(made, str):
        raise ImpossiblePrivacyError(made, tuple(_remedies(setting)), _possible_multiplier(setting))
    return made


def inflation(bound: float, size: int) -> float:
    """What rounding multiplies the sensitivity by: sensitivity over s * C, `bound`, in levels, >= 1."""
    return math.sqrt(squared_sensitivity(bound, size)) / bound


def _try(setting: Setting) -> RoundParameters | str:
    """The parameters, or why there are none."""
    bound = _bound(setting)
    members = setting.cohort.largest
    who = f"{setting.bits} bits at {setting.update_size:,} parameters and up to {members:,} members"
    if bound < 1:
        return f"{who} leave no room for the update: rounding and noise fill the ring, whatever the clip"
    update = _update_block(setting, bound)
    inflated = inflation(bound, setting.kept)
    if inflated > MAX_INFLATION:
        return f"{who} inflate the sensitivity {inflated:.2f} times by rounding, above {MAX_INFLATION:g}"
    if setting.mode == "distributed" and update.sigma < MIN_SIGMA:
        return f"{who} leave a device {update.sigma:.2f} levels of noise, below {MIN_SIGMA:g}"
    half = _metrics_half(setting)
    if half < 1:
        return (
            f"a share of {setting.metrics_share:g} of the cost leaves metrics without a level above the noise"
        )
    return RoundParameters(setting, update, _metrics_block(setting, half), inflated)


def _bound(setting: Setting) -> float:
    """The largest x = s C for ring, integers and sampler; below 1 there is no room for an update."""
    return min(_bound_of_ring(setting), _bound_of_sampler(setting), MAX_BOUND)


def _bound_of_ring(setting: Setting) -> float:
    """See `ring_bound`: `sigma^2 = D^2 / (2 rho m)`, D the sensitivity; in central mode it comes after."""
    members = setting.cohort.largest
    noise = members / (2 * _update_rho(setting) * setting.noises) if setting.mode == "distributed" else 0.0
    return ring_bound(setting.bits, members, setting.update_size, noise, setting.kept)


def _bound_of_sampler(setting: Setting) -> float:
    """The largest x whose noise can be drawn: `x^2 + x + d/4 + sqrt(d)/2 <= 2 rho m sigma^2`."""
    most = 2 * _update_rho(setting) * setting.noises * _LARGEST_SIGMA**2
    room = most - setting.kept / 4 - math.sqrt(setting.kept) / 2
    return (math.sqrt(1 + 4 * room) - 1) / 2 if room > 0 else 0.0


def _update_block(setting: Setting, bound: float) -> NoisedBlock:
    norm_squared = squared_sensitivity(bound, setting.kept)
    sigma = _sigma(norm_squared, _update_rho(setting), setting.noises)
    return NoisedBlock(setting.kept, bound / setting.clip, norm_squared, sigma)


def _metrics_block(setting: Setting, half: int) -> NoisedBlock:
    norm_squared = setting.metrics * half * half
    sigma = _sigma(norm_squared, _metrics_rho(setting), setting.noises)
    return NoisedBlock(setting.metrics, float(half), norm_squared, sigma)


def _metrics_half(setting: Setting) -> int:
    """The largest h whose noise can be drawn and whose sums do not wrap, within `METRICS_TAIL`."""
    members, rho = setting.cohort.largest, _metrics_rho(setting)
    noise = math.sqrt(setting.metrics * members / (2 * rho * setting.noises))
    room = members + 1 + METRICS_TAIL * noise * (setting.mode == "distributed")
    drawn = _LARGEST_SIGMA * math.sqrt(2 * rho * setting.noises / setting.metrics)
    return int(min((2 ** (_METRIC_WORD - 1) - 1) / room, drawn))


def _metrics_rho(setting: Setting) -> float:
    return setting.metrics_share * rho_of(setting.noise_multiplier)


def _update_rho(setting: Setting) -> float:
    return (1 - setting.metrics_share) * rho_of(setting.noise_multiplier)


def _sigma(norm_squared: int, rho: float, noises: int) -> float:
    """`D / sqrt(2 rho m)`, rounded up to the parts that the sampler knows."""
    return sigma_in_parts(math.sqrt(norm_squared / noises) * multiplier_of(rho)) / SIGMA_PARTS


def _remedies(setting: Setting) -> Iterator[str]:
    """Single changes of width or cohort that make an impossible setting possible."""
    for bits in WIDTHS:
        if bits > setting.bits and _is_possible(replace(setting, bits=bits)):
            yield f"raise secure_aggregation.bits to {bits}"
            break
    cohort = setting.cohort
    members = _largest(
        lambda count: _is_possible(replace(setting, cohort=cohort.at_most(count))), cohort.largest
    )
    if members > 1:
        floor = f" and lower selection.min_cohort to {members}" if members < cohort.fewest else ""
        yield f"invite at most {members} devices (selection.count){floor}"


def _possible_multiplier(setting: Setting) -> float | None:
    """The nearest noise multiplier, in steps of 5 % to both sides, that makes a setting possible."""
    for step in range(1, _STEPS):
        for factor in (1.05, 1 / 1.05):
            # A tenth of a step beyond, so that the number may be rounded for people.
            tried = (setting.noise_multiplier * factor**more for more in (step, step + 0.1))
            if all(_is_possible(replace(setting, noise_multiplier=multiplier)) for multiplier in tried):
                return float(setting.noise_multiplier * factor ** (step + 0.1))
    return None


def _is_possible(setting: Setting) -> bool:
    return isinstance(_try(setting), RoundParameters)


def _largest(holds: Callable[[int], bool], below: int) -> int:
    """The largest number under `below` for which it holds, 0 for none; it holds up to some number."""
    low, high = 0, below
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
