"""What a tensor or a shape in a graph may say of itself, and whether the bytes behind it are as many."""

import math
from collections.abc import Sequence

from models.bounds import MAX_PARAMETERS
from models.onnx_schema import ELEMENT_BYTES, ElementType
from models.protobuf_reader import Message, Reader, count_varints

MAX_RANK = 8
"""As for parameters."""

MAX_ELEMENTS = MAX_PARAMETERS
"""Of a declared or constant shape: as many as a whole model may have, 256 MiB of float32."""

MAX_NUMBERS = 64
"""In a list of an attribute, and in a constant that is read as a shape: a few for each axis."""

_DATA_FIELDS = {
    "raw_data": None,
    "float_data": {ElementType.FLOAT},
    "int32_data": {ElementType.INT32, ElementType.BOOL, ElementType.FLOAT16},
    "int64_data": {ElementType.INT64},
    "double_data": {ElementType.DOUBLE},
}


def check_shape(reader: Reader, sizes: Sequence[int], rank: int, what: str) -> int:
    """Refuse what no device could hold.

    Args:
        reader: of the file.
        sizes: the lengths that are said.
        rank: how many axes there are, those of any length included.
        what: has this shape, for errors.

    Returns:
        The product of the sizes.

    Raises:
        BundleError: too many axes or elements, or a negative length.
    """
    if rank > MAX_RANK:
        raise reader.error(f"{what} has {rank:,} axes; at most {MAX_RANK} are allowed")
    if any(size < 0 for size in sizes):
        raise reader.error(f"{what} has an axis of negative length")
    elements = math.prod(sizes)
    if elements > MAX_ELEMENTS or max(sizes, default=0) > MAX_ELEMENTS:
        raise reader.error(f"{what} has more than {MAX_ELEMENTS:,} elements")
    return elements


def check_tensor(reader: Reader, tensor: Message, what: str) -> tuple[int, ...] | None:
    """Refuse a tensor whose data is elsewhere, or of another length than its shape says.

    Args:
        reader: of the file.
        tensor: its message.
        what: it is, for errors.

    Returns:
        Its values, if it is of int64 and short enough to be read as a shape.

    Raises:
        BundleError: names the cause.
    """
    if tensor.number("data_location"):
        raise reader.error(f"{what} has its data in another file")
    dtype = tensor.number("data_type")
    if dtype not in ELEMENT_BYTES:
        raise reader.error(f"{what} has elements of type {dtype}, which are not allowed")
    sizes = reader.integers(tensor, "dims", MAX_RANK)
    elements = check_shape(reader, sizes, len(sizes), what)
    fields = [name for name in _DATA_FIELDS if tensor.has(name)]
    if len(fields) > 1:
        raise reader.error(f"{what} has data in both {fields[0]} and {fields[1]}")
    held = _count_elements(reader, tensor, dtype, fields[0], what) if fields else 0
    if held != elements:
        raise reader.error(f"{what} has {held:,} elements, its shape {elements:,}")
    if dtype != ElementType.INT64 or not 0 < elements <= MAX_NUMBERS:
        return None
    if fields == ["raw_data"]:
        return tuple(tensor.parts("raw_data")[0].cast("q"))
    return reader.integers(tensor, fields[0], MAX_NUMBERS)


def _count_elements(reader: Reader, tensor: Message, dtype: int, field: str, what: str) -> int:
    if field == "raw_data":
        data = tensor.parts(field)[0]
        if len(data) % ELEMENT_BYTES[dtype]:
            raise reader.error(f"{what} has {len(data):,} bytes, not a whole number of elements")
        return len(data) // ELEMENT_BYTES[dtype]
    if dtype not in (_DATA_FIELDS[field] or ()):
        raise reader.error(f"{what} of type {dtype} has its data in {field}")
    packed = tensor.parts(field)
    single = len(tensor.values[field]) - len(packed)
    match field:
        case "float_data" | "double_data":
            width = ELEMENT_BYTES[dtype]
            # An unpacked element is a part of one element's width.
            if any(len(part) % width for part in packed):
                raise reader.error(f"{what} has {field} that is not a whole number of elements")
            return sum(len(part) // width for part in packed)
        case _:
            return single + sum(count_varints(part) for part in packed)
