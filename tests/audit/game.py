"""The game: a release of the real programs with the canary in it or not, and what everybody may see of it.

The worst case that the claim allows is played. As few devices survive as may; as many of them are corrupt as
may be, send zero and add no noise; the honest ones beside the canary add theirs to zero. The canary's update
is three times the clip along a known direction, its metrics are the largest there are. "Out" is the neighbour
of `privacy.parameters`: the device is there, with its noise, and its contribution is zero.

Devices encode with `EncodeUpdate` and the coordinator reads with `DecodeSum`, with the encoding that the
manifest implies. Between the two are the ring's integers; masks cancel exactly, so most releases are added up
without any, and some go through the whole protocol.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from planted.bugs import Plant
from virtual_fleet import VirtualFleet, manifest_for

from privacy.encoding import LocalMetrics, MeanUpdate
from privacy.noised_update import NoisedEncoding
from privacy.rotation import rotate
from protocol.coordinator_work import DecodeSum
from protocol.device_privacy import check_noise
from protocol.device_work import EncodeUpdate
from protocol.ids import Order
from protocol.messages import Manifest, Noise
from protocol.noise_cost import promised_cost
from protocol.phases import Phase
from protocol.plan import Privacy, Training
from protocol.vector import layout_of, noised_encoding
from runtime.entropy import SeededEntropy
from secagg.keys import Secret
from secagg.prg import Keystream
from secagg.ring import RingVector

Reals: TypeAlias = NDArray[np.float64]
Devices: TypeAlias = Sequence[tuple[NDArray[np.float32], LocalMetrics]]
"""Update and metrics of each, the canary's first."""

CEILING = Training().loss_ceiling
CANARY = LocalMetrics(examples=1, evaluated=1, loss_sum=CEILING, correct=1)
ZERO = LocalMetrics(examples=1, evaluated=0, loss_sum=0.0, correct=0)
CORRUPT = LocalMetrics(examples=2, evaluated=0, loss_sum=0.0, correct=0)
"""What a device is in the game can be told from its metrics."""

_OVER = 3.0
"""The canary's update over the clip."""


@dataclass(frozen=True)
class Setting:
    """What is audited.

    Attributes:
        mode: who adds the noise.
        members: devices in a release, all of which survive.
        corrupt: of them, that add no noise in distributed mode.
        rounds: releases of a run; the canary is in all of them or in none.
        noise_multiplier: of one release.
        size: parameters of the model.
        metrics_share: part of the cost that the metrics take: half, so that the audit sees both blocks.
        delta: of the label.
    """

    mode: Literal["distributed", "central"] = "distributed"
    members: int = 3
    corrupt: int = 1
    rounds: int = 1
    noise_multiplier: float = 0.4
    size: int = 7
    metrics_share: float = 0.5
    delta: float = 1e-6

    @property
    def noises(self) -> int:
        """Parts that a sum's noise is really made of."""
        return self.members - self.corrupt if self.mode == "distributed" else 1


@dataclass(frozen=True)
class Seen:
    """What the adversary sees of one run, and what it compares it with.

    Attributes:
        values: float64, shape (rounds, size + metrics): the sum's rotated coordinates in units of the clip,
            then its centred metrics in units of half their range.
        signal: as `values`: what the canary adds if it is in.
    """

    values: Reals
    signal: Reals


class Game:
    """One setting, as the programs have it now: with the bugs that are planted when it is made.

    Args:
        setting: see there.
        seed: of the direction, the keys and the coins.
    """

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting = setting
        self.entropy = SeededEntropy(seed)
        self.direction = np.random.default_rng(seed).normal(size=setting.size)
        self.direction /= np.linalg.norm(self.direction)
        self.runs = 0

    @cached_property
    def manifest(self) -> Manifest:
        """Of the first release; a device has checked its label."""
        manifest = manifest_for(self.setting.size, members=self.setting.members, **self._plan())  # type: ignore[arg-type]
        check_noise(manifest)
        return manifest

    @property
    def noise(self) -> Noise:
        """What the manifest says of the noise."""
        if self.manifest.noise is None:
            raise AssertionError("a release without privacy has nothing to audit")
        return self.manifest.noise

    @property
    def rho(self) -> float:
        """What a run costs a device, by its own count."""
        return self.noise.participations * promised_cost(self.manifest)

    def run(self, *, inside: bool, masked: bool = False) -> Seen:
        """Play one run.

        Args:
            inside: whether the canary is in.
            masked: through the whole protocol, with keys, shares and masks.
        """
        self.runs += 1
        orders = [Order(1, self.runs, number + 1) for number in range(self.setting.rounds)]
        releases = [self._release(order, inside=inside, masked=masked) for order in orders]
        values, signal = zip(*releases, strict=True)
        return Seen(np.stack(values), np.stack(signal))

    def _release(self, order: Order, *, inside: bool, masked: bool) -> tuple[Reals, Reals]:
        manifest = replace(self.manifest, order=order)
        encoding = noised_encoding(manifest, self.noise)
        devices = self._devices(inside=inside)
        mean = self._through_protocol(order, devices) if masked else self._added_up(encoding, devices)
        return self._seen(encoding, mean)

    def _added_up(self, encoding: NoisedEncoding, devices: Devices) -> MeanUpdate:
        total = RingVector.zeros(layout_of(encoding))
        for delta, metrics in devices:
            key = Secret(self.entropy.bytes(32))
            work = EncodeUpdate(np.zeros_like(delta), delta, metrics, encoding, key)
            total.add(contribution(EncodeUpdate.run, work))
        key = Secret(self.entropy.bytes(32))
        return DecodeSum(total, [], encoding, self.setting.members, key).run()

    def _through_protocol(self, order: Order, devices: Devices) -> MeanUpdate:
        seed = int.from_bytes(self.entropy.bytes(4), "little")
        members, size = self.setting.members, self.setting.size
        fleet = VirtualFleet(members, size, seed=seed, order=order, **self._plan())  # type: ignore[arg-type]
        for device, (delta, metrics) in zip(fleet.devices.values(), devices, strict=True):
            device.delta, device.metrics = delta, metrics
        with ExitStack() as stack:
            Plant(stack).instead(EncodeUpdate, "run", contribution)
            phase = fleet.run()
        if phase is not Phase.COMMITTED or fleet.mean is None:
            raise AssertionError(f"a release ended in {phase}")
        return fleet.mean

    def _devices(self, *, inside: bool) -> Devices:
        nothing = np.zeros(self.setting.size, np.float32)
        update = (_OVER * self.manifest.secure_aggregation.clip * self.direction).astype(np.float32)
        canary = (update, CANARY) if inside else (nothing, ZERO)
        honest = self.setting.members - self.setting.corrupt
        return [canary, *[(nothing, ZERO)] * (honest - 1), *[(nothing, CORRUPT)] * self.setting.corrupt]

    def _seen(self, encoding: NoisedEncoding, mean: MeanUpdate) -> tuple[Reals, Reals]:
        if mean.loss is None or mean.accuracy is None:
            raise AssertionError("a sum with noise always has metrics")
        members = self.setting.members
        rates = np.array([mean.loss / CEILING, mean.accuracy, mean.clipped_rate])
        update = self._rotated(encoding, mean.mean) * members / encoding.block.clip
        values = np.concatenate([update, (2 * rates - 1) * members])
        signal = np.concatenate([self._rotated(encoding, self.direction), np.ones(rates.size)])
        return values, signal

    def _rotated(self, encoding: NoisedEncoding, vector: NDArray[np.floating[Any]]) -> Reals:
        rotated = vector.astype(np.float64)
        _, signs = encoding.block._choices()
        rotate(rotated, signs)
        return rotated

    def _plan(self) -> dict[str, object]:
        setting = self.setting
        privacy = Privacy(
            mode=setting.mode,
            noise_multiplier=setting.noise_multiplier,
            delta=setting.delta,
            metrics_share=setting.metrics_share,
        )
        return {
            "min_cohort": setting.members,
            "bits": 16,
            "clip": 0.5,
            "corrupt_fraction": (setting.corrupt + 0.1) / setting.members,
            "privacy": privacy,
            "rounds": setting.rounds,
        }


def contribution(encode: Callable[[EncodeUpdate], RingVector], work: EncodeUpdate) -> RingVector:
    """What a device sends, before masking: the canary its update, others zero, the honest with their noise.

    Zero is not what `encode` makes of an update of zeros, for that reports "not clipped".
    """
    encoding, layout = work.encoding, layout_of(work.encoding)
    if work.metrics == CANARY:
        return encode(work)
    if work.metrics == CORRUPT or not isinstance(encoding, NoisedEncoding) or encoding.mode == "central":
        return RingVector.zeros(layout)
    zero = np.zeros(encoding.block.words, np.int64), np.zeros(len(encoding.METRICS), np.int64)
    encoded = encoding._noised(*zero, Keystream(work.encoding_key).read)
    return RingVector.from_signed(layout, encoded.metrics, encoded.update)
