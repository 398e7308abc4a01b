"""The masked weighted mean against plain federated averaging, within the error that quantising promises."""

import numpy as np
import pytest
from numpy.typing import NDArray
from virtual_fleet import VirtualFleet

from privacy.blocks import PlainBlock
from privacy.encoding import LocalMetrics
from privacy.weighted_update import WeightedEncoding
from protocol.ids import DeviceId
from protocol.phases import Phase
from protocol.vector import encoding_of

PARAMETERS = 3_207  # a small convolutional network for sensor windows
DEVICES = 10
FLOAT32 = 2.0**-22
"""A few roundings of float32, relative to the mean's largest coordinate."""


def fleet_of(bits: int, seed: int) -> VirtualFleet:
    """Ten devices with updates and example counts as unequal as in practice; some above the cap of 100."""
    fleet = VirtualFleet(DEVICES, PARAMETERS, seed=seed, bits=bits)
    numbers = np.random.default_rng(seed)
    for device in fleet.devices.values():
        device.delta = numbers.normal(0, 0.02, PARAMETERS).astype(np.float32)
        examples = int(numbers.integers(1, 150))
        device.metrics = LocalMetrics(
            examples, evaluated=20, loss_sum=float(numbers.uniform(5, 40)), correct=13
        )
    return fleet


def plain(fleet: VirtualFleet) -> NDArray[np.float64]:
    """Federated averaging of the survivors, each device's examples counted up to the plan's cap."""
    members = [fleet.devices[DeviceId(name)] for name in fleet.survivors]
    cap = fleet.manifest.training.max_examples
    weights = [min(device.metrics.examples, cap) for device in members]
    return np.average([device.delta.astype(np.float64) for device in members], axis=0, weights=weights)


def rotated_bound(fleet: VirtualFleet) -> float:
    """Six standard deviations of the rounding of rotated coordinates, each of a variance of at most 1/4."""
    assert fleet.mean is not None
    encoding, members = encoding_of(fleet.manifest), len(fleet.survivors)
    assert isinstance(encoding, WeightedEncoding)
    assert fleet.mean.examples is not None
    return 3 * members**0.5 / encoding.block.scale / (fleet.mean.examples / encoding.max_examples)


def bound(fleet: VirtualFleet) -> float:
    """`privacy.weighted_update`: (n/s + n * limit / m) / W."""
    assert fleet.mean is not None
    encoding, members = encoding_of(fleet.manifest), len(fleet.survivors)
    assert isinstance(encoding, WeightedEncoding)
    if not isinstance(encoding.block, PlainBlock):
        return rotated_bound(fleet)
    rounding = members / encoding.block.scale + members * encoding.block.limit / encoding.metrics_scale
    assert fleet.mean.examples is not None
    return rounding / (fleet.mean.examples / encoding.max_examples)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("bits", "largest"), [(32, 3e-7), (16, 2e-2)])
@pytest.mark.parametrize("lost", [(), ("d004", "d009")], ids=["all", "two-lost"])
def test_the_masked_mean_is_plain_averaging_within_the_quantisation_bound(
    bits: int, largest: float, lost: tuple[str, ...], seed: int
) -> None:
    fleet = fleet_of(bits, seed).lose(*lost, phase=Phase.COLLECTING)
    assert fleet.run() is Phase.COMMITTED
    assert fleet.mean is not None
    assert set(fleet.survivors) == fleet.devices.keys() - set(lost)
    error = np.abs(fleet.mean.mean.astype(np.float64) - plain(fleet)).max()
    assert error < bound(fleet) + FLOAT32 * np.abs(plain(fleet)).max()
    assert bound(fleet) < largest  # the bound says something


@pytest.mark.parametrize("bits", [32, 16])
def test_counts_loss_and_accuracy_come_masked_with_the_update(bits: int) -> None:
    fleet = fleet_of(bits, seed=7)
    assert fleet.run() is Phase.COMMITTED
    assert fleet.mean is not None
    metrics = [device.metrics for device in fleet.devices.values()]
    examples = sum(min(each.examples, 100) for each in metrics)
    assert fleet.mean.examples == pytest.approx(examples, abs=1e-4)
    assert fleet.mean.loss == pytest.approx(sum(each.loss_sum for each in metrics) / (20 * DEVICES), abs=1e-5)
    assert fleet.mean.accuracy == pytest.approx(13 / 20, abs=1e-6)


def test_the_quantisation_error_has_no_bias() -> None:
    fleet = fleet_of(16, seed=11)
    assert fleet.run() is Phase.COMMITTED
    assert fleet.mean is not None
    errors = fleet.mean.mean - plain(fleet)
    # Stochastic rounding: the mean of d errors is d^-1/2 of one error's deviation; five of these are allowed.
    assert abs(errors.mean()) < 5 * errors.std() / np.sqrt(PARAMETERS)
