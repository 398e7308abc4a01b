"""The masked path computes plain federated averaging, and no honest input can overflow the ring."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from privacy.blocks import PlainBlock
from privacy.encoding import LocalMetrics
from privacy.quantization import MIN_LEVELS, quantize, scale_for
from privacy.weighted_update import WeightedEncoding

CAP = 500


@st.composite
def rings(draw: st.DrawFn) -> tuple[int, float, int]:
    bits = draw(st.sampled_from([8, 10, 12, 16, 20, 24, 32]))
    most = int((2 ** (bits - 1) - 1) / (MIN_LEVELS + 1))
    members = draw(st.integers(1, min(most, 2000)))
    return bits, draw(st.floats(1e-6, 1e6)), members


def to_ring_and_back(total: np.ndarray, bits: int) -> np.ndarray:
    """What a coordinator sees: the sum modulo 2^bits, read as signed."""
    half = 1 << (bits - 1)
    return ((total + half) % (1 << bits)) - half


@given(rings(), st.sampled_from([0x00, 0xFF]))
def test_the_worst_members_together_never_overflow(ring: tuple[int, float, int], byte: int) -> None:
    bits, limit, members = ring
    scale = scale_for(bits, limit, members)

    extreme = quantize(np.array([limit, -limit]), scale, lambda size: bytes([byte]) * size).astype(np.int64)

    assert np.abs(extreme * members).max() <= 2 ** (bits - 1) - 1


@given(rings(), st.floats(-1, 1), st.integers(0, 2**32 - 1))
def test_one_value_moves_by_less_than_a_level(ring: tuple[int, float, int], part: float, word: int) -> None:
    bits, limit, members = ring
    scale = scale_for(bits, limit, members)

    level = quantize(np.array([part * limit]), scale, lambda _: word.to_bytes(4, "little"))[0]

    assert abs(level - part * limit * scale) < 1 + 2**-20


@given(
    bits=st.sampled_from([16, 24, 32]),
    members=st.integers(1, 30),
    limit=st.floats(0.01, 10),
    seed=st.integers(0, 2**32),
)
def test_the_sum_decodes_to_plain_federated_averaging(
    bits: int, members: int, limit: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    deltas = generator.uniform(-limit, limit, (members, 40)).astype(np.float32)
    examples = generator.integers(1, CAP, members)
    encoding = WeightedEncoding(PlainBlock(40, bits, 1e3, limit * 1.001, members), members, CAP, 10.0)

    vectors = [
        encoding.encode(delta, LocalMetrics(int(n), 0, 0.0, 0), generator.bytes)
        for delta, n in zip(deltas, examples, strict=True)
    ]
    update_sum = to_ring_and_back(np.stack([v.update for v in vectors]).sum(axis=0), bits)
    metrics_sum = to_ring_and_back(np.stack([v.metrics for v in vectors]).sum(axis=0), 32)
    mean = encoding.decode(update_sum, metrics_sum, members, bytes)

    fedavg = np.average(deltas.astype(np.float64), axis=0, weights=examples)
    total_weight = examples.sum() / CAP
    bound = (
        members / encoding.block.scale + members * encoding.block.limit / encoding.metrics_scale
    ) / total_weight
    assert np.abs(mean.mean - fedavg).max() <= bound + 1e-6 * limit
    assert abs(mean.examples - examples.sum()) <= members * CAP / encoding.metrics_scale


@given(st.integers(1, 1024))
def test_metrics_of_all_members_at_their_largest_never_overflow(members: int) -> None:
    encoding = WeightedEncoding(PlainBlock(1, 32, 1.0, 1.0, members), members, CAP, loss_ceiling=1.0)
    largest = LocalMetrics(examples=10 * CAP, evaluated=10 * CAP, loss_sum=1e12, correct=10 * CAP)

    metrics = encoding.encode(np.array([9.0], np.float32), largest, bytes).metrics.astype(np.int64)

    assert (metrics * members).max() <= 2**31 - 1
    assert metrics[:4].tolist() == [encoding.metrics_scale] * 4
