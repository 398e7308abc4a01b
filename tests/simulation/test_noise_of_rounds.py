"""The noise of a mean that came out of a whole round is the noise that the plan promises.

Real keys, shares, masks and recovery; each device draws its noise itself. The error of a mean of d
coordinates has a relative standard deviation of 1/sqrt(2 d), so 2 % are 6 to 12 of them.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from virtual_fleet import VirtualFleet

from privacy.accounting import epsilon
from privacy.parameters import RoundParameters, round_parameters
from protocol.noise import setting_of
from protocol.noise_cost import promised_cost
from protocol.phases import Phase
from protocol.plan import Privacy

CLIP = 1.0


@dataclass(frozen=True)
class Noisy:
    """A fleet whose devices add noise.

    Attributes:
        devices: n, members of the cohort.
        min_cohort: so low that 70 % of the cohort hold enough honest noise.
        size: d, parameters.
        multiplier: z.
        bits: ring width.
        sketch: part of the coordinates that travels.
    """

    devices: int
    min_cohort: int
    size: int
    multiplier: float
    bits: int = 16
    sketch: float = 1.0

    def fleet(self, mode: str = "distributed") -> VirtualFleet:
        return VirtualFleet(
            self.devices,
            self.size,
            min_cohort=self.min_cohort,
            bits=self.bits,
            clip=CLIP,
            sketch=self.sketch,
            corrupt_fraction=0.1,
            privacy=self.privacy(mode),
        )

    def privacy(self, mode: str) -> Privacy:
        return Privacy(mode=mode, noise_multiplier=self.multiplier)  # type: ignore[arg-type]

    def promised(self, fleet: VirtualFleet, mode: str = "distributed") -> RoundParameters:
        masking, cohort = fleet.manifest.secure_aggregation, (self.min_cohort, self.devices)
        return round_parameters(setting_of(self.privacy(mode), masking, self.size, cohort, rounds=1))


FLEETS = {
    "few devices, a larger model": Noisy(10, 6, 150_000, multiplier=0.5),
    "more devices": Noisy(20, 13, 100_000, multiplier=1.0),
    "much noise": Noisy(40, 26, 50_000, multiplier=4.0),
    "short words": Noisy(20, 13, 100_000, multiplier=0.1, bits=10),
}


def exact_mean(fleet: VirtualFleet) -> NDArray[np.float64]:
    """Of the survivors' updates, each as long as the clip: all are longer."""
    updates = [
        device.delta.astype(np.float64) for name, device in fleet.devices.items() if name in fleet.survivors
    ]
    assert all(np.linalg.norm(update) > CLIP for update in updates)
    mean: NDArray[np.float64] = np.mean(
        [CLIP * update / np.linalg.norm(update) for update in updates], axis=0
    )
    return mean


def rmse(fleet: VirtualFleet) -> float:
    assert fleet.mean is not None
    return math.sqrt(np.mean((fleet.mean.mean - exact_mean(fleet)) ** 2))


def lose_part(fleet: VirtualFleet, part: float) -> int:
    """So many vanish after they shared their keys, and with them their noise; how many stay."""
    lost = round(part * len(fleet.devices))
    fleet.lose(*list(fleet.devices)[:lost], phase=Phase.COLLECTING)
    return len(fleet.devices) - lost


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name", FLEETS)
def test_the_noise_of_an_unmasked_mean_is_within_two_percent_of_theory(name: str, dropout: float) -> None:
    noisy = FLEETS[name]
    fleet = noisy.fleet()
    stay = lose_part(fleet, dropout)

    assert fleet.run() is Phase.COMMITTED
    assert len(fleet.survivors) == stay
    assert rmse(fleet) == pytest.approx(noisy.promised(fleet).expected_noise(stay).rmse, rel=0.02)


def test_one_device_more_lost_and_nothing_is_unmasked() -> None:
    noisy = Noisy(20, 13, 50, multiplier=1.0, bits=20)
    enough, short = noisy.fleet(), noisy.fleet()
    lose_part(enough, 0.3)
    lose_part(short, 0.35)

    assert (enough.run(), short.run()) == (Phase.COMMITTED, Phase.ABORTED)
    assert short.mean is None
    assert "14 are needed" in short.round.reason


def test_a_coordinators_noise_is_as_large_as_promised_too() -> None:
    noisy = FLEETS["more devices"]
    fleet = noisy.fleet("central")
    stay = lose_part(fleet, 0.3)

    assert fleet.run() is Phase.COMMITTED
    assert rmse(fleet) == pytest.approx(noisy.promised(fleet, "central").expected_noise(stay).rmse, rel=0.02)


def test_a_sketch_has_the_promised_noise_where_it_looks() -> None:
    """What it does not look at is an error of its own, which is the update's and not the noise's."""
    noisy = Noisy(20, 13, 100_000, multiplier=4.0, sketch=0.5)
    fleet = noisy.fleet()

    assert fleet.run() is Phase.COMMITTED
    noise = noisy.promised(fleet).expected_noise(20).rmse
    unseen = math.sqrt(np.mean(exact_mean(fleet) ** 2))  # twice the seen half, less the whole: as long as it
    assert rmse(fleet) == pytest.approx(math.hypot(noise, unseen), rel=0.02)


def test_devices_count_the_noise_they_can_be_sure_of() -> None:
    """Twenty may add noise, twelve of the thirteen that must stay are honest: the label is theirs."""
    fleet = FLEETS["more devices"].fleet()

    cost = promised_cost(fleet.manifest)
    assert cost == pytest.approx(1 / 2, rel=1e-3)
    assert fleet.manifest.noise is not None
    assert fleet.manifest.noise.epsilon == pytest.approx(epsilon(cost, 1e-6), rel=1e-9)
