"""Both implementations under differential privacy: one cost, one rotation, and sums in which both are."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from second_device import SecondDevice
from second_fleet import as_second, read_body, second, with_second
from second_vector import (
    Stream,
    Trained,
    cost,
    discrete_gaussians,
    encode,
    enough_for_noise,
    epsilon,
    longest,
    rotation,
    width,
)
from virtual_fleet import VirtualFleet, manifest_for

from privacy.blocks import RotatedBlock
from privacy.encoding import LocalMetrics
from protocol.device_privacy import check_noise
from protocol.errors import ManifestError
from protocol.frames import seal_frame
from protocol.messages import Manifest, ShareSet, SurvivorSet, decode_from_coordinator
from protocol.messages import encode as first_encode
from protocol.noise_cost import promised_cost, survivors_needed
from protocol.phases import Phase
from protocol.plan import Privacy
from protocol.transcript import begin
from protocol.vector import encoding_of
from secagg.keys import Secret
from secagg.prg import Keystream

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "noise.json").read_text())
FAINT = Privacy(mode="distributed", noise_multiplier=0.02, delta=1e-6)
"""Noise of a hundredth of what would protect anybody: a wrong coordinate stands out of it."""


def fleet_of(privacy: Privacy = FAINT, *, size: int = 60, **settings: Any) -> VirtualFleet:
    """Ten devices whose updates of length 1 to 8 are clipped to 5, three of them of the second kind."""
    settings = {"bits": 24, "clip": 5.0, "min_cohort": 7, "corrupt_fraction": 0.2} | settings
    fleet = VirtualFleet(devices=10, size=size, privacy=privacy, **settings)
    for length, device in enumerate(fleet.devices.values(), start=1):
        device.delta *= np.float32(0.8 * length / np.linalg.norm(device.delta))
    return with_second(fleet, "d002", "d005", "d010")


def clipped_mean(fleet: VirtualFleet, without: tuple[str, ...] = ()) -> NDArray[np.float64]:
    """The mean that the clip leaves, each device counted alike."""
    clip = fleet.manifest.secure_aggregation.clip
    deltas = [
        device.delta.astype(np.float64) for name, device in fleet.devices.items() if name not in without
    ]
    bounded = [delta * min(1.0, clip / float(np.linalg.norm(delta))) for delta in deltas]
    return np.asarray(np.mean(bounded, axis=0))


def deviation(fleet: VirtualFleet, survivors: int) -> float:
    """Of one coordinate of the mean: everybody's noise and rounding, whose variance is at most 1/4."""
    noise = fleet.manifest.noise
    assert noise is not None
    noises = survivors if noise.mode == "distributed" else 1
    levels = noises * (noise.sigma_parts / 2**16) ** 2 + survivors / 4
    return math.sqrt(levels) / noise.scale / survivors


def errors(fleet: VirtualFleet, *, without: tuple[str, ...] = ()) -> NDArray[np.float64]:
    """Of the committed mean, in deviations. A round whose sentinels are not zero is not committed."""
    assert fleet.run() is Phase.COMMITTED, fleet.round.reason
    assert fleet.refused == []
    assert fleet.mean is not None
    survivors = len(fleet.devices) - len(without)
    assert len(fleet.survivors) == survivors
    for device in fleet.devices.values():
        assert not isinstance(device.foreign, SecondDevice) or device.foreign.refused == []
    return (fleet.mean.mean - clipped_mean(fleet, without)) / deviation(fleet, survivors)


# Rounds.


@pytest.mark.parametrize("mode", ["distributed", "central"])
@pytest.mark.parametrize("bits", [24, 32])
def test_the_mean_of_both_is_right_within_the_noise(mode: Any, bits: int) -> None:
    off = errors(fleet_of(replace(FAINT, mode=mode), bits=bits))
    assert np.abs(off).max() < 6
    assert 0.6 < np.sqrt(np.mean(off**2)) < 1.4  # of 60 numbers, within four deviations: the noise is there


def test_a_fleet_of_second_devices_alone() -> None:
    fleet = fleet_of()
    off = errors(with_second(fleet, *fleet.devices))
    assert np.abs(off).max() < 6
    assert 0.6 < np.sqrt(np.mean(off**2)) < 1.4


@pytest.mark.parametrize("lost", ["d002", "d003"])
def test_a_lost_device_of_either_kind_takes_its_noise_along(lost: str) -> None:
    fleet = fleet_of().lose(lost, phase=Phase.COLLECTING)
    assert np.abs(errors(fleet, without=(lost,))).max() < 6


def test_metrics_of_both_are_right_within_their_noise() -> None:
    fleet = fleet_of()
    assert np.abs(errors(fleet)).max() < 6
    noise = fleet.manifest.noise
    assert noise is not None
    assert fleet.mean is not None
    assert fleet.mean.loss is not None
    six = 6 * math.sqrt(10) * noise.metrics_sigma_parts / 2**16 / (2 * 10 * noise.metrics_half)
    metrics = [device.metrics for device in fleet.devices.values()]
    assert fleet.mean.loss / 10 == pytest.approx(0.1, abs=six)  # every loss is 1, and the ceiling 10
    assert fleet.mean.accuracy == pytest.approx(np.mean([each.correct / 4 for each in metrics]), abs=six)
    assert fleet.mean.clipped_rate == pytest.approx(0.4, abs=six)


def test_what_a_second_device_spends_is_what_the_first_would() -> None:
    fleet = fleet_of()
    errors(fleet)
    ((order, spent),) = second(fleet, "d002").charged
    assert order == [1, 1, 1]
    assert spent == pytest.approx(promised_cost(fleet.manifest), rel=1e-9)


# What a device declines.


def invited(fleet: VirtualFleet, manifest: Manifest) -> SecondDevice:
    """A second device that was shown another manifest."""
    device = second(fleet, "d002")
    device.handle(seal_frame(fleet.coordinator_identity, manifest))
    return device


@pytest.mark.parametrize(
    ("part", "factor"),
    [("epsilon", 0.999), ("sigma_parts", 0.99), ("metrics_sigma_parts", 0.9), ("scale", 1.01)],
)
def test_both_decline_an_understated_label(part: str, factor: float) -> None:
    fleet = fleet_of()
    noise = fleet.manifest.noise
    assert noise is not None
    value = getattr(noise, part)
    false = replace(fleet.manifest, noise=replace(noise, **{part: type(value)(value * factor)}))
    assert invited(fleet, false).refused == ["an epsilon too low by our count"]
    assert second(fleet, "d002").charged == []
    with pytest.raises(ManifestError, match="it promises epsilon"):
        check_noise(false)


@pytest.mark.parametrize(
    ("part", "value"), [("sigma_parts", 0), ("delta", 0.0), ("epsilon", math.nan), ("scale", math.inf)]
)
def test_a_second_device_declines_numbers_that_nothing_follows_from(part: str, value: float) -> None:
    fleet = fleet_of()
    noise = fleet.manifest.noise
    assert noise is not None
    device = invited(fleet, replace(fleet.manifest, noise=replace(noise, **{part: value})))
    assert len(device.refused) == 1
    assert not device.charged


def test_a_second_device_rests_between_rounds_and_keeps_to_its_budget() -> None:
    fleet = fleet_of(replace(FAINT, spacing=3))
    errors(fleet)
    order, spent = fleet.manifest.order, promised_cost(fleet.manifest)
    third, fourth = (replace(fleet.manifest, order=replace(order, round=number)) for number in (3, 4))
    device = invited(fleet, third)
    assert device.refused == ["another round so soon"]
    device.budget = 1.5 * spent
    assert invited(fleet, fourth).refused[1:] == ["our privacy budget is spent"]


@pytest.mark.parametrize(("members", "needed"), [(7, 7), (10, 8), (15, 9), (24, 10)])
def test_both_ask_for_as_many_survivors_as_the_noise_needs(members: int, needed: int) -> None:
    manifest = fleet_of().manifest  # 6 noises are certain: 7 survivors less a fifth
    assert survivors_needed(manifest, members) == needed
    assert max(7, enough_for_noise(as_second(manifest), members)) == needed


@pytest.mark.parametrize("kind", [ShareSet, SurvivorSet])
def test_a_set_with_too_little_noise_is_left(kind: type[ShareSet | SurvivorSet]) -> None:
    fleet = fleet_of()  # of ten members eight are needed, though `min_cohort` is 7 and the threshold 6

    def shown_seven(sender: str, receiver: str, frame: bytes) -> list[bytes]:
        said = msgpack.unpackb(frame)[2]
        message = decode_from_coordinator(said) if (sender, receiver) == ("coordinator", "d002") else None
        if not isinstance(message, kind):
            return [frame]
        return [seal_frame(fleet.coordinator_identity, replace(message, members=message.members[:7]))]

    fleet.tamper = shown_seven
    fleet.run()
    assert second(fleet, "d002").refused == ["a set of too few"]


def test_a_round_that_keeps_too_little_noise_is_aborted() -> None:
    fleet = fleet_of().lose("d002", "d003", "d004", phase=Phase.COLLECTING)
    assert fleet.run() is Phase.ABORTED


# One count and one rotation.


MODES, MULTIPLIERS, GAMMAS = ("distributed", "central"), (0.3, 1.0, 5.0), (0.1, 0.29, 1 / 3)
GRID = list(itertools.product(MODES, MULTIPLIERS, GAMMAS, (50, 100), (0.2, 1.0)))


@pytest.mark.parametrize(("mode", "multiplier", "gamma", "fewest", "sketch"), GRID)
def test_both_count_the_same_cost(
    mode: Any, multiplier: float, gamma: float, fewest: int, sketch: float
) -> None:
    privacy = Privacy(mode=mode, noise_multiplier=multiplier, delta=1e-7, spacing=3)
    manifest = manifest_for(
        1000,
        members=120,
        min_cohort=fewest,
        bits=20,
        corrupt_fraction=gamma,
        sketch=sketch,
        privacy=privacy,
        rounds=100,
    )
    seen, noise = as_second(manifest), manifest.noise
    assert noise is not None
    assert cost(seen) == pytest.approx(promised_cost(manifest), rel=1e-9)
    assert epsilon(noise.participations * cost(seen), noise.delta) == pytest.approx(noise.epsilon, rel=1e-9)


@pytest.mark.parametrize("sketch", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("size", [1, 9, 64, 1000])
def test_both_rotate_and_choose_alike(size: int, sketch: float) -> None:
    privacy = replace(FAINT, mode="central")  # in which a device adds no noise
    manifest = manifest_for(size, members=5, bits=32, sketch=sketch, privacy=privacy, clip=1.0)
    t0, block = begin(first_encode(manifest)), encoding_of(manifest).block
    assert isinstance(block, RotatedBlock)
    start, signs = block._choices()
    found, layers = rotation(t0, size)
    assert found == start
    assert np.packbits(layers < 0, axis=1, bitorder="little").tobytes() == masked(signs, size)
    delta = np.random.default_rng(size).normal(0, 0.5, size).astype(np.float32)
    trained, local = Trained(delta, 80, 150, 2000.0, 77), LocalMetrics(80, 150, 2000.0, 77)
    first = encoding_of(manifest).encode(delta, local, Keystream(Secret(bytes(32))).read)
    metrics, update = encode(trained, as_second(manifest), t0, bytes(32))
    np.testing.assert_array_equal(metrics.view("<i4"), first.metrics)
    rounding = 1 + 1e-6 * block.scale * block.clip  # float32 in the first
    np.testing.assert_allclose(update.view("<i4"), first.update, rtol=0, atol=rounding)


def masked(signs: bytes, size: int) -> bytes:
    """Without the bits after the last coordinate."""
    layers = np.frombuffer(signs, np.uint8).reshape(4, -1)
    bits = np.unpackbits(layers, axis=1, count=size, bitorder="little")
    return np.packbits(bits, axis=1, bitorder="little").tobytes()


# Vectors.


@pytest.mark.parametrize("case", VECTORS["costs"], ids=lambda case: case["why"])
def test_the_second_device_meets_the_vectors(case: dict[str, Any]) -> None:
    manifest = read_body(bytes.fromhex(case["body"]))
    spent, noise = cost(manifest), manifest["noise"]
    start, layers = rotation(bytes.fromhex(case["transcript"]), manifest["weights"][1] // 4)
    assert (width(manifest), longest(manifest), start) == (case["width"], case["longest"], case["start"])
    packed = np.packbits(layers < 0, axis=1, bitorder="little").tobytes()
    assert packed == masked(bytes.fromhex(case["signs"]), layers.shape[1])
    assert spent == pytest.approx(float(case["rho"]), rel=1e-12)
    total = epsilon(noise["participations"] * spent, noise["delta"])
    assert total == pytest.approx(float(case["epsilon"]), rel=1e-12)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 7.5])
def test_the_second_devices_noise_is_a_discrete_gaussian(sigma: float) -> None:
    count, drawn = 4000, discrete_gaussians(4000, round(sigma * 2**16), Stream(bytes(32)))
    values = np.arange(-80, 81)
    chances = np.exp(-(values**2) / (2 * sigma**2))
    chances /= chances.sum()
    seen = np.array([np.count_nonzero(drawn == value) for value in values])
    assert seen.sum() == count
    # Each count within six deviations, and one for those that are hardly ever seen.
    assert (np.abs(seen - count * chances) <= 6 * np.sqrt(count * chances) + 1).all()
