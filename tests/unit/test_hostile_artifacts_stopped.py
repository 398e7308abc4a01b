"""Hostile artifacts that decoding or scanning finds, without ONNX Runtime in the process that looks."""

import subprocess
import sys
import tracemalloc

import pytest
from hostile_artifacts import GOOD, Hostile, contained, stopped

from models.bundle import Bundle
from models.bundle_scan import check_bundle
from models.errors import BundleError

STOPPED = list(stopped())


@pytest.mark.parametrize("hostile", STOPPED, ids=lambda hostile: hostile.name)
def test_it_is_refused_with_its_cause(hostile: Hostile) -> None:
    with pytest.raises(BundleError, match=hostile.ends):
        check_bundle(Bundle.decode(hostile.bundle))


def test_the_corpus_is_large_and_no_two_have_a_name() -> None:
    names = [hostile.name for hostile in [*STOPPED, *contained()]]

    assert len(names) == len(set(names)) >= 200
    assert len(STOPPED) >= 150


def test_refusing_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        for hostile in STOPPED:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(BundleError):
                check_bundle(Bundle.decode(hostile.bundle))
            taken = tracemalloc.get_traced_memory()[1] - before
            assert taken < 32 * 2**20, hostile.name
    finally:
        tracemalloc.stop()


def test_the_scan_needs_neither_onnx_nor_protobuf_nor_onnxruntime() -> None:
    program = (
        "import sys; from models.bundle import Bundle; from models.bundle_scan import check_bundle;"
        "check_bundle(Bundle.decode(sys.stdin.buffer.read()));"
        "print([name for name in ('onnx', 'google.protobuf', 'onnxruntime') if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", program], input=GOOD.encode(), capture_output=True, check=True
    )

    assert answer.stdout == b"[]\n"
