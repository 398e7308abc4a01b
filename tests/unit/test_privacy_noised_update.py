"""The encoding under differential privacy: what a device writes and what a coordinator reads."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from privacy.blocks import RotatedBlock
from privacy.encoding import EncodedUpdate, LocalMetrics
from privacy.errors import ImplausibleSumError, MaskMismatchError
from privacy.noise import SIGMA_PARTS
from privacy.noised_update import NoisedEncoding
from privacy.parameters import NoisedBlock, cost

SIZE, CLIP, SCALE, HALF = 300, 2.0, 1000.0, 500
COUNTED = LocalMetrics(examples=50, evaluated=20, loss_sum=40.0, correct=15)
NOTHING = LocalMetrics(examples=50, evaluated=0, loss_sum=0.0, correct=0)


def round_bytes(count: int) -> bytes:
    return np.random.default_rng(3).bytes(count)


DISTRIBUTED = NoisedEncoding(
    block=RotatedBlock(SIZE, SIZE, 32, CLIP, SCALE, round_bytes),
    mode="distributed",
    sigma_parts=30 * SIGMA_PARTS,
    metrics_half=HALF,
    metrics_sigma_parts=7 * SIGMA_PARTS,
    max_members=400,
    loss_ceiling=8.0,
)
CENTRAL = replace(DISTRIBUTED, mode="central")
SILENT = replace(CENTRAL, sigma_parts=1, metrics_sigma_parts=1)


def entropy(seed: int = 1) -> Callable[[int], bytes]:
    return np.random.default_rng(seed).bytes


def update_of(length: float = CLIP) -> NDArray[np.float32]:
    update = np.random.default_rng(2).normal(size=SIZE)
    return (update * (length / np.linalg.norm(update))).astype(np.float32)


def sums(*vectors: EncodedUpdate) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return (
        np.sum([vector.update for vector in vectors], axis=0, dtype=np.int64),
        np.sum([vector.metrics for vector in vectors], axis=0, dtype=np.int64),
    )


def test_in_central_mode_a_device_sends_no_noise() -> None:
    vector = CENTRAL.encode(update_of(), COUNTED, entropy())
    levels, _ = CENTRAL.block.encode(update_of(), 1.0, entropy())

    np.testing.assert_array_equal(vector.update[:SIZE], levels)
    assert vector.metrics[:3].tolist() == [-HALF // 2, HALF // 2, -HALF]


def test_in_distributed_mode_each_device_sends_its_own_noise() -> None:
    quiet = sums(*[CENTRAL.encode(update_of(), COUNTED, entropy())] * 400)
    loud = sums(*[DISTRIBUTED.encode(update_of(), COUNTED, entropy(seed)) for seed in range(400)])

    noise = (loud[0] - quiet[0])[:SIZE] / 20
    assert np.std(noise) == pytest.approx(30, rel=0.2)
    assert np.abs((loud[1] - quiet[1])[:3]).max() < 5 * 7 * 20
    assert (loud[1] != quiet[1])[:3].all()


def test_in_central_mode_the_coordinator_adds_the_noise_once() -> None:
    vectors = sums(*[CENTRAL.encode(update_of(), COUNTED, entropy())] * 400)
    means = [CENTRAL.decode(*vectors, members=400, random_bytes=entropy(seed)).mean for seed in range(20)]

    # Rounding was the same in all vectors, so it does not shrink.
    plain = SILENT.decode(*vectors, members=400, random_bytes=entropy()).mean
    assert np.std(np.array(means) - plain) == pytest.approx(30 / SCALE / 400, rel=0.05)


def test_in_distributed_mode_the_coordinator_adds_nothing() -> None:
    vectors = sums(DISTRIBUTED.encode(update_of(), COUNTED, entropy()))
    first, second = (DISTRIBUTED.decode(*vectors, members=1, random_bytes=entropy(seed)) for seed in (1, 2))

    np.testing.assert_array_equal(first.mean, second.mean)
    assert first.loss == second.loss


@pytest.mark.parametrize("encoding", [DISTRIBUTED, CENTRAL])
def test_sentinels_are_zero_and_never_noised(encoding: NoisedEncoding) -> None:
    for seed in range(20):
        vector = encoding.encode(update_of(), COUNTED, entropy(seed))
        assert vector.update[SIZE:].tolist() == [0, 0, 0, 0]
        assert vector.metrics[3:].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("encoding", [DISTRIBUTED, CENTRAL])
@pytest.mark.parametrize(("block", "word"), [(0, SIZE), (0, SIZE + 3), (1, 3), (1, 6)])
def test_a_mask_left_in_is_found(encoding: NoisedEncoding, block: int, word: int) -> None:
    vectors = sums(encoding.encode(update_of(), COUNTED, entropy()))
    vectors[block][word] = -1

    with pytest.raises(MaskMismatchError, match="sentinel"):
        encoding.decode(*vectors, members=1, random_bytes=entropy())


def test_the_mean_of_all_is_their_plain_mean_whatever_their_examples() -> None:
    few, many = (LocalMetrics(examples, 1, 1.0, 1) for examples in (1, 1_000_000))
    one = SILENT.encode(update_of(), few, entropy(1))
    other = SILENT.encode(np.zeros(SIZE, np.float32), many, entropy(2))

    mean = SILENT.decode(*sums(one, other), members=2, random_bytes=entropy())

    np.testing.assert_allclose(mean.mean, update_of() / 2, atol=5 / SCALE)
    assert mean.examples is None


@pytest.mark.parametrize(
    ("counted", "loss", "accuracy"),
    [
        (COUNTED, 2.0, 0.75),
        (NOTHING, 4.0, 0.5),
        (LocalMetrics(1, 10, 1e300, 10), 8.0, 1.0),
        (LocalMetrics(1, 10, -5.0, 0), 0.0, 0.0),
        (LocalMetrics(1, 10, 80.0, 11), 8.0, 1.0),
        (LocalMetrics(10**12, 10**12, 8e12, 10**12), 8.0, 1.0),
    ],
)
def test_metrics_are_means_within_their_range_and_the_middle_says_nothing(
    counted: LocalMetrics, loss: float, accuracy: float
) -> None:
    mean = SILENT.decode(
        *sums(SILENT.encode(update_of(), counted, entropy())), members=1, random_bytes=entropy()
    )

    assert mean.loss == pytest.approx(loss, abs=8 / HALF)
    assert mean.accuracy == pytest.approx(accuracy, abs=1 / HALF)


def test_the_clipped_rate_counts_who_was_clipped() -> None:
    long, short = (SILENT.encode(update_of(length), COUNTED, entropy()) for length in (3.0, 1.0))
    mean = SILENT.decode(*sums(long, short, short, short), members=4, random_bytes=entropy())

    assert mean.clipped_rate == pytest.approx(1 / 4)
    assert mean.saturated_rate == 0.0


@pytest.mark.parametrize("far", [10**6, -(10**6)])
def test_noise_beyond_a_metrics_range_is_cut_off(far: int) -> None:
    update, metrics = sums(DISTRIBUTED.encode(update_of(), COUNTED, entropy()))
    metrics[:3] = far
    mean = DISTRIBUTED.decode(update, metrics, members=1, random_bytes=entropy())

    edge = float(far > 0)
    assert (mean.loss, mean.accuracy, mean.clipped_rate) == (8.0 * edge, edge, edge)


@pytest.mark.parametrize("encoding", [DISTRIBUTED, CENTRAL])
def test_a_sum_that_no_honest_members_could_give_is_refused(encoding: NoisedEncoding) -> None:
    update, metrics = sums(*[encoding.encode(update_of(), COUNTED, entropy(seed)) for seed in range(4)])
    noises = 4 if encoding.mode == "distributed" else 1
    reach = 4 * math.sqrt(encoding.block.norm_squared) + 30 * math.sqrt(noises) * (math.sqrt(SIZE) + 8)

    encoding.decode(update, metrics, members=4, random_bytes=entropy())
    update[:SIZE] = 0
    update[0] = 1.01 * reach
    with pytest.raises(ImplausibleSumError, match="4 honest members"):
        encoding.decode(update, metrics, members=4, random_bytes=entropy())


def test_what_cannot_be_a_sum_is_refused() -> None:
    update, metrics = sums(DISTRIBUTED.encode(update_of(), COUNTED, entropy()))
    with pytest.raises(ValueError, match="401 members"):
        DISTRIBUTED.decode(update, metrics, members=401, random_bytes=entropy())
    with pytest.raises(ValueError, match="0 members"):
        DISTRIBUTED.decode(update, metrics, members=0, random_bytes=entropy())
    with pytest.raises(ValueError, match="shapes"):
        DISTRIBUTED.decode(update[1:], metrics, members=1, random_bytes=entropy())


def test_an_update_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="300 parameters"):
        DISTRIBUTED.encode(np.zeros(4, np.float32), COUNTED, entropy())


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_zeros_and_the_highest_loss(wrong: float) -> None:
    """To stay away because of it would tell of the data without noise."""
    local = LocalMetrics(examples=9, evaluated=4, loss_sum=wrong, correct=4)
    encoded = CENTRAL.encode(np.full(SIZE, wrong, np.float32), local, entropy())

    assert not encoded.update.any()
    assert encoded.metrics[:3].tolist() == [HALF, HALF, HALF]  # the highest loss, all correct, clipped


def test_the_cost_is_that_of_both_blocks_from_their_integers() -> None:
    blocks = (
        NoisedBlock(SIZE, SCALE, DISTRIBUTED.block.norm_squared, 30.0),
        NoisedBlock(3, HALF, 3 * HALF**2, 7.0),
    )

    assert DISTRIBUTED.rho(9) == cost(blocks, 9)
    assert DISTRIBUTED.rho(9) == pytest.approx(DISTRIBUTED.rho(1) / 9)
