"""The agent itself reads manifests of bundles: it refuses bytes of any kind, in little memory."""

import tracemalloc

import pytest
from hostile_artifacts import GOOD, HostileManifest, greedy, manifests
from msgspec.structs import replace

from models.bounds import MAX_BUNDLE_BYTES, MAX_MANIFEST_BYTES
from models.bundle import BundleManifest
from models.errors import BundleError
from models.installed import ORT_GRAPH

HOSTILE = list(manifests())


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_it_is_refused_with_its_cause(hostile: HostileManifest) -> None:
    with pytest.raises(BundleError, match=hostile.refusal) as refused:
        BundleManifest.decode(hostile.data)

    assert len(str(refused.value)) < 1_000  # it is logged


def test_refusing_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        for hostile in HOSTILE:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(BundleError):
                BundleManifest.decode(hostile.data)
            taken = tracemalloc.get_traced_memory()[1] - before
            assert taken < 2 * MAX_MANIFEST_BYTES, hostile.name
    finally:
        tracemalloc.stop()


def test_whatever_a_manifest_says_an_engines_part_fits_a_bundle() -> None:
    manifest = BundleManifest.decode(greedy())

    assert sum(manifest.files[name].size for name in manifest.needed(ORT_GRAPH)) <= MAX_BUNDLE_BYTES


def test_private_weights_belong_to_a_model_and_to_who_shares_what() -> None:
    """So that no coordinator gets them by calling them shared."""
    manifest = GOOD.manifest
    rows = manifest.parameters.parameters
    table = type(manifest.parameters)
    apart = replace(
        manifest,
        parameters=table.of((row.name, row.shape) for row in rows[1:]),
        private=table.of([(rows[0].name, rows[0].shape)]),
        files=manifest.files | {"private": manifest.files["forward.onnx"]},
    )

    assert apart.model_id != manifest.model_id
