"""Rounds in which some members are another implementation, written from PROTOCOL.md alone.

Masks cancel, shares recover and signatures count only if both agree on every byte.
"""

import json
import math
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec
import numpy as np
import pytest
from second_device import (
    SecondDevice,
    Secrets,
    degree_and_threshold,
    describe,
    is_low_order,
    public,
    share,
)
from second_fleet import as_second, second, with_second
from second_vector import Trained, add_mask, encode, pack
from virtual_fleet import VirtualFleet, manifest_for

from privacy.blocks import PlainBlock
from privacy.encoding import LocalMetrics
from privacy.weighted_update import WeightedEncoding
from protocol.chunks import describe as first_describe
from protocol.messages import encode as first_encode
from protocol.phases import Phase
from protocol.transcript import begin
from protocol.vector import encoding_of
from secagg.graph import parameters
from secagg.keys import Secret
from secagg.prg import Keystream

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "secagg.json").read_text())


def assert_plain_averaging(fleet: VirtualFleet, *, survivors: int, without: tuple[str, ...] = ()) -> None:
    """The round committed, nobody refused anything, and the mean is what plain averaging gives."""
    assert fleet.run() is Phase.COMMITTED, fleet.round.reason
    assert fleet.mean is not None
    assert fleet.commit is not None
    assert fleet.commit.survivors == survivors
    assert fleet.refused == []
    for device in fleet.devices.values():
        if isinstance(device.foreign, SecondDevice):
            assert device.foreign.refused == []
    np.testing.assert_allclose(
        fleet.mean.mean,
        fleet.plain_mean(without=without),
        rtol=1e-5,
        atol=quantisation_error(fleet, survivors),
    )


def quantisation_error(fleet: VirtualFleet, survivors: int) -> float:
    """What rounding every coordinate and every weight may do, as `WeightedEncoding.decode` says.

    Of rotated coordinates, whose rounding has a variance of at most 1/4, six standard deviations.
    """
    rule = encoding_of(fleet.manifest)
    assert fleet.mean is not None
    assert isinstance(rule, WeightedEncoding)
    assert fleet.mean.examples is not None
    weight = fleet.mean.examples / rule.max_examples
    if not isinstance(rule.block, PlainBlock):
        return 3 * math.sqrt(survivors) / rule.block.scale / weight + 1e-6
    return survivors * (1 / rule.block.scale + rule.block.limit / rule.metrics_scale) / weight + 1e-6


@pytest.mark.parametrize("bits", [32, 16])
def test_one_second_device_among_ten(bits: int) -> None:
    fleet = with_second(VirtualFleet(devices=10, size=7, bits=bits), "d004")
    assert_plain_averaging(fleet, survivors=10)


@pytest.mark.parametrize("bits", [32, 16])
def test_a_fleet_of_second_devices_alone(bits: int) -> None:
    fleet = VirtualFleet(devices=10, size=7, bits=bits)
    assert_plain_averaging(with_second(fleet, *fleet.devices), survivors=10)


@pytest.mark.parametrize("bits", [32, 16])
def test_second_devices_shares_recover_a_lost_first_device(bits: int) -> None:
    # With t = 7 of 10 and two lost, of whom one is of the second kind, every remaining share is needed.
    fleet = VirtualFleet(devices=10, size=7, bits=bits).lose("d002", "d009", phase=Phase.COLLECTING)
    with_second(fleet, "d001", "d005", "d010")
    assert_plain_averaging(fleet, survivors=8, without=("d002", "d009"))


@pytest.mark.parametrize("bits", [32, 16])
def test_first_devices_shares_recover_a_lost_second_device(bits: int) -> None:
    fleet = VirtualFleet(devices=10, size=7, bits=bits).lose("d004", phase=Phase.COLLECTING)
    assert_plain_averaging(with_second(fleet, "d004"), survivors=9, without=("d004",))


@pytest.mark.parametrize("bits", [8, 10, 12, 20, 24])
def test_every_width_of_the_ring(bits: int) -> None:
    fleet = with_second(VirtualFleet(devices=5, size=9, bits=bits), "d001", "d004")
    assert_plain_averaging(fleet, survivors=5)


@pytest.mark.parametrize(
    ("bits", "lost"), [(32, ()), (32, ("d011",)), (32, ("d040",)), (16, ()), (16, ("d011", "d040"))]
)
def test_a_sparse_graph_of_eighty(bits: int, lost: tuple[str, ...]) -> None:
    fleet = VirtualFleet(devices=80, size=5, bits=bits, corrupt_fraction=0.05, dropout_fraction=0.05)
    fleet.lose(*lost, phase=Phase.COLLECTING)
    with_second(fleet, "d010", "d011", "d012")
    assert_plain_averaging(fleet, survivors=80 - len(lost), without=lost)


@pytest.mark.parametrize("seed", range(4))
def test_everything_said_twice_counts_once(seed: int) -> None:
    fleet = with_second(VirtualFleet(devices=10, size=7, seed=seed), "d002", "d003")
    fleet.tamper = lambda _sender, _receiver, frame: [frame, frame]
    assert_plain_averaging(fleet, survivors=10)


def test_altered_frames_change_nothing() -> None:
    fleet = with_second(VirtualFleet(devices=10, size=7), "d002", "d003")
    fleet.tamper = lambda _sender, _receiver, frame: [frame[:-1] + bytes([frame[-1] ^ 1]), frame[:-1], frame]
    assert fleet.run() is Phase.COMMITTED
    assert fleet.mean is not None
    np.testing.assert_allclose(fleet.mean.mean, fleet.plain_mean(), atol=1e-5)
    assert set(second(fleet, "d002").refused) == {"signature", "malformed: Unpack failed: incomplete input"}


def test_a_cohort_below_the_floor_is_left() -> None:
    fleet = VirtualFleet(devices=5, size=7, min_cohort=3).lose("d003", phase=Phase.INVITING)
    with_second(fleet, "d002")
    second(fleet, "d002").floor = 5
    assert fleet.run() is Phase.ABORTED
    assert second(fleet, "d002").refused == ["a cohort too small or too large"]


@pytest.mark.parametrize("n", [3, 4, 10, 64, 65, 80, 100, 300])
@pytest.mark.parametrize("gamma", [0.05, 0.07, 0.1, 1 / 3])
@pytest.mark.parametrize("delta", [0.05, 0.07, 0.3])
def test_both_find_the_same_degree_and_threshold(n: int, gamma: float, delta: float) -> None:
    rule = parameters(n, gamma, delta)
    assert degree_and_threshold(n, gamma, delta) == (rule.degree, rule.threshold)


@pytest.mark.parametrize("bits", [8, 10, 12, 16, 20, 24, 32])
@pytest.mark.parametrize("coordinate_limit", [None, 0.5, 50.0])
def test_both_write_the_same_vector(bits: Any, coordinate_limit: float | None) -> None:
    manifest = manifest_for(1000, members=5, bits=bits)
    secure = msgspec.structs.replace(manifest.secure_aggregation, coordinate_limit=coordinate_limit)
    manifest = msgspec.structs.replace(manifest, secure_aggregation=secure)
    delta = np.random.default_rng(bits).normal(0, 0.5, 1000).astype(np.float32)
    trained = Trained(delta, examples=80, evaluated=150, loss_sum=2000.0, correct=77)
    local = LocalMetrics(trained.examples, trained.evaluated, trained.loss_sum, trained.correct)
    first = encoding_of(manifest).encode(delta, local, Keystream(Secret(bytes(32))).read)
    metrics, update = encode(trained, as_second(manifest), begin(first_encode(manifest)), bytes(32))
    np.testing.assert_array_equal(metrics, first.metrics.astype("<u4"))
    # The first clips and rotates in float32 and this one does not, so a few words are a step apart.
    steps = (update - first.update.astype(update.dtype)).astype(np.int64)
    apart = np.minimum(steps, 2 ** (8 * update.itemsize) - steps)
    assert apart.max() <= max(1, 2 ** (bits - 24))
    if bits <= 16:
        assert np.count_nonzero(apart) <= 5


def test_the_second_device_meets_the_vectors() -> None:
    sharing, masking = VECTORS["sharing"], VECTORS["masking"]
    points = {point: int(point) for point in sharing["shares"]}
    secret, key = bytes.fromhex(sharing["secret"]), bytes.fromhex(sharing["stream_key"])
    shares = share(secret, points, sharing["threshold"], key)
    assert {point: value.hex() for point, value in shares.items()} == sharing["shares"]
    for device in masking["devices"]:
        secrets = Secrets(bytes.fromhex(device["master"]))
        assert secrets.share_key.hex() == device["secrets"]["share-key"]
        assert public(secrets.seal_private).hex() == device["seal_public"]
        vector = (np.array(device["metrics"]).astype("<u4"), np.array(device["update"]).astype("<u4"))
        add_mask(vector, bytes.fromhex(device["self_key"]), adding=True)
        for peer, pair_key in device["pair_keys"].items():
            add_mask(vector, bytes.fromhex(pair_key), adding=device["id"] < peer)
        assert pack(*vector, masking["layout"]["bits"]).hex() == device["masked"]
    for packing in VECTORS["packing"]:
        vector = (np.array(packing["metrics"]).astype("<u4"), np.array(packing["update"]).astype("<u4"))
        assert pack(*vector, packing["layout"]["bits"]).hex() == packing["packed"]
    assert all(is_low_order(bytes.fromhex(key)) for key in VECTORS["refused_public_keys"])


def test_a_blob_described_by_one_is_one_of_the_other() -> None:
    content = np.random.default_rng(1).bytes(600_000)
    assert msgpack.packb(describe(content)) == msgspec.msgpack.encode(first_describe(content))
