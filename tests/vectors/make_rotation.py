"""Writes rotation.json: the rotation by its definition, one sum for each coordinate, sharing no code with
`privacy`.

Run `python tests/vectors/make_rotation.py > tests/vectors/rotation.json` after a deliberate change of the
protocol.
"""

import hashlib
import json
import math
import sys
from typing import Any

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 12, 17)
LAYERS = 4


def signs_for(size: int) -> bytes:
    """Bytes that anybody can make again; the bits after the last coordinate are left as they fall."""
    return hashlib.sha256(b"rotation %d" % size).digest()[: LAYERS * math.ceil(size / 8)]


def hadamard(values: list[float]) -> list[float]:
    return [
        math.fsum((-1) ** (i & j).bit_count() * value for j, value in enumerate(values))
        / math.sqrt(len(values))
        for i in range(len(values))
    ]


def rotated(values: list[float], signs: bytes) -> list[float]:
    size = len(values)
    wide, layer_bytes = 2 ** int(math.log2(size)), math.ceil(size / 8)
    for layer in range(LAYERS):
        bits = int.from_bytes(signs[layer * layer_bytes :][:layer_bytes], "little")
        values = [-value if bits >> i & 1 else value for i, value in enumerate(values)]
        if layer % 2 == 0:
            values = hadamard(values[:wide]) + values[wide:]
        else:
            values = values[: size - wide] + hadamard(values[size - wide :])
    return values


def case(size: int) -> dict[str, Any]:
    values = [float(i * i % 11 - 5) for i in range(1, size + 1)]
    return {"signs": signs_for(size).hex(), "values": values, "rotated": rotated(values, signs_for(size))}


def refused() -> list[dict[str, Any]]:
    return [
        {"why": "no coordinate", "signs": "", "values": []},
        {"why": "signs for one layer", "signs": "00", "values": [1.0, 2.0]},
        {"why": "bits not padded for each layer", "signs": "0000", "values": [1.0, 2.0, 3.0, 4.0]},
        {"why": "one byte too many", "signs": "0000000000", "values": [1.0, 2.0, 3.0]},
    ]


if __name__ == "__main__":
    vectors = {"rotation": [case(size) for size in SIZES], "refused": refused()}
    sys.stdout.write(json.dumps(vectors, indent=1) + "\n")
