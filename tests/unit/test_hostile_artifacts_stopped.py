"""Hostile artifacts that decoding or scanning finds, without ONNX Runtime in the process that looks."""

import subprocess
import sys
import tracemalloc

import pytest
from hostile_artifacts import ENGINES, EXPORT, GOOD, Hostile, aim, contained, stopped

from models.bounds import MAX_BUNDLE_BYTES
from models.bundle import Bundle
from models.bundle_scan import check_bundle, check_forward
from models.errors import BundleError

STOPPED = list(stopped())


def check(hostile: Hostile) -> None:
    """What the one it is aimed at does before anything else."""
    bundle = Bundle.decode(hostile.bundle)
    if hostile.engine == EXPORT:
        check_forward(bundle)
    else:
        check_bundle(bundle, hostile.engine)


@pytest.mark.parametrize("hostile", STOPPED, ids=lambda hostile: hostile.name)
def test_it_is_refused_with_its_cause(hostile: Hostile) -> None:
    with pytest.raises(BundleError, match=hostile.ends):
        check(hostile)


def test_the_corpus_is_large_and_no_two_have_a_name() -> None:
    names = [hostile.name for hostile in [*STOPPED, *contained()]]

    assert len(names) == len(set(names)) >= 500
    for engine in ENGINES:
        assert sum(hostile.engine == engine for hostile in STOPPED) >= 150


def test_what_is_longer_than_any_bundle_is_not_even_looked_at() -> None:
    with pytest.raises(BundleError, match=f"at most {MAX_BUNDLE_BYTES:,}"):
        Bundle.decode(bytes(MAX_BUNDLE_BYTES + 1))


def test_refusing_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        for hostile in STOPPED:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(BundleError):
                check(hostile)
            taken = tracemalloc.get_traced_memory()[1] - before
            assert taken < 32 * 2**20, hostile.name
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_scan_needs_neither_onnx_nor_protobuf_nor_onnxruntime(engine: str) -> None:
    program = (
        "import sys; from models.bundle import Bundle; from models.bundle_scan import check_bundle;"
        f"check_bundle(Bundle.decode(sys.stdin.buffer.read()), {engine!r});"
        "print([name for name in ('onnx', 'google.protobuf', 'onnxruntime') if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", program], input=aim(GOOD, engine).bundle, capture_output=True, check=True
    )

    assert answer.stdout == b"[]\n"
