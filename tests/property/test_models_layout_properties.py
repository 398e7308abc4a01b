import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.layout import ParameterTable

names = st.text("abcdefgh._0123", min_size=1, max_size=8)
shapes = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@given(st.dictionaries(names, shapes, min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_cutting_and_joining_undo_each_other(tensors: dict[str, tuple[int, ...]], seed: int) -> None:
    table = ParameterTable.of(tensors.items())
    vector = np.random.default_rng(seed).normal(size=table.size).astype(np.float32)

    cut = table.unflatten(vector)

    assert list(cut) == list(tensors)
    assert {name: values.shape for name, values in cut.items()} == tensors
    assert np.array_equal(table.flatten(cut), vector)
