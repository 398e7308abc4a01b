"""The streams are AES-CTR from counter zero, and run over a vector without gaps or repeats."""

import numpy as np
import pytest

from secagg.keys import Secret
from secagg.prg import CHUNK, Keystream, StreamAdder, add_stream, keystream
from secagg.ring import RingLayout, RingVector

KEY = Secret(bytes(range(16)))


@pytest.mark.parametrize(
    ("key_size", "blocks"),
    [
        (
            16,
            "66e94bd4ef8a2c3b884cfa59ca342b2e58e2fccefa7e3061367f1d57a4e7455a0388dace60b6a392f328c2b971b2fe78",
        ),
        (
            32,
            "dc95c078a2408989ad48a21492842087530f8afbc74536b9a963b4f1c4cb738bcea7403d4d606b6e074ec5d3baf39d18",
        ),
    ],
)
def test_the_stream_is_aes_in_counter_mode(key_size: int, blocks: str) -> None:
    """Counter blocks 0, 1, 2 under the zero key: H, the tag of case 1, the text of case 2 of GCM's vectors.

    McGrew and Viega 2005, "The Galois/Counter Mode of Operation", appendix B, test cases 1, 2, 13 and 14.
    """
    zero = Secret(bytes(key_size))
    assert keystream(zero, 48).hex() == blocks
    assert keystream(zero, 33) == keystream(zero, 48)[:33]
    assert keystream(zero, 0) == b""
    pieces = Keystream(zero)
    assert b"".join(pieces.read(count) for count in (1, 0, 15, 17, 15)).hex() == blocks


@pytest.mark.parametrize(("bits", "dtype"), [(8, "<u1"), (12, "<u2"), (16, "<u2"), (20, "<u4"), (32, "<u4")])
@pytest.mark.parametrize("size", [0, 1, 5, CHUNK // 4, CHUNK + 3, 2 * CHUNK])
def test_a_vector_takes_the_stream_in_order(bits: int, dtype: str, size: int) -> None:
    vector = RingVector.zeros(RingLayout(size, bits, metrics_size=3))
    add_stream(vector, KEY, 1)
    stream = keystream(KEY, 12 + vector.update.nbytes)
    assert vector.metrics.tobytes() == stream[:12]
    assert np.array_equal(vector.update, np.frombuffer(stream[12:], dtype))


def test_minus_takes_away_what_plus_added_and_the_buffer_leaves_no_trace() -> None:
    layout = RingLayout(100_003, 20, 5)
    vector = RingVector.zeros(layout)
    adder = StreamAdder(vector)
    adder.add(KEY, 1)
    assert np.any(vector.update)
    adder.add(Secret(b"another key 16 B"), 1)
    adder.add(KEY, -1)
    adder.add(Secret(b"another key 16 B"), -1)
    assert not np.any(vector.update)
    assert not np.any(vector.metrics)
