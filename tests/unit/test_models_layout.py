import msgspec
import numpy as np
import pytest

from models.bounds import MAX_PARAMETERS
from models.errors import ModelError
from models.layout import Parameter, ParameterTable


def table() -> ParameterTable:
    return ParameterTable.of([("z.weight", (2, 3)), ("a.bias", (3,))])


def test_the_order_is_that_of_the_graph_and_not_alphabetical() -> None:
    vector = table().flatten({"a.bias": np.full(3, 9.0), "z.weight": np.arange(6.0).reshape(2, 3)})

    assert vector.dtype == np.float32
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 9, 9, 9]


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"z.weight": np.zeros((2, 3))}, "a.bias"),
        ({"z.weight": np.zeros((2, 3)), "a.bias": np.zeros(3), "b": np.zeros(1)}, "'b'"),
        ({"z.weight": np.zeros((3, 2)), "a.bias": np.zeros(3)}, r"\(3, 2\), expected \(2, 3\)"),
    ],
)
def test_wrong_tensors_are_named(tensors: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        table().flatten(tensors)


def test_a_vector_of_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match="9 parameters"):
        table().unflatten(np.zeros(8, dtype=np.float32))


@pytest.mark.parametrize(
    "rows",
    [
        [("a", (2,), 0), ("b", (2,), 3)],
        [("a", (2,), 1)],
        [("a", (2,), 0), ("a", (2,), 2)],
        [("a", (MAX_PARAMETERS,), 0), ("b", (1,), MAX_PARAMETERS)],
        [],
    ],
)
def test_a_table_from_the_wire_must_be_a_layout(rows: list[tuple[str, tuple[int, ...], int]]) -> None:
    encoded = msgspec.msgpack.encode([rows])

    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encoded, type=ParameterTable)


def test_a_table_survives_the_wire() -> None:
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(table()), type=ParameterTable)

    assert decoded == table()
    assert decoded.parameters[1] == Parameter("a.bias", (3,), 6)
