import numpy as np
import pytest

from privacy.blocks import PlainBlock
from privacy.encoding import EncodedUpdate, LocalMetrics
from privacy.errors import (
    ImplausibleSumError,
    MaskMismatchError,
    NotFiniteError,
    NoWeightError,
    QuantizationError,
)
from privacy.weighted_update import WeightedEncoding

ENCODING = WeightedEncoding(
    PlainBlock(size=3, bits=32, clip=10.0, limit=1.0, max_members=4),
    max_members=4,
    max_examples=100,
    loss_ceiling=8.0,
)
COUNTED = LocalMetrics(examples=50, evaluated=20, loss_sum=40.0, correct=15)
ENTROPY = np.random.default_rng(7).bytes


def total(*vectors: EncodedUpdate) -> tuple[np.ndarray, np.ndarray]:
    return (
        sum((v.update.astype(np.int64) for v in vectors), np.zeros(3 + 4, np.int64)),
        sum((v.metrics.astype(np.int64) for v in vectors), np.zeros(10, np.int64)),
    )


def test_one_device_is_its_own_mean() -> None:
    encoded = ENCODING.encode(np.array([0.5, -0.25, 0.0], np.float32), COUNTED, ENTROPY)

    mean = ENCODING.decode(*total(encoded), members=1, random_bytes=ENTROPY)

    np.testing.assert_allclose(mean.mean, [0.5, -0.25, 0.0], atol=1e-7)
    assert mean.examples == pytest.approx(50)
    assert mean.loss == pytest.approx(2.0)
    assert mean.accuracy == pytest.approx(0.75)
    assert (mean.clipped_rate, mean.saturated_rate) == (0.0, 0.0)


def test_more_examples_weigh_more_up_to_the_cap() -> None:
    few = ENCODING.encode(np.array([0.0, 0.0, 0.0], np.float32), LocalMetrics(50, 0, 0.0, 0), ENTROPY)
    many = ENCODING.encode(np.array([0.9, 0.9, 0.9], np.float32), LocalMetrics(1_000_000, 0, 0.0, 0), ENTROPY)

    mean = ENCODING.decode(*total(few, many), members=2, random_bytes=ENTROPY)

    assert mean.examples == pytest.approx(150)
    np.testing.assert_allclose(mean.mean, [0.6, 0.6, 0.6], atol=1e-6)
    assert mean.loss is None
    assert mean.accuracy is None


def test_clipping_and_saturation_are_reported_as_rates() -> None:
    long = ENCODING.encode(np.array([30.0, 0.0, 0.0], np.float32), COUNTED, ENTROPY)
    short = ENCODING.encode(np.zeros(3, np.float32), COUNTED, ENTROPY)

    mean = ENCODING.decode(*total(long, short), members=2, random_bytes=ENTROPY)

    assert mean.clipped_rate == pytest.approx(1 / 2)
    assert mean.saturated_rate == pytest.approx(1 / 6)


def test_a_device_above_the_cap_still_reports_its_own_loss_and_accuracy() -> None:
    counted = LocalMetrics(examples=1, evaluated=400, loss_sum=800.0, correct=100)

    mean = ENCODING.decode(
        *total(ENCODING.encode(np.zeros(3, np.float32), counted, ENTROPY)), members=1, random_bytes=ENTROPY
    )

    assert mean.loss == pytest.approx(2.0)
    assert mean.accuracy == pytest.approx(0.25)


def test_a_loss_above_the_ceiling_counts_as_the_ceiling() -> None:
    counted = LocalMetrics(examples=1, evaluated=10, loss_sum=1e9, correct=0)

    mean = ENCODING.decode(
        *total(ENCODING.encode(np.zeros(3, np.float32), counted, ENTROPY)), members=1, random_bytes=ENTROPY
    )

    assert mean.loss == pytest.approx(8.0)


def test_sentinels_are_zero_and_a_mask_left_in_is_found() -> None:
    encoded = ENCODING.encode(np.zeros(3, np.float32), COUNTED, ENTROPY)
    assert encoded.metrics[6:].tolist() == [0, 0, 0, 0]
    assert encoded.update[3:].tolist() == [0, 0, 0, 0]
    for block, word in ((1, 9), (0, 3), (0, 6)):
        sums = total(encoded)
        sums[block][word] += 1
        with pytest.raises(MaskMismatchError, match="sentinel"):
            ENCODING.decode(*sums, members=1, random_bytes=ENTROPY)


def test_a_sum_without_weight_has_no_mean() -> None:
    encoded = ENCODING.encode(np.zeros(3, np.float32), LocalMetrics(0, 0, 0.0, 0), ENTROPY)

    with pytest.raises(NoWeightError, match="nobody had examples"):
        ENCODING.decode(*total(encoded), members=1, random_bytes=ENTROPY)


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_the_device(loss: float) -> None:
    with pytest.raises(NotFiniteError, match="the loss"):
        ENCODING.encode(np.zeros(3, np.float32), LocalMetrics(1, 1, loss, 0), ENTROPY)


def test_an_update_that_is_not_finite_stops_the_device() -> None:
    with pytest.raises(NotFiniteError, match="the update"):
        ENCODING.encode(np.array([0, np.nan, 0], np.float32), COUNTED, ENTROPY)


def test_an_update_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="3 parameters"):
        ENCODING.encode(np.zeros(4, np.float32), COUNTED, ENTROPY)


def test_a_sum_of_another_shape_or_of_too_many_members_is_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        ENCODING.decode(np.zeros(3, np.int64), np.zeros(10, np.int64), members=1, random_bytes=ENTROPY)
    with pytest.raises(ValueError, match="5 members"):
        ENCODING.decode(np.zeros(7, np.int64), np.zeros(10, np.int64), members=5, random_bytes=ENTROPY)


def test_a_ring_too_small_is_refused_before_any_round() -> None:
    with pytest.raises(QuantizationError, match="raise bits"):
        PlainBlock(3, 8, 1.0, 1.0, max_members=64)


@pytest.mark.parametrize(
    ("block", "word", "value", "gist"),
    [
        (1, 0, 1, "update"),  # next to no weight would blow the mean up
        (1, 0, 2**30, "weight"),
        (1, 3, 2**30, "correct"),
        (1, 2, -(2**20), "loss"),
        (0, 1, 2**31 - 1, "update"),
    ],
)
def test_a_sum_that_no_honest_member_could_give_is_refused(
    block: int, word: int, value: int, gist: str
) -> None:
    sums = total(ENCODING.encode(np.array([0.5, -0.25, 0.0], np.float32), COUNTED, ENTROPY))
    sums[block][word] = value

    with pytest.raises(ImplausibleSumError, match=gist):
        ENCODING.decode(*sums, members=1, random_bytes=ENTROPY)
