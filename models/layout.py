"""Named tensors to one flat float32 vector and back.

Everything beyond the engine (clip, quantise, mask, sum, server optimizer) sees one vector; this table is
the only place that knows which part of it is which tensor.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from models.bounds import MAX_PARAMETERS
from models.errors import ModelError

Dimension = Annotated[int, Meta(ge=1, le=MAX_PARAMETERS)]
TensorName = Annotated[str, Meta(min_length=1, max_length=256)]
Shape = Annotated[tuple[Dimension, ...], Meta(max_length=8)]
Vector = NDArray[np.float32]


class Parameter(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One trainable tensor.

    Attributes:
        name: of the initializer in the forward graph.
        shape: of the tensor, each axis >= 1.
        offset: index of its first element in the flat vector.
    """

    name: TensorName
    shape: Shape
    offset: Annotated[int, Meta(ge=0, le=MAX_PARAMETERS)]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class ParameterTable(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The ordered parameters of a model: row-major tensors, end to end, in initializer order.

    Attributes:
        parameters: without gaps or repeated names, at most `MAX_PARAMETERS` elements together.

    Raises:
        ValueError: the offsets are not those of a gapless layout, or a name repeats.
    """

    parameters: Annotated[tuple[Parameter, ...], Meta(min_length=1, max_length=10_000)]

    def __post_init__(self) -> None:
        ends = [*accumulate(parameter.size for parameter in self.parameters)]
        if [parameter.offset for parameter in self.parameters] != [0, *ends[:-1]]:
            raise ValueError("parameter offsets leave a gap or overlap")
        if len({parameter.name for parameter in self.parameters}) != len(self.parameters):
            raise ValueError("a parameter name repeats")
        if ends[-1] > MAX_PARAMETERS:
            raise ValueError(f"{ends[-1]:,} parameters; at most {MAX_PARAMETERS:,} are allowed")

    @classmethod
    def of(cls, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> "ParameterTable":
        """Lay tensors of these (name, shape) end to end, in this order."""
        rows: list[Parameter] = []
        offset = 0
        for name, shape in shapes:
            rows.append(Parameter(name, shape, offset))
            offset += rows[-1].size
        return cls(tuple(rows))

    @property
    def size(self) -> int:
        """Length d of the flat vector."""
        last = self.parameters[-1]
        return last.offset + last.size

    def flatten(self, tensors: Mapping[str, NDArray[np.floating]]) -> Vector:
        """Copy named tensors into one vector.

        Args:
            tensors: exactly the table's names, each with the table's shape.

        Returns:
            float32, shape (d,).

        Raises:
            ModelError: a tensor is missing, unknown or of another shape.
        """
        names = {parameter.name for parameter in self.parameters}
        if names != tensors.keys():
            raise ModelError(f"tensors {sorted(names ^ tensors.keys())} are missing or not of this model")
        for parameter in self.parameters:
            if tensors[parameter.name].shape != parameter.shape:
                found = tensors[parameter.name].shape
                raise ModelError(f"tensor {parameter.name!r} has shape {found}, expected {parameter.shape}")
        return np.concatenate(
            [np.asarray(tensors[parameter.name], dtype=np.float32).ravel() for parameter in self.parameters]
        )

    def unflatten(self, vector: Vector) -> dict[str, Vector]:
        """Cut a vector into named tensors.

        Args:
            vector: shape (d,), float32.

        Returns:
            Views of `vector`, no copies, in table order.

        Raises:
            ModelError: the vector's shape is not (d,).
        """
        if vector.shape != (self.size,):
            raise ModelError(f"a vector of shape {vector.shape} for a model of {self.size:,} parameters")
        return {
            parameter.name: vector[parameter.offset : parameter.offset + parameter.size].reshape(
                parameter.shape
            )
            for parameter in self.parameters
        }
