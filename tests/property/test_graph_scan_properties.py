"""However a good graph is damaged: the scan refuses in its own words, or has read what `onnx` reads."""

import tracemalloc
from typing import Any

import hypothesis.strategies as st
import onnx
import pytest
from hostile_artifacts import ENGINES, GOOD, aim
from hostile_artifacts.steps import ROLED
from hypothesis import given, settings

from models.bundle import Bundle, BundleManifest
from models.bundle_scan import CHECKPOINT_FILE, ORT_GRAPH_FILES, check_bundle
from models.errors import BundleError
from models.graph_scan import ScannedGraph, scan_graph
from models.step_inputs import STEP_OPSET

GRAPHS = sorted(GOOD.files.keys() - {CHECKPOINT_FILE, *ORT_GRAPH_FILES})
MEMORY = 8 * 2**20
"""Bytes; 30 times the largest of these files, most of it Python's own weight of a field."""


@st.composite
def damaged(draw: st.DrawFn, contents: list[bytes]) -> bytes:
    """A content in which pieces were changed, left out, doubled, or taken from another."""
    data = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(0, 40))
        other = draw(st.sampled_from(contents))
        piece = draw(
            st.one_of(
                st.just(b""),
                st.binary(max_size=24),
                st.integers(0, 2**64 - 1).map(lambda number: number.to_bytes(8, "little")),
                st.integers(0, len(other)).map(lambda start, other=other: other[start : start + 60]),  # type: ignore[misc]
            )
        )
        data[at : at + length] = piece
    return bytes(data)


def scanned(content: bytes, opset: int = GOOD.manifest.opset) -> ScannedGraph | None:
    """What the scan says of a graph; None when it refuses."""
    tracemalloc.start()
    try:
        return scan_graph("damaged.onnx", content, opset=opset, ir=GOOD.manifest.ir)
    except BundleError:
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MEMORY


@pytest.mark.parametrize(
    ("names", "opset"), [(GRAPHS, GOOD.manifest.opset), (ORT_GRAPH_FILES, STEP_OPSET)], ids=ENGINES[::-1]
)
@given(data=st.data())
@settings(max_examples=1500, deadline=None)
def test_a_damaged_graph_is_refused_or_read_as_onnx_reads_it(
    names: list[str], opset: int, data: st.DataObject
) -> None:
    content = data.draw(damaged([GOOD.files[name] for name in names]))
    graph = scanned(content, opset)
    if graph is None:
        return
    model: Any = onnx.load_model_from_string(content)

    assert [(each.domain, each.op_type, tuple(each.input)) for each in model.graph.node] == [*graph.nodes]
    assert [each.name for each in model.graph.input] == [each.name for each in graph.inputs]
    assert [each.name for each in model.graph.output] == [each.name for each in graph.outputs]
    assert not model.functions
    assert not model.training_info
    for tensor in model.graph.initializer:
        assert not tensor.external_data
        assert tensor.data_location == onnx.TensorProto.DEFAULT


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_noise_is_refused(content: bytes) -> None:
    assert scanned(content) is None


@pytest.mark.parametrize("engine", ENGINES)
@given(data=st.data())
@settings(max_examples=700, deadline=None)
def test_a_damaged_bundle_is_refused_or_still_a_bundle(engine: str, data: st.DataObject) -> None:
    content = data.draw(damaged([aim(GOOD, engine).bundle]))
    try:
        bundle = Bundle.decode(content)
        check_bundle(bundle, engine)
    except BundleError:
        return
    assert bundle.manifest.parameters.size > 0


@given(damaged([GOOD.manifest.encode(), ROLED.manifest.encode()]))
@settings(max_examples=3000, deadline=None)
def test_a_damaged_manifest_is_refused_or_names_all_that_an_engine_needs(content: bytes) -> None:
    """What the agent does with it, outside of the process that trains."""
    try:
        manifest = BundleManifest.decode(content)
    except BundleError:
        return
    assert len(manifest.model_id) == len(manifest.id) == 32
    for engine in manifest.engines:
        for name in manifest.needed(engine):
            assert manifest.files[name].size > 0


def test_what_is_not_damaged_is_read() -> None:
    assert all(scanned(GOOD.files[name]) for name in GRAPHS)
    with pytest.raises(BundleError, match="opset 17, its manifest says 12"):
        scan_graph("good.onnx", GOOD.files[GRAPHS[0]], opset=12, ir=GOOD.manifest.ir)
