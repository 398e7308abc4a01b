"""Layouts and vectors at their edges; `vectors/secagg.json` holds the wire format."""

import pickle

import numpy as np
import pytest

from secagg.errors import RingError
from secagg.ring import RingLayout, RingVector


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (RingLayout(0, 8, 0), 0),
        (RingLayout(1_000_000, 16, 8), 2_000_032),
        (RingLayout(3, 10, 1), 8),
        (RingLayout(1, 31, 0), 4),
    ],
)
def test_the_packed_size_is_known_before_packing(layout: RingLayout, size: int) -> None:
    assert layout.packed_size == size
    assert len(RingVector.zeros(layout).pack()) == size
    assert RingVector.unpack(layout, bytes(size)).pack() == bytes(size)


@pytest.mark.parametrize(("size", "bits", "metrics"), [(1, 7, 0), (1, 33, 0), (-1, 8, 0), (1, 8, -1)])
def test_an_impossible_layout_is_refused(size: int, bits: int, metrics: int) -> None:
    with pytest.raises(RingError):
        RingLayout(size, bits, metrics)


def test_vectors_of_two_layouts_do_not_add() -> None:
    with pytest.raises(RingError):
        RingVector.zeros(RingLayout(4, 16, 1)).add(RingVector.zeros(RingLayout(4, 12, 1)))


def test_arrays_of_another_shape_do_not_make_a_vector() -> None:
    with pytest.raises(RingError):
        RingVector.from_signed(RingLayout(4, 16, 1), np.zeros(1, np.int64), np.zeros((2, 2), np.int64))


def test_whole_byte_widths_are_read_without_a_copy() -> None:
    layout = RingLayout(1000, 16, 2)
    data = bytearray(layout.packed_size)
    vector = RingVector.unpack(layout, memoryview(data))
    data[8] = 7
    assert vector.update[0] == 7


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 32])
def test_a_vector_lives_in_memory_it_is_given(bits: int) -> None:
    layout = RingLayout(5, bits, 2)
    memory = memoryview(bytearray(layout.memory_size + 3))
    one = RingVector.from_signed(layout, np.array([1, -1]), np.array([1, -1, 2, -2, 3]))
    RingVector.over(layout, memory).add(one)
    shared = RingVector.over(layout, memory)
    assert shared.pack() == one.pack()
    with pytest.raises(RingError):
        RingVector.over(layout, memory[: layout.memory_size - 1])


def test_sums_wrap_in_the_ring() -> None:
    layout = RingLayout(2, 12, 1)
    total = RingVector.from_signed(layout, np.array([2**31 - 1]), np.array([2047, -2048]))
    total.add(RingVector.from_signed(layout, np.array([1]), np.array([1, -1])))
    assert total.signed_metrics().tolist() == [-(2**31)]
    assert total.signed_update().tolist() == [-2048, 2047]


def test_a_vector_goes_to_a_worker_and_back() -> None:
    vector = RingVector.from_signed(RingLayout(3, 20, 1), np.array([-5]), np.array([1, -2, 3]))
    back: RingVector = pickle.loads(pickle.dumps(vector))  # noqa: S301 (our own bytes)
    assert back.pack() == vector.pack()
    assert back.layout == vector.layout
